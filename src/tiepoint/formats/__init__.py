"""File formats for matches: one module each, named after the suffix of its files, found on demand.

A new format is a new file in this folder. Its module has either or both of these functions:

    write(path, matches, geometry=None, *, metadata=None)   writes to `path` through `files.atomic_path`
    read(path)                                              returns the Matches, raises InputError
"""

import importlib
import math
import os
import pkgutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from tiepoint.errors import InputError
from tiepoint.types import Matches, TwoViewGeometry

__all__ = ["available", "geometry_fields", "plain", "read_matches", "write_matches"]

Metadata = Mapping[str, Any]


def write_matches(
    path: str | os.PathLike[str],
    matches: Matches,
    geometry: TwoViewGeometry | None = None,
    *,
    metadata: Metadata | None = None,
) -> None:
    """Writes matches to a file, in the format that its suffix names; the file appears complete or not at all.

    Args:
        path: the file to write; parent folders are created.
        matches: the tie points.
        geometry: what was estimated from them.
        metadata: anything worth keeping with them, such as the names of the images; in JSON's types, or
            arrays, paths and tuples, which are turned into these.

    Raises:
        InputError: no format has this suffix or it cannot be written, or `path` cannot be.
        ValueError: the geometry was not made from these matches.
    """
    write = _function(Path(path), "write")
    if geometry is not None and len(geometry.inliers) != len(matches):
        raise ValueError(f"the geometry has {len(geometry.inliers)} inlier flags for {len(matches)} matches")
    write(path, matches, geometry, metadata=metadata)


def read_matches(path: str | os.PathLike[str]) -> Matches:
    """Reads the matches that `write_matches` has written.

    Args:
        path: the file; its suffix names the format.

    Returns:
        The matches, with exactly the numbers that were written.

    Raises:
        InputError: no format has this suffix or it cannot be read, or the file is missing or broken.
    """
    read = _function(Path(path), "read")
    matches: Matches = read(path)
    return matches


def available() -> list[str]:
    """The suffixes of all formats, without their dot, in alphabetical order."""
    return sorted(module.name for module in pkgutil.iter_modules(__path__) if not module.name.startswith("_"))


def geometry_fields(geometry: TwoViewGeometry) -> dict[str, Any]:
    """The fields of a geometry that are set, under their own names.

    Args:
        geometry: any.

    Returns:
        "kind", "matrix" (3, 3), "inliers" (N,), and where there is a motion, "rotation" (3, 3) and
        "translation" (3,).
    """
    fields = {name: getattr(geometry, name) for name in TwoViewGeometry.__dataclass_fields__}
    return {name: value for name, value in fields.items() if value is not None}


def plain(value: Any) -> Any:
    """Turns metadata into what JSON can say.

    Args:
        value: mappings, sequences, arrays, paths, numbers and strings, nested as they may be.

    Returns:
        Dictionaries with string keys, lists, numbers, strings, booleans and None. NaN and the infinities
        become None, for JSON has no word for them; what is none of these becomes its `str`.
    """
    if isinstance(value, np.ndarray | np.generic):
        return plain(value.tolist())
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if value is None or isinstance(value, str | int):
        return value
    if isinstance(value, Mapping):
        return {str(key): plain(item) for key, item in value.items()}
    if isinstance(value, Sequence) and not isinstance(value, bytes):
        return [plain(item) for item in value]
    return str(value)


def _function(path: Path, name: str) -> Any:
    """The function `name` of the format that the suffix names.

    Raises:
        InputError: there is no such format, it has no such function, or a package that it needs is missing.
    """
    suffix = path.suffix.lower().removeprefix(".")
    if suffix not in available():
        known = ", ".join(f".{each}" for each in available())
        raise InputError(f"{path} has the suffix {path.suffix!r}, expected one of {known}")
    try:
        module = importlib.import_module(f"{__name__}.{suffix}")
    except ModuleNotFoundError as error:
        raise InputError(f"{path} needs the package {error.name}, which is not installed") from error
    if not hasattr(module, name):
        raise InputError(f"{path} names a format, .{suffix}, that tiepoint cannot {name}")
    return getattr(module, name)
