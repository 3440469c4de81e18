"""Accuracy of matchers side by side on public pairs, by one protocol: prints tables and writes JSON.

python benchmarks/accuracy.py --data ../shared/data --model default --model sift --json accuracy.json
"""

import argparse
import json
import os
import platform
import sys
import textwrap
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt
from tqdm import tqdm

import tiepoint
from tiepoint.errors import InputError, WorkError
from tiepoint.evaluation.homography import read_homography_pairs, read_point_pairs
from tiepoint.evaluation.metrics import auc, paired_bootstrap
from tiepoint.evaluation.pose import read_pose_pairs
from tiepoint.evaluation.protocol import (
    MatchedPair,
    Matcher,
    Pair,
    Protocol,
    match_pair,
    sweep,
)
from tiepoint.files import atomic_path
from tiepoint.types import Float64, Matches

UInt8 = npt.NDArray[np.uint8]
PACKAGES = ("tiepoint", "numpy", "opencv-python-headless", "onnxruntime", "poselib")


@dataclass(frozen=True)
class Benchmark:
    """A set of pairs and how its figures are made and called."""

    read: Callable[[Path], Sequence[Pair]]
    limits: tuple[int, ...]
    figure: str
    unit: str


@dataclass(frozen=True)
class Record:
    """What one method did on one pair; `errors` has one row an inlier threshold."""

    name: str
    size0: tuple[int, int]
    size1: tuple[int, int]
    matches: int
    seconds: float
    errors: Float64


@dataclass(frozen=True)
class Row:
    """One line of a table: figures in percent at the best threshold, medians over the pairs."""

    figures: list[float]
    threshold: float
    matches: float
    seconds: float
    difference: tuple[float, float] | None
    """At 5, against the first method, with its standard error; percentage points."""


BENCHMARKS = {
    "pose": Benchmark(
        lambda data: read_pose_pairs(data / "pose" / "pairs_superglue.txt", root=data),
        (5, 10, 20),
        "AUC",
        "degrees, pose error",
    ),
    "homography": Benchmark(
        lambda data: read_homography_pairs(data / "homography"), (3, 5, 10), "AUC", "px, corner error"
    ),
    "multimodal": Benchmark(
        lambda data: read_homography_pairs(data / "multimodal"), (3, 5, 10), "AUC", "px, corner error"
    ),
    "hard": Benchmark(
        lambda data: read_point_pairs(data / "hard"),
        (3, 5, 10),
        "points within",
        "px, symmetric epipolar distance",
    ),
}


def orb(image0: UInt8, image1: UInt8) -> Matches:
    """OpenCV's ORB, 2048 keypoints, mutual nearest neighbours in Hamming distance."""
    detector = cv2.ORB.create(Protocol().max_keypoints)
    (points0, codes0), (points1, codes1) = (_describe(detector, image) for image in (image0, image1))
    found = cv2.BFMatcher(cv2.NORM_HAMMING, crossCheck=True).match(codes0, codes1) if len(codes1) else []
    found = sorted(found, key=lambda match: match.distance)
    return Matches(
        points0[[match.queryIdx for match in found]].reshape(-1, 2),
        points1[[match.trainIdx for match in found]].reshape(-1, 2),
        np.array([1 - match.distance / 256 for match in found], dtype=np.float32),
        image0.shape[:2],
        image1.shape[:2],
    )


def _describe(detector: Any, image: UInt8) -> tuple[npt.NDArray[np.float32], npt.NDArray[Any]]:
    keypoints, descriptors = detector.detectAndCompute(cv2.cvtColor(image, cv2.COLOR_RGB2GRAY), None)
    points = np.array([keypoint.pt for keypoint in keypoints], dtype=np.float32).reshape(-1, 2)
    return points, descriptors if descriptors is not None else np.zeros((0, 32), dtype=np.uint8)


def load_matcher(name: str) -> Matcher:
    """Load a method by name or file, or take a function of this file."""
    if name == "orb":
        return orb
    matcher: Matcher = tiepoint.load(name, max_keypoints=Protocol().max_keypoints)
    return matcher


def measure(
    matchers: dict[str, Matcher], pairs: Sequence[Pair], protocol: Protocol, title: str
) -> dict[str, list[Record]]:
    """Run every method on every pair, the methods in turn so that a slow spell of the machine hits all."""
    for matcher in matchers.values():
        match_pair(matcher, pairs[0], protocol)  # warm-up, not timed
    records: dict[str, list[Record]] = {name: [] for name in matchers}
    for pair in tqdm(pairs, desc=title, unit="pair"):
        for name, matcher in matchers.items():
            records[name].append(record(match_pair(matcher, pair, protocol), pair, protocol))
    return records


def record(matched: MatchedPair, pair: Pair, protocol: Protocol) -> Record:
    """Measure one pair's matches against its truth."""
    matches = matched.matches
    errors = sweep(matched, pair, protocol)
    return Record(pair.name, matches.size0, matches.size1, len(matches), matched.seconds, errors)


def figures(records: Sequence[Record], benchmark: Benchmark) -> Float64:
    """Percentages, (T, L): one row an inlier threshold, one column a limit."""
    if benchmark.figure == "AUC":
        return 100 * auc(np.stack([record.errors for record in records], axis=1), benchmark.limits)
    means: Float64 = within(records, benchmark.limits).mean(axis=1)
    return means


def within(records: Sequence[Record], limits: Sequence[int]) -> Float64:
    """Percentage of a pair's marked points whose distance is below each limit, (T, N, L)."""
    shares = [(record.errors[..., None] < np.array(limits)).mean(axis=1) for record in records]
    return 100 * np.stack(shares, axis=1)


def summarise(records: dict[str, list[Record]], benchmark: Benchmark, protocol: Protocol) -> dict[str, Row]:
    """One row a method, each at its best threshold, compared with the first."""
    column = benchmark.limits.index(5)
    best = {name: int(np.argmax(figures(runs, benchmark)[:, column])) for name, runs in records.items()}
    first = next(iter(records))
    return {
        name: Row(
            figures(runs, benchmark)[best[name]].tolist(),
            protocol.thresholds[best[name]],
            float(np.median([run.matches for run in runs])),
            float(np.median([run.seconds for run in runs])),
            None if name == first else difference(runs, best[name], records[first], best[first], benchmark),
        )
        for name, runs in records.items()
    }


def difference(
    runs: Sequence[Record], row: int, runs_first: Sequence[Record], row_first: int, benchmark: Benchmark
) -> tuple[float, float]:
    """Paired difference at 5 from the first method and its standard error, in percentage points."""
    if benchmark.figure == "AUC":
        errors, errors_first = (
            np.array([run.errors[index] for run in several])
            for several, index in ((runs, row), (runs_first, row_first))
        )
        paired = paired_bootstrap(errors, errors_first, 5)
        return 100 * paired.difference, 100 * paired.standard_error
    gain = within(runs, (5,))[row, :, 0] - within(runs_first, (5,))[row_first, :, 0]
    return float(gain.mean()), float(gain.std(ddof=1) / np.sqrt(len(gain)))


def table(title: str, rows: dict[str, Row], benchmark: Benchmark, count: int) -> str:
    """A table of at most 100 columns."""
    limits = "/".join(map(str, benchmark.limits))
    heads = "".join(f"{f'@{limit}':>7}" for limit in benchmark.limits)
    first = shorten(next(iter(rows)), 20)
    lines = [
        f"{title}: {count} pairs, {benchmark.figure} {limits} {benchmark.unit}",
        f"{'method':<26}{heads}{'[px]':>8}{'matches':>9}{'s/pair':>9}  @5 against {first}",
    ]
    return "\n".join(lines + [line(name, row) for name, row in rows.items()])


def line(name: str, row: Row) -> str:
    """One method's line of the table."""
    cells = "".join(f"{figure:7.1f}" for figure in row.figures)
    against = f"{row.difference[0]:+6.1f} ± {row.difference[1]:.1f}" if row.difference else ""
    threshold = f"[{row.threshold:g}]"
    text = f"{shorten(name, 25):<26}{cells}{threshold:>8}{row.matches:9.0f}{row.seconds:9.3f}  {against}"
    return text.rstrip()


def shorten(name: str, width: int) -> str:
    """Keep the end of a long name, where paths differ."""
    return name if len(name) <= width else "…" + name[1 - width :]


def preamble(protocol: Protocol, environment: dict[str, Any]) -> str:
    """The protocol and the versions in words."""
    packages = (f"{name} {number}" for name, number in environment["versions"].items())
    facts = [
        f"long side <= {protocol.long_side} px, {protocol.max_keypoints} keypoints,",
        "errors in the frame of the resized images;",
        f"poselib LO-RANSAC, {protocol.min_iterations}-{protocol.max_iterations} iterations,",
        f"confidence {protocol.confidence}, seed {protocol.seed},",
        f"inlier thresholds {', '.join(f'{threshold:g}' for threshold in protocol.thresholds)} px,",
        "each method at its best by @5, in brackets; ± is one standard error, paired over pairs;",
        "time from image arrays to matches, median over pairs, methods in turn after a warm-up,",
        f"{environment['threads']} threads on {environment['processor']} with {environment['cores']} cores;",
        ", ".join(packages),
    ]
    return textwrap.fill(" ".join(facts), 100)


def environment(threads: int) -> dict[str, Any]:
    """What beside the protocol the figures may depend on."""
    versions = {"python": platform.python_version()} | {name: version(name) for name in PACKAGES}
    return {"versions": versions, "processor": processor(), "cores": os.cpu_count(), "threads": threads}


def processor() -> str:
    """The name of the processor."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return platform.processor() or platform.machine()
    names = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.machine()


def report(records: dict[str, list[Record]], rows: dict[str, Row], benchmark: Benchmark) -> dict[str, Any]:
    """One set's results for JSON."""
    methods = {
        name: asdict(row) | {"pairs": [asdict(run) | {"errors": listed(run.errors)} for run in records[name]]}
        for name, row in rows.items()
    }
    meta = {"figure": benchmark.figure, "unit": benchmark.unit, "limits": benchmark.limits}
    return meta | {"methods": methods}


def listed(errors: Float64) -> Any:
    """Nested lists; an infinite error, where no model was found, becomes null, for JSON has no infinity."""
    values = errors.round(4).astype(object)
    values[~np.isfinite(errors)] = None
    return values.tolist()


def arguments(argv: Sequence[str] | None) -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, default=Path("../shared/data"), help="folder of the benchmark sets")
    parser.add_argument(
        "--model", action="append", help="default, sift, orb, or a file; may be repeated (default: all three)"
    )
    parser.add_argument("--sets", nargs="+", choices=BENCHMARKS, default=list(BENCHMARKS), help="sets to run")
    parser.add_argument("--json", type=Path, help="write every pair's errors here")
    parser.add_argument("--threads", type=int, default=2, help="of OpenCV and OpenMP")
    return parser.parse_args(argv)


def run(options: argparse.Namespace) -> None:
    """Measure all the sets, print their tables and write the JSON."""
    if not options.data.is_dir():
        raise InputError(f"--data {options.data} is not a folder, expected the one that holds {', '.join(BENCHMARKS)}")
    cv2.setNumThreads(options.threads)
    os.environ["OMP_NUM_THREADS"] = str(options.threads)
    protocol, surroundings = Protocol(), environment(options.threads)
    pairs = {name: BENCHMARKS[name].read(options.data) for name in options.sets}
    matchers = {name: load_matcher(name) for name in options.model or ("default", "sift", "orb")}
    print(preamble(protocol, surroundings))
    results = {}
    for name in options.sets:
        records = measure(matchers, pairs[name], protocol, name)
        rows = summarise(records, BENCHMARKS[name], protocol)
        print(f"\n{table(name, rows, BENCHMARKS[name], len(pairs[name]))}", flush=True)
        results[name] = report(records, rows, BENCHMARKS[name])
    if options.json:
        content = {"protocol": asdict(protocol), "environment": surroundings, "sets": results}
        with atomic_path(options.json) as path:
            path.write_text(json.dumps(content, indent=1, allow_nan=False), encoding="utf-8")


def main(argv: Sequence[str] | None = None) -> int:
    """Run the benchmark; the exit code is 0, 1 where the work failed, 2 where the input was wrong."""
    try:
        run(arguments(argv))
    except (InputError, WorkError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2 if isinstance(error, InputError) else 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
