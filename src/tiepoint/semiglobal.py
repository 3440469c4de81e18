"""Costs of planes at full resolution, their semi-global aggregation, and the holes that are left: numpy and OpenCV.

Hirschmüller, "Stereo processing by semiglobal matching and mutual information", PAMI 2008: eight paths, a small penalty
for a change of one plane, a larger one for any other, smaller across edges of the image.

Volumes are (P, H, W) in 16 bits: numpy goes along rows of pixels then, sixteen at a time. The loops below go over
planes, or over lines of the image, each step over all planes of a whole line.
"""

from collections.abc import Callable, Iterable
from typing import Any, Literal

import cv2
import numpy as np
import numpy.typing as npt

from tiepoint.images import UInt8
from tiepoint.types import Bool, Float32

UInt16 = npt.NDArray[np.uint16]
UInt64 = npt.NDArray[np.uint64]
# an image of view 1 as view 0 would see it, pixel by pixel, with 0 for what view 1 does not show
Warp = Callable[[npt.NDArray[Any]], npt.NDArray[Any]]

UNIT = 2048  # of all costs: eight paths of 2 + 1 units each stay below 2^16
_ROWS, _COLUMNS = 3, 4  # of the census, to either side: 62 comparisons, one bit each
_CENSUS, _COLOUR = 1.0, 0.5  # weights of the costs, each in [0, 1]
_TRUNCATED = 40.0  # grey levels: a larger difference says no more
_UNSEEN = round(0.4 * UNIT)  # cost of what view 1 does not show: about that of a match that is neither right nor wrong
_SMALL, _LARGE = 0.2, 1.0  # penalties
_EDGE = 20.0  # grey levels between neighbours at which the large penalty has fallen to a third
_BLOCK = 128  # rows that are turned at once


def census(grey: UInt8) -> UInt64:
    """Which neighbours of each pixel are brighter, as bits (Zabih and Woodfill, ECCV 1994): (H, W) to (H, W)."""
    height, width = grey.shape
    padded = np.pad(grey, ((_ROWS, _ROWS), (_COLUMNS, _COLUMNS)), mode="edge")
    code = np.zeros((height, width), np.uint64)
    for dy in range(2 * _ROWS + 1):
        for dx in range(2 * _COLUMNS + 1):
            if (dy, dx) != (_ROWS, _COLUMNS):
                brighter = padded[dy : dy + height, dx : dx + width] > grey
                code <<= np.uint64(1)
                code |= brighter
    return code


def pixel_costs(image0: UInt8, image1: UInt8, warps: Iterable[Warp], count: int) -> UInt16:
    """How badly each pixel of view 0 fits the place where view 1 would see it, for each plane.

    Args:
        image0: (H, W, 3).
        image1: (H, W, 3).
        warps: for each plane, what view 0 would see of an image (H, W, C) of view 1.
        count: of the planes.

    Returns:
        (P, H, W), up to 1.5 times `UNIT`.
    """
    code0, code1 = (census(cv2.cvtColor(image, cv2.COLOR_RGB2GRAY)) for image in (image0, image1))
    # OpenCV warps 8 bytes as four channels; a fourth one of the image tells what was seen at all
    code1_parts = code1.view(np.uint16).reshape(*code1.shape, 4)
    opaque0, opaque1 = (cv2.cvtColor(image, cv2.COLOR_RGB2RGBA) for image in (image0, image1))
    level = np.arange(256)
    per_bit = (UNIT * _CENSUS / (8.0 * 8.0 - 2.0) * level.clip(max=62)).round().astype(np.uint16)
    per_level = (UNIT * _COLOUR * (level / (3 * _TRUNCATED)).clip(max=1)).round().astype(np.uint16)
    costs = np.empty((count, *code0.shape), np.uint16)
    for plane, warp in zip(costs, warps, strict=True):
        bits = bit_count(code0 ^ np.ascontiguousarray(warp(code1_parts)).view(np.uint64)[..., 0])
        red, green, blue, unseen = cv2.split(cv2.absdiff(opaque0, warp(opaque1)))
        colour = cv2.add(cv2.add(red, green), blue)
        cv2.add(cv2.LUT(bits, per_bit), cv2.LUT(colour, per_level), dst=plane)
        np.copyto(plane, _UNSEEN, where=unseen > 0)
    return costs


def aggregate(costs: UInt16, guide: UInt8) -> UInt16:
    """The sum over eight paths of the least cost of reaching each pixel at each plane (Hirschmüller, eq. 13).

    Args:
        costs: (P, H, W), at most twice `UNIT`.
        guide: (H, W, 3), the image whose edges depth may change at.

    Returns:
        (P, H, W).
    """
    total = np.zeros_like(costs)
    image = guide.astype(np.int16)
    for way in (slice(None), slice(None, None, -1)):
        _sweep(costs.swapaxes(0, 1)[way], image[way], total.swapaxes(0, 1)[way], paths=3)
    for first in range(0, costs.shape[1], _BLOCK):
        rows = slice(first, first + _BLOCK)
        turned = np.ascontiguousarray(costs[:, rows].transpose(2, 0, 1))
        sums, columns = np.zeros_like(turned), image[rows].swapaxes(0, 1)
        for way in (slice(None), slice(None, None, -1)):
            _sweep(turned[way], columns[way], sums[way], paths=1)
        total[:, rows] += sums.transpose(1, 2, 0)
    return total


def _sweep(volume: UInt16, image: npt.NDArray[np.int16], target: UInt16, *, paths: Literal[1, 3]) -> None:
    """Adds the costs of paths to the target, line by line (N, P, L), each from the one before.

    One path goes straight on, three come straight and from either side.
    """
    count, planes, length = volume.shape
    small = np.uint16(round(UNIT * _SMALL))
    jumps = _jumps(image, paths)
    # each path reads what the line before has left of, at or right of its pixel, which is a view of strides; beyond the
    # borders and before the first line all planes cost 0, as for a path that begins
    padded = np.zeros((2, paths, planes, length + paths - 1), np.uint16)
    row, item = padded.strides[2:]
    strides = (padded.strides[1] + item, row, item)
    views = [np.lib.stride_tricks.as_strided(each, (paths, planes, length), strides) for each in padded]
    middle = padded[..., paths // 2 : paths // 2 + length]
    raised = np.empty((paths, planes, length), np.uint16)
    least = np.empty((paths, 1, length), np.uint16)
    cap = np.empty_like(least)
    for line in range(count):
        before, now = views[line % 2], middle[1 - line % 2]
        before.min(axis=1, keepdims=True, out=least)
        np.add(least, jumps[line][:, None], out=cap)
        np.minimum(before, cap, out=now)
        np.add(before, small, out=raised)
        np.minimum(now[:, 1:], raised[:, :-1], out=now[:, 1:])
        np.minimum(now[:, :-1], raised[:, 1:], out=now[:, :-1])
        now -= least
        now += volume[line]
        for path in now:
            target[line] += path


def _jumps(image: npt.NDArray[np.int16], paths: int) -> UInt16:
    """The large penalty (N, paths, L) of coming from the line before; what a path that begins pays is of no account."""
    length = image.shape[1]
    padded = np.pad(image[:-1], ((1, 0), (paths // 2, paths // 2), (0, 0)), mode="edge")
    edges = [np.abs(image - padded[:, path : path + length]).sum(-1) for path in range(paths)]
    # all that a sum of three differences can be
    table = UNIT * (_SMALL + (_LARGE - _SMALL) * np.exp(-np.arange(3 * 255 + 1) / (3 * _EDGE)))
    return np.asarray(table.round().astype(np.uint16)[np.stack(edges, axis=1)])


def best_plane(costs: UInt16) -> Float32:
    """The number of the cheapest plane, (P, H, W) to (H, W), between planes by the parabola through three costs."""
    least, inner = costs[0].copy(), np.zeros(costs.shape[1:], np.int64)
    # numpy's argmin would turn the volume, which takes a copy of it
    for number, plane in enumerate(costs):
        better = plane < least
        np.copyto(least, plane, where=better)
        np.copyto(inner, number, where=better)
    at = inner.clip(1, len(costs) - 2)
    left, middle, right = (np.take_along_axis(costs, (at + step)[None], 0)[0].astype(np.float32) for step in (-1, 0, 1))
    bend = left - 2 * middle + right
    offset = np.where(bend > 0, (left - right) / (2 * np.maximum(bend, 1)), 0).clip(-0.5, 0.5)
    found = np.where(at == inner, inner + offset, inner).astype(np.float32)
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


def counted_bits(codes: UInt64) -> UInt8:
    """How many bits of each are set, for numpy before 2.0, by sums of ever wider fields of bits."""
    x = codes - ((codes >> np.uint64(1)) & np.uint64(0x5555555555555555))
    x = (x & np.uint64(0x3333333333333333)) + ((x >> np.uint64(2)) & np.uint64(0x3333333333333333))
    x = (x + (x >> np.uint64(4))) & np.uint64(0x0F0F0F0F0F0F0F0F)
    return np.asarray((x * np.uint64(0x0101010101010101)) >> np.uint64(56), np.uint8)


bit_count: Callable[[UInt64], UInt8] = getattr(np, "bitwise_count", counted_bits)
