"""Training pairs of real photographs with depth and poses: MegaDepth, ScanNet, COLMAP, and lists of pairs."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from tiepoint.data.base import ResumableData, expect
from tiepoint.data.depths import read_depth
from tiepoint.data.layouts import read_scenes
from tiepoint.data.order import Draw, ResumableLoader
from tiepoint.data.scenes import (
    Scene,
    balanced,
    check_files,
    scenes_hash,
    split_scenes,
    with_depth,
    within_overlap,
)
from tiepoint.errors import InputError
from tiepoint.evaluation.frames import rescale_intrinsics
from tiepoint.images import read_image
from tiepoint.ops.depth import depth_warp, infinite_homography
from tiepoint.ops.photometric import PhotometricChanges, mix_channels, photometric_change
from tiepoint.types import Float32, Float64

SCENE_PAIRS = 100  # pairs of every scene an epoch, where nothing else is asked for (as LoFTR, from MegaDepth)
# by which the proportions of an image may differ from those of its depth map or intrinsics; ScanNet's do by 0.4 %
_DISTORTION = 0.05


class PosedViews(Dataset[dict[str, Tensor]]):
    """Pairs of views cut to one size.

    The largest window of the wanted proportions is cut out of each image: the same one of both, moved at random for
    training, the central one for held-out pairs. An item holds `photo0` and `photo1`, (3, H, W) uint8; `depth0` and
    `depth1`, (H, W), 0 where unknown; `K0`, `K1` and `T_0to1`; `inverse_depths`, (2,), least and greatest, NaN where
    not told; `scene`, its number; and for held-out pairs `held_out`.

    Args:
        scenes: whose pairs, one scene after the other.
        size: (height, width) of the views.
        held_out: whether they are held-out pairs.
    """

    def __init__(self, scenes: Sequence[Scene], size: tuple[int, int], *, held_out: bool = False) -> None:
        self.scenes, self.size, self.held_out = scenes, size, held_out
        self._starts = np.cumsum([0, *map(len, scenes)])

    def __len__(self) -> int:
        return int(self._starts[-1])

    def __getitem__(self, which: int | Draw) -> dict[str, Tensor]:
        index, seed = which if isinstance(which, Draw) else Draw(which, which)
        place = int(np.searchsorted(self._starts, index, side="right")) - 1
        scene, pair = self.scenes[place], index - int(self._starts[place])
        at = 0.5 if self.held_out else float(np.random.default_rng(seed).random())
        item = {"T_0to1": torch.from_numpy(scene.relative_pose(pair)).float(), "scene": torch.tensor(place)}
        item["inverse_depths"] = torch.from_numpy(scene.inverse_depths(pair)).float()
        for side, view in enumerate(scene.pairs[pair]):
            photo, depth, K = read_view(scene, int(view), self.size, at=at)
            item[f"photo{side}"] = photo
            item[f"depth{side}"], item[f"K{side}"] = torch.from_numpy(depth), torch.from_numpy(K).float()
        return item | ({"held_out": torch.tensor(True)} if self.held_out else {})


def read_view(scene: Scene, view: int, size: tuple[int, int], *, at: float) -> tuple[Tensor, Float32, Float64]:
    """Cut the largest window of the wanted proportions out of a view, and shrink or enlarge it.

    Args:
        scene: whose.
        view: which.
        size: (height, width) wanted.
        at: where the window lies along the side that is too long, 0 to 1.

    Returns:
        The photo (3, H, W) uint8; the depth (H, W), read at the nearest pixel, since a mean of two objects is neither,
        or 0 where there is no map; and K (3, 3) of what was cut.

    Raises:
        InputError: a file cannot be read, or its proportions differ from the image's.
    """
    (height, width), path = size, scene.images[view]
    image = Image.fromarray(read_image(path))
    depth = np.zeros((image.height, image.width), np.float32)
    if scene.depths[view]:
        depth = read_depth(scene.depths[view], float(scene.depth_scales[view]))
        _same_proportions(depth.shape, image, f"the depth map {scene.depths[view]} has")
    K_height, K_width = scene.sizes[view] if scene.sizes[view].all() else (image.height, image.width)
    _same_proportions((K_height, K_width), image, f"the intrinsics of {path} are those of an image of")
    shrink = min(image.width / width, image.height / height)
    box_width, box_height = shrink * width, shrink * height
    x, y = at * (image.width - box_width), at * (image.height - box_height)
    photo = image.resize((width, height), Image.Resampling.BILINEAR, (x, y, x + box_width, y + box_height))
    columns = ((np.arange(width) + 0.5) * shrink + x) * depth.shape[1] / image.width
    rows = ((np.arange(height) + 0.5) * shrink + y) * depth.shape[0] / image.height
    cut = depth[np.ix_(rows.astype(int).clip(0, depth.shape[0] - 1), columns.astype(int).clip(0, depth.shape[1] - 1))]
    K = rescale_intrinsics(scene.K[view], (K_width / image.width, K_height / image.height))
    K = rescale_intrinsics(K - np.outer((x, y, 0), (0, 0, 1)), (shrink, shrink))
    return torch.from_numpy(np.array(photo)).permute(2, 0, 1), cut, K


def _same_proportions(size: Sequence[int], image: Image.Image, what: str) -> None:
    height, width = size
    if abs(width * image.height / (height * image.width) - 1) > _DISTORTION:
        found = f"{width}×{height} px, and the image is {image.width}×{image.height}"
        raise InputError(f"{what} {found}, expected the same proportions")


class PosedPairs(ResumableData):
    """Pairs of real photographs whose correspondence follows from depth, intrinsics and poses.

    The folder holds MegaDepth or ScanNet in the layout of LoFTR, reconstructions by COLMAP with depth maps, or a
    `pairs.json`; which, is recognised. Workers decode and cut; the warps and occlusions of a batch are computed
    together on the device.

    Args:
        folder: of the data set.
        size: (height, width) of the views, multiples of 32.
        batch_size: pairs a step.
        epoch_pairs: pairs an epoch, as many from every scene; 100 from each if None, at most as many as there are.
        overlap: smallest and largest share that the views of a pair have in common, where the data set states one.
        held_out: share of the scenes kept for validation, and as much again for test; of the pairs, where there are
            fewer than three scenes.
        held_out_pairs: validation pairs at most, and as many test pairs; the same in every run.
        num_workers: processes that decode; one less than the cores, at most 4, if None.
        tolerance: largest relative difference of the depths of both views at one place; what differs more is hidden.
        photometric: strength of the photometric change of the training pairs, 0 to 1; held-out pairs are as they are.
        changes: how often each photometric change happens to a view; the defaults if None.
    """

    def __init__(
        self,
        folder: str | Path,
        size: tuple[int, int] = (256, 320),
        batch_size: int = 8,
        epoch_pairs: int | None = None,
        overlap: tuple[float, float] = (0.1, 0.7),
        held_out: float = 0.05,
        held_out_pairs: int = 64,
        num_workers: int | None = None,
        tolerance: float = 0.05,
        photometric: float = 1.0,
        changes: PhotometricChanges | None = None,
    ) -> None:
        super().__init__(batch_size, num_workers, content="pairs")
        expect("size", size, min(size) >= 32 and not size[0] % 32 and not size[1] % 32, "multiples of 32")
        expect("held_out", held_out, 0 < held_out < 0.5, "a share between 0 and 0.5")
        expect("batch_size", batch_size, batch_size >= 1, "1 or more")
        expect("held_out_pairs", held_out_pairs, held_out_pairs >= 1, "1 or more")
        expect("epoch_pairs", epoch_pairs, epoch_pairs is None or epoch_pairs >= 1, "1 or more")
        expect("overlap", list(overlap), 0 <= overlap[0] <= overlap[1] <= 1, "two shares, the smaller one first")
        expect("tolerance", tolerance, 0 < tolerance < 1, "between 0 and 1")
        expect("photometric", photometric, 0 <= photometric <= 1, "0 to 1")
        folder = str(folder)  # a checkpoint with a Path in it could not be read safely
        self.save_hyperparameters()
        self.remember(changes)
        self.folder, self.size, self.epoch_pairs = Path(folder), size, epoch_pairs
        self.overlap, self.held_out, self.held_out_pairs = overlap, held_out, held_out_pairs
        self.tolerance, self.photometric, self.changes = tolerance, photometric, changes
        self.splits: dict[str, list[Scene]] = {}

    def setup(self, stage: str | None = None) -> None:
        """Read the lists of pairs and split them; every stage uses the same split."""
        if self.splits:
            return
        scenes = within_overlap(self.usable(read_scenes(self.folder)), *self.overlap)
        check_files(scenes)
        splits = split_scenes(scenes, held_out=self.held_out)
        # what is wrong with every file is better told now than by a worker
        PosedViews(splits["train"], self.size)[0]
        self.splits, self.data_hash = splits, scenes_hash(scenes)
        self.begin()

    def usable(self, scenes: list[Scene]) -> list[Scene]:
        """Of all pairs those that can be learned from."""
        return with_depth(scenes)

    def train_dataloader(self) -> DataLoader[dict[str, Tensor]]:
        """Pairs of all scenes in turn, `epoch_pairs` of them."""
        views = PosedViews(self.splits["train"], self.size)
        counts = [len(scene) for scene in views.scenes]
        order = self.order(views, self.epoch_pairs or min(len(views), SCENE_PAIRS * len(counts)), groups=counts)
        return ResumableLoader(views, batch_size=self.batch_size, sampler=order, **self.loading())

    def val_dataloader(self) -> DataLoader[dict[str, Tensor]]:
        """Pairs of the validation scenes."""
        return self._held_out_loader("val")

    def test_dataloader(self) -> DataLoader[dict[str, Tensor]]:
        """Pairs of the test scenes."""
        return self._held_out_loader("test")

    def _held_out_loader(self, split: str) -> DataLoader[dict[str, Tensor]]:
        views = PosedViews(balanced(self.splits[split], self.held_out_pairs), self.size, held_out=True)
        return self.held_out_loader(views)

    def on_after_batch_transfer(self, batch: dict[str, Any], dataloader_idx: int) -> dict[str, Any]:
        """Warp the views to each other, and change the light of training pairs, on the device that they are on."""
        if "photo0" not in batch:
            return batch
        photos = batch["photo0"].float() / 255, batch["photo1"].float() / 255
        depth0, depth1, K0, K1, T_0to1 = (batch[name] for name in ("depth0", "depth1", "K0", "K1", "T_0to1"))
        forth = depth_warp(depth0, depth1, K0, K1, T_0to1, tolerance=self.tolerance)
        back = depth_warp(depth1, depth0, K1, K0, torch.linalg.inv(T_0to1), tolerance=self.tolerance)
        strength = 0.0 if "held_out" in batch else self.photometric
        generator = self.generator(T_0to1.device)
        clean0, clean1 = (mix_channels(photo, strength, generator=generator) for photo in photos)
        images = photometric_change(torch.cat((clean0, clean1)), strength, self.changes, generator=generator)
        image0, image1 = images.chunk(2)
        posed = torch.ones(len(T_0to1), dtype=torch.bool, device=T_0to1.device)
        return {
            "image0": image0,
            "image1": image1,
            "clean0": clean0,
            "clean1": clean1,
            "warp_0to1": forth.warp,
            "warp_1to0": back.warp,
            "covisible0": forth.covisible,
            "covisible1": back.covisible,
            "known0": forth.known,
            "known1": back.known,
            "depth0": depth0,
            "depth1": depth1,
            "planar": ~posed,
            "H_0to1": infinite_homography(K0, K1, T_0to1),
            "posed": posed,
            "K0": K0,
            "K1": K1,
            "T_0to1": T_0to1,
            "scene": batch["scene"],
        }
