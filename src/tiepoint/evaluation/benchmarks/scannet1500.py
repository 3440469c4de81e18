"""ScanNet-1500: the 1500 indoor pairs of SuperGlue, on which LoFTR and those after it measure relative pose."""

from pathlib import Path
from typing import NamedTuple

import numpy as np

from tiepoint.errors import InputError
from tiepoint.evaluation.checks import check_intrinsics, check_pose, pose_pair
from tiepoint.evaluation.frames import rescale_intrinsics
from tiepoint.evaluation.npz import Array, read_npz
from tiepoint.evaluation.pairlists import read_pair_list
from tiepoint.evaluation.pairs import Benchmark, PairList, PosePair
from tiepoint.evaluation.reading import (
    collect,
    find_image,
    find_index,
    read_matrix,
    to_matrix,
    warn_if_incomplete,
)
from tiepoint.images import image_size
from tiepoint.types import Float64

CALIBRATED = (640, 480)  # (width, height) px that LoFTR's intrinsics.npz refers to, and to which it resizes the images


class _Index(NamedTuple):
    """What LoFTR's files tell of all the pairs.

    Attributes:
        path: of test.npz.
        names: (N, 4), scene, sub-scene and the numbers of the two frames.
        relative: (N, 12) rows of (3, 4), camera-0 to camera-1 coordinates; None where test.npz does not hold them.
        intrinsics: by scene.
        bases: folders that hold scenes.
    """

    path: Path
    names: Array
    relative: Array | None
    intrinsics: dict[str, Array]
    bases: list[Path]


def read(folder: Path, strict: bool = False) -> PairList:
    """Reads LoFTR's `test.npz` and `intrinsics.npz`, or glue-factory's `pairs_calibrated.txt`.

    The two .npz files lie in the folder or up to two folders below; the scenes, `scene0707_00/color/15.jpg` and
    `scene0707_00/pose/15.txt`, in the folder or one below. Poses are camera-to-world; where a scene has no `pose`
    folder, `rel_pose` of test.npz counts. The intrinsics refer to 640×480 px and are scaled to the images' size.

    Args:
        folder: the folder.
        strict: raise at the first unusable pair instead of leaving it out.

    Returns:
        The pairs in the order of the index or of the list.

    Raises:
        InputError: neither layout is found, an index is missing or damaged, or no pair is usable; with `strict`, one
            is unusable.
    """
    if (folder / "pairs_calibrated.txt").is_file():
        found = read_pair_list(folder / "pairs_calibrated.txt", bases=(folder,), strict=strict)
    else:
        index = _read_index(folder)
        found = collect(range(len(index.names)), lambda row: _pair(index, row), strict=strict, source=index.path)
    warn_if_incomplete(found, 1500, folder)
    return found


def _read_index(folder: Path) -> _Index:
    path = find_index(folder, "test.npz", "LoFTR's test.npz and intrinsics.npz or glue-factory's pairs_calibrated.txt")
    intrinsics = read_npz(find_index(folder, "intrinsics.npz", "LoFTR's intrinsics.npz"))
    content = read_npz(path)
    names = content.get("name", np.empty(0))
    if names.ndim != 2 or names.shape[1] != 4 or names.dtype.kind not in "iu":
        raise InputError(f"{path} holds names of shape {names.shape}, expected rows of scene, sub-scene and two frames")
    relative = content.get("rel_pose")
    if relative is not None and relative.shape != (len(names), 12):
        raise InputError(f"{path} holds rel_pose of shape {relative.shape}, expected ({len(names)}, 12)")
    bases = [base for base in (folder, *sorted(folder.glob("*/"))) if any(base.glob("scene????_??"))]
    return _Index(path, names, relative, intrinsics, bases or [folder])


def _pair(index: _Index, row: int) -> PosePair:
    number, sub, first, second = index.names[row].tolist()
    scene, where = f"scene{number:04d}_{sub:02d}", f"{index.path}, pair {row + 1}"
    names = (f"{scene}/color/{first}.jpg", f"{scene}/color/{second}.jpg")
    paths = (find_image(names[0], index.bases, where), find_image(names[1], index.bases, where))
    if scene not in index.intrinsics:
        raise InputError(f"{where} is of {scene}, which intrinsics.npz does not hold")
    stored = index.intrinsics[scene]
    K = to_matrix(stored.reshape(3, 3) if stored.size == 9 else stored, (3, 3), f"{where}, intrinsics of {scene}")
    check_intrinsics(K, f"{where}, intrinsics of {scene}")
    cameras = (_scaled(K, paths[0], where), _scaled(K, paths[1], where))
    return pose_pair(names, paths, cameras=cameras, T_0to1=_relative_pose(index, row, paths), where=where)


def _scaled(K: Float64, path: Path, where: str) -> Float64:
    """Intrinsics of the image as it is stored: 1296×968 px on ScanNet's server, 640×480 px in other copies."""
    height, width = image_size(path)
    scale = (CALIBRATED[0] / width, CALIBRATED[1] / height)
    # ScanNet's own sizes differ by 0.4 %; a picture of another shape was cropped
    if abs(scale[0] / scale[1] - 1) > 0.02:
        raise InputError(f"{where} has {path} of {width}×{height} px, expected the proportions of 640×480")
    return rescale_intrinsics(K, scale)


def _relative_pose(index: _Index, row: int, paths: tuple[Path, Path]) -> Float64:
    files = [path.parent.parent / "pose" / f"{path.stem}.txt" for path in paths]
    if index.relative is not None and not files[0].parent.is_dir():
        T = np.eye(4)
        T[:3] = to_matrix(index.relative[row].reshape(3, 4), (3, 4), f"{index.path}, rel_pose {row + 1}")
        return T
    to_world0, to_world1 = (_camera_to_world(path) for path in files)
    return np.asarray(np.linalg.inv(to_world1) @ to_world0)


def _camera_to_world(path: Path) -> Float64:
    T = read_matrix(path, 4)
    check_pose(T, str(path))
    return T


BENCHMARK = Benchmark(
    title="ScanNet-1500, relative pose",
    truth="pose",
    limits=(5, 10, 20),
    folder="scannet1500",
    licence="ScanNet terms of use (non-commercial research), to be agreed to at http://www.scan-net.org",
    source="Dai et al., ScanNet, CVPR 2017; pairs of Sarlin et al., SuperGlue, CVPR 2020; test set and index files: "
    "https://github.com/zju3dv/LoFTR",
    read=read,
)
