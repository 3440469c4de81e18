"""Reads .npz files that hold pickled objects without running what they say.

The index files of LoFTR (Sun et al., CVPR 2021) hold object arrays, which `numpy.load` reads only with
`allow_pickle=True`: whoever wrote the file then runs any code on the reader's machine. Here a pickle may name arrays,
their types and single numbers, and nothing else. Each of the three becomes a plain object of this file first, which
checks what the pickle says of it; not even NumPy's own constructors see it unchecked.
"""

import io
import math
import pickle
import pickletools
import re
import warnings
import zipfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from tiepoint.errors import InputError

MAX_BYTES = 1 << 30  # unpacked: LoFTR's largest index has some megabytes

# the opcodes that pickled arrays are made of
_OPCODES = re.compile(
    r"PROTO|FRAME|STOP|MARK|NONE|NEW(TRUE|FALSE)|BININT[12]?|LONG1|BINFLOAT|(SHORT_)?BIN(UNICODE|BYTES)|"
    r"EMPTY_(LIST|TUPLE|DICT|SET)|APPENDS?|TUPLE[123]?|SETITEMS?|ADDITEMS|FROZENSET|MEMOIZE|(LONG_)?BIN(PUT|GET)|"
    r"(STACK_)?GLOBAL|REDUCE|BUILD|POP(_MARK)?"
)

Array = npt.NDArray[Any]


def read_npz(path: Path) -> dict[str, Array]:
    """Reads all the arrays of an .npz file.

    Args:
        path: the file.

    Returns:
        The arrays by name. Object arrays hold numbers, strings, bytes, None, arrays, and lists, tuples,
        dictionaries and sets of these.

    Raises:
        InputError: there is no such file, it is damaged, or it holds objects of any other kind.
    """
    try:
        with zipfile.ZipFile(path) as archive, warnings.catch_warnings():
            warnings.simplefilter("ignore")  # a damaged header is parsed as Python, which warns of odd literals
            members = archive.infolist()
            size = sum(info.file_size for info in members)
            if size > MAX_BYTES:
                raise ValueError(f"it unpacks to {size} bytes, expected at most {MAX_BYTES}")
            return {info.filename.removesuffix(".npy"): _member(archive, info) for info in members}
    except OSError as error:
        raise InputError(f"{path} cannot be read: {error.strerror or error}") from error
    except pickle.UnpicklingError as error:
        raise InputError(f"{path} is refused: {error}") from error
    # a damaged archive, header or pickle fails in whatever way it happens to
    except Exception as error:
        raise InputError(f"{path} is damaged or no .npz file: {error}") from error


def _member(archive: zipfile.ZipFile, info: zipfile.ZipInfo) -> Array:
    file = io.BytesIO(archive.read(info))
    version = np.lib.format.read_magic(file)
    read_header = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
    shape, fortran, dtype = read_header(file)
    if not dtype.hasobject:
        return _shaped(_numbers(file.read(), dtype, shape), shape, fortran)
    content = file.read()
    _check_opcodes(content)
    found = _plain(_Unpickler(io.BytesIO(content)).load(), {})
    if not isinstance(found, np.ndarray):
        raise ValueError(f"{info.filename} holds a {type(found).__name__}, expected an array")
    return found


def _check_opcodes(content: bytes) -> None:
    """Refuses what no array needs before anything is done: a damaged or hostile byte may ask for any memory."""
    for opcode, argument, _ in pickletools.genops(content):
        if not _OPCODES.fullmatch(opcode.name):
            raise pickle.UnpicklingError(f"it uses {opcode.name}, expected arrays of plain values and no more")
        if opcode.name == "LONG_BINPUT" and isinstance(argument, int) and argument > len(content):
            raise ValueError(f"{opcode.name} {argument} in a pickle of {len(content)} bytes")


def _shaped(flat: Array, shape: tuple[int, ...], fortran: bool) -> Array:
    return flat.reshape(shape, order="F" if fortran else "C")


def _numbers(data: bytes, dtype: np.dtype[Any], shape: tuple[int, ...]) -> Array:
    return np.frombuffer(data, dtype, count=math.prod(shape))


def _objects(items: Sequence[Any]) -> Array:
    flat = np.empty(len(items), dtype=object)
    for index, item in enumerate(items):  # one by one, or NumPy would look for further dimensions in them
        flat[index] = item
    return flat


class _Type:
    """The type of an array, as a pickle tells it."""

    def __init__(self, code: str) -> None:
        if not re.fullmatch(r"[<>|=]?[?biufcOSU]\d{0,9}", code):
            raise pickle.UnpicklingError(f"it holds an array of {code!r}, expected numbers, texts or objects")
        self.dtype = np.dtype(code)

    def __setstate__(self, state: tuple[Any, ...]) -> None:
        if state[1] in ("<", ">"):
            self.dtype = self.dtype.newbyteorder(state[1])


class _Array:
    """An array, as a pickle tells it: made empty first, filled by its state."""

    def __init__(self) -> None:
        self.value: Array = np.empty(0)

    def __setstate__(self, state: tuple[Any, ...]) -> None:
        _version, shape, kind, fortran, data = state
        self.value = _shaped(
            _objects(data) if kind.dtype.hasobject else _numbers(data, kind.dtype, shape), shape, fortran
        )


def _scalar(kind: _Type, data: bytes) -> Any:
    return np.frombuffer(data, kind.dtype, count=1)[0]


class _Unpickler(pickle.Unpickler):
    def find_class(self, module: str, name: str) -> Any:
        """What stands in for each name that pickles of NumPy 1 and 2 hold; new each time, as pickles may change it."""
        match module, name:
            case "numpy", "dtype":
                return lambda code, *_: _Type(code)
            case "numpy.core.multiarray" | "numpy._core.multiarray", "_reconstruct":
                return lambda *_: _Array()
            case "numpy.core.multiarray" | "numpy._core.multiarray", "scalar":
                return lambda kind, data: _scalar(kind, data)
            case "numpy", "ndarray":
                return None  # what _reconstruct is told to make
            case "_codecs", "encode":
                return lambda text, _encoding: text.encode("latin1")  # bytes in old pickles
        raise pickle.UnpicklingError(f"it asks to run {module}.{name}, expected arrays of plain values and no more")


def _plain(value: Any, seen: dict[int, Any]) -> Any:
    """Replaces the stand-ins, wherever they are, by the arrays that they stand for.

    Args:
        value: what was unpickled.
        seen: what was replaced already, by `id`: a small pickle can name one list a million times.
    """
    if id(value) not in seen:
        seen[id(value)] = _replaced(value, seen)
    return seen[id(value)]


def _replaced(value: Any, seen: dict[int, Any]) -> Any:
    if isinstance(value, _Array):
        return _plain(value.value, seen)
    if isinstance(value, np.ndarray) and value.dtype.hasobject:
        return _objects([_plain(item, seen) for item in value.ravel()]).reshape(value.shape)
    if isinstance(value, list | tuple | set | frozenset):
        return type(value)([_plain(item, seen) for item in value])
    if isinstance(value, dict):
        return {key: _plain(item, seen) for key, item in value.items()}
    return value
