"""`tiepoint denoise`: the noise of photographs found and taken out; its strength is estimated or given."""

import json as json_format
import math
import os
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from tiepoint.each_image import Row, check_outputs, do_each, image_files, tell_each
from tiepoint.errors import InputError
from tiepoint.images import ImageSource, check_shape, image_size, read_image
from tiepoint.runtime.image_graph import ImageGraph
from tiepoint.stored import OTHERS, SUFFIX_OF, read_stored, write_stored
from tiepoint.types import Float32

EMBEDDED = Path(__file__).with_name("weights") / "denoise" / "denoise.onnx"
WRITTEN = "-denoised"  # of a file's name, before the suffix of its format
TILE = 1024  # px: the margins cost a sixth, and the network's maps stay below half a gigabyte
Pixels = npt.NDArray[Any]
Box = tuple[slice, slice]


@dataclass(frozen=True, slots=True, eq=False)
class Denoised:
    """An image without its noise.

    Attributes:
        image: of the shape and type that were given.
        noise: estimated deviation of the noise before, grey levels of 255; see `noise_level`.
        removed: root mean square of what was taken out, grey levels of 255.
    """

    image: Pixels
    noise: float
    removed: float


class Denoiser:
    """Images in, the same without noise out.

    Args:
        model: an .onnx file that `tiepoint convert` has written from a `DenoiseNetwork`; the embedded one if None.
        tile: larger images are worked on in tiles of this side, pixels, with the same result.
        device: "auto", "cpu" or "cuda".

    Attributes:
        facts: what decides its answer beside the images.

    Raises:
        InputError: there is no such file, it is another graph, or there is no such device.
    """

    def __init__(self, model: str | Path | None = None, *, tile: int = TILE, device: str = "auto") -> None:
        if tile < 64:
            raise InputError(f"tile is {tile}, expected 64 px or more")
        path = EMBEDDED if model is None else Path(model)
        self._graph = ImageGraph(path, output="clean", channels=4, device=device)
        self._reach = _reach(self._graph.metadata)
        self.facts, self.tile = self._graph.facts, tile

    def __call__(
        self, image: ImageSource, *, strength: float | None = None, moved: Callable[[], object] = lambda: None
    ) -> Denoised:
        """Take the noise out of an image.

        Args:
            image: a path, which is read with all its bits and without transparency; a Pillow image, of which eight
                are; or an array (H, W), (H, W, 1), (H, W, 3) RGB or (H, W, 4) RGBA of uint8, uint16, or float with
                white at 1, whose transparency stays as it is.
            strength: deviation of the noise that the network is told, grey levels of 255; what is taken out has no
                larger root mean square: less leaves grain, more takes detail with it. None: what `noise_level`
                estimates.
            moved: called after each of the `count_tiles`.

        Raises:
            InputError: the image is missing, broken, too large, or no image; the strength is not above 0.
        """
        if strength is not None and not 0 < strength < math.inf:
            raise InputError(f"strength is {strength:g}, expected grey levels of 255, above 0")
        pixels = _pixels(image)
        colours = pixels[..., :3] if pixels.ndim == 3 else pixels
        white = np.float32(np.iinfo(pixels.dtype).max if pixels.dtype.kind == "u" else 1)
        noisy = colours.astype(np.float32) / white
        estimate = noise_level(noisy)
        found = self._noise(noisy, estimate if strength is None else strength, moved)
        removed = 255 * math.sqrt(float(np.square(found, dtype=np.float64).mean()))
        if strength is not None and removed > strength:  # it sees for itself, too, how much there is
            found *= np.float32(strength / removed)
            removed = strength
        clean = white * (noisy - found)
        if pixels.dtype.kind == "u":
            clean = np.rint(clean).clip(0, white)
        whole = pixels.copy()
        (whole[..., :3] if pixels.ndim == 3 else whole)[:] = clean
        return Denoised(whole, estimate, removed)

    def count_tiles(self, size: tuple[int, int]) -> int:
        """How many tiles an image of this (height, width) takes."""
        return len(self._tiles(size))

    def _noise(self, noisy: Float32, level: float, moved: Callable[[], object]) -> Float32:
        """What the network takes for noise of this deviation, grey levels of 255, in an image (H, W) or (H, W, C)."""
        planes = noisy if noisy.ndim == 3 else noisy[..., None]
        grey = bool((planes == planes[..., :1]).all())  # then the copy shall be grey, too
        found = np.empty_like(planes)
        for cut, kept in self._tiles((planes.shape[0], planes.shape[1])):
            seen = np.full((*planes[cut].shape[:2], 4), level / 255, np.float32)
            seen[..., :3] = planes[cut][..., :1] if grey else planes[cut]
            noise = seen[..., :3] - self._graph.run(seen[None])[0]
            inside = tuple(slice(k.start - c.start, k.stop - c.start) for c, k in zip(cut, kept, strict=True))
            found[kept] = noise[inside].mean(axis=2, keepdims=True) if grey else noise[inside]
            moved()
        return found.reshape(noisy.shape)

    def _tiles(self, size: tuple[int, int]) -> list[tuple[Box, Box]]:
        if self._reach is None:
            whole = slice(0, size[0]), slice(0, size[1])
            return [(whole, whole)]
        multiple, margin = self._reach
        return tiles(size, side=self.tile // multiple * multiple, margin=margin)


def tiles(size: tuple[int, int], *, side: int, margin: int) -> list[tuple[Box, Box]]:
    """Squares that cover an image: each with its margins, which end with the image, and without.

    Args:
        size: (height, width).
        side: of the squares, pixels.
        margin: on each side, pixels.
    """
    rows, columns = (
        [
            (slice(max(0, start - margin), min(start + side + margin, total)), slice(start, min(start + side, total)))
            for start in range(0, total, side)
        ]
        for total in size
    )
    return [((row, column), (kept, part)) for row, kept in rows for column, part in columns]


def noise_level(image: Pixels) -> float:
    """Estimated deviation of white noise, grey levels of 255; the numpy form of `ops.noise.noise_level`.

    The median of the finest diagonal Haar coefficients, which scenes seldom have (Donoho and Johnstone, 1994, eq. 14).

    Args:
        image: (H, W) or (H, W, C), white at 1; 0 is told of one with a side of a single pixel.
    """
    height, width = (side // 2 * 2 for side in image.shape[:2])
    even, odd = image[0:height:2], image[1:height:2]
    diagonal = even[:, 0:width:2] - even[:, 1:width:2] - odd[:, 0:width:2] + odd[:, 1:width:2]
    return float(255 * np.median(np.abs(diagonal / 2)) / 0.6745) if diagonal.size else 0.0


def _pixels(image: ImageSource) -> Pixels:
    """An array of the kinds that `Denoiser` takes."""
    if isinstance(image, str | os.PathLike):
        return read_stored(Path(image)).pixels
    if not isinstance(image, np.ndarray):
        return read_image(image)
    check_shape(image, "the array given as image")
    if image.dtype not in (np.uint8, np.uint16) and image.dtype.kind != "f":
        raise InputError(f"the array given as image holds {image.dtype}, expected uint8, uint16 or float")
    if not np.isfinite(image).all():
        raise InputError("the array given as image holds values that are not finite, expected floats with white at 1")
    return image


def _reach(metadata: Mapping[str, str]) -> tuple[int, int] | None:
    """The sides of a `DenoiseNetwork`'s largest cells, and how far it sees from a pixel in whole cells, in pixels.

    None of a graph that does not tell of which network it is: it runs on whole images.
    """
    with suppress(KeyError, TypeError, ValueError):
        told = json_format.loads(metadata["init_args"])
        cells = [2 << level for level in range(len(told["widths"]))]
        # two convolutions a block; on the way down and up again, at the deepest level once; and the first and the last
        several = [(4 if cell < cells[-1] else 2) * told["blocks"] * cell for cell in cells]
        seen = 2 * cells[0] + sum(several) + cells[-1] - 1
        return cells[-1], math.ceil(seen / cells[-1]) * cells[-1]
    return None


def denoise(
    *images: str,
    output: str = "denoised",
    strength: float | None = None,
    json: bool = False,
    model: str | None = None,
    device: Literal["auto", "cpu", "cuda"] = "auto",
) -> None:
    """Take the noise out of photographs.

    Args:
        *images: images, or folders of them.
        output: (-o) a folder, which receives IMAGE-denoised.jpg of a JPEG, .tif of a TIFF, .webp of a WebP and .png of
            all others, with the bits, transparency, EXIF and colour profile of the image.
        strength: deviation of the noise that the network is told, grey levels of 255: less leaves grain, more takes
            detail with it. Without it, what is estimated of each image.
        json: print figures as JSON instead of sentences.
        model: an .onnx file of a denoising network of your own; the embedded one if not given.
        device: where it runs.
    """
    if strength is not None and not 0 < strength <= 255:
        raise InputError(f"--strength is {strength:g}, expected grey levels, above 0 and at most 255")
    paths, folder = image_files(images), Path(output)
    check_outputs(paths, folder, [WRITTEN + suffix for suffix in sorted({*SUFFIX_OF.values(), OTHERS})])
    denoiser = Denoiser(model, device=device)
    rows = do_each(
        paths,
        lambda path, moved: _one(path, folder, denoiser, strength, moved),
        title="denoising",
        unit="tile",
        steps=[_steps(path, denoiser) for path in paths],
    )
    tell_each(rows, _sentence, as_json=json, failure="are not denoised")


def _steps(path: Path, denoiser: Denoiser) -> int:
    """The tiles of an image; 1 of what is none, which is told when its turn comes."""
    with suppress(InputError):
        return denoiser.count_tiles(image_size(path))
    return 1


def _one(path: Path, folder: Path, denoiser: Denoiser, strength: float | None, moved: Callable[[], object]) -> Row:
    """Denoise one image, write it, and tell its figures."""
    image = read_stored(path)
    start = time.perf_counter()
    found = denoiser(image.pixels, strength=strength, moved=moved)
    seconds = time.perf_counter() - start
    target = folder / f"{path.stem}{WRITTEN}{image.suffix}"
    write_stored(target, replace(image, pixels=found.image))
    return {
        "image": str(path),
        "output": str(target),
        "size": list(found.image.shape[:2]),
        "bits": 8 * found.image.dtype.itemsize,
        "noise": round(found.noise, 2),
        "strength": strength,
        "removed": round(found.removed, 2),
        "seconds": round(seconds, 3),
    }


def _sentence(row: Row) -> str:
    return (
        f"noise of about {row['noise']:.1f} grey levels, {row['removed']:.1f} taken out, "
        f"{row['seconds']:.2f} s; {row['output']}"
    )
