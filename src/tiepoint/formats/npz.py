"""NumPy archives (.npz): the arrays of the matches and of their geometry under their own names.

Read one with `numpy.load(path)`, without pickle: keypoints0, keypoints1, scores, size0 and size1 as in
`Matches`; kind, matrix, inliers, rotation and translation as in `TwoViewGeometry` where there is one;
tiepoint (the version that wrote it) and metadata (a string of JSON).
"""

import json
import os
import zipfile
import zlib
from pathlib import Path
from typing import Any

import numpy as np

from tiepoint import __version__
from tiepoint.errors import InputError
from tiepoint.files import atomic_path
from tiepoint.formats import Metadata, geometry_fields, plain
from tiepoint.types import Matches, TwoViewGeometry

_DAMAGED = (zipfile.BadZipFile, zlib.error, EOFError, OSError, RuntimeError, MemoryError)
_STRANGE = (KeyError, TypeError, ValueError)


def write(
    path: str | os.PathLike[str],
    matches: Matches,
    geometry: TwoViewGeometry | None = None,
    *,
    metadata: Metadata | None = None,
) -> None:
    """Writes a compressed archive; see `formats.write_matches`."""
    arrays: dict[str, Any] = {name: getattr(matches, name) for name in Matches.__dataclass_fields__}
    arrays |= geometry_fields(geometry) if geometry is not None else {}
    arrays |= {"tiepoint": __version__, "metadata": json.dumps(plain(metadata or {}))}
    # an open file, because to a path that does not end in lower-case .npz NumPy appends it
    with atomic_path(path) as temporary, temporary.open("wb") as file:
        np.savez_compressed(file, **arrays)


def read(path: str | os.PathLike[str]) -> Matches:
    """Reads the matches of an archive; see `formats.read_matches`."""
    try:
        # opened here, because NumPy leaves the file open when it is no archive; what float32 cannot hold
        # becomes infinite, which Matches refuses
        with (
            Path(path).open("rb") as file,
            np.errstate(over="ignore"),
            np.load(file, allow_pickle=False) as archive,
        ):
            keypoints0, keypoints1, scores = (archive[n] for n in ("keypoints0", "keypoints1", "scores"))
            (h0, w0), (h1, w1) = archive["size0"].tolist(), archive["size1"].tolist()
            return Matches(keypoints0, keypoints1, scores, (int(h0), int(w0)), (int(h1), int(w1)))
    except FileNotFoundError as error:
        raise InputError(f"{path} does not exist, expected a file of matches") from error
    except (*_DAMAGED, *_STRANGE) as error:
        raise InputError(f"{path} is not a .npz file of matches: {error}") from error
