"""Losses of depth from two views: supervised by the number of the plane, or by what the other view shows. Unreduced."""

import torch
import torch.nn.functional as F
from kornia.losses import ssim_loss
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


def photometric_error(image: Tensor, warped: Tensor, *, structure: float = 0.85) -> Tensor:
    """How badly a view fits what the other view shows at the places found (Godard et al., CVPR 2017, eq. 2).

    Args:
        image: (B, C, H, W) in [0, 1].
        warped: the other view, read at those places.
        structure: weight of (1 - SSIM) / 2, over windows of 5×5 pixels; the rest is that of the absolute difference.

    Returns:
        (B, H, W) in [0, 1], the mean over the channels.
    """
    unlike: Tensor = ssim_loss(image, warped, window_size=5, reduction="none")
    return (structure * unlike + (1 - structure) * (image - warped).abs()).mean(1)


def slopes(inverse_depth: Tensor, image: Tensor) -> Tensor:
    """Change of the inverse depth from a pixel to the next ones, less where the image changes too.

    |∂x d| exp(-|∂x I|) + |∂y d| exp(-|∂y I|) (Godard et al., ICCV 2019, eq. 3, where d is divided by its mean), as
    `kornia.losses.inverse_depth_smoothness_loss` has it, which returns the mean alone.

    Args:
        inverse_depth: (B, H, W).
        image: (B, C, H, W) in [0, 1].

    Returns:
        (B, H, W), 0 at least; pixels of the last row and column have one neighbour or none.
    """
    found = torch.zeros_like(inverse_depth)
    for axis in (-1, -2):
        weight = (-image.diff(dim=axis).abs().mean(1)).exp()
        slope = inverse_depth.diff(dim=axis).abs() * weight
        found = found + F.pad(slope, (0, 1) if axis == -1 else (0, 0, 0, 1))
    return found
