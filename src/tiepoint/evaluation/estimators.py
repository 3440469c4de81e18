"""Robust estimators side by side: poselib's LO-RANSAC, OpenCV's RANSAC and OpenCV's MAGSAC++."""

from typing import Any, Literal, NamedTuple, get_args

import cv2
import numpy as np
import numpy.typing as npt

from tiepoint.errors import InputError
from tiepoint.geometry import MIN_ITERATIONS, MINIMUM, check_cameras, check_sampling, estimate
from tiepoint.types import Bool, Float32, Float64, GeometryKind, Matches, TwoViewGeometry

EstimatorName = Literal["poselib", "opencv-ransac", "opencv-magsac"]
Points = tuple[Float64, Float64]
Cameras = tuple[Float64, Float64]

FLAT = 1e-3  # px: points this close to one line are on it; float32 rounds large coordinates to a tenth of that
FAR = 1e9  # in baselines: points at any distance count when the pose is chosen


def estimate_with(
    name: EstimatorName,
    matches: Matches,
    kind: GeometryKind,
    *,
    threshold: float,
    cameras: tuple[npt.ArrayLike, npt.ArrayLike] | None = None,
    seed: int = 0,
    max_iterations: int = 2000,
    min_iterations: int = MIN_ITERATIONS,
    confidence: float = 0.99999,
) -> TwoViewGeometry:
    """Estimates what two images have in common by the estimator of that name.

    - "poselib": `tiepoint.estimate`, LO-RANSAC (Lebeda et al., BMVC 2012) with a final refinement.
    - "opencv-ransac": `cv2.findHomography`, `findFundamentalMat` and `findEssentialMat` by RANSAC (Fischler and
      Bolles, CACM 1981), as most papers measure. Its samples come from a fixed sequence: seed 0 takes the matches
      as they come, another seed shuffles them first.
    - "opencv-magsac": the same functions by USAC_MAGSAC (Barath et al., MAGSAC++, CVPR 2020).

    They mean different errors by `threshold`: for a homography all take the distance in image 1; for epipolar
    geometry poselib and MAGSAC take the Sampson distance, RANSAC the larger distance to the epipolar lines for a
    fundamental matrix and Sampson's for an essential one. In both of OpenCV's the threshold of an essential matrix
    is divided by the mean of the four focal lengths (SuperGlue and LoFTR take that of fx of camera 0 and fy of
    camera 1, twice each).

    Matches that all lie on one line of an image determine nothing and give no model, whichever the estimator. Nor do
    matches of which too few differ, but to poselib equal matches are several.

    Args:
        name: of the estimator.
        matches: the tie points.
        kind: "homography", "fundamental" or "essential"; the last also gives the pose, of the four that the matrix
            allows the one with most points in front of both cameras (Hartley and Zisserman, section 9.6.3).
        threshold: the largest error of an inlier in pixels.
        cameras: (K0, K1), each (3, 3), in pixels; needed for "essential".
        seed: of the random sampling, below 2^31.
        max_iterations: of the random sampling, below 2^31.
        min_iterations: of poselib's; the others have none.
        confidence: the probability with which a sample without outliers has been drawn, in (0, 1).

    Returns:
        The geometry; for "essential" OpenCV's inliers are also in front of both cameras.

    Raises:
        InputError: an unknown estimator or kind, cameras that are missing or are none, or an option out of its range.
    """
    if name not in get_args(EstimatorName):
        raise InputError(f"the estimator is {name!r}, expected one of {', '.join(get_args(EstimatorName))}")
    if kind not in get_args(GeometryKind):
        raise InputError(f"the geometry is {kind!r}, expected one of {', '.join(get_args(GeometryKind))}")
    sampling = _Sampling(threshold, seed, max_iterations, confidence)
    check_sampling(**sampling._asdict(), min_iterations=min_iterations)
    calibration = check_cameras(cameras) if kind == "essential" else None
    if len(matches) < MINIMUM[kind] or _on_a_line(matches.keypoints0) or _on_a_line(matches.keypoints1):
        return _geometry(None, np.zeros(len(matches), dtype=np.bool_), kind)
    if name == "poselib":
        return estimate(matches, kind, cameras=calibration, min_iterations=min_iterations, **sampling._asdict())
    if _count_distinct(matches, MINIMUM[kind]) < MINIMUM[kind]:
        return _geometry(None, np.zeros(len(matches), dtype=np.bool_), kind)
    robust = _ransac if name == "opencv-ransac" else _magsac
    points = matches.keypoints0.astype(np.float64), matches.keypoints1.astype(np.float64)
    if calibration is not None:
        return _essential(robust(points, kind, calibration, sampling), _normalised(points, calibration))
    return _geometry(*robust(points, kind, calibration, sampling), kind)


class _Sampling(NamedTuple):
    threshold: float
    seed: int
    max_iterations: int
    confidence: float


Found = tuple[Float64 | None, Bool]  # a matrix, or several one below the other, and the inliers


def _ransac(points: Points, kind: GeometryKind, cameras: Cameras | None, sampling: _Sampling) -> Found:
    count = len(points[0])
    # OpenCV's own sequence of samples cannot be seeded, but what they meet can be shuffled
    order = np.random.default_rng(sampling.seed).permutation(count) if sampling.seed else np.arange(count)
    points0, points1 = points[0][order], points[1][order]
    threshold, _, most, confidence = sampling
    if cameras is not None:
        rays0, rays1 = _normalised((points0, points1), cameras)
        focal = float(np.mean([camera[axis, axis] for camera in cameras for axis in (0, 1)]))
        matrix, mask = cv2.findEssentialMat(rays0, rays1, np.eye(3), cv2.RANSAC, confidence, threshold / focal, most)
    elif kind == "homography":
        matrix, mask = cv2.findHomography(points0, points1, cv2.RANSAC, threshold, None, most, confidence)
    else:
        matrix, mask = cv2.findFundamentalMat(points0, points1, cv2.FM_RANSAC, threshold, confidence, most)
    shuffled, inliers = _found(matrix, mask, count), np.zeros(count, dtype=np.bool_)
    inliers[order] = shuffled[1]
    return shuffled[0], inliers


def _magsac(points: Points, kind: GeometryKind, cameras: Cameras | None, sampling: _Sampling) -> Found:
    params = _magsac_params(kind, sampling)
    if cameras is not None:
        # pixels and cameras, not rays: MAGSAC bounds its scales of noise in pixels
        found = cv2.findEssentialMat(*points, *cameras, None, None, params)
    elif kind == "homography":
        found = cv2.findHomography(*points, params)
    else:
        found = cv2.findFundamentalMat(*points, params)
    return _found(*found, len(points[0]))


def _magsac_params(kind: GeometryKind, sampling: _Sampling) -> Any:
    """What the flag USAC_MAGSAC stands for, and a seed, which the flag leaves at 0."""
    params = cv2.UsacParams()
    params.threshold, params.randomGeneratorState, params.maxIterations, params.confidence = sampling
    params.sampler, params.score = cv2.SAMPLING_UNIFORM, cv2.SCORE_METHOD_MAGSAC
    params.loMethod, params.final_polisher = cv2.LOCAL_OPTIM_SIGMA, cv2.MAGSAC
    params.loSampleSize, params.loIterations = (75, 15) if kind == "homography" else (50, 10)
    return params


def _found(matrix: Any, mask: Any, count: int) -> Found:
    """OpenCV's answer; where it finds nothing, one or both of the two are None."""
    if matrix is None or mask is None or not np.isfinite(matrix).all():
        return None, np.zeros(count, dtype=np.bool_)
    return np.asarray(matrix, dtype=np.float64), np.asarray(mask).reshape(-1) > 0


def _geometry(matrix: Float64 | None, inliers: Bool, kind: GeometryKind) -> TwoViewGeometry:
    if matrix is None or inliers.sum() < MINIMUM[kind]:
        return TwoViewGeometry(kind, np.zeros((3, 3)), np.zeros(len(inliers), dtype=np.bool_))
    # seven matches allow up to three fundamental matrices, which all of them agree with
    matrix = matrix[:3] / np.linalg.norm(matrix[:3])
    if kind == "homography" and abs(matrix[2, 2]) > 1e-12:
        matrix = matrix / matrix[2, 2]
    return TwoViewGeometry(kind, matrix, inliers)


def _essential(found: Found, rays: Points) -> TwoViewGeometry:
    matrices, inliers = found
    if matrices is None:
        return _geometry(None, inliers, "essential")
    # five matches allow up to ten essential matrices
    poses = [_pose(matrix, rays, inliers) for matrix in matrices.reshape(-1, 3, 3)]
    matrix, rotation, translation, inliers = max(poses, key=lambda pose: int(pose[3].sum()))
    if inliers.sum() < MINIMUM["essential"]:
        return _geometry(None, inliers, "essential")
    matrix = matrix / np.linalg.norm(matrix)
    return TwoViewGeometry("essential", matrix, inliers, rotation=rotation, translation=translation)


def _pose(matrix: Float64, rays: Points, inliers: Bool) -> tuple[Float64, Float64, Float64, Bool]:
    """The matrix, its rotation (3, 3), its unit translation (3,), and which inliers lie in front of both cameras."""
    # by its name: a bare 1e9 in this place, as many scripts have it, is taken for R, and OpenCV's limit of 50
    # baselines stays, beyond which no point counts
    _, rotation, translation, mask, _ = cv2.recoverPose(
        matrix, *rays, np.eye(3), distanceThresh=FAR, mask=inliers.astype(np.uint8)[:, None]
    )
    return matrix, rotation, translation[:, 0] / np.linalg.norm(translation), np.asarray(mask).reshape(-1) > 0


def _normalised(points: Points, cameras: Cameras) -> Points:
    """Pixels as rays: (N, 2) at depth 1."""
    rays0, rays1 = (
        np.linalg.solve(camera, np.concatenate([xy, np.ones((len(xy), 1))], axis=1).T).T[:, :2]
        for xy, camera in zip(points, cameras, strict=True)
    )
    return np.ascontiguousarray(rays0), np.ascontiguousarray(rays1)


def _on_a_line(points: Float32) -> bool:
    """Whether all (N, 2) points lie on one line, or on one place."""
    centred = points - points.mean(axis=0, dtype=np.float64)
    distance = np.linalg.svd(centred, compute_uv=False)[-1] / np.sqrt(len(points))
    return bool(distance < FLAT)


def _count_distinct(matches: Matches, enough: int) -> int:
    """How many matches differ; where `enough` do, possibly fewer than there are."""
    rows = np.concatenate([matches.keypoints0, matches.keypoints1], axis=1)
    # the first few mostly settle it, and comparing all takes longer than many an estimate
    some = len(np.unique(rows[:64], axis=0))
    return some if some >= enough else len(np.unique(rows, axis=0))
