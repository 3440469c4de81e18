"""What the readers of benchmarks share: finding files, files of numbers, and pairs that are left out."""

import os
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
from loguru import logger

from tiepoint.errors import InputError
from tiepoint.evaluation.pairs import Pair, PairList
from tiepoint.types import Float64

_Entry = TypeVar("_Entry")


def collect(entries: Iterable[_Entry], read: Callable[[_Entry], Pair], *, strict: bool, source: Path) -> PairList:
    """Reads pair after pair and leaves out what cannot be used.

    Args:
        entries: what each pair is read from.
        read: makes the pair, or raises `InputError` with a sentence that names file and line.
        strict: raise at the first unusable pair instead of leaving it out.
        source: the list or folder, for the error's sentence.

    Returns:
        The usable pairs in order, and a sentence for each of the others.

    Raises:
        InputError: a pair is unusable and `strict`, or no pair is usable at all.
    """
    found = PairList([], [])
    for entry in entries:
        try:
            found.pairs.append(read(entry))
        except InputError as error:
            if strict:
                raise
            found.left_out.append(str(error))
    if not found.pairs:
        reason = f", the first of {len(found.left_out)}: {found.left_out[0]}" if found.left_out else ", expected some"
        raise InputError(f"{source} holds no usable pair{reason}")
    return found


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
        return path.read_text(encoding="utf-8-sig").split("\n")
    except OSError as error:
        raise InputError(f"{path} cannot be read: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise InputError(f"{path} is not a text file: {error.reason} at byte {error.start}") from error


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


def read_matrix(path: Path, side: int) -> Float64:
    """Reads a square matrix from a text file, a row a line.

    Args:
        path: the file.
        side: rows and columns.

    Returns:
        (side, side).

    Raises:
        InputError: the file cannot be read, or holds anything else.
    """
    rows = read_table(path, side)
    if len(rows) != side:
        raise InputError(f"{path} has {len(rows)} lines of numbers, expected {side}")
    return rows


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


def to_matrix(value: Any, shape: tuple[int, int], where: str) -> Float64:
    """Turns nested lists or an array of any origin into a matrix of finite numbers.

    Args:
        value: what a file holds.
        shape: (rows, columns).
        where: file and place in it, for the error's sentence.

    Returns:
        Of that shape.

    Raises:
        InputError: it is anything else.
    """
    expected = f"expected {shape[0]} x {shape[1]} finite numbers"
    try:
        matrix = np.array(value, dtype=np.float64)
    except (TypeError, ValueError, OverflowError) as error:
        raise InputError(f"{where} is no matrix of numbers, {expected}") from error
    if matrix.shape != shape:
        raise InputError(f"{where} has shape {matrix.shape}, {expected}")
    if not np.isfinite(matrix).all():
        raise InputError(f"{where} holds a number that is not finite, {expected}")
    return matrix


def find_image(name: str, bases: Sequence[Path], where: str) -> Path:
    """Looks for the image that a list names.

    Args:
        name: as the list writes it.
        bases: folders that it may start from, tried in order.
        where: file and line, for the error's sentence.

    Returns:
        Its path.

    Raises:
        InputError: it is in none of them.
    """
    for base in bases:
        # unlike Path.is_file, false for names that no file can have
        if os.path.isfile(base / name):
            return base / name
    # a list may hold any character: the sentence has to be printable everywhere
    shown = str(bases[0] / name).encode("utf-8", "backslashreplace").decode()
    others = f" (nor in {', '.join(map(str, bases[1:]))})" if len(bases) > 1 else ""
    raise InputError(f"{where} names the image {shown}, which does not exist{others}")


def find_index(folder: Path, name: str, expected: str) -> Path:
    """Looks for a file in a folder and up to two folders below.

    Args:
        folder: where to begin.
        name: of the file.
        expected: which file it is, for the error's sentence.

    Returns:
        The path of the one that lies highest.

    Raises:
        InputError: there is none.
    """
    if not folder.is_dir():
        raise InputError(f"{folder} is not a folder, expected one that holds {expected}")
    for pattern in (name, f"*/{name}", f"*/*/{name}"):
        for path in sorted(folder.glob(pattern)):
            return path
    raise InputError(f"{folder} holds no {name}, expected {expected}")


def warn_if_incomplete(found: PairList, count: int, folder: Path) -> None:
    """Logs a warning where a published set has another number of pairs than was published.

    Args:
        found: what was read.
        count: how many pairs were published.
        folder: where they lie.
    """
    pairs = len(found.pairs) + len(found.left_out)
    if pairs != count:
        logger.warning(f"{folder} holds {pairs} pairs, published were {count}: figures will not compare with papers'")
