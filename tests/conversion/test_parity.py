"""By how much two answers differ."""

import numpy as np
import pytest

from tiepoint.conversion.check_images import made_pair, parity_pairs
from tiepoint.conversion.parity import Answer, Features, parity


def answer(points: np.ndarray, scores: np.ndarray, matches0: np.ndarray, shift: float = 0.0) -> Answer:
    places, mask = points.astype(np.float32), np.ones(points.shape[:2], bool)
    features = [
        Features(each, np.ones((*scores.shape, 4), np.float32), scores, mask) for each in (places + shift, places)
    ]
    return Answer((features[0], features[1]), matches0, np.where(matches0 >= 0, scores, 0).astype(np.float32))


@pytest.fixture
def made() -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    points, scores = np.random.default_rng(0).uniform(0, 500, (1, 40, 2)), np.full((1, 40), 0.5, np.float32)
    few = np.where(np.arange(40) < 20, np.arange(40), -1)[None]
    return points, scores, few, np.arange(40)[None]


def test_more_matches_than_the_original_are_a_difference_too(made: tuple[np.ndarray, ...]) -> None:
    points, scores, few, many = made
    original, copy = answer(points, scores, few), answer(points, scores, many)
    assert parity("", original, original, bound=0.01).same_matches == 1
    assert parity("", original, copy, bound=0.01).same_matches == 0.5
    assert parity("", original, copy, bound=0.01).matches == 20


def test_what_has_moved_and_what_has_changed_is_told(made: tuple[np.ndarray, ...]) -> None:
    points, scores, few, _ = made
    report = parity("", answer(points, scores, few), answer(points, scores / 2, few, 3.0), bound=0.01)
    assert report.same_keypoints < 0.1
    assert report.largest_px > 1
    assert report.largest_score == pytest.approx(0.25)
    assert report.largest_descriptor == 0


def test_another_order_is_no_difference(made: tuple[np.ndarray, ...]) -> None:
    points, scores, _, many = made
    order = np.random.default_rng(1).permutation(40)
    report = parity("", answer(points, scores, many), answer(points[:, order], scores[:, order], many), bound=0.01)
    assert report.same == 1
    assert report.largest == report.largest_px == 0


def test_where_nothing_is_told_nothing_is_compared(made: tuple[np.ndarray, ...]) -> None:
    points, scores, few, _ = made
    whole = answer(points, scores, few)
    bare = Answer((whole.features[0]._replace(descriptors=None), whole.features[1]), None, None)
    report = parity("", whole, bare, bound=0.01)
    assert report.matches is report.same_matches is report.largest_descriptor is report.largest_match_score is None
    assert report.same == 1


def test_the_parity_pairs_are_always_the_same_and_textured() -> None:
    first, second = made_pair(97, 131), made_pair(97, 131)
    assert all(np.array_equal(a, b) for a, b in zip(first, second, strict=True))
    assert first[0].shape == (97, 131, 3)
    assert first[0].std() > 20


def test_the_parity_pairs_are_of_many_kinds() -> None:
    pairs = {name: (image0.shape, image1.shape) for name, image0, image1 in parity_pairs()}
    sides = [side for shapes in pairs.values() for shape in shapes for side in shape[1:3]]
    assert (min(sides), max(sides)) == (64, 1600)
    assert any(side % 2 for side in sides)
    assert any(shape[0] == 4 for shapes in pairs.values() for shape in shapes)
    assert {"noise", "blank", "photo, cut", "photo, another view"} <= set(pairs)
