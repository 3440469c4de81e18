"""A plane sweep as an ONNX graph that `tiepoint depth` runs without torch, checked against the original."""

import json
import time
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import torch
from torch import Tensor, nn
from torch.export import Dim

from tiepoint import __version__
from tiepoint.building import build
from tiepoint.conversion.graphs import export
from tiepoint.errors import InputError, WorkError
from tiepoint.files import atomic_path
from tiepoint.models.base import spec_of
from tiepoint.models.blocks import deployed
from tiepoint.models.sweep import PLANES, STRIDE, PlaneSweep, Swept
from tiepoint.runtime.sweep import INPUTS, OUTPUTS, SweepGraph

CASES = (
    ((64, 96), 8),
    ((96, 64), 12),
    ((160, 224), 24),
)  # sizes and numbers of planes on which both forms are compared


class SweepPair(nn.Module):
    """Pre-processing and sweep as one graph."""

    def __init__(self, model: PlaneSweep) -> None:
        super().__init__()
        self.model = model

    def forward(
        self, image0: Tensor, image1: Tensor, at_infinity: Tensor, epipole: Tensor, planes: Tensor
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Images (B, H, W, 3) uint8 to inverse depth, confidence and the planes' log-likelihoods."""
        views = [image.permute(0, 3, 1, 2).float() / 255 for image in (image0, image1)]
        first, step = planes[:, 0], planes[:, 1] - planes[:, 0]
        swept: Swept = self.model.sweep_planes(views[0], views[1], at_infinity, epipole, planes)
        found = first[:, None, None] + swept.plane * step[:, None, None]
        return found, swept.confidence.sigmoid(), swept.scores.log_softmax(1)


def is_sweep(source: Path) -> bool:
    """Whether a checkpoint is of a task that trains a plane sweep."""
    if source.suffix != ".ckpt" or not source.is_file():
        return False
    try:
        content = torch.load(source, map_location="cpu", weights_only=True)
        return str(content["hyper_parameters"]["model"]["class_path"]) == f"{PlaneSweep.__module__}.PlaneSweep"
    except Exception:  # whoever reads it next says what is wrong with it
        return False


def read_sweep(source: Path) -> PlaneSweep:
    """The network of a checkpoint of `DepthTask`."""
    content = torch.load(source, map_location="cpu", weights_only=True)
    state = {name.removeprefix("model."): value for name, value in content["state_dict"].items()}
    spec = content["hyper_parameters"]["model"] | {"state_dict": state}
    return build(spec, PlaneSweep, title=str(source)).eval()


def convert_sweep(source: Path, target: Path, *, bound: float = 0.02, share: float = 0.99) -> float:
    """Write a plane sweep for use, and prove that it gives the same answer.

    Args:
        source: a .ckpt of `DepthTask`.
        target: an .onnx file.
        bound: largest difference that counts as the same, in steps of the planes.
        share: least share of pixels that must be the same.

    Returns:
        The smallest share found.

    Raises:
        InputError: the target is no .onnx.
        WorkError: the copy differs by more than allowed; no file is left then.
    """
    if target.suffix != ".onnx":
        raise InputError(f"{target} cannot be written from {source}, a plane sweep: expected an .onnx file")
    model = read_sweep(source)
    with atomic_path(target) as temporary:
        _write(temporary, model, source.name)
        same = min(_agreement(model, temporary, size, planes, bound) for size, planes in CASES)
        if not same >= share:
            raise WorkError(
                f"{target} was not written: only {same:.2%} of the pixels equal those of {source}, expected {share:.0%}"
            )
    return same


def _write(path: Path, model: PlaneSweep, source: str) -> None:
    graph = SweepPair(deployed(model)).eval()
    height, width = (STRIDE * Dim(name, min=2, max=256) for name in ("rows", "columns"))
    sides = {1: height, 2: width}
    example = *(torch.zeros((1, 96, 160, 3), dtype=torch.uint8) for _ in range(2)), *_example_geometry(1, 12)
    shapes = (sides, sides, None, None, {1: PLANES * Dim("planes", min=2, max=128)})
    proto = export(graph, example, dict(zip(INPUTS, shapes, strict=True)), OUTPUTS)
    spec = spec_of(model)
    told = {
        "tiepoint": __version__,
        "shape": "sweep",
        "class_path": spec["class_path"],
        "init_args": json.dumps(spec["init_args"]),
        "source": source,
        "written": time.strftime("%Y-%m-%d"),
    }
    for key, value in told.items():
        proto.metadata_props.add(key=key, value=value)
    onnx.checker.check_model(proto, full_check=True)
    onnx.save_model(proto, str(path))


def _example_geometry(batch: int, planes: int) -> tuple[Tensor, Tensor, Tensor]:
    steps = 4.0 * torch.arange(planes, dtype=torch.float32)
    A = torch.eye(3).repeat(batch, 1, 1)
    return A, torch.tensor([[-1.0, 0.02, 0.0]]).repeat(batch, 1), steps.repeat(batch, 1)


def _agreement(model: PlaneSweep, path: Path, size: tuple[int, int], planes: int, bound: float) -> float:
    """The share of pixels on which both forms agree, on a pair of smooth noise moved by some pixels."""
    rng = np.random.default_rng(0)
    coarse = rng.uniform(0, 255, (size[0] // 8 + 2, size[1] // 8 + 4, 3)).astype(np.float32)
    wide = torch.nn.functional.interpolate(
        torch.from_numpy(coarse).permute(2, 0, 1)[None], scale_factor=8.0, mode="bicubic"
    )
    pixels = wide[0].permute(1, 2, 0).clamp(0, 255).to(torch.uint8)
    image0, image1 = (pixels[: size[0], x : x + size[1]][None] for x in (0, 9))
    arguments: tuple[Any, ...] = image0, image1, *_example_geometry(1, planes)
    with torch.no_grad():
        own = SweepPair(model).eval()(*arguments)[0].numpy()
    copy = SweepGraph(path).run(*(each.numpy() for each in arguments))[0]
    return float((np.abs(own - copy) <= 4.0 * bound).mean())
