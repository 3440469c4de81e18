"""Lines out of maps of edges: thinned to one pixel's width, traced, simplified, written as SVG. No torch is needed."""

import os
from collections.abc import Iterator, Sequence

import cv2
import numpy as np
import numpy.typing as npt

from tiepoint.files import atomic_path
from tiepoint.types import Bool, Float32

SIGMA, SLACK = 1.5, 1.01  # of `ops.edges.thin_edges`
RADIUS = 5  # of the smoothing, pixels
# second derivatives of a smoothed map: a binomial along the one side, a difference along the other
_SMOOTH, _SECOND = np.array([1, 4, 6, 4, 1]) / 16, np.array([1, 0, -2, 0, 1]) / 4
_FIRST = np.array([1, 2, 0, -2, -1]) / 8
# to the right, down, and both ways aslant: of two neighbours each looks at the other once
_STEPS = ((0, 1), (1, 0), (1, 1), (1, -1))
_Places = npt.NDArray[np.intp]


def thin_edges(probability: Float32) -> Float32:
    """Ridges of one pixel's width: what is not highest across the edge becomes 0.

    The same as `ops.edges.thin_edges` on tensors, but where both neighbours are as high as the pixel within rounding.

    Args:
        probability: (H, W) in [0, 1].

    Returns:
        (H, W).
    """
    size = 2 * RADIUS + 1
    smooth = cv2.GaussianBlur(probability, (size, size), SIGMA, borderType=cv2.BORDER_REPLICATE)
    xx, yy = _filtered(smooth, _SECOND, _SMOOTH), _filtered(smooth, _SMOOTH, _SECOND)
    across = _most_curved(xx, _filtered(smooth, _FIRST, _FIRST), yy)
    highest = np.maximum(_beside(probability, across, -1), _beside(probability, across, 1))
    return np.where(SLACK * probability >= highest, probability, np.float32(0))


def _filtered(image: Float32, along_x: npt.NDArray[np.float64], along_y: npt.NDArray[np.float64]) -> Float32:
    return np.asarray(
        cv2.sepFilter2D(image, cv2.CV_32F, along_x, along_y, borderType=cv2.BORDER_REPLICATE), dtype=np.float32
    )


def _most_curved(xx: Float32, xy: Float32, yy: Float32) -> tuple[Float32, Float32]:
    """Unit eigenvectors (x, y) of the eigenvalue of [[xx, xy], [xy, yy]] farther from 0, each (H, W)."""
    half = (xx - yy) / 2
    root = np.sqrt(half * half + xy * xy + np.float32(1e-16))
    root = np.where(xx + yy > 0, root, -root)
    # of the two forms of the vector the one that does not vanish
    x, y = np.where(half * root > 0, half + root, xy), np.where(half * root > 0, xy, root - half)
    length = np.maximum(np.hypot(x, y), np.float32(1e-12))
    return np.asarray(x / length, np.float32), np.asarray(y / length, np.float32)


def _beside(image: Float32, across: tuple[Float32, Float32], sign: int) -> Float32:
    """The image one step beside every pixel, bilinear; not cv2.remap, which knows 32 places between two pixels."""
    height, width = image.shape
    x = np.clip(np.arange(width, dtype=np.float32) + sign * across[0], 0, width - 1)
    y = np.clip(np.arange(height, dtype=np.float32)[:, None] + sign * across[1], 0, height - 1)
    left, top = x.astype(np.intp), y.astype(np.intp)
    right, bottom = np.minimum(left + 1, width - 1), np.minimum(top + 1, height - 1)
    u, v = x - left, y - top
    above = image[top, left] * (1 - u) + image[top, right] * u
    below = image[bottom, left] * (1 - u) + image[bottom, right] * u
    return np.asarray(above * (1 - v) + below * v, dtype=np.float32)


def thin(binary: Bool) -> Bool:
    """Lines of one pixel's width, connected as before (Guo and Hall, CACM 1989, algorithm A1).

    Args:
        binary: (H, W).
    """
    lines = binary.astype(np.uint8)
    while True:
        before = int(lines.sum())
        for table in _TABLES:
            lines &= table[cv2.filter2D(lines, cv2.CV_8U, _WEIGHTS, borderType=cv2.BORDER_CONSTANT)]
        if int(lines.sum()) == before:
            return lines.astype(bool)


# a neighbour's bit, clockwise from the one above
_WEIGHTS = np.array([[128, 1, 2], [64, 0, 4], [32, 16, 8]], dtype=np.float32)


def _kept() -> tuple[npt.NDArray[np.uint8], npt.NDArray[np.uint8]]:
    """For both passes (256,) uint8: 1 where a pixel with these neighbours stays."""
    codes = np.arange(256)
    p2, p3, p4, p5, p6, p7, p8, p9 = (((codes >> bit) & 1).astype(bool) for bit in range(8))
    crossings = sum((~a & (b | c)).astype(int) for a, b, c in ((p2, p3, p4), (p4, p5, p6), (p6, p7, p8), (p8, p9, p2)))
    one = sum((a | b).astype(int) for a, b in ((p9, p2), (p3, p4), (p5, p6), (p7, p8)))
    other = sum((a | b).astype(int) for a, b in ((p2, p3), (p4, p5), (p6, p7), (p8, p9)))
    neighbours = np.minimum(one, other)
    goes = (crossings == 1) & (neighbours >= 2) & (neighbours <= 3)
    first = goes & ~((p2 | p3 | ~p5) & p4)
    second = goes & ~((p6 | p7 | ~p9) & p8)
    return (~first).astype(np.uint8), (~second).astype(np.uint8)


_TABLES = _kept()


def trace_lines(binary: Bool, *, shortest: float = 4.0, tolerance: float = 0.75) -> list[Float32]:
    """Polylines along thin lines, from end to end, from fork to fork, or around.

    Args:
        binary: (H, W), lines of about a pixel's width; they are thinned first.
        shortest: shorter polylines are left out, pixels.
        tolerance: largest distance of a line from its pixels (Douglas and Peucker, 1973), pixels.

    Returns:
        (N, 2) each, pixels (x, y), the longest first; those that go around end where they begin.
    """
    places, neighbours = _neighbours(thin(binary))
    found = [places[path] for path in _paths(neighbours)]
    lines = [_simplified(line[:, ::-1].astype(np.float32), tolerance) for line in found]
    lengths = [float(np.linalg.norm(np.diff(line, axis=0), axis=1).sum()) for line in lines]
    order = sorted(range(len(lines)), key=lambda index: -lengths[index])
    return [lines[index] for index in order if lengths[index] >= shortest]


def _neighbours(lines: Bool) -> tuple[_Places, list[list[int]]]:
    """Places (N, 2), rows and columns, and for each the numbers of those it is joined with."""
    places = np.argwhere(lines)
    number = np.full((lines.shape[0] + 2, lines.shape[1] + 2), -1)
    number[1:-1, 1:-1][lines] = np.arange(len(places))
    own, y, x = np.arange(len(places)), places[:, 0] + 1, places[:, 1] + 1
    joined: list[list[int]] = [[] for _ in range(len(places))]
    for dy, dx in _STEPS:
        other = number[y + dy, x + dx]
        # aslant only where no way around the corner is there
        corner = (dy != 0 and dx != 0) & ((number[y + dy, x] >= 0) | (number[y, x + dx] >= 0))
        there = (other >= 0) & ~corner
        for a, b in zip(own[there].tolist(), other[there].tolist(), strict=True):
            joined[a].append(b)
            joined[b].append(a)
    return places, joined


def _paths(neighbours: Sequence[Sequence[int]]) -> Iterator[list[int]]:
    """Numbers of places along each path; every joint of two places lies on one path."""
    used: set[tuple[int, int]] = set()
    ends = [place for place, joined in enumerate(neighbours) if len(joined) not in (0, 2)]
    # what no path from an end or a fork reaches goes around
    for start in (*ends, *range(len(neighbours))):
        for step in neighbours[start]:
            if (start, step) in used:
                continue
            path = [start, step]
            used |= {(start, step), (step, start)}
            while len(neighbours[path[-1]]) == 2 and path[-1] != start:
                here = path[-1]
                path.append(next(each for each in neighbours[here] if each != path[-2]))
                used |= {(here, path[-1]), (path[-1], here)}
            yield path


def _simplified(line: Float32, tolerance: float) -> Float32:
    """A line that ends where it begins stays one that does, which OpenCV leaves open."""
    closed = len(line) > 3 and bool((line[0] == line[-1]).all())
    found = cv2.approxPolyDP(line[:-1] if closed else line, tolerance, closed=closed).reshape(-1, 2)
    return np.asarray(np.concatenate([found, found[:1]]) if closed else found, dtype=np.float32)


def write_svg(path: str | os.PathLike[str], lines: Sequence[Float32], size: tuple[int, int]) -> None:
    """Write polylines as SVG 1.1, whole or not at all; the centre of the first pixel lies at (0.5, 0.5) there.

    Args:
        path: the file.
        lines: (N, 2) each, pixels (x, y).
        size: (height, width) of the image.

    Raises:
        InputError: it cannot be written.
        WorkError: the disk is full.
    """
    rows = [" ".join(f"{x:g},{y:g}" for x, y in (line + 0.5).tolist()) for line in lines]
    drawn = "".join(f'<polyline points="{row}"/>\n' for row in rows)
    head = f'<svg xmlns="http://www.w3.org/2000/svg" width="{size[1]}" height="{size[0]}"'
    style = 'fill="none" stroke="black" stroke-linecap="round" stroke-linejoin="round"'
    with atomic_path(path) as temporary:
        text = f'{head} viewBox="0 0 {size[1]} {size[0]}">\n<g {style}>\n{drawn}</g>\n</svg>\n'
        temporary.write_text(text, encoding="utf-8")
