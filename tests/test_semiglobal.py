"""Costs of planes, their aggregation, and holes."""

from functools import partial

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tiepoint.semiglobal import UNIT, aggregate, best_plane, bit_count, census, counted_bits, filled, pixel_costs


def test_the_census_does_not_see_gain_and_offset() -> None:
    grey = np.random.default_rng(0).integers(0, 100, (20, 30), dtype=np.uint8)
    codes = census(grey)
    assert (census((2 * grey + 7).astype(np.uint8)) == codes).all()
    assert len(np.unique(codes)) > 500
    assert (census(np.full((9, 9), 40, np.uint8)) == 0).all()


def test_costs_are_lowest_where_the_images_agree() -> None:
    wide = np.random.default_rng(1).integers(0, 256, (24, 60, 3), dtype=np.uint8)
    left, right = wide[:, 4:44], wide[:, 9:49]  # what lies at x in the left one lies at x - 5 in the right one
    costs = pixel_costs(left, right, (partial(_to_the_right, by=d) for d in range(8)), 8)
    assert costs.shape == (8, 24, 40)
    inner = costs[:, 4:-4, 12:-4]
    assert (inner.argmin(0) == 5).all()
    assert (inner[5] == 0).all()
    assert costs.max() <= 1.5 * UNIT
    # what view 1 does not show costs the same whatever the image
    assert len(np.unique(costs[1:, :, 0])) == 1


def _to_the_right(image: np.ndarray, by: int) -> np.ndarray:
    moved = np.zeros_like(image)
    moved[:, by:] = image[:, : image.shape[1] - by]
    return moved


def test_bits_are_counted_with_and_without_help_of_numpy() -> None:
    codes = np.random.default_rng(4).integers(0, 2**64, (3, 50), dtype=np.uint64)
    true = [[int(code).bit_count() for code in row] for row in codes]
    assert (bit_count(codes) == true).all()
    assert (counted_bits(codes) == true).all()


def test_aggregation_carries_a_plane_over_what_says_nothing_and_keeps_a_step_at_an_edge() -> None:
    costs = np.full((6, 16, 32), UNIT, np.uint16)
    costs[1, :, :6] = costs[4, :, -6:] = 0
    guide = np.zeros((16, 32, 3), np.uint8)
    guide[:, 20:] = 200  # the only edge
    plane = best_plane(aggregate(costs, guide))
    assert np.allclose(plane[:, :19], 1, atol=0.5)
    assert np.allclose(plane[:, 20:], 4, atol=0.5)


@pytest.mark.parametrize("size", [(5, 9), (140, 7)])  # of one block of rows, and of two
def test_the_aggregate_is_that_of_the_formula(size: tuple[int, int]) -> None:
    """Path by path and pixel by pixel, as equation 13 has it."""
    rng = np.random.default_rng(3)
    costs = rng.integers(0, 2 * UNIT, (6, *size), dtype=np.uint16)
    guide = rng.integers(0, 256, (*size, 3), dtype=np.uint8)
    total = np.zeros((6, *size))
    for dy, dx in ((0, 1), (1, 1), (1, 0), (1, -1), (0, -1), (-1, -1), (-1, 0), (-1, 1)):
        path = np.zeros((6, *size))
        rows = range(size[0]) if dy >= 0 else range(size[0] - 1, -1, -1)
        for y in rows:
            for x in range(size[1]) if dx >= 0 else range(size[1] - 1, -1, -1):
                path[:, y, x] = costs[:, y, x]
                if 0 <= y - dy < size[0] and 0 <= x - dx < size[1]:
                    before = path[:, y - dy, x - dx]
                    edge = np.abs(guide[y, x].astype(float) - guide[y - dy, x - dx]).mean()
                    small, large = 0.2 * UNIT, (0.2 + 0.8 * np.exp(-edge / 20)) * UNIT
                    near = np.minimum(np.append(before[1:], np.inf), np.append(np.inf, before[:-1])) + small
                    reached = np.minimum(np.minimum(before, near), before.min() + large)
                    path[:, y, x] += reached - before.min()
        total += path
    # the penalties are rounded to units, along paths that add up at most as many of them as there are pixels
    assert np.abs(aggregate(costs, guide) - total).max() < 8 * 0.5 * max(size)


def test_the_sum_of_paths_never_overflows() -> None:
    worst = np.full((4, 30, 40), 2 * UNIT, np.uint16)
    worst[0, ::2] = 0
    found = aggregate(worst, np.zeros((30, 40, 3), np.uint8))
    assert found.max() <= 8 * 3 * UNIT < 2**16
    assert (found[0, ::2] == 0).all()


def test_the_best_plane_lies_between_planes() -> None:
    true = np.linspace(2, 5, 40).reshape(1, 40).repeat(5, 0)
    costs = (1000 * (np.arange(8.0)[:, None, None] - true) ** 2).round().astype(np.uint16)
    assert np.allclose(best_plane(costs)[:, 1:-1], true[:, 1:-1], atol=2e-3)


@given(st.integers(0, 2**31))
@settings(max_examples=40, deadline=None)
def test_holes_take_the_farther_of_their_neighbours(seed: int) -> None:
    rng = np.random.default_rng(seed)
    values, good = rng.uniform(1, 9, (5, 12)).astype(np.float32), rng.random((5, 12)) < 0.6
    made = filled(values, good)
    assert (made[good] == values[good]).all()
    for y, x in np.argwhere(~good):
        left, right = values[y, :x][good[y, :x]], values[y, x + 1 :][good[y, x + 1 :]]
        near = [*left[-1:], *right[:1]]
        expected = min(near) if near else (values[good].min() if good.any() else values.min())
        assert made[y, x] == expected
