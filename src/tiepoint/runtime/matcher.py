"""What every backend shares: the image policy before it, `Matches` in the images' own pixels after it."""

import os
import time
from collections.abc import Callable, Iterator, Mapping, Set
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import NamedTuple, Protocol

import numpy as np
import numpy.typing as npt

from tiepoint.errors import InputError
from tiepoint.images import ImageSource, UInt8, read_image, resize_to_long_side, to_original
from tiepoint.types import Float32, Matches

LEAST_SIDE = 8  # px: less than one cell of a detector
INPUTS = ("image0", "image1", "max_keypoints")  # of a graph from two images to matches
Points = tuple[Float32, Float32, Float32]


class Found(NamedTuple):
    """What a backend finds in a pair of images; pixels of the images handed to it, any order.

    Attributes:
        points0: (N, 2), places of the matches in image 0.
        points1: (N, 2), the same places in image 1.
        scores: (N,) in [0, 1].
        keypoints0: (M, 2), all keypoints of image 0; None where the method has no detector.
        keypoints1: likewise of image 1.
        seconds: wall time of the stages that the backend can tell apart: "extract" (both images) and "match".
    """

    points0: Float32
    points1: Float32
    scores: Float32
    keypoints0: Float32 | None = None
    keypoints1: Float32 | None = None
    seconds: Mapping[str, float] = MappingProxyType({})


class Backend(Protocol):
    """Matches two images of any size."""

    @property
    def facts(self) -> Mapping[str, str]:
        """What decides its answer beside the images: weights, options, device, versions of the code."""

    def match(self, image0: UInt8, image1: UInt8) -> Found:
        """Find the matches of two (H, W, 3) images."""


@dataclass(frozen=True, slots=True, eq=False)
class Measured:
    """A pair's matches with what a benchmark wants to know beside them.

    Attributes:
        matches: in pixels of the images as given.
        keypoints0: (M, 2), all keypoints of image 0; None where the method has no detector.
        keypoints1: likewise of image 1.
        seconds: wall time by stage, image arrays in to matches out; "match" holds what cannot be told apart.
    """

    matches: Matches
    keypoints0: Float32 | None
    keypoints1: Float32 | None
    seconds: Mapping[str, float]


class Matcher:
    """Two images in, their tie points out.

    Args:
        backend: what matches.
        name: how the model was asked for.
        long_side: larger images are shrunk to this long side before they are matched; the coordinates of the
            matches refer to the images as given all the same.

    Attributes:
        backend: what matches.
        name: how the model was asked for.
    """

    def __init__(self, backend: Backend, *, name: str, long_side: int = 1024) -> None:
        self.backend, self.name, self.long_side = backend, name, long_side

    @property
    def long_side(self) -> int:
        """The long side in pixels to which larger images are shrunk."""
        return self._long_side

    @long_side.setter
    def long_side(self, value: int) -> None:
        if value < 32:
            raise InputError(f"long_side is {value}, expected 32 px or more")
        self._long_side = value

    @property
    def fingerprint(self) -> str:
        """Everything that decides the answer beside the images, as one line that no run and no machine changes.

        Two matchers with one fingerprint find the same in the same images, up to the arithmetic of their processors.
        """
        from tiepoint import __version__

        # a weight file is known by its content, wherever it lies
        told = dict(self.backend.facts, long_side=str(self.long_side), tiepoint=__version__)
        return "; ".join([os.path.basename(self.name), *(f"{key}={told[key]}" for key in sorted(told))])

    def __call__(self, image0: ImageSource, image1: ImageSource) -> Matches:
        """Match two images.

        Args:
            image0: a path, a Pillow image, or an array (H, W) or (H, W, 3), uint8 or float in [0, 1], RGB.
            image1: likewise.

        Returns:
            The matches, best first.

        Raises:
            InputError: an image is missing, broken, too large, too small, or no image.
        """
        return self.measure(image0, image1).matches

    def measure(self, image0: ImageSource, image1: ImageSource) -> Measured:
        """Match two images and tell all keypoints and the time that it took, reading of files excluded.

        Args:
            image0: as for `__call__`.
            image1: likewise.

        Returns:
            The matches, the keypoints, and seconds by stage, whose sum is the time from image arrays to matches:
            "extract" where the method has that stage, with the shrinking of the images, and "match" for the rest.

        Raises:
            InputError: as for `__call__`.
        """
        full0, full1 = read_usable(image0, name="image 0"), read_usable(image1, name="image 1")
        start = time.perf_counter()
        small0, scale0 = resize_to_long_side(full0, self.long_side)
        small1, scale1 = resize_to_long_side(full1, self.long_side)
        shrunk = time.perf_counter() - start
        found = self.backend.match(small0, small1)
        order = np.argsort(-found.scores, kind="stable")
        matches = Matches(
            to_original(found.points0, scale0)[order],
            to_original(found.points1, scale1)[order],
            found.scores[order],
            (full0.shape[0], full0.shape[1]),
            (full1.shape[0], full1.shape[1]),
        )
        seconds = {"extract": found.seconds["extract"] + shrunk} if "extract" in found.seconds else {}
        seconds["match"] = time.perf_counter() - start - sum(seconds.values())
        keypoints0, keypoints1 = (
            None if points is None else to_original(points, scale)
            for points, scale in ((found.keypoints0, scale0), (found.keypoints1, scale1))
        )
        return Measured(matches, keypoints0, keypoints1, seconds)


@contextmanager
def timed(seconds: dict[str, float], stage: str, *, wait: Callable[[], object] | None = None) -> Iterator[None]:
    """Adds the wall time of a block to a stage.

    Args:
        seconds: by stage, changed in place.
        stage: "extract" or "match".
        wait: called before the clock is read; what a GPU was told to do goes on until it is waited for.
    """
    if wait:
        wait()
    start = time.perf_counter()
    yield
    if wait:
        wait()
    seconds[stage] = seconds.get(stage, 0.0) + time.perf_counter() - start


def read_usable(source: ImageSource, *, name: str) -> UInt8:
    """Read an image as `read_image` does, and refuse one too small to hold a keypoint.

    Args:
        source: a path, a Pillow image or an array.
        name: what an error message calls an image that has no file name.

    Raises:
        InputError: as for `read_image`, or a side is shorter than 8 px.
    """
    image = read_image(source, name=name)
    height, width = image.shape[:2]
    if min(height, width) < LEAST_SIDE:
        title = source if isinstance(source, str | os.PathLike) else name
        raise InputError(f"{title} is {width}×{height} px, expected sides of {LEAST_SIDE} px or more")
    return image


class PaddedMatches(NamedTuple):
    """What the two-view graph returns for a batch of pairs, as arrays; the fields of `models.twoview.TwoViewMatches`.

    Attributes:
        keypoints0: (B, K, 2) float32, pixels of image 0.
        keypoints1: (B, K, 2) float32, pixels of image 1.
        keypoint_scores0: (B, K) float32, 0 where padded.
        keypoint_scores1: (B, K) float32, 0 where padded.
        matches0: (B, K) int64, for each keypoint of image 0 its partner, -1 for none.
        scores: (B, K) float32, of the matches.
    """

    keypoints0: Float32
    keypoints1: Float32
    keypoint_scores0: Float32
    keypoint_scores1: Float32
    matches0: npt.NDArray[np.int64]
    scores: Float32

    def found(self, index: int, seconds: Mapping[str, float] = MappingProxyType({})) -> Found:
        """One pair of the batch, with its keypoints and the time that it took."""
        keypoints0 = self.keypoints0[index][self.keypoint_scores0[index] > 0]
        keypoints1 = self.keypoints1[index][self.keypoint_scores1[index] > 0]
        return Found(*self.points(index), keypoints0, keypoints1, seconds)

    def points(self, index: int) -> Points:
        """The matches of one pair of the batch: places (N, 2) in both images and scores (N,)."""
        matches0 = self.matches0[index]
        chosen = np.flatnonzero(matches0 >= 0)
        partners = self.keypoints1[index][matches0[chosen]]
        return self.keypoints0[index][chosen], partners, self.scores[index][chosen]


def existing_graph(path: Path) -> None:
    """Refuses a path where there is no file.

    Raises:
        InputError: there is none.
    """
    if not path.is_file():
        raise InputError(f"{path} {'is a folder' if path.is_dir() else 'does not exist'}, expected an .onnx file")


def check_graph(path: Path, inputs: Set[str], outputs: Set[str]) -> None:
    """Refuses an ONNX file of another shape than `PaddedMatches` needs.

    Args:
        path: the file.
        inputs: names.
        outputs: names.

    Raises:
        InputError: they are others.
    """
    if inputs != set(INPUTS) or not outputs >= set(PaddedMatches._fields):
        raise InputError(
            f"{path} is an ONNX graph from {', '.join(sorted(inputs))} to {', '.join(sorted(outputs))}, "
            f"expected one from {', '.join(INPUTS)} to {', '.join(PaddedMatches._fields)}, "
            "as `tiepoint convert` writes it"
        )
