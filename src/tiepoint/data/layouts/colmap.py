"""Reconstructions by COLMAP (Schönberger and Frahm, CVPR 2016), of undistorted images with depth maps."""

import struct
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np
from loguru import logger

from tiepoint.data.layouts import Layout
from tiepoint.data.scenes import Int64, Scene
from tiepoint.errors import InputError
from tiepoint.evaluation.checks import check_intrinsics, check_pose
from tiepoint.evaluation.reading import read_lines
from tiepoint.types import Float64

COMMON = 30  # points that the two images of a pair share, at least: fewer may be chance
PINHOLE = {"SIMPLE_PINHOLE": 3, "PINHOLE": 4}  # numbers of parameters
_IDS = {0: "SIMPLE_PINHOLE", 1: "PINHOLE"}
_DEPTHS = ("depths/{stem}.png", "depths/{stem}.npy", "depths/{stem}.h5", "depths/{name}.png", "depths/{name}.npy")
_STEREO = ("stereo/depth_maps/{name}.geometric.bin",)


class Camera(NamedTuple):
    """Intrinsics in tiepoint's convention, and the (height, width) that they belong to."""

    K: Float64
    size: tuple[int, int]


class View(NamedTuple):
    """A registered image: its name, its camera, world to camera, and the numbers of the points that it sees."""

    name: str
    camera: int
    T: Float64
    points: Int64


def _models(folder: Path) -> list[tuple[Path, Path]]:
    """Workspaces and models: of the folder itself or of its subfolders."""
    workspaces = [folder, *(path for path in sorted(folder.iterdir()) if path.is_dir())]
    return [
        (workspace, model)
        for workspace in workspaces
        for model in (workspace / "sparse", *sorted((workspace / "sparse").glob("*/")))
        if any((model / f"cameras{ending}").is_file() for ending in (".bin", ".txt"))
    ]


def _read(folder: Path) -> list[Scene]:
    models = _models(folder)
    scenes = [_scene(workspace, model, folder) for workspace, model in models]
    found = [scene for scene in scenes if len(scene)]
    if not found:
        wanted = ", ".join(pattern.format(stem="STEM", name="NAME") for pattern in (*_DEPTHS, *_STEREO))
        raise InputError(
            f"{folder} has {sum(len(scene.images) for scene in scenes)} images with depth and no two of them share "
            f"{COMMON} points, expected some; depth maps are looked for as {wanted}"
        )
    return found


def _scene(workspace: Path, model: Path, folder: Path) -> Scene:
    cameras, views = read_model(model)
    depths = [_depth(workspace, view.name) for view in views]
    kept = [index for index, depth in enumerate(depths) if depth]
    if len(kept) < len(views):
        logger.warning(
            "left out: {} of {} images of {}, which have no depth map", len(views) - len(kept), len(views), model
        )
    used = [views[index] for index in kept]
    for view in used:
        if view.camera not in cameras:
            raise InputError(f"{model} gives {view.name} the camera {view.camera}, which it does not hold")
        check_pose(view.T, f"{model}, pose of {view.name}")
    pairs, overlap = common_points([view.points for view in used])
    own = [cameras[view.camera] for view in used]
    return Scene(
        name=str(model.relative_to(folder)),
        images=[str(workspace / "images" / view.name) for view in used],
        depths=[str(depths[index]) for index in kept],
        depth_scales=np.full(len(used), 1e-3),
        K=np.array([camera.K for camera in own]).reshape(-1, 3, 3),
        sizes=np.array([camera.size for camera in own], np.int64).reshape(-1, 2),
        pose=np.array([view.T for view in used]).reshape(-1, 4, 4).__getitem__,
        pairs=pairs,
        overlap=overlap,
    )


def _depth(workspace: Path, name: str) -> Path | None:
    stem = name.rpartition(".")[0] or name
    for pattern in (*_DEPTHS, *_STEREO):
        path = workspace / pattern.format(stem=stem, name=name)
        if path.is_file():
            return path
    return None


def common_points(points: list[Int64]) -> tuple[Int64, Float64]:
    """Which images see the same points.

    The overlap of images i and j is |P_i ∩ P_j| / min(|P_i|, |P_j|), P being the points that an image sees: that of
    MegaDepth's indices (Dusmanu et al., "D2-Net", CVPR 2019).

    Args:
        points: of each image, the numbers of its points.

    Returns:
        (M, 2) int64, i < j, the pairs with `COMMON` points or more, and (M,) their overlaps.
    """
    own = [np.unique(each) for each in points]
    counts = np.array([len(each) for each in own], np.int64)
    _, point = np.unique(np.concatenate([*own, np.empty(0, np.int64)]), return_inverse=True)
    image = np.arange(len(own)).repeat(counts)
    order = np.argsort(point, kind="stable")
    tracks = image[order]  # the images of point 0, of point 1, ...
    lengths = np.bincount(point, minlength=1)
    starts = np.cumsum(lengths) - lengths
    pairs, overlaps = [np.empty((0, 2), np.int64)], [np.empty(0)]
    for index, seen in enumerate(np.split(point, np.cumsum(counts)[:-1])) if len(own) else ():
        length = lengths[seen]
        within = np.arange(length.sum()) - (np.cumsum(length) - length).repeat(length)
        common = np.bincount(tracks[starts[seen].repeat(length) + within], minlength=len(own))
        others = np.flatnonzero(common >= COMMON)
        others = others[others > index]
        pairs.append(np.stack((np.full_like(others, index), others), axis=1))
        overlaps.append(common[others] / np.minimum(counts[index], counts[others]))
    return np.concatenate(pairs), np.concatenate(overlaps)


def read_model(folder: Path) -> tuple[dict[int, Camera], list[View]]:
    """The cameras and images of a model, in COLMAP's binary or text format.

    Args:
        folder: with `cameras` and `images`, .bin or .txt; `points3D` is not needed.

    Returns:
        Cameras by their numbers, and images in the order of their names.

    Raises:
        InputError: a file is missing or damaged, or a camera is no pinhole.
    """
    ending = ".bin" if (folder / "cameras.bin").is_file() else ".txt"
    paths = [folder / f"{name}{ending}" for name in ("cameras", "images")]
    read = (_cameras_bin, _images_bin) if ending == ".bin" else (_cameras_txt, _images_txt)
    try:
        cameras, views = dict(read[0](paths[0])), sorted(read[1](paths[1]), key=lambda view: view.name)
    except OSError as error:
        raise InputError(f"{error.filename} cannot be read: {error.strerror}") from error
    except (struct.error, ValueError, IndexError, UnicodeDecodeError) as error:
        raise InputError(f"{folder} is no COLMAP model or damaged: {error}") from error
    return cameras, views


def _camera(number: int, model: str, size: tuple[int, int], parameters: list[float], path: Path) -> Camera:
    if model not in PINHOLE:
        raise InputError(
            f"{path}: camera {number} is {model}, expected {' or '.join(PINHOLE)}, as `colmap image_undistorter` makes"
        )
    fx, fy, cx, cy = parameters if len(parameters) == 4 else (parameters[0], *parameters)
    # to COLMAP the corner of the first pixel is (0, 0), to tiepoint its centre
    K = np.array([[fx, 0, cx - 0.5], [0, fy, cy - 0.5], [0, 0, 1]])
    check_intrinsics(K, f"{path}, camera {number}")
    return Camera(K, size)


def _view(name: str, camera: int, motion: list[float], points: Int64) -> View:
    """Of a unit quaternion (w, x, y, z) and a translation."""
    quaternion = np.array(motion[:4])
    w, x, y, z = quaternion / max(float(np.linalg.norm(quaternion)), 1e-12)
    T = np.eye(4)
    T[:3, :3] = [
        [1 - 2 * (y * y + z * z), 2 * (x * y - z * w), 2 * (x * z + y * w)],
        [2 * (x * y + z * w), 1 - 2 * (x * x + z * z), 2 * (y * z - x * w)],
        [2 * (x * z - y * w), 2 * (y * z + x * w), 1 - 2 * (x * x + y * y)],
    ]
    T[:3, 3] = motion[4:7]
    return View(name, camera, T, points[points >= 0])


def _cameras_txt(path: Path) -> Iterator[tuple[int, Camera]]:
    for line in read_lines(path):
        if line.strip() and not line.startswith("#"):
            number, model, width, height, *parameters = line.split()
            values = [float(each) for each in parameters]
            yield int(number), _camera(int(number), model, (int(height), int(width)), values, path)


def _images_txt(path: Path) -> Iterator[View]:
    # an image without points has an empty second line
    lines = iter([line for line in read_lines(path) if not line.startswith("#")])
    for line in lines:
        if line.strip():
            fields, points = line.split(maxsplit=9), next(lines, "").split()
            motion = [float(each) for each in fields[1:8]]
            yield _view(fields[9].strip(), int(fields[8]), motion, np.array(points[2::3], np.int64))


def _cameras_bin(path: Path) -> Iterator[tuple[int, Camera]]:
    content = path.read_bytes()
    (count,), at = struct.unpack_from("<Q", content), 8
    for _ in range(count):
        number, model, width, height = struct.unpack_from("<iiQQ", content, at)
        name = _IDS.get(model, f"of the kind {model}")
        parameters = struct.unpack_from(f"<{PINHOLE.get(name, 0)}d", content, at + 24)
        yield number, _camera(number, name, (height, width), list(parameters), path)
        at += 24 + 8 * len(parameters)


def _images_bin(path: Path) -> Iterator[View]:
    content = path.read_bytes()
    (count,), at = struct.unpack_from("<Q", content), 8
    for _ in range(count):
        motion = struct.unpack_from("<7d", content, at + 4)
        (camera,) = struct.unpack_from("<I", content, at + 60)
        end = content.index(b"\0", at + 64)
        (points,) = struct.unpack_from("<Q", content, end + 1)
        table = np.frombuffer(content, np.dtype([("xy", "<f8", 2), ("point", "<i8")]), points, end + 9)
        yield _view(content[at + 64 : end].decode(), camera, list(motion), table["point"].astype(np.int64))
        at = end + 9 + 24 * points


LAYOUT = Layout(
    "COLMAP", "sparse/cameras.bin, sparse/*/cameras.bin or the same in .txt", lambda f: bool(_models(f)), _read
)
