"""Training pairs from folders of photos: two views of each photo, made on the device."""

import os
from collections.abc import Sequence
from functools import partial
from itertools import pairwise
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
from tiepoint.images import read_image, resize_to_long_side
from tiepoint.ops.pairs import photo_pairs
from tiepoint.ops.photometric import PhotometricChanges


class PhotoCrops(Dataset[dict[str, Tensor]]):
    """Random crops of photos for training, or the same central ones in every run.

    An item holds `photo`, (3, H, W) uint8, and for held-out crops `seed`, from which their pair is made. A random
    crop is asked for by a `Draw`, whose seed decides where it is; an index alone is the draw of that index and seed.

    Args:
        photos: which.
        size: (height, width) of the crops.
        held_out: how many fixed crops to serve, over and over the photos; None for random crops.
    """

    def __init__(self, photos: Sequence[Photo], size: tuple[int, int], *, held_out: int | None = None) -> None:
        self.photos, self.size, self.held_out = photos, size, held_out

    def __len__(self) -> int:
        return len(self.photos) if self.held_out is None else self.held_out

    def __getitem__(self, which: int | Draw) -> dict[str, Tensor]:
        index, seed = which if isinstance(which, Draw) else Draw(which, which)
        image = Image.fromarray(read_image(self.photos[index % len(self.photos)].path))
        if self.held_out is not None:
            return {"photo": _crop(image, self.size, 1.0, 0.5, 0.5), "seed": torch.tensor(seed)}
        share, left, top, flip = np.random.default_rng(seed).random(4)
        photo = _crop(image, self.size, 0.75 + 0.25 * share, left, top)
        return {"photo": photo.flip(2) if flip < 0.5 else photo}


def _crop(image: Image.Image, size: tuple[int, int], share: float, left: float, top: float) -> Tensor:
    """The window of the wanted aspect that covers `share` of the largest one, resized to `size`."""
    height, width = size
    factor = share * min(image.width / width, image.height / height)
    box_width, box_height = factor * width, factor * height
    x, y = left * (image.width - box_width), top * (image.height - box_height)
    resized = image.resize((width, height), Image.Resampling.BILINEAR, (x, y, x + box_width, y + box_height))
    return torch.from_numpy(np.array(resized)).permute(2, 0, 1)


class ConsecutivePhotos(Dataset[dict[str, Any]]):
    """Each photo with the next one of its folder, in the order of their names: real pairs, for prediction.

    An item holds `image0` and `image1`, (3, H, W) float in [0, 1] with a long side of at most `long_side`;
    `scale0` and `scale1`, (2,), which take pixels back: x_file = (x + ½)·scale - ½; and `path0`, `path1`.
    """

    def __init__(self, photos: Sequence[Photo], *, long_side: int = 1024) -> None:
        paths = sorted(photo.path for photo in photos)
        self.pairs = [(a, b) for a, b in pairwise(paths) if os.path.dirname(a) == os.path.dirname(b)]
        self.long_side = long_side

    def __len__(self) -> int:
        return len(self.pairs)

    def __getitem__(self, index: int) -> dict[str, Any]:
        item: dict[str, Any] = {}
        for side, path in enumerate(self.pairs[index]):
            pixels, scale = resize_to_long_side(read_image(path), self.long_side)
            item[f"image{side}"] = torch.from_numpy(pixels.copy()).permute(2, 0, 1).float() / 255
            item[f"scale{side}"] = torch.tensor(scale)
            item[f"path{side}"] = path
        return item


class PhotoPairs(ResumableData):
    """Folders of your own photos, as training, validation and test pairs with known correspondence.

    Workers decode and crop; the two views of a batch are made together on the device.

    Args:
        folders: one folder of photos or several; subfolders are searched too.
        size: (height, width) of the views, multiples of 32.
        batch_size: photos a step, each giving one pair.
        epoch_pairs: pairs an epoch; all training photos once if None.
        held_out: share of the photos kept for validation, and as much again for test.
        held_out_pairs: validation pairs, and as many test pairs; the same in every run with the same settings on the
            same kind of device.
        num_workers: processes that decode; one less than the cores, at most 4, if None.
        jitter: largest move of a view's corner (perspective), as a share of its sides.
        rotation: largest rotation of each view, degrees: 15 where cameras are held upright, 45, or 90 for any
            rotation between the two.
        zoom: largest scale factor of each view, so zoom² between the views.
        shift: largest shift of each view, as a share of its sides.
        parallax: share of the pairs in depth: layers with relief that hide each other, seen by two cameras.
        bending: share of the pairs that are bent by thin-plate splines.
        baseline: largest distance of the two cameras, the background being at distance 1.
        photometric: strength of the photometric change, 0 to 1.
        changes: how often each photometric change happens to a view; the defaults if None.
        ease: share of the training over which the difficulty of the pairs rises.
    """

    def __init__(
        self,
        folders: str | Path | list[str],
        size: tuple[int, int] = (256, 320),
        batch_size: int = 8,
        epoch_pairs: int | None = None,
        held_out: float = 0.05,
        held_out_pairs: int = 64,
        num_workers: int | None = None,
        jitter: float = 0.14,
        rotation: float = 30.0,
        zoom: float = 1.5,
        shift: float = 0.12,
        parallax: float = 0.5,
        bending: float = 0.15,
        baseline: float = 0.35,
        photometric: float = 1.0,
        changes: PhotometricChanges | None = None,
        ease: float = 0.3,
    ) -> None:
        super().__init__(batch_size, num_workers, content="photos")
        expect("size", size, min(size) >= 32 and not size[0] % 32 and not size[1] % 32, "multiples of 32")
        expect("held_out", held_out, 0 < held_out < 0.5, "a share between 0 and 0.5")
        expect("batch_size", batch_size, batch_size >= 1, "1 or more")
        expect("held_out_pairs", held_out_pairs, held_out_pairs >= 1, "1 or more")
        expect("epoch_pairs", epoch_pairs, epoch_pairs is None or epoch_pairs >= 1, "1 or more")
        expect("zoom", zoom, zoom >= 1, "1 or more")
        expect("photometric", photometric, 0 <= photometric <= 1, "0 to 1")
        expect("parallax", parallax, 0 <= parallax <= 1, "a share, 0 to 1")
        expect("bending", bending, 0 <= bending <= 1 - parallax, "a share, with parallax at most 1")
        expect("baseline", baseline, 0 <= baseline <= 0.5, "0 to 0.5")
        # a checkpoint with a Path in it could not be read safely
        folders = [str(folders)] if isinstance(folders, str | Path) else [str(folder) for folder in folders]
        self.save_hyperparameters()
        self.remember(changes)
        self.folders = folders
        self.size, self.epoch_pairs = size, epoch_pairs
        self.held_out, self.held_out_pairs, self.ease = held_out, held_out_pairs, ease
        self.photo_size = (size[0] * 5 // 4, size[1] * 5 // 4)
        self.make_pairs = partial(
            photo_pairs,
            size=size,
            jitter=jitter,
            rotation=rotation,
            zoom=zoom,
            shift=shift,
            parallax=parallax,
            bending=bending,
            baseline=baseline,
            photometric=photometric,
            changes=changes,
        )
        self._photos: list[Photo] = []
        self.splits: dict[str, list[Photo]] = {}

    def prepare_data(self) -> None:
        """Verify the photos and write the index that later runs and other processes read."""
        self._photos = index_photos(self.folders)

    def setup(self, stage: str | None = None) -> None:
        """Split the photos by their content; every stage uses the same split."""
        if not self.splits:
            # prepare_data runs in one process a machine: the others read the index that it has written
            photos = self._photos or index_photos(self.folders)
            self.splits = split_photos(photos, held_out=self.held_out)
            self.data_hash = data_hash(photos)
            self.begin()

    def train_dataloader(self) -> DataLoader[dict[str, Tensor]]:
        """Random crops, `epoch_pairs` of them."""
        crops = PhotoCrops(self.splits["train"], self.photo_size)
        order = self.order(crops, self.epoch_pairs or len(crops))
        return ResumableLoader(crops, batch_size=self.batch_size, sampler=order, **self.loading())

    def val_dataloader(self) -> DataLoader[dict[str, Tensor]]:
        """Fixed crops of the validation photos."""
        return self._held_out_loader("val")

    def test_dataloader(self) -> DataLoader[dict[str, Tensor]]:
        """Fixed crops of the test photos."""
        return self._held_out_loader("test")

    def predict_dataloader(self) -> DataLoader[dict[str, Any]]:
        """Each photo with the next one, of all splits."""
        photos = {photo.sha256: photo for split in self.splits.values() for photo in split}
        pairs = ConsecutivePhotos(list(photos.values()))
        if not len(pairs):
            raise InputError(f"no pair to predict in {', '.join(self.folders)}: expected two photos in one folder")
        return DataLoader(pairs, batch_size=1, **self.loading())

    def _held_out_loader(self, split: str) -> DataLoader[dict[str, Tensor]]:
        crops = PhotoCrops(self.splits[split], self.photo_size, held_out=self.held_out_pairs)
        return self.held_out_loader(crops)

    def on_after_batch_transfer(self, batch: dict[str, Any], dataloader_idx: int) -> dict[str, Any]:
        """Make the two views of every photo of the batch, on the device that it is on."""
        if "photo" not in batch:
            return batch
        photos = batch["photo"].float() / 255
        if "seed" not in batch:
            return self.make_pairs(photos, difficulty=self._difficulty(), generator=self.generator(photos.device))
        # held-out pairs: each from a seed of its own, so that they depend on neither batch size nor history
        generators = [Generator(photos.device).manual_seed(int(seed)) for seed in batch["seed"]]
        pairs = [
            self.make_pairs(photo.unsqueeze(0), generator=generator)
            for photo, generator in zip(photos, generators, strict=True)
        ]
        return {name: torch.cat([pair[name] for pair in pairs]) for name in pairs[0]}

    def _difficulty(self) -> float:
        """The curriculum: from 0.3 to 1 over the first `ease` of the steps."""
        trainer = self.trainer
        total = trainer.estimated_stepping_batches if trainer is not None else 0
        if trainer is None or self.ease <= 0 or not 0 < total < float("inf"):
            return 1.0
        return min(1.0, 0.3 + 0.7 * trainer.global_step / (self.ease * total))
