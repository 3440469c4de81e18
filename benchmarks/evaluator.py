"""What the evaluator itself costs: beyond the methods' own time, and for scoring many cached matches.

python benchmarks/evaluator.py --data ../shared/data --json evaluator.json
"""

import argparse
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from tqdm import tqdm

from tiepoint.evaluation.cache import Cached, write_cached
from tiepoint.evaluation.environment import environment, pinned_threads
from tiepoint.evaluation.pairs import HomographyPair
from tiepoint.evaluation.protocol import make_protocol
from tiepoint.evaluation.results_io import read_results
from tiepoint.evaluation.summary import compare, summarise
from tiepoint.evaluation.workers import Task, score_all
from tiepoint.files import atomic_path
from tiepoint.geometry import warp_points
from tiepoint.types import Matches

MOST_OVERHEAD = 20.0  # percent
LIMITS = (1.0, 3.0, 5.0, 10.0)
KEYPOINTS = 1000  # an image, of the synthetic pairs
SIZE = (768, 1024)


@dataclass(frozen=True)
class Overhead:
    """Where the seconds of one run of `tiepoint benchmark` go."""

    pairs: int
    wall: float
    """Of the whole process, from its start to its end."""
    method: float
    """Image arrays in to matches out, summed over methods and pairs."""
    read: float
    """Decoding and resizing, once a pair."""
    estimate: float
    """The robust estimator, summed over the processes that share it."""
    workers: int

    @property
    def percent(self) -> float:
        """What the evaluator itself adds to the methods' time: all but the estimator, whose time the protocol sets."""
        return 100 * (self.wall - self.method - self.estimate / self.workers) / self.method

    @property
    def percent_of_method(self) -> float:
        """What the run takes beyond the methods alone: estimating counts too."""
        return 100 * (self.wall / self.method - 1)


@dataclass(frozen=True)
class Scoring:
    """Seconds for the cached matches of many synthetic pairs."""

    pairs: int
    matches: int
    workers: int
    wall: float
    """Until every pair is scored."""
    estimate: float
    """Of that, the robust estimator, summed over the processes."""
    summary: float
    """Figures, and the comparison of two methods by 2000 bootstrap samples."""


def overhead(data: str, sets: str, methods: Sequence[str], *, threads: int, workers: int) -> Overhead:
    """Run `tiepoint benchmark` in a process of its own, nothing cached, and account for its time."""
    with tempfile.TemporaryDirectory() as folder:
        options = ["--data", data, "--sets", sets, "--threads", str(threads), "--workers", str(workers)]
        command = [sys.executable, "-m", "tiepoint", "benchmark", *methods, *options, "--repeats", "0", "-o", folder]
        start = time.perf_counter()
        done = subprocess.run(command, stdout=subprocess.DEVNULL)
        wall = time.perf_counter() - start
        if done.returncode:
            sys.exit(f"error: `{' '.join(command)}` ended with exit code {done.returncode}")
        results = read_results(folder)
    rows = [[pair.seconds for pair in method.pairs] for found in results.sets for method in found.methods]
    taken = [seconds for row in rows for seconds in row]
    read = sum(seconds["read"] for found in results.sets for seconds in (p.seconds for p in found.methods[0].pairs))
    return Overhead(
        pairs=sum(len(found.methods[0].pairs) for found in results.sets),
        wall=wall,
        method=sum(seconds.get("extract", 0.0) + seconds["match"] for seconds in taken),
        read=read,
        estimate=sum(seconds["estimate"] for seconds in taken),
        workers=workers,
    )


def scoring(count: int, matches: int, workers: int) -> Scoring:
    """Score synthetic pairs: half of the matches right to a pixel, half anywhere."""
    protocol = make_protocol()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        tasks = [
            Task(synthetic(index, matches, folder), folder / f"{index}.npz", folder, protocol, LIMITS)
            for index in tqdm(range(count), desc="writing", unit="pair")
        ]
        start = time.perf_counter()
        results = score_all(tasks, workers)
        wall = time.perf_counter() - start
    start = time.perf_counter()
    rules: dict[str, Any] = {"truth": "homography", "limits": LIMITS, "thresholds": protocol.thresholds}
    methods = [summarise(name, results, **rules) for name in ("one", "other")]
    compare(methods[1], methods[0], **rules)
    summary = time.perf_counter() - start
    return Scoring(count, matches, workers, wall, sum(result.seconds["estimate"] for result in results), summary)


def synthetic(seed: int, count: int, folder: Path) -> HomographyPair:
    """A pair with a random mild homography, and its matches on disk."""
    rng = np.random.default_rng(seed)
    H = np.eye(3) + rng.normal(0, 1, (3, 3)) * [[0.05, 0.05, 20], [0.05, 0.05, 20], [2e-5, 2e-5, 0]]
    points0 = rng.uniform(0, SIZE[::-1], (count, 2))
    points1 = warp_points(H, points0) + rng.normal(0, 1, (count, 2))
    points1[::2] = rng.uniform(0, SIZE[::-1], points1[::2].shape)
    keypoints = [rng.uniform(0, SIZE[::-1], (KEYPOINTS, 2)).astype(np.float32) for _ in range(2)]
    found = Matches(
        points0.astype(np.float32), points1.astype(np.float32), np.linspace(1, 0, count, dtype=np.float32), SIZE, SIZE
    )
    cached = Cached(found, keypoints[0], keypoints[1], (1.0, 1.0), (1.0, 1.0), {"match": 0.0})
    write_cached(folder / f"{seed}.npz", cached, "synthetic")
    return HomographyPair(f"{seed}", folder / "0.png", folder / "1.png", H)


def table(run: Overhead | None, many: Scoring | None) -> str:
    """Both measurements in words and numbers."""
    lines = []
    if run is not None:
        verdict = "below" if run.percent < MOST_OVERHEAD else "NOT below"
        lines += [
            f"tiepoint benchmark, {run.pairs} pairs, nothing cached",
            f"  whole process                  {run.wall:9.1f} s",
            f"  methods (extract, match)       {run.method:9.1f} s",
            f"  reading and resizing           {run.read:9.1f} s",
            f"  estimator, over all processes  {run.estimate:9.1f} s",
            f"  the evaluator itself           {run.percent:9.1f} %  of methods ({verdict} {MOST_OVERHEAD:g} %)",
            f"  with the estimator             {run.percent_of_method:9.1f} %",
        ]
    if many is not None:
        lines += [
            f"scoring {many.pairs} cached pairs of {many.matches} matches, {many.workers} processes",
            f"  until all are scored           {many.wall:9.1f} s",
            f"  estimator, over all processes  {many.estimate:9.1f} s",
            f"  beyond its share of each       {many.wall - many.estimate / many.workers:9.1f} s",
            f"  summing up and comparing two   {many.summary:9.1f} s",
        ]
    return "\n".join(lines)


def arguments(argv: Sequence[str] | None) -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", help="folder of the benchmark sets; without it only cached pairs are scored")
    parser.add_argument("--sets", default="pose", help="sets to run, separated by commas")
    parser.add_argument("--methods", nargs="+", default=["default", "sift", "orb"], help="methods to run")
    parser.add_argument("--scored", type=int, default=10_000, help="synthetic pairs to score; 0 leaves that out")
    parser.add_argument("--matches", type=int, default=500, help="of every synthetic pair")
    parser.add_argument("--threads", type=int, default=2, help="of everything that matches")
    parser.add_argument("--workers", type=int, default=2, help="processes that score")
    parser.add_argument("--json", type=Path, help="write the figures here")
    return parser.parse_args(argv)


def main(argv: Sequence[str] | None = None) -> int:
    """Measure, print and write; the exit code is 1 where the evaluator takes more than it may."""
    options = arguments(argv)
    run = None
    if options.data:
        run = overhead(options.data, options.sets, options.methods, threads=options.threads, workers=options.workers)
    with pinned_threads(options.threads):
        many = scoring(options.scored, options.matches, options.workers) if options.scored else None
    print(table(run, many))
    if options.json:
        percents = {"percent": run.percent, "percent_of_method": run.percent_of_method} if run else {}
        content = {
            "overhead": asdict(run) | percents if run else None,
            "scoring": asdict(many) if many else None,
            "environment": environment(options.threads),
        }
        with atomic_path(options.json) as path:
            path.write_text(json.dumps(content, indent=1, allow_nan=False), encoding="utf-8")
    return int(run is not None and run.percent >= MOST_OVERHEAD)


if __name__ == "__main__":
    sys.exit(main())
