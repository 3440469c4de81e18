"""Where the intrinsics of two images come from: a file, a field of view, or what a camera wrote into its files."""

import json
import math
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final

import numpy as np
from PIL import ExifTags, Image

from tiepoint.errors import InputError
from tiepoint.geometry import check_cameras
from tiepoint.types import Float64

DIAGONAL_35MM = math.hypot(36, 24)  # mm: what "35 mm equivalent" refers to (CIPA DCG-001)
MM_PER_UNIT: Final[Mapping[int, float]] = {2: 25.4, 3: 10.0, 4: 1.0}  # EXIF FocalPlaneResolutionUnit
# width of the sensor in mm of series whose cameras may write neither an equivalent nor a resolution, by a pattern of
# their names; the models of a row differ by 3 % at most (openMVG's CameraSensorSizeDatabase)
SENSOR_WIDTHS: Final[Mapping[str, float]] = {
    r"canon eos[ -](1ds|1d [xc]|5d|6d)": 36.0,
    r"canon eos-1d": 28.7,
    r"canon eos (\d{2,4}d|7d|d30|d60|digital rebel|rebel|kiss|m\b)": 22.4,
    r"olympus.* e-([1356]|30|[3456]\d0|m\d.*|p[lm]?\d.*)$": 17.3,
}


def read_cameras(path: str) -> tuple[Float64, Float64]:
    """Reads {"K0": 3×3, "K1": 3×3}.

    Raises:
        InputError: the file cannot be read or holds something else.
    """
    content = _read_json(path)
    try:
        K0, K1 = (np.array(content[name], dtype=np.float64) for name in ("K0", "K1"))
    except (ValueError, KeyError, TypeError) as error:
        raise InputError(_no_cameras(path)) from error
    try:
        return check_cameras((K0, K1))
    except InputError as error:
        raise InputError(f"--cameras: {path}: {str(error).removeprefix('cameras: ')}") from error


def read_motion(path: str) -> Float64 | None:
    """Reads the entry "T_0to1" of a camera file, (4, 4), camera 0 to camera 1; None where there is none.

    Raises:
        InputError: the file cannot be read, or the entry is no rotation and translation.
    """
    content = _read_json(path)
    if "T_0to1" not in content:
        return None
    try:
        T = np.array(content["T_0to1"], dtype=np.float64)
    except (TypeError, ValueError) as error:
        raise InputError(f"--cameras: T_0to1 of {path} is no matrix of numbers") from error
    if T.shape != (4, 4):
        raise InputError(f"--cameras: T_0to1 of {path} has shape {T.shape}, expected (4, 4)")
    if not np.isfinite(T).all():
        raise InputError(f"--cameras: T_0to1 of {path} holds values that are not finite")
    R = T[:3, :3]
    if not (np.allclose(R @ R.T, np.eye(3), atol=1e-3) and np.linalg.det(R) > 0 and np.allclose(T[3], [0, 0, 0, 1])):
        raise InputError(f"--cameras: T_0to1 of {path} is no rotation and translation: expected [[R, t], [0, 1]]")
    return T


def _read_json(path: str) -> dict[str, Any]:
    try:
        content = json.loads(Path(path).read_text(encoding="utf-8"))
    except OSError as error:
        raise InputError(f"--cameras: {path} cannot be read: {error.strerror}") from error
    except ValueError as error:
        raise InputError(_no_cameras(path)) from error
    if not isinstance(content, dict):
        raise InputError(_no_cameras(path))
    return content


def _no_cameras(path: str) -> str:
    return f'--cameras: {path} is not JSON of the form {{"K0": 3×3, "K1": 3×3}}'


def check_fit(cameras: tuple[Float64, Float64], sizes: Sequence[tuple[int, int]]) -> None:
    """Refuses cameras of other images, or of other sizes of them, by a principal point that lies outside.

    Args:
        cameras: (K0, K1).
        sizes: (height, width) of both images, pixels.

    Raises:
        InputError: one does not fit.
    """
    for name, K, (height, width) in zip(("K0", "K1"), cameras, sizes, strict=True):
        if not (0 <= K[0, 2] < width and 0 <= K[1, 2] < height):
            raise InputError(
                f"--cameras: {name} has its principal point at ({K[0, 2]:g}, {K[1, 2]:g}), expected one inside the "
                f"image of {width}×{height} px: it is that of another size or image"
            )


def camera_of_fov(size: tuple[int, int], degrees: float) -> Float64:
    """The pinhole camera of a field of view, with its axis in the middle of the image.

    Args:
        size: (height, width) in pixels.
        degrees: angle along the longer side.

    Returns:
        (3, 3).

    Raises:
        InputError: the angle is not between 0 and 180.
    """
    if not 0 < degrees < 180:
        raise InputError(f"--fov is {degrees:g}, expected degrees between 0 and 180")
    return _pinhole(size, max(size) / 2 / math.tan(math.radians(degrees) / 2))


def cameras_of_files(
    paths: tuple[str, str], sizes: Sequence[tuple[int, int]]
) -> tuple[tuple[Float64, Float64], str] | None:
    """The cameras that both image files tell of (`camera_of_file`), and where they are from; None unless both do."""
    told = [camera_of_file(path, size) for path, size in zip(paths, sizes, strict=True)]
    if told[0] is None or told[1] is None:
        return None
    return (told[0][0], told[1][0]), "; ".join(dict.fromkeys((told[0][1], told[1][1])))


def camera_of_file(path: str, size: tuple[int, int]) -> tuple[Float64, str] | None:
    """The camera that an image file tells of in its EXIF block.

    Args:
        path: the image file.
        size: (height, width) after the EXIF orientation, in pixels.

    Returns:
        (3, 3) and where it is from, in words; None where the file tells nothing that suffices.
    """
    tags = _exif(path)
    equivalent = _positive(tags.get(ExifTags.Base.FocalLengthIn35mmFilm))
    if equivalent:
        return _pinhole(size, equivalent / DIAGONAL_35MM * math.hypot(*size)), f"EXIF, {equivalent:g} mm equivalent"
    focal = _positive(tags.get(ExifTags.Base.FocalLength))
    if not focal:
        return None
    per_unit = _positive(tags.get(ExifTags.Base.FocalPlaneXResolution))
    unit = MM_PER_UNIT.get(tags.get(ExifTags.Base.FocalPlaneResolutionUnit, 2))
    stored = _positive(tags.get(ExifTags.Base.ExifImageWidth))
    if per_unit and unit and stored:
        # the resolution is that of the image as the camera stored it, which may have been shrunk since
        width = stored * unit / per_unit
        return _pinhole(size, focal / width * max(size)), f"EXIF, {focal:g} mm on a sensor {width:.1f} mm wide"
    name = f"{tags.get(ExifTags.Base.Make, '')} {tags.get(ExifTags.Base.Model, '')}".strip("\0 ")
    for pattern, width in SENSOR_WIDTHS.items():
        if re.search(pattern, name, re.IGNORECASE):
            told = f"EXIF, {focal:g} mm and the table's sensor width of {width:g} mm for {name!r}"
            return _pinhole(size, focal / width * max(size)), told
    return None


def _pinhole(size: tuple[int, int], focal: float) -> Float64:
    return np.array([[focal, 0, (size[1] - 1) / 2], [0, focal, (size[0] - 1) / 2], [0, 0, 1]])


def _exif(path: str) -> dict[int, Any]:
    """The tags of a photograph; none where they cannot be read: a broken EXIF block is no reason to refuse it."""
    try:
        with Image.open(path) as image:
            exif = image.getexif()
            return {**exif, **exif.get_ifd(ExifTags.IFD.Exif)}
    except Exception:
        return {}


def _positive(value: Any) -> float | None:
    try:
        number = float(value)
    except (TypeError, ValueError, ZeroDivisionError):
        return None
    return number if 0 < number < math.inf else None
