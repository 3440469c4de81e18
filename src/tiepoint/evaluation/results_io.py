"""`results.json`: a run's results as JSON and back, number for number."""

import json
import os
from dataclasses import MISSING, asdict, fields, is_dataclass
from functools import lru_cache
from pathlib import Path
from types import UnionType
from typing import Any, NoReturn, get_args, get_origin, get_type_hints

from tiepoint.errors import InputError
from tiepoint.evaluation.results import Results
from tiepoint.files import atomic_path
from tiepoint.formats import plain

NAME = "results.json"
_WORDS = {str: "text", int: "a whole number", float: "a number", bool: "true or false"}


class _UnlikeError(Exception):
    """A place in the JSON that is not as `Results` has it."""


def write_results(results: Results, path: str | os.PathLike[str]) -> None:
    """Write a run's results; the file appears complete or not at all.

    Args:
        results: the run. NaN and infinity become null where a value may be missing, such as a pair's error.
        path: the file to write.

    Raises:
        InputError: the path cannot be written.
        ValueError: a number that must be there is NaN or infinite, or a list has not the length it must have.
    """
    content = plain(asdict(results))
    try:
        _check(_decoded(content, Results, "results"))
    except _UnlikeError as error:
        raise ValueError(str(error)) from error
    with atomic_path(path) as temporary:
        temporary.write_text(json.dumps(content, indent=1, allow_nan=False) + "\n", encoding="utf-8")


def read_results(path: str | os.PathLike[str]) -> Results:
    """Read what `write_results` has written.

    Args:
        path: the file, or the folder of a run that holds it as results.json.

    Returns:
        Results equal to those that were written. Fields that this version does not know are passed over.

    Raises:
        InputError: there is no such file, or it is not the results of a run.
    """
    file = Path(path) / NAME if Path(path).is_dir() else Path(path)
    try:
        content = json.loads(file.read_text(encoding="utf-8"), parse_constant=_refuse)
        results: Results = _decoded(content, Results, "results")
        _check(results)
    except FileNotFoundError as error:
        raise InputError(f"{file} does not exist, expected the {NAME} of `tiepoint benchmark`") from error
    except OSError as error:
        raise InputError(f"{file} cannot be read: {error.strerror}") from error
    except (_UnlikeError, ValueError, RecursionError) as error:
        raise InputError(f"{file} is not the {NAME} of `tiepoint benchmark`: {error}") from error
    return results


def _refuse(word: str) -> NoReturn:
    raise _UnlikeError(f"it holds {word}, expected numbers")


@lru_cache
def _hints(kind: type) -> dict[str, Any]:
    return get_type_hints(kind)


def _decoded(value: Any, kind: Any, place: str) -> Any:
    """A value of JSON as the type that the dataclasses declare.

    Raises:
        _UnlikeError: it is none.
    """
    if kind is Any:
        return value
    if isinstance(kind, UnionType):
        wanted = next(choice for choice in get_args(kind) if choice is not type(None))
        return None if value is None else _decoded(value, wanted, place)
    if is_dataclass(kind):
        return _fields(value, kind, place)
    if origin := get_origin(kind):
        return _collection(value, origin, get_args(kind), place=place)
    return _single(value, kind, place)


def _fields(value: Any, kind: Any, place: str) -> Any:
    given = _of_type(value, dict, place, "an object")
    for field in fields(kind):
        if field.name not in given and field.default_factory is MISSING:
            raise _UnlikeError(f"{place} has no {field.name!r}")
    hints = _hints(kind)
    names = [field.name for field in fields(kind) if field.name in given]
    return kind(**{name: _decoded(given[name], hints[name], f"{place}.{name}") for name in names})


def _collection(value: Any, origin: Any, inner: tuple[Any, ...], *, place: str) -> Any:
    if origin is dict:
        given = _of_type(value, dict, place, "an object")
        return {name: _decoded(item, inner[1], f"{place}.{name}") for name, item in given.items()}
    items = _of_type(value, list, place, "a list")
    if origin is list:
        return [_decoded(item, inner[0], f"{place}[{index}]") for index, item in enumerate(items)]
    if len(items) != len(inner):
        raise _UnlikeError(f"{place} has {len(items)} values, expected {len(inner)}")
    pairs = zip(items, inner, strict=True)
    return tuple(_decoded(item, kind, f"{place}[{index}]") for index, (item, kind) in enumerate(pairs))


def _single(value: Any, kind: Any, place: str) -> Any:
    number = isinstance(value, int | float) and not isinstance(value, bool)
    if kind is float and number and abs(value) <= 1e300:  # 1e999 is infinite, and an int may be too large for float
        return float(value)
    if (kind is int and number and not isinstance(value, float)) or (kind in (str, bool) and isinstance(value, kind)):
        return value
    raise _UnlikeError(f"{place} is {_told(value)}, expected {_WORDS[kind]}")


def _of_type(value: Any, kind: type, place: str, word: str) -> Any:
    if not isinstance(value, kind):
        raise _UnlikeError(f"{place} is {_told(value)}, expected {word}")
    return value


def _told(value: Any) -> str:
    """A value of JSON in a few characters."""
    text = json.dumps(value)
    return text if len(text) <= 40 else f"{text[:39]}…"


def _check(results: Results) -> None:
    """What types cannot say: which lists belong together.

    Raises:
        _UnlikeError: they do not.
    """
    for found in results.sets:
        swept = (found.protocol or results.protocol).get("thresholds")
        if not isinstance(swept, list) or not swept or not all(isinstance(each, int | float) for each in swept):
            raise _UnlikeError(f"{found.name}: the protocol's thresholds are {_told(swept)}, expected a list of pixels")
        if not found.limits or min(found.limits) <= 0:
            raise _UnlikeError(f"{found.name}: the limits are {_told(found.limits)}, expected positive numbers")
        names = [pair.name for pair in found.methods[0].pairs] if found.methods else []
        for method in found.methods:
            place = f"{found.name}, {method.name}"
            if method.threshold not in swept:
                raise _UnlikeError(f"{place}: the threshold is {method.threshold:g}, expected one of {_told(swept)}")
            if [pair.name for pair in method.pairs] != names:
                raise _UnlikeError(f"{place}: the pairs differ from those of {found.methods[0].name}")
            for pair in method.pairs:
                if not len(pair.errors) == len(pair.inliers) == len(swept):
                    raise _UnlikeError(f"{place}: pair {pair.name} has not one error and inlier count a threshold")
