"""Images with all their bits: what is read, what is written, and what is refused."""

import struct
import zlib
from pathlib import Path

import cv2
import numpy as np
import pytest
import tifffile
from PIL import ExifTags, Image

from tiepoint.errors import InputError
from tiepoint.images import read_image
from tiepoint.stored import StoredImage, read_stored, write_stored

Array = np.ndarray


def some(kind: type, *shape: int) -> Array:
    return np.random.default_rng(0).integers(0, np.iinfo(kind).max + 1, shape).astype(kind)


@pytest.mark.parametrize("kind", [np.uint8, np.uint16])
@pytest.mark.parametrize("shape", [(21, 300), (700, 600, 3), (1, 1, 3)])
@pytest.mark.parametrize("alpha", [False, True])
@pytest.mark.parametrize("suffix", [".png", ".tif", ".webp"])
def test_nothing_is_lost(kind: type, shape: tuple[int, ...], alpha: bool, suffix: str, tmp_path: Path) -> None:
    if suffix == ".webp" and kind is np.uint16:
        pytest.skip("WebP has eight bits")
    if suffix == ".tif" and alpha and len(shape) == 2 and kind is np.uint16:
        pytest.skip("Pillow opens no such TIFF, so that none is ever read")
    pixels, seen = some(kind, *shape), some(kind, *shape[:2]) // 2 if alpha else None
    write_stored(tmp_path / f"a{suffix}", StoredImage(pixels, seen, suffix))
    found = read_stored(tmp_path / f"a{suffix}")
    expected = pixels if found.pixels.ndim == pixels.ndim else np.dstack([pixels] * 3)
    assert found.pixels.dtype == kind
    assert np.array_equal(found.pixels, expected)
    assert found.alpha is None if seen is None else np.array_equal(found.alpha, seen)
    assert found.suffix == suffix
    assert (found.exif, found.profile) == (None, None)


@pytest.mark.parametrize("shape", [(90, 70), (90, 70, 3), (90, 70, 4)])
@pytest.mark.parametrize("kind", [np.uint8, np.uint16])
def test_other_programs_read_the_tiff(kind: type, shape: tuple[int, ...], tmp_path: Path) -> None:
    pixels = some(kind, *shape)
    image = (
        StoredImage(pixels[..., :3], pixels[..., 3], ".tif") if shape[-1] == 4 else StoredImage(pixels, None, ".tif")
    )
    write_stored(tmp_path / "a.tif", image)
    assert np.array_equal(tifffile.imread(tmp_path / "a.tif"), pixels)
    if len(shape) == 3 and shape[2] == 4:  # OpenCV multiplies transparency into colours of eight bits
        return
    found = cv2.imread(str(tmp_path / "a.tif"), cv2.IMREAD_UNCHANGED)
    assert np.array_equal(found if len(shape) == 2 else cv2.cvtColor(found, cv2.COLOR_BGR2RGB), pixels)


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("suffix", [".png", ".tif", ".jpg", ".webp"])
def test_every_orientation_is_set_upright(orientation: int, suffix: str, tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[ExifTags.Base.Orientation] = orientation
    details = exif.get_ifd(ExifTags.IFD.Exif)
    details[ExifTags.Base.ExifImageWidth], details[ExifTags.Base.ExifImageHeight] = 40, 24
    again = Image.Exif()  # of one that is not loaded Pillow's TIFF leaves the details out
    again.load(exif.tobytes())
    Image.fromarray(some(np.uint8, 24, 40, 3)).save(tmp_path / f"a{suffix}", exif=again)
    found = read_stored(tmp_path / f"a{suffix}")
    assert np.array_equal(found.pixels, read_image(tmp_path / f"a{suffix}"))
    assert found.exif is not None
    told = Image.Exif()
    told.load(found.exif)
    assert told[ExifTags.Base.Orientation] == 1
    size = [
        told.get_ifd(ExifTags.IFD.Exif)[tag] for tag in (ExifTags.Base.ExifImageHeight, ExifTags.Base.ExifImageWidth)
    ]
    assert size == list(found.pixels.shape[:2])


@pytest.mark.parametrize("orientation", [1, 3, 6])
def test_colours_of_sixteen_bits_are_set_upright(orientation: int, tmp_path: Path) -> None:
    pixels = some(np.uint16, 24, 40, 3)
    tifffile.imwrite(tmp_path / "a.tif", pixels, photometric="rgb", extratags=[(274, 3, 1, orientation, True)])
    turns = {1: 0, 3: 2, 6: -1}[orientation]
    assert np.array_equal(read_stored(tmp_path / "a.tif").pixels, np.rot90(pixels, turns))


def test_grey_with_transparency_of_sixteen_bits(tmp_path: Path) -> None:
    samples = some(np.uint16, 5, 7, 2)

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    rows = b"".join(b"\0" + row.astype(">u2").tobytes() for row in samples)
    header = chunk(b"IHDR", struct.pack(">IIBBBBB", 7, 5, 16, 4, 0, 0, 0))
    content = b"\x89PNG\r\n\x1a\n" + header + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")
    (tmp_path / "a.png").write_bytes(content)
    found = read_stored(tmp_path / "a.png")
    assert np.array_equal(found.pixels, samples[..., 0])
    assert np.array_equal(found.alpha, samples[..., 1])


def test_white_is_white(tmp_path: Path) -> None:
    """A TIFF may say that 0 is white."""
    pixels = some(np.uint16, 9, 11)
    tifffile.imwrite(tmp_path / "a.tif", 65535 - pixels, photometric="miniswhite")
    assert np.array_equal(read_stored(tmp_path / "a.tif").pixels, pixels)


@pytest.mark.parametrize(
    ("name", "mode", "suffix", "shape"),
    [
        ("a.jpg", "RGB", ".jpg", (8, 9, 3)),
        ("a.jpg", "L", ".jpg", (8, 9)),
        ("a.bmp", "RGB", ".png", (8, 9, 3)),
        ("a.gif", "P", ".png", (8, 9, 3)),
        ("a.png", "1", ".png", (8, 9)),
        ("a.tif", "P", ".tif", (8, 9, 3)),
    ],
)
def test_what_is_written_of_other_kinds(
    name: str, mode: str, suffix: str, shape: tuple[int, ...], tmp_path: Path
) -> None:
    Image.fromarray(some(np.uint8, 8, 9, 3)).convert(mode).save(tmp_path / name)
    found = read_stored(tmp_path / name)
    assert (found.suffix, found.pixels.shape, found.alpha) == (suffix, shape, None)


@pytest.mark.parametrize(
    ("name", "named"),
    [
        ("printed.tif", "holds CMYK, expected grey or RGB"),
        ("float.tif", "holds F, expected grey or RGB"),
        ("multiplied.tif", "sixteen-bit samples in a layout that cannot be read"),
        ("half.png", "half.png is damaged"),
        ("text.png", "text.png is not an image"),
        ("none.png", "none.png does not exist"),
    ],
)
def test_what_cannot_be_read_is_named(name: str, named: str, tmp_path: Path) -> None:
    Image.new("CMYK", (9, 8)).save(tmp_path / "printed.tif")
    Image.fromarray(np.zeros((8, 9), np.float32)).save(tmp_path / "float.tif")
    samples = some(np.uint16, 8, 9, 4)
    tifffile.imwrite(tmp_path / "multiplied.tif", samples, photometric="rgb", extrasamples=["assocalpha"])
    write_stored(tmp_path / "whole.png", StoredImage(some(np.uint16, 40, 40, 3)))
    (tmp_path / "half.png").write_bytes((tmp_path / "whole.png").read_bytes()[:2000])
    (tmp_path / "text.png").write_text("no image")
    with pytest.raises(InputError, match=named):
        read_stored(tmp_path / name)


def test_an_exif_block_that_is_broken_is_no_reason_to_refuse_a_picture(tmp_path: Path) -> None:
    Image.fromarray(some(np.uint8, 8, 9, 3)).save(tmp_path / "a.jpg", exif=b"Exif\0\0nonsense")
    assert read_stored(tmp_path / "a.jpg").exif is None
