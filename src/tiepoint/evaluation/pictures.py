"""Pairs drawn with their matches, and which of these the estimated geometry kept."""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import NamedTuple

import cv2
import numpy as np
from tqdm import tqdm

from tiepoint.draw import CAPTION_HEIGHT, draw_matches
from tiepoint.errors import InputError
from tiepoint.evaluation.benchmarks import benchmark
from tiepoint.evaluation.cache import Cached, read_cached
from tiepoint.evaluation.pairs import Pair, PosePair
from tiepoint.evaluation.protocol import Protocol
from tiepoint.evaluation.results import MethodResult, PairResult, Results, SetResult
from tiepoint.evaluation.scoring import estimate_pair
from tiepoint.evaluation.standing import (
    best_errors,
    best_index,
    error_text,
    protocol_of,
    protocol_text,
    quantity,
    shown,
)
from tiepoint.images import UInt8, read_image
from tiepoint.types import Bool, Float64, GeometryKind

PICTURES = 96  # in one report: about 4 MB
EACH = 3  # best and worst pairs of a method, at most
SIDE, QUALITY, LINES = 640, 75, 150  # of a picture in a report
KINDS: Mapping[str, GeometryKind] = {"homography": "homography", "pose": "essential", "points": "fundamental"}
STRETCH = 0.05  # how far the proportions of an image may differ from those in which it was matched


class Picture(NamedTuple):
    """A pair in a report.

    Attributes:
        caption: what it shows, and why there is no picture where there is none.
        alt: the same for those who cannot see it.
        size: (height, width) in pixels.
        jpeg: the encoded picture; None where it could not be drawn.
    """

    caption: str
    alt: str
    size: tuple[int, int]
    jpeg: bytes | None


@dataclass(frozen=True, slots=True)
class Gallery:
    """The pictures of one benchmark.

    Attributes:
        note: what was chosen, and how it is drawn.
        pictures: method after method, the best pairs before the worst.
    """

    note: str
    pictures: list[Picture]


def draw_galleries(results: Results, folder: Path) -> dict[str, Gallery]:
    """Draw the best and the worst pairs of every set and method, small, no more than 96 in all.

    Args:
        results: the run.
        folder: of the run.

    Returns:
        By the set's name; without the sets that have no pairs.
    """
    sets = [found for found in results.sets if any(method.pairs for method in found.methods)]
    rows = sum(len(found.methods) for found in sets)
    each = min(EACH, PICTURES // max(2 * rows, 1))
    return {found.name: _gallery(results, found, folder, each=each, sets=len(sets)) for found in sets}


def draw_pair(
    results: Results, found: SetResult, method: MethodResult, *, pair: PairResult, folder: Path, max_lines: int = 300
) -> UInt8:
    """Draw a pair with a method's matches; green are those that agree with the geometry at the best threshold.

    The geometry is estimated again, as the protocol says. Where the truth that it takes, the cameras of a pose, is
    gone, the matches are coloured by score.

    Args:
        results: the run.
        found: the benchmark.
        method: one of its methods.
        pair: one of its pairs.
        folder: of the run.
        max_lines: how many matches are drawn at most.

    Returns:
        (H, W, 3) RGB, as `draw_matches` makes it.

    Raises:
        InputError: an image or the file of matches is missing or is not what was matched.
    """
    cached = read_cached(folder / pair.matches_file)
    images = [_as_matched(path, size) for path, size in ((pair.path0, pair.size0), (pair.path1, pair.size1))]
    inliers = _inliers(results, found, method, pair=pair, cached=cached)
    return draw_matches(images[0], images[1], cached.matches, inliers=inliers, max_lines=max_lines)


def _gallery(results: Results, found: SetResult, folder: Path, *, each: int, sets: int) -> Gallery:
    methods = found.methods if each else found.methods[: PICTURES // sets]
    wanted = [
        (method, word, index)
        for method in methods
        for word, index in _extremes(best_errors(results, found, method).tolist(), each)
    ]
    pictures = [
        _picture(results, found, method, folder=folder, index=index, word=word)
        for method, word, index in tqdm(wanted, desc=f"{shown(found.name)}: pictures", unit="picture")
    ]
    note = _chosen(each, len(methods), len(found.methods))
    return Gallery(f"{note} Sorted by {quantity(found)}. {protocol_text(results, found)}", pictures)


def _chosen(each: int, drawn: int, methods: int) -> str:
    """Which pairs are drawn, and how."""
    count = "pair" if each == 1 else f"{each} pairs"
    of = "each method" if drawn == methods else f"the first {drawn} of {methods} methods"
    pairs = f"the best and the worst {count} of {of}" if each else f"the worst pair of {of}"
    look = f"green matches agree with the geometry estimated from them, red ones do not, at most {LINES} are drawn"
    return f"Drawn here: {pairs}, at its best inlier threshold ({look}); tiepoint inspect draws more, and larger."


def _extremes(errors: list[float], each: int) -> list[tuple[str, int]]:
    """The best and then the worst pairs, no pair twice."""
    order = sorted(range(len(errors)), key=lambda index: errors[index])
    if not each:
        return [("worst", index) for index in order[-1:]]
    count = min(each, (len(order) + 1) // 2)
    worst = order[count:][::-1][:count]
    return [("best", index) for index in order[:count]] + [("worst", index) for index in worst]


def _picture(
    results: Results, found: SetResult, method: MethodResult, *, folder: Path, index: int, word: str
) -> Picture:
    pair = method.pairs[index]
    told = describe(results, found, method, pair=pair)
    caption = f"{shown(method.name)}, {word}: {shown(pair.name)}. {told}."
    try:
        picture = draw_pair(results, found, method, pair=pair, folder=folder, max_lines=LINES)
    except InputError as error:
        return Picture(f"{caption} Not drawn: {shown(str(error))}.", caption, (0, 0), None)
    # what the strip below says stands in the caption, in letters that can be read
    small = _bounded(picture[:-CAPTION_HEIGHT])
    _, encoded = cv2.imencode(".jpg", cv2.cvtColor(small, cv2.COLOR_RGB2BGR), [cv2.IMWRITE_JPEG_QUALITY, QUALITY])
    return Picture(caption, caption, (small.shape[0], small.shape[1]), encoded.tobytes())


def describe(results: Results, found: SetResult, method: MethodResult, *, pair: PairResult) -> str:
    """A method's error, matches and inliers on a pair, at its best threshold."""
    index = best_index(results, found, method)
    error = error_text(pair.errors[index], found.unit)
    return f"{error} (threshold {method.threshold:g} px), {pair.matches} matches, {pair.inliers[index]} inliers"


def _as_matched(path: str, size: tuple[int, int]) -> UInt8:
    """An image in the size in which it was matched.

    Raises:
        InputError: it cannot be read, or its proportions have changed.
    """
    image = read_image(path)
    height, width = image.shape[:2]
    if (height, width) == size:
        return image
    if abs(width / height * size[0] / size[1] - 1) > STRETCH:
        expected = f"the proportions of {size[1]}×{size[0]}, in which it was matched"
        raise InputError(f"{path} is {width}×{height} px, expected {expected}")
    return np.asarray(cv2.resize(image, (size[1], size[0]), interpolation=cv2.INTER_AREA), dtype=np.uint8)


def _inliers(
    results: Results, found: SetResult, method: MethodResult, *, pair: PairResult, cached: Cached
) -> Bool | None:
    """Which of the matches agree with the geometry that the protocol's estimator finds; None where it cannot be run."""
    try:
        protocol = Protocol(**protocol_of(results, found))
        cameras = _cameras(found, pair.name) if found.truth == "pose" else None
    except (TypeError, InputError):
        return None
    geometry = estimate_pair(
        KINDS[found.truth],
        cached.matches,
        scales=(cached.scale0, cached.scale1),
        cameras=cameras,
        protocol=protocol,
        threshold=method.threshold,
    )
    return np.pad(geometry.inliers, (0, len(cached.matches) - len(geometry.inliers)))


def _cameras(found: SetResult, name: str) -> tuple[Float64, Float64]:
    """The intrinsics of a pair, for images as stored.

    Raises:
        InputError: the benchmark cannot be read any more, or no longer has the pair.
    """
    pair = _pairs(found.name, found.folder).get(name)
    if not isinstance(pair, PosePair):
        raise InputError(f"{found.folder} has no pair {name!r} with cameras")
    return pair.K0, pair.K1


@lru_cache(maxsize=8)
def _pairs(name: str, folder: str) -> Mapping[str, Pair]:
    return {pair.name: pair for pair in benchmark(name).read(Path(folder), False).pairs}


def _bounded(picture: UInt8) -> UInt8:
    height, width = picture.shape[:2]
    scale = SIDE / max(height, width)
    return np.asarray(cv2.resize(picture, (round(width * scale), round(height * scale)), interpolation=cv2.INTER_AREA))
