"""Benchmarks that have been read, with the protocol that applies to them, and what is found on them."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from tiepoint.errors import InputError
from tiepoint.evaluation.benchmarks import available, benchmark
from tiepoint.evaluation.pairs import Benchmark, Pair
from tiepoint.evaluation.protocol import Protocol, make_protocol
from tiepoint.evaluation.results import PairResult, SetResult
from tiepoint.evaluation.summary import compare, summarise
from tiepoint.formats import plain

UNITS = {"homography": "px", "pose": "degrees", "points": "px"}


@dataclass(frozen=True, slots=True, eq=False)
class BenchmarkSet:
    """A benchmark that has been read.

    Attributes:
        name: of the benchmark.
        folder: where it lies.
        benchmark: what it measures.
        protocol: how.
        pairs: those that can be used.
        left_out: one sentence for each of the others.
    """

    name: str
    folder: Path
    benchmark: Benchmark
    protocol: Protocol
    pairs: list[Pair]
    left_out: list[str]


def read_set(name: str, folder: Path, *, protocol: str, strict: bool, **changes: Any) -> BenchmarkSet:
    """Read a benchmark.

    Args:
        name: of the benchmark.
        folder: where it lies.
        protocol: the name of the convention.
        strict: whether the first pair that cannot be used raises, or is left out.
        changes: values of the protocol that differ from the convention.

    Raises:
        InputError: there is no such benchmark or protocol, or the folder holds something else.
    """
    kind = benchmark(name)
    chosen = make_protocol(protocol, benchmark=name, truth=kind.truth, **changes)
    pairs, left_out = kind.read(folder, strict)
    return BenchmarkSet(name, folder, kind, chosen, pairs, left_out)


def usual_folders(root: Path) -> dict[str, Path]:
    """Where every benchmark lies under a folder of benchmarks, whether it is there or not."""
    return {name: root / benchmark(name).folder for name in available()}


def sets_in(folder: Path) -> dict[str, Path]:
    """The benchmarks that a folder holds under their usual names.

    Raises:
        InputError: it is no folder, or holds none.
    """
    if not folder.is_dir():
        raise InputError(f"{folder} is not a folder, expected one that holds benchmarks")
    usual = usual_folders(folder)
    there = {name: path for name, path in usual.items() if path.exists()}
    if not there:
        expected = sorted({path.name for path in usual.values()})
        raise InputError(f"{folder} holds no benchmark, expected folders named {', '.join(expected)}")
    return there


def set_result(
    found: BenchmarkSet, measured: Mapping[str, Sequence[PairResult]], *, left_out: Sequence[str] = ()
) -> SetResult:
    """Sum up what methods did on a benchmark, and compare them with the first.

    Args:
        found: the benchmark.
        measured: by method, one result a pair.
        left_out: sentences on pairs that could not be used after all.
    """
    rules: dict[str, Any] = {
        "truth": found.benchmark.truth,
        "limits": found.benchmark.limits,
        "thresholds": found.protocol.thresholds,
    }
    methods = [summarise(name, results, **rules) for name, results in measured.items() if results]
    return SetResult(
        name=found.name,
        title=found.benchmark.title,
        truth=found.benchmark.truth,
        unit=UNITS[found.benchmark.truth],
        limits=[float(limit) for limit in found.benchmark.limits],
        licence=found.benchmark.licence,
        source=found.benchmark.source,
        folder=str(found.folder),
        left_out=[*found.left_out, *left_out],
        methods=methods,
        comparisons=[compare(method, methods[0], **rules) for method in methods[1:]],
        protocol=plain(asdict(found.protocol)),
    )
