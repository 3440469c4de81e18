"""The protocol by which matchers are compared: image size, keypoints, estimator, thresholds and seed."""

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TypedDict

import numpy as np
import numpy.typing as npt

from tiepoint.evaluation.homography import HomographyPair, PointPair
from tiepoint.evaluation.metrics import (
    homography_corner_error,
    pose_error,
    symmetric_epipolar_distance,
)
from tiepoint.evaluation.pose import PosePair
from tiepoint.geometry import MIN_ITERATIONS, estimate
from tiepoint.images import read_image, resize_to_long_side
from tiepoint.types import Float64, Matches

Image = npt.NDArray[np.uint8]
Matcher = Callable[[Image, Image], Matches]
Pair = HomographyPair | PosePair | PointPair
Scale = tuple[float, float]


@dataclass(frozen=True, slots=True)
class Protocol:
    """What a figure depends on beside the matcher and the pairs; printed with every figure.

    Attributes:
        long_side: images are shrunk until their longer side has at most this many pixels.
        max_keypoints: what a matcher may detect in each image.
        max_iterations: of poselib's LO-RANSAC.
        min_iterations: of poselib's LO-RANSAC; fixed by `tiepoint.geometry`.
        confidence: at which LO-RANSAC stops early.
        seed: of LO-RANSAC.
        thresholds: inlier thresholds in pixels of the resized images; each method counts at its best one.
    """

    long_side: int = 1024
    max_keypoints: int = 2048
    max_iterations: int = 2000
    min_iterations: int = field(default=MIN_ITERATIONS, init=False)
    confidence: float = 0.99999
    seed: int = 0
    thresholds: tuple[float, ...] = (0.5, 1.0, 2.0, 3.0)


class _Options(TypedDict):
    threshold: float
    seed: int
    max_iterations: int
    confidence: float


@dataclass(frozen=True, slots=True, eq=False)
class MatchedPair:
    """A pair's matches in its resized images.

    Attributes:
        matches: in pixels of the resized images.
        scale0: (sx, sy) with x_original = (x + 0.5) * sx - 0.5, image 0.
        scale1: the same of image 1.
        seconds: wall time of the matcher from image arrays to matches.
    """

    matches: Matches
    scale0: Scale
    scale1: Scale
    seconds: float


def match_pair(matcher: Matcher, pair: Pair, protocol: Protocol) -> MatchedPair:
    """Reads and resizes a pair's images, matches them and takes the time.

    Args:
        matcher: function of two (H, W, 3) uint8 RGB arrays.
        pair: where the images are.
        protocol: how large they may be.

    Returns:
        The matches in pixels of the resized images; only the matcher itself is timed.

    Raises:
        InputError: an image cannot be read.
    """
    image0, scale0 = resize_to_long_side(read_image(pair.path0), protocol.long_side)
    image1, scale1 = resize_to_long_side(read_image(pair.path1), protocol.long_side)
    start = time.perf_counter()
    matches = matcher(image0, image1)
    return MatchedPair(matches, scale0, scale1, time.perf_counter() - start)


def sweep(matched: MatchedPair, pair: Pair, protocol: Protocol) -> Float64:
    """Estimates a pair's geometry at every threshold and compares it with the truth.

    Errors are measured where matching happens, in the resized images, as LoFTR and LightGlue do: the ground
    truth is rescaled, not the matches.

    Args:
        matched: the pair's matches.
        pair: the pair with its ground truth.
        protocol: thresholds and estimator settings.

    Returns:
        One row a threshold, infinite where no model was found: (T,) corner errors in pixels for a
        `HomographyPair`, (T,) pose errors in degrees for a `PosePair`, (T, N) symmetric epipolar distances of
        the marked points in pixels for a `PointPair`.
    """
    return np.stack([_errors_at(threshold, matched, pair, protocol) for threshold in protocol.thresholds])


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


def _to_stored(scale: Scale) -> Float64:
    sx, sy = scale
    return np.array([[sx, 0.0, sx / 2 - 0.5], [0.0, sy, sy / 2 - 0.5], [0.0, 0.0, 1.0]])


def _errors_at(threshold: float, matched: MatchedPair, pair: Pair, protocol: Protocol) -> float | Float64:
    matches, scale0, scale1 = matched.matches, matched.scale0, matched.scale1
    options = _Options(
        threshold=threshold,
        seed=protocol.seed,
        max_iterations=protocol.max_iterations,
        confidence=protocol.confidence,
    )
    match pair:
        case HomographyPair():
            geometry = estimate(matches, "homography", **options)
            H_true = rescale_homography(pair.H_0to1, scale0, scale1)
            return homography_corner_error(geometry.matrix, H_true, matches.size0)
        case PosePair():
            cameras = (rescale_intrinsics(pair.K0, scale0), rescale_intrinsics(pair.K1, scale1))
            geometry = estimate(matches, "essential", cameras=cameras, **options)
            return pose_error(geometry.rotation, geometry.translation, pair.T_0to1)
        case PointPair():
            geometry = estimate(matches, "fundamental", **options)
            points = rescale_points(pair.points0, scale0), rescale_points(pair.points1, scale1)
            return symmetric_epipolar_distance(geometry.matrix, *points)
