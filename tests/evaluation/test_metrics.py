import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tiepoint.evaluation.metrics import (
    auc,
    epipolar_errors,
    homography_corner_error,
    pose_error,
    repeatability,
    reprojection_errors,
    rotation_angle,
    share_within,
    symmetric_epipolar_distance,
    translation_angle,
)

Array = npt.NDArray[np.float64]
SHIFT = np.array([[1.0, 0, 30], [0, 1, 0], [0, 0, 1]])  # 30 px to the right


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


@settings(deadline=None)
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


def test_reprojection_errors_are_distances_in_image_1() -> None:
    H = np.diag([2.0, 2.0, 1.0])
    points0, points1 = np.array([[10.0, 20], [0, 0]]), np.array([[23.0, 44], [0, 0]])
    np.testing.assert_allclose(reprojection_errors(H, points0, points1), [5, 0])


def test_reprojection_error_of_a_place_at_infinity_is_infinite() -> None:
    H = np.array([[1.0, 0, 0], [0, 1, 0], [1, 0, 0]])
    np.testing.assert_array_equal(reprojection_errors(H, np.zeros((1, 2)), np.zeros((1, 2))), [np.inf])


def test_epipolar_errors_of_a_sideways_camera_are_twice_the_squared_row_difference() -> None:
    K0, K1 = np.diag([100.0, 100, 1]), np.diag([200.0, 200, 1])
    T = pose(np.eye(3), (5, 0, 0))  # its length does not count
    points0, points1 = np.array([[10.0, 20], [10, 20]]), np.array([[7.0, 40], [7, 60]])
    errors = epipolar_errors(points0, points1, cameras=(K0, K1), T_0to1=T)
    np.testing.assert_allclose(errors, [0, 2 * 0.1**2], atol=1e-15)


def test_epipolar_errors_vanish_for_projections_of_one_place() -> None:
    rng = np.random.default_rng(0)
    K0, K1 = (
        np.array([[500.0, 0, 320], [0, 510, 240], [0, 0, 1]]),
        np.array([[700.0, 0, 300], [0, 690, 250], [0, 0, 1]]),
    )
    T = pose(rotation_about_y(20), (1, 0.2, -0.3))
    places = rng.uniform((-2, -1, 4), (2, 1, 9), (50, 3))
    seen0, seen1 = places @ K0.T, (places @ T[:3, :3].T + T[:3, 3]) @ K1.T
    points0, points1 = seen0[:, :2] / seen0[:, 2:], seen1[:, :2] / seen1[:, 2:]
    assert epipolar_errors(points0, points1, cameras=(K0, K1), T_0to1=T).max() < 1e-20
    assert epipolar_errors(points0, points1[::-1], cameras=(K0, K1), T_0to1=T).max() > 1e-3


def test_epipolar_errors_are_the_same_from_image_1_to_image_0() -> None:
    rng = np.random.default_rng(0)
    K, T = np.array([[500.0, 0, 320], [0, 500, 240], [0, 0, 1]]), pose(rotation_about_y(20), (1, 0.2, -0.3))
    a, b = rng.uniform(0, 480, (2, 30, 2))
    there = epipolar_errors(a, b, cameras=(K, K), T_0to1=T)
    np.testing.assert_allclose(epipolar_errors(b, a, cameras=(K, K), T_0to1=np.linalg.inv(T)), there)


def test_epipolar_errors_of_a_pure_rotation_are_infinite() -> None:
    errors = epipolar_errors(np.ones((3, 2)), np.ones((3, 2)), cameras=(np.eye(3), np.eye(3)), T_0to1=np.eye(4))
    np.testing.assert_array_equal(errors, np.full(3, np.inf))


def test_share_within_counts_the_limit_itself_and_no_failure() -> None:
    errors = np.array([[1.0, 3.0, np.inf, np.nan], [0, 0, 0, 10]])
    np.testing.assert_array_equal(share_within(errors, (1, 3, 10)), [[0.25, 0.5, 0.5], [0.75, 0.75, 1]])


def test_share_within_of_nothing_is_nothing() -> None:
    np.testing.assert_array_equal(share_within(np.zeros(0), range(1, 11)), np.zeros(10))


@settings(deadline=None)
@given(st.lists(st.floats(0, 30) | st.just(np.inf), min_size=1, max_size=20))
def test_share_within_rises_and_bounds_the_auc(errors: list[float]) -> None:
    shares = share_within(np.array(errors), range(1, 11))
    assert (np.diff(shares) >= 0).all()
    assert (auc(np.array(errors), range(1, 11)) <= shares + 1e-12).all()


def test_keypoints_that_both_images_show_and_have_are_repeated() -> None:
    # image 0 sees x < 70 of itself in image 1, image 1 sees x >= 30 of itself in image 0
    keypoints0 = np.array([[10.0, 10], [20, 20], [90, 40]])  # true places: x = 40, 50 and, outside, 120
    keypoints1 = np.array([[42.0, 10], [50, 25], [5, 40]])  # 2 px off; 5 px off; outside, x = -25
    sizes = ((50, 100), (50, 100))
    # of 2 + 2 keypoints, the first of either image is found again
    assert repeatability(keypoints0, keypoints1, H_0to1=SHIFT, sizes=sizes) == 0.5
    assert repeatability(keypoints0, keypoints1, H_0to1=SHIFT, sizes=sizes, radius=5) == 1
    assert repeatability(keypoints0, keypoints1, H_0to1=SHIFT, sizes=sizes, radius=1.9) == 0


def test_each_direction_of_the_repeatability_is_measured_in_its_own_image() -> None:
    H = np.diag([4.0, 4.0, 1.0])
    # 4 px apart in image 1, 1 px in image 0
    assert repeatability(np.array([[10.0, 10]]), np.array([[44.0, 40]]), H_0to1=H, sizes=((50, 50), (200, 200))) == 0.5


def test_keypoints_on_the_rim_count_as_seen() -> None:
    rim = np.array([[-0.5, -0.5], [9.4, 9.4]])
    assert repeatability(rim, rim, H_0to1=np.eye(3), sizes=((10, 10), (10, 10))) == 1


@pytest.mark.parametrize("count", [0, 3])
def test_repeatability_without_covisible_keypoints_is_undefined(count: int) -> None:
    away = np.full((count, 2), 500.0)
    assert np.isnan(repeatability(away, away, H_0to1=np.eye(3), sizes=((10, 10), (10, 10))))


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 2**32 - 1), st.floats(0.5, 8))
def test_repeatability_equals_its_definition(seed: int, radius: float) -> None:
    rng = np.random.default_rng(seed)
    H = np.array([[0.9, 0.1, 12], [-0.05, 1.1, -8], [1e-3, -5e-4, 1]])
    # on a coarse grid many share a column, which the search by strips must bear
    points0, points1 = rng.integers(0, 20, (40, 2)) * 5.0, rng.uniform(0, 100, (30, 2))
    sizes = ((100, 100), (90, 80))
    found, seen = 0, 0
    for one, other, matrix, (height, width) in (
        (points0, points1, H, sizes[1]),
        (points1, points0, np.linalg.inv(H), sizes[0]),
    ):
        for x, y in one:
            u, v, w = matrix @ (x, y, 1)
            u, v = u / w, v / w
            if -0.5 <= u < width - 0.5 and -0.5 <= v < height - 0.5:
                seen += 1
                found += bool(np.linalg.norm(other - (u, v), axis=1).min() <= radius)
    value = repeatability(points0, points1, H_0to1=H, sizes=sizes, radius=radius)
    assert value == pytest.approx(found / seen)
    back = repeatability(points1, points0, H_0to1=np.linalg.inv(H), sizes=(sizes[1], sizes[0]), radius=radius)
    assert back == pytest.approx(value)
