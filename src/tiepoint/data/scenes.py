"""Scenes of posed images: views with depth and cameras, and which of them make pairs."""

import hashlib
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import Any

import numpy as np
import numpy.typing as npt
from loguru import logger

from tiepoint.data.order import derived_seed
from tiepoint.errors import InputError
from tiepoint.evaluation.checks import check_pose
from tiepoint.types import Float64

Int64 = npt.NDArray[np.int64]


@dataclass(frozen=True, slots=True, eq=False)
class Scene:
    """Views of one place, N of them, and M pairs among them.

    Attributes:
        name: of the place; what shows the same place has the same name.
        images: of each view, the path of the image.
        depths: of each view, the path of the depth map, which covers what the image shows, at whatever resolution; ""
            where there is none.
        depth_scales: (N,), what turns the whole numbers of depth maps in PNG into the unit of the poses.
        K: (N, 3, 3) float64, intrinsics in pixels, the centre of the first one being (0, 0).
        sizes: (N, 2) int64, (height, width) of the images that the intrinsics refer to; 0 for the image as stored.
        pose: the world-to-camera transformation (4, 4) of a view by its number.
        pairs: (M, 2) int64, numbers of views.
        overlap: (M,) float64, of each pair in [0, 1]; NaN where unknown.
        ranges: (M, 2) float64, least and greatest inverse depth of each pair, in 1 / unit of the poses; NaN where not
            told, None where none is.
    """

    name: str
    images: Sequence[str]
    depths: Sequence[str]
    depth_scales: Float64
    K: Float64
    sizes: Int64
    pose: Callable[[int], Float64]
    pairs: Int64
    overlap: Float64
    ranges: Float64 | None = None

    def __len__(self) -> int:
        return len(self.pairs)

    def chosen(self, pairs: npt.NDArray[Any]) -> "Scene":
        """The same views with some of the pairs, told by their numbers or by a mask."""
        ranges = None if self.ranges is None else self.ranges[pairs]
        return replace(self, pairs=self.pairs[pairs], overlap=self.overlap[pairs], ranges=ranges)

    def inverse_depths(self, pair: int) -> Float64:
        """Least and greatest (2,) of a pair; NaN where not told."""
        return np.full(2, np.nan) if self.ranges is None else self.ranges[pair]

    def relative_pose(self, pair: int) -> Float64:
        """T_0to1 (4, 4) of a pair.

        Raises:
            InputError: it is not rigid, or the file of a pose cannot be read.
        """
        view0, view1 = self.pairs[pair]
        T = self.pose(int(view1)) @ np.linalg.inv(self.pose(int(view0)))
        T[3] = (0, 0, 0, 1)  # but for rounding it is
        check_pose(T, f"the relative pose of {self.images[view0]} and {self.images[view1]}")
        return T


def within_overlap(scenes: Sequence[Scene], low: float, high: float) -> list[Scene]:
    """The pairs whose overlap lies in a range, or is not known.

    Raises:
        InputError: there is none.
    """
    overlap = np.concatenate([scene.overlap for scene in scenes])
    chosen = [scene.chosen(~((scene.overlap < low) | (scene.overlap > high))) for scene in scenes]
    left = [scene for scene in chosen if len(scene)]
    if not left:
        found = f"{len(overlap)} pairs with overlaps from {np.nanmin(overlap):.2f} to {np.nanmax(overlap):.2f}"
        raise InputError(f"data.overlap is [{low:g}, {high:g}], which leaves none of {found}")
    logger.info("{} of {} pairs, {} of {} scenes", sum(map(len, left)), len(overlap), len(left), len(scenes))
    return left


def with_depth(scenes: Sequence[Scene]) -> list[Scene]:
    """The pairs of whose views both have a depth map.

    Raises:
        InputError: there is none.
    """
    chosen = [
        scene.chosen(np.array([all(scene.depths[view] for view in pair) for pair in scene.pairs])) for scene in scenes
    ]
    left = [scene for scene in chosen if len(scene)]
    count, kept = (sum(map(len, each)) for each in (scenes, left))
    if not left:
        raise InputError(f"none of {count} pairs has depth maps of both views, expected some that have")
    if kept < count:
        logger.warning("left out: {} of {} pairs, which have no depth", count - kept, count)
    return left


def split_scenes(scenes: Sequence[Scene], *, held_out: float) -> dict[str, list[Scene]]:
    """Training, validation and test: by scene where there are three or more, else by pair with a warning.

    Either is decided by hashes of names, so that neither the order of files nor other scenes move a scene, except where
    a split would be empty.

    Args:
        scenes: each with pairs, their names differing.
        held_out: share for validation, and as much again for test.

    Returns:
        "train", "val" and "test", none of them empty.
    """
    if len(scenes) >= 3:
        splits = split_names([scene.name for scene in scenes], held_out=held_out)
        return {split: [scenes[index] for index in indices] for split, indices in splits.items()}
    logger.warning("fewer than 3 scenes: validation and test show what training shows, in other pairs")
    names = [" ".join(scene.images[view] for view in pair) for scene in scenes for pair in scene.pairs]
    starts = np.cumsum([0, *map(len, scenes)])
    found: dict[str, list[Scene]] = {}
    for split, indices in split_names(names, held_out=held_out).items():
        numbers = np.array(indices)
        parts = [numbers[(numbers >= start) & (numbers < end)] - start for start, end in pairwise(starts)]
        found[split] = [scene.chosen(part) for scene, part in zip(scenes, parts, strict=True) if len(part)]
    return found


def split_names(names: Sequence[str], *, held_out: float) -> dict[str, list[int]]:
    """Indices of names by their hashes; a fifth each for validation and test where one would be empty."""
    digests = [hashlib.sha256(name.encode("utf-8", "surrogateescape")).hexdigest() for name in names]
    splits: dict[str, list[int]] = {"train": [], "val": [], "test": []}
    for index, digest in enumerate(digests):
        share = int(digest[:8], 16) / 2**32
        splits["val" if share < held_out else "test" if share < 2 * held_out else "train"].append(index)
    if all(splits.values()):
        return splits
    order = sorted(range(len(names)), key=lambda index: digests[index])
    if len(order) < 3:
        logger.warning("only {} pairs: validation and test show training pairs", len(order))
        return {"train": order, "val": order, "test": order}
    fifth = max(1, len(order) // 5)
    return {"val": order[:fifth], "test": order[fifth : 2 * fifth], "train": order[2 * fifth :]}


def balanced(scenes: Sequence[Scene], count: int) -> list[Scene]:
    """At most `count` pairs, as evenly from all scenes as they have them; the same ones in every run."""
    orders = [np.random.default_rng(derived_seed(index)).permutation(len(scene)) for index, scene in enumerate(scenes)]
    rounds = [(turn, index) for index, order in enumerate(orders) for turn in range(min(count, len(order)))]
    taken: list[list[int]] = [[] for _ in scenes]
    for turn, index in sorted(rounds)[:count]:
        taken[index].append(int(orders[index][turn]))
    return [scene.chosen(np.array(pairs)) for scene, pairs in zip(scenes, taken, strict=True) if pairs]


def check_files(scenes: Sequence[Scene]) -> None:
    """Refuse scenes of whose pairs an image or a depth map is missing; folders are listed, not files opened.

    Raises:
        InputError: naming the first one.
    """
    folders: dict[str, set[str]] = {}
    for scene in scenes:
        for view in np.unique(scene.pairs).tolist():
            files = [("image", scene.images[view])]
            files += [("depth map", scene.depths[view])] if scene.depths[view] else []
            for kind, path in files:
                folder, name = os.path.split(path)
                if folder not in folders:
                    folders[folder] = set(os.listdir(folder)) if os.path.isdir(folder) else set()
                if name not in folders[folder]:
                    raise InputError(f"the {kind} {path} does not exist, expected one for every view of {scene.name}")


def scenes_hash(scenes: Sequence[Scene]) -> str:
    """One hash for the names and pairs of scenes, wherever they lie."""
    digest = hashlib.sha256()
    for scene in sorted(scenes, key=lambda scene: scene.name):
        used, pairs = np.unique(scene.pairs, return_inverse=True)
        views = [os.path.basename(scene.images[view]) for view in used.tolist()]
        digest.update("\n".join((scene.name, *views)).encode("utf-8", "surrogateescape"))
        digest.update(np.ascontiguousarray(pairs, dtype="<i8").tobytes())
    return digest.hexdigest()[:16]
