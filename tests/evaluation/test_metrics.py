import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tiepoint.evaluation.metrics import (
    auc,
    homography_corner_error,
    paired_bootstrap,
    pose_error,
    rotation_angle,
    symmetric_epipolar_distance,
    translation_angle,
)

Array = npt.NDArray[np.float64]


def rotation_about_y(degrees: float) -> Array:
    c, s = np.cos(np.deg2rad(degrees)), np.sin(np.deg2rad(degrees))
    return np.array([[c, 0, s], [0, 1, 0], [-s, 0, c]])


def pose(R: Array, t: tuple[float, float, float]) -> Array:
    T = np.eye(4)
    T[:3, :3], T[:3, 3] = R, t
    return T


def trapezoid_auc(errors: list[float], threshold: float) -> float:
    """The definition, step by step."""
    e = np.r_[0.0, np.sort(errors)]
    recall = np.arange(len(e)) / len(errors)
    last = int(np.searchsorted(e, threshold))
    e, recall = np.r_[e[:last], threshold], np.r_[recall[:last], recall[last - 1]]
    return float(np.sum(np.diff(e) * (recall[1:] + recall[:-1]) / 2) / threshold)


def test_corner_error_of_a_translation_is_its_length() -> None:
    H_true = np.eye(3)
    H = np.array([[1.0, 0, 3], [0, 1, -4], [0, 0, 1]])
    assert homography_corner_error(H, H_true, (48, 64)) == pytest.approx(5)


def test_corner_error_ignores_the_scale_of_the_matrix() -> None:
    H = np.array([[1.1, 0.1, 3], [0, 0.9, -4], [1e-4, 0, 1]])
    assert homography_corner_error(-7 * H, H, (48, 64)) == pytest.approx(0, abs=1e-9)


def test_corner_error_takes_the_corner_pixels_centres() -> None:
    H = np.diag([2.0, 1.0, 1.0])
    assert homography_corner_error(H, np.eye(3), (11, 21)) == pytest.approx(10)  # corners x = 0, 0, 20, 20


@pytest.mark.parametrize("H", [None, np.zeros((3, 3))])
def test_corner_error_without_a_model_is_infinite(H: Array | None) -> None:
    assert homography_corner_error(H, np.eye(3), (48, 64)) == np.inf


def test_corner_error_with_a_corner_at_infinity_is_infinite() -> None:
    H = np.array([[1.0, 0, 0], [0, 1, 0], [1, 0, 0]])  # x = 0 goes to infinity
    assert homography_corner_error(H, np.eye(3), (48, 64)) == np.inf


@pytest.mark.parametrize("degrees", [0.0, 1e-6, 0.5, 30.0, 179.0, 180.0])
def test_rotation_angle_of_known_rotations(degrees: float) -> None:
    R = rotation_about_y(20)
    assert rotation_angle(rotation_about_y(20 + degrees), R) == pytest.approx(degrees, rel=1e-6, abs=1e-9)


@pytest.mark.parametrize(
    ("t", "degrees"),
    [((1, 0, 0), 0), ((-3, 0, 0), 0), ((0, 2, 0), 90), ((1, 1, 0), 45), ((-1, 1, 0), 45), ((0, 0, 0), 90)],
)
def test_translation_angle_has_neither_sign_nor_length(t: tuple[float, ...], degrees: float) -> None:
    assert translation_angle(np.array(t, dtype=float), np.array([5.0, 0, 0])) == pytest.approx(degrees)


def test_pose_error_is_the_larger_angle() -> None:
    T_true = pose(np.eye(3), (1, 0, 0))
    assert pose_error(rotation_about_y(7), np.array([1.0, 0, 0]), T_true) == pytest.approx(7)
    assert pose_error(rotation_about_y(7), np.array([1.0, 1, 0]), T_true) == pytest.approx(45)


def test_pose_error_of_a_pure_rotation_counts_the_rotation_only() -> None:
    T_true = pose(np.eye(3), (0, 0, 0))
    assert pose_error(rotation_about_y(7), np.array([0.0, 1, 0]), T_true) == pytest.approx(7)


def test_pose_error_without_a_model_is_infinite() -> None:
    assert pose_error(None, None, np.eye(4)) == np.inf


def test_epipolar_distance_of_a_sideways_camera_is_the_row_difference() -> None:
    F = np.array([[0.0, 0, 0], [0, 0, -1], [0, 1, 0]])
    points0, points1 = np.array([[10.0, 20], [30, 40]]), np.array([[5.0, 20], [90, 43]])
    np.testing.assert_allclose(symmetric_epipolar_distance(F, points0, points1), [0, 3], atol=1e-12)


def test_epipolar_distance_is_the_mean_of_both_images() -> None:
    # a camera of twice the focal length: rows of image 1 are twice those of image 0
    F = np.array([[0.0, 0, 0], [0, 0, -1], [0, 2, 0]])
    distance = symmetric_epipolar_distance(F, np.array([[1.0, 10]]), np.array([[1.0, 26]]))
    np.testing.assert_allclose(distance, [(6 + 3) / 2])


def test_epipolar_distance_without_a_model_is_infinite() -> None:
    distance = symmetric_epipolar_distance(np.zeros((3, 3)), np.ones((4, 2)), np.ones((4, 2)))
    np.testing.assert_array_equal(distance, np.full(4, np.inf))


@pytest.mark.parametrize(
    ("errors", "threshold", "expected"),
    [
        ([0.0, 0.0], 5, 1.0),
        ([np.inf, np.inf], 5, 0.0),
        ([0.0, np.inf], 5, 0.5),
        ([5.0], 5, 0.0),  # the threshold itself lies outside
        ([2.0], 4, 0.75),  # a rise from 0 to 1 until 2, then level
        ([1.0, 3.0], 4, (0.25 + 1.5 + 1.0) / 4),
        ([1.0, 1.0], 2, 0.625),  # half the rise happens at 1, at once
        ([np.nan, 0.0], 5, 0.5),
    ],
)
def test_auc_of_step_functions(errors: list[float], threshold: float, expected: float) -> None:
    assert auc(np.array(errors), [threshold])[0] == pytest.approx(expected)


@given(
    st.lists(st.floats(0, 30) | st.just(np.inf), min_size=1, max_size=20),
    st.sampled_from([0.5, 3.0, 5.0, 10.0, 20.0]),
)
def test_auc_equals_the_sum_of_trapezoids(errors: list[float], threshold: float) -> None:
    assert auc(np.array(errors), [threshold])[0] == pytest.approx(trapezoid_auc(errors, threshold), abs=1e-12)


def test_auc_is_vectorised_over_leading_axes() -> None:
    errors = np.random.default_rng(0).uniform(0, 20, (2, 3, 7))
    areas = auc(errors, (5, 10, 20))
    assert areas.shape == (2, 3, 3)
    np.testing.assert_array_equal(areas[1, 2], auc(errors[1, 2], (5, 10, 20)))


@pytest.mark.parametrize(("errors", "thresholds"), [([], [5]), ([1.0], [0]), ([1.0], [-1])])
def test_auc_refuses_what_has_no_area(errors: list[float], thresholds: list[float]) -> None:
    with pytest.raises(ValueError, match="positive thresholds"):
        auc(np.array(errors), thresholds)


def test_bootstrap_of_equal_methods_is_certain() -> None:
    errors = np.random.default_rng(0).uniform(0, 20, 30)
    assert paired_bootstrap(errors, errors, 5) == (0, 0, 0, 0)


def test_bootstrap_gives_difference_and_interval() -> None:
    errors = np.random.default_rng(0).uniform(0, 20, 40)
    result = paired_bootstrap(errors / 2, errors, 10)
    assert result.difference == pytest.approx(float(auc(errors / 2, [10])[0] - auc(errors, [10])[0]))
    assert 0 < result.low < result.difference < result.high
    assert (result.high - result.low) / 4 == pytest.approx(result.standard_error, rel=0.2)


def test_bootstrap_is_repeatable_and_antisymmetric() -> None:
    a, b = np.random.default_rng(0).uniform(0, 20, (2, 40))
    one, other = paired_bootstrap(a, b, 10, seed=3), paired_bootstrap(b, a, 10, seed=3)
    assert one == paired_bootstrap(a, b, 10, seed=3)
    assert one.difference == pytest.approx(-other.difference)
    assert one.standard_error == pytest.approx(other.standard_error)


def test_bootstrap_standard_error_matches_the_mean_of_levels() -> None:
    # errors of 0 or infinity make the AUC a mean of zeros and ones, whose standard error is known
    a = np.where(np.arange(100) < 50, 0.0, np.inf)
    b = np.full(100, np.inf)
    assert paired_bootstrap(a, b, 5).standard_error == pytest.approx(0.05, rel=0.06)


def test_bootstrap_refuses_unequal_lengths() -> None:
    with pytest.raises(ValueError, match="one shape"):
        paired_bootstrap(np.zeros(3), np.zeros(4), 5)
