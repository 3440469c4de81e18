"""MegaDepth (Li and Snavely, CVPR 2018) in the layout of LoFTR (Sun et al., CVPR 2021)."""

from collections import defaultdict
from pathlib import Path
from typing import Any

import numpy as np
from loguru import logger

from tiepoint.data.layouts import Layout, square
from tiepoint.data.scenes import Scene
from tiepoint.errors import InputError
from tiepoint.evaluation.checks import check_intrinsics, check_pose
from tiepoint.evaluation.npz import read_npz
from tiepoint.evaluation.reading import read_lines
from tiepoint.types import Float64

# of MegaDepth-1500, which `tiepoint benchmark` measures on: never to train on, whatever indices lie there
BENCHMARK = ("0015", "0022")
_INDICES = ("scene_info*", "index/scene_info*", "megadepth_indices/scene_info*")
_LISTS = ("trainvaltest_list/train_list.txt", "index/trainvaltest_list/train_list.txt")
_KEYS = ("image_paths", "depth_paths", "intrinsics", "poses", "pair_infos")


def _indices(folder: Path) -> list[Path]:
    return [path for pattern in _INDICES for path in sorted(folder.glob(f"{pattern}/*.npz"))]


def _read(folder: Path) -> list[Scene]:
    listed = next((folder / name for name in _LISTS if (folder / name).is_file()), None)
    names = {line.strip() for line in read_lines(listed)} if listed else None
    paths = {path.stem: path for path in reversed(_indices(folder))}
    parts: dict[str, list[Path]] = defaultdict(list)
    for stem, path in sorted(paths.items()):
        # a scene has several indices, one for each range of overlap: 0000_0.1_0.3
        if names is None or stem in names:
            parts[stem.split("_")[0]].append(path)
    for name in BENCHMARK:
        if parts.pop(name, None):
            logger.info("left out: scene {}, which MegaDepth-1500 measures on", name)
    scenes = [_scene(name, folder, found) for name, found in parts.items()]
    kept = [scene for scene in scenes if len(scene)]
    if not kept:
        raise InputError(f"{folder} holds no pair with depth in {len(paths)} indices, expected some to train on")
    return kept


def _scene(name: str, folder: Path, indices: list[Path]) -> Scene:
    views: dict[tuple[str, str], int] = {}
    cameras: list[tuple[Float64, Float64]] = []
    pairs: list[tuple[int, int]] = []
    overlaps: list[float] = []
    for path in indices:
        info = _index(path)
        for (first, second), overlap in _pair_infos(info, path):
            places = [_files(info, view, path) for view in (first, second)]
            if None in places:
                continue
            for place, view in zip(places, (first, second), strict=True):
                if place is not None and place not in views:
                    views[place] = len(views)
                    cameras.append(_camera(info, view, f"{path}, view {view}"))
            pairs.append((views[places[0]], views[places[1]]))  # type: ignore[index]
            overlaps.append(overlap)
    base = _base(folder, next(iter(views), None))
    poses = np.array([pose for _, pose in cameras]).reshape(-1, 4, 4)
    return Scene(
        name=name,
        images=[str(base / image) for image, _ in views],
        depths=[str(base / depth) for _, depth in views],
        depth_scales=np.ones(len(views)),
        K=np.array([K for K, _ in cameras]).reshape(-1, 3, 3),
        sizes=np.zeros((len(views), 2), np.int64),
        pose=poses.__getitem__,
        pairs=np.array(pairs, np.int64).reshape(-1, 2),
        overlap=np.array(overlaps),
    )


def _index(path: Path) -> dict[str, Any]:
    info = read_npz(path)
    missing = [key for key in _KEYS if key not in info]
    if missing:
        raise InputError(f"{path} lacks {', '.join(missing)}, expected {', '.join(_KEYS)}")
    return info


def _pair_infos(info: dict[str, Any], path: Path) -> list[tuple[tuple[int, int], float]]:
    """[((view, view), overlap, central matches), ...], of which the last is of no use here."""
    views = len(info["image_paths"])
    try:
        found = [((int(pair[0][0]), int(pair[0][1])), float(pair[1])) for pair in info["pair_infos"]]
    except (TypeError, ValueError, IndexError) as error:
        raise InputError(f"{path} has malformed pair_infos, expected ((view, view), overlap, matches) each") from error
    if any(not 0 <= view < views for pair, _ in found for view in pair):
        raise InputError(f"{path} names a view in pair_infos that is none of its {views}")
    return found


def _files(info: dict[str, Any], view: int, path: Path) -> tuple[str, str] | None:
    """Image and depth map of a view; None where the index knows none."""
    try:
        image, depth = info["image_paths"][view], info["depth_paths"][view]
    except IndexError as error:
        raise InputError(f"{path} has fewer depth_paths than image_paths") from error
    return (str(image), str(depth)) if image is not None and depth is not None else None


def _camera(info: dict[str, Any], view: int, where: str) -> tuple[Float64, Float64]:
    K = square(info["intrinsics"][view], 3, f"{where}, intrinsics")
    check_intrinsics(K, f"{where}, intrinsics")
    T = square(info["poses"][view], 4, f"{where}, poses")
    check_pose(T, f"{where}, poses")
    # they come from COLMAP, to which the corner of the first pixel is (0, 0)
    return K - [[0, 0, 0.5], [0, 0, 0.5], [0, 0, 0]], T


def _base(folder: Path, first: tuple[str, str] | None) -> Path:
    """Where the paths of the indices begin: in the folder itself, or where LoFTR links the data to."""
    bases = (folder, folder / "train", folder / "test")
    return next((base for base in bases if first and (base / first[0]).is_file()), folder)


LAYOUT = Layout(
    "MegaDepth as LoFTR has it", "scene_info*/*.npz or index/scene_info*/*.npz", lambda f: bool(_indices(f)), _read
)
