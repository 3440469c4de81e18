"""From checkpoints to .pt and .onnx, each conversion checked against its original."""

import json
import logging
import sys
import time
import warnings
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
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
from tiepoint.models.blocks import deployed
from tiepoint.models.twoview import TwoViewMatches
from tiepoint.runtime.eager import EagerNetwork
from tiepoint.runtime.graph import INPUTS, OnnxGraph
from tiepoint.runtime.matcher import PaddedMatches
from tiepoint.types import Float32

OPSET = 18  # the first with antialiased Resize and GridSample in every runtime named in the docs
SIZES = ((480, 640), (333, 517), (641, 479), (96, 64))  # (height, width): even, odd, portrait, tiny
KEYPOINTS = 2048
Runner = EagerNetwork | OnnxGraph


@dataclass(frozen=True)
class Parity:
    """How far two backends agree on one pair of images. Sets are compared, in both directions, and the worse counts.

    Attributes:
        name: the pair.
        matches: number of matches of the original.
        same_keypoints: share of the keypoints of both images with a partner of the other backend within the bound.
        same_matches: share of the matches whose two ends both have one in one and the same match of the other.
        largest_px: largest distance of a keypoint to its partner, pixels; infinite where one side has none.
        largest_score: largest difference of the keypoints' scores.
    """

    name: str
    matches: int
    same_keypoints: float
    same_matches: float
    largest_px: float
    largest_score: float


def convert(source: Path, target: Path, *, bound: float = 0.01, share: float = 0.99) -> list[Parity]:
    """Write a trained network in another format, and prove that it gives the same answer.

    Args:
        source: a .ckpt or .pt file.
        target: a .pt or .onnx file. ONNX holds pre-processing, extraction and matching of two images.
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
    if target.exists() and target.samefile(source):
        raise InputError(f"{target} is the source itself")
    original = EagerNetwork(source, max_keypoints=KEYPOINTS, device="cpu")
    with atomic_path(target) as temporary:
        copy: Runner
        if target.suffix == ".pt":
            write_pt(temporary, weights)
            copy = EagerNetwork(temporary, max_keypoints=KEYPOINTS, device="cpu")
        else:
            write_onnx(temporary, weights)
            copy = OnnxGraph(temporary, max_keypoints=KEYPOINTS, device="cpu")
        report = compare(original, copy, bound=bound)
        for row in report:
            logger.info(
                "{}: {} matches, {:.2%} of keypoints and {:.2%} of matches the same; largest difference "
                "{:.1e} px, {:.1e} in score",
                *(row.name, row.matches, row.same_keypoints, row.same_matches, row.largest_px, row.largest_score),
            )
        worst = min(report, key=lambda row: min(row.same_keypoints, row.same_matches))
        if not min(worst.same_keypoints, worst.same_matches) >= share:
            raise WorkError(
                f"{target} was not written: on {worst.name} only {worst.same_keypoints:.2%} of the keypoints and "
                f"{worst.same_matches:.2%} of the matches equal those of {source}, expected {share:.0%}"
            )
        if not any(row.matches for row in report):
            raise WorkError(f"{target} was not written: {source} finds no match on any test pair, is it trained?")
    return report


def write_onnx(path: Path, weights: Weights) -> None:
    """Export two images → matches, with dynamic sizes, batch and number of keypoints.

    The names of the inputs are those of `runtime.graph`; the outputs are the fields of `TwoViewMatches`. How to
    build the network again stands in the metadata.
    """
    network = deployed(weights.two_view())
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
    matcher = {} if weights.matcher is None else {"matcher": json.dumps(spec_of(weights.matcher))}
    return matcher | {
        "tiepoint": __version__,
        "class_path": spec["class_path"],
        "init_args": json.dumps(spec["init_args"]),
        "training": json.dumps(weights.metadata),
        "written": time.strftime("%Y-%m-%d"),
    }


def compare(original: Runner, copy: Runner, *, bound: float) -> list[Parity]:
    """Run two backends on test pairs of several sizes, a batch and one without any contrast among them."""
    pairs: list[tuple[str, UInt8, UInt8]] = []
    for height, width in SIZES:
        image0, image1 = parity_pair(height, width)
        pairs.append((f"{width}×{height}", image0[None], image1[None]))
    textured = parity_pair(97, 131)
    blank = np.full_like(textured[0], 128)
    pairs.append(("blank", blank[None], textured[1][None]))
    pairs.append(("batch of 2", np.stack((textured[0], textured[1])), np.stack((textured[1], blank))))
    return [
        _parity(name, original.run(image0, image1), copy.run(image0, image1), bound=bound)
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


def _parity(name: str, original: PaddedMatches, copy: PaddedMatches, *, bound: float) -> Parity:
    """Compare the results of a batch: as sets, since near-equal scores swap ranks."""
    keypoints, matches, px, scores = [], [], [0.0], [0.0]
    for index in range(len(original.matches0)):
        for side in (0, 1):
            ours, theirs = _keypoints(original, index, side), _keypoints(copy, index, side)
            for a, b in ((ours, theirs), (theirs, ours)):
                distance, partner = _nearest(a[:, :2], b[:, :2])
                keypoints.append(_share(distance <= bound))
                px.append(float(distance.max(initial=0)))
                if len(b):
                    scores.append(float(np.abs(a[:, 2] - b[partner, 2]).max(initial=0)))
        ends, others = (np.hstack(found.points(index)[:2]) for found in (original, copy))
        matches += [_share(_nearest(a, b)[0] <= bound) for a, b in ((ends, others), (others, ends))]
    found = int((original.matches0 >= 0).sum())
    return Parity(name, found, min(keypoints), min(matches), max(px), max(scores))


def _keypoints(found: PaddedMatches, index: int, side: int) -> Float32:
    """(N, 3): x, y and score of the keypoints of one image, without padding."""
    scores = (found.keypoint_scores0, found.keypoint_scores1)[side][index]
    points = (found.keypoints0, found.keypoints1)[side][index]
    rows: Float32 = np.column_stack((points, scores))[scores > 0]
    return rows


def _share(same: npt.NDArray[np.bool_]) -> float:
    return float(same.mean()) if len(same) else 1.0


def _nearest(points: Float32, others: Float32) -> tuple[Float32, npt.NDArray[np.int64]]:
    """Distance of each of (N, D) points to the nearest of (M, D) others, and which; infinite where there is none."""
    if not len(others):
        return np.full(len(points), np.inf, np.float32), np.zeros(len(points), np.int64)
    # differences, not the expanded square: that loses the digits which are in question here
    distances = np.linalg.norm(points[:, None] - others[None], axis=2)
    return distances.min(1), distances.argmin(1)


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
