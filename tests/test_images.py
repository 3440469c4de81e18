import io
import re
import struct
import warnings
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import ExifTags, Image

from tiepoint.errors import InputError
from tiepoint.images import image_size, read_image, resize_to_long_side, to_original, verify_image

RNG = np.random.default_rng(0)
SMOOTH = np.stack(
    np.broadcast_arrays(np.arange(24)[:, None] * 10, np.arange(40)[None] * 6, np.full((24, 40), 90)), axis=2
).astype(np.uint8)


def exif(orientation: int) -> bytes:
    block = Image.Exif()
    block[ExifTags.Base.Orientation] = orientation
    return block.tobytes()


def png_header(width: int, height: int) -> bytes:
    """A PNG that announces a size and brings hardly any data."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0))
    return b"\x89PNG\r\n\x1a\n" + header + chunk(b"IDAT", zlib.compress(bytes(99))) + chunk(b"IEND", b"")


# what is read, from files


@pytest.mark.parametrize("suffix", ["png", "tif", "bmp", "webp", "gif", "ppm"])
def test_lossless_files_and_pillow_images_agree(tmp_path: Path, suffix: str) -> None:
    image = Image.fromarray(SMOOTH // 40 * 40)
    path = tmp_path / f"image.{suffix}"
    image.save(path, **({"lossless": True} if suffix == "webp" else {}))
    expected = np.asarray(image)
    assert (read_image(path) == expected).all()
    assert (read_image(str(path)) == expected).all()
    with Image.open(path) as opened:
        assert (read_image(opened) == expected).all()
    assert verify_image(path) == (24, 40)


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("suffix", ["jpg", "png", "tif", "webp"])
def test_every_orientation_is_set_upright(tmp_path: Path, suffix: str, orientation: int) -> None:
    path = tmp_path / f"image.{suffix}"
    stored = stored_as(SMOOTH, orientation)
    options: dict[str, Any] = {"jpg": {"quality": 100, "subsampling": 0}, "webp": {"lossless": True}}.get(suffix, {})
    Image.fromarray(stored).save(path, exif=exif(orientation), **options)
    image = read_image(path)
    assert image.shape == SMOOTH.shape
    assert image.flags.c_contiguous
    assert np.abs(image.astype(int) - SMOOTH).max() <= (4 if suffix == "jpg" else 0)
    assert verify_image(path) == SMOOTH.shape[:2]
    with Image.open(path) as opened:
        assert (read_image(opened) == image).all()


def stored_as(upright: npt.NDArray[np.uint8], orientation: int) -> npt.NDArray[np.uint8]:
    """What a camera stores so that `orientation` shows it upright (EXIF 2.32, tag 0x0112)."""
    return {
        1: upright,
        2: upright[:, ::-1],
        3: np.rot90(upright, 2),
        4: upright[::-1],
        5: upright.swapaxes(0, 1),
        6: np.rot90(upright, 1),
        7: np.rot90(upright, 2).swapaxes(0, 1),
        8: np.rot90(upright, -1),
    }[orientation]


@pytest.mark.parametrize("suffix", ["jpg", "png", "tif", "webp", "ppm"])
@pytest.mark.parametrize("orientation", [1, 3, 6, 8])
def test_the_header_alone_tells_the_size_of_the_upright_image(tmp_path: Path, suffix: str, orientation: int) -> None:
    path = tmp_path / f"image.{suffix}"
    Image.fromarray(SMOOTH).save(path, exif=exif(orientation))
    assert image_size(path) == read_image(path).shape[:2]


def test_the_size_is_known_before_a_truncated_image_fails(tmp_path: Path) -> None:
    path = tmp_path / "image.png"
    path.write_bytes(png_header(4000, 3000))
    assert image_size(path) == (3000, 4000)
    path.write_bytes(png_header(400_000, 300_000))
    with pytest.raises(InputError, match=r"image\.png is too large"):
        image_size(path)


@pytest.mark.parametrize("block", [b"Exif\0\0rubbish", exif(99), b"Exif\0\0MM\0*\0\0\0\x08\xff\xff"])
def test_a_broken_exif_block_is_no_reason_to_refuse(tmp_path: Path, block: bytes) -> None:
    path = tmp_path / "image.jpg"
    Image.fromarray(SMOOTH).save(path, exif=block)
    assert read_image(path).shape == (24, 40, 3)
    assert verify_image(path) == (24, 40)


@pytest.mark.parametrize("suffix", ["png", "tif"])
def test_sixteen_bits_are_scaled_not_stretched(tmp_path: Path, suffix: str) -> None:
    samples = np.array([[0, 128, 129, 257, 32768, 65535]], dtype=np.uint16)
    path = tmp_path / f"image.{suffix}"
    Image.fromarray(samples).save(path)
    assert read_image(path)[..., 1].tolist() == [[0, 0, 1, 1, 128, 255]]
    assert verify_image(path) == (1, 6)


def test_thirty_two_bit_integers_count_as_sixteen(tmp_path: Path) -> None:
    path = tmp_path / "image.tif"
    Image.fromarray(np.array([[0, 257, 65535]], dtype=np.int32)).save(path)
    assert read_image(path)[..., 0].tolist() == [[0, 1, 255]]
    Image.fromarray(np.array([[-1, 70000]], dtype=np.int32)).save(path)
    with pytest.raises(InputError, match="from -1 to 70000, expected 16 bits"):
        read_image(path)


def test_float_files_follow_the_rule_of_float_arrays(tmp_path: Path) -> None:
    path = tmp_path / "image.tif"
    Image.fromarray(np.array([[0, 0.5, 1]], dtype=np.float32)).save(path)
    assert read_image(path)[..., 2].tolist() == [[0, 128, 255]]
    Image.fromarray(np.array([[0, 4000]], dtype=np.float32)).save(path)
    with pytest.raises(InputError, match=re.escape(str(path)) + r" holds values from 0 to 4000"):
        read_image(path)


@pytest.mark.parametrize("mode", ["1", "L", "P", "LA", "PA", "RGBA", "RGBa", "RGBX", "CMYK", "YCbCr", "HSV"])
def test_every_mode_of_pillow_becomes_rgb(mode: str) -> None:
    grey = Image.fromarray(np.where(SMOOTH[..., 1] > 100, 255, 0).astype(np.uint8)).convert("RGB")
    image = grey.convert("RGBA").convert(mode) if mode == "RGBa" else grey.convert(mode)
    assert np.abs(read_image(image).astype(int) - np.asarray(grey)).max() <= 1
    assert image.mode == mode


@pytest.mark.parametrize("mode", ["LA", "RGBA"])
def test_transparent_pixels_turn_grey(tmp_path: Path, mode: str) -> None:
    image = Image.new("RGBA", (3, 1), (255, 255, 255, 255))
    image.putpixel((1, 0), (255, 255, 255, 0))
    image.putpixel((2, 0), (0, 0, 0, 0))
    image.convert(mode).save(tmp_path / "image.png")
    assert read_image(tmp_path / "image.png")[0, :, 0].tolist() == [255, 128, 128]


@pytest.mark.parametrize("transparency", [1, bytes([255, 0])])
def test_a_transparent_palette_entry_turns_grey(tmp_path: Path, transparency: int | bytes) -> None:
    image = Image.fromarray(np.array([[0, 1]], dtype=np.uint8)).convert("P")
    image.putpalette([10, 20, 30, 40, 50, 60])
    image.save(tmp_path / "image.png", transparency=transparency)
    assert read_image(tmp_path / "image.png").tolist() == [[[10, 20, 30], [128, 128, 128]]]


@pytest.mark.parametrize("suffix", ["gif", "tif", "png", "webp"])
def test_the_first_frame_is_read(tmp_path: Path, suffix: str) -> None:
    frames = [Image.new("L", (4, 4), shade) for shade in (0, 255)]
    frames[0].save(tmp_path / f"image.{suffix}", save_all=True, append_images=frames[1:])
    assert read_image(tmp_path / f"image.{suffix}").max() == 0


def test_one_pixel_is_an_image(tmp_path: Path) -> None:
    Image.new("RGB", (1, 1), (1, 2, 3)).save(tmp_path / "image.png")
    assert read_image(tmp_path / "image.png").tolist() == [[[1, 2, 3]]]
    Image.new("RGB", (1, 1)).save(tmp_path / "image.jpg")
    assert verify_image(tmp_path / "image.jpg") == (1, 1)


def test_the_ending_does_not_matter(tmp_path: Path) -> None:
    Image.fromarray(SMOOTH).save(tmp_path / "image.jpg", format="PNG")
    assert (read_image(tmp_path / "image.jpg") == SMOOTH).all()


def test_the_warnings_of_pillow_stay_inside(tmp_path: Path) -> None:
    Image.new("L", (8, 8)).save(tmp_path / "image.png")
    # an animation control chunk that announces no frame makes Pillow warn
    data = (tmp_path / "image.png").read_bytes()
    chunk = b"acTL" + struct.pack(">II", 0, 0)
    chunk = struct.pack(">I", 8) + chunk + struct.pack(">I", zlib.crc32(chunk))
    (tmp_path / "image.png").write_bytes(data[:33] + chunk + data[33:])
    with pytest.warns(UserWarning, match="APNG"), Image.open(tmp_path / "image.png"):
        pass
    with warnings.catch_warnings(record=True) as caught:
        read_image(tmp_path / "image.png")
    assert not caught


# what is refused, from files


def broken_files() -> dict[str, bytes]:
    jpeg, png, tiff = io.BytesIO(), io.BytesIO(), io.BytesIO()
    noise = Image.fromarray(RNG.integers(0, 255, (64, 64, 3), dtype=np.uint8))
    noise.save(jpeg, "JPEG")
    noise.save(png, "PNG")
    noise.save(tiff, "TIFF", compression="tiff_lzw")
    return {
        "empty.jpg": b"",
        "text.jpg": b"This is not a photograph.\n" * 9,
        "script.jpg": b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n%%EndComments\nshowpage\n",
        "cut.jpg": jpeg.getvalue()[: len(jpeg.getvalue()) // 2],
        "header-only.jpg": jpeg.getvalue()[:200],
        "cut.png": png.getvalue()[: len(png.getvalue()) // 2],
        "flipped.png": png.getvalue()[:500] + bytes(99) + png.getvalue()[599:],
        "cut.tif": tiff.getvalue()[: len(tiff.getvalue()) // 2],
        "bomb.png": png_header(20_000, 20_000),
        "nothing.png": png_header(0, 7),
    }


@pytest.mark.parametrize("name", broken_files())
def test_a_broken_file_is_an_input_error(tmp_path: Path, name: str) -> None:
    path = tmp_path / name
    path.write_bytes(broken_files()[name])
    for read in (read_image, verify_image):
        with pytest.raises(InputError, match=re.escape(str(path))) as caught:
            read(path)
        assert "\n" not in str(caught.value)


@pytest.mark.parametrize(("name", "found"), [("missing.jpg", "does not exist"), ("", "is a folder")])
def test_no_file_is_an_input_error(tmp_path: Path, name: str, found: str) -> None:
    for read in (read_image, verify_image):
        with pytest.raises(InputError, match=re.escape(str(tmp_path / name)) + ".*" + found):
            read(tmp_path / name)


def test_a_name_that_no_file_can_have_is_an_input_error() -> None:
    for name in ("nul\0byte.jpg", "n" * 300):
        with pytest.raises(InputError):
            read_image(name)


@pytest.mark.parametrize("suffix", ["png", "jpg", "tif", "webp", "gif"])
def test_the_limit_on_pixels_is_ours(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, suffix: str) -> None:
    path = tmp_path / f"image.{suffix}"
    Image.new("RGB", (40, 30)).save(path)
    for limit in (1199, 100):
        with pytest.raises(InputError, match=re.escape(str(path))):
            read_image(path, max_pixels=limit)
        with pytest.raises(InputError, match=re.escape(str(path))):
            verify_image(path, max_pixels=limit)
    for pillows in (10, 700, None):  # Pillow would refuse, warn, or let pass
        monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", pillows)
        assert read_image(path, max_pixels=1200).shape == (30, 40, 3)
        assert verify_image(path) == (30, 40)
        assert pillows == Image.MAX_IMAGE_PIXELS


def test_the_limit_holds_for_a_pillow_image_that_is_not_decoded_yet(tmp_path: Path) -> None:
    Image.new("RGB", (40, 30)).save(tmp_path / "image.png")
    with (
        Image.open(tmp_path / "image.png") as image,
        pytest.raises(InputError, match=r"image\.png has 40 x 30"),
    ):
        read_image(image, max_pixels=1000)


def test_a_closed_pillow_image_is_an_input_error(tmp_path: Path) -> None:
    Image.new("RGB", (40, 30)).save(tmp_path / "image.png")
    with Image.open(tmp_path / "image.png") as image:
        pass
    with pytest.raises(InputError, match=r"image\.png"):
        read_image(image)


# arrays


@pytest.mark.parametrize("shape", [(5, 7), (5, 7, 1), (5, 7, 3), (5, 7, 4), (1, 1), (3, 4, 3), (3, 7, 1)])
@pytest.mark.parametrize("dtype", [np.uint8, np.uint16, ">u2", np.float16, np.float32, np.float64])
def test_arrays_of_every_kind_become_rgb_bytes(shape: tuple[int, ...], dtype: npt.DTypeLike) -> None:
    top = {"u": np.iinfo, "f": lambda _: np.finfo(np.float64)}[np.dtype(dtype).kind](np.dtype(dtype))
    white = 1 if np.dtype(dtype).kind == "f" else top.max
    image = read_image(np.full(shape, white, dtype=dtype))
    assert image.shape == (*shape[:2], 3)
    assert image.dtype == np.uint8
    assert (image == 255).all()


def test_grey_colour_and_strided_arrays_keep_their_pixels() -> None:
    assert read_image(SMOOTH) is SMOOTH
    assert (read_image(SMOOTH[:, ::-1]) == SMOOTH[:, ::-1]).all()
    assert read_image(SMOOTH[:, ::-1]).flags.c_contiguous
    assert (read_image(SMOOTH[..., 0]) == SMOOTH[..., :1]).all()
    assert (read_image(SMOOTH / 255) == SMOOTH).all()
    assert (read_image((SMOOTH / 255).astype(np.float32)) == SMOOTH).all()
    assert (read_image(SMOOTH.astype(np.uint16) * 257) == SMOOTH).all()


def test_an_array_and_a_file_with_alpha_agree() -> None:
    rgba = RNG.integers(0, 256, (6, 5, 4), dtype=np.uint8)
    assert (read_image(rgba) == read_image(Image.fromarray(rgba))).all()


def test_the_rounding_of_a_resize_is_forgiven() -> None:
    assert read_image(np.array([[-1e-6, 1 + 1e-6]])).tolist() == [[[0] * 3, [255] * 3]]


@pytest.mark.parametrize(
    ("array", "found"),
    [
        (np.zeros(5), r"shape \(5,\)"),
        (np.zeros((2, 3, 4, 3)), r"shape \(2, 3, 4, 3\)"),
        (np.zeros((5, 7, 2)), r"shape \(5, 7, 2\)"),
        (np.zeros((3, 5, 7)), "channels come last"),
        (np.zeros((0, 7, 3)), "at least one pixel"),
        (np.zeros((5, 7), dtype=np.int64), "holds int64"),
        (np.zeros((5, 7), dtype=bool), "holds bool"),
        (np.zeros((5, 7), dtype=np.complex64), "holds complex64"),
        (np.full((5, 7), np.nan), "not finite"),
        (np.full((5, 7), np.inf), "not finite"),
        (np.full((5, 7), 255.0), "from 255 to 255, expected floats in"),
        (np.full((5, 7), -0.1), "from -0.1"),
    ],
)
def test_other_arrays_are_input_errors(array: npt.NDArray[Any], found: str) -> None:
    with pytest.raises(InputError, match="the array given as image 0 .*" + found):
        read_image(array, name="image 0")


def test_something_else_is_an_input_error() -> None:
    with pytest.raises(InputError, match="image 1 is a list, expected a path"):
        read_image([[0]], name="image 1")  # type: ignore[arg-type]


# resizing


@given(st.integers(1, 90), st.integers(1, 90), st.integers(1, 100), st.sampled_from([(), (1,), (3,)]))
@settings(deadline=None, max_examples=40)
def test_resizing_bounds_the_long_side(height: int, width: int, long_side: int, channels: tuple[int, ...]) -> None:
    small, (sx, sy) = resize_to_long_side(np.zeros((height, width, *channels), dtype=np.uint8), long_side)
    assert max(small.shape[:2]) == min(long_side, max(height, width))
    assert small.shape[2:] == channels
    assert (sx, sy) == (width / small.shape[1], height / small.shape[0])


def test_a_small_image_comes_back_untouched() -> None:
    image, scale = resize_to_long_side(SMOOTH, 40)
    assert image is SMOOTH
    assert scale == (1.0, 1.0)


def test_keypoints_return_to_where_they_were() -> None:
    image = np.zeros((240, 400), dtype=np.float32)
    image[100:104, 300:304] = 1  # its centre lies at (301.5, 101.5)
    small, scale = resize_to_long_side(image, 100)
    y, x = np.unravel_index(small.argmax(), small.shape)
    assert to_original(np.array([[x, y]], dtype=np.float32), scale).tolist() == [[301.5, 101.5]]


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_to_original_maps_the_borders_of_pixels_onto_each_other(dtype: npt.DTypeLike) -> None:
    corners = np.array([[-0.5, -0.5], [9.5, 4.5]], dtype=dtype)
    mapped = to_original(corners, (3.0, 7.0))
    assert mapped.dtype == dtype
    assert mapped.tolist() == [[-0.5, -0.5], [29.5, 34.5]]
    assert to_original(np.zeros((0, 2), dtype=np.float32), (2.0, 2.0)).shape == (0, 2)


def test_a_long_side_of_nothing_is_an_input_error() -> None:
    with pytest.raises(InputError, match="expected at least 1"):
        resize_to_long_side(SMOOTH, 0)
