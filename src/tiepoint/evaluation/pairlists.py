"""Readers of lists of image pairs with known cameras: SuperGlue's and glue-factory's text, and `pairs.json`."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from tiepoint.errors import InputError
from tiepoint.evaluation.checks import pose_pair
from tiepoint.evaluation.pairs import PairList, PosePair
from tiepoint.evaluation.reading import collect, find_image, parse_numbers, read_lines, to_matrix
from tiepoint.images import image_size
from tiepoint.types import Float64

LAYOUTS = {  # numbers after the two images -> what they are
    36: "rot0 rot1 K0(9) K1(9) T_0to1(16)",  # SuperGlue
    34: "K0(9) K1(9) T_0to1(16)",  # glue-factory's ScanNet
    30: "K0(9) K1(9) R_0to1(9) t_0to1(3)",  # glue-factory's MegaDepth
}


class _Place(NamedTuple):
    """Where an entry of a list stands, and what its image paths may start from."""

    where: str
    bases: Sequence[Path]


def read_pair_list(path: Path, *, bases: Sequence[Path], strict: bool) -> PairList:
    """Reads a list of image pairs with cameras: JSON where the name ends in .json, else text.

    The text has a pair a line: two image paths, then SuperGlue's 36 numbers (Sarlin et al., CVPR 2020)
    `rot0 rot1 K0(9) K1(9) T_0to1(16)`, or those of glue-factory's `pairs_calibrated.txt`: `K0(9) K1(9) T_0to1(16)` or
    `K0(9) K1(9) R_0to1(9) t_0to1(3)`. Empty lines and lines that begin with # do not count.

    The JSON is `{"pairs": [{"image0": path, "image1": path, "K0": 3x3, "K1": 3x3, "T_0to1": 4x4}, ...]}`; `size0` and
    `size1`, [height, width] in pixels, say which size the intrinsics belong to.

    Args:
        path: the list.
        bases: folders that its image paths may start from, tried in order.
        strict: raise at the first unusable pair instead of leaving it out.

    Returns:
        The pairs in the order of the list.

    Raises:
        InputError: the list cannot be read or holds no usable pair; with `strict`, one is unusable.
    """
    if path.suffix == ".json":
        entries = [(entry, _Place(f"{path}, pair {n}", bases)) for n, entry in enumerate(_json_entries(path), start=1)]
        return collect(entries, lambda entry: _from_json(*entry), strict=strict, source=path)
    numbered = enumerate(read_lines(path), start=1)
    lines = [(line.split(), _Place(f"{path}:{number}", bases)) for number, line in numbered]
    used = [(fields, place) for fields, place in lines if fields and not fields[0].startswith("#")]
    return collect(used, lambda entry: _from_fields(*entry), strict=strict, source=path)


def _from_fields(fields: list[str], place: _Place) -> PosePair:
    if len(fields) - 2 not in LAYOUTS:
        layouts = " or ".join(f"{count + 2} (image0 image1 {layout})" for count, layout in LAYOUTS.items())
        raise InputError(f"{place.where} has {len(fields)} fields, expected {layouts}")
    values = parse_numbers(fields[2:], len(fields) - 2, place.where)
    if len(values) == 36:
        if values[:2].any():
            turns = f"{fields[2]} and {fields[3]} quarters"
            raise InputError(
                f"{place.where} turns its images by {turns}, expected 0: only upright images are supported"
            )
        values = values[2:]
    cameras = (values[:9].reshape(3, 3), values[9:18].reshape(3, 3))
    return _pair((fields[0], fields[1]), place, cameras=cameras, T_0to1=_pose(values[18:]))


def _pose(values: Float64) -> Float64:
    if len(values) == 16:
        return values.reshape(4, 4)
    T = np.eye(4)
    T[:3, :3], T[:3, 3] = values[:9].reshape(3, 3), values[9:]
    return T


def _json_entries(path: Path) -> list[Any]:
    try:
        content = json.loads("\n".join(read_lines(path)))
    except json.JSONDecodeError as error:
        raise InputError(f"{path}:{error.lineno} is not JSON: {error.msg}") from error
    except (ValueError, RecursionError) as error:
        raise InputError(f"{path} cannot be read as JSON: {error}") from error
    entries = content.get("pairs") if isinstance(content, dict) else None
    if not isinstance(entries, list):
        raise InputError(f'{path} holds no list "pairs", expected {{"pairs": [{{"image0": ...}}, ...]}}')
    return entries


def _from_json(entry: Any, place: _Place) -> PosePair:
    required = ("image0", "image1", "K0", "K1", "T_0to1")
    missing = [key for key in required if not isinstance(entry, dict) or key not in entry]
    if missing:
        raise InputError(f"{place.where} lacks {', '.join(missing)}, expected {', '.join(required)}")
    names = (entry["image0"], entry["image1"])
    if not all(isinstance(name, str) for name in names):
        raise InputError(f"{place.where} names the images {names[0]!r} and {names[1]!r}, expected two paths")
    cameras = tuple(to_matrix(entry[key], (3, 3), f"{place.where}, {key}") for key in ("K0", "K1"))
    T_0to1 = to_matrix(entry["T_0to1"], (4, 4), f"{place.where}, T_0to1")
    pair = _pair(names, place, cameras=(cameras[0], cameras[1]), T_0to1=T_0to1)
    for key, image in (("size0", pair.path0), ("size1", pair.path1)):
        if key in entry and entry[key] != list(image_size(image)):
            found = list(image_size(image))
            raise InputError(f"{place.where}, {key} is {entry[key]}, but {image} is {found}: expected [height, width]")
    return pair


def _pair(names: tuple[str, str], place: _Place, *, cameras: tuple[Float64, Float64], T_0to1: Float64) -> PosePair:
    paths = (find_image(names[0], place.bases, place.where), find_image(names[1], place.bases, place.where))
    return pose_pair(names, paths, cameras=cameras, T_0to1=T_0to1, where=place.where)
