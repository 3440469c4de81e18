"""One image laid over another: warping at full size, and pictures that show how well they agree."""

import os
from collections.abc import Sequence
from pathlib import Path

import cv2
import numpy as np
import numpy.typing as npt
from PIL import Image

from tiepoint.files import atomic_path
from tiepoint.images import UInt8, resize_to_long_side
from tiepoint.types import Float64

TILE = 2048  # px
REACH = 30_000  # px: OpenCV's remapping counts in 16 bits
BORDER = 8  # px around the part of an image that a tile needs
PICTURE_SIDE = 1200
SQUARES = 8  # of a checkerboard, along the longer side
FLICKER_MS = 500


def warp_over(image: UInt8, H: npt.ArrayLike, size: tuple[int, int], *, tile: int = TILE) -> UInt8:
    """Warps an image to the pixels of another one, tile by tile, so that no side is too long for OpenCV.

    Where the result is smaller, the image is averaged first: nothing aliases.

    Args:
        image: (H, W, 3).
        H: (3, 3), pixels of the image to those of the result.
        size: (height, width) of the result.
        tile: side of a tile in pixels.

    Returns:
        (height, width, 4), red, green, blue and opacity: 0 where the image does not reach.
    """
    matrix = np.asarray(H, dtype=np.float64)
    image, matrix = _averaged(image, matrix)
    opaque = np.dstack([image, np.full(image.shape[:2], 255, dtype=np.uint8)])
    result = np.zeros((*size, 4), dtype=np.uint8)
    for top in range(0, size[0], tile):
        for left in range(0, size[1], tile):
            part = result[top : top + tile, left : left + tile]
            part[:] = _warp_tile(opaque, matrix, (left, top), (part.shape[0], part.shape[1]))
    return result


def _averaged(image: UInt8, matrix: Float64) -> tuple[UInt8, Float64]:
    """Shrinks an image, areas kept, by the whole factor by which its middle shrinks under a homography."""
    height, width = image.shape[:2]
    x, y = (width - 1) / 2, (height - 1) / 2
    depth = matrix[2] @ (x, y, 1)
    zoom = np.sqrt(abs(np.linalg.det(matrix) / depth**3)) if depth else 1.0
    if not 0 < zoom <= 0.5:
        return image, matrix
    small, (sx, sy) = resize_to_long_side(image, max(1, round(max(height, width) * zoom)))
    return small, matrix @ np.array([[sx, 0, sx / 2 - 0.5], [0, sy, sy / 2 - 0.5], [0, 0, 1]])


def _warp_tile(image: UInt8, matrix: Float64, corner: tuple[int, int], size: tuple[int, int]) -> UInt8:
    """One tile of the result, made from the part of the image that it shows."""
    (left, top), (height, width) = corner, size
    x, y = np.meshgrid(np.linspace(left, left + width - 1, 17), np.linspace(top, top + height - 1, 17))
    source = np.linalg.inv(matrix) @ np.stack([x.ravel(), y.ravel(), np.ones(x.size)])
    with np.errstate(divide="ignore", invalid="ignore"):
        places = source[:2] / source[2]
    # the sign of the depth is that of the image's own pixels; a tile that meets the horizon takes all of the image
    low, high = np.zeros(2), np.array(image.shape[1::-1], dtype=np.float64)
    if (np.sign(source[2]) == np.sign(source[2, 0])).all() and np.isfinite(places).all():
        low = np.maximum(low, np.floor(places.min(axis=1)) - BORDER)
        high = np.minimum(high, np.ceil(places.max(axis=1)) + BORDER + 1)
    high = np.minimum(high, low + REACH)
    if (high <= low).any():
        return np.zeros((height, width, 4), dtype=np.uint8)
    (x0, y0), (x1, y1) = low.astype(int), high.astype(int)
    to_tile = np.array([[1.0, 0, -left], [0, 1, -top], [0, 0, 1]])
    from_part = np.array([[1.0, 0, x0], [0, 1, y0], [0, 0, 1]])
    warped = cv2.warpPerspective(
        image[y0:y1, x0:x1], to_tile @ matrix @ from_part, (width, height), flags=cv2.INTER_CUBIC
    )
    # what lies beyond the image is half transparent at its border: there, no colour is the image's own
    warped[warped[..., 3] < 255] = 0
    return np.asarray(warped, dtype=np.uint8)


def draw_overlay(warped: UInt8, fixed: UInt8) -> UInt8:
    """The fixed image in red and the other one in cyan: where they agree, all is grey.

    Args:
        warped: (H, W, 4), as from `warp_over`.
        fixed: (H, W, 3).

    Returns:
        (h, w, 3), at most 1200 pixels on its longer side.
    """
    over, under = _pair(warped, fixed)
    greys = [cv2.cvtColor(np.ascontiguousarray(each[..., :3]), cv2.COLOR_RGB2GRAY) for each in (under, over)]
    # each stretched to the full range, so that different exposures are no difference
    red, cyan = (cv2.normalize(grey, None, 0, 255, cv2.NORM_MINMAX) for grey in greys)
    cyan = np.where(over[..., 3] > 0, cyan, red // 2)
    return np.dstack([red, cyan, cyan])


def draw_checkerboard(warped: UInt8, fixed: UInt8, *, squares: int = SQUARES) -> UInt8:
    """Squares of both images in turn: edges run on from one to the next where they agree.

    Args:
        warped: (H, W, 4), as from `warp_over`.
        fixed: (H, W, 3).
        squares: along the longer side.

    Returns:
        (h, w, 3), at most 1200 pixels on its longer side.
    """
    over, under = _pair(warped, fixed)
    side = max(1, max(under.shape[:2]) // squares)
    y, x = np.indices(under.shape[:2]) // side
    return np.where((((x + y) % 2 == 0) & (over[..., 3] > 0))[..., None], over[..., :3], under)


def write_flicker(path: str | os.PathLike[str], warped: UInt8, fixed: UInt8) -> None:
    """Writes a GIF that shows both images in turn: what jumps does not agree.

    Raises:
        InputError: as `atomic_path`.
        WorkError: the disk is full.
    """
    over, under = _pair(warped, fixed)
    seen = np.where(over[..., 3:] > 0, over[..., :3], under)
    frames = [Image.fromarray(each).quantize(256) for each in (under, seen)]
    _write_frames(Path(path), frames)


def _write_frames(path: Path, frames: Sequence[Image.Image]) -> None:
    with atomic_path(path) as temporary:
        frames[0].save(temporary, format="GIF", save_all=True, append_images=frames[1:], duration=FLICKER_MS, loop=0)


def _pair(warped: UInt8, fixed: UInt8) -> tuple[UInt8, UInt8]:
    return resize_to_long_side(warped, PICTURE_SIDE)[0], resize_to_long_side(fixed, PICTURE_SIDE)[0]
