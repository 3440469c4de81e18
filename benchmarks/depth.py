"""Depth beside OpenCV's StereoSGBM on rectified pairs with ground truth, and against measured depth on posed pairs.

python benchmarks/depth.py --data DATA --json depth.json

StereoSGBM runs in its 3-way mode, on images padded by the disparity range, with the settings that a search by
coordinates over these same pairs finds best (--search; without it those that it found); its holes are filled as ours
are. Figures are over all pixels with ground truth, hidden ones included.
"""

import argparse
import json
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import cv2
import numpy as np
import numpy.typing as npt
from tqdm import tqdm

import tiepoint
from tiepoint.dense import depth_map, disparity_map
from tiepoint.depth import depth_range
from tiepoint.errors import InputError, WorkError
from tiepoint.files import atomic_path
from tiepoint.images import read_image
from tiepoint.runtime.sweep import SweepGraph
from tiepoint.semiglobal import filled

Float32 = npt.NDArray[np.float32]
UInt8 = npt.NDArray[np.uint8]
BAD = 2.0  # pixels
# what --search found on the four scenes: 6.19 % bad, 1.00 px
BEST = {"block": 3, "p1": 24, "p2": 64, "agree": 1, "cap": 63, "unique": 15, "window": 100, "range": 1}
SPACE: dict[str, tuple[int, ...]] = {
    "block": (1, 3, 5, 7, 9),
    "p1": (2, 4, 8, 16, 24, 32),
    "p2": (16, 32, 64, 96, 128, 192, 256),
    "agree": (-1, 1, 2, 4),
    "cap": (15, 31, 47, 63),
    "unique": (0, 5, 10, 15),
    "window": (0, 50, 100, 200, 400),
    "range": (1, 2, 4),
}


class StereoPair(NamedTuple):
    """A rectified pair, its true disparity (0 where unknown) and the range given to every method."""

    name: str
    left: UInt8
    right: UInt8
    truth: Float32
    largest: int


def read_pairs(folder: Path) -> list[StereoPair]:
    """Every scene of the folder."""
    pairs = []
    for path in sorted(folder.glob("*/disp_left.png")):
        truth = np.asarray(cv2.imread(str(path), cv2.IMREAD_UNCHANGED), np.float32) / np.float32(256)
        left, right = (read_image(path.with_name(f"{side}.png")) for side in ("left", "right"))
        pairs.append(StereoPair(path.parent.name, left, right, truth, int(np.ceil((truth.max() + 1) / 16)) * 16))
    if not pairs:
        raise InputError(f"{folder} holds no scene, expected SCENE/left.png, right.png and disp_left.png")
    return pairs


def by_opencv(pair: StereoPair, settings: dict[str, int]) -> Float32:
    """StereoSGBM, filled."""
    area = settings["block"] ** 2
    matcher = cv2.StereoSGBM.create(
        0,
        pair.largest,
        settings["block"],
        settings["p1"] * area,
        settings["p2"] * area,
        settings["agree"],
        settings["cap"],
        settings["unique"],
        settings["window"],
        settings["range"],
        cv2.STEREO_SGBM_MODE_SGBM_3WAY,
    )
    # without a border it knows nothing of the columns whose partner may lie outside
    padded = [cv2.copyMakeBorder(each, 0, 0, pair.largest, 0, cv2.BORDER_REPLICATE) for each in (pair.left, pair.right)]
    found = matcher.compute(*padded)[:, pair.largest :].astype(np.float32) / 16
    return filled(found, found >= 0)


def errors(found: Float32, truth: Float32) -> tuple[float, float]:
    """Percent of the known pixels that are off by more than two, and the mean error in pixels."""
    distance = np.abs(found - truth)[truth > 0]
    return 100 * float((distance > BAD).mean()), float(distance.mean())


def search(pairs: Sequence[StereoPair]) -> dict[str, int]:
    """The settings of StereoSGBM with the least share of bad pixels, one after the other until none helps."""

    def bad(settings: dict[str, int]) -> float:
        return float(np.mean([errors(by_opencv(pair, settings), pair.truth)[0] for pair in pairs]))

    best, least, before = dict(BEST), bad(BEST), np.inf
    while least < before:
        before = least
        for name, values in SPACE.items():
            for value in values:
                figure = bad(best | {name: value})
                if figure < least:
                    best, least = best | {name: value}, figure
    return best


def stereo(folder: Path, graph: SweepGraph, *, searched: bool) -> dict[str, Any]:
    """Figures of both methods on every scene, in turn."""
    pairs = read_pairs(folder)
    settings = search(pairs) if searched else BEST
    methods: dict[str, Callable[[StereoPair], Float32]] = {
        "OpenCV SGBM": lambda pair: by_opencv(pair, settings),
        "tiepoint": lambda pair: disparity_map(pair.left, pair.right, largest=pair.largest, graph=graph).inverse_depth,
    }
    told: dict[str, Any] = {"settings": settings, "scenes": {}}
    for pair in tqdm(pairs, desc="stereo"):
        row = told["scenes"][pair.name] = {}
        for name, method in methods.items():
            start, used = time.perf_counter(), time.process_time()
            found = method(pair)
            seconds, used = time.perf_counter() - start, time.process_time() - used
            bad, mean = errors(found, pair.truth)
            times = {"seconds": round(seconds, 2), "cpu": round(used, 2)}
            row[name] = {"bad2": round(bad, 2), "epe": round(mean, 3), **times}
    for name in methods:
        rows = [row[name] for row in told["scenes"].values()]
        keys = ("bad2", "epe", "seconds", "cpu")
        told[name] = {key: round(float(np.mean([each[key] for each in rows])), 3) for key in keys}
    return told


def posed(folder: Path, graph: SweepGraph) -> list[dict[str, Any]]:
    """|d - d*| / d* with poses from the matches; the scale, which they do not tell, is the median's."""
    content = json.loads((folder / "pairs.json").read_text(encoding="utf-8"))
    entries = content["pairs"] if isinstance(content, dict) else content
    matcher = tiepoint.load()
    rows = []
    for entry in tqdm([each for each in entries if each["dataset"] == "pi3room"], desc="pi3room"):
        image0, image1 = (read_image(folder.parent / entry[name]) for name in ("image0", "image1"))
        cameras = np.array(entry["K0"]), np.array(entry["K1"])
        motion = tiepoint.relative_pose(matcher(image0, image1), cameras)
        pose = motion.geometry.rotation, motion.geometry.translation
        assert motion.points is not None
        assert pose[0] is not None
        assert pose[1] is not None
        found = depth_map(image0, image1, cameras, (pose[0], pose[1]), depth_range(motion.points.xyz), graph=graph)
        path = str(folder.parent / entry["depth0"])
        truth = np.asarray(cv2.imread(path, cv2.IMREAD_UNCHANGED), np.float32) / 1000
        truth = cv2.resize(truth, image0.shape[1::-1], interpolation=cv2.INTER_NEAREST)
        row: dict[str, Any] = {"pair": f"{entry['image0']} {entry['image1']}"}
        for name, chosen in (("all", truth > 0), ("checked", (truth > 0) & found.checked)):
            depth = found.depth[chosen]
            scaled = depth * np.median(truth[chosen]) / np.median(depth)
            row[name] = round(float(np.mean(np.abs(scaled - truth[chosen]) / truth[chosen])), 4)
        row["checked_share"] = round(float(found.checked[truth > 0].mean()), 3)
        rows.append(row)
    return rows


def run(options: argparse.Namespace) -> None:
    """Measure, print and write."""
    cv2.setNumThreads(options.threads)
    graph = SweepGraph(options.model)
    results: dict[str, Any] = {"stereo": stereo(options.data / "stereo", graph, searched=options.search)}
    print(f"{'':<14}{'method':<14}{'bad2 %':>8}{'EPE px':>8}{'s':>8}{'CPU s':>8}")
    for scene, rows in results["stereo"]["scenes"].items():
        for name, row in rows.items():
            print(f"{scene:<14}{name:<14}{row['bad2']:8.2f}{row['epe']:8.3f}{row['seconds']:8.2f}{row['cpu']:8.2f}")
    for name in ("OpenCV SGBM", "tiepoint"):
        row = results["stereo"][name]
        print(
            f"{'mean':<14}{name:<14}{row['bad2']:8.2f}{row['epe']:8.3f}{row['seconds']:8.2f}{row['cpu']:8.2f}",
            flush=True,
        )
    if (options.data / "pose" / "pi3room").is_dir():
        results["pi3room"] = posed(options.data / "pose", graph)
        for row in results["pi3room"]:
            print(
                f"AbsRel {row['all']:.4f}, confirmed {row['checked']:.4f} ({row['checked_share']:.0%}): {row['pair']}"
            )
    if options.json:
        with atomic_path(options.json) as path:
            path.write_text(json.dumps(results, indent=1), encoding="utf-8")


def main(argv: Sequence[str] | None = None) -> int:
    """Run the measurement; the exit code is 0, 1 where the work failed, 2 where the input was wrong."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="folder that holds stereo and pose")
    parser.add_argument("--model", type=Path, help="an .onnx file of a plane sweep; the embedded one if not given")
    parser.add_argument("--search", action="store_true", help="search OpenCV's settings again")
    parser.add_argument("--json", type=Path, help="write the figures here")
    parser.add_argument("--threads", type=int, default=1, help="of OpenCV; of ONNX Runtime by OMP_NUM_THREADS")
    try:
        run(parser.parse_args(argv))
    except (InputError, WorkError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2 if isinstance(error, InputError) else 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
