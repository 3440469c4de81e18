"""Matches on disk: what a method found in a pair is kept under a key of everything that it depends on."""

import hashlib
import json
import os
import re
import zipfile
import zlib
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from tiepoint import __version__
from tiepoint.errors import InputError
from tiepoint.evaluation.frames import Scale
from tiepoint.files import atomic_path
from tiepoint.types import Float32, Matches

# whatever a damaged or foreign file makes NumPy stumble over: it is matched anew
_UNREADABLE = (OSError, ValueError, KeyError, TypeError, EOFError, RuntimeError, zipfile.BadZipFile, zlib.error)


@dataclass(frozen=True, slots=True, eq=False)
class Cached:
    """What one method found in one pair.

    Attributes:
        matches: in pixels of the resized images.
        keypoints0: (M, 2), all keypoints of the resized image 0; None where the method has no detector.
        keypoints1: likewise of image 1.
        scale0: (sx, sy) with x_stored = (x + 0.5) * sx - 0.5, image 0.
        scale1: the same of image 1.
        seconds: wall time by stage.
    """

    matches: Matches
    keypoints0: Float32 | None
    keypoints1: Float32 | None
    scale0: Scale
    scale1: Scale
    seconds: Mapping[str, float]


def cache_path(folder: Path, *, set_name: str, method: str, identity: str, pair: str) -> Path:
    """Where a pair's matches are kept: SET/METHOD-FINGERPRINT/PAIR.npz.

    Args:
        folder: of all matches.
        set_name: the benchmark.
        method: its name.
        identity: whatever decides the method's answer beside the images.
        pair: its name.

    Returns:
        A path whose parts every file system takes, and which no other pair, method or identity has.
    """
    return folder / set_name / _unique(method, identity, 40) / f"{_unique(pair, pair, 80)}.npz"


def cache_key(identity: str, path0: Path, path1: Path) -> str:
    """Everything that a pair's matches depend on, as one line of JSON.

    Args:
        identity: of the method and of the resizing.
        path0: image 0.
        path1: image 1.

    Raises:
        InputError: an image cannot be read.
    """
    return json.dumps({"method": identity, "image0": file_identity(path0), "image1": file_identity(path1)})


def file_identity(path: Path) -> str:
    """SHA-256 of a file's content; read again only where size or time of change differ.

    Raises:
        InputError: it cannot be read.
    """
    try:
        status = os.stat(path)
        return _digest(os.fspath(path), status.st_size, status.st_mtime_ns)
    except FileNotFoundError as error:
        raise InputError(f"{path} does not exist, expected a file") from error
    except OSError as error:
        raise InputError(f"{path} cannot be read: {error.strerror}") from error


def write_cached(path: Path, cached: Cached, key: str) -> None:
    """Keep a pair's matches; the file appears complete or not at all.

    `tiepoint.formats.read_matches` reads it too; what it holds more is `detected0` and `detected1`, all keypoints of
    either image where the method has a detector, and in the metadata the scales, the seconds and the key.

    Args:
        path: of the .npz file.
        cached: what was found.
        key: what it depends on.
    """
    matches = cached.matches
    arrays: dict[str, Any] = {name: getattr(matches, name) for name in Matches.__dataclass_fields__}
    detected = {"detected0": cached.keypoints0, "detected1": cached.keypoints1}
    arrays |= {name: points for name, points in detected.items() if points is not None}
    told = {"key": key, "scale0": cached.scale0, "scale1": cached.scale1, "seconds": dict(cached.seconds)}
    # not compressed: the coordinates are noise to zlib, which would cost more than a fast matcher
    with atomic_path(path) as temporary, temporary.open("wb") as file:
        np.savez(file, **arrays, tiepoint=np.array(__version__), metadata=np.array(json.dumps(told)))


def is_cached(path: Path, key: str) -> bool:
    """Whether a file holds the matches of just this key."""
    try:
        with path.open("rb") as file, np.load(file, allow_pickle=False) as archive:
            return bool(_metadata(archive)["key"] == key)
    except _UNREADABLE:
        return False


def read_cached(path: Path) -> Cached:
    """A pair's matches as `write_cached` has kept them.

    Raises:
        InputError: the file is missing or holds something else.
    """
    try:
        with path.open("rb") as file, np.load(file, allow_pickle=False) as archive:
            told = _metadata(archive)
            size0, size1 = (_two(archive[name].tolist(), int) for name in ("size0", "size1"))
            matches = Matches(archive["keypoints0"], archive["keypoints1"], archive["scores"], size0, size1)
            detected0, detected1 = (_optional(archive, name) for name in ("detected0", "detected1"))
            scale0, scale1 = (_two(told[name], float) for name in ("scale0", "scale1"))
            return Cached(matches, detected0, detected1, scale0, scale1, told["seconds"])
    except _UNREADABLE as error:
        raise InputError(f"{path} does not hold a pair's matches: {error}") from error


def _metadata(archive: Any) -> dict[str, Any]:
    told: dict[str, Any] = json.loads(str(archive["metadata"]))
    return told


def _two(values: Any, kind: type[Any]) -> tuple[Any, Any]:
    first, second = values
    return kind(first), kind(second)


def _optional(archive: Any, name: str) -> npt.NDArray[np.float32] | None:
    return archive[name] if name in archive.files else None


def _unique(name: str, identity: str, length: int) -> str:
    """A name that every file system takes, with a digest that tells it from all others."""
    plain = re.sub(r"[^A-Za-z0-9._-]+", "_", name).strip("._")[-length:]
    digest = hashlib.sha256(f"{name}\n{identity}".encode()).hexdigest()
    return f"{plain}-{digest[:10]}"


@lru_cache(maxsize=65536)
def _digest(path: str, size: int, changed: int) -> str:
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
