"""The charts of one benchmark: what of its results is drawn, on which axes, under which caption."""

import math
from collections.abc import Sequence
from xml.etree.ElementTree import Element

import numpy as np

from tiepoint.evaluation.charts import Axis, Mark, Series, chart, legend, log_axis
from tiepoint.evaluation.markup import node
from tiepoint.evaluation.metrics import share_within
from tiepoint.evaluation.results import MethodResult, Results, SetResult
from tiepoint.evaluation.standing import (
    best_errors,
    main_figure,
    pairs_text,
    protocol_text,
    quantity,
    recall,
    seconds_a_pair,
    seconds_text,
    shown,
)


def set_charts(results: Results, found: SetResult) -> list[Element]:
    """The recall curves, the MMA curves where there are true homographies, and speed against accuracy.

    Args:
        results: the run.
        found: one of its benchmarks.

    Returns:
        One figure element each, with legend, caption and protocol; none where no pair could be used.
    """
    if not any(method.pairs for method in found.methods):
        return []
    drawn = [_recall(results, found), _matching_accuracy(results, found), _speed(results, found)]
    return [figure for figure in drawn if figure is not None]


def _recall(results: Results, found: SetResult) -> Element:
    """Share of pairs over the error."""
    limit = max(found.limits)
    series = []
    for method in found.methods:
        errors = best_errors(results, found, method)
        shares = (100 * share_within(errors, found.limits)).tolist()
        marks = [
            Mark(each, share, f"{method.name}: {share:.1f} % of the pairs within {each:g} {found.unit}")
            for each, share in zip(found.limits, shares, strict=True)
        ]
        series.append(Series(method.name, marks, recall(errors, limit)))
    what = f"Share of pairs whose {quantity(found)} is at most t."
    axes = Axis(f"t [{found.unit}]", 0, limit), Axis("pairs [%]", 0, 100)
    return _figure(results, found, series, axes=axes, what=what, thresholds=True)


def _matching_accuracy(results: Results, found: SetResult) -> Element | None:
    """Mean share of right matches over the tolerance."""
    told = [(method.name, method.mma) for method in found.methods if method.mma]
    if not told:
        return None
    series = []
    for method in found.methods:
        marks = [
            Mark(tolerance, share, f"{method.name}: MMA {share:.1f} % at {tolerance} px")
            for tolerance, share in enumerate(method.mma or [], start=1)
        ]
        series.append(Series(method.name, marks, np.array([mark[:2] for mark in marks]).reshape(-1, 2)))
    what = "Mean matching accuracy: share of the matches within t of the true homography, mean over the pairs."
    axes = Axis("t [px]", 1, max(len(mma) for _, mma in told)), Axis("matches [%]", 0, 100)
    return _figure(results, found, series, axes=axes, what=what)


def _speed(results: Results, found: SetResult) -> Element | None:
    """The main figure over the time of a pair."""
    main = main_figure(found)
    dots = {method.name: _dot(method, main) for method in found.methods}
    usable = [dot for dot in dots.values() if dot is not None]
    if main is None or not usable:
        return None
    heights = [dot.y for dot in usable]
    low, high = 10 * math.floor((min(heights) - 3) / 10), 10 * math.ceil((max(heights) + 3) / 10)
    axes = log_axis("seconds a pair", [dot.x for dot in usable]), Axis(f"{main} [%]", max(low, 0), min(high, 100))
    series = [Series(name, [] if dot is None else [dot]) for name, dot in dots.items()]
    what = f"{main} over the median time from image arrays to matches, which is logarithmic: upper left is better."
    return _figure(results, found, series, axes=axes, what=what, named=True)


def _dot(method: MethodResult, main: str | None) -> Mark | None:
    seconds, figure = seconds_a_pair(method), method.figures.get(main or "")
    if not seconds or figure is None:
        return None
    return Mark(seconds, figure, f"{method.name}: {main} {figure:.1f} %, {seconds_text(seconds)} s a pair")


def _figure(
    results: Results,
    found: SetResult,
    series: Sequence[Series],
    *,
    axes: tuple[Axis, Axis],
    what: str,
    named: bool = False,
    thresholds: bool = False,
) -> Element:
    drawn = chart(series, *axes, label=f"{shown(found.name)}: {what}", named=named)
    words = [what, f"{shown(found.name)}, {pairs_text(found)}."]
    if thresholds:
        each = ", ".join(f"{shown(method.name)} {method.threshold:g} px" for method in found.methods)
        words.append(f"Inlier thresholds: {each}.")
    caption = node("figcaption", " ".join([*words, protocol_text(results, found)]))
    return node("figure", drawn, legend([one.name for one in series]), caption)
