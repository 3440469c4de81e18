"""Registration and camera motion on public pairs: what is gained beyond the matches alone, in one run.

python benchmarks/geometry.py --data DATA --json geometry.json

Registration: homographies from the matches alone, from OpenCV's findTransformECC started there, and refined by
`tiepoint.register`; corner error and AUC by the protocol of `tiepoint benchmark` (long side at most 1024 px) at the one
default threshold of 3 px. Pose: how the stated uncertainty compares with the true error.

Time: what the answers cost on one pair of each set, image arrays in to answer out, in seconds and in times of matching
that pair. They take turns for --rounds rounds after one that does not count; the medians are told.
"""

import argparse
import json
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import cv2
import numpy as np
import numpy.typing as npt
import torch
from tqdm import tqdm

import tiepoint
from tiepoint.depth import depth_range
from tiepoint.errors import InputError, WorkError
from tiepoint.evaluation.frames import rescale_homography, rescale_intrinsics, resize
from tiepoint.evaluation.metrics import auc, homography_corner_error, rotation_angle, translation_angle
from tiepoint.evaluation.pairs import HomographyPair, PosePair
from tiepoint.evaluation.sets import read_set
from tiepoint.files import atomic_path
from tiepoint.images import read_image, resize_to_long_side
from tiepoint.refinement import refine
from tiepoint.runtime.matcher import Matcher

Float64 = npt.NDArray[np.float64]
UInt8 = npt.NDArray[np.uint8]
LIMITS = (1, 3, 5, 10)
SETS = ("homography", "multimodal")
DEPTH_SIDE = 640  # px, to which `tiepoint depth` shrinks
LEAST_POINTS = 200  # of a pair whose depth is timed
LARGEST_DISPARITY = 64.0  # px, of the rectified pair that is timed
ECC = (cv2.TERM_CRITERIA_EPS | cv2.TERM_CRITERIA_COUNT, 50, 1e-4)  # OpenCV's defaults, as is the blur of 5 px


class Pair(NamedTuple):
    """Two resized images, (H, W, 3) each, their matches and what these alone say."""

    images: tuple[UInt8, UInt8]
    matches: tiepoint.Matches
    start: tiepoint.TwoViewGeometry


def by_matches(pair: Pair) -> Float64:
    """The homography of the matches alone."""
    return pair.start.matrix


def by_ecc(pair: Pair) -> Float64:
    """OpenCV's ECC from there; what does not converge stays where it was."""
    grey0, grey1 = (cv2.cvtColor(image, cv2.COLOR_RGB2GRAY) for image in pair.images)
    start = np.ascontiguousarray(pair.start.matrix, dtype=np.float32)
    try:
        _, found = cv2.findTransformECC(grey0, grey1, start, cv2.MOTION_HOMOGRAPHY, ECC, None, 5)
    except cv2.error:
        return pair.start.matrix
    return np.asarray(found, dtype=np.float64)


def by_refinement(pair: Pair) -> Float64:
    """Ours from there."""
    inliers = pair.start.inliers
    if not pair.start:
        return pair.start.matrix
    points = pair.matches.keypoints0[inliers], pair.matches.keypoints1[inliers]
    return refine(*pair.images, pair.start.matrix, points, model="homography")[0]


METHODS: dict[str, Callable[[Pair], Float64]] = {
    "matches alone": by_matches,
    "OpenCV ECC": by_ecc,
    "refined": by_refinement,
}


def registration(name: str, folder: Path, model: str) -> dict[str, Any]:
    """Corner errors, AUC and median seconds a pair of each method on one set."""
    found = read_set(name, folder, protocol="tiepoint", strict=False)
    matcher = tiepoint.load(model)
    errors: dict[str, list[float]] = {method: [] for method in METHODS}
    seconds: dict[str, list[float]] = {method: [] for method in METHODS}
    pairs = [pair for pair in found.pairs if isinstance(pair, HomographyPair)]
    for pair in tqdm(pairs, desc=name):
        (image0, scale0), (image1, scale1) = (
            resize(read_image(path), found.protocol) for path in (pair.path0, pair.path1)
        )
        H_true = rescale_homography(pair.H_0to1, scale0, scale1)
        matches = matcher(image0, image1)
        made = Pair((image0, image1), matches, tiepoint.estimate(matches, "homography", threshold=3.0))
        for method, solve in METHODS.items():
            start = time.perf_counter()
            H = solve(made)
            seconds[method].append(time.perf_counter() - start)
            errors[method].append(homography_corner_error(H, H_true, (image0.shape[0], image0.shape[1])))
    return {
        "pairs": [pair.name for pair in pairs],
        "auc": {method: (100 * auc(np.array(each), LIMITS)).round(1).tolist() for method, each in errors.items()},
        "errors": {method: [round(error, 3) for error in each] for method, each in errors.items()},
        "seconds": {method: round(float(np.median(each)), 3) for method, each in seconds.items()},
    }


def motion(folder: Path, model: str) -> dict[str, Any]:
    """True errors of the poses beside the uncertainty that was told, over pairs that are not doubted."""
    found = read_set("pose", folder, protocol="tiepoint", strict=False)
    matcher = tiepoint.load(model)
    ratios, scenes, doubted = [], [], 0
    for pair in tqdm([pair for pair in found.pairs if isinstance(pair, PosePair)], desc="pose"):
        try:
            pose = tiepoint.relative_pose(matcher(pair.path0, pair.path1), (pair.K0, pair.K1))
        except WorkError:
            doubted += 1
            continue
        scenes.append(pose.scene)
        doubted += pose.doubtful
        R, t = pose.geometry.rotation, pose.geometry.translation
        if pose.doubtful or R is None or t is None or not pose.rotation_sigma or not pose.translation_sigma:
            continue
        turned, moved = rotation_angle(R, pair.T_0to1[:3, :3]), translation_angle(t, pair.T_0to1[:3, 3])
        ratios.append((turned, moved, turned / pose.rotation_sigma, moved / pose.translation_sigma))
    medians = np.median(np.array(ratios), axis=0).round(2).tolist()
    keys = ("rotation_error_deg", "translation_error_deg", "rotation_error_in_sigma", "translation_error_in_sigma")
    counts = {scene: scenes.count(scene) for scene in dict.fromkeys(scenes)}
    return {
        "pairs": len(ratios),
        "doubted": doubted,
        "scenes": counts,
        "medians": dict(zip(keys, medians, strict=True)),
    }


Jobs = Mapping[str, Callable[[], object]]  # answers by name, the first one being matches


def plane_jobs(folder: Path, matcher: Matcher) -> tuple[str, Jobs]:
    """Answers about the first pair of planes, with its name and size."""
    found = read_set("homography", folder, protocol="tiepoint", strict=False)
    pair = next(each for each in found.pairs if isinstance(each, HomographyPair))
    image0, image1 = (resize(read_image(path), found.protocol)[0] for path in (pair.path0, pair.path1))
    return f"{pair.name}, {_size(image0)}", {
        "match": lambda: matcher(image0, image1),
        "register, matches alone": lambda: tiepoint.register(image0, image1, matcher=matcher, refine=False),
        "register": lambda: tiepoint.register(image0, image1, matcher=matcher),
    }


def posed_jobs(folder: Path, matcher: Matcher) -> tuple[str, Jobs]:
    """Answers about the first pair of known cameras that tells a depth, with its name and size."""
    pairs = read_set("pose", folder, protocol="tiepoint", strict=False).pairs
    pair = next((each for each in pairs if isinstance(each, PosePair) and _tells_depth(each, matcher)), None)
    if pair is None:
        raise WorkError(f"no pair of {folder} tells a depth, expected one to be timed")
    image0, image1 = read_image(pair.path0), read_image(pair.path1)
    (small0, scale0), (small1, scale1) = (resize_to_long_side(image, DEPTH_SIDE) for image in (image0, image1))
    cameras = pair.K0, pair.K1
    smaller = rescale_intrinsics(pair.K0, scale0), rescale_intrinsics(pair.K1, scale1)

    def depth() -> object:
        pose = tiepoint.relative_pose(matcher(image0, image1), cameras)
        R, t, points = pose.geometry.rotation, pose.geometry.translation, pose.points
        assert R is not None
        assert t is not None
        assert points is not None
        return tiepoint.depth_map(small0, small1, smaller, (R, t), depth_range(points.xyz))

    return f"{pair.name}, {_size(image0)}, for depth {_size(small0)}", {
        "match": lambda: matcher(image0, image1),
        "pose": lambda: tiepoint.relative_pose(matcher(image0, image1), cameras),
        "depth": depth,
    }


def _tells_depth(pair: PosePair, matcher: Matcher) -> bool:
    """Whether most matches agree and have a parallax; depth is found of images of one size alone."""
    try:
        pose = tiepoint.relative_pose(matcher(pair.path0, pair.path1), (pair.K0, pair.K1))
    except WorkError:
        return False
    alike = read_image(pair.path0).shape == read_image(pair.path1).shape
    return alike and pose.points is not None and len(pose.points.indices) >= LEAST_POINTS and not pose.doubtful


def rectified_jobs(folder: Path, matcher: Matcher) -> tuple[str, Jobs]:
    """Depth of the first rectified pair, with its name and size."""
    scene = min(path.parent for path in folder.glob("*/left.png"))
    left, right = (resize_to_long_side(read_image(scene / f"{side}.png"), DEPTH_SIDE)[0] for side in ("left", "right"))
    return f"{scene.name}, {_size(left)}", {
        "match": lambda: matcher(left, right),
        "depth, rectified": lambda: tiepoint.disparity_map(left, right, largest=LARGEST_DISPARITY),
    }


def timed(jobs: Jobs, rounds: int) -> dict[str, float]:
    """Median seconds of each, in turns; the first round does not count."""
    seconds: dict[str, list[float]] = {name: [] for name in jobs}
    for _ in tqdm(range(rounds + 1), desc="time", disable=None):
        for name, work in jobs.items():
            start = time.perf_counter()
            work()
            seconds[name].append(time.perf_counter() - start)
    return {name: round(float(np.median(each[1:])), 3) for name, each in seconds.items()}


def times(data: Path, model: str, rounds: int) -> dict[str, Any]:
    """Measure and print what the answers cost."""
    matcher = tiepoint.load(model)
    makers = {"homography": plane_jobs, "pose": posed_jobs, "stereo": rectified_jobs}
    told: dict[str, Any] = {}
    for name, make in makers.items():
        if (data / name).is_dir():
            title, jobs = make(data / name, matcher)
            told[name] = {"pair": title, "seconds": timed(jobs, rounds)}
            print(f"\ntime, {title}: seconds, times the matching")
            first = next(iter(told[name]["seconds"].values()))
            for job, seconds in told[name]["seconds"].items():
                print(f"{job:<26}{seconds:9.3f}{seconds / max(first, 1e-9):8.1f}", flush=True)
    return told


def _size(image: UInt8) -> str:
    return f"{image.shape[1]}×{image.shape[0]} px"


def run(options: argparse.Namespace) -> None:
    """Measure, print and write."""
    cv2.setNumThreads(options.threads)
    torch.set_num_threads(options.threads)
    results: dict[str, Any] = {"model": options.model, "threads": options.threads}
    for name in SETS:
        found = results[name] = registration(name, options.data / name, options.model)
        print(f"\n{name}, {len(found['pairs'])} pairs: corner AUC@{'/'.join(map(str, LIMITS))} px, seconds a pair")
        for method, areas in found["auc"].items():
            figures = "".join(f"{area:7.1f}" for area in areas)
            print(f"{method:<16}{figures}{found['seconds'][method]:9.3f}", flush=True)
    if (options.data / "pose").is_dir():
        told = results["pose"] = motion(options.data / "pose", options.model)
        print(f"\npose, {told['pairs']} pairs ({told['doubted']} more doubted), scenes {told['scenes']}: medians")
        for key, value in told["medians"].items():
            print(f"{key:<28}{value:7.2f}")
    if options.rounds:
        results["time"] = times(options.data, options.model, options.rounds)
    if options.json:
        with atomic_path(options.json) as path:
            path.write_text(json.dumps(results, indent=1), encoding="utf-8")


def main(argv: Sequence[str] | None = None) -> int:
    """Run the measurement; the exit code is 0, 1 where the work failed, 2 where the input was wrong."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--data", type=Path, required=True, help="folder that holds homography, multimodal, pose and stereo"
    )
    parser.add_argument("--model", default="default", help="what finds the matches")
    parser.add_argument("--json", type=Path, help="write the figures here")
    parser.add_argument("--threads", type=int, default=1, help="of torch and OpenCV")
    parser.add_argument("--rounds", type=int, default=3, help="of the timing; 0 leaves it out")
    try:
        run(parser.parse_args(argv))
    except (InputError, WorkError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2 if isinstance(error, InputError) else 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
