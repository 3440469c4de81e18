"""How methods stand: what tables, charts and pictures read out of a run's results, as numbers and as words."""

from collections.abc import Mapping
from typing import Any, cast, get_args

import numpy as np

from tiepoint.errors import InputError
from tiepoint.evaluation.pairs import Truth
from tiepoint.evaluation.protocol import Protocol
from tiepoint.evaluation.results import Comparison, MethodResult, Results, SetResult
from tiepoint.evaluation.summary import deciding_figure, errors_at
from tiepoint.types import Float64

QUANTITIES = {
    "homography": "mean corner error",
    "pose": "pose error",
    "points": "median distance of the marked points",
}


def protocol_of(results: Results, found: SetResult) -> Mapping[str, Any]:
    """Every option that the figures of a set depend on."""
    return found.protocol or results.protocol


def protocol_text(results: Results, found: SetResult) -> str:
    """The same as a paragraph."""
    values = protocol_of(results, found)
    try:
        return str(Protocol(**values))
    except (TypeError, InputError):
        # of another version, which knew other options
        return f"Protocol: {'; '.join(f'{name} {text}' for name, text in facts(values))}."


def thresholds(results: Results, found: SetResult) -> list[float]:
    """The inlier thresholds over which the lists of a `PairResult` run, pixels."""
    return list(protocol_of(results, found)["thresholds"])


def best_index(results: Results, found: SetResult, method: MethodResult) -> int:
    """Where in those lists a method's best threshold stands."""
    return thresholds(results, found).index(method.threshold)


def best_errors(results: Results, found: SetResult, method: MethodResult) -> Float64:
    """(N,) errors of the pairs at the method's best threshold, infinite where no model was found."""
    return errors_at(method.pairs, best_index(results, found, method))


def recall(errors: Float64, limit: float, *, most: int = 600) -> Float64:
    """The share of pairs whose error is at most t, as a staircase over t.

    Args:
        errors: (N,), infinite where the method failed.
        limit: the largest t.
        most: of more errors than this below the limit, the staircase is read off at this many places.

    Returns:
        (M, 2) corners of the staircase from t = 0 to the limit, t and percent.
    """
    ordered = np.sort(errors[errors <= limit])
    steps = np.unique(ordered) if len(ordered) <= most else np.linspace(limit / most, limit, most)
    shares = 100 * np.searchsorted(ordered, steps, side="right") / max(len(errors), 1)
    t = np.concatenate([[0.0], np.repeat(steps, 2), [limit]])
    return np.stack([t, np.concatenate([[0.0, 0.0], np.repeat(shares, 2)])], axis=1)


def main_figure(found: SetResult) -> str | None:
    """The figure by which the methods of a set are compared; None where there are no figures."""
    if found.comparisons:
        return found.comparisons[0].figure
    figures = list(found.methods[0].figures) if found.methods else []
    if found.truth in get_args(Truth) and deciding_figure(cast(Truth, found.truth), found.limits) in figures:
        return deciding_figure(cast(Truth, found.truth), found.limits)
    return figures[0] if figures else None


def against_first(found: SetResult, method: MethodResult) -> Comparison | None:
    """How a method compares with the set's first one; None for the first itself."""
    return next((told for told in found.comparisons if told.method == method.name), None)


def seconds_a_pair(method: MethodResult) -> float | None:
    """Median over the pairs of the time from image arrays to matches; None where it was not taken."""
    taken = [
        pair.seconds.get("extract", 0.0) + pair.seconds["match"] for pair in method.pairs if "match" in pair.seconds
    ]
    return float(np.median(taken)) if taken else None


def shown(name: str, width: int | None = None) -> str:
    """A name fit to be shown: no control characters, and of a long one the end, where paths differ."""
    plain = "".join(letter if letter.isprintable() else "\N{REPLACEMENT CHARACTER}" for letter in name)
    return plain if width is None or len(plain) <= width else "…" + plain[len(plain) - width + 1 :]


def error_text(error: float | None, unit: str) -> str:
    """An error with its unit, or that there is no model."""
    if error is None or not np.isfinite(error):
        return "no model"
    number = f"{error:.2f}" if error < 1e5 else f"{error:.0e}"
    return f"{number}°" if unit == "degrees" else f"{number} {unit}"


def seconds_text(seconds: float | None) -> str:
    """Seconds with three significant digits, at most four decimals."""
    if seconds is None:
        return "–"
    decimals = 1 if seconds >= 10 else 2 if seconds >= 1 else 3 if seconds >= 0.1 else 4
    return f"{seconds:.{decimals}f}"


def facts(content: Mapping[str, Any]) -> list[tuple[str, str]]:
    """A protocol or an environment as pairs of words, nested mappings laid out flat."""
    laid: list[tuple[str, str]] = []
    for key, value in content.items():
        name = shown(str(key)).replace("_", " ")
        if isinstance(value, Mapping):
            laid += [(f"{name}: {inner}", text) for inner, text in facts(value)]
        else:
            laid.append((name, _words(value)))
    return laid


def pairs_text(found: SetResult) -> str:
    """How many pairs a set has, and how many were left out."""
    count = len(found.methods[0].pairs) if found.methods else 0
    left = f", {len(found.left_out)} left out" if found.left_out else ""
    return f"{count} pair{'' if count == 1 else 's'}{left}"


def quantity(found: SetResult) -> str:
    """What the errors of a set are, with their unit."""
    return f"{QUANTITIES.get(found.truth, 'error')} in {found.unit}"


def _words(value: Any) -> str:
    if isinstance(value, list | tuple):
        return ", ".join(_words(each) for each in value) or "none"
    if isinstance(value, bool) or value is None:
        return {True: "yes", False: "no", None: "none"}[value]
    # not :g, which would round 0.9999999 to 1
    return str(int(value)) if isinstance(value, float) and value.is_integer() else shown(str(value))
