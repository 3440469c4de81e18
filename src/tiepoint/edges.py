"""`tiepoint edges`: how probable an edge is at every pixel of an image, its ridges, and lines along them."""

import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import cv2
import numpy as np
from tqdm import tqdm

from tiepoint.contours import thin_edges, trace_lines, write_svg
from tiepoint.draw import DIMMED, write_picture
from tiepoint.errors import InputError, WorkError
from tiepoint.files import check_writable, json_line
from tiepoint.images import SUFFIXES, ImageSource, UInt8, resize_to_long_side
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
    stems = _stems(paths, Path(output), (*WRITTEN, ".svg") if svg else WRITTEN)
    detector = EdgeDetector(model, long_side=long_side, device=device)
    rows: list[dict[str, Any]] = []
    bar = tqdm(paths, desc="finding edges", unit="image", disable=None if len(paths) > 1 else True)
    for path, stem in zip(bar, stems, strict=True):
        try:
            rows.append(_one(path, stem, detector, threshold, svg=svg))
        except (InputError, WorkError) as error:
            if len(paths) == 1:
                raise
            rows.append({"image": str(path), "failed": str(error)})
    _tell(rows, stems, as_json=json)


def image_files(images: Sequence[str]) -> list[Path]:
    """The files named, and for a folder the images in it, sorted.

    Raises:
        InputError: there are none, or one does not exist.
    """
    if not images:
        raise InputError("no image is given, expected images or folders of them")
    found: list[Path] = []
    for path in map(Path, images):
        inside = sorted(each for each in path.iterdir() if each.suffix.lower() in SUFFIXES) if path.is_dir() else [path]
        if not inside:
            raise InputError(f"{path} holds no image, expected {', '.join(SUFFIXES)}")
        if not path.exists():
            raise InputError(f"{path} does not exist, expected an image file or a folder of them")
        found += inside
    return found


def _stems(paths: Sequence[Path], folder: Path, endings: Sequence[str]) -> list[Path]:
    """What the files of each image begin with; every one can be written, and none is an image of the command."""
    if folder.exists() and not folder.is_dir():
        raise InputError(f"--output: {folder} is a file, expected a folder")
    stems = [folder / path.stem for path in paths]
    if len(set(stems)) < len(stems):
        twice = next(stem for stem in stems if stems.count(stem) > 1)
        raise InputError(f"two images are called {twice.name}, which would be written over each other")
    given = {path.resolve() for path in paths}
    for stem in stems:
        for ending in endings:
            target = folder / f"{stem.name}{ending}"
            if target.resolve() in given:
                raise InputError(f"--output: {target} is an image of this very command")
            check_writable(target)
    return stems


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


def _tell(rows: Sequence[dict[str, Any]], stems: Sequence[Path], *, as_json: bool) -> None:
    if as_json:
        sys.stdout.write(json_line({"images": list(rows)}))
    else:
        for row, stem in zip(rows, stems, strict=True):
            sys.stdout.write(f"{row['image']}: " + (row["failed"] if "failed" in row else _sentence(row, stem)) + "\n")
    failed = [row for row in rows if "failed" in row]
    if failed:
        raise WorkError(f"{len(failed)} of {len(rows)} images have no edges found, the first: {failed[0]['failed']}")


def _sentence(row: dict[str, Any], stem: Path) -> str:
    lines = f", {row['lines']} lines" if "lines" in row else ""
    return (
        f"{row['edge_pixels']} pixels of edges ({row['share']:.1%}) above {row['threshold']:g}{lines}, "
        f"{row['seconds']:.2f} s; {stem}{WRITTEN[0]}"
    )
