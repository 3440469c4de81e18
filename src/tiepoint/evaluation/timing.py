"""How long methods take and how much memory: in turn on the same pairs, stages apart, threads pinned."""

import json
import sys
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from tqdm import tqdm

from tiepoint.evaluation.cache import file_identity
from tiepoint.evaluation.environment import environment
from tiepoint.evaluation.matching import measure, read_views
from tiepoint.evaluation.methods import Method, Recipe
from tiepoint.evaluation.results import STAGES, Timing
from tiepoint.evaluation.workers import Task, processes, score_task
from tiepoint.files import atomic_path

PAIRS = 5  # as many as make a mean, few enough to be repeated
Stages = dict[str, float]
Rounds = dict[str, list[Stages]]


class Case(NamedTuple):
    """A pair that several methods have matched.

    Attributes:
        methods: the same by name on every pair.
        tasks: the pair with the matches of each method, in their order.
    """

    methods: Sequence[Method]
    tasks: Sequence[Task]


def time_methods(cases: Sequence[Case], repeats: int, *, threads: int, notes: Path) -> list[Timing]:
    """Time the methods on a few pairs; their networks run only where these times have not been taken before.

    Args:
        cases: all pairs, of which a few are chosen evenly.
        repeats: of every pair; 0 takes no times.
        threads: to which this process is held, and those that measure the memory.
        notes: a JSON file that keeps the times of matching; the estimators are timed anew in every run.

    Returns:
        One a method; none without pairs or repeats.
    """
    chosen = _evenly(cases, PAIRS)
    if not chosen or not repeats:
        return []
    key = _key(chosen, repeats, threads)
    known = _read_notes(notes, key)
    if known is None:
        known = {"key": key, "rounds": time_rounds(chosen, repeats, "timing", match_stages)}
        known["memory"] = {
            method.name: peak_memory(method.recipe, task, threads=threads)
            for method, task in tqdm([*zip(*chosen[0], strict=True)], desc="memory", unit="method")
        }
        with atomic_path(notes) as path:
            path.write_text(json.dumps(known), encoding="utf-8")
    estimates = time_rounds(chosen, repeats, "estimators", estimate_stage)
    return [
        summarise_times(
            name,
            [matching | estimate for matching, estimate in zip(known["rounds"][name], rounds, strict=True)],
            pairs=len(chosen),
            memory=known["memory"][name],
        )
        for name, rounds in estimates.items()
    ]


def time_rounds(cases: Sequence[Case], repeats: int, title: str, take: Callable[[Method, Task], Stages]) -> Rounds:
    """Take times again and again, the methods in turn so that a slow spell of the machine hits all.

    Args:
        cases: one or more.
        repeats: of every case; one more, before them, is the warm-up and does not count.
        title: of the bar.
        take: runs a method on a pair and tells the seconds by stage.

    Returns:
        For every method one entry a repeat: seconds by stage, means over the cases.
    """
    rounds: Rounds = {method.name: [] for method in cases[0].methods}
    for repeat in tqdm(range(repeats + 1), desc=title, unit="repeat"):
        runs: Rounds = {name: [] for name in rounds}
        for case in cases:
            for method, task in zip(*case, strict=True):
                runs[method.name].append(take(method, task))
        for name, taken in runs.items() if repeat else ():
            rounds[name].append({stage: float(np.mean([each[stage] for each in taken])) for stage in taken[0]})
    return rounds


def match_stages(method: Method, task: Task) -> Stages:
    """Seconds of a method on a pair: "read" is decoding and resizing, "total" image arrays in to matches out."""
    seconds = dict(measure(method, read_views(task.pair, task.protocol)).seconds)
    return seconds | {"total": sum(taken for stage, taken in seconds.items() if stage != "read")}


def estimate_stage(_: Method, task: Task) -> Stages:
    """Seconds of the protocol's estimator on a method's matches, all thresholds together."""
    return {"estimate": score_task(task).seconds["estimate"]}


def summarise_times(method: str, rounds: Sequence[Stages], *, pairs: int, memory: int | None) -> Timing:
    """Median and quartiles over the repeats, by stage."""
    stages = [stage for stage in STAGES if stage in rounds[0]]
    quartiles = {stage: np.percentile([taken[stage] for taken in rounds], [50, 25, 75]) for stage in stages}
    median, low, high = ({stage: float(quartiles[stage][place]) for stage in stages} for place in range(3))
    return Timing(method, pairs, len(rounds), median, low, high, memory)


def peak_memory(recipe: Recipe, task: Task, *, threads: int) -> int | None:
    """What loading a method and matching one pair adds to the memory of a process that does nothing else.

    Args:
        recipe: of the method.
        task: the pair.
        threads: to which the process is held.

    Returns:
        Bytes at the peak above those before the method was loaded, when NumPy, OpenCV and the images were there
        already; None where the system does not tell.
    """
    with processes(1, threads=threads) as pool:
        return pool.submit(_peak_above_baseline, recipe, task).result()


def _peak_above_baseline(recipe: Recipe, task: Task) -> int | None:
    views = read_views(task.pair, task.protocol)
    before = _reset_peak()
    recipe.load().measure(views.image0, views.image1)
    after = _peak()
    return None if before is None or after is None else max(after - before, 0)


def _reset_peak() -> int | None:
    """Bytes in use, from where on the peak counts where the system allows it; None where it does not tell."""
    with suppress(OSError):
        # decoding the images took more than is left of them
        Path("/proc/self/clear_refs").write_text("5", encoding="ascii")
    return _status("VmRSS") or _peak()


def _peak() -> int | None:
    """Bytes at the peak of this process; None where the system does not tell."""
    # not ru_maxrss: Linux hands the parent's peak on to a process that starts another program
    if told := _status("VmHWM"):
        return told
    with suppress(ImportError):
        import resource

        unit = 1 if sys.platform == "darwin" else 1024
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit
    return None


def _status(name: str) -> int | None:
    with suppress(OSError):
        for line in Path("/proc/self/status").read_text(encoding="utf-8").splitlines():
            if line.startswith(f"{name}:"):
                return int(line.split()[1]) * 1024
    return None


def _evenly(cases: Sequence[Case], count: int) -> list[Case]:
    """At most `count` of them, the first and the last among these, evenly spaced."""
    places = np.linspace(0, len(cases) - 1, min(count, len(cases))).round().astype(int)
    return [cases[place] for place in places]


def _key(cases: Sequence[Case], repeats: int, threads: int) -> str:
    """What the times of matching depend on; a file's name stands for the method, its version and the resizing."""
    surroundings = environment(threads)
    pairs = [
        [task.file.relative_to(task.folder).as_posix(), file_identity(task.pair.path0), file_identity(task.pair.path1)]
        for case in cases
        for task in case.tasks
    ]
    return json.dumps([pairs, repeats, surroundings])


def _read_notes(path: Path, key: str) -> dict[str, Any] | None:
    with suppress(OSError, ValueError):
        known = json.loads(path.read_text(encoding="utf-8"))
        if isinstance(known, dict) and known.get("key") == key:
            return known
    return None
