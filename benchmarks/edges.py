"""Edges beside kornia's Canny and Sobel, OpenCV's Canny and people, as the Berkeley benchmark counts.

python benchmarks/edges.py --data DATA/bsds500 --cache cache --json edges.json
python benchmarks/edges.py --data DATA/bsds500 --time

Canny has two thresholds and gives no probabilities: here the upper one takes 99 values, the lower one is 0.4 of it, and
a pixel's value is the highest of the 99 at which it is an edge, so that the benchmark's thresholds are Canny's. Sobel's
magnitudes are thinned as ours are. How much an image is smoothed before is what --search finds best, for each of them,
on images that are not tested; without it what it found. Counts are kept in --cache, twenty images a file.
"""

import argparse
import hashlib
import json
import sys
import time
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch
from kornia.filters import canny, gaussian_blur2d, sobel
from tqdm import tqdm

from tiepoint.contours import thin_edges
from tiepoint.data.edges import EdgeSample, find_samples, read_annotations
from tiepoint.edges import EMBEDDED, EdgeDetector
from tiepoint.errors import InputError, WorkError
from tiepoint.evaluation.boundaries import THRESHOLDS, Counts, count_all, of_humans, summarise_boundaries
from tiepoint.files import atomic_path
from tiepoint.images import UInt8, read_image
from tiepoint.types import Float32, Float64

Method = Callable[[UInt8], Float32]
LOWER = 0.4  # of Canny's thresholds to its upper one
# deviations of the smoothing, pixels, and what --search found best
SIGMAS = (1.0, 2.0, 3.0, 4.0, 5.0)
BEST = {"kornia Canny": 3.0, "OpenCV Canny": 4.0, "kornia Sobel": 4.0}
SEARCHED = 8  # images that --search looks at, evenly chosen
CHUNK, COARSE = 20, THRESHOLDS[9::10]
ROUNDS = 15


def _grey(image: UInt8, sigma: float) -> torch.Tensor:
    """(1, 1, H, W) in [0, 1], smoothed."""
    grey = torch.from_numpy(cv2.cvtColor(image, cv2.COLOR_RGB2GRAY))[None, None].float() / 255
    size = 2 * int(3 * sigma + 0.5) + 1
    smooth: torch.Tensor = gaussian_blur2d(grey, (size, size), (sigma, sigma))
    return smooth


def by_kornia_canny(image: UInt8, sigma: float) -> Float32:
    """The highest of the thresholds, squared: finer where most magnitudes are, at which a pixel is an edge."""
    # magnitudes after its non-maximum suppression; its hysteresis, which walks pixel by pixel, is done below as it does
    magnitude = canny(_grey(image, sigma), 1e-6, 2e-6, kernel_size=(3, 3), sigma=(0.5, 0.5), hysteresis=False)[0]
    thinned, found = magnitude[0, 0].numpy(), np.zeros(image.shape[:2], np.float32)
    for level in THRESHOLDS:
        upper = float(level) ** 2
        count, label = cv2.connectedComponents((thinned > LOWER * upper).astype(np.uint8))
        strong = np.zeros(count, bool)
        strong[label[thinned > upper]] = True
        found[strong[label]] = level
    return found


def by_opencv_canny(image: UInt8, sigma: float) -> Float32:
    """Likewise; OpenCV's magnitudes reach 1000 and more."""
    smooth, found = cv2.GaussianBlur(image, (0, 0), sigma), np.zeros(image.shape[:2], np.float32)
    for level in THRESHOLDS:
        upper = 800 * float(level) ** 2
        found[cv2.Canny(smooth, LOWER * upper, upper, L2gradient=True) > 0] = level
    return found


def by_sobel(image: UInt8, sigma: float) -> Float32:
    """Magnitudes, thinned, on a scale on which most of them differ."""
    magnitude = sobel(_grey(image, sigma))[0, 0].numpy()
    return np.sqrt(thin_edges(np.clip(2 * magnitude, 0, 1).astype(np.float32)))


BASELINES: dict[str, Callable[..., Float32]] = {
    "kornia Canny": by_kornia_canny,
    "OpenCV Canny": by_opencv_canny,
    "kornia Sobel": by_sobel,
}


def counted(
    method: Method,
    samples: Sequence[EdgeSample],
    *,
    cache: Path | None,
    key: str,
    thresholds: Float64 = THRESHOLDS,
    workers: int | None = None,
) -> list[Counts]:
    """Counts of all images, those that the cache holds taken from there."""
    counts: list[Counts] = []
    for start in range(0, len(samples), CHUNK):
        some = samples[start : start + CHUNK]
        name = hashlib.sha256(f"{key} {thresholds.tolist()} {[each.image.name for each in some]}".encode()).hexdigest()
        path = None if cache is None else cache / f"{name[:24]}.npz"
        if path is not None and path.is_file():
            with np.load(path) as content:
                counts += [Counts(*each) for each in content["counts"]]
            continue
        found = [(method(read_image(each.image)).astype(np.float64), read_annotations(each.edges)) for each in some]
        new = count_all(found, thresholds=thresholds, workers=workers)
        if path is not None:
            with atomic_path(path) as temporary:
                np.savez(temporary, counts=np.array(new))
        counts += new
    return counts


def search(samples: Sequence[EdgeSample], workers: int | None) -> dict[str, float]:
    """The smoothing with the best ODS at a tenth of the thresholds, for each baseline."""
    some = samples[:: max(1, len(samples) // SEARCHED)][:SEARCHED]
    best = {}
    for name, method in BASELINES.items():
        ods = {}
        for sigma in SIGMAS:
            smoothed = partial(method, sigma=sigma)
            found = counted(smoothed, some, cache=None, key="", thresholds=COARSE, workers=workers)
            ods[sigma] = summarise_boundaries(found, COARSE).ods
            print(f"{name}, smoothed by {sigma:g} px: ODS {ods[sigma]:.3f}", flush=True)
        best[name] = max(ods, key=lambda each: ods[each])
    return best


def methods(model: Path, sigmas: dict[str, float]) -> dict[str, tuple[Method, str]]:
    """Each with what decides its answer."""
    detector = EdgeDetector(model)
    weights = hashlib.sha256(model.read_bytes()).hexdigest()
    told: dict[str, tuple[Method, str]] = {"tiepoint": (lambda image: detector(image).thinned, weights)}
    for name, method in BASELINES.items():
        told[name] = partial(method, sigma=sigmas[name]), f"{name} {sigmas[name]}"
    return told


def figures(options: argparse.Namespace) -> dict[str, Any]:
    """The rows of the table."""
    samples = find_samples(options.data)
    chosen = [each for each in samples if each.split == options.split][:: options.every]
    if not chosen:
        raise InputError(f"--split: {options.data} has no images of {options.split}")
    sigmas = search([each for each in samples if each.split != "test"], options.workers) if options.search else BEST
    rows: dict[str, Any] = {}
    for name, (method, key) in methods(options.model, sigmas).items():
        if options.methods and name not in options.methods:
            continue
        counts = counted(method, chosen, cache=options.cache, key=key, workers=options.workers)
        row = summarise_boundaries(counts)
        rows[name] = {
            **{each: round(float(getattr(row, each)), 4) for each in ("ods", "threshold", "ois", "ap")},
            "images": len(counts),
            "smoothing": sigmas.get(name),
            "precision": row.precision.round(4).tolist(),
            "recall": row.recall.round(4).tolist(),
        }
        print(_row(name, rows[name]), flush=True)
    bar = tqdm(chosen, desc="people", disable=None, leave=False)
    drawn = of_humans(read_annotations(each.edges) for each in bar)
    if drawn:  # more than one drawing of an image
        people = summarise_boundaries(drawn, np.array([0.5]))
        rows["people"] = {"ods": round(people.ods, 4), "ois": round(people.ois, 4), "images": len(drawn)}
        print(_row("people", rows["people"]), flush=True)
    return rows


def _row(name: str, row: dict[str, Any]) -> str:
    numbers = (f"{row[each]:.3f}" if each in row else "–" for each in ("ods", "ois", "ap", "threshold"))
    return f"{name:<14}" + "".join(f"{number:>8}" for number in numbers)


def times(options: argparse.Namespace) -> dict[str, float]:
    """Milliseconds of an image array to a map, medians over rounds in which the methods take turns."""
    cv2.setNumThreads(options.threads)
    torch.set_num_threads(options.threads)
    image = next(read_image(each.image) for each in find_samples(options.data) if each.split == "val")
    detector = EdgeDetector(options.model)
    runs: dict[str, Callable[[], object]] = {
        "tiepoint, the network": lambda: detector.probability(image),
        "tiepoint, with thinning": lambda: detector(image),
        "kornia Canny": lambda: canny(_grey(image, BEST["kornia Canny"]), 0.1, 0.25),
        "OpenCV Canny": lambda: cv2.Canny(cv2.GaussianBlur(image, (0, 0), BEST["OpenCV Canny"]), 80, 200),
        "kornia Sobel": lambda: by_sobel(image, BEST["kornia Sobel"]),
    }
    taken: dict[str, list[float]] = {name: [] for name in runs}
    for _ in range(ROUNDS + 3):
        for name, run in runs.items():
            start = time.perf_counter()
            run()
            taken[name].append(1000 * (time.perf_counter() - start))
    told = {name: round(float(np.median(each[3:])), 2) for name, each in taken.items()}
    for name, value in told.items():
        print(f"{name:<26}{value:8.1f} ms  ({image.shape[1]}×{image.shape[0]} px, {options.threads} threads)")
    return told


def main(argv: Sequence[str] | None = None) -> int:
    """Run the measurement; the exit code is 0, 1 where the work failed, 2 where the input was wrong."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="folder of BSDS500")
    parser.add_argument("--split", default="test", choices=("train", "val", "test"))
    parser.add_argument("--every", type=int, default=1, help="of the images only each so many-th")
    parser.add_argument("--model", type=Path, default=EMBEDDED, help="an .onnx file; the embedded one if not given")
    parser.add_argument("--methods", nargs="*", help="some of them alone")
    parser.add_argument("--search", action="store_true", help="search the smoothing of the others again")
    parser.add_argument("--time", action="store_true", help="measure times alone")
    parser.add_argument("--cache", type=Path, help="folder that keeps counts")
    parser.add_argument("--json", type=Path, help="write the figures here")
    parser.add_argument("--workers", type=int, help="processes that count; one a core if not given")
    parser.add_argument("--threads", type=int, default=2, help="of the others in --time; of ours by OMP_NUM_THREADS")
    options = parser.parse_args(argv)
    try:
        found: dict[str, Any] = times(options) if options.time else figures(options)
        if options.json:
            with atomic_path(options.json) as path:
                path.write_text(json.dumps(found, indent=1), encoding="utf-8")
    except (InputError, WorkError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2 if isinstance(error, InputError) else 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
