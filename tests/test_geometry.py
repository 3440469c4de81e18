from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from tiepoint.errors import InputError
from tiepoint.geometry import default_threshold, estimate, warp_points
from tiepoint.types import Float64, GeometryKind, Matches

SIZE = (480, 640)
H_TRUE = np.array([[1.1, 0.1, -20], [-0.05, 0.95, 15], [1e-4, -5e-5, 1]])
K0 = np.array([[520, 0, 330], [0, 500, 235], [0, 0, 1]], dtype=float)
K1 = np.array([[610, 3, 300], [0, 620, 260], [0, 0, 1]], dtype=float)
ANGLE = np.radians(12)
R_TRUE = np.array([[np.cos(ANGLE), 0, np.sin(ANGLE)], [0, 1, 0], [-np.sin(ANGLE), 0, np.cos(ANGLE)]])
T_TRUE = np.array([-0.9, 0.1, 0.2]) / np.linalg.norm([-0.9, 0.1, 0.2])
KINDS: tuple[GeometryKind, ...] = ("homography", "fundamental", "essential")


def make_matches(points0: npt.ArrayLike, points1: npt.ArrayLike, size: tuple[int, int] = SIZE) -> Matches:
    scores = np.linspace(1, 0.1, len(np.asarray(points0)))
    return Matches(np.reshape(points0, (-1, 2)), np.reshape(points1, (-1, 2)), scores, size, size)


def with_outliers(points0: Float64, points1: Float64, noise: float = 0.3) -> tuple[Matches, npt.NDArray[np.bool_]]:
    """Every third match is wrong by far, the others by `noise` pixels."""
    rng = np.random.default_rng(1)
    points1 = points1 + rng.normal(0, noise, points1.shape)
    wrong = np.arange(len(points0)) % 3 == 0
    points1[wrong] += rng.uniform(60, 200, (wrong.sum(), 2)) * rng.choice([-1, 1], (wrong.sum(), 2))
    return make_matches(points0, points1), ~wrong


def planar_scene(n: int = 300) -> tuple[Matches, npt.NDArray[np.bool_]]:
    points0 = np.random.default_rng(0).uniform((0, 0), SIZE[::-1], (n, 2))
    return with_outliers(points0, warp_points(H_TRUE, points0))


def deep_scene(n: int = 300) -> tuple[Matches, npt.NDArray[np.bool_]]:
    world = np.random.default_rng(0).uniform((-2, -1.5, 4), (2, 1.5, 9), (n, 3))
    seen0, seen1 = world @ K0.T, (world @ R_TRUE.T + T_TRUE) @ K1.T
    return with_outliers(seen0[:, :2] / seen0[:, 2:], seen1[:, :2] / seen1[:, 2:])


def degrees(a: Float64, b: Float64) -> float:
    return float(np.degrees(np.arccos(np.clip(a @ b / np.linalg.norm(a) / np.linalg.norm(b), -1, 1))))


def sampson(F: Float64, matches: Matches) -> Float64:
    x0, x1 = (np.c_[k, np.ones(len(k))] for k in (matches.keypoints0, matches.keypoints1))
    lines1, lines0 = x0 @ F.T, x1 @ F
    norm = np.hypot(np.hypot(*lines1[:, :2].T), np.hypot(*lines0[:, :2].T))
    return np.asarray(np.abs((x1 * lines1).sum(1)) / norm)


def test_a_homography_is_found_among_outliers() -> None:
    matches, right = planar_scene()
    geometry = estimate(matches)
    assert geometry
    assert geometry.kind == "homography"
    assert geometry.matrix[2, 2] == 1
    assert geometry.matrix.dtype == np.float64
    assert (geometry.inliers == right).all()
    corners = np.array([[0, 0], [639, 0], [639, 479], [0, 479]])
    error = np.linalg.norm(warp_points(geometry.matrix, corners) - warp_points(H_TRUE, corners), axis=1)
    assert error.max() < 0.5
    assert geometry.rotation is None
    assert geometry.translation is None


def test_a_fundamental_matrix_is_found_among_outliers() -> None:
    matches, right = deep_scene()
    geometry = estimate(matches, "fundamental")
    assert np.linalg.norm(geometry.matrix) == pytest.approx(1)
    assert np.linalg.matrix_rank(geometry.matrix, tol=1e-9) == 2
    assert geometry.inliers[right].mean() > 0.99
    assert geometry.inliers[~right].mean() < 0.1
    assert np.median(sampson(geometry.matrix, matches)[right]) < 0.5


def test_an_essential_matrix_gives_the_motion_of_the_camera() -> None:
    matches, right = deep_scene()
    geometry = estimate(matches, "essential", cameras=(K0, K1))
    assert geometry.rotation is not None
    assert geometry.translation is not None
    assert np.degrees(np.arccos((np.trace(geometry.rotation.T @ R_TRUE) - 1) / 2)) < 0.5
    assert degrees(geometry.translation, T_TRUE) < 1.5
    assert np.linalg.norm(geometry.translation) == pytest.approx(1)
    assert np.linalg.norm(geometry.matrix) == pytest.approx(1)
    assert geometry.inliers[right].mean() > 0.99
    # x1' F x0 = 0 with F = K1^-T E K0^-1, in pixels with the principal points as given
    F = np.linalg.inv(K1).T @ geometry.matrix @ np.linalg.inv(K0)
    assert np.median(sampson(F, matches)[right]) < 0.5


def test_the_essential_matrix_is_the_cross_product_of_its_motion() -> None:
    geometry = estimate(deep_scene()[0], "essential", cameras=(K0.tolist(), K1.tolist()))
    assert geometry.rotation is not None
    assert geometry.translation is not None
    product = np.stack([np.cross(geometry.translation, column) for column in geometry.rotation.T], axis=1)
    assert geometry.matrix == pytest.approx(product / np.sqrt(2))


@pytest.mark.parametrize("kind", KINDS)
def test_the_same_input_gives_the_same_answer(kind: GeometryKind) -> None:
    matches, _ = deep_scene(80)
    first, second = (estimate(matches, kind, cameras=(K0, K1), seed=3, max_iterations=200) for _ in range(2))
    assert (first.matrix == second.matrix).all()
    assert (first.inliers == second.inliers).all()


@pytest.mark.parametrize(("kind", "minimum"), [("homography", 4), ("fundamental", 7), ("essential", 5)])
def test_too_few_matches_are_no_geometry(kind: GeometryKind, minimum: int) -> None:
    points0, points1 = deep_scene(30)[0].keypoints0, deep_scene(30)[0].keypoints1
    for n in range(minimum):
        geometry = estimate(make_matches(points0[:n], points1[:n]), kind, cameras=(K0, K1))
        assert not geometry
        assert geometry.inliers.shape == (n,)
        assert not geometry.matrix.any()
        assert geometry.rotation is None


@pytest.mark.parametrize(("kind", "minimum"), [("homography", 4), ("fundamental", 7), ("essential", 5)])
def test_the_minimum_is_enough(kind: GeometryKind, minimum: int) -> None:
    matches, right = planar_scene() if kind == "homography" else deep_scene()
    points0, points1 = (k[right][:minimum] for k in (matches.keypoints0, matches.keypoints1))
    geometry = estimate(make_matches(points0, points1), kind, cameras=(K0, K1))
    assert geometry.inliers.all()
    assert len(geometry.inliers) == minimum


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("place", [0.0, 300.0, 1e30])
def test_matches_on_one_spot_are_no_error(kind: GeometryKind, place: float) -> None:
    spot = np.full((20, 2), place)
    geometry = estimate(make_matches(spot, spot), kind, cameras=(K0, K1), max_iterations=200)
    assert geometry.inliers.shape == (20,)
    assert np.isfinite(geometry.matrix).all()
    assert bool(geometry) == geometry.matrix.any()


def test_a_homography_that_maps_the_first_pixel_to_infinity() -> None:
    H = np.array([[0, 0, 1], [0, -1, 0], [1, 0, 0]], dtype=float)
    points0 = np.random.default_rng(0).uniform(1, 9, (50, 2))
    geometry = estimate(make_matches(points0, warp_points(H, points0)), threshold=1e-3)
    error = warp_points(geometry.matrix, points0) - warp_points(H, points0)
    assert np.abs(error).max() < 1e-3


def test_the_threshold_decides_who_agrees() -> None:
    points0 = np.random.default_rng(0).uniform((0, 0), SIZE[::-1], (200, 2))
    points1 = warp_points(H_TRUE, points0)
    points1[:40, 0] += 5
    assert estimate(make_matches(points0, points1), threshold=2).inliers.sum() == 160
    assert estimate(make_matches(points0, points1), threshold=20).inliers.sum() == 200


@pytest.mark.parametrize(
    ("kind", "size0", "size1", "expected"),
    [
        ("homography", (480, 640), (480, 640), 3),
        ("homography", (480, 640), (3072, 4096), 12),
        ("homography", (4096, 3072), (480, 640), 3),
        ("fundamental", (480, 640), (3072, 4096), 2),
        ("essential", (2048, 100), (3072, 4096), 4),
    ],
)
def test_the_default_threshold_grows_with_the_images(
    kind: GeometryKind, size0: tuple[int, int], size1: tuple[int, int], expected: float
) -> None:
    empty = np.zeros((0, 2), dtype=np.float32)
    matches = Matches(empty, empty, empty[:, 0], size0, size1)
    assert default_threshold(matches, kind) == expected


@pytest.mark.parametrize(
    ("options", "found"),
    [
        ({"kind": "affine"}, "geometry is 'affine', expected one of homography, fundamental, essential"),
        ({"threshold": 0}, "threshold is 0"),
        ({"threshold": float("nan")}, "threshold is nan"),
        ({"threshold": float("inf")}, "threshold is inf"),
        ({"seed": -1}, "seed is -1"),
        ({"max_iterations": 0}, "max_iterations is 0"),
        ({"confidence": 1}, "confidence is 1"),
        ({"kind": "essential"}, "cameras are missing"),
        ({"kind": "essential", "cameras": (K0,)}, "holds 1 matrices"),
        ({"kind": "essential", "cameras": (K0, np.eye(4))}, r"K1 has shape \(4, 4\)"),
        ({"kind": "essential", "cameras": ("K", K1)}, "K0 is not a matrix of numbers"),
        ({"kind": "essential", "cameras": (K0 * np.nan, K1)}, "K0 holds values that are not finite"),
        ({"kind": "essential", "cameras": (K0, K1.T)}, "K1 is .*, expected"),
        ({"kind": "essential", "cameras": (K0 * 2, K1)}, "K0 is .*, expected"),
        (
            {"kind": "essential", "cameras": (np.diag([-500, 500, 1]), K1)},
            "K0 has focal lengths -500 and 500",
        ),
    ],
)
def test_wrong_options_are_input_errors(options: dict[str, Any], found: str) -> None:
    for n in (0, 20):
        with pytest.raises(InputError, match=found):
            estimate(make_matches(np.zeros((n, 2)), np.zeros((n, 2))), **options)


def test_points_are_warped_with_any_leading_shape() -> None:
    points = np.random.default_rng(0).uniform(0, 100, (4, 5, 2))
    back = warp_points(np.linalg.inv(H_TRUE), warp_points(H_TRUE, points))
    assert back == pytest.approx(points)
    assert warp_points(np.eye(3), np.zeros((0, 2))).shape == (0, 2)
    assert np.isinf(warp_points([[1, 0, 0], [0, 1, 0], [1, 0, 0]], [0, 1])[1])
