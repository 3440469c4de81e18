"""The values that travel: every matcher produces `Matches`, every estimator `TwoViewGeometry`."""

from dataclasses import dataclass
from typing import Literal

import numpy as np
import numpy.typing as npt

Float32 = npt.NDArray[np.float32]
Float64 = npt.NDArray[np.float64]
Bool = npt.NDArray[np.bool_]

GeometryKind = Literal["homography", "fundamental", "essential"]


@dataclass(frozen=True, slots=True, eq=False)
class Matches:
    """The tie points of two images, best first.

    Pixel coordinates are (x, y) with the centre of the top-left pixel at (0, 0), in the images as given
    (after their EXIF orientation). Having no match is an ordinary result: arrays of length zero.

    Attributes:
        keypoints0: (N, 2) float32, places in image 0.
        keypoints1: (N, 2) float32, the same places in image 1.
        scores: (N,) float32 in [0, 1], falling.
        size0: (height, width) of image 0 in pixels.
        size1: (height, width) of image 1 in pixels.

    Raises:
        ValueError: an array has the wrong shape or a value that is not finite, or scores are out of order.
    """

    keypoints0: Float32
    keypoints1: Float32
    scores: Float32
    size0: tuple[int, int]
    size1: tuple[int, int]

    def __post_init__(self) -> None:
        for name in ("keypoints0", "keypoints1", "scores"):
            # frozen: the checked, contiguous float32 copy replaces whatever the matcher handed over
            array = np.array(getattr(self, name), dtype=np.float32, order="C")
            array.flags.writeable = False
            object.__setattr__(self, name, array)
        n = len(self.scores)
        for name, shape in (("keypoints0", (n, 2)), ("keypoints1", (n, 2)), ("scores", (n,))):
            array = getattr(self, name)
            if array.shape != shape:
                raise ValueError(f"Matches.{name} has shape {array.shape}, expected {shape}")
            if not np.isfinite(array).all():
                raise ValueError(f"Matches.{name} holds values that are not finite")
        if n and (self.scores.min() < 0 or self.scores.max() > 1 or (np.diff(self.scores) > 0).any()):
            raise ValueError("Matches.scores must fall and lie in [0, 1]")

    def __len__(self) -> int:
        return len(self.scores)


@dataclass(frozen=True, slots=True, eq=False)
class TwoViewGeometry:
    """What two images have in common, estimated robustly from their matches.

    Attributes:
        kind: "homography", "fundamental" or "essential".
        matrix: (3, 3) float64. A homography maps homogeneous pixels of image 0 to image 1 and has
            matrix[2, 2] = 1 where that is possible; fundamental and essential have unit Frobenius norm.
            All zeros where no model was found.
        inliers: (N,) bool, which matches agree with it; all False where no model was found.
        rotation: (3, 3) float64 from camera 0 to camera 1, only for "essential".
        translation: (3,) float64, unit length, only for "essential".
    """

    kind: GeometryKind
    matrix: Float64
    inliers: Bool
    rotation: Float64 | None = None
    translation: Float64 | None = None

    def __post_init__(self) -> None:
        if self.matrix.shape != (3, 3):
            raise ValueError(f"TwoViewGeometry.matrix has shape {self.matrix.shape}, expected (3, 3)")
        if self.inliers.ndim != 1 or self.inliers.dtype != np.bool_:
            raise ValueError("TwoViewGeometry.inliers must be a one-dimensional bool array")

    def __bool__(self) -> bool:
        """Whether a model was found."""
        return bool(self.inliers.any())
