"""What must hold of the truth that a benchmark states: cameras fit their images, poses are rigid."""

from pathlib import Path

import numpy as np

from tiepoint.errors import InputError
from tiepoint.evaluation.pairs import PosePair
from tiepoint.images import image_size
from tiepoint.types import Float64

ROTATION_TOLERANCE = 1e-2  # of R R^T - I: published lists round to a few digits
CENTRAL = (1 / 3, 2 / 3)  # where principal points lie, as shares of the image's sides


def pose_pair(
    names: tuple[str, str], paths: tuple[Path, Path], *, cameras: tuple[Float64, Float64], T_0to1: Float64, where: str
) -> PosePair:
    """Checks what a list tells of two images with known cameras.

    Args:
        names: of the images, as the list writes them.
        paths: of the images.
        cameras: (K0, K1), each (3, 3), pixels.
        T_0to1: (4, 4), camera-0 to camera-1 coordinates.
        where: file and line, for the error's sentence.

    Returns:
        The pair.

    Raises:
        InputError: intrinsics are singular, belong to an image of another size, or the pose is not rigid.
    """
    for side, (K, path) in enumerate(zip(cameras, paths, strict=True)):
        check_intrinsics(K, f"{where}, K{side}")
        check_principal_point(K, path, f"{where}, K{side}")
    check_pose(T_0to1, f"{where}, T_0to1")
    return PosePair(" ".join(names), *paths, *cameras, T_0to1)


def is_singular(matrix: Float64) -> bool:
    """Whether a square matrix has the determinant 0, as far as its numbers can tell.

    Args:
        matrix: (n, n), finite.
    """
    # whatever its scale: huge numbers would overflow
    scaled = matrix / max(np.abs(matrix).max(), np.finfo(np.float64).tiny)
    return bool(np.linalg.matrix_rank(scaled) < len(matrix))


def check_intrinsics(K: Float64, where: str) -> None:
    """Refuses a matrix that is no camera's.

    Args:
        K: (3, 3), finite.
        where: file and line, for the error's sentence.

    Raises:
        InputError: K is singular or not [[fx, skew, cx], [0, fy, cy], [0, 0, 1]] with fx, fy > 0.
    """
    if K[0, 0] > 0 and K[1, 1] > 0 and K[1, 0] == 0 and (K[2] == (0, 0, 1)).all():
        return
    fault = "singular: " if is_singular(K) else ""
    expected = "[[fx, skew, cx], [0, fy, cy], [0, 0, 1]] with fx, fy > 0"
    raise InputError(f"{where} is {fault}{K.tolist()}, expected {expected}")


def check_principal_point(K: Float64, path: Path, where: str) -> None:
    """Refuses intrinsics that evidently belong to an image of another size.

    A list seldom states the size that its intrinsics refer to, but nearly every camera looks at the middle of
    its image. A principal point outside the image is wrong for certain; one that lies off the centre by the same
    factor along both sides tells that the image was resized and its intrinsics were not.

    Args:
        K: (3, 3), pixels.
        path: the image.
        where: file and line, for the error's sentence.

    Raises:
        InputError: they do, or the image cannot be opened.
    """
    height, width = image_size(path)
    x, y = float(K[0, 2]), float(K[1, 2])
    share_x, share_y = (x + 0.5) / width, (y + 0.5) / height
    inside = 0 < share_x < 1 and 0 < share_y < 1
    resized = abs(share_x - share_y) < 0.05 and not CENTRAL[0] < (share_x + share_y) / 2 < CENTRAL[1]
    if inside and not resized:
        return
    size = f"{path} is {width}×{height} px"
    raise InputError(
        f"{where} puts the principal point at ({x:g}, {y:g}), but {size}: expected intrinsics of that size"
    )


def check_pose(T: Float64, where: str) -> None:
    """Refuses a transformation that is not rigid.

    Args:
        T: (4, 4), finite.
        where: file and line, for the error's sentence.

    Raises:
        InputError: its upper left block is no rotation or its last row not 0 0 0 1.
    """
    R = T[:3, :3]
    with np.errstate(all="ignore"):  # entries may be anything
        rotates = np.allclose(R @ R.T, np.eye(3), atol=ROTATION_TOLERANCE) and np.linalg.det(R) > 0
    if not rotates or (T[3] != (0, 0, 0, 1)).any():
        raise InputError(f"{where} is not rigid, expected a rotation, a translation and the last row 0 0 0 1")
