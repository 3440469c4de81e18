"""The first half of a benchmark run: every method on every pair of a set, each answer kept as soon as it is there."""

import json
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from tqdm import tqdm

from tiepoint.errors import InputError, WorkError
from tiepoint.evaluation.cache import Cached, cache_key, cache_path, is_cached, write_cached
from tiepoint.evaluation.frames import Scale, resize
from tiepoint.evaluation.methods import Method
from tiepoint.evaluation.pairs import Pair
from tiepoint.evaluation.protocol import Protocol
from tiepoint.images import UInt8
from tiepoint.runtime.matcher import LEAST_SIDE, read_usable

RESIZING = ("long_side", "short_side", "exact_size", "enlarge", "divisible_by", "interpolation", "max_keypoints")


class Views(NamedTuple):
    """A pair's images as a protocol resizes them.

    Attributes:
        image0: (H, W, 3).
        image1: (H, W, 3).
        scale0: (sx, sy) of image 0, resized to stored.
        scale1: the same of image 1.
        seconds: to decode and resize both.
    """

    image0: UInt8
    image1: UInt8
    scale0: Scale
    scale1: Scale
    seconds: float


@dataclass(frozen=True, slots=True)
class MatchedSet:
    """A set whose pairs have been matched.

    Attributes:
        pairs: those that could be used, in the set's order.
        files: for each of these pairs its matches, one file a method.
        left_out: one sentence for each pair whose images cannot be used.
    """

    pairs: list[Pair]
    files: list[list[Path]]
    left_out: list[str]


def read_views(pair: Pair, protocol: Protocol) -> Views:
    """Read a pair's images and resize them.

    Raises:
        InputError: an image cannot be read, or is too small to hold a keypoint.
    """
    start = time.perf_counter()
    (image0, scale0), (image1, scale1) = (_read(path, protocol) for path in (pair.path0, pair.path1))
    return Views(image0, image1, scale0, scale1, time.perf_counter() - start)


def measure(method: Method, views: Views) -> Cached:
    """Match a pair's images by one method."""
    found = method.measure(views.image0, views.image1)
    seconds = {"read": views.seconds, **found.seconds}
    return Cached(found.matches, found.keypoints0, found.keypoints1, views.scale0, views.scale1, seconds)


def match_set(
    name: str, pairs: Sequence[Pair], methods: Sequence[Method], *, protocol: Protocol, folder: Path, strict: bool
) -> MatchedSet:
    """Match the pairs of a set, the methods in turn on each; what is on disk already is not matched again.

    Args:
        name: of the set.
        pairs: its pairs.
        methods: loaded or not; those whose matches are all there are not loaded.
        protocol: how images are resized.
        folder: where matches are kept.
        strict: whether a pair whose images cannot be used ends the run, or is left out.

    Raises:
        InputError: with `strict`, an image cannot be used.
        WorkError: a method failed on a pair.
    """
    matched = MatchedSet([], [], [])
    identities = [_identity(method, protocol) for method in methods]
    for pair in tqdm(pairs, desc=name, unit="pair"):
        files = [
            cache_path(folder, set_name=name, method=method.name, identity=identity, pair=pair.name)
            for method, identity in zip(methods, identities, strict=True)
        ]
        try:
            keys = [cache_key(identity, pair.path0, pair.path1) for identity in identities]
            missing = [each for each in zip(methods, files, keys, strict=True) if not is_cached(each[1], each[2])]
            views = read_views(pair, protocol) if missing else None
        except InputError as error:
            if strict:
                raise
            matched.left_out.append(f"{pair.name}: {error}")
            continue
        if views is not None:
            for method, file, key in missing:
                write_cached(file, _measured(method, views, pair), key)
        matched.pairs.append(pair)
        matched.files.append(files)
    return matched


def _measured(method: Method, views: Views, pair: Pair) -> Cached:
    try:
        return measure(method, views)
    except Exception as error:  # of a foreign network anything may come
        raise WorkError(f"{method.name} failed on {pair.name}: {type(error).__name__}: {error}") from error


def _identity(method: Method, protocol: Protocol) -> str:
    """What decides a method's matches beside the images as stored."""
    resizing = {key: getattr(protocol, key) for key in RESIZING}
    return json.dumps({"fingerprint": method.fingerprint, **resizing})


def _read(path: Path, protocol: Protocol) -> tuple[UInt8, Scale]:
    image, scale = resize(read_usable(path, name="image"), protocol)
    height, width = image.shape[:2]
    if min(height, width) < LEAST_SIDE:
        raise InputError(f"{path} is {width}×{height} px once resized, expected sides of {LEAST_SIDE} px or more")
    return image, scale
