"""From matches to the geometry of two views, robustly: poselib's LO-RANSAC."""

import math
from collections.abc import Mapping
from typing import Any, Final, get_args

import numpy as np
import numpy.typing as npt
import poselib

from tiepoint.errors import InputError
from tiepoint.types import Bool, Float64, GeometryKind, Matches, TwoViewGeometry

MINIMUM: Final[Mapping[GeometryKind, int]] = {"homography": 4, "fundamental": 7, "essential": 5}
THRESHOLD: Final[Mapping[GeometryKind, float]] = {"homography": 3.0, "fundamental": 2.0, "essential": 2.0}
REFERENCE_SIDE = 1024
MIN_ITERATIONS = 100
# the end of the sentence where too few matches agree
WOULD_HELP = (
    "images that share more of the scene, a larger --threshold or --long_side, or another --model (sift where scale or "
    "turn differ much, aliked-n16+lightglue where the viewpoint does) would help"
)
LARGEST_INT = 2**31 - 1  # what OpenCV's estimators take


def estimate(
    matches: Matches,
    kind: GeometryKind = "homography",
    *,
    cameras: tuple[npt.ArrayLike, npt.ArrayLike] | None = None,
    threshold: float | None = None,
    seed: int = 0,
    max_iterations: int = 2000,
    min_iterations: int = MIN_ITERATIONS,
    confidence: float = 0.99999,
) -> TwoViewGeometry:
    """Estimates what the two images have in common, and which matches agree with it.

    LO-RANSAC with a final non-linear refinement on the inliers (poselib). The same input gives the same
    answer. Finding nothing is an ordinary result: a geometry that is false, with a matrix of zeros. A model
    that only its minimal sample agrees with (4, 7 or 5 matches) is found, but proves nothing. A plane seen
    from behind, that is a mirrored image, is not found.

    Args:
        matches: the tie points.
        kind: "homography" for planes and pure rotations, "fundamental" for scenes with depth, "essential"
            for the same with known cameras.
        cameras: (K0, K1), each (3, 3), focal lengths and principal point in pixels with the centre of the
            first pixel at (0, 0); needed for "essential" and ignored otherwise. After a pure rotation the
            translation means nothing.
        threshold: the largest error of an inlier in pixels: the distance in image 1 for a homography, the
            Sampson distance otherwise. None takes `default_threshold`.
        seed: of the random sampling.
        max_iterations: of the random sampling; it ends sooner once `confidence` is reached.
        min_iterations: of the random sampling, however soon `confidence` is reached; at most `max_iterations` count.
        confidence: the probability with which a sample without outliers has been drawn, in (0, 1).

    Returns:
        The geometry, with `rotation` and `translation` for "essential".

    Raises:
        InputError: an unknown kind, cameras that are missing or are none, or an option out of its range.
    """
    if kind not in get_args(GeometryKind):
        raise InputError(f"the geometry is {kind!r}, expected one of {', '.join(get_args(GeometryKind))}")
    threshold = default_threshold(matches, kind) if threshold is None else threshold
    check_sampling(
        threshold, seed=seed, max_iterations=max_iterations, min_iterations=min_iterations, confidence=confidence
    )
    options = {
        "max_reproj_error": threshold,
        "max_epipolar_error": threshold,
        "seed": seed,
        "max_iterations": max_iterations,
        "min_iterations": min(min_iterations, max_iterations),
        "success_prob": confidence,
    }
    calibration = check_cameras(cameras) if kind == "essential" else None
    if len(matches) < MINIMUM[kind]:
        return _nothing(matches, kind)
    if calibration:
        return _essential(matches, calibration, options)
    return _homography(matches, options) if kind == "homography" else _fundamental(matches, options)


def default_threshold(matches: Matches, kind: GeometryKind) -> float:
    """The largest error of an inlier where none is given: 3 pixels for a homography, 2 otherwise.

    Matchers look at images of about a thousand pixels and place a point to one of those. In larger images
    that is several pixels, so from a long side of 1024 pixels on the threshold grows in proportion. What
    counts is the image in which the error is measured: image 1 for a homography; the smaller one for the
    Sampson distance, whose gradient it dominates.

    Args:
        matches: the tie points, for the sizes of their images.
        kind: what is to be estimated.

    Returns:
        The threshold in pixels.
    """
    side0, side1 = max(matches.size0), max(matches.size1)
    side = side1 if kind == "homography" else min(side0, side1)
    return THRESHOLD[kind] * max(1.0, side / REFERENCE_SIDE)


def warp_points(H: npt.ArrayLike, points: npt.ArrayLike) -> Float64:
    """Maps points by a homography.

    Args:
        H: (3, 3), for example `TwoViewGeometry.matrix`, from image 0 to image 1.
        points: (..., 2), pixels (x, y).

    Returns:
        (..., 2); infinite or NaN where a point is mapped to infinity.
    """
    matrix, xy = np.asarray(H, dtype=np.float64), np.asarray(points, dtype=np.float64)
    mapped = xy @ matrix[:, :2].T + matrix[:, 2]
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.asarray(mapped[..., :2] / mapped[..., 2:])


def check_sampling(threshold: float, *, seed: int, max_iterations: int, min_iterations: int, confidence: float) -> None:
    """Checks the options of a robust estimator, which mean the same as for `estimate`.

    Raises:
        InputError: one of them is out of its range.
    """
    for name, value, expected, right in (
        ("threshold", threshold, "a positive number of pixels", 0 < threshold < math.inf),
        ("seed", seed, f"0 to {LARGEST_INT}", 0 <= seed <= LARGEST_INT),
        ("max_iterations", max_iterations, f"1 to {LARGEST_INT}", 1 <= max_iterations <= LARGEST_INT),
        ("min_iterations", min_iterations, f"0 to {LARGEST_INT}", 0 <= min_iterations <= LARGEST_INT),
        ("confidence", confidence, "a number between 0 and 1", 0 < confidence < 1),
    ):
        if not right:
            raise InputError(f"{name} is {value}, expected {expected}")


def check_cameras(cameras: tuple[npt.ArrayLike, npt.ArrayLike] | None) -> tuple[Float64, Float64]:
    """Checks the pair of cameras.

    Args:
        cameras: (K0, K1) as for `estimate`.

    Returns:
        Both as (3, 3) float64.

    Raises:
        InputError: they are missing, not two, or one of them is no calibration matrix.
    """
    if cameras is None:
        raise InputError("cameras are missing, expected (K0, K1) to estimate the essential matrix")
    if len(cameras) != 2:
        raise InputError(f"cameras holds {len(cameras)} matrices, expected two, (K0, K1)")
    return _checked(cameras[0], "K0"), _checked(cameras[1], "K1")


def _homography(matches: Matches, options: dict[str, Any]) -> TwoViewGeometry:
    matrix, report = poselib.estimate_homography(*_points(matches), options, {})
    inliers = _inliers(report, "homography")
    if inliers is None:
        return _nothing(matches, "homography")
    matrix = _unit_norm(matrix)
    # the corner is 0 where the first pixel is mapped to infinity
    corner = matrix[2, 2]
    return TwoViewGeometry("homography", matrix / corner if abs(corner) > 1e-12 else matrix, inliers)


def _fundamental(matches: Matches, options: dict[str, Any]) -> TwoViewGeometry:
    matrix, report = poselib.estimate_fundamental(*_points(matches), options, {})
    inliers = _inliers(report, "fundamental")
    if inliers is None:
        return _nothing(matches, "fundamental")
    return TwoViewGeometry("fundamental", _unit_norm(matrix), inliers)


def _essential(matches: Matches, calibration: tuple[Float64, Float64], options: dict[str, Any]) -> TwoViewGeometry:
    points = [_without_skew(xy, K) for xy, K in zip(_points(matches), calibration, strict=True)]
    sizes = (matches.size0, matches.size1)
    pinholes = [_pinhole(K, size) for K, size in zip(calibration, sizes, strict=True)]
    pose, report = poselib.estimate_relative_pose(*points, *pinholes, options, {})
    inliers = _inliers(report, "essential")
    if inliers is None:
        return _nothing(matches, "essential")
    rotation, translation = np.array(pose.R, dtype=np.float64), _unit_norm(pose.t)
    matrix = _unit_norm(_cross(translation) @ rotation)
    return TwoViewGeometry("essential", matrix, inliers, rotation=rotation, translation=translation)


def _nothing(matches: Matches, kind: GeometryKind) -> TwoViewGeometry:
    return TwoViewGeometry(kind, np.zeros((3, 3)), np.zeros(len(matches), dtype=np.bool_))


def _inliers(report: Mapping[str, Any], kind: GeometryKind) -> Bool | None:
    """The matches that agree, or None where poselib found no model (its matrix then holds anything)."""
    inliers = np.array(report["inliers"], dtype=np.bool_)
    return inliers if inliers.sum() >= MINIMUM[kind] else None


def _points(matches: Matches) -> tuple[Float64, Float64]:
    return matches.keypoints0.astype(np.float64), matches.keypoints1.astype(np.float64)


def _unit_norm(array: npt.ArrayLike) -> Float64:
    values = np.array(array, dtype=np.float64)
    return np.asarray(values / np.linalg.norm(values))


def _cross(t: Float64) -> Float64:
    """[t]x, (3, 3): the matrix whose product with v is the cross product of t and v."""
    return np.array([[0, -t[2], t[1]], [t[2], 0, -t[0]], [-t[1], t[0], 0]])


def _checked(camera: npt.ArrayLike, name: str) -> Float64:
    """A calibration matrix, (3, 3): [[fx, skew, cx], [0, fy, cy], [0, 0, 1]].

    Raises:
        InputError: it is none.
    """
    try:
        K = np.array(camera, dtype=np.float64)
    except (TypeError, ValueError) as error:
        raise InputError(f"cameras: {name} is not a matrix of numbers") from error
    if K.shape != (3, 3):
        raise InputError(f"cameras: {name} has shape {K.shape}, expected (3, 3)")
    if not np.isfinite(K).all():
        raise InputError(f"cameras: {name} holds values that are not finite")
    if not np.allclose([K[1, 0], *K[2]], [0, 0, 0, 1]):
        raise InputError(f"cameras: {name} is {K.tolist()}, expected [[fx, skew, cx], [0, fy, cy], [0, 0, 1]]")
    if K[0, 0] <= 0 or K[1, 1] <= 0:
        raise InputError(f"cameras: {name} has focal lengths {K[0, 0]:g} and {K[1, 1]:g}, expected positive ones")
    return K


def _pinhole(K: Float64, size: tuple[int, int]) -> dict[str, Any]:
    """Poselib's camera; it subtracts the principal point as given, so pixel centres stay where they are."""
    parameters = [K[0, 0], K[1, 1], K[0, 2], K[1, 2]]
    return {"model": "PINHOLE", "width": size[1], "height": size[0], "params": parameters}


def _without_skew(points: Float64, K: Float64) -> Float64:
    """Moves points to where a camera without skew sees them, which is all that PINHOLE can express."""
    x = points[:, 0] - K[0, 1] / K[1, 1] * (points[:, 1] - K[1, 2])
    return np.stack([x, points[:, 1]], axis=1)
