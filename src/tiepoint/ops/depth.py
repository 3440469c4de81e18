"""Two views whose depth, intrinsics and relative pose are known: where each pixel of one lies in the other."""

from typing import NamedTuple

import torch
import torch.nn.functional as F
from kornia.geometry.camera import project_points
from kornia.geometry.depth import depth_to_3d_v2
from kornia.geometry.linalg import transform_points
from torch import Tensor

from tiepoint.ops.sampling import inside, normalise_points, pixel_grid

_NEAREST = 1e-6  # of the depth of a pixel: what comes nearer to the other camera has no place in its view


class DepthWarp(NamedTuple):
    """What depth tells of the correspondence of a view with another one.

    Attributes:
        warp: (B, H, W, 2), for each pixel its place in the other view, pixels; its own place where nothing is known.
        covisible: (B, H, W) bool, whether the other view surely shows it.
        known: (B, H, W) bool, whether it is sure that the other view shows it or does not: what depends on a depth
            that is missing, ambiguous or contradicted is not.
    """

    warp: Tensor
    covisible: Tensor
    known: Tensor


def depth_warp(
    depth0: Tensor, depth1: Tensor, K0: Tensor, K1: Tensor, T_0to1: Tensor, *, tolerance: float = 0.05
) -> DepthWarp:
    """Warp view 0 to view 1 through its depth: unproject, move, project, and compare with the depth there.

    A pixel is covisible if its depth is known and unambiguous (`depth_steps`), its place lies inside view 1, and the
    depth that view 1 has there differs by no more than `tolerance` from its own (the check of LoFTR, Sun et al., CVPR
    2021, whose code allows 0.2). It is surely hidden if its place lies outside or behind the camera, or view 1 has
    something nearer there. Something farther is a contradiction: one of the two depths is wrong.

    Args:
        depth0: (B, H, W), of view 0; 0 where unknown.
        depth1: (B, h, w), of view 1, in the same unit.
        K0: (B, 3, 3), pixels of view 0.
        K1: (B, 3, 3), pixels of view 1.
        T_0to1: (B, 4, 4), camera 0 to camera 1, its translation in the unit of the depths.
        tolerance: largest relative difference of agreeing depths.

    Returns:
        For every pixel of view 0.
    """
    batch, height, width = depth0.shape
    # what lies beside a known pixel is read with it by bilinear interpolation, and must not be far off
    points = depth_to_3d_v2(_spread(depth0), K0)
    moved = transform_points(T_0to1, points.flatten(1, 2)).unflatten(1, (height, width))
    z = moved[..., 2]
    known = depth0 > 0
    before = z > _NEAREST * depth0
    own = pixel_grid(height, width, device=depth0.device).expand(batch, -1, -1, -1)
    size = torch.tensor((depth1.shape[-1], depth1.shape[-2]), device=depth0.device)
    # far outside is far enough: places near the horizon of the camera have no bounds
    place = project_points(moved, K1[:, None, None]).clamp(-size, 2 * size)
    warp = torch.where(((points[..., 2] > 0) & before).unsqueeze(-1), place, own)
    there = _nearest(depth1, warp)
    sure = known & ~depth_steps(depth0, tolerance)
    met = sure & before & inside(warp, *depth1.shape[-2:])
    agrees = (there > 0) & ((there - z).abs() <= tolerance * z)
    hidden = (there > 0) & (there < (1 - tolerance) * z)
    covisible = met & agrees
    return DepthWarp(warp, covisible, covisible | (met & hidden) | (sure & ~met))


def depth_steps(depth: Tensor, tolerance: float) -> Tensor:
    """Where the depth of a pixel or of one of its eight neighbours differs from another of them: at edges of objects.

    Between two such pixels there is no surface, and a place read there by interpolation is nowhere.

    Args:
        depth: (B, H, W), 0 where unknown, which is no step.
        tolerance: largest relative difference that is no step.

    Returns:
        (B, H, W) bool.
    """
    far = F.max_pool2d(depth.unsqueeze(1), 3, 1, 1)
    near = -F.max_pool2d(-torch.where(depth > 0, depth, torch.inf).unsqueeze(1), 3, 1, 1)
    return (far > (1 + tolerance) * near).squeeze(1)


def infinite_homography(K0: Tensor, K1: Tensor, T_0to1: Tensor) -> Tensor:
    """The homography of the plane at infinity, K1 R K0^-1 (Hartley and Zisserman, 2nd ed., eq. 13.2).

    Args:
        K0: (B, 3, 3).
        K1: (B, 3, 3).
        T_0to1: (B, 4, 4).

    Returns:
        (B, 3, 3), pixels of view 0 to view 1, the last entry 1.
    """
    H: Tensor = K1 @ T_0to1[:, :3, :3] @ torch.linalg.inv(K0)
    return H / H[:, 2:, 2:]


def _spread(depth: Tensor) -> Tensor:
    """The depth, and in unknown pixels the mean of their known neighbours, 0 where there is none."""
    mean = F.avg_pool2d(depth.unsqueeze(1), 3, 1, 1)
    share = F.avg_pool2d((depth > 0).to(depth).unsqueeze(1), 3, 1, 1)
    return torch.where(depth > 0, depth, (mean / share.clamp_min(1e-6)).squeeze(1))


def _nearest(depth: Tensor, places: Tensor) -> Tensor:
    """The depth of the pixel that each place (B, H, W, 2) lies on, 0 outside: a mean would be on neither surface."""
    grid = normalise_points(places, *depth.shape[-2:])
    read: Tensor = F.grid_sample(depth.unsqueeze(1), grid, mode="nearest", align_corners=False)
    return read.squeeze(1)
