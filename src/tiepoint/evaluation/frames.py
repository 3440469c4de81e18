"""Stored and resized images: a protocol's resizing, and how truth and keypoints follow it."""

import cv2
import numpy as np

from tiepoint.evaluation.protocol import Protocol
from tiepoint.images import UInt8
from tiepoint.types import Float64

Scale = tuple[float, float]
Size = tuple[int, int]


def target_size(size: Size, protocol: Protocol) -> Size:
    """The size to which a protocol resizes an image.

    Args:
        size: (height, width) of the image as stored.
        protocol: its rule.

    Returns:
        (height, width).
    """
    if protocol.exact_size is not None:
        return protocol.exact_size
    ratio = _ratio(size, protocol)
    height, width = (max(1, round(side * ratio)) for side in size)
    step = protocol.divisible_by
    return max(step, height // step * step), max(step, width // step * step)


def resize(image: UInt8, protocol: Protocol) -> tuple[UInt8, Scale]:
    """Resizes an image as a protocol wants it.

    Args:
        image: (H, W, 3) as stored.
        protocol: its rule.

    Returns:
        The image, the very one that was given where its size is right, and its scale (sx, sy): pixel x of the
        result lies at (x + 0.5) * sx - 0.5 in the image as stored, as `images.to_original` computes.
    """
    height, width = image.shape[:2]
    new_height, new_width = target_size((height, width), protocol)
    if (new_height, new_width) == (height, width):
        return image, (1.0, 1.0)
    # an image that grows has nothing to average over
    shrinks = new_height <= height and new_width <= width
    how = cv2.INTER_AREA if protocol.interpolation == "area" and shrinks else cv2.INTER_LINEAR
    resized = cv2.resize(image, (new_width, new_height), interpolation=how)
    return np.asarray(resized, dtype=np.uint8), (width / new_width, height / new_height)


def rescale_homography(H_0to1: Float64, scale0: Scale, scale1: Scale) -> Float64:
    """Carries a homography over to resized images.

    Args:
        H_0to1: (3, 3), between the images as stored.
        scale0: (sx, sy) of image 0, stored to resized size.
        scale1: the same of image 1.

    Returns:
        (3, 3), pixels of the resized image 0 to the resized image 1.
    """
    return np.asarray(np.linalg.solve(_to_stored(scale1), H_0to1 @ _to_stored(scale0)), dtype=np.float64)


def rescale_intrinsics(K: Float64, scale: Scale) -> Float64:
    """Carries a camera's intrinsics over to a resized image.

    Args:
        K: (3, 3), of the image as stored.
        scale: (sx, sy), stored to resized size.

    Returns:
        (3, 3), of the resized image.
    """
    return np.asarray(np.linalg.solve(_to_stored(scale), K), dtype=np.float64)


def rescale_points(points: Float64, scale: Scale) -> Float64:
    """Carries pixels over to a resized image.

    Args:
        points: (N, 2), of the image as stored.
        scale: (sx, sy), stored to resized size.

    Returns:
        (N, 2), of the resized image.
    """
    resized: Float64 = (points + 0.5) / np.array(scale) - 0.5
    return resized


def _ratio(size: Size, protocol: Protocol) -> float:
    ratio = 1.0
    if protocol.long_side is not None:
        ratio = protocol.long_side / max(size)
    elif protocol.short_side is not None:
        ratio = protocol.short_side / min(size)
    return ratio if protocol.enlarge else min(ratio, 1.0)


def _to_stored(scale: Scale) -> Float64:
    sx, sy = scale
    return np.array([[sx, 0.0, sx / 2 - 0.5], [0.0, sy, sy / 2 - 0.5], [0.0, 0.0, 1.0]])
