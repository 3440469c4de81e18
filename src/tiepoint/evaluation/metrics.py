"""Errors of estimated geometries, the AUC that sums them up, and how sure a difference of AUCs is."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from tiepoint.types import Float64


def homography_corner_error(H: Float64 | None, H_true: Float64, size: tuple[int, int]) -> float:
    """Mean distance between the four corners of image 0 under the estimated and under the true homography.

    The corners are the centres of the corner pixels, as in SuperPoint (DeTone et al., CVPRW 2018) and LoFTR
    (Sun et al., CVPR 2021).

    Args:
        H: (3, 3), estimated, pixels of image 0 to image 1; None or all zeros where no model was found.
        H_true: (3, 3), the truth.
        size: (height, width) of image 0 in pixels.

    Returns:
        Pixels of image 1; infinite where no model was found or a corner goes to infinity.
    """
    if H is None or not H.any():
        return float("inf")
    height, width = size
    corners = np.array([[0, 0], [width - 1, 0], [0, height - 1], [width - 1, height - 1]], dtype=np.float64)
    with np.errstate(divide="ignore", invalid="ignore"):
        error = np.linalg.norm(_warp(H, corners) - _warp(H_true, corners), axis=1).mean()
    return float(error) if np.isfinite(error) else float("inf")


def pose_error(R: Float64 | None, t: Float64 | None, T_true: Float64) -> float:
    """The larger of the rotation angle and the translation angle between an estimated and a true pose.

    The translation counts without its sign (at most 90 degrees), as in the protocol of SuperGlue (Sarlin et
    al., CVPR 2020) and LoFTR (Sun et al., CVPR 2021). Where the true cameras share
    one centre, only the rotation counts.

    Args:
        R: (3, 3), estimated rotation of camera-0 to camera-1 coordinates; None where no model was found.
        t: (3,), estimated translation of any length; None where no model was found.
        T_true: (4, 4), true camera-0 to camera-1 transformation.

    Returns:
        Degrees in [0, 180]; infinite where no model was found.
    """
    if R is None or t is None:
        return float("inf")
    return max(rotation_angle(R, T_true[:3, :3]), translation_angle(t, T_true[:3, 3]))


def rotation_angle(R: Float64, R_true: Float64) -> float:
    """Angle of the rotation that takes one rotation to the other.

    ||R - R_true||_F = 2 sqrt(2) sin(angle / 2) (Hartley et al., "Rotation averaging", IJCV 2013),
    which unlike the arc cosine of the trace keeps its digits at small angles.

    Args:
        R: (3, 3) rotation.
        R_true: (3, 3) rotation.

    Returns:
        Degrees in [0, 180].
    """
    sine = np.linalg.norm(R - R_true) / np.sqrt(8.0)
    return float(np.rad2deg(2.0 * np.arcsin(min(sine, 1.0))))


def translation_angle(t: Float64, t_true: Float64) -> float:
    """Angle between two directions whose sign and length do not count.

    Args:
        t: (3,) translation.
        t_true: (3,) translation.

    Returns:
        Degrees in [0, 90]; zero where the true translation is zero and has no direction.
    """
    if not t_true.any():
        return 0.0
    if not t.any():
        return 90.0
    return float(np.rad2deg(np.arctan2(np.linalg.norm(np.cross(t, t_true)), abs(t @ t_true))))


def symmetric_epipolar_distance(F: Float64, points0: Float64, points1: Float64) -> Float64:
    """Mean of the distances of each point to the epipolar line of its partner, in both images.

    (d(x1, F x0) + d(x0, F^T x1)) / 2, after Hartley and Zisserman, "Multiple View Geometry", equation 11.10,
    with plain instead of squared distances so that the unit is the pixel.

    Args:
        F: (3, 3) fundamental matrix, x1^T F x0 = 0; all zeros where no model was found.
        points0: (N, 2) pixels of image 0.
        points1: (N, 2) pixels of image 1.

    Returns:
        (N,) pixels; infinite where no model was found or a line is undefined.
    """
    x0, x1 = _homogeneous(points0), _homogeneous(points1)
    lines1, lines0 = x0 @ F.T, x1 @ F
    residual = np.abs((x1 * lines1).sum(axis=1))
    with np.errstate(divide="ignore", invalid="ignore"):
        inverse_norms = 1.0 / np.hypot(*lines0.T[:2]) + 1.0 / np.hypot(*lines1.T[:2])
        distance = residual * inverse_norms / 2.0
    return np.where(np.isfinite(distance), distance, np.inf)


def auc(errors: Float64, thresholds: Sequence[float]) -> Float64:
    """Area under the recall curve up to each threshold, divided by the threshold.

    SuperGlue's definition (`pose_auc` in magicleap/SuperGluePretrainedNetwork): the curve joins (0, 0) and
    the points (e_i, i / N) of the sorted errors by straight lines and stays level from the last error below
    the threshold t. Summing those trapezoids gives, with e_max the largest error below t,
    AUC = (sum_i max(t - e_i, 0) + e_max / 2) / (N t), which needs no sorting.

    Args:
        errors: (..., N) errors, not negative; infinite (or not a number) where the method failed.
        thresholds: T positive thresholds in the unit of the errors.

    Returns:
        (..., T) areas in [0, 1].

    Raises:
        ValueError: there are no errors or a threshold is not positive.
    """
    errors, limits = np.asarray(errors, dtype=np.float64), np.asarray(thresholds, dtype=np.float64)
    if errors.shape[-1] == 0 or not (limits > 0).all():
        raise ValueError(f"auc needs at least one error and positive thresholds, got {errors.shape} and {thresholds}")
    return np.stack([_auc_below(errors, float(limit)) for limit in limits], axis=-1)


class PairedDifference(NamedTuple):
    """A difference of two AUCs over the same pairs.

    Attributes:
        difference: AUC of a minus AUC of b, in [-1, 1]; positive where a is better.
        standard_error: standard deviation of the difference over the bootstrap samples.
        low: 2.5th percentile of the bootstrap samples.
        high: 97.5th percentile of the bootstrap samples.
    """

    difference: float
    standard_error: float
    low: float
    high: float


def paired_bootstrap(
    errors_a: Float64, errors_b: Float64, threshold: float, *, samples: int = 2000, seed: int = 0
) -> PairedDifference:
    """How sure the difference of two methods' AUC is, when both were measured on the same pairs.

    The pairs are drawn with replacement, the same for both methods, so that what is hard for both cancels
    (Efron and Tibshirani, "An Introduction to the Bootstrap", 1993, chapters 6 and 13: percentile interval).

    Args:
        errors_a: (N,) errors of method a.
        errors_b: (N,) errors of method b on the same pairs in the same order.
        threshold: of the AUC, in the unit of the errors.
        samples: number of bootstrap samples.
        seed: of the draw.

    Returns:
        The difference a - b with its standard error and 95 % interval.

    Raises:
        ValueError: the two methods do not have the same number of errors, or none.
    """
    if errors_a.shape != errors_b.shape or errors_a.ndim != 1:
        raise ValueError(f"paired errors must have one shape (N,), got {errors_a.shape} and {errors_b.shape}")
    difference = auc(errors_a, [threshold]) - auc(errors_b, [threshold])
    draws = np.random.default_rng(seed).integers(len(errors_a), size=(samples, len(errors_a)))
    sampled = auc(errors_a[draws], [threshold])[:, 0] - auc(errors_b[draws], [threshold])[:, 0]
    low, high = np.percentile(sampled, [2.5, 97.5])
    return PairedDifference(float(difference[0]), float(sampled.std(ddof=1)), float(low), float(high))


def _auc_below(errors: Float64, limit: float) -> Float64:
    # NaN compares false: a failed pair never counts as below the limit
    below = np.where(errors < limit, errors, limit)
    largest = np.where(errors < limit, errors, 0.0).max(axis=-1)
    area: Float64 = ((limit - below).sum(axis=-1) + largest / 2.0) / (errors.shape[-1] * limit)
    return area


def _homogeneous(points: Float64) -> Float64:
    return np.concatenate([points, np.ones((len(points), 1))], axis=1)


def _warp(H: Float64, points: Float64) -> Float64:
    warped: Float64 = _homogeneous(points) @ H.T
    return warped[:, :2] / warped[:, 2:]
