"""Pairs of known cameras as pairs of a plane sweep: their geometry, which planes to sweep, and what is hidden.

A pixel p of view 0 at inverse depth w lies in view 1 at A p + w e, A = K1 R K0^-1 being the homography of the plane at
infinity and e = K1 t the epipole (Hartley and Zisserman, 2nd ed., eq. 13.2), as in `models.sweep`.
"""

import torch
import torch.nn.functional as F
from torch import Generator, Tensor

from tiepoint.ops.sampling import inside, pixel_grid
from tiepoint.ops.warps import uniform

STEP = 4.0  # pixels of view 1 from one plane to the next, where there are planes enough
_NEAREST = 1e-3  # of the third coordinate: what comes nearer to camera 1 has no place in its view
_SURE = 0.01  # share of the inverse depths at either end that are taken for wrong ones


def posed_sweep(
    pair: dict[str, Tensor], *, planes: int, limits: Tensor | None = None, generator: Generator | None = None
) -> dict[str, Tensor]:
    """A pair of known depth, intrinsics and motion as a pair of a plane sweep.

    Args:
        pair: image0, image1: (B, C, h, w); depth0: (B, h, w), 0 where unknown; visible0: (B, h, w) bool, false where
            view 1 surely does not show the place; K0, K1: (B, 3, 3); T_0to1: (B, 4, 4), in the unit of the depth.
        planes: how many.
        limits: (B, 2), least and greatest inverse depth of pairs without any known depth; NaN where they are not known
            either.
        generator: the source of randomness of the margins about the known depths; none where None, as for held-out
            pairs.

    Returns:
        image0, image1; inverse_depth0 (B, h, w), 0 where unknown; known0 and visible0 (B, h, w) bool; at_infinity
        (B, 3, 3), epipole (B, 3); and planes (B, P), as of `models.sweep`. Of a pair whose range nobody knows nothing
        counts as visible.
    """
    K0, K1, T = (pair[name] for name in ("K0", "K1", "T_0to1"))
    depth = pair["depth0"]
    known = depth > 0
    inverse_depth = torch.where(known, 1 / depth.clamp_min(1e-6), 0.0)
    at_infinity = K1 @ T[:, :3, :3] @ torch.linalg.inv(K0)
    epipole = (K1 @ T[:, :3, 3:]).squeeze(2)
    span = known_range(inverse_depth, known, generator=generator)
    if limits is not None:
        span = torch.where(span.isfinite(), span, limits)
    lost = ~span.isfinite().all(1)
    span = torch.where(lost.unsqueeze(1), torch.tensor((0.0, 1.0)).to(span), span)
    return {
        "image0": pair["image0"],
        "image1": pair["image1"],
        "inverse_depth0": inverse_depth,
        "known0": known,
        "visible0": pair["visible0"] & ~lost[:, None, None],
        "at_infinity": at_infinity,
        "epipole": epipole,
        "planes": planes_between(span, at_infinity, epipole, (depth.shape[-2], depth.shape[-1]), planes),
    }


def known_range(inverse_depth: Tensor, known: Tensor, *, generator: Generator | None = None) -> Tensor:
    """Least and greatest inverse depth to sweep: all that is known but a hundredth at either end, and a margin.

    Args:
        inverse_depth: (B, h, w).
        known: (B, h, w) bool.
        generator: makes the margins random, up to a half of either end; else they are a quarter.

    Returns:
        (B, 2), NaN where nothing is known.
    """
    values = torch.where(known, inverse_depth, torch.nan).flatten(1)
    low, high = torch.nanquantile(values, torch.tensor((_SURE, 1 - _SURE)).to(values), dim=1)
    margin = torch.full((len(values), 2), 0.25).to(values)
    if generator is not None:
        margin = uniform((len(values), 2), 0.02, 0.5, like=values, generator=generator)
    low = (low * (1 - margin[:, 0]) - 0.05 * high).clamp_min(0)
    return torch.stack((low, high * (1 + margin[:, 1])), dim=1)


def planes_between(limits: Tensor, at_infinity: Tensor, epipole: Tensor, size: tuple[int, int], count: int) -> Tensor:
    """Inverse depths of planes about `STEP` pixels of view 1 apart, or farther where the range needs it.

    The pixels are counted where they are the most: of nine places, as `tiepoint depth` does.

    Args:
        limits: (B, 2), least and greatest.
        at_infinity: (B, 3, 3).
        epipole: (B, 3).
        size: (height, width) of view 0.
        count: how many; where they are more than the range needs, they go on beyond it.

    Returns:
        (B, P), rising.
    """
    y, x = (torch.linspace(0, side - 1, 3).to(at_infinity) for side in size)
    corners = torch.stack((*torch.meshgrid(x, y, indexing="xy"), torch.ones((3, 3)).to(at_infinity)), dim=-1)
    far = corners.reshape(1, 9, 3) @ at_infinity.transpose(1, 2)
    seen = far.unsqueeze(1) + limits[:, :, None, None] * epipole[:, None, None, :]
    z = seen[..., 2]
    places = seen[..., :2] / z.clamp_min(_NEAREST).unsqueeze(-1)
    length = (places[:, 1] - places[:, 0]).norm(dim=-1)
    pixels = torch.where((z > _NEAREST).all(1), length, 0.0).amax(1).clamp_min(1)
    step = (limits[:, 1] - limits[:, 0]).clamp_min(1e-6) / (pixels / STEP).clamp_max(count - 1)
    return limits[:, :1] + step.unsqueeze(1) * torch.arange(count, device=limits.device)


def seen_places(at_infinity: Tensor, epipole: Tensor, inverse_depth: Tensor) -> tuple[Tensor, Tensor]:
    """Where view 1 sees the pixels of view 0.

    Args:
        at_infinity: (B, 3, 3).
        epipole: (B, 3).
        inverse_depth: (B, h, w), of the pixels of view 0.

    Returns:
        (B, h, w, 2), pixels of view 1, far outside for what lies behind its camera; and (B, h, w), the inverse depth
        that the place has there.
    """
    height, width = inverse_depth.shape[-2:]
    own = pixel_grid(height, width, device=inverse_depth.device).to(inverse_depth)
    own = torch.cat((own, torch.ones_like(own[..., :1])), dim=-1).reshape(1, -1, 3)
    far = (own @ at_infinity.transpose(1, 2)).reshape(-1, height, width, 3)
    seen = far + inverse_depth.unsqueeze(-1) * epipole[:, None, None, :]
    z = seen[..., 2]
    before = z.clamp_min(_NEAREST)
    places = torch.where((z > _NEAREST).unsqueeze(-1), seen[..., :2] / before.unsqueeze(-1), -1e4)
    return places, inverse_depth / before


def unhidden(places: Tensor, nearness: Tensor, tolerance: Tensor) -> Tensor:
    """Which pixels of view 0 view 1 shows, as far as view 0 knows: those before which nothing else comes to lie.

    Args:
        places: (B, h, w, 2), pixels of view 1, which has the size of view 0.
        nearness: (B, h, w), inverse depths in view 1.
        tolerance: (B,), what the inverse depth of one surface differs by from one pixel to the next.

    Returns:
        (B, h, w) bool.
    """
    height, width = nearness.shape[-2:]
    met = inside(places, height, width)
    column, row = (torch.where(met, part, 0).round().long() for part in places.detach().unbind(-1))
    cell = (row * width + column).flatten(1)
    values = torch.where(met, nearness.detach(), -torch.inf).flatten(1)
    nearest = torch.full_like(values, -torch.inf).scatter_reduce(1, cell, values, "amax")
    # where view 1 enlarges, surfaces have gaps, through which what lies behind would show
    around = F.max_pool2d(nearest.reshape(-1, 1, height, width), 3, 1, 1).flatten(1)
    before = around.gather(1, cell).reshape(nearness.shape)
    return met & (nearness >= before - tolerance[:, None, None])
