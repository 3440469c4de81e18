import pickle
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from tiepoint.evaluation.frames import Scale, rescale_points
from tiepoint.evaluation.metrics import homography_corner_error
from tiepoint.evaluation.pairs import HomographyPair, Pair, PointPair, PosePair
from tiepoint.evaluation.protocol import PROTOCOLS, Protocol, make_protocol
from tiepoint.evaluation.scoring import Score, score_pair
from tiepoint.types import Float64, Matches

H_TRUE = np.array([[0.9, 0.1, 12], [-0.05, 1.1, -8], [1e-4, -5e-5, 1]])
K0 = np.array([[600.0, 0, 299.5], [0, 630, 224.5], [0, 0, 1]])
K1 = np.array([[450.0, 0, 270.0], [0, 450, 210.0], [0, 0, 1]])
T_TRUE = np.eye(4)
T_TRUE[:3, :3] = cv2.Rodrigues(np.array([0.05, 0.2, -0.1]))[0]
T_TRUE[:3, 3] = (1.0, 0.1, -0.2)
SIZE0, SIZE1 = (450, 600), (360, 540)  # as stored
PATHS = (Path("0.png"), Path("1.png"))
Points = tuple[Float64, Float64]


def project(points: Float64) -> Float64:
    return points[:, :2] / points[:, 2:]


def plane(count: int = 100) -> Points:
    points = np.random.default_rng(0).uniform(20, 430, (count, 2))
    return points, project(np.c_[points, np.ones(count)] @ H_TRUE.T)


def depth(count: int = 100) -> Points:
    points = np.random.default_rng(0).uniform((-2, -1, 4), (2, 1, 9), (count, 3))
    return project(points @ K0.T), project((points @ T_TRUE[:3, :3].T + T_TRUE[:3, 3]) @ K1.T)


HOMOGRAPHY = HomographyPair("h", *PATHS, H_TRUE)
POSE = PosePair("p", *PATHS, K0, K1, T_TRUE)
POINTS = PointPair("x", *PATHS, *depth(40))
CASES: list[tuple[Pair, Points]] = [(HOMOGRAPHY, plane()), (POSE, depth()), (POINTS, depth())]
NOTHING = (np.zeros((0, 2)), np.zeros((0, 2)))


def score(
    pair: Pair,
    points: Points,
    protocol: Protocol,
    *,
    scales: tuple[Scale, Scale] = ((1.0, 1.0), (1.0, 1.0)),
    keypoints: Points | None = None,
) -> Score:
    """Scores matches that are given in stored pixels, seen in images shrunk by those scales."""
    (sx0, sy0), (sx1, sy1) = scales
    small = [rescale_points(xy, scale).astype(np.float32) for xy, scale in zip(points, scales, strict=True)]
    sizes = (round(SIZE0[0] / sy0), round(SIZE0[1] / sx0)), (round(SIZE1[0] / sy1), round(SIZE1[1] / sx1))
    # the first match is the best
    scores = np.linspace(1, 0.5, len(small[0]), dtype=np.float32)
    found = keypoints and [rescale_points(xy, scale) for xy, scale in zip(keypoints, scales, strict=True)]
    return score_pair(
        pair,
        Matches(small[0], small[1], scores, *sizes),
        keypoints0=found[0].astype(np.float32) if found else None,
        keypoints1=found[1].astype(np.float32) if found else None,
        scale0=scales[0],
        scale1=scales[1],
        protocol=protocol,
    )


@pytest.mark.parametrize("scales", [((1.0, 1.0), (1.0, 1.0)), ((2.0, 2.0), (1.8, 1.5))])
@pytest.mark.parametrize("name", PROTOCOLS)
@pytest.mark.parametrize(("pair", "points"), CASES, ids=["homography", "pose", "points"])
def test_right_matches_have_no_error(pair: Pair, points: Points, name: str, scales: tuple[Scale, Scale]) -> None:
    protocol = PROTOCOLS[name]
    found = score(pair, points, protocol, scales=scales)
    assert found.matches == 100
    assert len(found.errors) == len(found.inliers) == len(protocol.thresholds)
    for error, inliers in zip(found.errors, found.inliers, strict=True):
        assert error is not None
        assert error < 0.05
        assert inliers > 90
    assert found.within in (None, [[1.0, 1.0, 1.0]] * len(protocol.thresholds))
    assert found.mma in (None, [1.0] * 10)
    assert found.precision in (None, 1.0)
    assert found.seconds > 0


def test_each_kind_of_truth_gives_its_own_figures() -> None:
    planar, posed, marked = (score(pair, points, Protocol()) for pair, points in CASES)
    assert (planar.within, posed.within, marked.mma, posed.mma) == (None, None, None, None)
    assert None not in (planar.mma, planar.precision, posed.precision, marked.within)
    assert marked.precision is None
    assert (planar.repeatability, posed.repeatability, marked.repeatability) == (None, None, None)


@pytest.mark.parametrize("estimator", ["poselib", "opencv-ransac", "opencv-magsac"])
@pytest.mark.parametrize(("pair", "points"), CASES, ids=["homography", "pose", "points"])
def test_no_match_is_a_failure_and_nothing_else(pair: Pair, points: Points, estimator: str) -> None:
    found = score(pair, NOTHING, make_protocol(estimator=estimator))
    assert found.matches == 0
    assert found.errors == [None] * 4
    assert found.inliers == [0] * 4
    assert found.within in (None, [[0.0, 0.0, 0.0]] * 4)
    assert found.mma in (None, [0.0] * 10)
    assert found.precision is None


def test_wrong_matches_lower_accuracy_and_precision() -> None:
    points0, points1 = plane()
    points1[:20] += (2.5, 0)
    points1[20:50] += (0, 7.5)
    found = score(HOMOGRAPHY, (points0, points1), Protocol())
    assert found.mma == pytest.approx([0.5, 0.5, 0.7, 0.7, 0.7, 0.7, 0.7, 1, 1, 1])
    assert found.precision == pytest.approx(0.7)


def test_errors_count_in_the_pixels_of_the_frame() -> None:
    points0, points1 = plane()
    shifted = (points0, points1 + np.array([4.2, 0]))  # stored pixels
    halves: tuple[Scale, Scale] = ((2.0, 2.0), (2.0, 2.0))
    resized = score(HOMOGRAPHY, shifted, make_protocol(frame="resized"), scales=halves)
    stored = score(HOMOGRAPHY, shifted, make_protocol(frame="stored"), scales=halves)
    assert resized.errors == pytest.approx([2.1] * 4, abs=0.05)
    assert stored.errors == pytest.approx([4.2] * 4, abs=0.05)
    assert resized.mma == [0, 0, 1, 1, 1, 1, 1, 1, 1, 1]
    assert stored.mma == [0, 0, 0, 0, 1, 1, 1, 1, 1, 1]
    assert (resized.precision, stored.precision) == (1, 0)


def test_corners_are_those_of_the_image_in_its_frame() -> None:
    # one per cent too large: the further from the first pixel, the larger the error
    points0, points1 = plane()
    grown = np.diag([1.01, 1.01, 1]) @ H_TRUE
    shrunk: tuple[Scale, Scale] = ((2.0, 1.5), (1.8, 1.5))
    stored = score(HOMOGRAPHY, (points0, points1 * 1.01), make_protocol(frame="stored"), scales=shrunk)
    assert stored.errors == pytest.approx([homography_corner_error(grown, H_TRUE, SIZE0)] * 4, abs=0.02)


def test_thresholds_count_in_the_pixels_of_the_frame() -> None:
    rng = np.random.default_rng(7)
    points0, points1 = plane(400)
    points = points0, points1 + rng.uniform(-3, 3, points1.shape)
    halves: tuple[Scale, Scale] = ((2.0, 2.0), (2.0, 2.0))
    resized = score(HOMOGRAPHY, points, make_protocol(frame="resized", thresholds=[1.0]), scales=halves)
    stored = score(HOMOGRAPHY, points, make_protocol(frame="stored", thresholds=[1.0]), scales=halves)
    assert resized.inliers[0] > 2 * stored.inliers[0]


def test_the_epipolar_precision_does_not_depend_on_the_frame() -> None:
    points0, points1 = depth()
    points = points0, points1 + np.random.default_rng(0).normal(0, 5, points1.shape)
    scales: tuple[Scale, Scale] = ((2.0, 2.0), (1.8, 1.5))
    resized = score(POSE, points, make_protocol(frame="resized"), scales=scales).precision
    assert resized == score(POSE, points, make_protocol(frame="stored"), scales=scales).precision
    assert resized is not None
    assert 0.3 < resized < 1


def test_the_threshold_matters() -> None:
    rng = np.random.default_rng(7)
    points0, points1 = plane(200)
    noisy = points0, points1 + rng.normal(0, 1.5, (200, 2))
    tight, loose = score(HOMOGRAPHY, noisy, make_protocol(thresholds=[0.1, 4.0])).errors
    assert tight is None or (loose is not None and loose < tight)


def test_marked_points_are_counted_within_each_limit() -> None:
    # rows of image 1 are rows of image 0: a sideways camera
    rng = np.random.default_rng(0)
    points0 = rng.uniform(50, 400, (100, 2))
    points1 = points0 + np.c_[rng.uniform(-40, 40, 100), np.zeros(100)]
    marked0 = rng.uniform(50, 400, (8, 2))
    rows = np.array([0, 0, 0, 4, 4, 9, 9, 20.0])  # px off their epipolar lines
    pair = PointPair("x", *PATHS, marked0, marked0 + np.c_[np.full(8, 7.0), rows])
    found = score(pair, (points0, points1), make_protocol(thresholds=[1.0]))
    assert found.within == [[3 / 8, 5 / 8, 7 / 8]]
    assert found.errors == pytest.approx([4.0], abs=0.05)


def test_only_the_best_matches_count_where_the_protocol_says_so() -> None:
    points0, points1 = plane()
    points1[40:] += 300  # the better forty are right
    found = score(HOMOGRAPHY, (points0, points1), make_protocol(max_matches=40))
    assert found.matches == 40
    assert found.precision == 1
    assert score(HOMOGRAPHY, (points0, points1), Protocol()).precision == pytest.approx(0.4)


@pytest.mark.parametrize(
    ("frame", "off", "share"), [("resized", 0.0, 1), ("stored", 0.0, 1), ("resized", 4.0, 1), ("stored", 4.0, 0)]
)
def test_keypoints_are_found_again_in_the_pixels_of_the_frame(frame: str, off: float, share: float) -> None:
    # eighty pixels from one another; 4 stored pixels are 2 in the resized images
    seen0 = np.stack(np.meshgrid(np.arange(60.0, 400, 80), np.arange(60.0, 300, 80)), axis=-1).reshape(-1, 2)
    seen1 = project(np.c_[seen0, np.ones(len(seen0))] @ H_TRUE.T)
    keypoints = seen0, seen1 + np.array([off, 0])
    halves: tuple[Scale, Scale] = ((2.0, 2.0), (2.0, 2.0))
    found = score(HOMOGRAPHY, plane(), make_protocol(frame=frame), keypoints=keypoints, scales=halves)
    assert found.repeatability == share


def test_keypoints_that_nobody_shares_have_no_repeatability() -> None:
    away = np.full((5, 2), -1000.0)
    assert score(HOMOGRAPHY, plane(), Protocol(), keypoints=(away, away)).repeatability is None


@pytest.mark.parametrize("estimator", ["poselib", "opencv-ransac", "opencv-magsac"])
@pytest.mark.parametrize(("pair", "points"), CASES, ids=["homography", "pose", "points"])
def test_scores_are_repeatable(pair: Pair, points: Points, estimator: str) -> None:
    noisy = points[0], points[1] + np.random.default_rng(1).normal(0, 1, points[1].shape)
    protocol = make_protocol(estimator=estimator)
    first, second = (score(pair, noisy, protocol, keypoints=noisy) for _ in range(2))
    assert replace(first, seconds=0.0) == replace(second, seconds=0.0)


@pytest.mark.parametrize("changes", [{"confidence": 0.99999}, {"min_iterations": 500}, {"seed": 5}])
def test_the_estimator_gets_the_protocols_options(changes: dict[str, Any]) -> None:
    # with so little confidence, and so many wrong matches, the first model that comes ends the search
    points0, points1 = plane(300)
    points1[:210] = np.random.default_rng(7).uniform(0, 400, (210, 2))
    hasty: dict[str, Any] = {"confidence": 1e-9, "min_iterations": 0, "thresholds": [1.0]}
    first = score(HOMOGRAPHY, (points0, points1), make_protocol(**hasty))
    other = score(HOMOGRAPHY, (points0, points1), make_protocol(**hasty | changes))
    assert first.errors != other.errors


def test_work_and_score_travel_between_processes() -> None:
    # what a worker is sent and sends back
    pair, protocol, found = pickle.loads(pickle.dumps((POSE, PROTOCOLS["loftr"], score(POSE, depth(), Protocol()))))
    assert protocol == PROTOCOLS["loftr"]
    assert score(pair, depth(), Protocol()).errors == found.errors


def test_a_worker_loads_neither_torch_nor_onnxruntime() -> None:
    heavy = "{'torch', 'onnxruntime', 'kornia'}"
    code = f"import sys, tiepoint.evaluation.scoring; print(*sorted({heavy} & set(sys.modules)))"
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert run.stdout.strip() == ""
