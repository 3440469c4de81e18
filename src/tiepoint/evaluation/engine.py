"""A benchmark run: read the sets, match their pairs, score the matches, take times, sum up."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from loguru import logger

from tiepoint.evaluation.environment import environment, pinned_threads
from tiepoint.evaluation.matching import MatchedSet, match_set
from tiepoint.evaluation.methods import Method, Recipe, read_fingerprints, write_fingerprints
from tiepoint.evaluation.protocol import make_protocol
from tiepoint.evaluation.results import PairResult, Results, SetResult
from tiepoint.evaluation.sets import BenchmarkSet, read_set, set_result
from tiepoint.evaluation.timing import Case, time_methods
from tiepoint.evaluation.workers import Task, score_all
from tiepoint.formats import plain
from tiepoint.runtime import Backend, Device

MATCHES = "matches"  # the folder in a run's folder that may be deleted, at the price of matching again


@dataclass(frozen=True, slots=True)
class Plan:
    """What a run is to do.

    Attributes:
        sets: folders of the benchmarks by name, in the order of the report.
        methods: weight files by the methods' names; the first method is what the others are compared with.
        output: folder of the run.
        protocol: its name.
        changes: values of the protocol that differ from the convention; None keeps the convention's.
        device: where networks run.
        backend: what runs the networks of ONNX files.
        threads: of everything that matches and is timed.
        workers: processes that score.
        repeats: of the timing; 0 takes no times.
        strict: whether the first unusable pair ends the run, or is left out.
        command: as it was typed.
        remark: said once everything is known to be right, before the work begins.
    """

    sets: Mapping[str, Path]
    methods: Mapping[str, tuple[str, ...]]
    output: Path
    protocol: str = "tiepoint"
    changes: Mapping[str, Any] = field(default_factory=dict)
    device: Device = "auto"
    backend: Backend = "auto"
    threads: int = 2
    workers: int = 1
    repeats: int = 0
    strict: bool = False
    command: str = ""
    remark: str = ""


def run(plan: Plan) -> Results:
    """Match what is not matched yet, score everything, take times.

    Killing a run loses the pair that was being matched: matches are kept under `plan.output` as soon as they are
    there, and found again by what they depend on.

    Raises:
        InputError: a set, a method or an option is wrong; with `plan.strict`, a pair cannot be used.
        WorkError: weights cannot be fetched, or a method failed on a pair.
    """
    folder = plan.output / MATCHES
    with pinned_threads(plan.threads):
        sets = [
            read_set(name, place, protocol=plan.protocol, strict=plan.strict, **plan.changes)
            for name, place in plan.sets.items()
        ]
        methods = _methods(plan, sets, folder / "fingerprints.json")
        if plan.remark:
            logger.info(plan.remark)
        matched = [
            match_set(found.name, found.pairs, used, protocol=found.protocol, folder=folder, strict=plan.strict)
            for found, used in zip(sets, methods, strict=True)
        ]
        cases = [_cases(*each, plan.output) for each in zip(sets, methods, matched, strict=True)]
        flat = [case for several in cases for case in several]
        scored = iter(score_all([task for case in flat for task in case.tasks], plan.workers))
        results = [_set_result(*each, scored) for each in zip(sets, matched, cases, strict=True)]
        timing = time_methods(flat, plan.repeats, threads=plan.threads, notes=folder / "timing.json")
    protocol = make_protocol(plan.protocol, **plan.changes)
    return Results(plan.command, plain(asdict(protocol)), environment(plan.threads), results, timing)


def _methods(plan: Plan, sets: Sequence[BenchmarkSet], notes: Path) -> list[list[Method]]:
    """The methods for each set; sets whose protocols grant the same number of keypoints share them."""
    known, made = read_fingerprints(notes), dict[Recipe, Method]()
    for found in sets:
        for recipe in _recipes(plan, found):
            if recipe not in made:
                made[recipe] = Method(recipe, known, threads=plan.threads)
    write_fingerprints(notes, made.values())
    return [[made[recipe] for recipe in _recipes(plan, found)] for found in sets]


def _recipes(plan: Plan, found: BenchmarkSet) -> list[Recipe]:
    count = found.protocol.max_keypoints
    return [Recipe(name, weights, count, plan.device, plan.backend) for name, weights in plan.methods.items()]


def _cases(found: BenchmarkSet, methods: Sequence[Method], matched: MatchedSet, output: Path) -> list[Case]:
    """One case a pair, with a task a method."""
    limits = found.benchmark.limits
    return [
        Case(methods, [Task(pair, file, output, found.protocol, limits) for file in files])
        for pair, files in zip(matched.pairs, matched.files, strict=True)
    ]


def _set_result(
    found: BenchmarkSet, matched: MatchedSet, cases: Sequence[Case], scored: Iterator[PairResult]
) -> SetResult:
    """Takes this set's share of the scored pairs and sums it up."""
    measured: dict[str, list[PairResult]] = {}
    for case in cases:
        for method in case.methods:
            measured.setdefault(method.name, []).append(next(scored))
    return set_result(found, measured, left_out=matched.left_out)
