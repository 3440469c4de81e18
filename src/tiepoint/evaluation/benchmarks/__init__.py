"""Public benchmarks: one module each, found by listing this folder. Each offers `BENCHMARK` (see `pairs.Benchmark`)."""

import importlib
import pkgutil

from tiepoint.errors import InputError
from tiepoint.evaluation.pairs import Benchmark

__all__ = ["available", "benchmark"]


def available() -> list[str]:
    """The names of all benchmarks, in alphabetical order."""
    return sorted(module.name for module in pkgutil.iter_modules(__path__) if not module.name.startswith("_"))


def benchmark(name: str) -> Benchmark:
    """A benchmark by its name.

    Raises:
        InputError: there is none of that name.
    """
    if name not in available():
        raise InputError(f"there is no benchmark {name!r}, expected one of {', '.join(available())}")
    found: Benchmark = importlib.import_module(f"{__name__}.{name}").BENCHMARK
    return found
