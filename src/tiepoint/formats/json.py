"""JSON (.json): the matches as plain lists, for every language.

An object with "tiepoint" (the version that wrote it), "size0" and "size1" ([height, width] of the images),
"keypoints0" and "keypoints1" (lists of [x, y]), "scores", where there is one "geometry" (its "kind",
"matrix", "inliers", and "rotation" and "translation" of an essential matrix), and "metadata". There is no
NaN.
"""

import json
import os
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from tiepoint import __version__
from tiepoint.errors import InputError
from tiepoint.files import atomic_path
from tiepoint.formats import Metadata, geometry_fields, plain
from tiepoint.types import Matches, TwoViewGeometry


def write(
    path: str | os.PathLike[str],
    matches: Matches,
    geometry: TwoViewGeometry | None = None,
    *,
    metadata: Metadata | None = None,
) -> None:
    """Writes one line of JSON; see `formats.write_matches`."""
    content: dict[str, Any] = {"tiepoint": __version__, "size0": matches.size0, "size1": matches.size1}
    content |= {name: _short(getattr(matches, name)) for name in ("keypoints0", "keypoints1", "scores")}
    if geometry is not None:
        content["geometry"] = plain(geometry_fields(geometry))
    content["metadata"] = plain(metadata or {})
    text = json.dumps(content, allow_nan=False, separators=(",", ":"))
    with atomic_path(path) as temporary:
        temporary.write_text(text + "\n", encoding="utf-8")


def read(path: str | os.PathLike[str]) -> Matches:
    """Reads the matches of a file; see `formats.read_matches`."""
    try:
        content = json.loads(Path(path).read_text(encoding="utf-8"))
        (h0, w0), (h1, w1) = content["size0"], content["size1"]
        keypoints0, keypoints1 = (_array(content[name]).reshape(-1, 2) for name in ("keypoints0", "keypoints1"))
        scores = _array(content["scores"])
        return Matches(keypoints0, keypoints1, scores, (int(h0), int(w0)), (int(h1), int(w1)))
    except FileNotFoundError as error:
        raise InputError(f"{path} does not exist, expected a file of matches") from error
    except KeyError as error:
        raise InputError(f"{path} is not a .json file of matches: it has no {error}") from error
    except (OSError, ValueError, TypeError, RecursionError) as error:
        raise InputError(f"{path} is not a .json file of matches: {error}") from error


def _short(array: npt.NDArray[np.float32]) -> Any:
    """Nested lists of the shortest numbers that are still exact in float32: 0.1, not 0.10000000149011612."""
    return array.astype(str).astype(np.float64).tolist()


def _array(values: Any) -> npt.NDArray[np.float32]:
    with np.errstate(over="ignore"):  # what float32 cannot hold becomes infinite, which Matches refuses
        return np.array(values, dtype=np.float64).astype(np.float32)
