"""The pose from matches: closed-form truth, degeneracy told apart, uncertainty that holds."""

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import tiepoint
from tiepoint.evaluation.metrics import rotation_angle, translation_angle
from tiepoint.types import Matches

K0 = np.array([[800.0, 0, 500.0], [0, 810.0, 380.0], [0, 0, 1]])
K1 = np.array([[760.0, 0, 520.0], [0, 770.0, 370.0], [0, 0, 1]])
SIZE = (768, 1024)
R_TRUE = cv2.Rodrigues(np.array([0.05, -0.12, 0.03]))[0]
T_TRUE = np.array([0.8, 0.1, -0.2]) / np.linalg.norm([0.8, 0.1, -0.2])


def seen(kind: str = "general", *, noise: float = 0.3, seed: int = 0, n: int = 300, wrong: int = 60) -> Matches:
    """Matches of a scene with noise in pixels, the last ones wrong."""
    rng = np.random.default_rng(seed)
    x = rng.uniform((60, 60), (960, 700), (n, 2))
    rays = np.linalg.solve(K0, np.c_[x, np.ones(n)].T).T
    depth = {"plane": 6 / (rays @ [0.2, -0.1, 1.0])}.get(kind, rng.uniform(3, 9, n))
    points = rays * depth[:, None]
    moved = (points @ R_TRUE.T + (0 if kind == "rotation" else T_TRUE)) @ K1.T
    x0, x1 = (each + rng.normal(0, noise, each.shape) for each in (x, moved[:, :2] / moved[:, 2:]))
    x1[n - wrong :] = rng.uniform((0, 0), SIZE[::-1], (wrong, 2))
    return Matches(x0, x1, np.linspace(1, 0.5, n), SIZE, SIZE)


@pytest.mark.parametrize("kind", ["general", "plane", "rotation"])
def test_degenerate_scenes_are_told_apart(kind: str) -> None:
    for seed in range(5):
        found = tiepoint.relative_pose(seen(kind, seed=seed), (K0, K1))
        assert found.scene == kind
        assert rotation_angle(found.geometry.rotation, R_TRUE) < (3 if kind == "plane" else 0.5)
        assert (found.translation_sigma is None) == (kind == "rotation") == (found.points is None)
        if kind == "general":
            assert translation_angle(found.geometry.translation, T_TRUE) < 1


@pytest.mark.parametrize("kind", ["plane", "rotation"])
def test_without_cameras_a_homography_is_a_homography(kind: str) -> None:
    found = tiepoint.relative_pose(seen(kind))
    assert found.scene == "plane or rotation"
    assert found.gric["homography"] < found.gric["epipolar"]
    assert found.geometry.kind == "fundamental"
    assert found.points is None
    assert found.rotation_sigma is None


def test_a_general_scene_without_cameras_is_general() -> None:
    assert tiepoint.relative_pose(seen()).scene == "general"


@settings(max_examples=10, deadline=None)
@given(seed=st.integers(0, 10_000))
def test_points_lie_where_they_are(seed: int) -> None:
    matches = seen(noise=0.0, seed=seed, wrong=0)
    found = tiepoint.relative_pose(matches, (K0, K1))
    rng = np.random.default_rng(seed)
    x = rng.uniform((60, 60), (960, 700), (300, 2))
    truth = np.linalg.solve(K0, np.c_[x, np.ones(300)].T).T * rng.uniform(3, 9, 300)[:, None]
    points = found.points
    assert len(points.indices) > 280
    assert points.error.max() < 0.01
    assert np.median(np.linalg.norm(points.xyz - truth[points.indices], axis=1)) < 0.02


def test_the_uncertainty_is_that_of_repeated_measurements() -> None:
    turns, moves, told = [], [], []
    for seed in range(40):
        matches = seen(noise=0.5, seed=seed, n=150, wrong=0)
        found = tiepoint.relative_pose(matches, (K0, K1), threshold=4.0)
        turns.append(rotation_angle(found.geometry.rotation, R_TRUE))
        moves.append(translation_angle(found.geometry.translation, T_TRUE))
        told.append((found.rotation_sigma, found.translation_sigma))
    measured = np.sqrt(np.mean(np.square([turns, moves]), axis=1))
    assert np.mean(told, axis=0) == pytest.approx(measured, rel=0.3)


def test_few_among_many_are_doubted() -> None:
    assert tiepoint.relative_pose(seen(n=300, wrong=240), (K0, K1)).doubtful
    assert not tiepoint.relative_pose(seen(), (K0, K1)).doubtful


def test_twice_the_noise_is_twice_the_uncertainty() -> None:
    once, twice = (
        tiepoint.relative_pose(seen(noise=noise, wrong=0), (K0, K1), threshold=5.0).rotation_sigma
        for noise in (0.3, 0.6)
    )
    assert twice == pytest.approx(2 * once, rel=0.1)


def test_a_file_of_points_that_is_too_small_says_what_would_help() -> None:
    matches = seen(n=24, wrong=0)
    with pytest.raises(tiepoint.WorkError, match=r"24 of 24 matches .* expected 30 .* would help"):
        tiepoint.relative_pose(matches, (K0, K1))
    with pytest.raises(tiepoint.InputError, match="K0"):
        tiepoint.relative_pose(seen(), (np.zeros((3, 3)), K1))
