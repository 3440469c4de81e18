"""Costs of planes, their aggregation, and holes."""

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from tiepoint.semiglobal import aggregate, best_plane, census, filled, pixel_costs


def test_the_census_does_not_see_gain_and_offset() -> None:
    grey = np.random.default_rng(0).integers(0, 100, (20, 30), dtype=np.uint8)
    codes = census(grey)
    assert (census((2 * grey + 7).astype(np.uint8)) == codes).all()
    assert len(np.unique(codes)) > 500
    assert (census(np.full((9, 9), 40, np.uint8)) == 0).all()


def test_costs_are_lowest_where_the_images_agree() -> None:
    wide = np.random.default_rng(1).integers(0, 256, (24, 60, 3), dtype=np.uint8)
    left, right = wide[:, 4:44], wide[:, 9:49]  # what lies at x in the left one lies at x - 5 in the right one
    y, x = np.mgrid[:24, :40].astype(np.float32)
    costs = pixel_costs(left, right, ((x - d, y) for d in range(8)), 8)
    assert costs.shape == (24, 40, 8)
    inner = costs[4:-4, 12:-4]
    assert (inner.argmin(-1) == 5).all()
    assert (inner[..., 5] == 0).all()
    # what view 1 does not show costs the same whatever the image
    assert len(np.unique(costs[:, 0, 1:])) == 1


def test_aggregation_carries_a_plane_over_what_says_nothing_and_keeps_a_step_at_an_edge() -> None:
    costs = np.ones((16, 32, 6), np.float32)
    costs[:, :6, 1] = costs[:, -6:, 4] = 0
    guide = np.zeros((16, 32, 3), np.uint8)
    guide[:, 20:] = 200  # the only edge
    plane = best_plane(aggregate(costs, guide))
    assert np.allclose(plane[:, :19], 1, atol=0.5)
    assert np.allclose(plane[:, 20:], 4, atol=0.5)


def test_the_best_plane_lies_between_planes() -> None:
    true = np.linspace(2, 5, 40, dtype=np.float32).reshape(1, 40).repeat(5, 0)
    costs = (np.arange(8, dtype=np.float32) - true[..., None]) ** 2
    assert np.allclose(best_plane(costs)[:, 1:-1], true[:, 1:-1], atol=1e-4)


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
