"""`tiepoint edges`: how probable an edge is at every pixel of an image, its ridges, and lines along them."""

import time
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Literal

import cv2
import numpy as np

from tiepoint.contours import thin_edges, trace_lines, write_svg
from tiepoint.draw import DIMMED, write_picture
from tiepoint.each_image import check_outputs, do_each, image_files, tell_each
from tiepoint.errors import InputError
from tiepoint.images import ImageSource, UInt8, resize_to_long_side
from tiepoint.runtime.image_graph import ImageGraph
from tiepoint.runtime.matcher import read_usable
from tiepoint.types import Float32

EMBEDDED = Path(__file__).with_name("weights") / "edges" / "edges.onnx"
WRITTEN = ("-edges.png", "-thinned.png", "-overlay.png")
THRESHOLD = 0.6  # about the best one of the embedded weights on held-out images
LINE = (74, 222, 128)


@dataclass(frozen=True, slots=True, eq=False)
class EdgeMap:
    """The edges of an image.

    Attributes:
        probability: (H, W) float32 in [0, 1], that there is an edge.
        thinned: (H, W) float32, likewise on ridges of one pixel's width, 0 elsewhere.
    """

    probability: Float32
    thinned: Float32

    def lines(self, threshold: float = THRESHOLD) -> list[Float32]:
        """Polylines (N, 2), pixels (x, y), along the ridges of at least this probability, the longest first."""
        return trace_lines(self.thinned >= threshold)


class EdgeDetector:
    """Images in, their edges out.

    Args:
        model: an .onnx file that `tiepoint convert` has written from an `EdgeNetwork`; the embedded one if None.
        long_side: larger images are shrunk to this, and their maps enlarged again.
        device: "auto", "cpu" or "cuda".

    Raises:
        InputError: there is no such file, it is another graph, or there is no such device.
    """

    def __init__(self, model: str | Path | None = None, *, long_side: int = 2048, device: str = "auto") -> None:
        if long_side < 32:
            raise InputError(f"long_side is {long_side}, expected 32 px or more")
        path = EMBEDDED if model is None else Path(model)
        self._graph, self.long_side = ImageGraph(path, output="probability", device=device), long_side

    def __call__(self, image: ImageSource) -> EdgeMap:
        """The edges of an image.

        Args:
            image: a path, a Pillow image, or an array (H, W) or (H, W, 3), uint8 or float in [0, 1], RGB.

        Raises:
            InputError: it is missing, broken, too large, too small, or no image.
        """
        probability = self.probability(image)
        return EdgeMap(probability, thin_edges(probability))

    def probability(self, image: ImageSource) -> Float32:
        """The map (H, W) alone; see `__call__`."""
        pixels = read_usable(image, name="image")
        small, scale = resize_to_long_side(pixels, self.long_side)
        found: Float32 = self._graph.run(small[None])[0, ..., 0]
        if scale == (1.0, 1.0):
            return found
        # enlarged before it is thinned: lines shall be one pixel of the image wide
        return np.asarray(cv2.resize(found, (pixels.shape[1], pixels.shape[0])), np.float32)


def edges(
    *images: str,
    output: str = "edges",
    svg: bool = False,
    json: bool = False,
    threshold: float = THRESHOLD,
    long_side: int = 2048,
    model: str | None = None,
    device: Literal["auto", "cpu", "cuda"] = "auto",
) -> None:
    """Find the edges of images, as people would draw them.

    Args:
        *images: images, or folders of them.
        output: (-o) a folder, which receives for each IMAGE the probability of an edge (IMAGE-edges.png, 255 is 1),
            its ridges of one pixel's width (-thinned.png) and what of them passes the threshold, over the image
            (-overlay.png).
        svg: write these lines as polylines, too (IMAGE.svg).
        json: print figures as JSON instead of sentences.
        threshold: least probability of a line, 0 to 1.
        long_side: larger images are shrunk to this, and their maps enlarged again.
        model: an .onnx file of an edge network of your own; the embedded one if not given.
        device: where it runs.
    """
    if not 0 < threshold < 1:
        raise InputError(f"--threshold is {threshold:g}, expected a probability between 0 and 1")
    paths = image_files(images)
    folder = Path(output)
    check_outputs(paths, folder, (*WRITTEN, ".svg") if svg else WRITTEN)
    detector = EdgeDetector(model, long_side=long_side, device=device)
    rows = do_each(
        paths,
        lambda path, _: _one(path, folder / path.stem, detector, threshold, svg=svg),
        title="finding edges",
    )
    tell_each(rows, partial(_sentence, folder=folder), as_json=json, failure="have no edges found")


def _one(path: Path, stem: Path, detector: EdgeDetector, threshold: float, *, svg: bool) -> dict[str, Any]:
    """Find the edges of one image, write its files, and tell its figures."""
    image = read_usable(str(path), name="image")
    start = time.perf_counter()
    found = detector(image)
    seconds = time.perf_counter() - start
    shown = found.thinned >= threshold
    told = {
        "image": str(path),
        "size": list(shown.shape),
        "threshold": threshold,
        "edge_pixels": int(shown.sum()),
        "share": round(float(shown.mean()), 4),
        "seconds": round(seconds, 3),
    }
    if svg:
        lines = found.lines(threshold)
        write_svg(f"{stem}.svg", lines, (shown.shape[0], shown.shape[1]))
        told["lines"] = len(lines)
    for ending, picture in zip(WRITTEN, (_grey(found.probability), _grey(found.thinned)), strict=False):
        write_picture(f"{stem}{ending}", picture)
    write_picture(f"{stem}{WRITTEN[2]}", draw_edges(image, shown))
    return told


def draw_edges(image: UInt8, shown: Any) -> UInt8:
    """Lines (H, W) bool over an image (H, W, 3), which is dimmed."""
    picture = cv2.convertScaleAbs(image, alpha=DIMMED)
    picture[shown] = LINE
    return np.asarray(picture, np.uint8)


def _grey(values: Float32) -> UInt8:
    levels = np.rint(255 * values).astype(np.uint8)
    return np.asarray(cv2.cvtColor(levels, cv2.COLOR_GRAY2RGB), np.uint8)


def _sentence(row: dict[str, Any], *, folder: Path) -> str:
    lines = f", {row['lines']} lines" if "lines" in row else ""
    return (
        f"{row['edge_pixels']} pixels of edges ({row['share']:.1%}) above {row['threshold']:g}{lines}, "
        f"{row['seconds']:.2f} s; {folder / Path(row['image']).stem}{WRITTEN[0]}"
    )
