"""Photographs and their noisy copies."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Generator, Tensor
from torch.utils.data import DataLoader, Dataset

from tiepoint.data.base import ResumableData, expect
from tiepoint.data.index import Photo, data_hash, index_photos, split_photos
from tiepoint.data.order import Draw, ResumableLoader
from tiepoint.errors import InputError
from tiepoint.images import read_image
from tiepoint.ops.noise import gaussian_noise, low_light_noise
from tiepoint.ops.warps import uniform

SIGMAS = (15, 25, 50)  # of the test, grey levels of 255
LARGEST_SIGMA = 55.0  # of the training


class CleanCrops(Dataset[dict[str, Tensor]]):
    """Windows of photographs, most of them shrunk a little, which takes the traces of their compression out.

    An item holds `clean`, (windows, 3, size, size) uint8, RGB, and for held-out crops `seed`.

    Args:
        photos: which.
        size: side of the windows, pixels.
        windows: how many of each photo: to decode it takes longer than to cut them.
        held_out: how many fixed items to serve, over and over the photos; None for random ones.
    """

    def __init__(self, photos: Sequence[Photo], size: int, windows: int = 1, *, held_out: int | None = None) -> None:
        self.photos, self.size, self.windows, self.held_out = photos, size, windows, held_out

    def __len__(self) -> int:
        return len(self.photos) if self.held_out is None else self.held_out

    def __getitem__(self, which: int | Draw) -> dict[str, Tensor]:
        index, seed = which if isinstance(which, Draw) else Draw(which, which)
        rng = np.random.default_rng(seed)
        image = Image.fromarray(read_image(self.photos[index % len(self.photos)].path))
        clean = np.stack([self._window(image, rng) for _ in range(self.windows)])
        item = {"clean": torch.from_numpy(clean).permute(0, 3, 1, 2)}
        return item if self.held_out is None else item | {"seed": torch.tensor(seed)}

    def _window(self, image: Image.Image, rng: np.random.Generator) -> np.ndarray:
        shrunk = min(min(image.width, image.height) / self.size, float(rng.uniform(1.0, 2.0)))
        side = shrunk * self.size
        x, y = rng.random() * (image.width - side), rng.random() * (image.height - side)
        size = (self.size, self.size)
        window = image.resize(size, Image.Resampling.LANCZOS, (x, y, x + side, y + side))
        pixels = np.array(window)
        for axis in (0, 1):
            pixels = np.flip(pixels, axis) if rng.random() < 0.5 else pixels
        return pixels


class TestImages(Dataset[dict[str, Tensor]]):
    """Whole images of a set; an item holds `clean`, `seed` and `grey`, whether the file has one channel."""

    __test__ = False  # pytest: no tests in here

    def __init__(self, paths: Sequence[Path]) -> None:
        self.paths = paths

    def __len__(self) -> int:
        return len(self.paths)

    def __getitem__(self, index: int) -> dict[str, Tensor]:
        pixels = read_image(str(self.paths[index]))
        grey = bool((pixels == pixels[..., :1]).all())
        clean = torch.from_numpy(pixels.copy()).permute(2, 0, 1)
        return {"clean": clean, "seed": torch.tensor(index), "grey": torch.tensor(grey)}


class NoisyPhotos(ResumableData):
    """Folders of photographs, to learn what noise is.

    Workers decode and crop; the noise of a batch is made on the device: white noise of any strength up to
    `LARGEST_SIGMA`, or that of too little light; a share of the photographs is grey.

    Args:
        folders: one folder of photos or several; subfolders are searched too.
        size: side of the crops, pixels.
        batch_size: photos a step.
        windows: crops of each.
        epoch_photos: photos an epoch; every photo once if None.
        held_out: share of the photos kept for validation, and as much again for test.
        held_out_crops: validation crops.
        num_workers: processes that decode; one less than the cores, at most 4, if None.
        low_light: share of the crops with the noise of too little light instead of white noise.
        grey: share of the crops without colour.
        tests: folders of images, or text files with a path of an image in each line, measured at `SIGMAS` by a test.
    """

    def __init__(
        self,
        folders: str | Path | list[str],
        size: int = 64,
        batch_size: int = 8,
        windows: int = 4,
        epoch_photos: int | None = None,
        held_out: float = 0.05,
        held_out_crops: int = 64,
        num_workers: int | None = None,
        low_light: float = 0.2,
        grey: float = 0.4,
        tests: list[str] | None = None,
    ) -> None:
        super().__init__(batch_size, num_workers, content="photos")
        expect("size", size, size >= 32, "32 or more")
        expect("batch_size", batch_size, batch_size >= 1, "1 or more")
        expect("windows", windows, windows >= 1, "1 or more")
        expect("held_out", held_out, 0 < held_out < 0.5, "a share between 0 and 0.5")
        expect("low_light", low_light, 0 <= low_light <= 1, "a share, 0 to 1")
        expect("grey", grey, 0 <= grey <= 1, "a share, 0 to 1")
        folders = [str(folders)] if isinstance(folders, str | Path) else [str(folder) for folder in folders]
        self.save_hyperparameters()
        self.folders, self.size, self.windows, self.epoch_photos = folders, size, windows, epoch_photos
        self.held_out, self.held_out_crops = held_out, held_out_crops
        self.low_light, self.grey, self.tests = low_light, grey, tests or []
        self._photos: list[Photo] = []
        self.splits: dict[str, list[Photo]] = {}

    def prepare_data(self) -> None:
        """Verify the photos and write the index that later runs and other processes read."""
        self._photos = index_photos(self.folders)

    def setup(self, stage: str | None = None) -> None:
        """Split the photos by their content; every stage uses the same split."""
        if not self.splits:
            photos = self._photos or index_photos(self.folders)
            self.splits = split_photos(photos, held_out=self.held_out)
            self.data_hash = data_hash(photos)
            self.begin()

    def train_dataloader(self) -> DataLoader[dict[str, Tensor]]:
        """Random crops of `epoch_photos` photos."""
        crops = CleanCrops(self.splits["train"], self.size, self.windows)
        order = self.order(crops, self.epoch_photos or len(crops))
        return ResumableLoader(crops, batch_size=self.batch_size, sampler=order, **self.loading())

    def val_dataloader(self) -> DataLoader[dict[str, Tensor]]:
        """Fixed crops of the validation photos."""
        return self.held_out_loader(CleanCrops(self.splits["val"], 2 * self.size, held_out=self.held_out_crops))

    def test_dataloader(self) -> list[DataLoader[dict[str, Tensor]]]:
        """The sets of `tests`, one after the other."""
        if not self.tests:
            raise InputError("data.tests names no images, expected folders or lists of them")
        return [DataLoader(TestImages(listed(Path(name))), batch_size=1, **self.loading()) for name in self.tests]

    def on_after_batch_transfer(self, batch: dict[str, Any], dataloader_idx: int) -> dict[str, Any]:
        """Make the noise of a batch, on the device that it is on; whole images of a test get theirs in the task."""
        clean = batch["clean"].float() / 255
        if "grey" in batch:
            return batch | {"clean": clean}
        if "seed" in batch:
            generators = [Generator(clean.device).manual_seed(int(seed)) for seed in batch["seed"]]
            noisy = [self.noisy(each, generator=g) for each, g in zip(clean, generators, strict=True)]
            return {"clean": torch.cat([pair[0] for pair in noisy]), "noisy": torch.cat([pair[1] for pair in noisy])}
        clean, noisy_batch = self.noisy(clean.flatten(0, 1), generator=self.generator(clean.device))
        return {"clean": clean, "noisy": noisy_batch}

    def noisy(self, clean: Tensor, *, generator: Generator | None) -> tuple[Tensor, Tensor]:
        """Clean crops (B, 3, H, W), some of them without colour now, and their noisy copies."""
        sigma, dark, plain = (
            uniform((len(clean),), 0.0, most, like=clean, generator=generator) for most in (LARGEST_SIGMA, 1.0, 1.0)
        )
        plain_too = (plain < self.grey).reshape(-1, 1, 1, 1)
        clean = torch.where(plain_too, clean.mean(1, keepdim=True), clean)
        white = gaussian_noise(clean, sigma, generator=generator)
        noisy = torch.where(plain_too, clean + (white - clean)[:, :1], white)
        chosen = (dark < self.low_light).nonzero().squeeze(1)
        if len(chosen):
            noisy = noisy.index_copy(0, chosen, low_light_noise(clean[chosen], generator=generator))
        return clean, noisy


def listed(source: Path) -> list[Path]:
    """The images of a folder, or those that a text file names, relative to it or to `bsds500/images` beside its folder.

    Raises:
        InputError: there are none.
    """
    if source.is_dir():
        found = sorted(path for path in source.iterdir() if path.suffix.lower() in (".png", ".jpg", ".bmp", ".tif"))
    elif source.is_file():
        names = [line.strip() for line in source.read_text(encoding="utf-8").splitlines() if line.strip()]
        roots = (source.parent, source.parent.parent / "bsds500" / "images")
        found = [
            next((root / name for root in roots if (root / name).is_file()), source.parent / name) for name in names
        ]
    else:
        raise InputError(f"data.tests: {source} does not exist")
    missing = next((path for path in found if not path.is_file()), None)
    if missing is not None or not found:
        raise InputError(
            f"data.tests: {source} " + (f"names {missing}, which is not there" if missing else "has no images")
        )
    return found
