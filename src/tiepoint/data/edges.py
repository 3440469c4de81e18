"""Images with the edges that people drew: BSDS500, BIPED, UDED, and any folder of images beside one of edge maps."""

import hashlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from kornia.augmentation import AugmentationSequential, ColorJiggle, RandomAffine, RandomGaussianBlur
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from tiepoint.data.base import ResumableData, expect
from tiepoint.data.order import Draw, ResumableLoader, batch_number, derived_seed
from tiepoint.errors import InputError
from tiepoint.images import UInt8, read_image
from tiepoint.types import Bool, Float32

# folders of images, and where the edge maps of the same names lie
LAYOUTS = (("images", "boundaries"), ("images", "edges"), ("imgs", "edge_maps"), ("imgs", "gt"))
_SUFFIXES = (".npz", ".png", ".bmp", ".jpg")  # of edge maps, in the order in which they are looked for
_PHOTOS = (".jpg", ".jpeg", ".png", ".bmp", ".tif", ".tiff", ".webp")


class EdgeSample(NamedTuple):
    """An image and what was drawn on it.

    Attributes:
        image: its file.
        edges: a .npz with `bits` and `shape` (A, H, W), one drawing an annotator, or a picture of grey levels.
        split: "train", "val" or "test", as the folders say; "" where they do not.
    """

    image: Path
    edges: Path
    split: str


def find_samples(folder: Path) -> list[EdgeSample]:
    """The images of a folder that have edge maps, sorted by name.

    Raises:
        InputError: the folder does not exist, or has none of the layouts.
    """
    if not folder.is_dir():
        raise InputError(f"data.folder: {folder} is not a folder")
    for images, edges in LAYOUTS:
        found = [
            _sample(path, root, edges) for root in sorted(folder.rglob(images)) for path in sorted(root.rglob("*"))
        ]
        samples = [each for each in found if each is not None]
        if samples:
            return samples
    layouts = ", ".join(f"{images}/ beside {edges}/" for images, edges in LAYOUTS)
    raise InputError(f"data.folder: {folder} holds no images with edge maps of the same names, expected {layouts}")


def _sample(image: Path, root: Path, edges: str) -> EdgeSample | None:
    if image.suffix.lower() not in _PHOTOS:
        return None
    beside = (root.parent / edges / image.relative_to(root)).with_suffix("")
    # BIPED keeps its images one folder deeper than their maps
    places = (beside, beside.parents[1] / beside.name) if len(beside.parents) > 1 else (beside,)
    maps = (place.parent / f"{place.name}{suffix}" for place in places for suffix in _SUFFIXES)
    there = next((path for path in maps if path.is_file()), None)
    parts = set(image.relative_to(root).parts)
    split = next((name for name in ("train", "val", "test") if name in parts), "")
    return None if there is None else EdgeSample(image, there, split)


def read_annotations(path: Path) -> Bool:
    """The drawings (A, H, W) of a file of edges; a picture is one drawing, of what is at least half as light as white.

    Raises:
        InputError: the file cannot be read or holds something else.
    """
    if path.suffix != ".npz":
        return np.asarray(read_image(str(path)).max(2)[None] >= 128)
    try:
        with np.load(path) as content:
            count, height, width = (int(each) for each in content["shape"])
            bits = content["bits"].reshape(count, -1)
        drawn = np.unpackbits(bits, axis=1, count=height * width).reshape(count, height, width).astype(np.bool_)
    except (OSError, KeyError, ValueError, TypeError) as error:
        raise InputError(f"{path} holds no drawings, expected `bits` and `shape` (A, H, W): {error}") from error
    return drawn


class EdgeCrops(Dataset[dict[str, Tensor]]):
    """Random crops for training, or whole images with all drawings.

    An item holds `image`, (3, H, W) uint8, and `consensus`, (1, H, W) in [0, 1], the share of the annotators that drew
    an edge; whole images `annotations` (A, H, W) bool as well.

    Args:
        samples: which.
        size: (height, width) of the crops; None for whole images.
    """

    def __init__(self, samples: Sequence[EdgeSample], size: tuple[int, int] | None) -> None:
        self.samples, self.size = samples, size

    def __len__(self) -> int:
        return len(self.samples)

    def __getitem__(self, which: int | Draw) -> dict[str, Tensor]:
        index, seed = which if isinstance(which, Draw) else Draw(which, which)
        sample = self.samples[index]
        image, drawn = read_image(str(sample.image)), read_annotations(sample.edges)
        if image.shape[:2] != drawn.shape[1:]:
            sizes = f"{drawn.shape[2]}×{drawn.shape[1]} px, and the image is {image.shape[1]}×{image.shape[0]}"
            raise InputError(f"{sample.edges} is {sizes}, expected the same size")
        consensus = drawn.mean(0, dtype=np.float32)
        if self.size is None:
            return {
                "image": _chw(image),
                "consensus": _chw(consensus[..., None]),
                "annotations": torch.from_numpy(drawn),
            }
        image, consensus = _crop(image, consensus, self.size, np.random.default_rng(seed))
        return {"image": _chw(image), "consensus": _chw(consensus[..., None])}


def _chw(array: UInt8 | Float32) -> Tensor:
    return torch.from_numpy(np.ascontiguousarray(array)).permute(2, 0, 1)


def _crop(image: UInt8, consensus: Float32, size: tuple[int, int], rng: np.random.Generator) -> tuple[UInt8, Float32]:
    """A random window, mirrored by chance; what is too small is mirrored at its borders."""
    missing = [max(0, wanted - there) for wanted, there in zip(size, consensus.shape, strict=True)]
    image = np.pad(image, ((0, missing[0]), (0, missing[1]), (0, 0)), mode="symmetric")
    consensus = np.pad(consensus, ((0, missing[0]), (0, missing[1])), mode="symmetric")
    top, left = (int(rng.integers(there - wanted + 1)) for wanted, there in zip(size, consensus.shape, strict=True))
    window = slice(top, top + size[0]), slice(left, left + size[1])
    image, consensus = image[window], consensus[window]
    return (image[:, ::-1], consensus[:, ::-1]) if rng.random() < 0.5 else (image, consensus)


class EdgeMaps(ResumableData):
    """Images with drawn edges: BSDS500, BIPED, UDED, or `images/` beside `edges/`.

    What the folders call train and val is trained on, but for a share that is held out to watch the training; what
    they call test is tested. Where they say nothing, the names decide.

    Args:
        folder: of the data set.
        size: (height, width) of the crops.
        batch_size: crops a step.
        epoch_images: crops an epoch; every image once if None.
        held_out: share of the images kept for validation.
        num_workers: processes that decode; one less than the cores, at most 4, if None.
        rotation: largest rotation, degrees.
        zoom: largest factor by which a crop is enlarged or shrunk.
        photometric: strength of the change of colours, 0 to 1.
    """

    def __init__(
        self,
        folder: str | Path,
        size: tuple[int, int] = (288, 288),
        batch_size: int = 8,
        epoch_images: int | None = None,
        held_out: float = 0.05,
        num_workers: int | None = None,
        rotation: float = 180.0,
        zoom: float = 1.5,
        photometric: float = 0.3,
    ) -> None:
        super().__init__(batch_size, num_workers, content="images")
        expect("size", size, min(size) >= 32, "32 or more")
        expect("held_out", held_out, 0 < held_out < 0.5, "a share between 0 and 0.5")
        expect("batch_size", batch_size, batch_size >= 1, "1 or more")
        expect("epoch_images", epoch_images, epoch_images is None or epoch_images >= 1, "1 or more")
        expect("zoom", zoom, zoom >= 1, "1 or more")
        expect("photometric", photometric, 0 <= photometric <= 1, "0 to 1")
        folder = str(folder)
        self.save_hyperparameters()
        self.folder, self.size, self.epoch_images, self.held_out = Path(folder), size, epoch_images, held_out
        self.splits: dict[str, list[EdgeSample]] = {}
        # image and edges move together; mirrored at the borders, where nothing is black
        self.changes = AugmentationSequential(
            RandomAffine(rotation, scale=(1 / zoom, zoom), padding_mode="reflection", p=0.8),
            ColorJiggle(photometric, photometric, photometric, photometric / 5, p=0.8),
            RandomGaussianBlur((5, 5), (0.1, 1.5), p=0.15),
            data_keys=["input", "mask"],
            extra_args={"mask": {"resample": "bilinear"}},
        )

    def setup(self, stage: str | None = None) -> None:
        """Find the images and split them; every stage uses the same split."""
        if self.splits:
            return
        samples = find_samples(self.folder)
        names = {each.image: hashlib.sha256(each.image.name.encode()).hexdigest() for each in samples}
        drawn = sorted((each for each in samples if each.split != "test"), key=lambda each: names[each.image])
        count = max(1, round(self.held_out * len(drawn)))
        test = [each for each in samples if each.split == "test"]
        self.splits = {"val": drawn[:count], "test": test, "train": drawn[count:]}
        expect("folder", self.folder, bool(self.splits["train"]), "two images or more that are not for the test")
        # the bytes would take long to read, and would tell little more
        stamps = (f"{each.image.name} {each.image.stat().st_size} {each.edges.stat().st_size}" for each in samples)
        self.data_hash = hashlib.sha256("\n".join(stamps).encode()).hexdigest()
        self.begin()

    def train_dataloader(self) -> DataLoader[dict[str, Tensor]]:
        """Random crops, `epoch_images` of them."""
        crops = EdgeCrops(self.splits["train"], self.size)
        order = self.order(crops, self.epoch_images or len(crops))
        return ResumableLoader(crops, batch_size=self.batch_size, sampler=order, **self.loading())

    def val_dataloader(self) -> DataLoader[dict[str, Tensor]]:
        """Whole held-out images."""
        return self._whole("val")

    def test_dataloader(self) -> DataLoader[dict[str, Tensor]]:
        """Whole images for the test."""
        expect("folder", self.folder, bool(self.splits["test"]), "images in a folder test/")
        return self._whole("test")

    def _whole(self, split: str) -> DataLoader[dict[str, Tensor]]:
        whole = EdgeCrops(self.splits[split], None)
        return DataLoader(whole, batch_size=1, **self.loading())

    def on_after_batch_transfer(self, batch: dict[str, Any], dataloader_idx: int) -> dict[str, Any]:
        """Turn, zoom and colour the crops of a batch, on the device that it is on."""
        image = batch["image"].float() / 255
        if "annotations" in batch or self.trainer is None or not self.trainer.training:
            return batch | {"image": image}
        # kornia draws from torch's own randomness: by the run's seed and the number of the batch, a resume goes on
        with torch.random.fork_rng(devices=[image.device] if image.is_cuda else []):
            torch.manual_seed(derived_seed(self.seed, batch_number(self.trainer)))
            image, consensus = self.changes(image, batch["consensus"])
        return batch | {"image": image.clamp(0, 1), "consensus": consensus}
