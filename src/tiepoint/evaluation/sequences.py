"""Readers of image sequences in the HPatches layout: pairs with a true homography, or with marked points."""

from collections.abc import Collection
from pathlib import Path

import numpy as np

from tiepoint.errors import InputError
from tiepoint.evaluation.checks import is_singular
from tiepoint.evaluation.pairs import HomographyPair, PairList, PointPair
from tiepoint.evaluation.reading import collect, read_matrix, read_table
from tiepoint.images import image_size
from tiepoint.types import Float64

MARGIN = 0.05  # of a side: how far outside of the image a marked point may lie


def read_homographies(root: Path, *, strict: bool, skip: Collection[str] = ()) -> PairList:
    """Reads every `H_1_k` of a folder in the HPatches layout (Balntas et al., CVPR 2017).

    Args:
        root: folder of sequences, each with images `1.*` to `n.*` and text files `H_1_k` (image 1 to k).
        strict: raise at the first unusable pair instead of leaving it out.
        skip: names of sequences that do not count.

    Returns:
        The pairs (1, k), by sequence and then by k.

    Raises:
        InputError: `root` is not in this layout or holds no usable pair; with `strict`, an image is missing or a
            homography malformed or singular.
    """
    folders = [folder for folder in subfolders(root) if folder.name not in skip]
    found = {folder: _numbered(folder) for folder in folders}
    if not any(found.values()):
        raise InputError(
            f"{root} is not in the HPatches layout, expected a folder for each sequence, with images 1.*, 2.*, ... and "
            "homographies H_1_2, ..."
        )
    entries = [(folder, k) for folder, numbers in found.items() for k in numbers or [0]]
    return collect(entries, lambda entry: _homography_pair(*entry), strict=strict, source=root)


def read_points(root: Path, *, strict: bool, skip: Collection[str] = ()) -> PairList:
    """Reads the marked points of image pairs, as in WxBS (Mishkin et al., BMVC 2015).

    Args:
        root: folder of pairs, each a folder with images `1.*` and `2.*` and the text file `corrs_1_2.txt` of lines
            x1 y1 x2 y2; or, as WxBS 1.1 is published, a folder of categories, each of which holds pairs with
            `01.*`, `02.*` and `corrs.txt`.
        strict: raise at the first unusable pair instead of leaving it out.
        skip: names of pairs that do not count.

    Returns:
        The pairs by name.

    Raises:
        InputError: `root` is in neither layout or holds no usable pair; with `strict`, a file is missing or malformed.
    """
    folders = subfolders(root)
    points, digits = "corrs_1_2.txt", 1
    if not any((folder / points).is_file() for folder in folders):
        folders = [pair for folder in folders for pair in subfolders(folder)]
        points, digits = "corrs.txt", 2
        if not any((folder / points).is_file() for folder in folders):
            raise InputError(
                f"{root} is not in the layout of WxBS, expected a folder for each pair, with images 1.* and 2.* and "
                "points corrs_1_2.txt"
            )
    used = [folder for folder in folders if folder.name not in skip]
    return collect(used, lambda folder: _point_pair(root, folder, points, digits), strict=strict, source=root)


def subfolders(root: Path) -> list[Path]:
    """Lists the folders in a folder but for hidden ones.

    Args:
        root: the folder.

    Returns:
        Their paths by name.

    Raises:
        InputError: `root` is not a folder or cannot be read.
    """
    if not root.is_dir():
        raise InputError(f"{root} is not a folder, expected one that holds a folder for each sequence")
    try:
        return sorted(path for path in root.iterdir() if path.is_dir() and not path.name.startswith("."))
    except OSError as error:
        raise InputError(f"{root} cannot be read: {error.strerror}") from error


def _numbered(folder: Path) -> list[int]:
    return sorted(int(path.name[4:]) for path in folder.glob("H_1_*") if path.name[4:].isdecimal())


def _homography_pair(folder: Path, k: int) -> HomographyPair:
    if not k:
        raise InputError(f"{folder} holds no homography, expected files H_1_2, H_1_3, ...")
    first, second = _image(folder, "1"), _image(folder, str(k))
    path = folder / f"H_1_{k}"
    H = read_matrix(path, 3)
    if is_singular(H):
        raise InputError(f"{path} is singular (its determinant is 0), expected an invertible homography")
    return HomographyPair(f"{folder.name}/1-{k}", first, second, H)


def _point_pair(root: Path, folder: Path, name: str, digits: int) -> PointPair:
    first, second = (_image(folder, str(index).zfill(digits)) for index in (1, 2))
    path = folder / name
    points = read_table(path, columns=4)
    points0, points1 = np.copy(points[:, :2]), np.copy(points[:, 2:])
    _check_inside(points0, first, path)
    _check_inside(points1, second, path)
    return PointPair(f"{folder.relative_to(root).as_posix()}/1-2", first, second, points0, points1)


def _image(folder: Path, stem: str) -> Path:
    found = sorted(folder.glob(f"{stem}.*"))
    if len(found) != 1:
        raise InputError(f"{folder} holds {len(found)} files {stem}.*, expected exactly one image")
    image_size(found[0])
    return found[0]


def _check_inside(points: Float64, image: Path, path: Path) -> None:
    height, width = image_size(image)
    outside = (np.abs(points / (width, height) - 0.5) > 0.5 + MARGIN).any(axis=1)
    if outside.any():
        x, y = points[outside][0]
        raise InputError(f"{path} marks ({x:g}, {y:g}), but {image} is {width}×{height} px: expected points inside it")
