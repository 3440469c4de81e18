"""Registration of two images: which plane transformation lays one over the other."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Final, Literal, get_args

import cv2
import numpy as np

from tiepoint.errors import InputError, WorkError
from tiepoint.geometry import WOULD_HELP, default_threshold, estimate, warp_points
from tiepoint.images import ImageSource, UInt8, check_texture
from tiepoint.runtime import load
from tiepoint.runtime.matcher import Matcher, read_usable
from tiepoint.types import Bool, Float64, Matches

TransformName = Literal["homography", "affine", "similarity", "translation"]
TransformChoice = Literal["auto", "homography", "affine", "similarity", "translation"]

FREEDOM: Final[Mapping[TransformName, int]] = {"translation": 2, "similarity": 4, "affine": 6, "homography": 8}
# inliers that a model needs: among hundreds of wrong matches some always agree with something
LEAST: Final[Mapping[TransformName, int]] = {"translation": 8, "similarity": 8, "affine": 9, "homography": 12}
DOUBTFUL = 25  # inliers below which a model may still be chance: so many agreed with wrong ones on public pairs


@dataclass(frozen=True, slots=True, eq=False)
class Registration:
    """How one image lies over another.

    Attributes:
        model: what kind of transformation it is.
        matrix: (3, 3) float64, homogeneous pixels of the moving image to the fixed one.
        matches: the tie points that it was started from.
        inliers: (N,) bool, which of them agree with what they alone say.
        refined: whether the images themselves improved on that.
        error: median distance of the inliers in the fixed image under `matrix`, pixels.
        criterion: GRIC of each model that was tried, the lowest was taken; empty where the model was given.
    """

    model: TransformName
    matrix: Float64
    matches: Matches
    inliers: Bool
    refined: bool
    error: float
    criterion: Mapping[TransformName, float]


def register(
    moving: ImageSource,
    fixed: ImageSource,
    *,
    model: TransformChoice = "auto",
    refine: bool = True,
    matcher: Matcher | None = None,
    threshold: float | None = None,
) -> Registration:
    """Finds the transformation that lays one image over another.

    Matches, a robust fit to them, then refinement on the images themselves
    (`ops.registration.refine_transform`), which is kept only where the images agree better under it.

    With "auto" the data choose the model by Torr's GRIC ("Geometric motion segmentation and model selection", 1998):
    sum_i min(e_i^2 / s^2, 4) + k log(4 n), over the n matches that agree with any of the models, where e_i is the
    distance in the fixed image, s its standard deviation under the best fitting model, and k the number of the
    model's parameters. The dimension of the data adds the same to all and is left out.

    Args:
        moving: a path, a Pillow image or an array.
        fixed: likewise.
        model: what kind of transformation.
        refine: False stops at what the matches say, and needs no torch.
        matcher: finds the matches; None takes the embedded network.
        threshold: the largest distance of an inlier in the fixed image, pixels; None takes `default_threshold`.

    Returns:
        The registration.

    Raises:
        InputError: an image cannot be used, an option is wrong, or refinement is asked for without torch.
        WorkError: the images are identical or have no texture, or too few matches agree.
    """
    if model not in get_args(TransformChoice):
        raise InputError(f"model is {model!r}, expected one of {', '.join(get_args(TransformChoice))}")
    if threshold is not None and not 0 < threshold < float("inf"):
        raise InputError(f"threshold is {threshold}, expected a positive number of pixels")
    refiner = _refiner() if refine else None
    images = read_usable(moving, name="the moving image"), read_usable(fixed, name="the fixed image")
    _check_texture(*images)
    matches = (matcher or load())(*images)
    threshold = default_threshold(matches, "homography") if threshold is None else threshold
    chosen, found, criterion = _fit(matches, model, threshold)
    matrix, inliers = found
    refined = False
    if refiner is not None:
        points = matches.keypoints0[inliers], matches.keypoints1[inliers]
        matrix, refined = refiner(*images, matrix, points, model=chosen)
    error = float(np.median(_distances(matrix, matches)[inliers]))
    return Registration(chosen, matrix, matches, inliers, refined, error, criterion)


_Fit = tuple[Float64, Bool]


def _refiner() -> Callable[..., tuple[Float64, bool]]:
    try:
        from tiepoint.refinement import refine
    except ModuleNotFoundError as error:
        raise InputError(
            f"refinement needs {error.name}: pip install 'tiepoint[train]', or leave it out (--no_refine)"
        ) from error
    return refine


def _check_texture(moving: UInt8, fixed: UInt8) -> None:
    if moving.shape == fixed.shape and np.array_equal(moving, fixed):
        raise WorkError("the two images are identical, pixel for pixel; there is nothing to find out about them")
    for name, image in (("moving", moving), ("fixed", fixed)):
        check_texture(image, name=name)


def _fit(
    matches: Matches, model: TransformChoice, threshold: float
) -> tuple[TransformName, _Fit, dict[TransformName, float]]:
    """The model, its matrix and inliers, and the criterion of all that were tried."""
    wanted: tuple[TransformName, ...] = get_args(TransformName) if model == "auto" else (model,)
    fits = {name: fit for name in wanted if (fit := _fit_one(name, matches, threshold)) is not None}
    if not fits:
        least = min(LEAST[name] for name in wanted)
        raise WorkError(
            f"too few of {len(matches)} matches agree with {'any model' if model == 'auto' else 'a ' + model}, "
            f"expected {least} or more; {WOULD_HELP}"
        )
    if model != "auto":
        return model, fits[model], {}
    criterion = _gric(fits, matches)
    best = min(criterion, key=lambda name: criterion[name])
    return best, fits[best], criterion


def _fit_one(name: TransformName, matches: Matches, threshold: float) -> _Fit | None:
    """A robust fit, None where too few matches agree with it."""
    if len(matches) < LEAST[name]:
        return None
    matrix = _homography(matches, threshold) if name == "homography" else _linear(name, matches, threshold)
    if matrix is None or not np.isfinite(matrix).all():
        return None
    inliers = _distances(matrix, matches) <= threshold
    return (matrix, inliers) if inliers.sum() >= LEAST[name] else None


def _homography(matches: Matches, threshold: float) -> Float64 | None:
    found = estimate(matches, "homography", threshold=threshold)
    return found.matrix if found else None


def _linear(name: TransformName, matches: Matches, threshold: float) -> Float64 | None:
    """RANSAC's consensus, then least squares on the inliers until these stay the same."""
    found: Float64 | None
    x0, x1 = matches.keypoints0.astype(np.float64), matches.keypoints1.astype(np.float64)
    if name == "translation":
        found = _voted_shift(x1 - x0, threshold)
    else:
        fit = cv2.estimateAffine2D if name == "affine" else cv2.estimateAffinePartial2D
        found, _ = fit(x0, x1, method=cv2.RANSAC, ransacReprojThreshold=threshold, maxIters=2000, confidence=0.99999)
    if found is None:
        return None
    matrix = np.vstack([found, [0, 0, 1]])
    inliers = _distances(matrix, matches) <= threshold
    for _ in range(10):
        if inliers.sum() < FREEDOM[name]:
            return None
        matrix = _least_squares(name, x0[inliers], x1[inliers])
        before, inliers = inliers, _distances(matrix, matches) <= threshold
        if np.array_equal(before, inliers):
            break
    return matrix


def _voted_shift(moves: Float64, threshold: float) -> Float64:
    """The move that most others agree with, (2, 3)."""
    votes = [(np.linalg.norm(moves - move, axis=1) <= threshold).sum() for move in moves]
    return np.hstack([np.eye(2), moves[int(np.argmax(votes))][:, None]])


def _least_squares(name: TransformName, x0: Float64, x1: Float64) -> Float64:
    """(3, 3) of the group that maps (N, 2) to (N, 2) with the least squared distance."""
    centre0, centre1 = x0.mean(axis=0), x1.mean(axis=0)
    a, b = x0 - centre0, x1 - centre1
    linear = np.eye(2)
    if name == "affine":
        linear = np.linalg.lstsq(a, b, rcond=None)[0].T
    elif name == "similarity":
        # of all [[c, -s], [s, c]]: the complex number that takes a to b
        c, s = (a * b).sum(), (a[:, 0] * b[:, 1] - a[:, 1] * b[:, 0]).sum()
        linear = np.array([[c, -s], [s, c]]) / (a**2).sum()
    matrix = np.eye(3)
    matrix[:2, :2], matrix[:2, 2] = linear, centre1 - linear @ centre0
    return matrix


def _gric(fits: Mapping[TransformName, _Fit], matches: Matches) -> dict[TransformName, float]:
    any_inlier = np.logical_or.reduce([inliers for _, inliers in fits.values()])
    squared = {name: _distances(matrix, matches)[any_inlier] ** 2 for name, (matrix, _) in fits.items()}
    # of two coordinates, the median square is 1.386 variances
    variance = max(min(float(np.median(each)) for each in squared.values()) / 1.386, 0.01)
    count = int(any_inlier.sum())
    return {
        name: float(np.minimum(each / variance, 4.0).sum() + FREEDOM[name] * np.log(4 * count))
        for name, each in squared.items()
    }


def _distances(matrix: Float64, matches: Matches) -> Float64:
    with np.errstate(all="ignore"):
        distance = np.linalg.norm(warp_points(matrix, matches.keypoints0) - matches.keypoints1, axis=1)
    return np.where(np.isfinite(distance), distance, np.inf)
