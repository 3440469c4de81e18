"""Errors of estimated geometries, of matches and of keypoints under the true geometry, and the figures made of them.

Where implementations in the field differ, the docstring says how, and which way is taken here.
"""

from collections.abc import Sequence

import numpy as np

from tiepoint.geometry import warp_points
from tiepoint.types import Bool, Float64


def homography_corner_error(H: Float64 | None, H_true: Float64, size: tuple[int, int]) -> float:
    """Mean distance between the four corners of image 0 under the estimated and under the true homography.

    The corners are the centres of the corner pixels, as in SuperPoint (DeTone et al., CVPRW 2018) and LoFTR
    (Sun et al., CVPR 2021). glue-factory takes the corners of the image's area, half a pixel further out, in a frame
    whose first pixel's corner is at (0, 0). LoFTR measures in images resized to a short side of 480, others in the
    images as stored, whose pixels are smaller. On HPatches some take all 116 sequences (580 pairs), most the 108 of
    D2-Net's list (540 pairs).

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
        error = np.linalg.norm(warp_points(H, corners) - warp_points(H_true, corners), axis=1).mean()
    return float(error) if np.isfinite(error) else float("inf")


def pose_error(R: Float64 | None, t: Float64 | None, T_true: Float64) -> float:
    """The larger of the rotation angle and the translation angle between an estimated and a true pose.

    The translation counts without its sign (at most 90 degrees), as in the protocol of SuperGlue (Sarlin et
    al., CVPR 2020) and LoFTR (Sun et al., CVPR 2021). Where the true cameras share one centre, only the rotation
    counts; their code divides by zero there.

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


def reprojection_errors(H_0to1: Float64, points0: Float64, points1: Float64) -> Float64:
    """Distance in image 1 between a keypoint's match and its true place.

    As in D2-Net (Dusmanu et al., CVPR 2019) and SuperGlue (Sarlin et al., CVPR 2020), which call a match right up to
    3 px. glue-factory takes the mean of the distances in both images, which counts zoomed pairs otherwise.

    Args:
        H_0to1: (3, 3) true homography, pixels of image 0 to image 1.
        points0: (N, 2) pixels of image 0.
        points1: (N, 2) pixels of image 1.

    Returns:
        (N,) pixels; infinite where the true place is at infinity.
    """
    with np.errstate(divide="ignore", invalid="ignore"):
        errors = np.linalg.norm(warp_points(H_0to1, points0) - points1, axis=1)
    return np.where(np.isfinite(errors), errors, np.inf)


def epipolar_errors(
    points0: Float64, points1: Float64, *, cameras: tuple[Float64, Float64], T_0to1: Float64
) -> Float64:
    """Squared symmetric epipolar distance under the true pose, in normalised coordinates.

    d = (x1^T E x0)^2 (1 / |(E x0)_12|^2 + 1 / |(E^T x1)_12|^2) with x = K^-1 p: Hartley and Zisserman, "Multiple
    View Geometry", equation 11.10. In SuperGlue (Sarlin et al., CVPR 2020) a match is right below 5e-4, in LoFTR
    (Sun et al., CVPR 2021) below 5e-4 on ScanNet and 1e-4 on MegaDepth. It is a sum of squares: at a focal length of
    500 px, 5e-4 stand for 8 px in each image. glue-factory holds the mean distance, not squared, to the same numbers,
    which is far stricter; the Sampson distance is another choice, about half the plain one.

    Args:
        points0: (N, 2) pixels of image 0.
        points1: (N, 2) pixels of image 1.
        cameras: (K0, K1), (3, 3) each, for those pixels.
        T_0to1: (4, 4) true camera-0 to camera-1 transformation.

    Returns:
        (N,) without unit; infinite where it is undefined, as after a pure rotation.
    """
    rays0, rays1 = (
        np.linalg.solve(K, _homogeneous(points).T).T for points, K in zip((points0, points1), cameras, strict=True)
    )
    lines1 = np.cross(T_0to1[:3, 3], rays0 @ T_0to1[:3, :3].T)
    lines0 = np.cross(rays1, T_0to1[:3, 3]) @ T_0to1[:3, :3]
    residual = (rays1 * lines1).sum(axis=1)
    with np.errstate(divide="ignore", invalid="ignore"):
        errors = residual**2 * (1 / (lines0[:, :2] ** 2).sum(axis=1) + 1 / (lines1[:, :2] ** 2).sum(axis=1))
    return np.where(np.isfinite(errors), errors, np.inf)


def share_within(errors: Float64, limits: Sequence[float]) -> Float64:
    """Share of the errors that are at most each limit.

    - Over the matches of a pair, at 1 to 10 px: the mean matching accuracy of D2-Net (Dusmanu et al., CVPR 2019),
      which is averaged over the pairs; a pair without matches counts as 0. It rewards few but safe matches: read it
      beside their number. Some take all the matches of all pairs as one set, which favours pairs with many.
    - Over the corner errors of pairs: the mean homography accuracy of SuperPoint (DeTone et al., CVPRW 2018), there at
      1, 3 and 5 px.

    Args:
        errors: (..., N), infinite (or not a number) where the method failed.
        limits: L limits in the unit of the errors.

    Returns:
        (..., L) in [0, 1]; 0 where N is 0.
    """
    hits = np.asarray(errors)[..., None] <= np.asarray(limits, dtype=np.float64)
    shares: Float64 = hits.sum(axis=-2) / max(hits.shape[-2], 1)
    return shares


def repeatability(
    keypoints0: Float64,
    keypoints1: Float64,
    *,
    H_0to1: Float64,
    sizes: tuple[tuple[int, int], tuple[int, int]],
    radius: float = 3.0,
) -> float:
    """Share of the keypoints that both images show and the detector found in both.

    (n0 + n1) / (N0 + N1), after SuperPoint (DeTone et al., CVPRW 2018): N0 keypoints of image 0 have their true place
    inside image 1, and n0 of these have a keypoint of image 1 within the radius; likewise the other way, in image 0
    (SuperPoint's code measures both ways in one image). More keypoints always look better. Mikolajczyk et al. ("A
    comparison of affine region detectors", IJCV 2005) pair regions one to one by their overlap and divide by the
    smaller number; others average n0 / N0 and n1 / N1.

    Args:
        keypoints0: (M0, 2), all keypoints of image 0, pixels.
        keypoints1: (M1, 2), all keypoints of image 1, pixels.
        H_0to1: (3, 3) true homography, pixels of image 0 to image 1.
        sizes: (height, width) of both images.
        radius: pixels.

    Returns:
        In [0, 1]; NaN where no keypoint is seen by both images.
    """
    with np.errstate(divide="ignore", invalid="ignore"):
        seen0 = _inside(warp_points(H_0to1, keypoints0), sizes[1])
        seen1 = _inside(warp_points(np.linalg.inv(H_0to1), keypoints1), sizes[0])
    found = _near(seen0, keypoints1, radius).sum() + _near(seen1, keypoints0, radius).sum()
    total = len(seen0) + len(seen1)
    return float(found / total) if total else float("nan")


def auc(errors: Float64, thresholds: Sequence[float]) -> Float64:
    """Area under the recall curve up to each threshold, divided by the threshold.

    SuperGlue's definition (`pose_auc` in magicleap/SuperGluePretrainedNetwork): the curve joins (0, 0) and
    the points (e_i, i / N) of the sorted errors by straight lines and stays level from the last error below
    the threshold t. Summing those trapezoids gives, with e_max the largest error below t,
    AUC = (sum_i max(t - e_i, 0) + e_max / 2) / (N t), which needs no sorting. LoFTR, glue-factory and XFeat compute
    the same. The recall is a staircase, whose exact integral has no term e_max / 2: the trapezoids lie up to 1 / (2 N)
    above it. "mAA" is another figure: the mean of the recall at 1, 2, ... 10 degrees (Jin et al., "Image matching
    across wide baselines", IJCV 2021), in glue-factory the mean of its AUCs.

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


def _auc_below(errors: Float64, limit: float) -> Float64:
    # NaN compares false: a failed pair never counts as below the limit
    below = np.where(errors < limit, errors, limit)
    largest = np.where(errors < limit, errors, 0.0).max(axis=-1)
    area: Float64 = ((limit - below).sum(axis=-1) + largest / 2.0) / (errors.shape[-1] * limit)
    return area


def _homogeneous(points: Float64) -> Float64:
    return np.concatenate([points, np.ones((len(points), 1))], axis=1)


def _inside(points: Float64, size: tuple[int, int]) -> Float64:
    """Those of the points that lie on a pixel of the image."""
    height, width = size
    within = (points >= -0.5).all(axis=1) & (points[:, 0] < width - 0.5) & (points[:, 1] < height - 0.5)
    inside: Float64 = points[within]
    return inside


def _near(points: Float64, others: Float64, radius: float) -> Bool:
    """(N,), whether one of the other points is within the radius.

    Compared are the others in the cells around a point's own, not all with all: cells have the radius as their side,
    and are numbered so that three neighbours of one row are three numbers in a row.
    """
    cells, other_cells = np.floor(points / radius).astype(np.int64), np.floor(others / radius).astype(np.int64)
    width = np.ptp(np.concatenate([cells, other_cells])[:, 0]) + 3 if len(points) and len(others) else 3
    numbers = other_cells @ (1, width)
    order = np.argsort(numbers)
    middles = (cells @ (1, width))[:, None] + width * np.array([-1, 0, 1])
    first = np.searchsorted(numbers[order], middles.ravel() - 1, side="left")
    counts = np.searchsorted(numbers[order], middles.ravel() + 1, side="right") - first
    row = np.repeat(np.arange(middles.size), counts)
    # within its row of three cells, the candidates are numbered from 0
    place = np.arange(len(row)) - np.repeat(np.cumsum(counts) - counts, counts)
    point, other = row // 3, order[first[row] + place]
    close = ((points[point] - others[other]) ** 2).sum(axis=1) <= radius**2
    return np.bincount(point[close], minlength=len(points)) > 0
