"""What runs the network, side by side: torch as trained, fused and compiled, ONNX Runtime, OpenVINO, and other files.

python benchmarks/runtime.py --photos LEFT RIGHT --json runtime.json [--model int8.onnx]

Image arrays in to matches out, every backend once in each round; medians over the rounds, without the first ones, of
the wall time and of the processor time of all threads, which other work on the machine changes less. "same" is the
share of matches within 0.01 px of one of the first row's, or the other way round: the smaller. The time to the first
pair is a whole process that imports, loads and matches; MB is what the packages named take on the disk.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from importlib.metadata import PackageNotFoundError, files
from pathlib import Path
from typing import Any, cast

import cv2
import numpy as np
from tqdm import tqdm

import tiepoint
from speed import SIZE, photos
from tiepoint import logs
from tiepoint.errors import InputError, WorkError
from tiepoint.evaluation.environment import environment, pin_torch, pinned_threads, thread_variables
from tiepoint.files import atomic_path, check_writable
from tiepoint.images import UInt8
from tiepoint.runtime import embedded
from tiepoint.runtime.matcher import Found, Matcher, PaddedMatches
from tiepoint.types import Float32, Matches

# before torch is loaded: threads of one backend that spin would take the time of the next, and of other work
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
BOUND = 0.01  # px, as in the parity report
WARM_UP = 10  # rounds: from the eighth pair of a size on OpenVINO has a model of its own
REST = 0.05  # seconds before each measurement
LONG_SIDES = (1024, 900, 800, 700, 600, 500, 400, 333)
PACKAGES = {
    "torch": ("torch", "kornia", "lightning", "onnx", "safetensors"),
    "onnxruntime": ("onnxruntime",),
    "openvino": ("openvino", "openvino-telemetry"),
}
Pair = tuple[UInt8, UInt8]


@dataclass(frozen=True)
class Row:
    """One backend's figures on the pair; times in milliseconds."""

    name: str
    matches: int
    same: float
    wall: float
    processor: float
    quartiles: tuple[float, float]


class TorchNetwork:
    """A network of torch behind a matcher, as it is handed over."""

    facts: Mapping[str, str] = {}

    def __init__(self, network: Callable[..., Any], count: int) -> None:
        self._network, self._count = network, count

    def match(self, image0: UInt8, image1: UInt8) -> Found:
        """See `Backend.match`."""
        import torch

        with torch.inference_mode():
            told = self._network(torch.tensor(image0[None]), torch.tensor(image1[None]), torch.tensor(self._count))
        return PaddedMatches(*(field.numpy() for field in told)).found(0)


def as_trained(model: str, count: int) -> Matcher:
    """Eager torch on the network with all that training needs."""
    import torch

    from tiepoint.checkpoints import read_weights

    weights = read_weights(path_of(model))
    weights.extractor.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    return Matcher(TorchNetwork(weights.two_view(), count), name="torch, as trained")


def compiled(model: str, count: int) -> Matcher:
    """The fused network, its extractor through torch.compile for sizes as they come."""
    import torch

    from tiepoint.checkpoints import read_weights
    from tiepoint.models.blocks import deployed

    network = deployed(read_weights(path_of(model)).two_view())
    extractor = cast(Any, network).extractor.to(memory_format=torch.channels_last)
    extractor.heads = torch.compile(extractor.heads)  # selection and matching take counts that would be compiled anew
    return Matcher(TorchNetwork(network, count), name="torch.compile")


def half(model: str, count: int) -> Matcher:
    """OpenVINO in bfloat16, which `tiepoint.load` does not offer."""
    from tiepoint.runtime.openvino_graph import OpenVinoGraph

    graph = OpenVinoGraph(path_of(model), max_keypoints=count, device="cpu", precision="bf16")
    return Matcher(graph, name="openvino, bf16")


def path_of(model: str) -> Path:
    """The file of a model."""
    return embedded(model) or Path(model)


def offered(backend: str) -> Callable[[str, int], Matcher]:
    """A backend as `tiepoint.load` gives it."""
    return lambda model, count: tiepoint.load(model, max_keypoints=count, backend=cast(Any, backend), device="cpu")


BACKENDS: dict[str, Callable[[str, int], Matcher]] = {
    "as-trained": as_trained,
    "torch": offered("torch"),
    "compiled": compiled,
    "onnxruntime": offered("onnxruntime"),
    "openvino": offered("openvino"),
    "openvino-bf16": half,
}


def match_all(ready: Mapping[str, Matcher], pair: Pair, rounds: int) -> list[Row]:
    """Time all in turn and compare their matches with the first one's."""
    wall: dict[str, list[float]] = {name: [] for name in ready}
    processor: dict[str, list[float]] = {name: [] for name in ready}
    found: dict[str, Matches] = {}
    for _ in tqdm(range(rounds + WARM_UP), desc="matching", unit="round"):
        for name, matcher in ready.items():
            time.sleep(REST)
            start = time.perf_counter(), time.process_time()
            found[name] = matcher(*pair)
            wall[name].append(1000 * (time.perf_counter() - start[0]))
            processor[name].append(1000 * (time.process_time() - start[1]))
    reference = ends(found[next(iter(ready))])
    return [
        Row(
            name,
            len(found[name]),
            same(reference, ends(found[name])),
            statistics.median(wall[name][WARM_UP:]),
            statistics.median(processor[name][WARM_UP:]),
            cast(tuple[float, float], tuple(np.percentile(wall[name][WARM_UP:], (25, 75)).tolist())),
        )
        for name in ready
    ]


def ends(matches: Matches) -> Float32:
    """Both ends (N, 4) of the matches."""
    return np.hstack((matches.keypoints0, matches.keypoints1))


def same(ours: Float32, theirs: Float32) -> float:
    """The smaller share of the matches that the other side has too."""
    if not len(ours) or not len(theirs):
        return float(len(ours) == len(theirs))
    near = np.linalg.norm(ours[:, None] - theirs[None], axis=2) <= BOUND
    return float(min(near.any(1).mean(), near.any(0).mean()))


def folder_of_sizes(ready: Mapping[str, Matcher], pair: Pair) -> dict[str, dict[str, float]]:
    """Processor milliseconds for the pair in eight sizes: when they are new, and when they come for the third time."""
    views = [[cv2.resize(photo, (side, side * 3 // 4)) for photo in pair] for side in LONG_SIDES]
    taken: dict[str, list[float]] = {name: [] for name in ready}
    for _ in tqdm(range(3), desc="sizes", unit="round"):
        for view in views:
            for name, matcher in ready.items():
                start = time.process_time()
                matcher(*view)
                taken[name].append(1000 * (time.process_time() - start))
    count = len(views)
    return {name: {"new": sum(t[:count]), "again": sum(t[-count:])} for name, t in taken.items()}


def start_up(backend: str, model: str, pair: Pair, *, repeats: int, threads: int) -> dict[str, float]:
    """A whole process from its start to the matches of one pair: medians, the first one not counted; and its packages.

    Returns:
        "seconds" by the clock, "processor" seconds of all its threads, "megabytes".
    """
    code = (
        "import sys, numpy, tiepoint; pair = numpy.load(sys.argv[1]); "
        "tiepoint.load(sys.argv[2], backend=sys.argv[3], device='cpu')(*pair)"
    )
    taken = []
    with tempfile.TemporaryDirectory() as folder, thread_variables(threads):
        np.save(f"{folder}/pair.npy", np.stack(pair))
        command = [sys.executable, "-c", code, f"{folder}/pair.npy", model, backend]
        for _ in range(repeats + 1):
            start = time.perf_counter(), _of_children()
            done = subprocess.run(command, capture_output=True, text=True)
            taken.append((time.perf_counter() - start[0], _of_children() - start[1]))
            if done.returncode:
                raise WorkError(f"a process with backend {backend} failed: {done.stderr.strip().splitlines()[-1]}")
    seconds, processor = (statistics.median(column) for column in zip(*taken[1:], strict=True))
    return {"seconds": seconds, "processor": processor, "megabytes": megabytes(PACKAGES[backend])}


def _of_children() -> float:
    """Processor seconds of all processes that this one has started and that have ended."""
    told = os.times()
    return told.children_user + told.children_system


def megabytes(packages: Sequence[str]) -> float:
    """What installed packages take on the disk, without those that they need in turn."""
    total = 0
    for package in packages:
        try:
            paths = [Path(str(file.locate())) for file in files(package) or ()]
        except PackageNotFoundError:
            continue
        total += sum(path.stat().st_size for path in paths if path.is_file())
    return total / 1e6


def matchers(options: argparse.Namespace) -> tuple[dict[str, Matcher], dict[str, str]]:
    """The backends that are installed, the further files on those that take them, and why the others are not there."""
    ready: dict[str, Matcher] = {}
    absent: dict[str, str] = {}
    wanted = [(name, name, options.weights) for name in dict.fromkeys(options.backends)]
    graphs = [name for name in ("onnxruntime", "openvino") if name in options.backends]
    wanted += [(f"{name}, {Path(model).name}", name, model) for model in options.model for name in graphs]
    for title, name, model in wanted:
        try:
            ready[title] = BACKENDS[name](model, options.keypoints)
        except (InputError, ImportError) as error:
            if title != name or name in ("onnxruntime", *options.backends[:1]):
                raise
            absent[title] = str(error)
    return ready, absent


def table(rows: Sequence[Row], absent: Mapping[str, str]) -> str:
    """The backends, with ratios to the first one."""
    lines = [f"{'backend':<28}{'ms':>8}{'25-75 %':>14}{'times':>7}{'cpu ms':>9}{'times':>7}{'matches':>9}{'same':>9}"]
    for row in rows:
        spread = f"{row.quartiles[0]:.0f}-{row.quartiles[1]:.0f}"
        ratios = rows[0].wall / row.wall, rows[0].processor / row.processor
        lines.append(
            f"{row.name[-27:]:<28}{row.wall:>8.1f}{spread:>14}{ratios[0]:>7.2f}{row.processor:>9.1f}{ratios[1]:>7.2f}"
            f"{row.matches:>9}{row.same:>9.2%}"
        )
    return "\n".join([*lines, *(f"{name:<28}left out: {reason}" for name, reason in absent.items())])


def run(options: argparse.Namespace) -> None:
    """Measure, print and write."""
    for name, least in (("threads", 1), ("repeats", 1), ("starts", 0), ("keypoints", 1)):
        if getattr(options, name) < least:
            raise InputError(f"--{name} is {getattr(options, name)}, expected {least} or more")
    if options.json:
        check_writable(options.json)
    pair = photos(options.photos)
    load = os.getloadavg()[0] if hasattr(os, "getloadavg") else None
    with pinned_threads(options.threads):
        ready, absent = matchers(options)
        pin_torch(options.threads)
        rows = match_all(ready, pair, options.repeats)
        sizes = folder_of_sizes(ready, pair) if options.sizes else {}
    busy = "" if load is None else f", load before {load:.1f}"
    print(
        f"{SIZE[1]}×{SIZE[0]}, {options.keypoints} keypoints, {options.threads} threads, {options.repeats} rounds{busy}"
    )
    print(table(rows, absent))
    if sizes:
        print(f"\nlong sides {', '.join(map(str, LONG_SIDES))}, processor ms for all: when new, and for the third time")
        print("\n".join(f"{name[-27:]:<28}{t['new']:>9.0f}{t['again']:>9.0f}" for name, t in sizes.items()))
    begun = {
        name: start_up(name, options.weights, pair, repeats=options.starts, threads=options.threads)
        for name in PACKAGES
        if options.starts and name in ready
    }
    for name, told in begun.items():
        first = f"{told['seconds']:.2f} s to the first pair, {told['processor']:.2f} s of the processor"
        print(f"{name:<14}{first}; {told['megabytes']:.0f} MB: {', '.join(PACKAGES[name])}")
    if options.json:
        content: dict[str, Any] = {
            "size": SIZE,
            "keypoints": options.keypoints,
            "backends": [asdict(row) for row in rows],
            "left out": absent,
            "sizes": sizes,
            "start": begun,
            "load": load,
            "environment": environment(options.threads),
        }
        with atomic_path(options.json) as path:
            path.write_text(json.dumps(content, indent=1, allow_nan=False), encoding="utf-8")


def main(argv: Sequence[str] | None = None) -> int:
    """Run the measurement; the exit code is 0, 1 where the work failed, 2 where the input was wrong."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--photos", type=Path, nargs="+", default=[], help="two images, or a folder of them")
    parser.add_argument("--weights", default="default", help="what all backends run: default, or an .onnx file")
    parser.add_argument("--backends", nargs="+", choices=BACKENDS, default=list(BACKENDS), help="compared to the first")
    parser.add_argument(
        "--model", action="append", default=[], help="a further .onnx file, int8 or fp16 say; repeatable"
    )
    parser.add_argument("--keypoints", type=int, default=2048, help="an image")
    parser.add_argument("--threads", type=int, default=2, help="of everything that matches")
    parser.add_argument("--repeats", type=int, default=25, help="rounds of matching")
    parser.add_argument("--sizes", action=argparse.BooleanOptionalAction, default=True, help="a folder of eight sizes")
    parser.add_argument("--starts", type=int, default=5, help="fresh processes a backend; 0 leaves them out")
    parser.add_argument("--json", type=Path, help="write the figures here")
    logs.setup()
    try:
        run(parser.parse_args(argv))
    except (InputError, WorkError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2 if isinstance(error, InputError) else 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
