"""A row of overlapping photographs as one picture, on the plane of the middle one; OpenCV's stitching parts."""

from collections.abc import Sequence
from typing import Any

import cv2
import numpy as np

from tiepoint.errors import WorkError
from tiepoint.geometry import warp_points
from tiepoint.images import UInt8
from tiepoint.overlays import warp_over
from tiepoint.types import Float64

SEAM_SIDE = 600  # px: exposures are compared and seams are cut at this size
LARGEST_GROWTH = 6.0  # times the area of all photographs together: beyond, the plane runs towards the horizon
BANDS = 5


def stitch(images: Sequence[UInt8], steps: Sequence[Float64]) -> UInt8:
    """Stitches a row of photographs whose neighbours' homographies are known.

    All are warped to the plane of the middle one, their exposures evened out (gains of blocks), cut along seams of
    least difference (graph cut; Kwatra et al., SIGGRAPH 2003) and blended in bands (Burt and Adelson, 1983).

    Args:
        images: (H, W, 3) each, from one place or of one plane, in their order.
        steps: for each neighbouring pair the (3, 3) from the left to the right one.

    Returns:
        (H, W, 4), red, green, blue and opacity.

    Raises:
        WorkError: the row turns too far for one plane.
    """
    to_middle = _chained(steps, len(images) // 2)
    corners, parts = _placed(images, to_middle)
    masks = [np.where(part[..., 3] > 0, 255, 0).astype(np.uint8) for part in parts]
    colours = [np.ascontiguousarray(part[..., :3]) for part in parts]
    scale = min(1.0, SEAM_SIDE / max(max(part.shape[:2]) for part in parts))
    small_corners = [(round(x * scale), round(y * scale)) for x, y in corners]
    small = [cv2.resize(each, None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA) for each in colours]
    small_masks = [cv2.resize(each, None, fx=scale, fy=scale, interpolation=cv2.INTER_NEAREST) for each in masks]
    compensator = cv2.detail.BlocksGainCompensator()
    compensator.feed(small_corners, small, small_masks)
    finder = cv2.detail.GraphCutSeamFinder("COST_COLOR")
    seams = finder.find([each.astype(np.float32) for each in small], small_corners, small_masks)
    blender = cv2.detail.MultiBandBlender()
    blender.setNumBands(BANDS)
    blender.prepare(cv2.detail.resultRoi(corners=corners, sizes=[part.shape[1::-1] for part in parts]))
    for number, (colour, mask, seam, corner) in enumerate(zip(colours, masks, seams, corners, strict=True)):
        even = compensator.apply(number, corner, colour, mask)
        wide = cv2.dilate(seam.get() if isinstance(seam, cv2.UMat) else seam, np.ones((3, 3), np.uint8))
        own = cv2.resize(wide, mask.shape[::-1], interpolation=cv2.INTER_LINEAR)
        whole: Any = _continued(np.asarray(even, np.uint8), mask).astype(np.int16)
        blender.feed(cv2.UMat(whole), cv2.bitwise_and(own, mask), corner)
    blended, opacity = blender.blend(None, None)
    return np.dstack([np.clip(blended, 0, 255).astype(np.uint8), opacity])


def _chained(steps: Sequence[Float64], middle: int) -> list[Float64]:
    """Each photograph's homography to the middle one."""
    result = [np.eye(3)] * (len(steps) + 1)
    for index in range(middle - 1, -1, -1):
        result[index] = result[index + 1] @ steps[index]
    for index in range(middle, len(steps)):
        result[index + 1] = result[index] @ np.linalg.inv(steps[index])
    return result


def _placed(images: Sequence[UInt8], to_middle: Sequence[Float64]) -> tuple[list[tuple[int, int]], list[UInt8]]:
    """Each warped photograph, (h, w, 4), and where its upper left corner lies, (x, y)."""
    boxes = []
    for image, H in zip(images, to_middle, strict=True):
        height, width = image.shape[:2]
        frame = np.array([[0, 0], [width - 1, 0], [0, height - 1], [width - 1, height - 1]], dtype=np.float64)
        depth = frame @ H[2, :2] + H[2, 2]
        places = warp_points(H, frame)
        if not ((depth > 0).all() or (depth < 0).all()) or not np.isfinite(places).all():
            raise _too_far()
        boxes.append((np.floor(places.min(0)).astype(int), np.ceil(places.max(0)).astype(int) + 1))
    extent = np.max([high for _, high in boxes], axis=0) - np.min([low for low, _ in boxes], axis=0)
    if float(extent[0]) * float(extent[1]) > LARGEST_GROWTH * sum(image.shape[0] * image.shape[1] for image in images):
        raise _too_far()
    parts = []
    for image, H, (low, high) in zip(images, to_middle, boxes, strict=True):
        shift = np.array([[1.0, 0, -low[0]], [0, 1, -low[1]], [0, 0, 1]])
        parts.append(warp_over(image, shift @ H, (int(high[1] - low[1]), int(high[0] - low[0]))))
    return [(int(low[0]), int(low[1])) for low, _ in boxes], parts


def _continued(image: UInt8, mask: UInt8) -> UInt8:
    """The colours of a photograph (h, w, 3) carried on beyond its outline, each pixel by the nearest one of its mask.

    The bands of the blender reach across the outline: what is black there would darken the one side and light up the
    other.
    """
    _, nearest = cv2.distanceTransformWithLabels(
        np.where(mask > 0, 0, 255).astype(np.uint8), cv2.DIST_L2, 5, labelType=cv2.DIST_LABEL_PIXEL
    )
    # each pixel of the mask has a label of its own
    colours = np.zeros((int(nearest.max()) + 1, 3), np.uint8)
    colours[nearest[mask > 0]] = image[mask > 0]
    return np.asarray(colours[nearest], np.uint8)


def _too_far() -> WorkError:
    return WorkError("the row turns too far to lie on one plane; fewer photographs, or two panoramas, would help")
