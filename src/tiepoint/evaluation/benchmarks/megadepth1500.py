"""MegaDepth-1500: the 1500 outdoor pairs on which LoFTR and those after it measure relative pose."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from tiepoint.errors import InputError
from tiepoint.evaluation.checks import check_pose, pose_pair
from tiepoint.evaluation.npz import Array, read_npz
from tiepoint.evaluation.pairlists import read_pair_list
from tiepoint.evaluation.pairs import Archive, Benchmark, PairList, PosePair
from tiepoint.evaluation.reading import (
    collect,
    find_image,
    find_index,
    to_matrix,
    warn_if_incomplete,
)
from tiepoint.types import Float64

# in the order of LoFTR's megadepth_test_1500.txt
SCENES = ("0022_0.1_0.3", "0015_0.1_0.3", "0015_0.3_0.5", "0022_0.3_0.5", "0022_0.5_0.7")
FIELDS = ("image_paths", "intrinsics", "poses", "pair_infos")


class _Entry(NamedTuple):
    """A pair of a scene's index."""

    where: str
    scene: dict[str, Array]
    info: Any


def read(folder: Path, strict: bool = False) -> PairList:
    """Reads LoFTR's five index files, or glue-factory's `pairs_calibrated.txt`.

    LoFTR's `0015_0.1_0.3.npz ...` lie in the folder or up to two folders below; their image paths
    (`Undistorted_SfM/...`) start from the folder, from `test` or from `megadepth_test_1500` in it. Poses are
    world-to-camera. Glue-factory's images lie in `images`. Intrinsics are taken as they are published, as both
    projects do: COLMAP's half pixel stays in them.

    Args:
        folder: the folder.
        strict: raise at the first unusable pair instead of leaving it out.

    Returns:
        The pairs in LoFTR's order or in that of the list.

    Raises:
        InputError: neither layout is found, an index is missing or damaged, or no pair is usable; with `strict`, one
            is unusable.
    """
    if (folder / "pairs_calibrated.txt").is_file():
        found = read_pair_list(folder / "pairs_calibrated.txt", bases=(folder / "images", folder), strict=strict)
    else:
        found = _read_indices(folder, strict)
    warn_if_incomplete(found, 1500, folder)
    return found


def _read_indices(folder: Path, strict: bool) -> PairList:
    expected = "LoFTR's five index files or glue-factory's pairs_calibrated.txt"
    place = find_index(folder, f"{SCENES[0]}.npz", expected).parent
    bases = (folder, folder / "test", folder / "megadepth_test_1500")
    entries = [entry for scene in SCENES for entry in _entries(place / f"{scene}.npz")]
    return collect(entries, lambda entry: _pair(entry, bases), strict=strict, source=folder)


def _entries(path: Path) -> list[_Entry]:
    index = read_npz(path)
    missing = [field for field in FIELDS if field not in index]
    if missing:
        raise InputError(f"{path} lacks {', '.join(missing)}, expected {', '.join(FIELDS)}")
    single = [field for field in FIELDS if not index[field].ndim]
    if single:
        raise InputError(f"{path} holds a single value as {', '.join(single)}, expected an array")
    return [_Entry(f"{path}, pair {n}", index, info) for n, info in enumerate(index["pair_infos"], start=1)]


def _pair(entry: _Entry, bases: Sequence[Path]) -> PosePair:
    first, second = _images(entry)
    names = (_name(entry, first), _name(entry, second))
    paths = (find_image(names[0], bases, entry.where), find_image(names[1], bases, entry.where))
    cameras = (_camera(entry, first), _camera(entry, second))
    T_0to1 = _world_to_camera(entry, second) @ np.linalg.inv(_world_to_camera(entry, first))
    return pose_pair(names, paths, cameras=cameras, T_0to1=T_0to1, where=entry.where)


def _images(entry: _Entry) -> tuple[int, int]:
    """The numbers of a pair's two images: (numbers, overlap, central matches) is what LoFTR writes."""
    count = min(len(entry.scene[field]) for field in ("image_paths", "intrinsics", "poses"))
    try:
        first, second = (int(number) for number in entry.info[0])
    except (TypeError, ValueError, IndexError, KeyError, OverflowError) as error:
        raise InputError(f"{entry.where} is malformed: {error}, expected the numbers of two images") from error
    if not (0 <= first < count and 0 <= second < count):
        raise InputError(f"{entry.where} names the images {first} and {second}, expected two below {count}")
    return first, second


def _name(entry: _Entry, number: int) -> str:
    name = entry.scene["image_paths"][number]
    # an image that COLMAP could not place has none
    if not isinstance(name, str):
        raise InputError(f"{entry.where} names image {number}, whose path is {name!r}, expected a text")
    return str(name)


def _camera(entry: _Entry, number: int) -> Float64:
    return to_matrix(entry.scene["intrinsics"][number], (3, 3), f"{entry.where}, intrinsics[{number}]")


def _world_to_camera(entry: _Entry, number: int) -> Float64:
    where = f"{entry.where}, poses[{number}]"
    T = to_matrix(entry.scene["poses"][number], (4, 4), where)
    check_pose(T, where)
    return T


BENCHMARK = Benchmark(
    title="MegaDepth-1500, relative pose",
    truth="pose",
    limits=(5, 10, 20),
    folder="megadepth1500",
    licence="photographs of their authors, collected for research; terms at https://www.cs.cornell.edu/projects/megadepth",
    source="Li and Snavely, MegaDepth, CVPR 2018; pairs of Sun et al., LoFTR, CVPR 2021; https://github.com/zju3dv/LoFTR",
    read=read,
    archives=(Archive("https://cvg-data.inf.ethz.ch/megadepth/megadepth1500.zip"),),
)
