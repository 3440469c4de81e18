import dataclasses

import numpy as np
import pytest

from tiepoint import Matches, TwoViewGeometry

SIZE = (48, 64)


def test_matches_are_checked_converted_and_frozen() -> None:
    points = np.array([[1.0, 2.0], [3.0, 4.0]])
    matches = Matches(points, points + 1, np.array([0.9, 0.5]), SIZE, SIZE)
    assert len(matches) == 2
    assert matches.keypoints0.dtype == np.float32
    with pytest.raises(dataclasses.FrozenInstanceError):
        matches.scores = np.zeros(2, np.float32)  # type: ignore[misc]
    with pytest.raises(ValueError, match="read-only"):
        matches.keypoints0[0, 0] = 7
    points[0, 0] = 99
    assert matches.keypoints0[0, 0] == 1


def test_no_match_is_an_ordinary_value() -> None:
    empty = np.zeros((0, 2), np.float32)
    assert len(Matches(empty, empty, np.zeros(0, np.float32), SIZE, SIZE)) == 0


@pytest.mark.parametrize(
    ("keypoints0", "keypoints1", "scores", "fault"),
    [
        (np.zeros((2, 3)), np.zeros((2, 2)), np.zeros(2), "keypoints0"),
        (np.zeros((2, 2)), np.zeros((1, 2)), np.zeros(2), "keypoints1"),
        (np.full((1, 2), np.nan), np.zeros((1, 2)), np.zeros(1), "not finite"),
        (np.zeros((2, 2)), np.zeros((2, 2)), np.array([0.1, 0.2]), "fall"),
        (np.zeros((1, 2)), np.zeros((1, 2)), np.array([1.5]), r"\[0, 1\]"),
    ],
)
def test_matches_refuse(keypoints0: np.ndarray, keypoints1: np.ndarray, scores: np.ndarray, fault: str) -> None:
    with pytest.raises(ValueError, match=fault):
        Matches(keypoints0, keypoints1, scores, SIZE, SIZE)


def test_geometry_is_true_where_a_model_was_found() -> None:
    assert TwoViewGeometry("homography", np.eye(3), np.array([True, False]))
    assert not TwoViewGeometry("homography", np.zeros((3, 3)), np.array([False]))
    with pytest.raises(ValueError, match="matrix"):
        TwoViewGeometry("homography", np.eye(4), np.array([True]))
    with pytest.raises(ValueError, match="inliers"):
        TwoViewGeometry("homography", np.eye(3), np.array([1, 0]))
