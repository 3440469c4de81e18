"""Counting of boundaries: cases whose answer is known."""

from pathlib import Path

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import linear_sum_assignment

from tiepoint.data.edges import find_samples, read_annotations
from tiepoint.evaluation.boundaries import (
    THRESHOLDS,
    assign_pixels,
    count_all,
    count_boundaries,
    of_humans,
    summarise_boundaries,
    thin,
)

DATA = Path(__file__).parents[3] / "shared" / "data" / "bsds500"
HALF = np.array([0.5])


def lines(*columns: int, height: int = 300, width: int = 400) -> np.ndarray:
    """Upright lines of one pixel's width; the tolerance is 3.75 px."""
    drawn = np.zeros((height, width), dtype=bool)
    drawn[10:-10, list(columns)] = True
    return drawn


def figures(found: np.ndarray, *annotations: np.ndarray) -> tuple[float, float]:
    """Precision and recall."""
    counts = count_boundaries(found.astype(float), np.stack(annotations), thresholds=HALF)
    return float(counts.right[0] / counts.found[0]), float(counts.recalled[0] / counts.true[0])


def test_a_drawing_finds_itself() -> None:
    drawn = lines(50, 200)
    assert figures(drawn, drawn) == (1, 1)


@pytest.mark.parametrize(("shift", "expected"), [(3, 1.0), (4, 0.0)])
def test_the_tolerance_decides(shift: int, expected: float) -> None:
    assert figures(lines(50 + shift), lines(50)) == (expected, expected)


def test_no_pixel_counts_twice() -> None:
    """Three lines found for one that was drawn: two are wrong, however near they are."""
    precision, recall = figures(lines(48, 50, 52), lines(50))
    assert precision == pytest.approx(1 / 3)
    assert recall == 1


def test_precision_is_against_all_annotators_and_recall_of_each() -> None:
    precision, recall = figures(lines(50, 200), lines(50), lines(200))
    assert (precision, recall) == (1, 1)
    precision, recall = figures(lines(50), lines(50), lines(50, 200))
    assert precision == 1
    assert recall == pytest.approx(2 / 3)


def test_nothing_found_and_nothing_drawn() -> None:
    nothing = np.zeros((40, 50), dtype=bool)
    counts = count_boundaries(nothing.astype(float), nothing[None])
    assert all((each == 0).all() for each in counts)
    assert summarise_boundaries([counts])[:4] == (0, 0.01, 0, 0)


def test_shapes_that_differ_are_refused() -> None:
    with pytest.raises(ValueError, match="expected"):
        count_boundaries(np.zeros((4, 5)), np.zeros((1, 5, 4), dtype=bool))
    with pytest.raises(ValueError, match="no images"):
        summarise_boundaries([])


@given(st.integers(0, 10_000), st.sampled_from([1.0, 1.5, 2.3, 3.0]))
@settings(max_examples=40, deadline=None)
def test_the_assignment_is_the_best_there_is(seed: int, radius: float) -> None:
    """As many pairs as the Hungarian method finds with a high price for staying alone."""
    rng = np.random.default_rng(seed)
    found, truth = rng.random((2, 9, 11)) < 0.3
    places, true = np.argwhere(found), np.argwhere(truth)
    distance = np.linalg.norm(places[:, None] - true[None], axis=2) / radius
    alone = np.full((len(places), len(places)), 100.0)
    _, columns = linear_sum_assignment(np.hstack([np.where(distance <= 1, distance, 1e6), alone]))
    matched = columns < len(true)
    assert len(assign_pixels(places, truth, radius)) == matched.sum()


@given(st.integers(0, 10_000))
@settings(max_examples=25, deadline=None)
def test_thinning_keeps_what_hangs_together(seed: int) -> None:
    rng = np.random.default_rng(seed)
    blob = cv2.GaussianBlur(rng.random((60, 80)), (0, 0), 3) > 0.5
    thinned = thin(blob)
    assert not (thinned & ~blob).any()
    assert cv2.connectedComponents(thinned.astype(np.uint8))[0] == cv2.connectedComponents(blob.astype(np.uint8))[0]
    assert np.array_equal(thin(thinned), thinned)
    assert thinned.sum() < blob.sum()


def test_a_bar_becomes_a_line() -> None:
    bar = np.zeros((60, 80), dtype=bool)
    bar[20:25, 10:70] = True
    thinned = thin(bar)
    assert (thinned[:, 15:65].sum(0) == 1).all()
    assert thinned[22, 15:65].all()


def test_better_maps_have_better_figures() -> None:
    """ODS, OIS and AP of maps whose best threshold is known, and differs."""
    truth, noise = lines(50, 200), lines(120, 300)
    maps = [np.where(truth, 0.8, np.where(noise, 0.3, 0)), np.where(truth, 0.4, np.where(noise, 0.2, 0))]
    counts = count_all([(each, truth[None]) for each in maps], workers=1)
    apart = [summarise_boundaries([each]) for each in counts]
    assert [each.ods for each in apart] == [1, 1]
    together = summarise_boundaries(counts)
    assert together.ods == 1
    assert 0.3 < together.threshold <= 0.4
    assert together.ois == 1
    assert together.recall[THRESHOLDS == 0.5] == 0.5
    worse = [(np.where(truth, 0.25, np.where(noise, 0.3, 0)), truth[None]), (maps[0], truth[None])]
    mixed = summarise_boundaries(count_all(worse, workers=2))
    assert mixed.ods < mixed.ois < 1


@pytest.mark.skipif(not DATA.is_dir(), reason="needs ../shared/data/bsds500")
def test_people_agree_with_each_other_as_published() -> None:
    """Arbeláez et al. (2011) state an F-measure of 0.79 to 0.80 for people; each against the others of an image."""
    samples = [each for each in find_samples(DATA) if each.split == "test"][::25]
    counts = of_humans(read_annotations(each.edges) for each in samples)
    assert 0.7 < summarise_boundaries(counts, HALF).ois < 0.88
