"""Costs of planes at full resolution, their semi-global aggregation, and the holes that are left: numpy alone.

Hirschmüller, "Stereo processing by semiglobal matching and mutual information", PAMI 2008: eight paths, a small penalty
for a change of one plane, a larger one for any other, smaller across edges of the image. The loops below go over rows
and columns, each step over all planes of a whole line.
"""

from collections.abc import Iterator

import cv2
import numpy as np
import numpy.typing as npt

from tiepoint.images import UInt8
from tiepoint.types import Bool, Float32

UInt64 = npt.NDArray[np.uint64]

_ROWS, _COLUMNS = 3, 4  # of the census, to either side: 62 comparisons, one bit each
_CENSUS, _COLOUR = 1.0, 0.5  # weights of the costs, each in [0, 1]
_TRUNCATED = 40.0  # grey levels: a larger difference says no more
_UNSEEN = 0.4  # cost of what view 1 does not show: about that of a match that is neither right nor wrong
_SMALL, _LARGE = 0.2, 1.0  # penalties
_EDGE = 20.0  # grey levels between neighbours at which the large penalty has fallen to a third


def census(grey: UInt8) -> UInt64:
    """Which neighbours of each pixel are brighter, as bits (Zabih and Woodfill, ECCV 1994): (H, W) to (H, W)."""
    height, width = grey.shape
    padded = np.pad(grey, ((_ROWS, _ROWS), (_COLUMNS, _COLUMNS)), mode="edge")
    code = np.zeros((height, width), np.uint64)
    for dy in range(2 * _ROWS + 1):
        for dx in range(2 * _COLUMNS + 1):
            if (dy, dx) != (_ROWS, _COLUMNS):
                brighter = padded[dy : dy + height, dx : dx + width] > grey
                code = (code << np.uint64(1)) | brighter.astype(np.uint64)
    return code


def pixel_costs(image0: UInt8, image1: UInt8, places: Iterator[tuple[Float32, Float32]], count: int) -> Float32:
    """How badly each pixel of view 0 fits the place where view 1 would see it, for each plane.

    Args:
        image0: (H, W, 3).
        image1: (H, W, 3).
        places: for each plane x and y, (H, W) each, in view 1.
        count: of the planes.

    Returns:
        (H, W, P) in [0, 1.5].
    """
    height, width = image0.shape[:2]
    code0, code1 = (census(cv2.cvtColor(image, cv2.COLOR_RGB2GRAY)) for image in (image0, image1))
    costs = np.empty((count, height, width), np.float32)  # planes last only at the end: strided writes are slow
    own = image0.astype(np.float32)
    for plane, (x, y) in enumerate(places):
        column, row = (np.nan_to_num(each, nan=-9.0).clip(-9, 1e6).round().astype(np.int64) for each in (x, y))
        inside = (column >= 0) & (row >= 0) & (column < width) & (row < height)
        at = row.clip(0, height - 1), column.clip(0, width - 1)
        bits = _bits(code0 ^ code1[at]) / (8.0 * 8.0 - 2.0)
        colour = np.minimum(np.abs(own - image1[at]).mean(-1), _TRUNCATED) / _TRUNCATED
        costs[plane] = np.where(inside, _CENSUS * bits + _COLOUR * colour, _UNSEEN)
    return np.ascontiguousarray(costs.transpose(1, 2, 0))


def aggregate(costs: Float32, guide: UInt8) -> Float32:
    """The sum over eight paths of the least cost of reaching each pixel at each plane (Hirschmüller, eq. 13).

    Args:
        costs: (H, W, P).
        guide: (H, W, 3), the image whose edges depth may change at.

    Returns:
        (H, W, P).
    """
    total = np.zeros_like(costs)
    light = guide.astype(np.float32)
    for turned in (False, True):
        # along rows, then along columns, each way; the diagonals with the columns
        volume = costs.transpose(1, 0, 2) if turned else costs
        image = light.transpose(1, 0, 2) if turned else light
        target = total.transpose(1, 0, 2) if turned else total
        for backward in (False, True):
            for shift in (0,) if turned else (-1, 0, 1):
                _sweep(volume, image, target, backward=backward, shift=shift)
    return total


def _sweep(volume: Float32, image: Float32, target: Float32, *, backward: bool, shift: int) -> None:
    """Adds one path's costs to the target: line by line, each from the one before, shifted along it."""
    lines = range(len(volume) - 1, -1, -1) if backward else range(len(volume))
    before: Float32 | None = None
    for line in lines:
        own = np.ascontiguousarray(volume[line])
        if before is None:
            before = own.copy()
        else:
            neighbour = image[line + 1 if backward else line - 1]
            if shift:
                before, neighbour = np.roll(before, shift, axis=0), np.roll(neighbour, shift, axis=0)
            edge = np.abs(image[line] - neighbour).mean(-1)
            jump = _SMALL + (_LARGE - _SMALL) * np.exp(-edge / _EDGE)
            reached = _step(before, own, jump.astype(np.float32))
            if shift:
                border = 0 if shift > 0 else -1
                reached[border] = own[border]
            before = reached
        target[line] += before


def _step(before: Float32, own: Float32, jump: Float32) -> Float32:
    least = before.min(-1, keepdims=True)
    best = np.minimum(before, least + jump[:, None])
    np.minimum(best[:, 1:], before[:, :-1] + np.float32(_SMALL), out=best[:, 1:])
    np.minimum(best[:, :-1], before[:, 1:] + np.float32(_SMALL), out=best[:, :-1])
    return np.asarray(best - least + own, np.float32)


def best_plane(costs: Float32) -> Float32:
    """The number of the cheapest plane, (H, W, P) to (H, W), between planes by the parabola through three costs."""
    inner = costs.argmin(-1)
    at = inner.clip(1, costs.shape[-1] - 2)[..., None]
    left, middle, right = (np.take_along_axis(costs, at + step, -1)[..., 0] for step in (-1, 0, 1))
    bend = left - 2 * middle + right
    offset = np.where(bend > 1e-6, (left - right) / (2 * np.maximum(bend, 1e-6)), 0).clip(-0.5, 0.5)
    found = np.where(at[..., 0] == inner, inner + offset, inner).astype(np.float32)
    return np.asarray(cv2.medianBlur(found, 3), np.float32)


def filled(values: Float32, good: Bool) -> Float32:
    """Holes take the smaller one of the nearest good values to the left and right: what is hidden lies behind.

    Args:
        values: (H, W), larger for nearer.
        good: (H, W) bool.

    Returns:
        (H, W); a row without any good value takes the least of all.
    """
    columns = np.arange(values.shape[1])
    rows = np.arange(values.shape[0])[:, None]
    before = np.maximum.accumulate(np.where(good, columns, -1), axis=1)
    after = np.minimum.accumulate(np.where(good, columns, len(columns))[:, ::-1], axis=1)[:, ::-1]
    left = np.where(before >= 0, values[rows, before.clip(0)], np.inf)
    right = np.where(after < len(columns), values[rows, after.clip(max=len(columns) - 1)], np.inf)
    least = np.minimum(left, right)
    rest = values[good].min() if good.any() else values.min()
    return np.where(good, values, np.where(np.isfinite(least), least, rest)).astype(np.float32)


def _bits(codes: UInt64) -> Float32:
    """How many bits of each are set; np.bitwise_count came with numpy 2."""
    x = codes - ((codes >> np.uint64(1)) & np.uint64(0x5555555555555555))
    x = (x & np.uint64(0x3333333333333333)) + ((x >> np.uint64(2)) & np.uint64(0x3333333333333333))
    x = (x + (x >> np.uint64(4))) & np.uint64(0x0F0F0F0F0F0F0F0F)
    return np.asarray((x * np.uint64(0x0101010101010101)) >> np.uint64(56), np.float32)
