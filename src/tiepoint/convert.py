"""From checkpoints to .pt and .onnx, each conversion checked against its original."""

import json
import logging
import sys
import time
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnx
import torch
from loguru import logger
from torch.export import Dim

from tiepoint import __version__
from tiepoint.checkpoints import Weights, read_weights, write_pt
from tiepoint.errors import InputError, WorkError
from tiepoint.files import atomic_path, check_writable
from tiepoint.images import UInt8
from tiepoint.models.base import spec_of
from tiepoint.models.twoview import TwoViewMatcher, TwoViewMatches
from tiepoint.runtime.eager import EagerNetwork
from tiepoint.runtime.graph import INPUTS, OnnxGraph
from tiepoint.runtime.matcher import Backend, Points
from tiepoint.types import Float32

OPSET = 18  # the first with antialiased Resize and GridSample in every runtime named in the docs
SIZES = ((480, 640), (333, 517), (641, 479), (96, 64))  # (height, width): even, odd, portrait, tiny
KEYPOINTS = 2048


@dataclass(frozen=True)
class Parity:
    """How far two backends agree on one pair of images.

    Attributes:
        name: the pair.
        matches: number of matches of the original.
        same_keypoints: share of matched keypoints that the copy places within `bound` pixels.
        same_matches: share of the matches that the copy finds too, both ends within `bound` pixels.
        largest: largest distance among the matches that both find, pixels.
    """

    name: str
    matches: int
    same_keypoints: float
    same_matches: float
    largest: float


def convert(source: Path, target: Path, *, bound: float = 0.01, share: float = 0.99) -> list[Parity]:
    """Write a trained network in another format, and prove that it gives the same answer.

    Args:
        source: a .ckpt or .pt file.
        target: a .pt or .onnx file. ONNX holds pre-processing, extraction and mutual matching of two images.
        bound: largest difference of a keypoint that counts as the same, pixels.
        share: least share of keypoints and of matches that must be the same.

    Returns:
        One row of the parity report for each pair of test images.

    Raises:
        InputError: a file or ending is wrong.
        WorkError: the copy differs by more than allowed; no file is left then.
    """
    if source.suffix not in (".ckpt", ".pt") or target.suffix not in (".pt", ".onnx"):
        raise InputError(
            f"cannot convert {source.suffix or source.name!r} to {target.suffix or target.name!r}: "
            "expected .ckpt or .pt, and .pt or .onnx as the target"
        )
    weights = read_weights(source)
    check_writable(target)
    original = EagerNetwork(source, max_keypoints=KEYPOINTS, device="cpu")
    with atomic_path(target) as temporary:
        copy: Backend
        if target.suffix == ".pt":
            write_pt(temporary, weights)
            copy = EagerNetwork(temporary, max_keypoints=KEYPOINTS, device="cpu")
        else:
            write_onnx(temporary, weights)
            copy = OnnxGraph(temporary, max_keypoints=KEYPOINTS, device="cpu")
        report = compare(original, copy, bound=bound)
        for row in report:
            logger.info(
                "{}: {} matches, {:.2%} of keypoints and {:.2%} of matches the same within {} px, largest {:.1e} px",
                *(row.name, row.matches, row.same_keypoints, row.same_matches, bound, row.largest),
            )
        worst = min(report, key=lambda row: min(row.same_keypoints, row.same_matches))
        if min(worst.same_keypoints, worst.same_matches) < share:
            raise WorkError(
                f"{target} was not written: on {worst.name} only {worst.same_keypoints:.2%} of the keypoints and "
                f"{worst.same_matches:.2%} of the matches equal those of {source}, expected {share:.0%}"
            )
    return report


def write_onnx(path: Path, weights: Weights) -> None:
    """Export two images → matches, with dynamic sizes, batch and number of keypoints.

    The names of the inputs are those of `runtime.graph`; the outputs are the fields of `TwoViewMatches`. How to
    build the network again stands in the metadata.
    """
    network = TwoViewMatcher(weights.extractor).eval()
    batch = Dim("batch", min=1, max=64)
    shapes = [{0: batch, 1: _side("height", i), 2: _side("width", i)} for i in (0, 1)]
    # two and unequal: torch.export specialises sizes that are 1 or the same
    example = (
        torch.zeros((2, 96, 130, 3), dtype=torch.uint8),
        torch.zeros((2, 110, 150, 3), dtype=torch.uint8),
    )
    registration = logging.getLogger("torch.onnx._internal.exporter._registration")
    registration.setLevel(logging.ERROR)  # it says of torchvision, which nothing here needs, that it is missing
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch's own deprecations inside its exporter
        program = torch.onnx.export(
            network,
            (*example, torch.tensor(64)),
            dynamo=True,
            verbose=False,
            external_data=False,
            dynamic_shapes=dict(zip(INPUTS, (*shapes, None), strict=True)),
            input_names=INPUTS,
            output_names=TwoViewMatches._fields,
            opset_version=OPSET,
        )
    assert program is not None
    proto = _without_traces(program.model_proto)
    for key, value in _metadata(weights).items():
        proto.metadata_props.add(key=key, value=value)
    onnx.checker.check_model(proto)
    onnx.save_model(proto, str(path))


def _without_traces(proto: onnx.ModelProto) -> onnx.ModelProto:
    """Drop the exporter's notes on every node: a third of the file, and they hold paths of the machine."""
    graph = proto.graph
    for part in (graph, *graph.node, *graph.value_info, *graph.input, *graph.output, *graph.initializer):
        part.ClearField("metadata_props")
        part.ClearField("doc_string")
    return proto


def _side(name: str, image: int) -> Dim:
    return Dim(f"{name}{image}", min=1, max=16384)


def _metadata(weights: Weights) -> dict[str, str]:
    spec = spec_of(weights.extractor)
    return {
        "tiepoint": __version__,
        "class_path": spec["class_path"],
        "init_args": json.dumps(spec["init_args"]),
        "training": json.dumps(weights.metadata),
        "written": time.strftime("%Y-%m-%d"),
    }


def compare(original: Backend, copy: Backend, *, bound: float) -> list[Parity]:
    """Run two backends on test images of several sizes, one without any contrast."""
    pairs = [(f"{width}×{height}", *parity_pair(height, width)) for height, width in SIZES]
    pairs.append(("blank", np.full((97, 131, 3), 128, np.uint8), parity_pair(97, 131)[1]))
    return [
        _parity(name, original.match(image0, image1), copy.match(image0, image1), bound=bound)
        for name, image0, image1 in pairs
    ]


def parity_pair(height: int, width: int) -> tuple[UInt8, UInt8]:
    """Two overlapping views of a procedural scene: rectangles of all sizes with a little noise, always the same."""
    random = np.random.default_rng(0)
    scene = np.full((height + 16, width + 16, 3), 128, np.float32)
    for _ in range(400):
        y, x = random.integers(0, (height, width))
        extent = np.maximum(2, (random.random(2) ** 3 * (height, width) / 2).astype(int))
        scene[y : y + extent[0], x : x + extent[1]] = random.integers(0, 256, 3)
    noisy = (scene + random.normal(0, 4, scene.shape)).clip(0, 255).astype(np.uint8)
    return noisy[:height, :width].copy(), noisy[8:, 16:][:height, :width].copy()


def _parity(name: str, original: Points, copy: Points, *, bound: float) -> Parity:
    # compared as sets: near-equal scores swap ranks, which makes the k-th keypoint another one
    ends, others = np.hstack(original[:2]), np.hstack(copy[:2])
    if not len(ends):
        return Parity(name, 0, float(not len(others)), float(not len(others)), 0.0)
    distances = _nearest(ends, others)
    same = distances <= bound
    keypoints = np.concatenate([_nearest(a, b) <= bound for a, b in zip(original[:2], copy[:2], strict=True)])
    largest = float(distances[same].max()) if same.any() else float("nan")
    return Parity(name, len(ends), float(keypoints.mean()), float(same.mean()), largest)


def _nearest(points: Float32, others: Float32) -> Float32:
    """Distance of each of (N, D) points to the nearest of (M, D) others; infinite where there is none."""
    if not len(others):
        return np.full(len(points), np.inf, np.float32)
    rows: Sequence[Float32] = [np.linalg.norm(others - point, axis=1).min() for point in points]
    return np.array(rows, np.float32)


def convert_file(source: str, target: str) -> None:
    """Write a checkpoint in another format and check that it gives the same answer.

    Args:
        source: a .ckpt or .pt file.
        target: a .pt or .onnx file; the ending decides.
    """
    report = convert(Path(source), Path(target))
    size = Path(target).stat().st_size / 1e6
    keypoints = min(row.same_keypoints for row in report)
    matches = min(row.same_matches for row in report)
    sys.stdout.write(
        f"{target}: {size:.2f} MB; on {len(report)} pairs at least {keypoints:.2%} of the keypoints and "
        f"{matches:.2%} of the matches equal those of {source}\n"
    )
