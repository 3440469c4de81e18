"""How wrong the camera motion is that weighted matches lead to: from a soft assignment through the solver to angles."""

from typing import NamedTuple

import torch
from torch import Tensor

from tiepoint.ops.assignment import Assignment, log_assignment
from tiepoint.ops.epipolar import pose_from_essential, rotation_error, translation_error, weighted_eight_point

LEAST = 8  # matches for the 8-point algorithm
_FAINT = 1e-3  # a weight below is none


class WeightedMatches(NamedTuple):
    """Keypoints of view 0 with their likeliest partners.

    Attributes:
        points0: (B, N, 2), pixels.
        points1: (B, N, 2), pixels.
        weights: (B, N) in [0, 1], the probability of the match; 0 where the partner prefers another one.
    """

    points0: Tensor
    points1: Tensor
    weights: Tensor


def weighted_matches(keypoints0: Tensor, keypoints1: Tensor, assignment: Assignment) -> WeightedMatches:
    """The mutual best matches of a soft assignment; who is matched has no derivative, how surely has.

    Args:
        keypoints0: (B, N0, 2), pixels.
        keypoints1: (B, N1, 2), pixels.
        assignment: of all of them to each other.
    """
    logarithms = log_assignment(assignment)
    best, partner = logarithms.max(2)
    rows = torch.arange(partner.shape[1], device=partner.device)
    mutual = logarithms.argmax(1).gather(1, partner) == rows
    points1 = keypoints1.gather(1, partner.unsqueeze(2).expand(-1, -1, 2))
    return WeightedMatches(keypoints0, points1, best.exp() * mutual)


def pose_loss(matches: WeightedMatches, K0: Tensor, K1: Tensor, T_0to1: Tensor) -> tuple[Tensor, Tensor]:
    """The errors of rotation and of the translation's direction by the weighted 8-point algorithm.

    After Ranftl and Koltun, "Deep fundamental matrix estimation", ECCV 2018, and Brachmann and Rother, "Neural-guided
    RANSAC", ICCV 2019, whose loss is the larger one of both angles; here their sum, so that both are taught at once.

    Args:
        matches: of B pairs.
        K0: (B, 3, 3), intrinsics.
        K1: (B, 3, 3).
        T_0to1: (B, 4, 4), camera 0 to camera 1.

    Returns:
        (B,) radians, in [0, 3 pi / 2]; and (B,) bool, where there are enough matches to say anything.
    """
    rays0, rays1 = _rays(matches.points0, K0), _rays(matches.points1, K1)
    enough = (matches.weights > _FAINT).sum(1) >= LEAST
    # without matches the solver's answer means nothing; its gradient would be lost in what follows
    weights = torch.where(enough.unsqueeze(1), matches.weights, torch.ones_like(matches.weights))
    E = weighted_eight_point(rays0, rays1, weights)
    pose = pose_from_essential(E, rays0, rays1, weights)
    true = T_0to1[:, :3, :3], T_0to1[:, :3, 3]
    errors = rotation_error(pose.rotation, true[0]) + translation_error(pose.translation, true[1])
    return torch.where(enough, errors, 0.0), enough


def _rays(points: Tensor, K: Tensor) -> Tensor:
    homogeneous = torch.cat((points, torch.ones_like(points[..., :1])), -1)
    rays: Tensor = homogeneous @ torch.linalg.inv(K).transpose(1, 2)
    return rays[..., :2]
