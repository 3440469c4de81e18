"""Whether two forms of a network of single images make the same maps, and by how much they differ."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from tiepoint.checkpoints import Weights
from tiepoint.conversion.check_images import parity_images
from tiepoint.runtime.image_graph import ImageGraph
from tiepoint.types import Float32

MapRunner = Callable[[npt.NDArray[Any]], Float32]


@dataclass(frozen=True)
class MapParity:
    """How far the maps of two forms differ on a batch of images.

    Attributes:
        name: of the images.
        batch: how many.
        size: (height, width), pixels.
        largest: difference of a value of a map, where the range of an image is 1; not a number where a value is none.
        mean: of the differences.
    """

    name: str
    batch: int
    size: tuple[int, int]
    largest: float
    mean: float


def torch_maps(weights: Weights) -> MapRunner:
    """Runs a network in torch as its graph would run."""
    graph = weights.graph("image")

    @torch.inference_mode()
    def run(images: npt.NDArray[Any]) -> Float32:
        maps: Float32 = graph(torch.from_numpy(images)).numpy()
        return maps

    return run


def onnx_maps(path: Path, *, output: str) -> MapRunner:
    """Runs an ONNX file.

    Raises:
        InputError: it is no graph from one image to this output.
    """
    return ImageGraph(path, output=output, device="cpu").run


def compare_maps(original: MapRunner, copy: MapRunner, *, as_bytes: bool, channels: int = 3) -> Iterator[MapParity]:
    """Run two forms on all the test images.

    Args:
        original: what is right.
        copy: what is in question.
        as_bytes: whether they take uint8; float32 in [0, 1] if not.
        channels: how many they take; those beyond the three of a colour are a twentieth of its first ones.
    """
    for name, images in parity_images():
        given = images if as_bytes else images.astype(np.float32) / 255
        given = np.concatenate((given, (given[..., : channels - 3] / 20).astype(given.dtype)), axis=3)
        difference = np.abs(original(given) - copy(given))
        batch, height, width, _ = images.shape
        yield MapParity(name, batch, (height, width), float(difference.max()), float(difference.mean()))
