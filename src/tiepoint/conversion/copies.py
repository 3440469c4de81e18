"""A copy of networks in another format: written, read back, and measured beside its original."""

from collections.abc import Iterable, Sequence
from pathlib import Path
from statistics import median
from time import perf_counter
from typing import TypeVar

import torch
from loguru import logger

from tiepoint.checkpoints import Shape, Weights, read_weights, sha256, write_pt, write_safetensors
from tiepoint.conversion.calibration import CalibrationPhotos
from tiepoint.conversion.check_accuracy import accuracy, completed
from tiepoint.conversion.check_images import CheckPair, check_set, made_pair
from tiepoint.conversion.graph_reading import read_proto
from tiepoint.conversion.graphs import write_onnx
from tiepoint.conversion.map_parity import MapParity, compare_maps, onnx_maps, torch_maps
from tiepoint.conversion.parity import Parity, Runner, compare, onnx_runner, torch_runner
from tiepoint.conversion.report import (
    Bounds,
    Change,
    Conversion,
    Reduction,
    accuracy_fault,
    line,
    map_fault,
    parity_fault,
    sweep_fault,
)
from tiepoint.conversion.smaller import Precision, write_smaller
from tiepoint.conversion.sweep_parity import SweepParity, compare_sweeps, onnx_sweep, torch_sweep
from tiepoint.errors import InputError
from tiepoint.models.image import ImageNetwork

_Row = TypeVar("_Row", Parity, MapParity, SweepParity)

ROUNDS = 7  # of the timing
PHOTO_VIEWS = 2  # of each photograph that is held out


class MatchingCopy:
    """The making of a copy of networks that match, beside the original that it is compared with.

    Args:
        source: the original's file.
        path: the file to write.
        weights: out of the original.
        shape: of an ONNX graph.
        allow: packages whose classes may be imported.
    """

    def __init__(self, source: Path, path: Path, weights: Weights, shape: Shape, allow: Sequence[str]) -> None:
        self.source, self.path, self.weights, self.shape, self.allow = source, path, weights, shape, allow
        self.original = _original(source, weights)

    def make(self, precision: Precision, photos: CalibrationPhotos, bounds: Bounds) -> Conversion:
        """Write the copy and measure it, up to the first fault.

        Args:
            precision: of an ONNX graph's convolutions.
            photos: of the user's; int8 is calibrated on some.
            bounds: what it may differ by.

        Raises:
            WorkError: ONNX Runtime cannot make the smaller form.
        """
        fault = _written(self.source, self.path, self.weights, self.shape, self.allow)
        copy = self._runner()
        rows = _told(compare(self.original, copy, bound=bounds.bound))
        fault = parity_fault(rows, self.source, bounds) or fault
        if fault:
            return Conversion(rows, fault=fault)
        reduction = None
        if precision != "fp32":
            reduction, copy = self._reduce(copy, precision, photos)
        check = {name: self._change(copy, pairs) for name, pairs in _check_sets(photos).items()}
        faults = (accuracy_fault(name, change, bounds) for name, change in check.items())
        return Conversion(rows, check, reduction, next(filter(None, faults), None))

    def _runner(self) -> Runner:
        if self.path.suffix == ".onnx":
            return onnx_runner(self.path, shape=self.shape, features=torch_runner(self.weights))
        return torch_runner(read_weights(self.path, allow=self.allow))

    def _reduce(self, copy: Runner, precision: Precision, photos: CalibrationPhotos) -> tuple[Reduction, Runner]:
        """Replaces the graph by its smaller form."""
        size = self.path.stat().st_size
        calibrating = photos.calibrating if precision == "int8" else []
        write_smaller(self.path, precision, calibrating)
        smaller = self._runner()
        times = _milliseconds({"fp32": copy, precision: smaller})
        sizes: dict[str, int] = {"fp32": size, precision: self.path.stat().st_size}
        return Reduction(precision, sizes, times, len(calibrating)), smaller

    def _change(self, copy: Runner, pairs: Sequence[CheckPair]) -> Change:
        matcher = self.weights.graph("matcher")
        before, after = (accuracy(completed(run, matcher), pairs) for run in (self.original, copy))
        return Change(before, after)


def _check_sets(photos: CalibrationPhotos) -> dict[str, list[CheckPair]]:
    sets = {"check set": list(check_set())}
    if photos.held_out:
        sets["photographs held out"] = list(check_set(photos.held_out, views=PHOTO_VIEWS))
    return sets


def _milliseconds(forms: dict[str, Runner]) -> dict[str, float]:
    """Of a pair of 640×480 px, medians over rounds in which the forms take turns; the first round does not count."""
    image0, image1 = (image[None] for image in made_pair(480, 640))
    times: dict[str, list[float]] = {name: [] for name in forms}
    for _ in range(ROUNDS + 1):
        for name, run in forms.items():
            start = perf_counter()
            run(image0, image1)
            times[name].append(1000 * (perf_counter() - start))
    return {name: median(each[1:]) for name, each in times.items()}


def copy_of_one_graph(source: Path, path: Path, weights: Weights, allow: Sequence[str], bounds: Bounds) -> Conversion:
    """Write a network of single images or a plane sweep, which have one graph each, and compare what both forms find.

    Args:
        source: the original's file.
        path: the file to write.
        weights: out of the original.
        allow: packages whose classes may be imported.
        bounds: what the maps or depths may differ by.
    """
    single = isinstance(weights.model, ImageNetwork)
    fault = _written(source, path, weights, "image" if single else "sweep", allow)
    forms = (source, weights), (path, weights if path.suffix == ".onnx" else read_weights(path, allow=allow))
    if single:
        network = weights.image_network
        maps = (onnx_maps(f, output=network.OUTPUT) if f.suffix == ".onnx" else torch_maps(held) for f, held in forms)
        images = _told(compare_maps(*maps, as_bytes=network.BYTES, channels=network.CHANNELS))
        return Conversion(images=images, fault=map_fault(images, source, bounds) or fault)
    depths = (onnx_sweep(f) if f.suffix == ".onnx" else torch_sweep(held) for f, held in forms)
    sweeps = _told(compare_sweeps(*depths, bound=bounds.planes))
    return Conversion(sweeps=sweeps, fault=sweep_fault(sweeps, source, bounds) or fault)


def _told(rows: Iterable[_Row]) -> list[_Row]:
    """The rows of a parity report, each of which the log tells as soon as it is there."""
    found = []
    for row in rows:
        logger.info("{}", line(row))
        found.append(row)
    return found


def copy_of_others(source: Path, path: Path, weights: Weights, allow: Sequence[str]) -> Conversion:
    """Write networks of which no graph is made, in a format of torch: there the numbers themselves can be compared.

    Args:
        source: the original's file.
        path: the file to write.
        weights: out of the original.
        allow: packages whose classes may be imported.

    Raises:
        InputError: the target is an ONNX file.
    """
    if path.suffix == ".onnx":
        raise InputError(
            f"{source} holds {type(weights.model).__name__}, which finds no keypoints: expected an extractor for an "
            "ONNX graph, or .pt, .safetensors or .ckpt as the target"
        )
    return Conversion(fault=_written(source, path, weights, "pair", allow))


def _written(source: Path, path: Path, weights: Weights, shape: Shape, allow: Sequence[str]) -> str | None:
    """Writes the copy; what is wrong with its weights where they are there to be compared."""
    if path.suffix == ".onnx":
        write_onnx(path, weights, shape=shape, source={"source": source.name, "source_sha256": sha256(source)})
        return None
    _write_torch(path, weights, allow)
    return _lost(weights, read_weights(path, allow=allow))


def _lost(weights: Weights, back: Weights) -> str | None:
    """Which number of which network does not come back to the last bit."""
    held = back.networks()
    for part, network in weights.networks().items():
        state = held[part].state_dict() if part in held else {}
        for name, value in network.state_dict().items():
            # as bytes: what is no number is still the same
            if name not in state or not torch.equal(_bytes(value), _bytes(state[name])):
                return f"{name} of the network {part} does not come back"
    return None


def _bytes(value: torch.Tensor) -> torch.Tensor:
    return value.detach().cpu().contiguous().flatten().view(torch.uint8)


def _original(source: Path, weights: Weights) -> Runner:
    """What the copy must be equal to: an ONNX graph as it stands in the file, everything else in torch."""
    runner = torch_runner(weights)
    if source.suffix != ".onnx":
        return runner
    shapes: dict[str | None, Shape] = {"extractor": "extractor"}
    told = {entry.key: entry.value for entry in read_proto(source).metadata_props}
    return onnx_runner(source, shape=shapes.get(told.get("shape"), "pair"), features=runner)


def _write_torch(path: Path, weights: Weights, allow: Sequence[str]) -> None:
    if path.suffix == ".ckpt":
        from tiepoint.conversion.warmstart import write_ckpt  # here: nothing else waits for Lightning

        write_ckpt(path, weights, allow=allow)
    else:
        (write_pt if path.suffix == ".pt" else write_safetensors)(path, weights)
