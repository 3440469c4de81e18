"""Layouts of posed images on disk: one module each, found by listing this folder. Each offers `LAYOUT`."""

import importlib
import pkgutil
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from loguru import logger

from tiepoint.data.scenes import Scene
from tiepoint.errors import InputError
from tiepoint.evaluation.reading import to_matrix
from tiepoint.types import Float64


class Layout(NamedTuple):
    """How a kind of data set lies on disk.

    Attributes:
        title: whose it is.
        expected: what tells it, for an error's sentence.
        found: whether a folder has it.
        read: its scenes, with different names and at least one pair each; raises `InputError` with a sentence.
    """

    title: str
    expected: str
    found: Callable[[Path], bool]
    read: Callable[[Path], list[Scene]]


def layouts() -> list[Layout]:
    """All layouts, in the alphabetical order of their modules."""
    names = sorted(module.name for module in pkgutil.iter_modules(__path__))
    return [importlib.import_module(f"{__name__}.{name}").LAYOUT for name in names]


def read_scenes(folder: Path) -> list[Scene]:
    """The scenes of a folder, by the layout that it has.

    Raises:
        InputError: it is no folder, has none of the layouts, or is damaged.
    """
    if not folder.is_dir():
        found = "is a file" if folder.is_file() else "does not exist"
        raise InputError(f"data.folder: {folder} {found}, expected a folder of images with depth and poses")
    for layout in layouts():
        if layout.found(folder):
            scenes = layout.read(folder)
            logger.info("{}: {}, {} pairs, scenes: {}", folder, layout.title, sum(map(len, scenes)), len(scenes))
            return scenes
    expected = "; ".join(f"{layout.expected} ({layout.title})" for layout in layouts())
    raise InputError(f"data.folder: {folder} has no layout that is known, expected in it one of {expected}")


def square(value: Any, side: int, where: str) -> Float64:
    """A square matrix of finite numbers that may be stored as one row.

    Raises:
        InputError: it is anything else.
    """
    flat = np.asarray(value).ravel()
    return to_matrix(flat.reshape(side, side) if flat.size == side**2 else flat, (side, side), where)
