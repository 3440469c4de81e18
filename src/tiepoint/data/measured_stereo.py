"""Training pairs for depth: rectified stereo of real cameras, with measured disparities or none."""

import hashlib
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from loguru import logger
from PIL import Image
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from tiepoint.data.base import ResumableData, expect
from tiepoint.data.depths import read_depth
from tiepoint.data.order import Draw, ResumableLoader
from tiepoint.data.scenes import split_names
from tiepoint.errors import InputError
from tiepoint.images import read_image
from tiepoint.ops.stereo import lit_apart, stereo_geometry
from tiepoint.ops.sweeps import seen_places, unhidden

# names of the left and right image: tiepoint's own, Middlebury 2014 and ETH3D, Middlebury 2005 and 2006, and 2003
SIDES = (("left", "right"), ("im0", "im1"), ("view1", "view5"), ("im2", "im6"))
# stems of the left disparity, the first one that is there
DISPARITIES = ("disp_left", "disp0GT", "disp0", "disp1", "disp2", "disparity", "disp")
# what tiepoint is measured on, by the names of Middlebury, whatever is added to them
BENCHMARK = ("aloe", "cloth3", "cones", "motorcycle")
_IMAGES, _MAPS = (".png", ".jpg", ".jpeg", ".ppm", ".webp"), (".pfm", ".png", ".npy")


class StereoFiles(NamedTuple):
    """The files of one scene; `disparity` is "" where there is none."""

    name: str
    left: str
    right: str
    disparity: str


def stereo_scenes(folder: Path, *, leave_out: Sequence[str] = BENCHMARK) -> list[StereoFiles]:
    """Every folder, this one and those in it, that holds a left and a right image.

    Args:
        folder: searched with its subfolders.
        leave_out: scenes whose names begin so, in capitals or not, are left out with a warning.

    Raises:
        InputError: there is no such folder, or none in it is left.
    """
    if not folder.is_dir():
        found = "is a file" if folder.is_file() else "does not exist"
        raise InputError(f"data.folder: {folder} {found}, expected a folder of stereo scenes")
    places = sorted((Path(base), set(names)) for base, _, names in os.walk(folder, followlinks=False))
    scenes = [scene for place, names in places if (scene := _scene(place, names)) is not None]
    start = tuple(each.lower() for each in leave_out)
    kept = [scene for scene in scenes if not (start and scene.name.lower().startswith(start))]
    if len(kept) < len(scenes):
        logger.warning("left out: {} of {} scenes, which are for measuring", len(scenes) - len(kept), len(scenes))
    if not kept:
        names = ", ".join(f"{left} and {right}" for left, right in SIDES)
        rest = f" besides those for measuring ({', '.join(leave_out)})" if scenes else ""
        raise InputError(f"data.folder: {folder} holds no stereo scene{rest}, expected a folder with images {names}")
    return kept


def _scene(place: Path, names: set[str]) -> StereoFiles | None:
    for sides in SIDES:
        images = [_first(place, names, (side,), _IMAGES) for side in sides]
        if all(images):
            return StereoFiles(place.name, images[0], images[1], _first(place, names, DISPARITIES, _MAPS))
    return None


def _first(place: Path, names: set[str], stems: Sequence[str], endings: Sequence[str]) -> str:
    found = (f"{stem}{ending}" for stem in stems for ending in endings)
    return next((str(place / name) for name in found if name in names), "")


class StereoViews(Dataset[dict[str, Tensor]]):
    """Windows of stereo pairs, the same one of both images.

    An image is shrunk until its disparities fit the sweep, as far as it covers the window, and by up to a third more
    for training; where they are not known, until the window shows about all of it. An item holds `photo0` and `photo1`,
    (3, H, W) uint8; `disparity`, (H, W), pixels of the window, 0 where unknown; and for held-out pairs `held_out`.

    Args:
        scenes: which.
        size: (height, width) of the windows.
        largest: disparity in the windows, pixels.
        scale: what a number of a disparity map in PNG is divided by.
        held_out: whether they are held-out pairs, whose windows are in the middle.
    """

    def __init__(
        self,
        scenes: Sequence[StereoFiles],
        size: tuple[int, int],
        *,
        largest: float,
        scale: float,
        held_out: bool = False,
    ) -> None:
        self.scenes, self.size, self.largest, self.scale, self.held_out = scenes, size, largest, scale, held_out

    def __len__(self) -> int:
        return len(self.scenes)

    def __getitem__(self, which: int | Draw) -> dict[str, Tensor]:
        index, seed = which if isinstance(which, Draw) else Draw(which, which)
        scene, (height, width) = self.scenes[index], self.size
        images = [Image.fromarray(read_image(path)) for path in (scene.left, scene.right)]
        if images[0].size != images[1].size:
            sizes = [f"{image.width}×{image.height}" for image in images]
            raise InputError(f"{scene.left} has {sizes[0]} px and {scene.right} {sizes[1]}, expected one size")
        disparity = np.zeros((images[0].height, images[0].width), np.float32)
        if scene.disparity:
            disparity = read_depth(scene.disparity, 1 / self.scale, kind="disparity map")
            if disparity.shape[::-1] != images[0].size:
                found = f"{disparity.shape[1]}×{disparity.shape[0]}"
                expected = f"{images[0].width}×{images[0].height}"
                raise InputError(f"{scene.disparity} has {found} px, expected the {expected} of {scene.left}")
        more, left, top = (0.0, 0.5, 0.5) if self.held_out else np.random.default_rng(seed).random(3)
        whole = min(images[0].width / width, images[0].height / height)
        if disparity.any():
            shrink = min(whole, max(1.0, float(disparity.max()) / self.largest) * (1 + 0.5 * more))
        else:
            shrink = whole / (1 + 0.5 * more)
        x, y = left * (images[0].width - shrink * width), top * (images[0].height - shrink * height)
        box = (x, y, x + shrink * width, y + shrink * height)
        photos = [np.array(image.resize((width, height), Image.Resampling.BILINEAR, box)) for image in images]
        # the nearest one: a mean of two objects would be on neither
        columns = ((np.arange(width) + 0.5) * shrink + x).astype(int).clip(0, images[0].width - 1)
        rows = ((np.arange(height) + 0.5) * shrink + y).astype(int).clip(0, images[0].height - 1)
        item = {f"photo{side}": torch.from_numpy(photo).permute(2, 0, 1) for side, photo in enumerate(photos)}
        item["disparity"] = torch.from_numpy(disparity[np.ix_(rows, columns)] / np.float32(shrink))
        return item | ({"held_out": torch.tensor(True)} if self.held_out else {})


class MeasuredStereo(ResumableData):
    """Folders of rectified stereo pairs, as pairs of a plane sweep.

    A scene is a folder with `left` and `right` (or `im0` and `im1`, `view1` and `view5`, `im2` and `im6`), and, where
    it was measured, the disparity of the left image: `disp_left`, `disp0GT`, `disp0`, `disp1`, …, as .pfm, .png of 16
    bits or .npy. Where there is none the views alone are learned from.

    Args:
        folder: of the scenes; subfolders are searched too.
        size: (height, width) of the views, multiples of 32.
        batch_size: pairs a step.
        epoch_pairs: pairs an epoch; all training scenes once if None.
        held_out: share of the scenes kept for validation, and as much again for test, by their names.
        held_out_pairs: validation pairs at most, and as many test pairs.
        num_workers: processes that decode; one less than the cores, at most 4, if None.
        planes: how many are swept, a multiple of 4.
        largest: of all disparities in the views, pixels; images with larger ones are shrunk.
        scale: what a number of a disparity map in PNG is divided by.
        leave_out: scenes whose names begin so are never trained on: those that tiepoint is measured on.
        photometric: strength of the differences in light, focus and noise that training pairs get, 0 to 1.
    """

    def __init__(
        self,
        folder: str | Path,
        size: tuple[int, int] = (160, 288),
        batch_size: int = 4,
        epoch_pairs: int | None = None,
        held_out: float = 0.05,
        held_out_pairs: int = 32,
        num_workers: int | None = None,
        planes: int = 24,
        largest: float = 88.0,
        scale: float = 256.0,
        leave_out: Sequence[str] = BENCHMARK,
        photometric: float = 1.0,
    ) -> None:
        super().__init__(batch_size, num_workers, content="stereo pairs")
        expect("size", size, min(size) >= 32 and not size[0] % 32 and not size[1] % 32, "multiples of 32")
        expect("batch_size", batch_size, batch_size >= 1, "1 or more")
        expect("epoch_pairs", epoch_pairs, epoch_pairs is None or epoch_pairs >= 1, "1 or more")
        expect("held_out", held_out, 0 < held_out < 0.5, "a share between 0 and 0.5")
        expect("held_out_pairs", held_out_pairs, held_out_pairs >= 1, "1 or more")
        expect("planes", planes, planes >= 4 and planes % 4 == 0, "a multiple of 4")
        expect("largest", largest, largest > 0, "pixels above 0")
        expect("scale", scale, scale > 0, "above 0")
        expect("photometric", photometric, 0 <= photometric <= 1, "0 to 1")
        folder, leave_out = str(folder), list(leave_out)  # a checkpoint with a Path in it could not be read safely
        self.save_hyperparameters()
        self.folder, self.size, self.epoch_pairs, self.leave_out = Path(folder), size, epoch_pairs, leave_out
        self.held_out, self.held_out_pairs = held_out, held_out_pairs
        self.planes, self.largest, self.scale, self.photometric = planes, largest, scale, photometric
        self.splits: dict[str, list[StereoFiles]] = {}

    def setup(self, stage: str | None = None) -> None:
        """Find the scenes and split them by their names; every stage uses the same split."""
        if self.splits:
            return
        scenes = stereo_scenes(self.folder, leave_out=self.leave_out)
        names = [os.path.relpath(scene.left, self.folder) for scene in scenes]
        splits = split_names(names, held_out=self.held_out)
        self.splits = {split: [scenes[index] for index in indices] for split, indices in splits.items()}
        logger.info("{} stereo scenes, {} with disparities", len(scenes), sum(bool(each.disparity) for each in scenes))
        # what is wrong with every file is better told now than by a worker
        self._views("train")[0]
        self.data_hash = hashlib.sha256("\n".join(sorted(names)).encode("utf-8", "surrogateescape")).hexdigest()[:16]
        self.begin()

    def train_dataloader(self) -> DataLoader[dict[str, Tensor]]:
        """Random windows of all scenes, `epoch_pairs` of them."""
        views = self._views("train")
        order = self.order(views, self.epoch_pairs or len(views))
        return ResumableLoader(views, batch_size=self.batch_size, sampler=order, **self.loading())

    def val_dataloader(self) -> DataLoader[dict[str, Tensor]]:
        """Windows of the validation scenes."""
        return self.held_out_loader(self._views("val", held_out=True))

    def test_dataloader(self) -> DataLoader[dict[str, Tensor]]:
        """Windows of the test scenes."""
        return self.held_out_loader(self._views("test", held_out=True))

    def _views(self, split: str, *, held_out: bool = False) -> StereoViews:
        scenes = self.splits[split][: self.held_out_pairs] if held_out else self.splits[split]
        return StereoViews(scenes, self.size, largest=self.largest, scale=self.scale, held_out=held_out)

    def on_after_batch_transfer(self, batch: dict[str, Any], dataloader_idx: int) -> dict[str, Tensor]:
        """Find out what is hidden, and change light and direction of training pairs, on the device they are on."""
        if "photo0" not in batch:
            return batch
        disparity, training = batch["disparity"], "held_out" not in batch
        images = torch.cat((batch["photo0"], batch["photo1"])).float() / 255
        generator = self.generator(images.device) if training else None
        if training:
            images = lit_apart(images, self.photometric, generator=generator)
        image0, image1 = images.chunk(2)
        known = disparity > 0
        eye = torch.eye(3, device=images.device).repeat(len(known), 1, 1)
        places, nearness = seen_places(eye, -eye[:, 0], disparity)
        # what is not known hides nothing; surfaces change by less than two pixels from one to the next
        shown = unhidden(places, torch.where(known, nearness, 0.0), torch.full((len(known),), 2.0).to(images))
        pairs = {"image0": image0, "image1": image1, "disparity0": disparity, "visible0": shown | ~known}
        return stereo_geometry(
            pairs | {"known0": known},
            planes=self.planes,
            largest=self.largest + 4,
            turn=0.25 if training else 0.0,
            shift=4.0 if training else 0.0,
            generator=generator,
        )
