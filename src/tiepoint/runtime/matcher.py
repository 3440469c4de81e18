"""What every backend shares: the image policy before it, `Matches` in the images' own pixels after it."""

import os
from typing import NamedTuple, Protocol

import numpy as np
import numpy.typing as npt

from tiepoint.errors import InputError
from tiepoint.images import ImageSource, UInt8, read_image, resize_to_long_side, to_original
from tiepoint.types import Float32, Matches

LEAST_SIDE = 8  # px: less than one cell of a detector
Points = tuple[Float32, Float32, Float32]


class Backend(Protocol):
    """Matches two images of any size."""

    def match(self, image0: UInt8, image1: UInt8) -> Points:
        """The places (N, 2) of the matches in both images, pixels, and their scores (N,) in [0, 1], any order."""


class Matcher:
    """Two images in, their tie points out.

    Args:
        backend: what matches.
        name: how the model was asked for.
        long_side: larger images are shrunk to this long side before they are matched; the coordinates of the
            matches refer to the images as given all the same.
    """

    def __init__(self, backend: Backend, *, name: str, long_side: int = 1024) -> None:
        self._backend, self.name, self.long_side = backend, name, long_side

    @property
    def long_side(self) -> int:
        """The long side in pixels to which larger images are shrunk."""
        return self._long_side

    @long_side.setter
    def long_side(self, value: int) -> None:
        if value < 32:
            raise InputError(f"long_side is {value}, expected 32 px or more")
        self._long_side = value

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
        full0, full1 = read_usable(image0, name="image 0"), read_usable(image1, name="image 1")
        small0, scale0 = resize_to_long_side(full0, self.long_side)
        small1, scale1 = resize_to_long_side(full1, self.long_side)
        points0, points1, scores = self._backend.match(small0, small1)
        order = np.argsort(-scores, kind="stable")
        return Matches(
            to_original(points0, scale0)[order],
            to_original(points1, scale1)[order],
            scores[order],
            (full0.shape[0], full0.shape[1]),
            (full1.shape[0], full1.shape[1]),
        )


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

    def points(self, index: int) -> Points:
        """The matches of one pair of the batch: places (N, 2) in both images and scores (N,)."""
        matches0 = self.matches0[index]
        chosen = np.flatnonzero(matches0 >= 0)
        partners = self.keypoints1[index][matches0[chosen]]
        return self.keypoints0[index][chosen], partners, self.scores[index][chosen]
