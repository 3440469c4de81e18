"""From the matches of a pair to its errors: what each worker of a benchmark run does."""

import math
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np

from tiepoint.evaluation.estimators import estimate_with
from tiepoint.evaluation.frames import Scale, Size, rescale_homography, rescale_intrinsics, rescale_points
from tiepoint.evaluation.metrics import (
    epipolar_errors,
    homography_corner_error,
    pose_error,
    repeatability,
    reprojection_errors,
    share_within,
    symmetric_epipolar_distance,
)
from tiepoint.evaluation.pairs import HomographyPair, Pair, PointPair, PosePair
from tiepoint.evaluation.protocol import Protocol
from tiepoint.images import to_original
from tiepoint.types import Float32, Float64, GeometryKind, Matches, TwoViewGeometry

MMA_LIMITS = tuple(range(1, 11))  # px
RIGHT_MATCH = 3.0  # px of reprojection
RIGHT_EPIPOLAR = 5e-4  # squared symmetric distance, normalised
SAME_KEYPOINT = 3.0  # px
UNIT: Scale = (1.0, 1.0)
KINDS: Final[Mapping[type, GeometryKind]] = {
    HomographyPair: "homography",
    PosePair: "essential",
    PointPair: "fundamental",
}


@dataclass(frozen=True, slots=True)
class Score:
    """How good the matches of one pair are. Lists run over the protocol's thresholds; shares lie in [0, 1].

    Attributes:
        matches: how many counted.
        errors: corner error in pixels, pose error in degrees, or the median distance of the marked points in pixels;
            None where no model was found.
        inliers: of the estimated model.
        within: for marked points: the share of them below each limit, one list a threshold.
        mma: share of the matches within 1, 2, ... 10 px of the truth; for homographies.
        precision: share of the matches that are right; None for marked points and without matches.
        repeatability: of the keypoints; for homographies, None without a detector or covisible keypoints.
        seconds: wall time of the estimator, all thresholds together.
    """

    matches: int
    errors: list[float | None]
    inliers: list[int]
    within: list[list[float]] | None
    mma: list[float] | None
    precision: float | None
    repeatability: float | None
    seconds: float


@dataclass(frozen=True, slots=True, eq=False)
class _View:
    """A pair in the frame in which it is scored: matches, keypoints and the scales that carry the truth there."""

    matches: Matches
    keypoints: tuple[Float32, Float32] | None
    scale0: Scale
    scale1: Scale


def score_pair(
    pair: Pair,
    matches: Matches,
    *,
    keypoints0: Float32 | None,
    keypoints1: Float32 | None,
    scale0: Scale,
    scale1: Scale,
    protocol: Protocol,
    limits: Sequence[float] = (3.0, 5.0, 10.0),
) -> Score:
    """Measures the matches of one pair against its truth.

    Everything is measured in the protocol's frame. For "resized" the truth is rescaled, as LoFTR and LightGlue do on
    HPatches; for "stored" the matches are, as LoFTR and XFeat do on MegaDepth.

    Args:
        pair: with its truth, in pixels of the images as stored.
        matches: in pixels of the resized images.
        keypoints0: (M0, 2), all keypoints of the resized image 0; None where the method has no detector.
        keypoints1: likewise of image 1.
        scale0: (sx, sy) of image 0 with x_stored = (x + 0.5) * sx - 0.5, as `frames.resize` returns it.
        scale1: the same of image 1.
        protocol: thresholds, estimator and frame.
        limits: for marked points, pixels.

    Returns:
        The score; the same input gives the same but for `seconds`.
    """
    keypoints = None if keypoints0 is None or keypoints1 is None else (keypoints0, keypoints1)
    view = _view(matches, keypoints, (scale0, scale1), protocol)
    start = time.perf_counter()
    kind, cameras = KINDS[type(pair)], (pair.K0, pair.K1) if isinstance(pair, PosePair) else None
    geometries = [
        _estimate(kind, view, cameras, protocol=protocol, threshold=threshold) for threshold in protocol.thresholds
    ]
    seconds = time.perf_counter() - start
    match pair:
        case HomographyPair():
            return _score_homography(pair, view, geometries, seconds)
        case PosePair():
            return _score_pose(pair, view, geometries, seconds)
        case PointPair():
            return _score_points(pair, view, geometries, seconds, limits=limits)


def _view(
    matches: Matches, keypoints: tuple[Float32, Float32] | None, scales: tuple[Scale, Scale], protocol: Protocol
) -> _View:
    """The best matches, in the protocol's frame."""
    best = slice(protocol.max_matches)
    points0, points1, scores = matches.keypoints0[best], matches.keypoints1[best], matches.scores[best]
    (scale0, scale1), size0, size1 = scales, matches.size0, matches.size1
    if protocol.frame == "stored":
        points0, points1 = to_original(points0, scale0), to_original(points1, scale1)
        keypoints = keypoints and (to_original(keypoints[0], scale0), to_original(keypoints[1], scale1))
        size0, size1 = _stored(size0, scale0), _stored(size1, scale1)
        scale0 = scale1 = UNIT
    return _View(Matches(points0, points1, scores, size0, size1), keypoints, scale0, scale1)


def _stored(size: Size, scale: Scale) -> Size:
    return round(size[0] * scale[1]), round(size[1] * scale[0])


def estimate_pair(
    kind: GeometryKind,
    matches: Matches,
    *,
    scales: tuple[Scale, Scale],
    cameras: tuple[Float64, Float64] | None,
    protocol: Protocol,
    threshold: float,
) -> TwoViewGeometry:
    """The geometry that a protocol finds in a pair's matches at one threshold.

    Args:
        kind: what is estimated.
        matches: in pixels of the resized images.
        scales: (sx, sy) of both images, as `frames.resize` returns them.
        cameras: for "essential": (K0, K1) of the images as stored.
        protocol: estimator and frame.
        threshold: in pixels of the protocol's frame.

    Returns:
        In the protocol's frame; its inliers are those of the matches that count.
    """
    view = _view(matches, None, scales, protocol)
    return _estimate(kind, view, cameras, protocol=protocol, threshold=threshold)


def _estimate(
    kind: GeometryKind,
    view: _View,
    cameras: tuple[Float64, Float64] | None,
    *,
    protocol: Protocol,
    threshold: float,
) -> TwoViewGeometry:
    return estimate_with(
        protocol.estimator,
        view.matches,
        kind,
        cameras=cameras and _rescaled(cameras, view),
        threshold=threshold,
        seed=protocol.seed,
        max_iterations=protocol.max_iterations,
        min_iterations=protocol.min_iterations,
        confidence=protocol.confidence,
    )


def _score_homography(pair: HomographyPair, view: _View, geometries: list[TwoViewGeometry], seconds: float) -> Score:
    H_true, sizes = rescale_homography(pair.H_0to1, view.scale0, view.scale1), (view.matches.size0, view.matches.size1)
    errors = [homography_corner_error(geometry.matrix, H_true, sizes[0]) for geometry in geometries]
    distances = reprojection_errors(H_true, *_points(view))
    repeated = math.nan
    if view.keypoints is not None:
        keypoints = [xy.astype(np.float64) for xy in view.keypoints]
        repeated = repeatability(*keypoints, H_0to1=H_true, sizes=sizes, radius=SAME_KEYPOINT)
    return Score(
        matches=len(view.matches),
        errors=_listed(errors),
        inliers=_inliers(geometries),
        within=None,
        mma=share_within(distances, MMA_LIMITS).tolist(),
        precision=float(share_within(distances, [RIGHT_MATCH])[0]) if len(distances) else None,
        repeatability=None if math.isnan(repeated) else repeated,
        seconds=seconds,
    )


def _score_pose(pair: PosePair, view: _View, geometries: list[TwoViewGeometry], seconds: float) -> Score:
    errors = [pose_error(geometry.rotation, geometry.translation, pair.T_0to1) for geometry in geometries]
    distances = epipolar_errors(*_points(view), cameras=_rescaled((pair.K0, pair.K1), view), T_0to1=pair.T_0to1)
    return Score(
        matches=len(view.matches),
        errors=_listed(errors),
        inliers=_inliers(geometries),
        within=None,
        mma=None,
        precision=float((distances < RIGHT_EPIPOLAR).mean()) if len(distances) else None,
        repeatability=None,
        seconds=seconds,
    )


def _score_points(
    pair: PointPair, view: _View, geometries: list[TwoViewGeometry], seconds: float, *, limits: Sequence[float]
) -> Score:
    points = rescale_points(pair.points0, view.scale0), rescale_points(pair.points1, view.scale1)
    distances = np.stack([symmetric_epipolar_distance(geometry.matrix, *points) for geometry in geometries])
    return Score(
        matches=len(view.matches),
        errors=_listed(np.median(distances, axis=1).tolist()),
        inliers=_inliers(geometries),
        within=(distances[..., None] < np.asarray(limits)).mean(axis=1).tolist(),
        mma=None,
        precision=None,
        repeatability=None,
        seconds=seconds,
    )


def _points(view: _View) -> tuple[Float64, Float64]:
    return view.matches.keypoints0.astype(np.float64), view.matches.keypoints1.astype(np.float64)


def _rescaled(cameras: tuple[Float64, Float64], view: _View) -> tuple[Float64, Float64]:
    return rescale_intrinsics(cameras[0], view.scale0), rescale_intrinsics(cameras[1], view.scale1)


def _inliers(geometries: Sequence[TwoViewGeometry]) -> list[int]:
    return [int(geometry.inliers.sum()) for geometry in geometries]


def _listed(errors: Sequence[float]) -> list[float | None]:
    """JSON has no infinity."""
    return [error if math.isfinite(error) else None for error in errors]
