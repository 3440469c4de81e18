"""Pairs of images with a known truth, and the benchmarks that hold them."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, NamedTuple

from tiepoint.types import Float64

Truth = Literal["homography", "pose", "points"]


@dataclass(frozen=True, slots=True, eq=False)
class HomographyPair:
    """Two images related by a known homography.

    Attributes:
        name: "sequence/1-k".
        path0: image 0.
        path1: image 1.
        H_0to1: (3, 3) float64, pixels of image 0 to image 1 as stored.
    """

    name: str
    path0: Path
    path1: Path
    H_0to1: Float64


@dataclass(frozen=True, slots=True, eq=False)
class PosePair:
    """Two images of pinhole cameras with known intrinsics and relative pose.

    Attributes:
        name: "image0 image1", as the list writes them.
        path0: image 0.
        path1: image 1.
        K0: (3, 3) float64, intrinsics in pixels of image 0 as stored.
        K1: (3, 3) float64, intrinsics in pixels of image 1 as stored.
        T_0to1: (4, 4) float64, camera-0 to camera-1 coordinates.
    """

    name: str
    path0: Path
    path1: Path
    K0: Float64
    K1: Float64
    T_0to1: Float64


@dataclass(frozen=True, slots=True, eq=False)
class PointPair:
    """Two images with places that a person marked in both.

    Attributes:
        name: "sequence/1-2".
        path0: image 0.
        path1: image 1.
        points0: (N, 2) float64, pixels of image 0 as stored.
        points1: (N, 2) float64, the same places in image 1.
    """

    name: str
    path0: Path
    path1: Path
    points0: Float64
    points1: Float64


Pair = HomographyPair | PosePair | PointPair


class PairList(NamedTuple):
    """What a reader found.

    Attributes:
        pairs: the usable pairs, in a fixed order.
        left_out: one sentence for each pair that is not usable: which, what was found, what was expected.
    """

    pairs: list[Pair]
    left_out: list[str]


@dataclass(frozen=True, slots=True)
class Archive:
    """A public file that a benchmark can be fetched from.

    Attributes:
        url: where it lies.
        sha256: of its content; None where the publisher states none (the first download's is then kept and held to).
        md5: of its content, where the publisher states that sum.
        size: in bytes, as the publisher's server says; None where unknown.
    """

    url: str
    sha256: str | None = None
    md5: str | None = None
    size: int | None = None


@dataclass(frozen=True, slots=True)
class Benchmark:
    """A public set of pairs: how it is read, what it measures, and whose it is.

    Each module of `tiepoint.evaluation.benchmarks` offers one as `BENCHMARK`; the module's name is the benchmark's.

    Attributes:
        title: what it is, in a few words.
        truth: what is known of its pairs.
        limits: thresholds of its figures: pixels of the corner error, degrees of the pose error, or pixels of the
            marked points' distances.
        folder: where it lies under a folder that holds several benchmarks.
        licence: the terms of the data.
        source: the paper or page to cite.
        read: reads a folder; with `strict` the first unusable pair raises `InputError`, without it is left out.
        archives: what to download, for public data.
    """

    title: str
    truth: Truth
    limits: tuple[float, ...]
    folder: str
    licence: str
    source: str
    read: Callable[[Path, bool], PairList]
    archives: tuple[Archive, ...] = ()
