"""Whether two forms of a plane sweep find the same depth, and by how much they differ."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from tiepoint.checkpoints import Weights
from tiepoint.conversion.check_images import bundled_photo, made_pair
from tiepoint.images import UInt8
from tiepoint.models.sweep_graph import example_geometry
from tiepoint.runtime.sweep import SweepGraph
from tiepoint.types import Float32

# (height, width) and number of planes; sides are multiples of 32, as `tiepoint depth` makes them
CASES = (((64, 64), 8), ((96, 64), 12), ((160, 224), 24), ((480, 640), 48), ((1216, 1600), 32))
STEP = 4.0  # px of disparity from plane to plane
SHIFT = 9  # px of disparity between the test images

SweepRunner = Callable[..., tuple[Float32, Float32, Float32]]


@dataclass(frozen=True)
class SweepParity:
    """How far two forms agree on a pair.

    Attributes:
        name: the pair.
        size: (height, width), pixels.
        planes: how many.
        same: share of the pixels whose inverse depths differ by the bound at most.
        largest: difference of the inverse depths, in steps of the planes, at those pixels.
        largest_confidence: difference of the confidences, there too.
        median: difference of the inverse depths over all pixels, in steps of the planes.
    """

    name: str
    size: tuple[int, int]
    planes: int
    same: float
    largest: float
    largest_confidence: float
    median: float


def torch_sweep(weights: Weights) -> SweepRunner:
    """Runs a sweep in torch as its graph would run."""
    graph = weights.graph("sweep")

    @torch.inference_mode()
    def run(*arguments: npt.NDArray[Any]) -> tuple[Float32, Float32, Float32]:
        depth, confidence, likelihood = graph(*(torch.from_numpy(each) for each in arguments))
        return depth.numpy(), confidence.numpy(), likelihood.numpy()

    return run


def onnx_sweep(path: Path) -> SweepRunner:
    """Runs an ONNX file.

    Raises:
        InputError: it is no graph of a plane sweep.
    """
    return SweepGraph(path, device="cpu").run


def compare_sweeps(original: SweepRunner, copy: SweepRunner, *, bound: float) -> Iterator[SweepParity]:
    """Run two forms on all the test pairs.

    Args:
        original: what is right.
        copy: what is in question.
        bound: largest difference that counts as the same, in steps of the planes.
    """
    for name, image0, image1, planes in _pairs():
        arguments = image0[None], image1[None], *(each.numpy() for each in example_geometry(planes, step=STEP))
        (depth, confidence, _), (other_depth, other_confidence, _) = original(*arguments), copy(*arguments)
        differences = np.abs(depth - other_depth) / STEP
        same = differences <= bound
        yield SweepParity(
            name,
            (image0.shape[0], image0.shape[1]),
            planes,
            same=float(same.mean()),
            largest=float(differences[same].max(initial=0)),
            largest_confidence=float(np.abs(confidence - other_confidence)[same].max(initial=0)),
            median=float(np.median(differences)),
        )


def _pairs() -> Iterator[tuple[str, UInt8, UInt8, int]]:
    """Images of which the second one is moved: made ones of many sizes, noise, and a real photograph."""
    noise = np.random.default_rng(1).integers(0, 256, (128, 192, 3), np.uint8)
    scenes = [(f"{width}×{height}", made_pair(height, width + SHIFT)[0], planes) for (height, width), planes in CASES]
    scenes.append(("noise", noise, 16))
    photo = bundled_photo()
    if photo is not None:
        scenes.append(("photo", photo[:576], 24))
    for name, scene, planes in scenes:
        width = (scene.shape[1] - SHIFT) // 32 * 32
        yield name, scene[:, :width].copy(), scene[:, SHIFT : SHIFT + width].copy(), planes
