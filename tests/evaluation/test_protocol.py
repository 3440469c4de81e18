from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import numpy.typing as npt
import pytest

from tiepoint.evaluation.homography import HomographyPair, PointPair
from tiepoint.evaluation.pose import PosePair
from tiepoint.evaluation.protocol import (
    MatchedPair,
    Pair,
    Protocol,
    match_pair,
    rescale_homography,
    rescale_intrinsics,
    rescale_points,
    sweep,
)
from tiepoint.types import Float64, Matches

Image = npt.NDArray[np.uint8]
H_TRUE = np.array([[0.9, 0.1, 12], [-0.05, 1.1, -8], [1e-4, -5e-5, 1]])
K0 = np.array([[200.0, 0, 99.5], [0, 210, 74.5], [0, 0, 1]])
K1 = np.array([[150.0, 0, 90.0], [0, 150, 70.0], [0, 0, 1]])
NONE = np.zeros((0, 2))
T_TRUE = np.eye(4)
T_TRUE[:3, :3] = cv2.Rodrigues(np.array([0.05, 0.2, -0.1]))[0]
T_TRUE[:3, 3] = (1.0, 0.1, -0.2)


@pytest.fixture
def paths(tmp_path: Path) -> tuple[Path, Path]:
    for name, shape in (("0.png", (150, 200, 3)), ("1.png", (120, 180, 3))):
        cv2.imwrite(str(tmp_path / name), np.full(shape, (10, 20, 30), dtype=np.uint8))
    return tmp_path / "0.png", tmp_path / "1.png"


@pytest.fixture
def scene() -> tuple[Float64, Float64]:
    """Stored pixels of 60 places of a scene with depth, seen by both cameras."""
    points = np.random.default_rng(0).uniform((-2, -1, 4), (2, 1, 9), (60, 3))
    moved = points @ T_TRUE[:3, :3].T + T_TRUE[:3, 3]
    return project(points @ K0.T), project(moved @ K1.T)


def project(points: Float64) -> Float64:
    return points[:, :2] / points[:, 2:]


def warp(H: Float64, points: Float64) -> Float64:
    return project(np.c_[points, np.ones(len(points))] @ H.T)


def pairs(paths: tuple[Path, Path], points: tuple[Float64, Float64]) -> list[Pair]:
    return [
        HomographyPair("h", *paths, H_TRUE),
        PosePair("p", *paths, K0, K1, T_TRUE),
        PointPair("x", *paths, *points),
    ]


def matches_of(points0: Float64, points1: Float64, size0: tuple[int, int], size1: tuple[int, int]) -> Matches:
    scores = np.ones(len(points0), dtype=np.float32)
    return Matches(points0.astype(np.float32), points1.astype(np.float32), scores, size0, size1)


def oracle(points0: Float64, points1: Float64, sizes: list[tuple[int, ...]]) -> Callable[[Image, Image], Matches]:
    """A matcher that knows the stored pixels and answers in pixels of the images that it is shown."""

    def match(image0: Image, image1: Image) -> Matches:
        sizes.extend((image0.shape, image1.shape))
        (h0, w0), (h1, w1) = image0.shape[:2], image1.shape[:2]
        shown0 = (points0 + 0.5) * (w0 / 200, h0 / 150) - 0.5
        shown1 = (points1 + 0.5) * (w1 / 180, h1 / 120) - 0.5
        return matches_of(shown0, shown1, (h0, w0), (h1, w1))

    return match


@pytest.mark.parametrize("long_side", [1024, 100])
def test_right_matches_have_no_error(paths: tuple[Path, Path], scene: tuple[Float64, Float64], long_side: int) -> None:
    homography, pose, points = pairs(paths, scene)
    protocol = Protocol(long_side=long_side)
    plane = np.random.default_rng(0).uniform(10, 140, (60, 2))
    cases = ((homography, (plane, warp(H_TRUE, plane))), (pose, scene), (points, scene))
    for pair, known in cases:
        matched = match_pair(oracle(*known, []), pair, protocol)
        assert sweep(matched, pair, protocol).max() < 0.01


def test_images_are_shrunk_and_scales_lead_back(paths: tuple[Path, Path], scene: tuple[Float64, Float64]) -> None:
    sizes: list[tuple[int, ...]] = []
    pair = PointPair("x", *paths, *scene)
    matched = match_pair(oracle(*scene, sizes), pair, Protocol(long_side=100))
    assert sizes == [(75, 100, 3), (67, 100, 3)]
    assert [*matched.scale0, *matched.scale1] == pytest.approx([2, 2, 1.8, 120 / 67])
    assert matched.seconds > 0


def test_the_matcher_sees_rgb_bytes(paths: tuple[Path, Path]) -> None:
    seen: list[Image] = []

    def look(image0: Image, image1: Image) -> Matches:
        seen.append(image0)
        return matches_of(NONE, NONE, (150, 200), (120, 180))

    match_pair(look, HomographyPair("h", *paths, H_TRUE), Protocol())
    assert seen[0].dtype == np.uint8
    assert seen[0][0, 0].tolist() == [30, 20, 10]  # OpenCV wrote blue, green, red


def test_no_match_is_an_infinite_error(paths: tuple[Path, Path], scene: tuple[Float64, Float64]) -> None:
    matched = MatchedPair(matches_of(NONE, NONE, (150, 200), (120, 180)), (1, 1), (1, 1), 0.1)
    for pair, shape in zip(pairs(paths, scene), [(4,), (4,), (4, 60)], strict=True):
        errors = sweep(matched, pair, Protocol())
        assert errors.shape == shape
        assert np.isinf(errors).all()


def test_the_threshold_matters(paths: tuple[Path, Path]) -> None:
    rng = np.random.default_rng(0)
    plane = rng.uniform(10, 140, (200, 2))
    noisy = warp(H_TRUE, plane) + rng.normal(0, 1.5, (200, 2))
    pair = HomographyPair("h", *paths, H_TRUE)
    protocol = Protocol(thresholds=(0.1, 4.0))
    errors = sweep(match_pair(oracle(plane, noisy, []), pair, protocol), pair, protocol)
    assert errors.shape == (2,)
    assert errors[1] < errors[0]


def test_errors_are_repeatable(paths: tuple[Path, Path], scene: tuple[Float64, Float64]) -> None:
    noise = np.random.default_rng(1).normal(0, 1, scene[1].shape)
    pair = PosePair("p", *paths, K0, K1, T_TRUE)
    matched = match_pair(oracle(scene[0], scene[1] + noise, []), pair, Protocol())
    np.testing.assert_array_equal(sweep(matched, pair, Protocol()), sweep(matched, pair, Protocol()))


def test_rescaled_truths_agree_with_rescaled_points(scene: tuple[Float64, Float64]) -> None:
    scale0, scale1 = (2.0, 1.5), (1.8, 1.25)
    points0 = scene[0]
    expected = rescale_points(warp(H_TRUE, points0), scale1)
    H = rescale_homography(H_TRUE, scale0, scale1)
    np.testing.assert_allclose(warp(H, rescale_points(points0, scale0)), expected)
    rays = np.c_[points0, np.ones(len(points0))] @ np.linalg.inv(K0).T
    np.testing.assert_allclose(project(rays @ rescale_intrinsics(K0, scale0).T), rescale_points(points0, scale0))


def test_rescaled_intrinsics_move_the_centre_by_half_a_pixel() -> None:
    # the middle of a 200 x 150 image stays the middle of the 100 x 75 one
    K = rescale_intrinsics(K0, (2, 2))
    np.testing.assert_allclose(K, np.array([[100, 0, 49.5], [0, 105, 37], [0, 0, 1]]))


def test_the_protocol_cannot_claim_another_minimum_of_iterations() -> None:
    assert Protocol().min_iterations == 100
    with pytest.raises(TypeError):
        Protocol(min_iterations=5)  # type: ignore[call-arg]
