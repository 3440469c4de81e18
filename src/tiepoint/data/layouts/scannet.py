"""ScanNet (Dai et al., CVPR 2017) in the layout of LoFTR (Sun et al., CVPR 2021)."""

from collections import defaultdict
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

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


class _Files(Sequence[str]):
    """The paths of one kind of files of a room, made when asked for: there are millions."""

    def __init__(self, base: Path, room: int, frames: Int64, pattern: str) -> None:
        self._base, self._room, self._frames, self._pattern = base, room, frames, pattern

    def __len__(self) -> int:
        return len(self._frames)

    def __getitem__(self, view: Any) -> Any:
        scan, frame = self._frames[view].tolist()
        return f"{self._base}/scene{self._room:04d}_{scan:02d}/{self._pattern.format(frame)}"


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
    return Scene(
        name=f"scene{room:04d}",
        images=_Files(base, room, frames, "color/{}.jpg"),
        depths=_Files(base, room, frames, "depth/{}.png"),
        depth_scales=np.full(len(frames), 1e-3),
        K=np.stack([K[scan] for scan in scans]),
        sizes=np.tile(np.array(SIZE, np.int64), (len(frames), 1)),
        # millions of small files: each is read when its view is
        pose=partial(_pose, _Files(base, room, frames, "pose/{}.txt")),
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
