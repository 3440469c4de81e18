"""From the pairs of a benchmark to its figures, and how sure the difference of two methods is."""

import math
from collections.abc import Mapping, Sequence
from typing import Final

import numpy as np

from tiepoint.evaluation.bootstrap import paired_bootstrap
from tiepoint.evaluation.metrics import auc
from tiepoint.evaluation.pairs import Truth
from tiepoint.evaluation.results import Comparison, MethodResult, PairResult
from tiepoint.types import Float64

DECIDING = 5  # px or degrees: the limit whose figure chooses a method's threshold
FIGURES: Final[Mapping[Truth, Sequence[str]]] = {"homography": ("AUC", "MHA"), "pose": ("AUC",), "points": ("within",)}


def summarise(
    name: str,
    pairs: Sequence[PairResult],
    *,
    truth: Truth,
    limits: Sequence[float],
    thresholds: Sequence[float],
) -> MethodResult:
    """Sums up what one method did on the pairs of a benchmark, at the threshold at which it does best.

    That is the one with the largest figure at 5 px or degrees (or at the middle limit, where 5 is none), the first
    of equals. The figures are AUC (and, for homographies, MHA) of the errors, or for marked points the mean over
    the pairs of the share within each limit; they and the shares are in percent. A pair without matches counts as 0
    in MMA and precision, as in D2-Net, SuperGlue and LoFTR.

    Args:
        name: of the method.
        pairs: one a pair, in the benchmark's order.
        truth: what is known of the pairs.
        limits: of the figures, pixels or degrees.
        thresholds: over which the lists of the pairs run.

    Returns:
        The summary.

    Raises:
        ValueError: there is no pair.
    """
    if not pairs:
        raise ValueError(f"the pairs of {name} cannot be summed up, for there are none")
    deciding = deciding_figure(truth, limits)
    swept = [_figures(pairs, index, truth, limits) for index in range(len(thresholds))]
    best = int(np.argmax([figures[deciding] for figures in swept]))
    return MethodResult(
        name=name,
        threshold=float(thresholds[best]),
        figures=swept[best],
        mma=_mma(pairs),
        precision=None if truth == "points" else 100 * float(np.mean([pair.precision or 0.0 for pair in pairs])),
        repeatability=_mean_of_known([pair.repeatability for pair in pairs]),
        matches=float(np.median([pair.matches for pair in pairs])),
        inliers=float(np.median([pair.inliers[best] for pair in pairs])),
        failures=sum(pair.errors[best] is None for pair in pairs),
        seconds=_median_seconds([pair.seconds for pair in pairs]),
        pairs=list(pairs),
    )


def compare(
    method: MethodResult,
    reference: MethodResult,
    *,
    truth: Truth,
    limits: Sequence[float],
    thresholds: Sequence[float],
    figure: str | None = None,
) -> Comparison:
    """How much better one method is than another on the same pairs, and how sure that is.

    Args:
        method: the one.
        reference: the other.
        truth: what is known of the pairs.
        limits: of the figures.
        thresholds: over which the lists of the pairs run.
        figure: a key of `MethodResult.figures`; by default the one that chose the thresholds.

    Returns:
        The difference in percentage points with its 95 % interval from 2000 paired bootstrap samples.

    Raises:
        ValueError: the two were not measured on the same pairs, or have no such figure.
    """
    if [pair.name for pair in method.pairs] != [pair.name for pair in reference.pairs]:
        raise ValueError(f"{method.name} and {reference.name} were not measured on the same pairs")
    figure = figure or deciding_figure(truth, limits)
    if figure not in method.figures:
        raise ValueError(f"there is no figure {figure!r}, expected one of {', '.join(method.figures)}")
    values = [
        _values(each.pairs, list(thresholds).index(each.threshold), figure, limits) for each in (method, reference)
    ]
    found = paired_bootstrap(values[0], values[1], lambda sample: _figure(sample, figure))
    low, high = 100 * found.low, 100 * found.high
    return Comparison(
        method=method.name,
        reference=reference.name,
        figure=figure,
        difference=100 * found.difference,
        low=low,
        high=high,
        standard_error=100 * found.standard_error,
        certain=low > 0 or high < 0,
    )


def deciding_figure(truth: Truth, limits: Sequence[float]) -> str:
    """The name of the figure that chooses a method's threshold: at 5, or at the middle limit where 5 is none."""
    limit = DECIDING if DECIDING in limits else limits[len(limits) // 2]
    return f"{'within' if truth == 'points' else 'AUC'}@{limit:g}"


def errors_at(pairs: Sequence[PairResult], index: int) -> Float64:
    """(N,) errors of the pairs at one threshold, infinite where no model was found."""
    errors = [pair.errors[index] for pair in pairs]
    return np.array([math.inf if error is None else error for error in errors], dtype=np.float64)


def _figures(pairs: Sequence[PairResult], index: int, truth: Truth, limits: Sequence[float]) -> dict[str, float]:
    """Every figure at one threshold, percent."""
    names = [f"{kind}@{limit:g}" for kind in FIGURES[truth] for limit in limits]
    return {name: 100 * float(_figure(_values(pairs, index, name, limits), name)) for name in names}


def _figure(values: Float64, name: str) -> Float64:
    """A figure of the values along the last axis, in [0, 1]."""
    kind, limit = _parsed(name)
    if kind == "AUC":
        return auc(values, [limit])[..., 0]
    means: Float64 = (values <= limit if kind == "MHA" else values).mean(axis=-1)
    return means


def _values(pairs: Sequence[PairResult], index: int, name: str, limits: Sequence[float]) -> Float64:
    """What a figure is made of: one error or share a pair, at one threshold."""
    kind, limit = _parsed(name)
    if kind == "within":
        column = list(limits).index(limit)
        return np.array([pair.within[index][column] for pair in pairs if pair.within is not None])
    return errors_at(pairs, index)


def _parsed(name: str) -> tuple[str, float]:
    kind, _, limit = name.partition("@")
    return kind, float(limit)


def _mma(pairs: Sequence[PairResult]) -> list[float] | None:
    curves = [pair.mma for pair in pairs if pair.mma is not None]
    return (100 * np.mean(curves, axis=0)).tolist() if curves else None


def _mean_of_known(shares: Sequence[float | None]) -> float | None:
    known = [share for share in shares if share is not None]
    return 100 * float(np.mean(known)) if known else None


def _median_seconds(seconds: Sequence[Mapping[str, float]]) -> dict[str, float]:
    stages = dict.fromkeys(stage for each in seconds for stage in each)
    return {stage: float(np.median([each[stage] for each in seconds if stage in each])) for stage in stages}
