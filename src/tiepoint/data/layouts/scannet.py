"""ScanNet (Dai et al., CVPR 2017) in the layout of LoFTR (Sun et al., CVPR 2021)."""

from collections import defaultdict
from collections.abc import Sequence
from functools import partial
from pathlib import Path

import numpy as np

from tiepoint.data.layouts import Layout, square
from tiepoint.data.scenes import Int64, Scene
from tiepoint.errors import InputError
from tiepoint.evaluation.checks import check_intrinsics, check_pose
from tiepoint.evaluation.npz import read_npz
from tiepoint.evaluation.reading import read_matrix
from tiepoint.types import Float64

SIZE = (480, 640)  # of the depth maps, to whose camera the intrinsics belong
_INDICES = ("scannet_indices", "index")
_SCANS = ("scans", "train", ".")


def _index(folder: Path) -> Path | None:
    return next((folder / name for name in _INDICES if any((folder / name).glob("scene_data/train/*.npz"))), None)


def _read(folder: Path) -> list[Scene]:
    index = _index(folder)
    assert index is not None
    rooms: dict[int, list[tuple[Int64, Float64]]] = defaultdict(list)
    for path in sorted(index.glob("scene_data/train/*.npz")):
        names, scores = _pairs(path)
        # scans of one room are one scene: a room that is held out must not be trained on in another scan
        for room in np.unique(names[:, 0]):
            of_room = names[:, 0] == room
            rooms[int(room)].append((names[of_room], scores[of_room]))
    if not rooms:
        raise InputError(f"{index} holds no pair, expected some in scene_data/train/*.npz")
    intrinsics = read_npz(index / "intrinsics.npz")
    return [_scene(room, parts, folder, intrinsics, index) for room, parts in sorted(rooms.items())]


def _pairs(path: Path) -> tuple[Int64, Float64]:
    """(M, 4) of room, scan and both frames, and (M,) of overlaps."""
    content = read_npz(path)
    names = np.asarray(content.get("name"))
    if names.ndim != 2 or names.shape[1] != 4 or names.dtype.kind not in "iu":
        raise InputError(f"{path} has no array name of M x 4 whole numbers, expected room, scan, frame and frame")
    scores = np.asarray(content.get("score", np.full(len(names), np.nan)), dtype=np.float64)
    if scores.shape != (len(names),):
        raise InputError(f"{path} has {len(names)} pairs and scores of shape {scores.shape}, expected one each")
    return names.astype(np.int64), scores


def _scene(
    room: int, parts: list[tuple[Int64, Float64]], folder: Path, intrinsics: dict[str, np.ndarray], index: Path
) -> Scene:
    names = np.concatenate([names for names, _ in parts])
    both = np.concatenate((names[:, [1, 2]], names[:, [1, 3]]))
    frames, views = np.unique(both, axis=0, return_inverse=True)
    scans = [f"scene{room:04d}_{scan:02d}" for scan, _ in frames]
    K: dict[str, Float64] = {}
    for scan in dict.fromkeys(scans):
        where = f"{index / 'intrinsics.npz'}, {scan}"
        if scan not in intrinsics:
            raise InputError(f"{where} is missing, expected the intrinsics of every scan")
        K[scan] = square(intrinsics[scan], 3, where)
        check_intrinsics(K[scan], where)
    base = next((folder / name for name in _SCANS if (folder / name / scans[0]).is_dir()), folder / _SCANS[0])
    stems = [(base / scan, str(frame)) for scan, (_, frame) in zip(scans, frames, strict=True)]
    return Scene(
        name=f"scene{room:04d}",
        images=[str(scan / "color" / f"{frame}.jpg") for scan, frame in stems],
        depths=[str(scan / "depth" / f"{frame}.png") for scan, frame in stems],
        depth_scales=np.full(len(frames), 1e-3),
        K=np.stack([K[scan] for scan in scans]),
        sizes=np.tile(np.array(SIZE, np.int64), (len(frames), 1)),
        # millions of small files: each is read when its view is
        pose=partial(_pose, [str(scan / "pose" / f"{frame}.txt") for scan, frame in stems]),
        pairs=views.reshape(2, -1).T,
        overlap=np.concatenate([scores for _, scores in parts]),
    )


def _pose(paths: Sequence[str], view: int) -> Float64:
    """World to camera, where ScanNet has camera to world."""
    T = read_matrix(Path(paths[view]), 4)
    check_pose(T, paths[view])
    return np.asarray(np.linalg.inv(T), np.float64)


LAYOUT = Layout(
    "ScanNet as LoFTR has it",
    "scannet_indices/scene_data/train/*.npz or index/scene_data/train/*.npz",
    lambda folder: _index(folder) is not None,
    _read,
)
