"""What every backend shares: the image policy before it, `Matches` in the images' own pixels after it."""

from typing import Protocol

import numpy as np

from tiepoint.errors import InputError
from tiepoint.images import ImageSource, UInt8, read_image, resize_to_long_side, to_original
from tiepoint.types import Float32, Matches

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
        if long_side < 32:
            raise InputError(f"long_side is {long_side}, expected 32 px or more")
        self._backend, self.name, self.long_side = backend, name, long_side

    def __call__(self, image0: ImageSource, image1: ImageSource) -> Matches:
        """Match two images.

        Args:
            image0: a path, a Pillow image, or an array (H, W) or (H, W, 3), uint8 or float in [0, 1], RGB.
            image1: likewise.

        Returns:
            The matches, best first.

        Raises:
            InputError: an image is missing, broken, too large, or no image.
        """
        full0, full1 = read_image(image0, name="image 0"), read_image(image1, name="image 1")
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


def select_matches(keypoints0: Float32, keypoints1: Float32, matches0: np.ndarray, scores: Float32) -> Points:
    """The matched ones of padded keypoints.

    Args:
        keypoints0: (K, 2), pixels.
        keypoints1: (K, 2), pixels.
        matches0: (K,) integers, for each keypoint of image 0 its partner, -1 for none.
        scores: (K,), of the matches.
    """
    chosen = np.flatnonzero(matches0 >= 0)
    return keypoints0[chosen], keypoints1[matches0[chosen]], scores[chosen]
