"""Maps of depth or disparity as datasets and reconstructions keep them: PNG, NumPy, PFM, HDF5 and COLMAP's own."""

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image

from tiepoint.errors import InputError
from tiepoint.types import Float32

Array = npt.NDArray[Any]

_PFM_HEADER = re.compile(rb"Pf\s+(\d{1,6})\s+(\d{1,6})\s+([-+.\deE]{1,32})[ \t\r]*\n")
_HEADER = re.compile(rb"(\d{1,6})&(\d{1,6})&1&")


def read_depth(path: str, scale: float, *, kind: str = "depth map") -> Float32:
    """Read a map of depth or disparity.

    Args:
        path: a .png of 16 bits; a .npy; a .pfm (Middlebury, ETH3D); a .h5 with a data set "depth" (MegaDepth); or a
            .bin of COLMAP.
        scale: what turns the numbers of a PNG into the unit wanted.
        kind: what an error calls it.

    Returns:
        (h, w), 0 where unknown.

    Raises:
        InputError: there is no such file, it holds something else, or h5py is missing.
    """
    suffix = Path(path).suffix.lower()
    if suffix not in _READERS:
        raise InputError(f"the {kind} {path} ends in {suffix!r}, expected one of {', '.join(_READERS)}")
    try:
        depth = _READERS[suffix](path)
    except ModuleNotFoundError as error:
        raise InputError(f"{path} needs {error.name}: pip install 'tiepoint[sfm]'") from error
    except FileNotFoundError as error:
        raise InputError(f"the {kind} {path} does not exist") from error
    except Exception as error:  # whatever a damaged file makes its library raise
        raise InputError(f"{path} is no {kind}: {' '.join(str(error).split())}") from error
    if depth.ndim != 2:
        raise InputError(f"{path} has shape {depth.shape}, expected (height, width)")
    metres = depth.astype(np.float32) * np.float32(scale if suffix == ".png" else 1)
    return np.where(np.isfinite(metres) & (metres > 0), metres, np.float32(0))


def _png(path: str) -> Array:
    with Image.open(path) as image:
        if not image.mode.startswith("I"):
            raise ValueError(f"its mode is {image.mode}, expected 16 bits")
        return np.asarray(image)


def _npy(path: str) -> Array:
    return np.asarray(np.load(path, allow_pickle=False))


def _h5(path: str) -> Array:
    import h5py

    with open(path, "rb"), h5py.File(path, "r") as file:  # h5py's own sentence for a missing file is a long one
        return np.asarray(file["depth"])


def _colmap(path: str) -> Array:
    content = Path(path).read_bytes()
    header = _HEADER.match(content)
    if header is None:
        raise ValueError("it does not begin with WIDTH&HEIGHT&1&")
    width, height = int(header[1]), int(header[2])
    return np.frombuffer(content, "<f4", count=width * height, offset=header.end()).reshape(height, width)


def _pfm(path: str) -> Array:
    content = Path(path).read_bytes()
    header = _PFM_HEADER.match(content)
    if header is None:
        raise ValueError("it does not begin as a PFM of one channel does, with Pf, its size and its scale")
    width, height = int(header[1]), int(header[2])
    # the sign of the scale tells the order of the bytes; its value is that of a display, which OpenCV divides by
    order = "<f4" if float(header[3]) < 0 else ">f4"
    return np.frombuffer(content, order, count=width * height, offset=header.end()).reshape(height, width)[::-1]


_READERS: dict[str, Callable[[str], Array]] = {".png": _png, ".npy": _npy, ".pfm": _pfm, ".h5": _h5, ".bin": _colmap}
