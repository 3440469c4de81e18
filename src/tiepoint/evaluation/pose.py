"""Readers of image pairs with known cameras: SuperGlue's pair lists and `pairs.json`."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from tiepoint.errors import InputError
from tiepoint.evaluation.homography import parse_numbers, read_lines
from tiepoint.types import Float64


@dataclass(frozen=True, slots=True, eq=False)
class PosePair:
    """Two images of pinhole cameras with known intrinsics and relative pose.

    Attributes:
        name: "image0 image1", as the list writes them.
        path0: image 0.
        path1: image 1.
        K0: (3, 3) float64, intrinsics in pixels of image 0 as stored.
        K1: (3, 3) float64, intrinsics in pixels of image 1 as stored.
        T_0to1: (4, 4) float64, camera-0 to camera-1 coordinates.
    """

    name: str
    path0: Path
    path1: Path
    K0: Float64
    K1: Float64
    T_0to1: Float64


def read_pose_pairs(path: Path, *, root: Path | None = None) -> list[PosePair]:
    """Reads a list of image pairs with cameras: JSON where the name ends in .json, else SuperGlue's text.

    Args:
        path: the list.
        root: folder that the list's image paths start from; by default the list's own.

    Returns:
        The pairs in the order of the list.

    Raises:
        InputError: the list is malformed or empty, or an image is missing.
    """
    root = path.parent if root is None else root
    read = _read_json if path.suffix == ".json" else _read_superglue
    pairs = read(path, root)
    if not pairs:
        raise InputError(f"{path} holds no pair, expected at least one")
    return pairs


def _read_superglue(path: Path, root: Path) -> list[PosePair]:
    lines = [(number, line.split()) for number, line in enumerate(read_lines(path), start=1)]
    return [_parse_line(fields, root, f"{path}:{number}") for number, fields in lines if fields]


def _parse_line(fields: list[str], root: Path, where: str) -> PosePair:
    if len(fields) != 38:
        expected = "image0 image1 rot0 rot1 K0(9) K1(9) T_0to1(16)"
        raise InputError(f"{where} has {len(fields)} fields, expected 38: {expected}")
    values = parse_numbers(fields[2:], 36, where)
    if values[:2].any():
        raise InputError(f"{where} turns an image by {fields[2]} and {fields[3]} quarters, only 0 is supported")
    K0, K1, T = values[2:11].reshape(3, 3), values[11:20].reshape(3, 3), values[20:].reshape(4, 4)
    return _pair(fields[0], fields[1], root, where, cameras=(K0, K1), T_0to1=T)


def _read_json(path: Path, root: Path) -> list[PosePair]:
    try:
        content = json.loads("\n".join(read_lines(path)))
    except json.JSONDecodeError as error:
        raise InputError(f"{path}:{error.lineno} is not JSON: {error.msg}") from error
    pairs = content.get("pairs") if isinstance(content, dict) else None
    if not isinstance(pairs, list):
        raise InputError(f'{path} holds no list "pairs", expected {{"pairs": [{{"image0": ...}}, ...]}}')
    return [_parse_entry(entry, root, f"{path}, pair {number}") for number, entry in enumerate(pairs, start=1)]


def _parse_entry(entry: Any, root: Path, where: str) -> PosePair:
    required = ("image0", "image1", "K0", "K1", "T_0to1")
    missing = [key for key in required if not isinstance(entry, dict) or key not in entry]
    if missing:
        raise InputError(f"{where} lacks {', '.join(missing)}, expected {', '.join(required)}")
    cameras = (_matrix(entry["K0"], 3, f"{where}, K0"), _matrix(entry["K1"], 3, f"{where}, K1"))
    T_0to1 = _matrix(entry["T_0to1"], 4, f"{where}, T_0to1")
    return _pair(str(entry["image0"]), str(entry["image1"]), root, where, cameras=cameras, T_0to1=T_0to1)


def _matrix(value: Any, side: int, where: str) -> Float64:
    try:
        matrix = np.array(value, dtype=np.float64)
    except (TypeError, ValueError) as error:
        raise InputError(f"{where} is no matrix of numbers, expected {side} x {side}") from error
    if matrix.shape != (side, side) or not np.isfinite(matrix).all():
        raise InputError(f"{where} has shape {matrix.shape}, expected {side} x {side} finite numbers")
    return matrix


def _pair(
    image0: str, image1: str, root: Path, where: str, *, cameras: tuple[Float64, Float64], T_0to1: Float64
) -> PosePair:
    for name, K in zip(("K0", "K1"), cameras, strict=True):
        _check_intrinsics(K, f"{where}, {name}")
    _check_pose(T_0to1, f"{where}, T_0to1")
    for image in (image0, image1):
        if not (root / image).is_file():
            raise InputError(f"{where} names the image {root / image}, which does not exist")
    return PosePair(f"{image0} {image1}", root / image0, root / image1, *cameras, T_0to1)


def _check_intrinsics(K: Float64, where: str) -> None:
    if K[0, 0] <= 0 or K[1, 1] <= 0 or K[0, 1] != 0 or (K[1:, 0] != 0).any() or (K[2, 1:] != (0, 1)).any():
        raise InputError(f"{where} is {K.tolist()}, expected [[fx, 0, cx], [0, fy, cy], [0, 0, 1]] with fx, fy > 0")


def _check_pose(T: Float64, where: str) -> None:
    R = T[:3, :3]
    # published lists round to a few digits
    rotates = np.allclose(R @ R.T, np.eye(3), atol=1e-2) and np.linalg.det(R) > 0
    if not rotates or (T[3] != (0, 0, 0, 1)).any():
        raise InputError(f"{where} is not rigid, expected a rotation, a translation and the last row 0 0 0 1")
