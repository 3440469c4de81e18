"""Refining a plane transformation on the images themselves, starting from what their matches say."""

import math
from collections.abc import Mapping
from typing import Final, Literal, NamedTuple

import torch
import torch.nn.functional as F
from kornia.filters import gaussian_blur2d, spatial_gradient
from kornia.geometry.linalg import transform_points
from torch import Tensor

from tiepoint.ops.sampling import inside, normalise_points, pixel_grid, sample

TransformModel = Literal["homography", "affine", "similarity", "translation"]

# generators of each group, as the places (row, column, value) that are not zero; all in coordinates about [-1, 1]
_GENERATORS: Final[Mapping[TransformModel, tuple[tuple[tuple[int, int, float], ...], ...]]] = {
    "translation": (((0, 2, 1),), ((1, 2, 1),)),
    "similarity": (((0, 2, 1),), ((1, 2, 1),), ((0, 0, 1), (1, 1, 1)), ((0, 1, -1), (1, 0, 1))),
    "affine": (((0, 2, 1),), ((1, 2, 1),), ((0, 0, 1),), ((0, 1, 1),), ((1, 0, 1),), ((1, 1, 1),)),
    "homography": (
        *(((0, 2, 1),), ((1, 2, 1),), ((0, 0, 1), (1, 1, 1)), ((0, 0, 1), (1, 1, -1)), ((0, 1, 1),), ((1, 0, 1),)),
        *(((2, 0, 1),), ((2, 1, 1),)),
    ),
}
_MARGIN = 2  # px: gradients nearer to the border are made of what lies outside
_LEAST = 500  # pixels that both images show at a level, below which it is left out
_SMALLEST = 32  # px: sides of a level below which it is left out
_SAMPLES = 100_000  # pixels at most that vote
_TEXTURE = 0.01  # squared length of a normalised gradient
_WINDOW = 5.0  # px of a level, a Gaussian's sigma: over which gradients are normalised
_CORRELATION = 100.0  # px^2 of a level that count as one observation: windows overlap, and no scene is a plane
_STILL = 0.005  # px of a corner: a step below is the last one


class Refined(NamedTuple):
    """A transformation after refinement.

    Attributes:
        matrix: (3, 3) float64; the one that came in where refinement did not help.
        helped: whether the images agree better under it.
        before: the cost (see `refine_transform`) at full size before, NaN where the images do not overlap.
        after: and after it.
    """

    matrix: Tensor
    helped: bool
    before: float
    after: float


class _Level(NamedTuple):
    """A pair at one size: maps and their gradients, and the pixels of the moving image that vote."""

    maps0: Tensor  # (N, C), at the pixels
    slopes0: Tensor  # (N, C, 2)
    maps1: Tensor  # (1, C, h, w)
    slopes1: Tensor  # (1, 2 C, h, w)
    pixels: Tensor  # (N, 2)
    motion: Tensor  # (N, K, 2), how each generator moves each pixel
    to_unit: Tensor  # (3, 3), pixels of the moving image to about [-1, 1]
    generators: Tensor  # (K, 3, 3)
    points0: Tensor  # (M, 2)
    points1: Tensor  # (M, 2)
    point_motion: Tensor  # (M, K, 2)
    point_sigma: float  # px
    pixel_share: float  # independent observations a voting pixel stands for


def refine_transform(
    moving: Tensor,
    fixed: Tensor,
    H: Tensor,
    points0: Tensor,
    points1: Tensor,
    *,
    model: TransformModel = "homography",
    levels: tuple[int, ...] = (4, 2, 1),
    steps: int = 15,
    sigma: float = 1.0,
) -> Refined:
    """Refines a transformation by Lucas and Kanade's method on gradient maps, held by the matches.

    Minimises, coarse to fine, the robust negative log likelihood

        sum_p rho(|G1(H p) - G0(p)|^2 / s^2) a / (2 v) + sum_i log(1 + |H x0_i - x1_i|^2 / sigma^2) / 2

    where rho(e) = s^2 log(1 + e) is Cauchy's, s^2 the median of the squared residuals, v their robust variance, and a
    the share of pixels that count as independent, one in a hundred. G are the maps of `gradient_maps`, which neither a
    bias nor a gain, even one that changes over the image, alters. Steps are Gauss and Newton's with Levenberg's damping
    on the group of the model (Baker and Matthews, IJCV 2004), with the mean of both images' gradients (Benhimane and
    Malis, "ESM", IROS 2004). In the end the cost decides, at the last level, whether it helped.

    Args:
        moving: (1, 1, H, W), grey in [0, 1]; image 0.
        fixed: (1, 1, h, w); image 1.
        H: (3, 3), pixels of `moving` to `fixed`, a member of the model's group.
        points0: (M, 2), pixels of `moving`: the matches that agree with H.
        points1: (M, 2), pixels of `fixed`.
        model: the group in which the answer lies.
        levels: factors by which both images are shrunk, falling.
        steps: at most, a level.
        sigma: of the places of the matches, pixels of `fixed`.

    Returns:
        The transformation, and whether it is another one than H.
    """
    start, current = H.double(), H.double()
    points = points0.double(), points1.double()
    level = None
    for factor in levels:
        there = _shrunk(current, factor)
        level = _make_level(moving, fixed, there, points, factor, model=model, sigma=sigma)
        if level is not None:
            current = _shrunk(_descend(level, there, steps), 1 / factor)
    if level is None:
        return Refined(start, False, math.nan, math.nan)
    scale = _scale(level, _shrunk(start, levels[-1]))
    before, after = (_cost(level, _shrunk(each, levels[-1]), scale) for each in (start, current))
    return Refined(current, True, before, after) if after < before else Refined(start, False, before, before)


def gradient_maps(image: Tensor) -> Tensor:
    """The gradient of an image, divided by its local strength: what no local gain and no bias changes.

    Args:
        image: (B, 1, H, W).

    Returns:
        (B, 2, H, W), of mean square length about 1; near 0 where there is no texture.
    """
    slopes = spatial_gradient(_blurred(image, 1.0)).squeeze(1)
    strength = _blurred(slopes.square().sum(1, keepdim=True), _WINDOW)
    # half a grey level in 255 a pixel is noise, which would otherwise be made as strong as everything else
    normalised: Tensor = slopes / (strength + 0.002**2).sqrt()
    return normalised


def photometric_residuals(
    maps0: Tensor,
    maps1: Tensor,
    pixels: Tensor,
    H: Tensor,
    *,
    interpolation: Literal["bilinear", "bicubic"] = "bilinear",
) -> Tensor:
    """G1(H p) - G0(p), differentiable in all of its arguments.

    Args:
        maps0: (N, C), of the moving image at the pixels.
        maps1: (1, C, h, w), of the fixed image.
        pixels: (N, 2), of the moving image.
        H: (3, 3).
        interpolation: bilinear averages noise away between pixels, but not on them: transformations are compared by
            bicubic.

    Returns:
        (N, C); what lies outside reads 0.
    """
    grid = normalise_points(_mapped(H, pixels), *maps1.shape[-2:]).to(maps1)
    read = F.grid_sample(maps1, grid[None, None], mode=interpolation, padding_mode="zeros", align_corners=False)
    residuals: Tensor = read[0, :, 0].T - maps0
    return residuals


def _make_level(
    moving: Tensor,
    fixed: Tensor,
    H: Tensor,
    points: tuple[Tensor, Tensor],
    factor: int,
    *,
    model: TransformModel,
    sigma: float,
) -> _Level | None:
    """Both images at one size, None where they share too little there."""
    if min(*moving.shape[-2:], *fixed.shape[-2:]) < _SMALLEST * factor:
        return None
    images = [F.avg_pool2d(image, factor) for image in (moving, fixed)]
    zoom = _zoom(H, images[0].shape[-2:])
    if not 0 < zoom < math.inf:
        return None
    # the sharper image is blurred to what the other one resolves
    side, excess = (1, zoom) if zoom > 1 else (0, 1 / zoom)
    if excess > 1.2:
        images[side] = _blurred(images[side], 0.5 * math.sqrt(excess**2 - 1))
    maps = [gradient_maps(image) for image in images]
    maps[1] = _turned(maps[1], H, images[0].shape[-2:])
    slopes = [spatial_gradient(each, mode="diff").flatten(1, 2) for each in maps]
    height, width = maps[0].shape[-2:]
    pixels = pixel_grid(height, width).double()[_MARGIN:-_MARGIN, _MARGIN:-_MARGIN].reshape(-1, 2)
    # what has no texture agrees with everything, and would make all that does not look wrong
    textured = (maps[0].square().sum(1) > _TEXTURE)[0, _MARGIN:-_MARGIN, _MARGIN:-_MARGIN].reshape(-1)
    pixels = pixels[textured & _shown(pixels, H, maps[1])]
    if len(pixels) < _LEAST:
        return None
    thinned = pixels[torch.randperm(len(pixels), generator=torch.Generator().manual_seed(0))[:_SAMPLES]]
    reach = max(height, width) / 2
    to_unit = torch.tensor([[1, 0, (1 - width) / 2], [0, 1, (1 - height) / 2], [0, 0, reach]]).double() / reach
    generators = _generators(model)
    points0, points1 = ((each + 0.5) / factor - 0.5 for each in points)
    rows, columns = thinned[:, 1].long(), thinned[:, 0].long()
    return _Level(
        maps0=maps[0][0, :, rows, columns].T,
        slopes0=slopes[0][0, :, rows, columns].T.reshape(len(thinned), -1, 2),
        maps1=maps[1],
        slopes1=slopes[1],
        pixels=thinned,
        motion=_motion(generators, to_unit, thinned).float(),
        to_unit=to_unit,
        generators=generators,
        points0=points0,
        points1=points1,
        point_motion=_motion(generators, to_unit, points0),
        point_sigma=sigma / factor,
        pixel_share=len(pixels) / len(thinned) / _CORRELATION,
    )


def _descend(level: _Level, H: Tensor, steps: int) -> Tensor:
    """Gauss and Newton's steps from H, (3, 3), until they are small."""
    scale = _scale(level, H)
    to_unit, from_unit = level.to_unit, torch.linalg.inv(level.to_unit)
    corners = _mapped(from_unit, torch.tensor([[-1.0, -1.0], [1.0, -1.0], [-1.0, 1.0], [1.0, 1.0]]).double())
    for _ in range(steps):
        A, b = _normal_equations(level, H, scale)
        step = -torch.linalg.solve(A + 1e-4 * torch.diag(A.diagonal() + 1e-9), b)
        change = from_unit @ torch.linalg.matrix_exp((step[:, None, None] * level.generators).sum(0)) @ to_unit
        H = _unit_corner(H @ change)
        if (_mapped(change, corners) - corners).norm(dim=1).max() < _STILL:
            break
    return H


def _normal_equations(level: _Level, H: Tensor, scale: tuple[float, float]) -> tuple[Tensor, Tensor]:
    """Gauss and Newton's matrix (K, K) and right-hand side (K,) of the cost at H."""
    spread, variance = scale
    residuals = photometric_residuals(level.maps0, level.maps1, level.pixels, H)
    places = _mapped(H, level.pixels)
    slopes1 = sample(level.slopes1, places.unsqueeze(0), padding="zeros").reshape(*residuals.shape, 2)
    slopes = (slopes1 @ _jacobian(H, level.pixels).float() + level.slopes0) / 2
    J = slopes @ level.motion.transpose(1, 2)
    weights = _seen(level, places) / (1 + residuals.square().sum(1) / spread) * (level.pixel_share / variance)
    A = torch.einsum("nck,n,ncl->kl", J, weights, J).double()
    b = torch.einsum("nck,n,nc->k", J, weights, residuals).double()
    errors = _mapped(H, level.points0) - level.points1
    J = _jacobian(H, level.points0) @ level.point_motion.transpose(1, 2)
    precision = 1 / (level.point_sigma**2 + errors.square().sum(1))
    A = A + torch.einsum("nqk,n,nql->kl", J, precision, J)
    return A, b + torch.einsum("nqk,n,nq->k", J, precision, errors)


def _cost(level: _Level, H: Tensor, scale: tuple[float, float]) -> float:
    """The negative log likelihood; pixels that leave the fixed image cost what the others do on average."""
    spread, variance = scale
    seen = _seen(level, _mapped(H, level.pixels))
    if seen.sum() < _LEAST / 2:
        return math.inf
    residuals = photometric_residuals(level.maps0, level.maps1, level.pixels, H, interpolation="bicubic")
    squared = residuals.square().sum(1)
    mean = (spread * torch.log1p(squared / spread) * seen).sum() / seen.sum()
    errors = (_mapped(H, level.points0) - level.points1).square().sum(1) / level.point_sigma**2
    photometric = float(mean) * len(level.pixels) * level.pixel_share / (2 * variance)
    return photometric + float(torch.log1p(errors).sum() / 2)


def _scale(level: _Level, H: Tensor) -> tuple[float, float]:
    """The median s^2 of the squared residuals under H, and their robust variance a channel."""
    seen = _seen(level, _mapped(H, level.pixels)) > 0
    squared = photometric_residuals(level.maps0, level.maps1, level.pixels, H).square().sum(1)[seen]
    spread = float(squared.median()) + 1e-8
    weights = 1 / (1 + squared / spread)
    return spread, float((squared * weights).sum() / weights.sum()) / level.maps0.shape[1] + 1e-8


def _seen(level: _Level, places: Tensor) -> Tensor:
    """1 where the fixed image shows a place (N, 2), 0 elsewhere."""
    height, width = level.maps1.shape[-2:]
    return inside(places - _MARGIN, height - 2 * _MARGIN, width - 2 * _MARGIN).float()


def _shown(pixels: Tensor, H: Tensor, maps1: Tensor) -> Tensor:
    """Which pixels (N, 2) the fixed image shows, before the camera."""
    height, width = maps1.shape[-2:]
    depth = pixels @ H[2, :2] + H[2, 2]
    return inside(_mapped(H, pixels) - _MARGIN, height - 2 * _MARGIN, width - 2 * _MARGIN) & (depth * H[2, 2] > 0)


def _generators(model: TransformModel) -> Tensor:
    """(K, 3, 3) float64."""
    found = torch.zeros(len(_GENERATORS[model]), 3, 3, dtype=torch.float64)
    for generator, places in zip(found, _GENERATORS[model], strict=True):
        for row, column, value in places:
            generator[row, column] = value
    return found


def _motion(generators: Tensor, to_unit: Tensor, pixels: Tensor) -> Tensor:
    """The derivatives of pixels by the generators, (N, K, 2), of a step that is taken in unit coordinates before H."""
    unit = _mapped(to_unit, pixels)
    moved = torch.cat((unit, torch.ones_like(unit[:, :1])), dim=1) @ generators.transpose(1, 2)
    return ((moved[..., :2] - unit * moved[..., 2:]) / to_unit[0, 0]).transpose(0, 1)


def _jacobian(H: Tensor, points: Tensor) -> Tensor:
    """The derivatives of H p by p, (N, 2, 2)."""
    places, depth = _mapped(H, points), points @ H[2, :2] + H[2, 2]
    return (H[:2, :2] - places.unsqueeze(-1) * H[2, :2]) / depth[:, None, None]


def _mapped(H: Tensor, points: Tensor) -> Tensor:
    """(N, 2) under H."""
    mapped: Tensor = transform_points(H.unsqueeze(0), points.unsqueeze(0)).squeeze(0)
    return mapped


def _zoom(H: Tensor, size: torch.Size) -> float:
    """How many times larger the middle of the moving image appears in the fixed one."""
    centre = torch.tensor([[(size[1] - 1) / 2, (size[0] - 1) / 2]], dtype=H.dtype)
    return math.sqrt(abs(float(torch.linalg.det(_jacobian(H, centre)[0]))))


def _turned(maps: Tensor, H: Tensor, size: torch.Size) -> Tensor:
    """Gradients of the fixed image as the moving one has them: J^T G, of unit determinant, J in its middle."""
    centre = torch.tensor([[(size[1] - 1) / 2, (size[0] - 1) / 2]], dtype=H.dtype)
    J = _jacobian(H, centre)[0]
    return torch.einsum("ij,bihw->bjhw", (J / torch.linalg.det(J).abs().sqrt()).to(maps), maps)


def _shrunk(H: Tensor, factor: float) -> Tensor:
    """(3, 3) for both images shrunk by a factor, pixel areas kept."""
    shift = (1 / factor - 1) / 2
    to = torch.tensor([[1 / factor, 0, shift], [0, 1 / factor, shift], [0, 0, 1]], dtype=torch.float64)
    return _unit_corner(to @ H @ torch.linalg.inv(to))


def _unit_corner(H: Tensor) -> Tensor:
    return H / H[2, 2]


def _blurred(image: Tensor, sigma: float) -> Tensor:
    size = 2 * round(3 * sigma) + 1
    blurred: Tensor = gaussian_blur2d(image, (size, size), (sigma, sigma), border_type="replicate")
    return blurred
