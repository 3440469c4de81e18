"""Camera motion from matches: the relative pose, how sure it is, the points, and what the scene does not tell."""

from dataclasses import dataclass
from typing import Literal, NamedTuple

import cv2
import numpy as np
import numpy.typing as npt

from tiepoint.errors import WorkError
from tiepoint.geometry import WOULD_HELP, check_cameras, estimate, warp_points
from tiepoint.types import Bool, Float64, Matches, TwoViewGeometry

Scene = Literal["general", "plane", "rotation", "plane or rotation"]

LEAST = 30  # inliers: two dozen of the matches of unrelated photographs agree with some epipolar geometry
DOUBTFUL = (
    0.25  # share of the matches: all wrong poses of public pairs but a few had fewer inliers, all right ones more
)
OVERFIT = 1.25  # the best of thousands of samples fits its own noise, which looks a fifth smaller than it is
MIN_PARALLAX = 0.2  # degrees between two rays, below which their crossing says nothing about the depth
STEP = 1e-6  # of the numerical derivatives, radians


class Points(NamedTuple):
    """What was triangulated.

    Attributes:
        indices: (M,) int, which match.
        xyz: (M, 3) float64, in camera 0; the distance of the cameras is 1.
        error: (M,) pixels, root mean square of the reprojection errors in both images.
        parallax: (M,) degrees between the two rays.
    """

    indices: npt.NDArray[np.intp]
    xyz: Float64
    error: Float64
    parallax: Float64


@dataclass(frozen=True, slots=True, eq=False)
class RelativePose:
    """How the camera moved between two images.

    Attributes:
        geometry: "essential" with rotation and translation, or "fundamental" where the cameras are not known.
        fundamental: (3, 3), of unit norm, for either.
        scene: "general", or what makes the motion uncertain: all matches agree with one "plane", or with a pure
            "rotation", of which the translation means nothing; without cameras the two cannot be told apart.
        gric: Torr's criterion of "epipolar" geometry and of "homography", with cameras of "rotation" too; the lowest
            explains the matches best.
        rotation_sigma: degrees, standard deviation of the rotation (all three axes together); None without cameras.
        translation_sigma: degrees, standard deviation of the direction; None without cameras and after a rotation.
        points: what was triangulated; None without cameras and after a pure rotation.
        doubtful: so small a share of the matches agrees that they may do so by chance.
    """

    geometry: TwoViewGeometry
    fundamental: Float64
    scene: Scene
    gric: dict[str, float]
    rotation_sigma: float | None
    translation_sigma: float | None
    points: Points | None
    doubtful: bool


def relative_pose(
    matches: Matches,
    cameras: tuple[npt.ArrayLike, npt.ArrayLike] | None = None,
    *,
    threshold: float | None = None,
) -> RelativePose:
    """Finds how the camera moved, how sure that is, and what the matches cannot tell.

    Whether the epipolar geometry or a homography explains the matches is decided by Torr's GRIC ("Geometric motion
    segmentation and model selection", Phil. Trans. R. Soc. A, 1998): sum_i min(e_i^2 / s^2, 2 (4 - d)) + n d log 4 +
    k log(4 n), with e_i the Sampson distance in both images, s its standard deviation under the epipolar geometry, d
    the dimension of the model (3, 2 for homographies) and k its parameters (7 or 5, 8, and 3 for K1 R K0^-1), over all
    matches that agree with any of them.

    The uncertainty is the covariance s^2 (J^T J)^-1 of the Sampson errors' Jacobian J by rotation and direction at the
    optimum (Hartley and Zisserman, section 5.2): what noise in the matches alone does. Wrong cameras add to it.

    Args:
        matches: the tie points.
        cameras: (K0, K1), each (3, 3), pixels; None for a fundamental matrix.
        threshold: largest Sampson distance of an inlier, pixels; None as in `estimate`.

    Returns:
        The motion.

    Raises:
        InputError: the cameras are none.
        WorkError: too few matches agree.
    """
    calibration = None if cameras is None else check_cameras(cameras)
    kind = "fundamental" if calibration is None else "essential"
    found = estimate(
        matches, "fundamental" if calibration is None else "essential", cameras=cameras, threshold=threshold
    )
    if found.inliers.sum() < LEAST:
        raise WorkError(
            f"{int(found.inliers.sum())} of {len(matches)} matches agree with one {kind} geometry, expected {LEAST} or "
            f"more; {WOULD_HELP}"
        )
    F = found.matrix if calibration is None else _fundamental(found.matrix, calibration)
    scene, gric = _scene(matches, found, F, calibration, threshold)
    doubtful = bool(found.inliers.mean() < DOUBTFUL)
    if calibration is None or found.rotation is None or found.translation is None:
        return RelativePose(found, F, scene, gric, None, None, None, doubtful)
    pose = found.rotation, found.translation
    sigmas = _uncertainty(matches, found.inliers, pose, calibration)
    if scene == "rotation":
        return RelativePose(found, F, scene, gric, sigmas[0], None, None, doubtful)
    points = _triangulate(matches, found.inliers, pose, calibration)
    return RelativePose(found, F, scene, gric, *sigmas, points, doubtful)


def sampson_distances(F: Float64, points0: Float64, points1: Float64) -> Float64:
    """First-order distance of matches to the nearest exact ones, with its sign (Hartley and Zisserman, eq. 11.9).

    Args:
        F: (3, 3).
        points0: (N, 2) pixels.
        points1: (N, 2) pixels.

    Returns:
        (N,) pixels.
    """
    x0, x1 = _homogeneous(points0), _homogeneous(points1)
    lines1, lines0 = x0 @ F.T, x1 @ F
    length = np.sqrt((lines1[:, :2] ** 2).sum(1) + (lines0[:, :2] ** 2).sum(1))
    distances: Float64 = (x1 * lines1).sum(1) / np.maximum(length, 1e-300)
    return distances


Cameras = tuple[Float64, Float64]
Pose = tuple[Float64, Float64]  # rotation (3, 3), translation (3,)


def _scene(
    matches: Matches, found: TwoViewGeometry, F: Float64, cameras: Cameras | None, threshold: float | None
) -> tuple[Scene, dict[str, float]]:
    """Which model explains the matches."""
    homography = estimate(matches, "homography", threshold=threshold)
    either = found.inliers | homography.inliers
    x0, x1 = (each[either].astype(np.float64) for each in (matches.keypoints0, matches.keypoints1))
    epipolar = sampson_distances(F, x0, x1) ** 2
    # of one coordinate, the median square is 0.455 variances; keypoints are never better than a tenth of a pixel
    variance = max(OVERFIT**2 * float(np.median(epipolar)) / 0.455, 0.01)
    gric = {"epipolar": _gric(epipolar / variance, 3, 7 if cameras is None else 5)}
    if homography:
        gric["homography"] = _gric(_homography_errors(homography.matrix, x0, x1) / variance, 2, 8)
    if cameras is not None:
        turn = cameras[1] @ _rotation_of_rays(x0, x1, cameras) @ np.linalg.inv(cameras[0])
        gric["rotation"] = _gric(_homography_errors(turn, x0, x1) / variance, 2, 3)
    best = min(gric, key=lambda name: gric[name])
    if best == "epipolar":
        return "general", gric
    if best == "rotation":
        return "rotation", gric
    return ("plane or rotation" if cameras is None else "plane"), gric


def _gric(squared: Float64, dimension: int, parameters: int) -> float:
    n = len(squared)
    capped = np.minimum(squared, 2.0 * (4 - dimension)).sum()
    return float(capped + n * dimension * np.log(4) + parameters * np.log(4 * n))


def _homography_errors(H: Float64, x0: Float64, x1: Float64) -> Float64:
    """Squared Sampson distance in both images: r^T (I + J J^T)^-1 r, with J the derivative of H x0 by x0."""
    mapped, depth = warp_points(H, x0), x0 @ H[2, :2] + H[2, 2]
    J = (H[:2, :2] - mapped[..., None] * H[2, :2]) / depth[:, None, None]
    r = (mapped - x1)[..., None]
    squared: Float64 = (r * np.linalg.solve(np.eye(2) + J @ J.transpose(0, 2, 1), r)).sum((1, 2))
    return np.where(np.isfinite(squared), squared, np.inf)


def _rotation_of_rays(x0: Float64, x1: Float64, cameras: Cameras) -> Float64:
    """The rotation that best turns one image's rays into the other's, wrong ones left out (Kabsch, 1976)."""
    a, b = (_unit_rays(x, K) for x, K in zip((x0, x1), cameras, strict=True))
    weights = np.ones(len(a))
    for _ in range(10):
        U, _, Vt = np.linalg.svd((b * weights[:, None]).T @ a)
        R: Float64 = U @ np.diag([1, 1, np.linalg.det(U @ Vt)]) @ Vt
        angle = np.linalg.norm(a @ R.T - b, axis=1)
        weights = 1 / (1 + (angle / max(float(np.median(angle)), 1e-9)) ** 2)
    return R


def _uncertainty(matches: Matches, inliers: Bool, pose: Pose, cameras: Cameras) -> tuple[float, float]:
    """Standard deviations of rotation and direction, degrees."""
    rotation, t = pose
    x0, x1 = (each[inliers].astype(np.float64) for each in (matches.keypoints0, matches.keypoints1))
    tangent = np.linalg.svd(t[None])[2][1:]  # two directions across t

    def residuals(delta: Float64) -> Float64:
        R = cv2.Rodrigues(delta[:3])[0] @ rotation
        moved = t + delta[3:] @ tangent
        return sampson_distances(_fundamental(_cross(moved) @ R, cameras), x0, x1)

    J = np.stack([(residuals(step) - residuals(-step)) / (2 * STEP) for step in STEP * np.eye(5)], axis=1)
    variance = float((residuals(np.zeros(5)) ** 2).sum()) / max(len(x0) - 5, 1)
    covariance = variance * np.linalg.pinv(J.T @ J)
    spread = np.rad2deg(np.sqrt(np.maximum(covariance.diagonal(), 0)))
    return float(np.linalg.norm(spread[:3])), min(float(np.linalg.norm(spread[3:])), 90.0)


def _triangulate(matches: Matches, inliers: Bool, pose: Pose, cameras: Cameras) -> Points:
    """The inliers' places, without those behind a camera or with rays that are as good as parallel."""
    indices = np.flatnonzero(inliers)
    x0, x1 = (each[indices].astype(np.float64) for each in (matches.keypoints0, matches.keypoints1))
    P0 = cameras[0] @ np.eye(3, 4)
    P1 = cameras[1] @ np.column_stack(pose)
    homogeneous = cv2.triangulatePoints(P0, P1, x0.T, x1.T).T.astype(np.float64)
    with np.errstate(divide="ignore", invalid="ignore"):
        xyz = homogeneous[:, :3] / homogeneous[:, 3:]
        seen = [_homogeneous(xyz) @ P.T for P in (P0, P1)]
        errors = [np.linalg.norm(each[:, :2] / each[:, 2:] - x, axis=1) for each, x in zip(seen, (x0, x1), strict=True)]
    turned = _unit_rays(x0, cameras[0]) @ pose[0].T
    other = _unit_rays(x1, cameras[1])
    parallax = np.rad2deg(np.arctan2(np.linalg.norm(np.cross(turned, other), axis=1), (turned * other).sum(1)))
    good: Bool = (seen[0][:, 2] > 0) & (seen[1][:, 2] > 0) & np.isfinite(xyz).all(1) & (parallax >= MIN_PARALLAX)
    error = np.sqrt((errors[0] ** 2 + errors[1] ** 2) / 2)
    return Points(indices[good], xyz[good], error[good], parallax[good])


def _fundamental(E: Float64, cameras: Cameras) -> Float64:
    F = np.linalg.inv(cameras[1]).T @ E @ np.linalg.inv(cameras[0])
    return np.asarray(F / np.linalg.norm(F))


def _unit_rays(points: Float64, K: Float64) -> Float64:
    rays = np.linalg.solve(K, _homogeneous(points).T).T
    return np.asarray(rays / np.linalg.norm(rays, axis=1, keepdims=True))


def _homogeneous(points: Float64) -> Float64:
    return np.concatenate([points, np.ones((len(points), 1))], axis=1)


def _cross(t: Float64) -> Float64:
    return np.array([[0, -t[2], t[1]], [t[2], 0, -t[0]], [-t[1], t[0], 0]])
