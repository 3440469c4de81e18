"""The posed scenes of the tests in the layouts of others."""

import struct
from collections.abc import Callable, Sequence
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

OVERLAPS = 0.2 + 0.05 * np.arange(10)


def _objects(items: Sequence[Any]) -> np.ndarray:
    array = np.empty(len(items), dtype=object)
    for index, item in enumerate(items):
        array[index] = item
    return array


@pytest.fixture(scope="session")
def megadepth(posed_scenes: list[list[Any]], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """MegaDepth as LoFTR has it: two indices a scene, one view without depth, and a scene of the benchmark."""
    h5py = pytest.importorskip("h5py", reason="MegaDepth's depth maps are HDF5: pip install 'tiepoint[sfm]'")
    folder = tmp_path_factory.mktemp("megadepth")
    (folder / "scene_info_0.1_0.7").mkdir()
    for name, views in zip(("0001", "0002", "0005", "0015"), [*posed_scenes, posed_scenes[0]], strict=True):
        images, depths = Path(f"Undistorted_SfM/{name}/images"), Path(f"phoenix/S6/zl548/MegaDepth_v1/{name}/depths")
        for each in (images, depths):
            (folder / each).mkdir(parents=True)
        for number, view in enumerate(views):
            Image.fromarray(view.image).save(folder / images / f"{number}.png")
            with h5py.File(folder / depths / f"{number}.h5", "w") as file:
                file["depth"] = view.depth
        pairs = list(combinations(range(len(views)), 2))
        for part in range(2):
            chosen = range(part, len(pairs), 2)
            infos = [(pairs[each], OVERLAPS[each], np.zeros((3, 4))) for each in chosen]
            np.savez(
                folder / "scene_info_0.1_0.7" / f"{name}_0.{part}_0.{part + 1}.npz",
                image_paths=_objects([str(images / f"{n}.png") for n in range(len(views))] + [None]),
                depth_paths=_objects([str(depths / f"{n}.h5") for n in range(len(views))] + [None]),
                # COLMAP's convention
                intrinsics=_objects([*(view.K + np.outer([0.5, 0.5, 0], [0, 0, 1]) for view in views), None]),
                poses=_objects([v.T.ravel() for v in views] + [None]),
                pair_infos=_objects([*infos, ((0, len(views)), 0.5, np.zeros((3, 4)))]),
            )
    return folder


@pytest.fixture(scope="session")
def scannet(see: Callable[..., Any], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """ScanNet as LoFTR has it: intrinsics of 640×480, poses camera to world; each room in two scans."""
    folder = tmp_path_factory.mktemp("scannet")
    index = folder / "scannet_indices"
    (index / "scene_data" / "train").mkdir(parents=True)
    intrinsics = {}
    for room in range(3):
        K = np.array([[110.0 + room, 0, 62.5], [0, 109.0, 48.0], [0, 0, 1]])
        for number in range(5):
            view = see(room, number, K)
            for scan in range(2):
                base = folder / "scans" / f"scene{room:04d}_{scan:02d}"
                for kind in ("color", "depth", "pose"):
                    (base / kind).mkdir(parents=True, exist_ok=True)
                Image.fromarray(view.image).save(base / "color" / f"{10 * number}.jpg", quality=98)
                millimetres = (1000 * view.depth).round().astype(np.uint16)
                Image.fromarray(millimetres).save(base / "depth" / f"{10 * number}.png")
                np.savetxt(base / "pose" / f"{10 * number}.txt", np.linalg.inv(view.T))
        for scan in range(2):
            intrinsics[f"scene{room:04d}_{scan:02d}"] = enlarged(K, 5.0).ravel()
            pairs = [(room, scan, 10 * i, 10 * j) for i, j in list(combinations(range(5), 2))[scan::2]]
            path = index / "scene_data" / "train" / f"scene{room:04d}_{scan:02d}.npz"
            np.savez(path, name=np.array(pairs), score=OVERLAPS[scan::2])
    np.savez(index / "intrinsics.npz", **intrinsics)
    return folder


def enlarged(K: np.ndarray, factor: float) -> np.ndarray:
    """Intrinsics of an enlarged image: x + ½ grows."""
    half = np.array([[1, 0, 0.5], [0, 1, 0.5], [0, 0, 1]])
    return np.linalg.inv(half) @ np.diag([factor, factor, 1]) @ half @ K


@pytest.fixture(scope="session")
def write_colmap(posed_scenes: list[list[Any]]) -> Callable[..., Path]:
    """Writes a COLMAP workspace of one scene, with points on what its views show."""

    def write(folder: Path, scene: int = 0, *, binary: bool = False, depths: str = "npy") -> Path:
        views = posed_scenes[scene]
        (folder / "images").mkdir(parents=True)
        model = folder / "sparse" / "0" if binary else folder / "sparse"
        model.mkdir(parents=True)
        (folder / ("stereo/depth_maps" if depths == "bin" else "depths")).mkdir(parents=True)
        seen = _points(views)
        for number, view in enumerate(views):
            Image.fromarray(view.image).save(folder / "images" / f"{number}.jpg", quality=98)
            if depths == "bin":
                content = f"{view.depth.shape[1]}&{view.depth.shape[0]}&1&".encode() + view.depth.tobytes()
                (folder / "stereo/depth_maps" / f"{number}.jpg.geometric.bin").write_bytes(content)
            elif depths == "npy":
                np.save(folder / "depths" / f"{number}.npy", view.depth)
            else:
                image = Image.fromarray((1000 * view.depth).round().astype(np.uint16))
                image.save(folder / "depths" / f"{number}.jpg.png")
        (_write_binary if binary else _write_text)(model, views, seen)
        return folder

    return write


def _points(views: Sequence[Any]) -> list[np.ndarray]:
    """Of each view the numbers of the points that it sees, of about 400 on what view 0 and view 3 show."""
    points = []
    for view in (views[0], views[3]):
        v, u = (each.ravel() for each in np.mgrid[4:92:7, 4:124:8])
        rays = np.stack((u, v, np.ones_like(u)), 1) @ np.linalg.inv(view.K).T * view.depth[v, u][:, None]
        points.append((rays - view.T[:3, 3]) @ view.T[:3, :3])
    world = np.concatenate(points)
    seen = []
    for view in views:
        x = (world @ view.T[:3, :3].T + view.T[:3, 3]) @ view.K.T
        u, v = (x[:, :2] / x[:, 2:]).round().astype(int).T
        shown = (u >= 0) & (v >= 0) & (u < 128) & (v < 96)
        shown[shown] = np.abs(view.depth[v[shown], u[shown]] / x[shown, 2] - 1) < 0.02
        seen.append(np.flatnonzero(shown) + 1)
    return seen


def quaternion(R: np.ndarray) -> np.ndarray:
    """(w, x, y, z) of a rotation by less than half a turn."""
    w = np.sqrt(1 + np.trace(R)) / 2
    return np.array([w, *(np.array([R[2, 1] - R[1, 2], R[0, 2] - R[2, 0], R[1, 0] - R[0, 1]]) / (4 * w))])


def _write_text(model: Path, views: Sequence[Any], seen: Sequence[np.ndarray]) -> None:
    cameras, images = ["# Camera list"], ["# Image list"]
    for number, (view, points) in enumerate(zip(views, seen, strict=True)):
        K = view.K
        parameters = (K[0, 0], K[1, 1], K[0, 2] + 0.5, K[1, 2] + 0.5)
        cameras.append(f"{number + 1} PINHOLE 128 96 " + " ".join(map(repr, map(float, parameters))))
        motion = " ".join(repr(float(each)) for each in (*quaternion(view.T[:3, :3]), *view.T[:3, 3]))
        images.append(f"{number + 7} {motion} {number + 1} {number}.jpg")
        images.append(" ".join(f"1.0 2.0 {point}" for point in (*points, -1)))
    (model / "cameras.txt").write_text("\n".join(cameras) + "\n")
    (model / "images.txt").write_text("\n".join(images) + "\n")


def _write_binary(model: Path, views: Sequence[Any], seen: Sequence[np.ndarray]) -> None:
    cameras, images = [struct.pack("<Q", len(views))], [struct.pack("<Q", len(views))]
    for number, (view, points) in enumerate(zip(views, seen, strict=True)):
        K = view.K
        parameters = (K[0, 0], K[1, 1], K[0, 2] + 0.5, K[1, 2] + 0.5)
        cameras.append(struct.pack("<iiQQ4d", number + 1, 1, 128, 96, *parameters))
        motion = struct.pack("<I7dI", number + 7, *quaternion(view.T[:3, :3]), *view.T[:3, 3], number + 1)
        table = b"".join(struct.pack("<ddq", 1.0, 2.0, point) for point in (*points, -1))
        images.append(motion + f"{number}.jpg\0".encode() + struct.pack("<Q", len(points) + 1) + table)
    (model / "cameras.bin").write_bytes(b"".join(cameras))
    (model / "images.bin").write_bytes(b"".join(images))
