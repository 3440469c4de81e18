"""The one image policy: what counts as an image, which way up it is, and how it becomes RGB bytes."""

import math
import os
import threading
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO, TypeVar

import cv2
import numpy as np
import numpy.typing as npt
from PIL import ExifTags, Image, TiffImagePlugin, UnidentifiedImageError

from tiepoint.errors import InputError, WorkError

UInt8 = npt.NDArray[np.uint8]
ImageSource = str | os.PathLike[str] | Image.Image | npt.NDArray[Any]

MAX_PIXELS = 200_000_000  # the largest photographs that telephones take, 16320 × 12240
MID_GREY = 128
FLAT = 2.0  # grey levels of deviation: an image that varies less has no texture
SUFFIXES = (".jpg", ".jpeg", ".png", ".tif", ".tiff", ".webp", ".bmp", ".avif")  # of the images of a folder
ROUNDING = 1e-4  # how far resizing in float may overshoot [0, 1]

_Any = TypeVar("_Any", bound=np.generic)
_Floating = TypeVar("_Floating", np.float32, np.float64)
_LIMIT_LOCK = threading.Lock()


def read_image(source: ImageSource, *, max_pixels: int = MAX_PIXELS, name: str = "image") -> UInt8:
    """Reads an image from wherever it is and returns it upright, as RGB bytes.

    Files are judged by their content, not by their ending; Pillow checks header, size and format before
    anything is decoded. The EXIF orientation is applied and of several frames the first is taken.

    - 16-bit samples are divided by 257, never stretched: two images of one scene must stay comparable.
    - Float samples, in files as in arrays, lie in [0, 1].
    - Transparent pixels are laid over mid-grey: what hides beneath them is arbitrary, was never meant to be
      seen, and would otherwise be found as texture.

    Args:
        source: a path; a Pillow image; or an array (H, W), (H, W, 1), (H, W, 3) RGB or (H, W, 4) RGBA of
            uint8, uint16, or float in [0, 1].
        max_pixels: files whose header announces more pixels than this are not decoded.
        name: what an error message calls an image that has no file name, such as "image 0".

    Returns:
        (H, W, 3) uint8 RGB, contiguous; the very array that was given where nothing had to be changed.

    Raises:
        InputError: there is no such file, it is no image, damaged or too large, or the array is none of the
            kinds above.
    """
    if isinstance(source, np.ndarray):
        return _from_array(source, f"the array given as {name}")
    if isinstance(source, Image.Image):
        title = getattr(source, "filename", "") or f"the Pillow image given as {name}"
        with _decoding(str(title)):
            return _from_pillow(source, str(title), max_pixels)
    if isinstance(source, str | os.PathLike):
        with open_image(Path(source), max_pixels) as image:
            return _from_pillow(image, str(source), max_pixels)
    raise InputError(f"{name} is a {type(source).__name__}, expected a path, a Pillow image or a NumPy array")


def verify_image(path: str | os.PathLike[str], *, max_pixels: int = MAX_PIXELS) -> tuple[int, int]:
    """Decodes an image file once, as cheaply as its format allows, to learn that it can be used.

    JPEG is decoded at an eighth of its size, which still reads every byte of it.

    Args:
        path: the image file.
        max_pixels: files whose header announces more pixels than this are not decoded.

    Returns:
        (height, width) after the EXIF orientation, as `read_image` would return it.

    Raises:
        InputError: there is no such file, it is no image, damaged or too large.
    """
    with open_image(Path(path), max_pixels) as image:
        width, height = image.size
        if image.draft(image.mode, (1, 1)) is None:
            decode_image(image, max_pixels)
            width, height = image.size  # Pillow turns a TIFF while it is loaded
        else:
            decode_image(image, max_pixels)
        return (width, height) if orientation(image) >= 5 else (height, width)


def image_size(path: str | os.PathLike[str]) -> tuple[int, int]:
    """Reads an image file's size from its header, without decoding it.

    Args:
        path: the image file.

    Returns:
        (height, width) after the EXIF orientation, as `read_image` would return it.

    Raises:
        InputError: there is no such file, it is no image or too large.
    """
    with open_image(Path(path), MAX_PIXELS) as image:
        # later versions of Pillow turn a TIFF's size when they open it, earlier ones do not: its tags stay
        tags = image.tag_v2 if isinstance(image, TiffImagePlugin.TiffImageFile) else {}
        width, height = (
            tags.get(ExifTags.Base.ImageWidth, image.width),
            tags.get(ExifTags.Base.ImageLength, image.height),
        )
        return (width, height) if orientation(image) >= 5 else (height, width)


def check_texture(image: UInt8, *, name: str) -> None:
    """Refuses an image in which nothing can be found again.

    Args:
        image: (H, W, 3).
        name: which image it is, such as "left".

    Raises:
        WorkError: it varies by less than two grey levels.
    """
    spread = float(image.std(axis=(0, 1)).max())
    if spread < FLAT:
        raise WorkError(
            f"the {name} image has no texture (its values vary by {spread:.1f} of 255); "
            "nothing can be found again in it: give one with structure or more contrast"
        )


def resize_to_long_side(image: npt.NDArray[_Any], long_side: int) -> tuple[npt.NDArray[_Any], tuple[float, float]]:
    """Shrinks an image until its longer side fits; never enlarges.

    Args:
        image: (H, W) or (H, W, C).
        long_side: the longest side allowed, in pixels.

    Returns:
        The image, averaged over areas so that nothing aliases, and its scale (sx, sy): pixel x of the
        result lies at (x + 0.5) * sx - 0.5 in the original, which `to_original` computes.

    Raises:
        InputError: `long_side` is smaller than 1.
    """
    if long_side < 1:
        raise InputError(f"the long side of an image is {long_side}, expected at least 1 pixel")
    height, width = image.shape[:2]
    ratio = long_side / max(height, width)
    if ratio >= 1:
        return image, (1.0, 1.0)
    new_width, new_height = max(1, round(width * ratio)), max(1, round(height * ratio))
    small = cv2.resize(image, (new_width, new_height), interpolation=cv2.INTER_AREA)
    return small.reshape(new_height, new_width, *image.shape[2:]), (width / new_width, height / new_height)


def to_original(keypoints: npt.NDArray[_Floating], scale: tuple[float, float]) -> npt.NDArray[_Floating]:
    """Maps keypoints of a resized image to the image it was made from.

    Args:
        keypoints: (..., 2) float32 or float64, pixels (x, y) with the first pixel's centre at (0, 0).
        scale: (sx, sy) as returned by `resize_to_long_side`.

    Returns:
        (..., 2) of the same type, in pixels of the original.
    """
    factor = np.asarray(scale, dtype=keypoints.dtype)
    half = keypoints.dtype.type(0.5)
    return (keypoints + half) * factor - half


@contextmanager
def open_image(path: Path, max_pixels: int) -> Iterator[Image.Image]:
    """Opens an image file and checks its header; whatever goes wrong until it closes is an InputError."""
    with _open_file(path) as file, _decoding(str(path)):
        if not os.fstat(file.fileno()).st_size:
            raise InputError(f"{path} is empty, expected an image")
        with _pillow_limit(max_pixels):
            image = Image.open(file)
        with image:
            # Pillow would hand EPS to Ghostscript: a program is not a photograph
            if image.format == "EPS":
                raise UnidentifiedImageError
            _check_size(image, str(path), max_pixels)
            yield image


def _open_file(path: Path) -> BinaryIO:
    """Opens a file for reading, or says in one sentence why that cannot be."""
    try:
        if path.is_dir():
            raise InputError(f"{path} is a folder, expected an image file")
        return path.open("rb")
    except FileNotFoundError as error:
        raise InputError(f"{path} does not exist, expected an image file") from error
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or error
        raise InputError(f"{path} cannot be opened: {reason}") from error


@contextmanager
def _decoding(name: str) -> Iterator[None]:
    """Turns Pillow's many ways of failing into InputError and keeps its warnings to itself."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", module=r"PIL\.")
        try:
            yield
        except (InputError, MemoryError):
            raise
        except UnidentifiedImageError as error:
            known = "expected JPEG, PNG, TIFF, WebP, AVIF or what else Pillow reads (HEIC has to be converted)"
            raise InputError(f"{name} is not an image: {known}") from error
        except Image.DecompressionBombError as error:
            raise InputError(f"{name} is too large: {error}") from error
        # a decoder raises whatever it stumbles over in a damaged file: OSError, SyntaxError, struct.error
        except Exception as error:
            raise InputError(f"{name} is damaged and cannot be read as an image: {error}") from error


@contextmanager
def _pillow_limit(max_pixels: int) -> Iterator[None]:
    """Lends Pillow our limit on pixels, for it knows only a global one and refuses above twice that."""
    with _LIMIT_LOCK:
        before = Image.MAX_IMAGE_PIXELS
        Image.MAX_IMAGE_PIXELS = math.ceil(max_pixels / 2)
        try:
            yield
        finally:
            Image.MAX_IMAGE_PIXELS = before


def _check_size(image: Image.Image, name: str, max_pixels: int) -> None:
    """Raises InputError where the header announces no pixel or too many."""
    width, height = image.size
    if not 0 < width * height <= max_pixels:
        raise InputError(f"{name} has {width} x {height} pixels, expected between 1 and {max_pixels} in all")


def decode_image(image: Image.Image, max_pixels: int) -> None:
    """Decodes; Pillow checks some formats against its limit again, which only matters for huge ones."""
    if image.width * image.height <= (Image.MAX_IMAGE_PIXELS or math.inf):
        image.load()
        return
    with _pillow_limit(max_pixels):
        image.load()


def _from_pillow(image: Image.Image, name: str, max_pixels: int) -> UInt8:
    """Decodes, converts and turns a Pillow image, which stays as it is."""
    _check_size(image, name, max_pixels)
    decode_image(image, max_pixels)
    return turned(_from_array(_samples(image, name), name), orientation(image))


def _samples(image: Image.Image, name: str) -> npt.NDArray[Any]:
    """(H, W) or (H, W, 3 or 4) in a type and range that `_from_array` takes."""
    if image.mode == "I":
        return _sixteen_bit(np.asarray(image), name)
    if image.mode.startswith(("I;16", "F")):
        return np.asarray(image)
    mode = "RGBA" if image.has_transparency_data else "RGB"
    return np.array(image if image.mode == mode else image.convert(mode))


def _sixteen_bit(samples: npt.NDArray[np.int32], name: str) -> npt.NDArray[np.uint16]:
    """Narrows Pillow's 32-bit mode, in which it also opens 16-bit files.

    Raises:
        InputError: a sample does not fit into 16 bits.
    """
    low, high = int(samples.min()), int(samples.max())
    if low < 0 or high > 65535:
        raise InputError(f"{name} holds samples from {low} to {high}, expected 16 bits: 0 to 65535")
    return samples.astype(np.uint16)


def orientation(image: Image.Image) -> int:
    """The EXIF orientation from 1 (upright) to 8; a broken EXIF block is no reason to refuse a picture."""
    try:
        value = int(image.getexif().get(ExifTags.Base.Orientation, 1))
    except Exception:
        return 1
    return value if 1 <= value <= 8 else 1


def turned(pixels: UInt8, orientation: int) -> UInt8:
    """Sets (H, W, 3) upright; 5 to 8 swap height and width (EXIF 2.32, tag 0x0112)."""
    if orientation >= 5:
        pixels = pixels.swapaxes(0, 1)
    if orientation in (3, 4, 7, 8):
        pixels = pixels[::-1]
    if orientation in (2, 3, 6, 7):
        pixels = pixels[:, ::-1]
    return np.ascontiguousarray(pixels)


def _from_array(array: npt.NDArray[Any], name: str) -> UInt8:
    """Checks an array and converts it to (H, W, 3) uint8 RGB."""
    check_shape(array, name)
    pixels = _to_bytes(array, name)
    if pixels.ndim == 2:
        pixels = pixels[..., None]
    if pixels.shape[2] == 1:
        pixels = np.repeat(pixels, 3, axis=2)
    if pixels.shape[2] == 4:
        pixels = _over_grey(pixels)
    return np.ascontiguousarray(pixels)


def check_shape(array: npt.NDArray[Any], name: str) -> None:
    """Raises InputError unless the array is (H, W), (H, W, 1), (H, W, 3) or (H, W, 4) and holds a pixel."""
    shape = array.shape
    if len(shape) == 3 and shape[0] in (1, 3, 4) and shape[2] not in (1, 3, 4):
        raise InputError(f"{name} has shape {shape}, expected (H, W, 3): the channels come last")
    if len(shape) not in (2, 3) or (len(shape) == 3 and shape[2] not in (1, 3, 4)):
        raise InputError(f"{name} has shape {shape}, expected (H, W) or (H, W, 3)")
    if not array.size:
        raise InputError(f"{name} has shape {shape}, expected at least one pixel")


def _to_bytes(array: npt.NDArray[Any], name: str) -> UInt8:
    """Scales samples to 0 ... 255, rounding to the nearest."""
    if array.dtype == np.uint8:
        return np.asarray(array, dtype=np.uint8)
    if array.dtype.kind == "u" and array.dtype.itemsize == 2:  # in either byte order
        wide = array.astype(np.uint32)
        return ((wide + 128) // 257).astype(np.uint8)
    if array.dtype.kind != "f":
        raise InputError(f"{name} holds {array.dtype}, expected uint8, uint16 or float in [0, 1]")
    low, high = float(array.min()), float(array.max())
    if not (math.isfinite(low) and math.isfinite(high)):
        raise InputError(f"{name} holds values that are not finite, expected floats in [0, 1]")
    if low < -ROUNDING or high > 1 + ROUNDING:
        raise InputError(f"{name} holds values from {low:g} to {high:g}, expected floats in [0, 1]")
    return np.asarray(np.rint(array.clip(0, 1) * 255), dtype=np.uint8)


def _over_grey(rgba: UInt8) -> UInt8:
    """Lays (H, W, 4) over mid-grey."""
    alpha = rgba[..., 3:].astype(np.uint16)
    blend = rgba[..., :3] * alpha + MID_GREY * (255 - alpha)
    return ((blend + 127) // 255).astype(np.uint8)
