"""How planes of one inverse depth after the other take the pixels of one view to the other view: numpy and OpenCV."""

from collections.abc import Iterator
from functools import partial
from typing import Any, NamedTuple

import cv2
import numpy as np
import numpy.typing as npt

from tiepoint.errors import WorkError
from tiepoint.runtime.sweep import PLANES
from tiepoint.semiglobal import Warp
from tiepoint.types import Float64

MOST = 192  # planes: the volume of a megapixel then takes less than a gigabyte
FINE = 4  # planes from one that the network sees to the next


class SweepGeometry(NamedTuple):
    """How view 1 sees what view 0 sees.

    Attributes:
        at_infinity: (3, 3), A = K1 R K0^-1.
        epipole: (3,), e = K1 t.
    """

    at_infinity: Float64
    epipole: Float64

    @property
    def shifted(self) -> bool:
        """Whether the views are rectified."""
        return bool(np.array_equal(self.at_infinity, np.eye(3)))

    def swapped(self) -> "SweepGeometry":
        """How view 0 sees what view 1 sees."""
        back: Float64 = np.linalg.inv(self.at_infinity).astype(np.float64)
        return SweepGeometry(back, -back @ self.epipole)


def sweep_planes(geometry: SweepGeometry, limits: tuple[float, float], size: tuple[int, ...]) -> Float64:
    """Inverse depths about a pixel of view 1 apart, as many as the network takes."""
    height, width = size
    corners = np.array([[x, y, 1.0] for x in (0, width / 2, width - 1) for y in (0, height / 2, height - 1)])
    ends = [project(geometry, corners, w) for w in limits]
    with np.errstate(invalid="ignore"):
        length = np.linalg.norm(ends[1] - ends[0], axis=1)
    span = float(np.nanmax(np.where(np.isfinite(length), length, np.nan))) if np.isfinite(length).any() else 0.0
    if span < 1:
        raise WorkError(
            "the camera only turned, or hardly moved: depth needs two places; photographs taken from farther apart "
            "would help"
        )
    whole = FINE * PLANES
    count = min(MOST, int(np.ceil((span + 1) / whole)) * whole)
    step = (limits[1] - limits[0]) / min(span, count - 1)
    return np.asarray(limits[0] + np.arange(count) * step, np.float64)


def project(geometry: SweepGeometry, points: Float64, w: float | Float64) -> Float64:
    """Places (..., 2) of homogeneous pixels (..., 3) in the other view; NaN behind its camera."""
    seen = points @ geometry.at_infinity.T + np.asarray(w)[..., None] * geometry.epipole
    z = np.where(seen[..., 2:] > 1e-6, seen[..., 2:], np.nan)
    return np.asarray(seen[..., :2] / z)


def homogeneous_grid(size: tuple[int, ...]) -> Float64:
    """Homogeneous pixels (H, W, 3)."""
    x, y = np.meshgrid(np.arange(size[1], dtype=np.float64), np.arange(size[0], dtype=np.float64))
    return np.stack((x, y, np.ones_like(x)), axis=-1)


def plane_warps(geometry: SweepGeometry, planes: Float64, size: tuple[int, ...]) -> Iterator[Warp]:
    """What view 0 would see of an image of view 1, of each plane, by the nearest pixel."""
    if geometry.shifted and not geometry.epipole[2]:
        for w in planes:
            x, y = np.rint(w * geometry.epipole[:2]).astype(int).tolist()
            yield partial(_moved, x=x, y=y)
        return
    # in single precision a place is off by a ten-thousandth of a pixel; `A p` is the same for all planes
    far = np.ascontiguousarray((homogeneous_grid(size) @ geometry.at_infinity.T).transpose(2, 0, 1), np.float32)
    for w in planes:
        along = (w * geometry.epipole).astype(np.float32)
        z = far[2] + along[2]
        behind = z <= 1e-6
        np.reciprocal(z, out=z, where=~behind)
        place = np.empty((*size, 2), np.int16)
        for axis in (0, 1):
            seen = ((far[axis] + along[axis]) * z).clip(-9, 32766)
            seen[behind] = -9
            place[..., axis] = np.rint(seen, out=seen)
        yield partial(cv2.remap, map1=place, map2=None, interpolation=cv2.INTER_NEAREST)


def _moved(image: npt.NDArray[Any], *, x: int, y: int) -> npt.NDArray[Any]:
    """What stands so many pixels to the right and below, 0 beyond the border."""
    height, width = image.shape[:2]
    moved = np.zeros_like(image)
    rows, columns = (slice(max(0, -by), max(0, min(side, side - by))) for by, side in ((y, height), (x, width)))
    there = image[max(0, y) : max(0, height + min(0, y)), max(0, x) : max(0, width + min(0, x))]
    moved[rows, columns] = there
    return moved
