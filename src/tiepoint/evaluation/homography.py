"""Readers of image sequences in the HPatches layout: pairs with a true homography, or with true points."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from tiepoint.errors import InputError
from tiepoint.types import Float64


@dataclass(frozen=True, slots=True, eq=False)
class HomographyPair:
    """Two images related by a known homography.

    Attributes:
        name: "sequence/1-k".
        path0: image 0.
        path1: image 1.
        H_0to1: (3, 3) float64, pixels of image 0 to image 1 as stored.
    """

    name: str
    path0: Path
    path1: Path
    H_0to1: Float64


@dataclass(frozen=True, slots=True, eq=False)
class PointPair:
    """Two images with places that a person marked in both.

    Attributes:
        name: "sequence/1-2".
        path0: image 0.
        path1: image 1.
        points0: (N, 2) float64, pixels of image 0 as stored.
        points1: (N, 2) float64, the same places in image 1.
    """

    name: str
    path0: Path
    path1: Path
    points0: Float64
    points1: Float64


def read_homography_pairs(root: Path) -> list[HomographyPair]:
    """Reads every `H_1_k` of a folder in the HPatches layout (Balntas et al., CVPR 2017).

    Args:
        root: folder of sequences, each with images `1.*` to `n.*` and text files `H_1_k` (image 1 to k).

    Returns:
        The pairs (1, k), by sequence and then by k.

    Raises:
        InputError: there is no sequence, an image is missing or a homography is malformed.
    """
    return [pair for folder in _sequences(root) for pair in _homography_sequence(folder)]


def read_point_pairs(root: Path) -> list[PointPair]:
    """Reads the marked points of image pairs, as in WxBS (Mishkin et al., BMVC 2015).

    Args:
        root: folder of sequences, each with images `1.*` and `2.*` and the text file `corrs_1_2.txt`
            of lines x1 y1 x2 y2.

    Returns:
        One pair a sequence, by name.

    Raises:
        InputError: there is no sequence, or a file is missing or malformed.
    """
    return [_point_sequence(folder) for folder in _sequences(root)]


def read_table(path: Path, columns: int) -> Float64:
    """Reads a text file of numbers; empty lines do not count.

    Args:
        path: the file.
        columns: numbers a line.

    Returns:
        (rows, columns).

    Raises:
        InputError: the file cannot be read, is empty, or a line is malformed.
    """
    lines = [(number, line.split()) for number, line in enumerate(read_lines(path), start=1)]
    rows = [parse_numbers(fields, columns, f"{path}:{number}") for number, fields in lines if fields]
    if not rows:
        raise InputError(f"{path} is empty, expected lines of {columns} numbers")
    return np.stack(rows)


def read_lines(path: Path) -> list[str]:
    """Reads the lines of a text file.

    Args:
        path: the file.

    Returns:
        Its lines without their ends.

    Raises:
        InputError: the file cannot be read or is not text.
    """
    try:
        return path.read_text(encoding="utf-8").splitlines()
    except OSError as error:
        raise InputError(f"{path} cannot be read: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise InputError(f"{path} is not a text file: {error.reason} at byte {error.start}") from error


def parse_numbers(fields: Sequence[str], count: int, where: str) -> Float64:
    """Turns words into finite numbers.

    Args:
        fields: the words.
        count: how many are expected.
        where: file and line, for the error's sentence.

    Returns:
        (count,).

    Raises:
        InputError: their number differs, or one is not a finite number.
    """
    if len(fields) != count:
        raise InputError(f"{where} has {len(fields)} fields, expected {count}")
    try:
        values = np.array([float(field) for field in fields])
    except ValueError as error:
        raise InputError(f"{where} is malformed: {error}, expected {count} numbers") from error
    if not np.isfinite(values).all():
        raise InputError(f"{where} holds a number that is not finite, expected {count} finite numbers")
    return values


def _sequences(root: Path) -> list[Path]:
    if not root.is_dir():
        raise InputError(f"{root} is not a folder, expected one that holds a folder for each sequence")
    folders = sorted(path for path in root.iterdir() if path.is_dir() and not path.name.startswith("."))
    if not folders:
        raise InputError(f"{root} holds no folder, expected one for each sequence")
    return folders


def _homography_sequence(folder: Path) -> list[HomographyPair]:
    indices = sorted(int(path.name[4:]) for path in folder.glob("H_1_*") if path.name[4:].isdecimal())
    if not indices:
        raise InputError(f"{folder} holds no homography, expected files H_1_2, H_1_3, ...")
    first = _image(folder, 1)
    return [
        HomographyPair(f"{folder.name}/1-{k}", first, _image(folder, k), _read_homography(folder / f"H_1_{k}"))
        for k in indices
    ]


def _point_sequence(folder: Path) -> PointPair:
    points = read_table(folder / "corrs_1_2.txt", columns=4)
    return PointPair(
        f"{folder.name}/1-2",
        _image(folder, 1),
        _image(folder, 2),
        np.copy(points[:, :2]),
        np.copy(points[:, 2:]),
    )


def _read_homography(path: Path) -> Float64:
    H = read_table(path, columns=3)
    if len(H) != 3:
        raise InputError(f"{path} has {len(H)} lines of numbers, expected 3")
    if np.linalg.matrix_rank(H) < 3:
        raise InputError(f"{path} is singular, expected an invertible homography")
    return H


def _image(folder: Path, index: int) -> Path:
    found = sorted(folder.glob(f"{index}.*"))
    if len(found) != 1:
        raise InputError(f"{folder} holds {len(found)} files {index}.*, expected exactly one image")
    return found[0]
