"""Depth of made scenes whose truth has a closed form."""

import cv2
import numpy as np
import pytest

import tiepoint
from tiepoint.dense import SweepGeometry
from tiepoint.errors import InputError, WorkError


def painted(seed: int, size: tuple[int, int]) -> np.ndarray:
    """Something with texture of all scales, (H, W, 3)."""
    rng = np.random.default_rng(seed)
    layers = [
        cv2.resize(rng.uniform(-1, 1, (size[0] // s, size[1] // s, 3)), size[::-1], interpolation=cv2.INTER_CUBIC)
        for s in (4, 8, 24)
    ]
    return (128 + 45 * sum(layers)).clip(0, 255).astype(np.uint8)


def slanted_pair() -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """A rectified pair of a slanted wall, and its disparity d = 8 + x / 40 + y / 30 in the left image."""
    right = painted(0, (128, 192))
    y, x = np.mgrid[:128, :192].astype(np.float32)
    disparity = 8 + x / 40 + y / 30
    left = cv2.remap(right, x - disparity, y, cv2.INTER_CUBIC, borderMode=cv2.BORDER_REFLECT)
    return left, right, disparity


def test_a_slanted_wall_in_a_rectified_pair() -> None:
    left, right, disparity = slanted_pair()
    found = tiepoint.disparity_map(left, right, largest=24)
    assert found.inverse_depth.shape == left.shape[:2]
    inner = (slice(8, -8), slice(32, -8))
    assert np.median(np.abs(found.inverse_depth - disparity)[inner]) < 0.3
    assert found.checked[inner].mean() > 0.95
    # the left border is not in the right image: filled, and known to be
    assert found.checked[:, :6].mean() < 0.1
    assert (found.confidence[~found.checked] == 0).all()


def test_a_plane_seen_by_a_turned_camera_that_also_moved_forward() -> None:
    K0 = np.array([[180.0, 0, 95.5], [0, 180.0, 63.5], [0, 0, 1]])
    K1 = np.array([[170.0, 0, 92.0], [0, 175.0, 60.0], [0, 0, 1]])
    R, t = cv2.Rodrigues(np.array([0.02, -0.03, 0.05]))[0], np.array([-0.9, 0.2, -0.39])
    normal = np.array([0.1, -0.15, 0.2])  # n·X = 1
    image1 = painted(3, (128, 192))
    H = K1 @ (R + np.outer(t, normal)) @ np.linalg.inv(K0)
    image0 = cv2.warpPerspective(
        image1, H, (192, 128), flags=cv2.INTER_CUBIC | cv2.WARP_INVERSE_MAP, borderMode=cv2.BORDER_REFLECT
    )
    y, x = np.mgrid[:128, :192].astype(np.float64)
    rays = np.stack((x, y, np.ones_like(x)), -1) @ np.linalg.inv(K0).T
    true = rays @ normal  # 1 / z
    found = tiepoint.depth_map(image0, image1, (K0, K1), (R, t), (0.05, 0.5))
    sure = found.checked
    assert sure.mean() > 0.5
    assert np.median(np.abs(found.inverse_depth - true)[sure] / true[sure]) < 0.03
    assert np.allclose(found.depth[sure], 1 / found.inverse_depth[sure])


def test_both_ways_through_a_pair_lead_back() -> None:
    rng = np.random.default_rng(2)
    geometry = SweepGeometry(np.eye(3) + 0.01 * rng.normal(size=(3, 3)), rng.normal(size=3))
    p, w0 = np.array([40.0, 30.0, 1.0]), 0.2
    seen = geometry.at_infinity @ p + w0 * geometry.epipole
    back = geometry.swapped()
    again = back.at_infinity @ (seen / seen[2]) + w0 / seen[2] * back.epipole
    assert np.allclose(again / again[2], p)


@pytest.mark.parametrize(
    ("change", "error", "named"),
    [
        ("size", InputError, "one size"),
        ("range", InputError, "rise"),
        ("texture", WorkError, "no texture"),
    ],
)
def test_what_cannot_be_matched_is_one_sentence(change: str, error: type[Exception], named: str) -> None:
    left, right, _ = slanted_pair()
    largest = 0.0 if change == "range" else 16.0
    right = {"size": right[:-8], "range": right, "texture": np.full_like(right, 90)}[change]
    with pytest.raises(error, match=named):
        tiepoint.disparity_map(left, right, largest=largest)


def test_a_pure_rotation_has_no_depth() -> None:
    left, right, _ = slanted_pair()
    K = np.array([[180.0, 0, 95.5], [0, 180.0, 63.5], [0, 0, 1]])
    with pytest.raises(WorkError, match="only turned"):
        tiepoint.depth_map(left, right, (K, K), (cv2.Rodrigues(np.array([0, 0.1, 0]))[0], np.zeros(3)), (0.0, 0.5))
