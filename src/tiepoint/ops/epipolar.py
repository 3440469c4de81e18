"""Epipolar geometry, batched and differentiable: from weighted matches to pose and points.

Conventions of the house: x1^T F x0 = 0 and x1 ~ R x0 + t. "Rays" are pixels after K^-1, (x, y) at depth 1. Every
function has finite gradients on degenerate input (all matches at one place, no baseline, weights of zero), where the
answer itself means nothing.
"""

from typing import NamedTuple

import torch
from kornia.geometry.epipolar import cross_product_matrix, normalize_points, triangulate_points
from torch import Tensor

_TINY = 1e-12  # relative: eigenvalues this close are taken for equal


class RelativePose(NamedTuple):
    """Where camera 1 stands.

    Attributes:
        rotation: (B, 3, 3), camera 0 to camera 1.
        translation: (B, 3), unit length.
        before: (B, N) bool, which points lie in front of both cameras.
    """

    rotation: Tensor
    translation: Tensor
    before: Tensor


def weighted_eight_point(points0: Tensor, points1: Tensor, weights: Tensor | None = None) -> Tensor:
    """The fundamental matrix by the normalised 8-point algorithm, each match with a weight.

    Hartley, "In defense of the eight-point algorithm", PAMI 1997, with weights as in Ranftl and Koltun, "Deep
    fundamental matrix estimation", ECCV 2018: it minimises sum_i w_i (x1_i^T F x0_i)^2 in normalised coordinates, then
    takes the nearest matrix of rank 2. Of rays it gives an essential matrix, but for the equality of its two singular
    values, which `pose_from_essential` restores.

    Args:
        points0: (B, N, 2) with N >= 8, pixels or rays of view 0.
        points1: (B, N, 2), of view 1.
        weights: (B, N), not negative; their scale does not count. None for equal ones.

    Returns:
        (B, 3, 3) of unit Frobenius norm.

    Raises:
        ValueError: there are fewer than eight matches.
    """
    if points0.shape[1] < 8:
        raise ValueError(f"the 8-point algorithm needs 8 matches, got {points0.shape[1]}")
    weights = torch.ones_like(points0[..., 0]) if weights is None else weights
    (x0, T0), (x1, T1) = (_normalised(points, weights) for points in (points0, points1))
    ones = torch.ones_like(x0[..., :1])
    x0, x1 = torch.cat((x0, ones), dim=-1), torch.cat((x1, ones), dim=-1)
    rows = (x1.unsqueeze(-1) * x0.unsqueeze(-2)).flatten(2)
    F = null_vector(rows.transpose(1, 2) @ (rows * weights.unsqueeze(-1))).reshape(-1, 3, 3)
    epipole = null_vector(F.transpose(1, 2) @ F)
    F = F - (F @ epipole.unsqueeze(-1)) * epipole.unsqueeze(1)
    return _unit(T1.transpose(1, 2) @ F @ T0, dims=(1, 2))


def null_vector(M: Tensor) -> Tensor:
    """The unit eigenvector of the smallest eigenvalue of symmetric matrices.

    Its derivative is dv = -(M - lambda I)^+ dM v, in which equal eigenvalues, by whose difference torch's eigh would
    divide, do not count. Only the first derivative is right.

    Args:
        M: (B, n, n).

    Returns:
        (B, n); the sign is arbitrary.
    """
    with torch.no_grad():
        values, vectors = torch.linalg.eigh(M)
        gaps = values - values[:, :1]
        apart = gaps > _TINY * values[:, -1:].abs().clamp_min(_TINY)
        inverse = torch.where(apart, 1 / torch.where(apart, gaps, 1), 0)
        v = vectors[:, :, :1]
        P = vectors * inverse.unsqueeze(1) @ vectors.transpose(1, 2)
        still = P @ (M @ v)
    # the value is v itself; what is taken off is zero and carries the derivative
    found: Tensor = v - (P @ (M @ v) - still)
    return found.squeeze(-1)


def symmetric_epipolar_distance(points0: Tensor, points1: Tensor, F: Tensor) -> Tensor:
    """Mean of the distances of each point to the epipolar line of its partner, in both images.

    (d(x1, F x0) + d(x0, F^T x1)) / 2, after Hartley and Zisserman, "Multiple View Geometry", equation 11.10, with plain
    instead of squared distances, as `evaluation.metrics` has it.

    Args:
        points0: (B, N, 2), pixels.
        points1: (B, N, 2), pixels.
        F: (B, 3, 3).

    Returns:
        (B, N), pixels; 0 where both lines are undefined.
    """
    residual, lines1, lines0 = _residual(points0, points1, F)
    inverse = sum(_inverse(_norm(lines[..., :2])) for lines in (lines0, lines1))
    return residual.abs() * inverse / 2


def sampson_distance(points0: Tensor, points1: Tensor, F: Tensor) -> Tensor:
    """First-order distance of a match to the nearest one that satisfies the epipolar constraint exactly, with its sign.

    x1^T F x0 / sqrt((F x0)_1^2 + (F x0)_2^2 + (F^T x1)_1^2 + (F^T x1)_2^2): the root of Hartley and Zisserman,
    "Multiple View Geometry", equation 11.9. The sign lets least squares have a smooth residual.

    Args:
        points0: (B, N, 2), pixels or rays.
        points1: (B, N, 2), likewise.
        F: (B, 3, 3).

    Returns:
        (B, N), in their unit; 0 where both lines are undefined.
    """
    residual, lines1, lines0 = _residual(points0, points1, F)
    return residual * _inverse(_norm(torch.cat((lines1[..., :2], lines0[..., :2]), dim=-1)))


def essential_from_pose(R: Tensor, t: Tensor) -> Tensor:
    """[t]x R (Hartley and Zisserman, equation 9.12).

    Args:
        R: (B, 3, 3).
        t: (B, 3).

    Returns:
        (B, 3, 3).
    """
    E: Tensor = cross_product_matrix(t) @ R
    return E


def pose_from_essential(E: Tensor, rays0: Tensor, rays1: Tensor, weights: Tensor | None = None) -> RelativePose:
    """The one of the four poses of an essential matrix that puts most matches in front of both cameras.

    Horn, "Recovering baseline and orientation from essential matrix", 1990: with t the left null vector of E,
    R is the rotation nearest to cof(E) - [t]x E. That is U W V^T of the singular vectors (Hartley and Zisserman, result
    9.19), whose own derivative does not exist where the two singular values are equal, as they should be. The choice
    among the four (section 9.6.3) has no derivative.

    Args:
        E: (B, 3, 3), of any scale; what is no essential matrix counts as the nearest one.
        rays0: (B, N, 2).
        rays1: (B, N, 2).
        weights: (B, N), how much a match counts in the choice; None for equally much.

    Returns:
        The pose; the identity where E is zero.
    """
    E = _unit(E, dims=(1, 2)) * 2**0.5
    t = _unit(null_vector(E @ E.transpose(1, 2)))
    turns = [_nearest_rotation(_cofactors(E) - cross_product_matrix(sign * t) @ E) for sign in (1, -1)]
    R, t = torch.stack((turns[0], turns[0], turns[1], turns[1]), 1), torch.stack((t, -t, t, -t), 1)
    before = _in_front(rays0.unsqueeze(1), rays1.unsqueeze(1), R, t)
    counted = before.to(rays0) if weights is None else before * weights.unsqueeze(1)
    best = counted.sum(-1).argmax(1)
    batch = torch.arange(len(best), device=best.device)
    return RelativePose(R[batch, best], t[batch, best], before[batch, best])


def triangulate(rays0: Tensor, rays1: Tensor, R: Tensor, t: Tensor) -> Tensor:
    """The places that two cameras see along their rays, by the linear method (Hartley and Zisserman, section 12.2).

    Args:
        rays0: (B, N, 2).
        rays1: (B, N, 2).
        R: (B, 3, 3).
        t: (B, 3).

    Returns:
        (B, N, 3), in camera 0 and in lengths of t; NaN where the rays are parallel.
    """
    P1 = torch.cat((R, t.unsqueeze(-1)), dim=-1)
    P0 = torch.eye(3, 4, dtype=R.dtype, device=R.device).expand_as(P1)
    points: Tensor = triangulate_points(P0, P1, rays0, rays1)
    return points


def rotation_error(R: Tensor, R_true: Tensor) -> Tensor:
    """Angle of the rotation that takes one rotation to the other.

    atan2(|a|, (tr D - 1) / 2) with D = R R_true^T and 2 [a]x = D - D^T: unlike the arc cosine of the trace it has a
    derivative everywhere but at 0, where it is taken for 0, and at half a turn.

    Args:
        R: (B, 3, 3).
        R_true: (B, 3, 3).

    Returns:
        (B,), radians in [0, pi].
    """
    D = R @ R_true.transpose(1, 2)
    axis = torch.stack((D[:, 2, 1] - D[:, 1, 2], D[:, 0, 2] - D[:, 2, 0], D[:, 1, 0] - D[:, 0, 1]), dim=-1) / 2
    return torch.atan2(_norm(axis), (D.diagonal(dim1=1, dim2=2).sum(-1) - 1) / 2)


def translation_error(t: Tensor, t_true: Tensor) -> Tensor:
    """Angle between two directions whose sign and length do not count.

    Args:
        t: (B, 3).
        t_true: (B, 3).

    Returns:
        (B,), radians in [0, pi / 2]; 0 where one of them is zero and has no direction.
    """
    return torch.atan2(_norm(torch.linalg.cross(t, t_true)), (t * t_true).sum(-1).abs())


def _normalised(points: Tensor, weights: Tensor) -> tuple[Tensor, Tensor]:
    """Points about the origin at a mean distance of sqrt(2), both weighted, and the (B, 3, 3) that took them there."""
    T = normalize_points(points, weights=weights)[1]
    T = torch.where(T.detach().abs().amax((1, 2), keepdim=True) < 1e6, T, torch.eye(3).to(T))  # all at one place
    return points * T[:, :1, :1] + T[:, None, :2, 2], T


def _residual(points0: Tensor, points1: Tensor, F: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """x1^T F x0 (B, N), the lines F x0 and the lines F^T x1 (B, N, 3)."""
    x0, x1 = (torch.cat((points, torch.ones_like(points[..., :1])), dim=-1) for points in (points0, points1))
    lines1, lines0 = x0 @ F.transpose(1, 2), x1 @ F
    return (x1 * lines1).sum(-1), lines1, lines0


def _in_front(rays0: Tensor, rays1: Tensor, R: Tensor, t: Tensor) -> Tensor:
    """Which (B, P, N) lie before both cameras: the signs of the depths in z1 x1 = z0 R x0 + t, without a division."""
    x0, x1 = (torch.cat((rays, torch.ones_like(rays[..., :1])), dim=-1) for rays in (rays0, rays1))
    x0, t = x0 @ R.transpose(-1, -2), t.unsqueeze(-2)
    normal = torch.linalg.cross(x1.expand_as(x0), x0)
    z0 = (torch.linalg.cross(t.expand_as(x0), x1.expand_as(x0)) * normal).sum(-1)
    z1 = (torch.linalg.cross(t.expand_as(x0), x0) * normal).sum(-1)
    before: Tensor = (z0 > 0) & (z1 > 0)
    return before


def _cofactors(M: Tensor) -> Tensor:
    """The matrices (B, 3, 3) of the cofactors."""
    a, b, c = M.unbind(1)
    return torch.stack((torch.linalg.cross(b, c), torch.linalg.cross(c, a), torch.linalg.cross(a, b)), dim=1)


def _nearest_rotation(M: Tensor) -> Tensor:
    """The polar factor of (B, 3, 3) by Newton's iteration (Higham, 1986), the identity where there is none."""
    regular = (torch.linalg.det(M.detach()).abs() > 1e-6)[:, None, None]
    R: Tensor = torch.where(regular, M, torch.eye(3).to(M))
    for _ in range(25):  # it halves what is large and doubles what is small, then converges quadratically
        R = (R + torch.linalg.inv(R).transpose(1, 2)) / 2
    return R


def _norm(vectors: Tensor) -> Tensor:
    """The length along the last dimension, whose derivative at zero is zero."""
    squared = vectors.square().sum(-1)
    return torch.where(squared > 0, torch.where(squared > 0, squared, 1).sqrt(), 0)


def _inverse(lengths: Tensor) -> Tensor:
    """1 / x, 0 where x is 0."""
    return torch.where(lengths > 0, 1 / torch.where(lengths > 0, lengths, 1), 0)


def _unit(values: Tensor, *, dims: tuple[int, ...] = (1,)) -> Tensor:
    """Scaled to unit length over the dimensions; zero stays zero."""
    squared = values.square().sum(dims, keepdim=True)
    return values * _inverse(torch.where(squared > 0, torch.where(squared > 0, squared, 1).sqrt(), 0))
