"""tiepoint's own list of pairs: `pairs.json` with the cameras of each pair, and its depth maps or their range."""

import json
import os
from collections import defaultdict
from pathlib import Path
from typing import Any

import numpy as np
from loguru import logger

from tiepoint.data.layouts import Layout
from tiepoint.data.scenes import Scene
from tiepoint.errors import InputError
from tiepoint.evaluation.pairlists import read_pair_list
from tiepoint.evaluation.pairs import PosePair

NAME = "pairs.json"


def _read(folder: Path) -> list[Scene]:
    path = folder / NAME
    bases = (folder, folder.parent)
    pairs = read_pair_list(path, bases=bases, strict=True).pairs
    entries: list[dict[str, Any]] = json.loads(path.read_text(encoding="utf-8-sig"))["pairs"]
    scenes: dict[str, list[tuple[PosePair, dict[str, Any]]]] = defaultdict(list)
    for pair, entry in zip(pairs, entries, strict=True):
        assert isinstance(pair, PosePair)
        if (entry.get("depth0") and entry.get("depth1")) or entry.get("inverse_depths"):
            told = [str(entry[key]) for key in ("dataset", "scene") if entry.get(key)]
            scenes["/".join(told) or os.path.dirname(entry["image0"])].append((pair, entry))
    without = len(pairs) - sum(map(len, scenes.values()))
    if not scenes:
        raise InputError(
            f"{path} has {len(pairs)} pairs, all of them without depth0 and depth1: expected some with both, or with "
            "inverse_depths"
        )
    if without:
        logger.warning("left out: {} of {} pairs of {}, which have no depth", without, len(pairs), path)
    return [_scene(name, found, bases, path) for name, found in scenes.items()]


def _scene(name: str, found: list[tuple[PosePair, dict[str, Any]]], bases: tuple[Path, ...], path: Path) -> Scene:
    """Each pair has two views of its own, of which the first is at the origin: the list knows relative poses alone."""
    poses = [pose for pair, _ in found for pose in (np.eye(4), pair.T_0to1)]
    numbers = ((entry.get("depth_scale", 1e-3), entry.get("overlap", np.nan)) for _, entry in found)
    try:
        scales, overlaps = (np.array(each, dtype=np.float64) for each in zip(*numbers, strict=True))
    except (TypeError, ValueError) as error:
        raise InputError(f"{path}, scene {name}: depth_scale or overlap is no number") from error
    files = [str(entry.get(side) or "") for _, entry in found for side in ("depth0", "depth1")]
    return Scene(
        name=name,
        images=[str(image) for pair, _ in found for image in (pair.path0, pair.path1)],
        depths=[_depth(file, bases) if file else "" for file in files],
        depth_scales=scales.repeat(2),
        K=np.stack([K for pair, _ in found for K in (pair.K0, pair.K1)]),
        sizes=np.zeros((2 * len(found), 2), np.int64),
        pose=np.stack(poses).__getitem__,
        pairs=np.arange(2 * len(found)).reshape(-1, 2),
        overlap=overlaps,
        ranges=np.array([_range(entry, f"{path}, scene {name}") for _, entry in found]),
    )


def _range(entry: dict[str, Any], where: str) -> tuple[float, float]:
    """What an entry tells of its inverse depths."""
    if not entry.get("inverse_depths"):
        return np.nan, np.nan
    told = entry["inverse_depths"]
    try:
        low, high = (float(each) for each in told)
    except (TypeError, ValueError) as error:
        raise InputError(f"{where}: inverse_depths is {told!r}, expected [least, greatest]") from error
    if not 0 <= low < high < np.inf:
        raise InputError(f"{where}: inverse_depths is {told!r}, expected two numbers that rise from 0")
    return low, high


def _depth(name: str, bases: tuple[Path, ...]) -> str:
    """Where a depth map lies; what does not exist is told with all other files."""
    return str(next((base / name for base in bases if (base / name).is_file()), bases[0] / name))


LAYOUT = Layout("a list of pairs", NAME, lambda folder: (folder / NAME).is_file(), _read)
