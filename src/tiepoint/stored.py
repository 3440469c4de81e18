"""Images as they are stored: eight or sixteen bits, grey or colour, with what a file says of them, read and written."""

import io
import struct
import zlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt
from PIL import ExifTags, Image, PngImagePlugin, TiffImagePlugin

from tiepoint.errors import InputError
from tiepoint.files import atomic_path
from tiepoint.images import MAX_PIXELS, decode_image, open_image, orientation, turned

Samples = npt.NDArray[np.uint8] | npt.NDArray[np.uint16]

SUFFIX_OF = {"JPEG": ".jpg", "MPO": ".jpg", "TIFF": ".tif", "WEBP": ".webp"}  # of what an image is written as
OTHERS = ".png"
QUALITY = 95  # of a JPEG: its own noise, about one grey level, is below what is left of a photograph's
STRIP = 1 << 20  # bytes of a TIFF that are compressed in one piece

_Tag = ExifTags.Base
# what a TIFF says of its picture; all other tags say how its bytes are laid out
_TOLD = frozenset(
    {
        *(_Tag.ImageDescription, _Tag.Make, _Tag.Model, _Tag.Software, _Tag.HostComputer, _Tag.DateTime),
        *(_Tag.Artist, _Tag.Copyright, _Tag.Rating, _Tag.Orientation),
        *(_Tag.XResolution, _Tag.YResolution, _Tag.ResolutionUnit),
        *(ExifTags.IFD.Exif, ExifTags.IFD.GPSInfo),
    }
)


@dataclass(frozen=True, slots=True, eq=False)
class StoredImage:
    """An image with the depth of its file, set upright, and what the file says of it.

    Attributes:
        pixels: (H, W) or (H, W, 3) RGB, uint8 or uint16.
        alpha: (H, W) of the same type; None without.
        suffix: of the format that it is written in: .jpg, .png, .tif or .webp.
        exif: the EXIF block, its orientation 1; None without.
        profile: the ICC profile; None without.
        dpi: dots an inch, x and y; None without.
    """

    pixels: Samples
    alpha: Samples | None = None
    suffix: str = OTHERS
    exif: bytes | None = None
    profile: bytes | None = None
    dpi: tuple[float, float] | None = None


def read_stored(path: Path, *, max_pixels: int = MAX_PIXELS) -> StoredImage:
    """Read an image file with all its bits.

    As for `images.read_image`, Pillow checks it first, the orientation is applied, and of several frames the first
    is taken; but samples keep their type, and transparency is kept apart.

    Args:
        path: the image file.
        max_pixels: files whose header announces more pixels than this are not decoded.

    Raises:
        InputError: there is no such file, it is no image, damaged, too large, or neither grey nor RGB of 8 or 16 bits.
    """
    with open_image(path, max_pixels) as image:
        wide = _wide_channels(image)
        inverted = image.mode.startswith("I;16") and _tags(image).get(_Tag.PhotometricInterpretation) == 0
        decode_image(image, max_pixels)
        samples = _wide_samples(image, wide, path) if wide else _samples(image, path)
        samples = turned(np.invert(samples) if inverted else samples, orientation(image))
        colours = samples.shape[2] if samples.ndim == 3 else 1
        alpha = np.ascontiguousarray(samples[..., -1]) if colours in (2, 4) else None
        pixels = samples if alpha is None else np.ascontiguousarray(samples[..., 0 if colours == 2 else slice(3)])
        suffix = SUFFIX_OF.get(image.format or "", OTHERS)
        return StoredImage(pixels, alpha, suffix, _exif(image), image.info.get("icc_profile") or None, _dpi(image))


def write_stored(path: Path, image: StoredImage) -> None:
    """Write an image in the format of its suffix, whole or not at all.

    PNG, TIFF (deflated) and WebP lose nothing; JPEG has quality 95 and all of its colours.

    Raises:
        InputError: as `atomic_path`.
        WorkError: the disk is full.
    """
    content = {".png": _png, ".tif": _tiff}.get(image.suffix, _by_pillow)(image)
    with atomic_path(path) as temporary:
        temporary.write_bytes(content)


def _tags(image: Image.Image) -> Any:
    """The tags of a TIFF, of anything else none."""
    return image.tag_v2 if isinstance(image, TiffImagePlugin.TiffImageFile) else {}


def _wide_channels(image: Image.Image) -> str | None:
    """The channels of an image of several with sixteen bits, of which Pillow keeps the upper eight; None of others."""
    if isinstance(image, PngImagePlugin.PngImageFile):
        layout = str(image.tile[0][3]) if image.tile else ""
        return layout.partition(";")[0] if layout.endswith(";16B") and not layout.startswith("I") else None
    bits = _tags(image).get(_Tag.BitsPerSample, ())
    return image.mode if len(bits) > 1 and max(bits) == 16 else None


def _samples(image: Image.Image, path: Path) -> Any:
    """(H, W) or (H, W, 2, 3 or 4) of a decoded image that Pillow reads with all its bits."""
    if image.mode == "I":
        values = np.asarray(image)
        if values.min() < 0 or values.max() > 65535:
            raise InputError(f"{path} holds samples from {values.min()} to {values.max()}, expected 16 bits")
        return values.astype(np.uint16)
    if image.mode.startswith("I;16"):
        return np.asarray(image).astype(np.uint16)  # in the byte order of this machine
    if image.mode not in ("1", "L", "LA", "P", "PA", "RGB", "RGBA", "RGBX"):
        raise InputError(f"{path} holds {image.mode}, expected grey or RGB, 8 or 16 bits a sample")
    grey = "LA" if image.has_transparency_data else "L"
    colour = "RGBA" if image.has_transparency_data else "RGB"
    mode = grey if image.mode in ("1", "L", "LA") else colour
    return np.array(image if image.mode == mode else image.convert(mode))


def _wide_samples(image: Image.Image, channels: str, path: Path) -> Any:
    """(H, W, 2, 3 or 4) of sixteen bits: OpenCV reads what Pillow has checked, and must agree with its upper bits."""
    found = cv2.imdecode(np.frombuffer(path.read_bytes(), np.uint8), cv2.IMREAD_UNCHANGED)
    if found is not None and found.dtype == np.uint16 and found.ndim == 3:
        found = np.asarray(cv2.cvtColor(found, cv2.COLOR_BGR2RGB if found.shape[2] == 3 else cv2.COLOR_BGRA2RGBA))
        upper = np.asarray(image)
        if found.shape == upper.shape and np.array_equal(found >> 8, upper):
            return found[..., [0, 3]] if channels == "LA" else found
    raise InputError(f"{path} holds sixteen-bit samples in a layout that cannot be read, expected grey, RGB or RGBA")


def _exif(image: Image.Image) -> bytes | None:
    """The EXIF block for an image that is upright now; a broken one is no reason to refuse a picture."""
    try:
        exif = image.getexif()
        if isinstance(image, TiffImagePlugin.TiffImageFile):
            for tag in set(exif) - _TOLD:
                del exif[tag]
        if not len(exif):
            return None
        size = _upright_size(image)
        exif[_Tag.Orientation] = 1
        details = exif.get_ifd(ExifTags.IFD.Exif)
        sizes = zip((_Tag.ExifImageWidth, _Tag.ExifImageHeight), size, strict=True)
        details.update({tag: size for tag, size in sizes if tag in details})
        return exif.tobytes()
    except Exception:
        return None


def _upright_size(image: Image.Image) -> tuple[int, int]:
    """(width, height) once set upright."""
    return (image.height, image.width) if orientation(image) >= 5 else image.size


def _dpi(image: Image.Image) -> tuple[float, float] | None:
    try:
        x, y = image.info["dpi"]
        return (float(x), float(y)) if x > 0 and y > 0 else None
    except Exception:  # none, or broken
        return None


def _stacked(image: StoredImage) -> Any:
    """(H, W) or (H, W, 2, 3 or 4)."""
    return image.pixels if image.alpha is None else np.dstack((image.pixels, image.alpha))


def _by_pillow(image: StoredImage) -> bytes:
    """The file of a JPEG or WebP, which have eight bits."""
    told: dict[str, Any] = {"exif": image.exif, "icc_profile": image.profile, "dpi": image.dpi}
    if image.suffix == ".webp":
        told |= {"lossless": True, "exact": True}
        del told["dpi"]
    else:
        told |= {"quality": QUALITY, "subsampling": "4:4:4"}
    buffer = io.BytesIO()
    picture = Image.fromarray(_stacked(image))
    kind = "WEBP" if image.suffix == ".webp" else "JPEG"
    picture.save(buffer, kind, **{name: value for name, value in told.items() if value is not None})
    return buffer.getvalue()


def _png(image: StoredImage) -> bytes:
    """The file of a PNG; OpenCV writes all bits of the samples, but nothing that is said of them."""
    pixels = _stacked(image)
    if pixels.ndim == 3:
        if pixels.shape[2] == 2:  # OpenCV writes no grey with transparency
            pixels = pixels[..., [0, 0, 0, 1]]
        pixels = cv2.cvtColor(pixels, cv2.COLOR_RGB2BGR if pixels.shape[2] == 3 else cv2.COLOR_RGBA2BGRA)
    content = cv2.imencode(".png", pixels)[1].tobytes()
    chunks = b""
    if image.profile:
        chunks += _chunk(b"iCCP", b"ICC profile\0\0" + zlib.compress(image.profile))
    if image.dpi:
        chunks += _chunk(b"pHYs", struct.pack(">IIB", *(round(value / 0.0254) for value in image.dpi), 1))
    if image.exif:
        chunks += _chunk(b"eXIf", image.exif.removeprefix(b"Exif\0\0"))
    header = 8 + 25  # the signature, and IHDR, behind which they belong (PNG 3.0, 5.6)
    return content[:header] + chunks + content[header:]


def _chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def _tiff(image: StoredImage) -> bytes:
    """The file of a TIFF; Pillow writes its tags, but no colours of sixteen bits."""
    pixels = _stacked(image)
    height, width, channels = np.atleast_3d(pixels).shape
    strips, rows = _strips(pixels)
    told = TiffImagePlugin.ImageFileDirectory_v2()
    exif = Image.Exif()
    if image.exif:
        exif.load(image.exif)
    for tag in exif:
        told[tag] = exif.get_ifd(tag) if tag in (ExifTags.IFD.Exif, ExifTags.IFD.GPSInfo) else exif[tag]
    if image.dpi and _Tag.XResolution not in told:
        told[_Tag.XResolution], told[_Tag.YResolution], told[_Tag.ResolutionUnit] = *image.dpi, 2
    told[_Tag.ImageWidth], told[_Tag.ImageLength] = width, height
    told[_Tag.BitsPerSample] = (8 * pixels.dtype.itemsize,) * channels
    told[_Tag.SamplesPerPixel], told[_Tag.PlanarConfiguration] = channels, 1
    told[_Tag.Compression], told[_Tag.Predictor] = 8, 2  # deflate, of the differences along rows
    told[_Tag.PhotometricInterpretation] = 1 if channels < 3 else 2
    if image.alpha is not None:
        told[TiffImagePlugin.EXTRASAMPLES] = 2  # not multiplied into the colours
    if image.profile:
        told[_Tag.InterColorProfile] = image.profile
    told[_Tag.RowsPerStrip], told[_Tag.StripByteCounts] = rows, tuple(map(len, strips))
    # counted from the end of the tags
    told[_Tag.StripOffsets] = tuple(sum(map(len, strips[:number])) for number in range(len(strips)))
    buffer = io.BytesIO()
    told.save(buffer)
    return buffer.getvalue() + b"".join(strips)


def _strips(pixels: Any) -> tuple[list[bytes], int]:
    """Deflated differences of each pixel (H, W, …) from the one before in its row, and the rows of each piece."""
    little = pixels.astype(pixels.dtype.newbyteorder("<"))
    little[:, 1:] -= pixels[:, :-1]  # modulo 2^8 or 2^16
    rows = max(1, STRIP // little[0].nbytes)
    return [zlib.compress(little[start : start + rows].tobytes()) for start in range(0, len(little), rows)], rows
