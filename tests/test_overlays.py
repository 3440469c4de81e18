import cv2
import numpy as np
import pytest
from PIL import Image
from skimage import data

from tiepoint.overlays import draw_checkerboard, draw_overlay, warp_over, write_flicker

H = np.array([[0.92, -0.08, 40.0], [0.06, 0.9, 15.0], [2e-4, 1e-4, 1.0]])


def test_tiles_are_the_whole() -> None:
    photo = data.coffee()
    whole, tiled = warp_over(photo, H, (400, 600)), warp_over(photo, H, (400, 600), tile=97)
    assert np.abs(whole.astype(int) - tiled).max() <= 2  # OpenCV places to a 32nd of a pixel
    expected = cv2.warpPerspective(photo, H, (600, 400), flags=cv2.INTER_CUBIC)
    shown = whole[..., 3] == 255
    assert 0.5 < shown.mean() < 1
    assert np.abs(whole[..., :3].astype(int) - expected)[shown].max() <= 2
    assert not whole[~shown].any()


def test_beyond_what_opencv_can_address() -> None:
    strip = np.tile(np.arange(256, dtype=np.uint8)[None, :, None], (16, 160, 3))
    shift = np.array([[1.0, 0, 5], [0, 1, 0], [0, 0, 1]])
    warped = warp_over(strip, shift, (16, strip.shape[1]))
    assert np.array_equal(warped[8, 5:, 0], strip[8, :-5, 0])


def test_a_smaller_result_is_averaged() -> None:
    stripes = np.zeros((400, 400, 3), np.uint8)
    stripes[:, ::2] = 255
    quarter = np.diag([0.25, 0.25, 1.0])
    inner = warp_over(stripes, quarter, (100, 100))[10:-10, 10:-10, :3]
    assert np.abs(inner.astype(int) - 127).max() <= 2


def test_what_does_not_reach_is_empty() -> None:
    far = np.array([[1.0, 0, 5000], [0, 1, 0], [0, 0, 1]])
    assert not warp_over(data.coffee(), far, (400, 600)).any()


def test_pictures(tmp_path) -> None:  # noqa: ANN001
    photo = data.coffee()
    warped = warp_over(photo, np.eye(3), (400, 600))
    overlay = draw_overlay(warped, photo)
    assert np.abs(overlay[..., 0].astype(int) - overlay[..., 1]).max() <= 1  # all grey where they agree
    assert np.array_equal(draw_checkerboard(warped, photo), photo)
    other = draw_checkerboard(warped, 255 - photo)
    assert (other == photo).all(-1).mean() == pytest.approx(0.5, abs=0.1)
    write_flicker(tmp_path / "a.gif", warped, 255 - photo)
    with Image.open(tmp_path / "a.gif") as picture:
        assert picture.n_frames == 2
        assert picture.size == (600, 400)
