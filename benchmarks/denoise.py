"""Denoising beside BM3D, OpenCV's non-local means and kornia's filters.

python benchmarks/denoise.py --data DATA --cache cache --json denoise.json
python benchmarks/denoise.py --data DATA --search
python benchmarks/denoise.py --data DATA --time
python benchmarks/denoise.py --data DATA --matching

Set12 (grey) and CBSD68 (colour) with white noise of 15, 25 and 50 grey levels, not clipped, the same for every method
and the same as in `tiepoint test`. All but ours are told the true strength, at the settings that --search has found
best on photographs that are not tested. Non-local means takes eight bits: its input is clipped. --cache keeps the
figures of each image. --matching adds the noise of little light to the pairs of known pose, once they are resized, and
matches them with and without `tiepoint match --denoise`.
"""

import argparse
import hashlib
import json
import sys
import time
import zlib
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from itertools import product
from pathlib import Path
from typing import Any, NamedTuple

import cv2
import numpy as np
import torch
from kornia.filters import bilateral_blur, guided_blur, median_blur
from tqdm import tqdm

from tiepoint.data.noisy import SIGMAS, listed
from tiepoint.denoise import EMBEDDED, Denoiser
from tiepoint.draw import write_picture
from tiepoint.errors import InputError, WorkError
from tiepoint.evaluation.cache import Cached
from tiepoint.evaluation.matching import Views, read_views
from tiepoint.evaluation.methods import NEVER_SHRINK
from tiepoint.evaluation.pairs import PosePair
from tiepoint.evaluation.protocol import Protocol
from tiepoint.evaluation.results import MethodResult, PairResult
from tiepoint.evaluation.sets import read_set
from tiepoint.evaluation.summary import compare, summarise
from tiepoint.evaluation.workers import pair_result
from tiepoint.files import atomic_path
from tiepoint.images import UInt8, read_image
from tiepoint.ops.noise import gaussian_noise, psnr, ssim
from tiepoint.runtime import load
from tiepoint.runtime.matcher import Matcher
from tiepoint.types import Float32

Setting = tuple[Any, ...]
Method = Callable[..., Float32]
SETS = {"set12": "denoise/set12", "cbsd68": "denoise/cbsd68.txt"}
SEARCHED, WINDOW = 4, 192  # photographs of BSDS500's train that --search looks at, and the side of their middle
ROUNDS = 9
LIGHTS = (1.0, 0.2, 0.05, 0.02)
SHOT, READ = 0.02, 0.004  # of a sensor of 2500 electrons: deviations at full light, and without any

# what --search tries; see the methods for what the numbers are
TRIED: dict[str, list[Setting]] = {
    "BM3D": [("np",), ("vn",), ("high",)],
    "OpenCV non-local means": list(product((0.3, 0.45, 0.6, 0.8, 1.0, 1.2), (0.3, 0.6, 1.0), (3, 5, 7))),
    "kornia bilateral": list(product((1.0, 1.5, 2.0, 3.0, 4.0), (1.5, 2.0, 3.0, 4.0, 6.0))),
    "kornia guided": list(product((3, 5, 7, 9, 13), (1.0, 2.0, 4.0, 8.0, 16.0))),
    "kornia median": [(3,), (5,), (7,), (9,)],
}
# and found best at 15, 25 and 50 grey levels; of BM3D only on grey images at 15 and 25, "high" is taken for the rest
BEST: dict[str, dict[str, list[Setting]]] = {
    "BM3D": {"grey": [("high",)] * 3, "colour": [("high",)] * 3},
    "OpenCV non-local means": {
        "grey": [(1.0, 1.0, 3), (1.0, 1.0, 3), (0.8, 1.0, 5)],
        "colour": [(0.45, 0.6, 3), (0.6, 0.6, 3), (0.6, 0.6, 3)],
    },
    "kornia bilateral": {"grey": [(1.5, 2.0), (1.5, 3.0), (2.0, 4.0)], "colour": [(3.0, 3.0), (2.0, 4.0), (3.0, 4.0)]},
    "kornia guided": {"grey": [(3, 4.0), (3, 8.0), (5, 8.0)], "colour": [(5, 4.0), (5, 4.0), (7, 8.0)]},
    "kornia median": {"grey": [(3,), (3,), (7,)], "colour": [(3,), (3,), (7,)]},
}


class Noisy(NamedTuple):
    """An image of a set with its noise, (H, W) or (H, W, 3), white at 1, and what tells it from all others."""

    name: str
    clean: Float32
    noisy: Float32
    sigma: int

    @property
    def kind(self) -> str:
        """Grey or colour."""
        return "grey" if self.clean.ndim == 2 else "colour"


def by_bm3d(image: Float32, sigma: float, profile: str, threads: int = 0) -> Float32:
    """BM3D (Dabov et al., TIP 2007), as its authors publish it; "np", its normal profile, is its default."""
    try:
        import bm3d
    except ImportError as error:
        raise InputError(f"BM3D needs {error.name}: pip install 'tiepoint[bm3d]'") from error
    profiles = {"np": bm3d.BM3DProfile, "vn": bm3d.BM3DProfileVN, "high": bm3d.BM3DProfileHigh}
    chosen = profiles[profile]()
    chosen.num_threads = threads
    denoise = bm3d.bm3d if image.ndim == 2 else bm3d.bm3d_rgb
    return np.asarray(denoise(image.astype(np.float64), sigma / 255, chosen), np.float32).reshape(image.shape)


def by_non_local_means(image: Float32, sigma: float, strength: float, colours: float, template: int) -> Float32:
    """Strengths for brightness and colours in deviations of the noise, side of the patches, which 21×21 px hold."""
    pixels = np.rint(255 * image.clip(0, 1)).astype(np.uint8)
    if image.ndim == 2:
        found = cv2.fastNlMeansDenoising(pixels, None, strength * sigma, template, 21)
    else:
        found = cv2.fastNlMeansDenoisingColored(pixels, None, strength * sigma, colours * sigma, template, 21)
    return np.asarray(found, np.float32) / np.float32(255)


def by_bilateral(image: Float32, sigma: float, space: float, colour: float) -> Float32:
    """Deviations in space, pixels, and in colour, deviations of the noise."""
    size = 4 * round(space) + 1
    return _array(bilateral_blur(_tensor(image), size, colour * sigma / 255, (space, space)), image)


def by_guided(image: Float32, sigma: float, size: int, smoothing: float) -> Float32:
    """Side of the windows, and the regularisation in variances of the noise; the image is its own guide."""
    noisy = _tensor(image)
    return _array(guided_blur(noisy, noisy, size, smoothing * (sigma / 255) ** 2), image)


def by_median(image: Float32, sigma: float, size: int) -> Float32:
    """Side of the windows."""
    return _array(median_blur(_tensor(image), size), image)


BASELINES: dict[str, Method] = {
    "BM3D": by_bm3d,
    "OpenCV non-local means": by_non_local_means,
    "kornia bilateral": by_bilateral,
    "kornia guided": by_guided,
    "kornia median": by_median,
}


def _tensor(image: Float32) -> torch.Tensor:
    """(1, C, H, W)."""
    return torch.from_numpy(np.ascontiguousarray(np.atleast_3d(image).transpose(2, 0, 1)))[None]


def _array(found: torch.Tensor, like: Float32) -> Float32:
    return np.asarray(found[0].permute(1, 2, 0).numpy().reshape(like.shape), np.float32)


def read_clean(path: Path) -> Float32:
    """(H, W) of a grey image, (H, W, 3) of others, white at 1."""
    pixels = read_image(path)
    grey = bool((pixels == pixels[..., :1]).all())
    return np.asarray(pixels[..., 0] if grey else pixels, np.float32) / np.float32(255)


def with_noise(clean: Float32, sigma: int, index: int, name: str) -> Noisy:
    """The noise that `DenoiseTask` tests with."""
    generator = torch.Generator().manual_seed(1000 * sigma + index)
    noisy = gaussian_noise(_tensor(clean), torch.tensor([float(sigma)]), generator=generator)
    return Noisy(f"{name} {sigma}", clean, _array(noisy, clean), sigma)


def measured(found: Float32, clean: Float32) -> tuple[float, float]:
    """PSNR in decibels, and SSIM."""
    pair = _tensor(found), _tensor(clean)
    return float(psnr(*pair)), float(ssim(*pair))


def search(options: argparse.Namespace) -> dict[str, Any]:
    """The setting with the best mean PSNR, for each baseline, kind of image and strength."""
    paths = listed(options.data / "bsds500" / "images" / "train")
    best: dict[str, dict[str, list[Setting]]] = {}
    for name in chosen_methods(options, BASELINES):
        best[name] = {"grey": [], "colour": []}
        for kind, sigma in product(best[name], SIGMAS):
            windows = list(_windows(paths, kind, sigma))
            tried = TRIED[name]
            if name == "OpenCV non-local means" and kind == "grey":  # which has no colours
                tried = [setting for setting in tried if setting[1] == 1.0]
            means = {setting: _mean_psnr(BASELINES[name], setting, windows) for setting in tried}
            winner = max(means, key=lambda each: means[each])
            best[name][kind].append(winner)
            print(f"{name}, {kind}, {sigma}: {winner} gives {means[winner]:.2f} dB", flush=True)
    return best


def _windows(paths: Sequence[Path], kind: str, sigma: int) -> Iterator[Noisy]:
    """The middle of some of the photographs, with noise."""
    for index, path in enumerate(paths[:: max(1, len(paths) // SEARCHED)][:SEARCHED]):
        clean = read_clean(path)
        top, left = (max(0, (side - WINDOW) // 2) for side in clean.shape[:2])
        clean = np.ascontiguousarray(clean[top : top + WINDOW, left : left + WINDOW])
        if kind == "grey" and clean.ndim == 3:
            clean = cv2.cvtColor(clean, cv2.COLOR_RGB2GRAY)
        yield with_noise(clean, sigma, index, path.stem)


def _mean_psnr(method: Method, setting: Setting, images: Sequence[Noisy]) -> float:
    found = [measured(method(each.noisy, each.sigma, *setting), each.clean)[0] for each in images]
    return float(np.mean(found))


def methods(options: argparse.Namespace, best: dict[str, dict[str, list[Setting]]]) -> dict[str, tuple[Any, Any]]:
    """Each by name: what denoises a `Noisy`, and what decides its answer to it."""
    denoiser = Denoiser(options.model)
    told: dict[str, tuple[Any, Any]] = {
        "tiepoint": (lambda each: denoiser(each.noisy).image, lambda each: denoiser.facts["weights"])
    }
    for name, method in BASELINES.items():
        setting = partial(_setting, best.get(name, {}))
        told[name] = (
            lambda each, method=method, setting=setting: method(each.noisy, each.sigma, *setting(each)),
            lambda each, name=name, setting=setting: f"{name} {setting(each)}",
        )
    return {name: told[name] for name in chosen_methods(options, told)}


def _setting(best: dict[str, list[Setting]], each: Noisy) -> Setting:
    return best[each.kind][SIGMAS.index(each.sigma)]


def chosen_methods(options: argparse.Namespace, known: Sequence[str] | dict[str, Any]) -> list[str]:
    """Those of --methods, in the order of the table; all without."""
    wrong = [name for name in options.methods or () if name not in ("tiepoint", *BASELINES)]
    if wrong:
        raise InputError(f"--methods: there is no {wrong[0]!r}, expected some of tiepoint, {', '.join(BASELINES)}")
    return [name for name in known if not options.methods or name in options.methods]


def figures(options: argparse.Namespace) -> dict[str, Any]:
    """The rows of the tables, by set and method."""
    chosen = methods(options, BEST)
    rows: dict[str, Any] = {}
    for name in options.sets:
        images = list(enumerate(listed(options.data / SETS[name])))[:: options.every]
        print(f"\n{name}, {len(images)} images: PSNR and SSIM at {', '.join(map(str, SIGMAS))} grey levels", flush=True)
        rows[name] = {}
        for method, (denoise, key) in chosen.items():
            row: dict[str, Any] = {"images": len(images)}
            for sigma in SIGMAS:
                found = []
                for index, path in tqdm(images, desc=f"{method} {sigma}", disable=None, leave=False):
                    each = with_noise(read_clean(path), sigma, index, f"{name} {path.stem}")
                    found.append(_cached(options.cache, f"{each.name} {key(each)}", denoise, each))
                row[str(sigma)] = np.mean(found, axis=0).round(4).tolist()
            rows[name][method] = row
            cells = "".join(f"{row[str(sigma)][0]:8.2f} {row[str(sigma)][1]:.4f}" for sigma in SIGMAS)
            print(f"{method:<24}{cells}", flush=True)
    return rows


def _cached(cache: Path | None, key: str, denoise: Callable[[Noisy], Float32], each: Noisy) -> tuple[float, float]:
    """The figures of one image, taken from the cache if it holds them."""
    path = None if cache is None else cache / f"{hashlib.sha256(key.encode()).hexdigest()[:24]}.json"
    if path is not None and path.is_file():
        first, second = json.loads(path.read_text(encoding="utf-8"))
        return first, second
    found = measured(denoise(each), each.clean)
    if path is not None:
        with atomic_path(path) as temporary:
            temporary.write_text(json.dumps(found), encoding="utf-8")
    return found


def times(options: argparse.Namespace) -> dict[str, Any]:
    """Seconds of an array to an array, medians over rounds in which the methods take turns."""
    path = next(path for path in listed(options.data / SETS["set12"]) if read_clean(path).shape == (512, 512))
    each = with_noise(read_clean(path), 25, 0, path.stem)
    chosen = methods(options, BEST)
    if "BM3D" in chosen:
        (profile,) = _setting(BEST["BM3D"], each)
        chosen["BM3D"] = (lambda each: by_bm3d(each.noisy, each.sigma, profile, options.threads), None)
    taken: dict[str, list[float]] = {name: [] for name in chosen}
    for _ in range(ROUNDS + 1):
        for name, (denoise, _) in chosen.items():
            start = time.perf_counter()
            denoise(each)
            taken[name].append(time.perf_counter() - start)
    told = {name: round(float(np.median(some[1:])), 4) for name, some in taken.items()}
    for name, value in told.items():
        print(f"{name:<24}{value:8.3f} s  (512×512 px, grey, noise of 25, {options.threads} threads)")
    return told


def in_little_light(image: UInt8, light: float, seed: int) -> UInt8:
    """A photograph that a camera has amplified, since only this share of the light was there; as it is at 1.

    Shot noise grows with the square root of the light, read noise does not (Foi et al., TIP 2008); `ops.noise` has
    more of it for training.
    """
    if light == 1:
        return image
    dark = light * (image / 255.0)
    noise = np.random.default_rng(seed).standard_normal(image.shape)
    amplified = (dark + np.sqrt(SHOT**2 * dark + READ**2) * noise) / light
    return np.asarray(np.rint(255 * amplified.clip(0, 1)), np.uint8)


def matching(options: argparse.Namespace) -> dict[str, Any]:
    """AUC of the pose of each matcher, with and without denoising, by the protocol of `tiepoint benchmark`."""
    found = read_set("pose", options.data / "pose", protocol="tiepoint", strict=False)
    pairs = [pair for pair in found.pairs if isinstance(pair, PosePair)][:: options.every]
    matchers: dict[str, Matcher] = {}
    for name, denoise in product(options.matchers, (False, True)):
        matcher = load(name, max_keypoints=found.protocol.max_keypoints, denoise=denoise)
        matcher.long_side = NEVER_SHRINK
        matchers[f"{name}, denoised" if denoise else name] = matcher
    rules: dict[str, Any] = {"truth": "pose", "limits": found.benchmark.limits, "thresholds": found.protocol.thresholds}
    rows: dict[str, Any] = {}
    for light in LIGHTS:
        results: dict[str, list[PairResult]] = {name: [] for name in matchers}
        for pair in tqdm(pairs, desc=f"light {light:g}", disable=None, leave=False):
            views = _dark_views(pair, light, found.protocol)
            for name, matcher in matchers.items():
                told = matcher.measure(views.image0, views.image1)
                kept = Cached(told.matches, told.keypoints0, told.keypoints1, views.scale0, views.scale1, told.seconds)
                results[name].append(
                    pair_result(pair, kept, file="", protocol=found.protocol, limits=found.benchmark.limits)
                )
        summed = {name: summarise(name, some, **rules) for name, some in results.items()}
        rows[f"{light:g}"] = {name: _matching_row(name, summed, rules) for name in summed}
        print(f"\nlight {light:g}, {len(pairs)} pairs: AUC at {', '.join(map(str, found.benchmark.limits))} degrees")
        for name, row in rows[f"{light:g}"].items():
            cells = "".join(f"{value:8.1f}" for value in row["figures"].values())
            print(f"{name:<24}{cells}  {row['matches']:.0f} matches  {row.get('gain', '')}", flush=True)
    return rows


def _matching_row(name: str, summed: dict[str, MethodResult], rules: dict[str, Any]) -> dict[str, Any]:
    """The figures of a matcher; with denoising also what is gained, and whether that is inside its noise."""
    mine = summed[name]
    row: dict[str, Any] = {"figures": mine.figures, "threshold": mine.threshold, "matches": mine.matches}
    plain = name.removesuffix(", denoised")
    if plain != name:
        gained = compare(mine, summed[plain], **rules)
        row["gain"] = f"{gained.difference:+.1f} [{gained.low:+.1f}, {gained.high:+.1f}]"
    return row


def _dark_views(pair: PosePair, light: float, protocol: Protocol) -> Views:
    """The images of a pair, resized, and then short of light; an image has the same noise in every pair."""
    views = read_views(pair, protocol)
    dark = [
        in_little_light(image, light, zlib.crc32(f"{path.name} {light}".encode()))
        for image, path in ((views.image0, pair.path0), (views.image1, pair.path1))
    ]
    return views._replace(image0=dark[0], image1=dark[1])


def picture(options: argparse.Namespace) -> dict[str, Any]:
    """Draw a photograph in a twentieth of the light, the same without the noise, and as it was, side by side."""
    from skimage import data

    clean = np.ascontiguousarray(data.astronaut()[:300, 60:360])
    noisy = in_little_light(clean, 0.05, 0)
    found = Denoiser(options.model)(noisy).image
    write_picture(options.picture, np.hstack((noisy, found, clean)))
    return {}


def main(argv: Sequence[str] | None = None) -> int:
    """Run the measurement; the exit code is 0, 1 where the work failed, 2 where the input was wrong."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, default=Path(), help="folder of denoise/, bsds500/ and pose/")
    parser.add_argument("--sets", nargs="+", default=list(SETS), choices=list(SETS))
    parser.add_argument("--every", type=int, default=1, help="of the images, or pairs, only each so many-th")
    parser.add_argument("--model", type=Path, default=EMBEDDED, help="an .onnx file; the embedded one if not given")
    parser.add_argument("--methods", nargs="+", help="some of them alone")
    parser.add_argument("--search", action="store_true", help="search the settings of the others, and do nothing else")
    parser.add_argument("--time", action="store_true", help="measure times alone")
    parser.add_argument("--matching", action="store_true", help="measure what denoising does for matching alone")
    parser.add_argument("--matchers", nargs="+", default=["default", "sift"], help="of --matching")
    parser.add_argument("--picture", type=Path, help="draw the picture of docs/denoise.md here, and do nothing else")
    parser.add_argument("--cache", type=Path, help="folder that keeps the figures of each image")
    parser.add_argument("--json", type=Path, help="write the figures here")
    parser.add_argument("--threads", type=int, default=2, help="of the others; of ours by OMP_NUM_THREADS")
    options = parser.parse_args(argv)
    try:
        work = search if options.search else times if options.time else matching if options.matching else figures
        work = picture if options.picture else work
        cv2.setNumThreads(options.threads)
        torch.set_num_threads(options.threads)
        found: dict[str, Any] = work(options)
        if options.json:
            with atomic_path(options.json) as path:
                path.write_text(json.dumps(found, indent=1), encoding="utf-8")
    except (InputError, WorkError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2 if isinstance(error, InputError) else 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
