import cv2
import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tiepoint.evaluation.frames import (
    rescale_homography,
    rescale_intrinsics,
    rescale_points,
    resize,
    target_size,
)
from tiepoint.evaluation.protocol import PROTOCOLS, Protocol, make_protocol
from tiepoint.images import resize_to_long_side, to_original
from tiepoint.types import Float64

H_TRUE = np.array([[0.9, 0.1, 12], [-0.05, 1.1, -8], [1e-4, -5e-5, 1]])
K0 = np.array([[200.0, 0, 99.5], [0, 210, 74.5], [0, 0, 1]])


def picture(height: int, width: int) -> npt.NDArray[np.uint8]:
    return np.random.default_rng(0).integers(0, 256, (height, width, 3), dtype=np.uint8)


def project(points: Float64) -> Float64:
    return points[:, :2] / points[:, 2:]


@pytest.mark.parametrize(
    ("protocol", "size", "expected"),
    [
        (Protocol(), (480, 640), (480, 640)),
        (Protocol(), (1536, 2048), (768, 1024)),
        (Protocol(long_side=840, enlarge=True, divisible_by=8), (1065, 1600), (552, 840)),  # 559 rounded down
        (Protocol(long_side=840, enlarge=True), (300, 420), (600, 840)),
        (Protocol(long_side=None, short_side=480), (960, 1500), (480, 750)),
        (Protocol(long_side=None, short_side=480), (240, 320), (240, 320)),
        (Protocol(long_side=None, short_side=480, enlarge=True), (240, 320), (480, 640)),
        (Protocol(long_side=None, exact_size=(480, 640)), (968, 1296), (480, 640)),
        (Protocol(long_side=None), (968, 1296), (968, 1296)),
        (Protocol(long_side=None, divisible_by=32), (968, 1296), (960, 1280)),
        (Protocol(divisible_by=32), (20, 640), (32, 640)),  # never nothing
    ],
)
def test_sizes(protocol: Protocol, size: tuple[int, int], expected: tuple[int, int]) -> None:
    assert target_size(size, protocol) == expected


@pytest.mark.parametrize("size", [(1500, 2100), (2100, 1500), (1024, 1024), (300, 500)])
def test_the_default_resizes_as_the_matcher_itself_would(size: tuple[int, int]) -> None:
    image = picture(*size)
    expected, expected_scale = resize_to_long_side(image, 1024)
    resized, scale = resize(image, Protocol())
    assert scale == expected_scale
    np.testing.assert_array_equal(resized, expected)


def test_an_image_of_the_right_size_is_handed_on() -> None:
    image = picture(480, 640)
    assert resize(image, Protocol())[0] is image


@pytest.mark.parametrize("name", PROTOCOLS)
@pytest.mark.parametrize("benchmark", ["", "scannet1500", "homography"])
@pytest.mark.parametrize("size", [(333, 500), (1200, 1800)])
def test_scales_lead_from_the_resized_image_back(name: str, benchmark: str, size: tuple[int, int]) -> None:
    protocol = make_protocol(name, benchmark=benchmark)
    resized, scale = resize(picture(*size), protocol)
    height, width = resized.shape[:2]
    assert (height, width) == target_size(size, protocol)
    # the outer corner of the last pixel lies on the outer corner of the last pixel
    corner = np.array([[width - 0.5, height - 0.5]])
    np.testing.assert_allclose(to_original(corner, scale), [[size[1] - 0.5, size[0] - 0.5]])


def test_area_averages_what_linear_skips() -> None:
    stripes = np.zeros((256, 2048, 3), dtype=np.uint8)
    stripes[:, ::8] = 255
    averaged, _ = resize(stripes, make_protocol(long_side=256))
    skipped, _ = resize(stripes, make_protocol(long_side=256, interpolation="linear"))
    assert averaged.min() == averaged.max() == 32
    assert skipped.max() == 0


def test_what_grows_is_interpolated_whatever_the_rule() -> None:
    image = picture(60, 80)
    by_area, by_line = (
        resize(image, make_protocol(long_side=160, enlarge=True, interpolation=how))[0] for how in ("area", "linear")
    )
    np.testing.assert_array_equal(by_area, by_line)


def test_linear_is_what_opencv_does_without_being_asked() -> None:
    image = picture(300, 400)
    resized, _ = resize(image, make_protocol("loftr"))
    np.testing.assert_array_equal(resized, cv2.resize(image, (840, 624)))  # 630 rounded down to a multiple of 8


@settings(deadline=None)
@given(st.integers(1, 5000), st.integers(1, 5000), st.sampled_from(sorted(PROTOCOLS)))
def test_sizes_fit_the_rule_whatever_the_image(height: int, width: int, name: str) -> None:
    protocol = PROTOCOLS[name]
    new_height, new_width = target_size((height, width), protocol)
    assert new_height % protocol.divisible_by == new_width % protocol.divisible_by == 0
    assert min(new_height, new_width) >= 1
    assert protocol.long_side is not None
    assert max(new_height, new_width) <= max(protocol.long_side, protocol.divisible_by)


def test_rescaled_truths_agree_with_rescaled_points() -> None:
    scale0, scale1 = (2.0, 1.5), (1.8, 1.25)
    points0 = np.random.default_rng(0).uniform(0, 150, (60, 2))
    warped = project(np.c_[points0, np.ones(60)] @ H_TRUE.T)
    H = rescale_homography(H_TRUE, scale0, scale1)
    small = np.c_[rescale_points(points0, scale0), np.ones(60)]
    np.testing.assert_allclose(project(small @ H.T), rescale_points(warped, scale1))
    rays = np.c_[points0, np.ones(60)] @ np.linalg.inv(K0).T
    np.testing.assert_allclose(project(rays @ rescale_intrinsics(K0, scale0).T), rescale_points(points0, scale0))


def test_rescaled_points_lead_back() -> None:
    points = np.random.default_rng(0).uniform(0, 150, (60, 2))
    np.testing.assert_allclose(to_original(rescale_points(points, (1.7, 2.3)), (1.7, 2.3)), points)


def test_rescaled_intrinsics_move_the_centre_by_half_a_pixel() -> None:
    # the middle of a 200 x 150 image stays the middle of the 100 x 75 one
    K = rescale_intrinsics(K0, (2, 2))
    np.testing.assert_allclose(K, np.array([[100, 0, 49.5], [0, 105, 37], [0, 0, 1]]))
