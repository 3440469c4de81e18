"""Losses of depth from two views: supervised by the number of the plane, or by what the other view shows. Unreduced."""

import torch
import torch.nn.functional as F
from torch import Tensor


def plane_likelihood(scores: Tensor, plane: Tensor) -> Tensor:
    """Cross-entropy of the planes with the two about the true place, weighted by their nearness.

    Its minimum is where the expectation over those two is the true place (the two-hot target of Bellemare et al., ICML
    2017, there for returns).

    Args:
        scores: (B, P, h, w), log-likelihoods up to a constant.
        plane: (B, h, w), the true number, fractional, in [0, P - 1].

    Returns:
        (B, h, w), 0 at least.
    """
    below = plane.floor().clamp(0, scores.shape[1] - 2)
    share = (plane - below).clamp(0, 1)
    logs = scores.log_softmax(1)
    left, right = (logs.gather(1, (below.long() + step).unsqueeze(1)).squeeze(1) for step in (0, 1))
    return -((1 - share) * left + share * right)


def picked(maps: Tensor, factor: int, row: int, column: int) -> Tensor:
    """One pixel of each cell: (B, H, W) to (B, H/factor, W/factor). A mean over an edge would be on neither surface."""
    return maps[:, row::factor, column::factor]


def confidence_loss(confidence: Tensor, error: Tensor, *, bound: float) -> Tensor:
    """Binary cross-entropy of log-odds (B, H, W) with whether the error is within the bound."""
    return F.binary_cross_entropy_with_logits(confidence, (error.detach() <= bound).to(confidence), reduction="none")


def mean_where(values: Tensor, mask: Tensor) -> Tensor:
    """The mean of values over a mask or weights of their shape; 0 where nothing is chosen."""
    weights = mask.to(values)
    return torch.where(weights > 0, values, 0.0).mul(weights).sum() / weights.sum().clamp_min(1.0)
