from typing import Any, get_args

import cv2
import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tiepoint import estimate
from tiepoint.errors import InputError
from tiepoint.evaluation.estimators import EstimatorName, estimate_with
from tiepoint.evaluation.metrics import homography_corner_error, pose_error, symmetric_epipolar_distance
from tiepoint.types import Float64, GeometryKind, Matches, TwoViewGeometry

NAMES: tuple[EstimatorName, ...] = get_args(EstimatorName)
OPENCV = NAMES[1:]
KINDS: tuple[GeometryKind, ...] = get_args(GeometryKind)
SIZE = (480, 640)
H_TRUE = np.array([[0.9, 0.1, 12], [-0.05, 1.1, -8], [1e-4, -5e-5, 1]])
K0 = np.array([[500.0, 0, 320], [0, 520, 240], [0, 0, 1]])
K1 = np.array([[700.0, 0, 300], [0, 680, 250], [0, 0, 1]])
T_TRUE = np.eye(4)
T_TRUE[:3, :3] = cv2.Rodrigues(np.array([0.05, 0.2, -0.1]))[0]
T_TRUE[:3, 3] = (1.0, 0.1, -0.2)
Points = tuple[Float64, Float64]


def to_matches(points0: npt.ArrayLike, points1: npt.ArrayLike) -> Matches:
    a, b = np.asarray(points0, dtype=np.float32), np.asarray(points1, dtype=np.float32)
    return Matches(a, b, np.ones(len(a), dtype=np.float32), SIZE, SIZE)


def project(points: Float64) -> Float64:
    return points[:, :2] / points[:, 2:]


def plane(count: int, seed: int = 0) -> Points:
    points = np.random.default_rng(seed).uniform(0, 480, (count, 2))
    return points, project(np.c_[points, np.ones(count)] @ H_TRUE.T)


def depth(count: int, seed: int = 0, *, far: float = 1.0) -> Points:
    places = far * np.random.default_rng(seed).uniform((-3, -2, 4), (3, 2, 10), (count, 3))
    return project(places @ K0.T), project((places @ T_TRUE[:3, :3].T + T_TRUE[:3, 3]) @ K1.T)


def scene(kind: GeometryKind, *, outliers: float = 0.4, noise: float = 0.3) -> Matches:
    """Three hundred matches, the first of which are wrong."""
    rng = np.random.default_rng(1)
    points0, points1 = plane(300) if kind == "homography" else depth(300)
    points1 = points1 + rng.normal(0, noise, points1.shape)
    points1[: int(outliers * 300)] = rng.uniform(0, 480, (int(outliers * 300), 2))
    return to_matches(points0, points1)


def float_points(matches: Matches) -> list[Float64]:
    return [matches.keypoints0.astype(np.float64), matches.keypoints1.astype(np.float64)]


def run(name: EstimatorName, matches: Matches, kind: GeometryKind, **options: Any) -> TwoViewGeometry:
    return estimate_with(name, matches, kind, **{"threshold": 1.5, "cameras": (K0, K1)} | options)


def error(geometry: TwoViewGeometry) -> float:
    """Pixels or degrees."""
    if geometry.kind == "homography":
        return homography_corner_error(geometry.matrix, H_TRUE, SIZE)
    if geometry.kind == "essential":
        return pose_error(geometry.rotation, geometry.translation, T_TRUE)
    return float(symmetric_epipolar_distance(geometry.matrix, *depth(50, seed=2)).max())


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("name", NAMES)
def test_finds_the_true_geometry_among_wrong_matches(name: EstimatorName, kind: GeometryKind) -> None:
    geometry = run(name, scene(kind), kind)
    assert geometry.kind == kind
    assert error(geometry) < {"homography": 1.0, "fundamental": 3.0, "essential": 1.0}[kind]
    assert geometry.inliers.shape == (300,)
    # right ones nearly all, wrong ones hardly any; those near an epipolar line are no fault of the estimator
    assert geometry.inliers[120:].mean() > 0.9
    assert geometry.inliers[:120].mean() < (0.02 if kind == "homography" else 0.1)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("name", NAMES)
def test_perfect_matches_give_the_geometry_in_its_normal_form(name: EstimatorName, kind: GeometryKind) -> None:
    geometry = run(name, scene(kind, outliers=0, noise=0), kind)
    assert error(geometry) < 0.05
    if kind == "homography":
        assert geometry.matrix[2, 2] == 1
        return
    assert np.linalg.norm(geometry.matrix) == pytest.approx(1)
    if kind == "essential":
        assert geometry.rotation is not None
        assert geometry.translation is not None
        assert np.linalg.norm(geometry.translation) == pytest.approx(1)
        product = np.cross(geometry.translation, geometry.rotation.T).T / np.sqrt(2)  # [t]x R
        off = min(np.abs(product - geometry.matrix).max(), np.abs(product + geometry.matrix).max())
        assert off < 1e-6


@pytest.mark.parametrize("kind", KINDS)
def test_poselib_is_the_estimate_of_the_package(kind: GeometryKind) -> None:
    matches = scene(kind)
    found = run("poselib", matches, kind, seed=3, max_iterations=300, confidence=0.99)
    expected = estimate(matches, kind, threshold=1.5, cameras=(K0, K1), seed=3, max_iterations=300, confidence=0.99)
    np.testing.assert_array_equal(found.matrix, expected.matrix)
    np.testing.assert_array_equal(found.inliers, expected.inliers)


def test_ransac_is_what_the_published_scripts_call() -> None:
    matches = scene("homography")
    expected, mask = cv2.findHomography(matches.keypoints0, matches.keypoints1, cv2.RANSAC, 3.0)
    found = run("opencv-ransac", matches, "homography", threshold=3.0, max_iterations=2000, confidence=0.995)
    np.testing.assert_allclose(found.matrix, expected, rtol=1e-6, atol=1e-9)
    np.testing.assert_array_equal(found.inliers, mask[:, 0] > 0)


def test_ransac_takes_the_threshold_of_an_essential_matrix_in_pixels() -> None:
    matches = scene("essential")
    rays = [
        project(np.c_[xy, np.ones(300)] @ np.linalg.inv(K).T)
        for xy, K in zip(float_points(matches), (K0, K1), strict=True)
    ]
    focal = np.mean([500, 520, 700, 680])
    expected, _ = cv2.findEssentialMat(*rays, np.eye(3), cv2.RANSAC, 0.99999, 1.5 / focal, 1000)
    found = run("opencv-ransac", matches, "essential", max_iterations=1000)
    np.testing.assert_allclose(found.matrix, expected / np.linalg.norm(expected), atol=1e-9)


@pytest.mark.parametrize("kind", ["homography", "fundamental"])
def test_magsac_is_what_opencvs_flag_stands_for(kind: GeometryKind) -> None:
    matches = scene(kind, outliers=0.7, noise=1.0)
    if kind == "homography":
        expected, mask = cv2.findHomography(*float_points(matches), cv2.USAC_MAGSAC, 1.5, None, 2000, 0.99999)
    else:
        expected, mask = cv2.findFundamentalMat(*float_points(matches), cv2.USAC_MAGSAC, 1.5, 0.99999, 2000)
    found = run("opencv-magsac", matches, kind)
    np.testing.assert_allclose(
        found.matrix / np.linalg.norm(found.matrix), expected / np.linalg.norm(expected), atol=1e-12
    )
    np.testing.assert_array_equal(found.inliers, mask[:, 0] > 0)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("name", NAMES)
def test_the_same_seed_gives_the_same_answer(name: EstimatorName, kind: GeometryKind) -> None:
    matches = scene(kind, noise=1.0)
    first = run(name, matches, kind, seed=4)
    cv2.setRNGSeed(99)  # whatever else the process has drawn
    again = run(name, matches, kind, seed=4)
    np.testing.assert_array_equal(first.matrix, again.matrix)
    np.testing.assert_array_equal(first.inliers, again.inliers)


@pytest.mark.parametrize("name", NAMES)
def test_another_seed_draws_other_samples(name: EstimatorName) -> None:
    # so much noise that no two samples lead to the same matches
    matches = scene("fundamental", noise=3.0)
    found = {run(name, matches, "fundamental", seed=seed, max_iterations=20).matrix.tobytes() for seed in range(5)}
    assert len(found) > 1


def test_shuffled_matches_keep_their_inliers() -> None:
    matches = scene("homography")
    for seed in (0, 1, 2):
        inliers = run("opencv-ransac", matches, "homography", seed=seed).inliers
        assert inliers[120:].mean() > 0.9
        assert inliers[:120].mean() < 0.02


@pytest.mark.parametrize("name", OPENCV)
def test_far_points_count_for_the_pose(name: EstimatorName) -> None:
    # a hundred baselines away: OpenCV's own limit is fifty
    geometry = run(name, to_matches(*depth(300, far=25)), "essential")
    assert geometry.inliers.mean() > 0.9
    assert geometry.rotation is not None
    assert pose_error(geometry.rotation, T_TRUE[:3, 3], T_TRUE) < 1


@pytest.mark.parametrize("name", OPENCV)
def test_skew_is_part_of_the_camera(name: EstimatorName) -> None:
    skewed = K0 + np.array([[0, 40.0, 0], [0, 0, 0], [0, 0, 0]])
    places = np.random.default_rng(0).uniform((-3, -2, 4), (3, 2, 10), (200, 3))
    points1 = project((places @ T_TRUE[:3, :3].T + T_TRUE[:3, 3]) @ K1.T)
    matches = to_matches(project(places @ skewed.T), points1)
    assert error(run(name, matches, "essential", cameras=(skewed, K1))) < 0.05


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("name", NAMES)
def test_the_least_number_of_matches_is_enough(name: EstimatorName, kind: GeometryKind) -> None:
    least = {"homography": 4, "fundamental": 7, "essential": 5}[kind]
    points = plane(least) if kind == "homography" else depth(least)
    assert run(name, to_matches(*points), kind).inliers.sum() in (0, least)
    fewer = run(name, to_matches(points[0][:-1], points[1][:-1]), kind)
    assert not fewer
    assert not fewer.matrix.any()
    assert fewer.inliers.shape == (least - 1,)


LINE = np.c_[np.arange(50.0), 3 + np.arange(50) / 2]
DEGENERATE = {
    "nothing": (np.zeros((0, 2)), np.zeros((0, 2))),
    "one place": (np.full((50, 2), 7.0), np.full((50, 2), 9.0)),
    "a line in both": (LINE, LINE + 5),
    "a line in image 0": (LINE, plane(50)[1]),
    "a line in image 1": (plane(50)[0], LINE),
}


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("case", DEGENERATE)
def test_matches_that_determine_nothing_give_no_model(name: EstimatorName, kind: GeometryKind, case: str) -> None:
    geometry = run(name, to_matches(*DEGENERATE[case]), kind)
    assert not geometry
    assert not geometry.matrix.any()
    assert geometry.rotation is None


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("name", OPENCV)
def test_equal_matches_count_once(name: EstimatorName, kind: GeometryKind) -> None:
    points0, points1 = (np.repeat(points, 40, axis=0) for points in plane(3))
    assert not run(name, to_matches(points0, points1), kind)


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 2**32 - 1), st.integers(0, 12), st.sampled_from([1.0, 200.0, 1e6]), st.sampled_from(NAMES))
def test_whatever_the_matches_the_answer_is_finite(seed: int, count: int, step: float, name: EstimatorName) -> None:
    rng = np.random.default_rng(seed)
    points0, points1 = np.round(rng.uniform(0, 1000, (2, count, 2)) / step) * step  # on grids, also very coarse ones
    for kind in KINDS:
        geometry = run(name, to_matches(points0, points1), kind, max_iterations=30)
        assert np.isfinite(geometry.matrix).all()
        assert bool(geometry) == bool(geometry.matrix.any())


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"threshold": 0.0}, "threshold is 0.0, expected a positive number of pixels"),
        ({"seed": -1}, "seed is -1, expected 0 to 2147483647"),
        ({"seed": 2**31}, "seed is 2147483648"),
        ({"max_iterations": 0}, "max_iterations is 0, expected 1 to"),
        ({"min_iterations": -1}, "min_iterations is -1, expected 0 to"),
        ({"confidence": 1.0}, "confidence is 1.0, expected a number between 0 and 1"),
        ({"cameras": None}, "cameras are missing"),
    ],
)
@pytest.mark.parametrize("name", NAMES)
def test_options_out_of_range_are_named(name: EstimatorName, options: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        run(name, scene("essential"), "essential", **options)


def test_unknown_names_are_answered_with_the_known_ones() -> None:
    with pytest.raises(InputError, match="the estimator is 'lmeds', expected one of poselib, opencv-ransac"):
        run("lmeds", scene("homography"), "homography")  # type: ignore[arg-type]
    with pytest.raises(InputError, match="the geometry is 'affine', expected one of homography"):
        run("opencv-ransac", scene("homography"), "affine")  # type: ignore[arg-type]


def test_the_least_number_of_iterations_overrides_the_confidence() -> None:
    matches = scene("homography", outliers=0.7)
    few = run("poselib", matches, "homography", confidence=1e-9, min_iterations=0)
    many = run("poselib", matches, "homography", confidence=1e-9, min_iterations=500)
    assert error(many) < 1
    assert few.inliers.sum() < many.inliers.sum()
