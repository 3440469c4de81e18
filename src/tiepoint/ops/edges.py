"""Edges: what a map of them is taught, and how it is thinned."""

import torch
import torch.nn.functional as F
from kornia.filters import gaussian_blur2d, spatial_gradient
from torch import Tensor

from tiepoint.ops.sampling import pixel_grid, warp_image


def edge_cross_entropy(logits: Tensor, consensus: Tensor, *, agreed: float = 0.3, balance: float = 1.1) -> Tensor:
    """Cross-entropy where most annotators agree, edges and the rest weighing about the same.

    Liu et al., "Richer convolutional features for edge detection" (CVPR 2017), eq. 1: a pixel is an edge where more
    than a share of the annotators says so, none where nobody does, and says nothing in between. Edges weigh as much
    as there are others among the pixels of their image, the others `balance` times as much as there are edges.

    Args:
        logits: (B, 1, H, W), log-odds of an edge.
        consensus: (B, 1, H, W) in [0, 1], the share of the annotators who drew one there.
        agreed: how many must agree.
        balance: above 1 edges weigh less: maps become thinner.

    Returns:
        (B, 1, H, W), weighted; 0 where nothing is said.
    """
    edge, none = consensus > agreed, consensus <= 0
    edges, others = (each.sum((1, 2, 3), keepdim=True) for each in (edge, none))
    total = (edges + others).clamp_min(1)
    weights = torch.where(edge, others / total, torch.where(none, balance * edges / total, 0.0))
    return weights * F.binary_cross_entropy_with_logits(logits.float(), edge.float(), reduction="none")


def thin_edges(probability: Tensor, *, sigma: float = 1.5, slack: float = 1.01) -> Tensor:
    """Ridges of one pixel's width: what is not highest across the edge becomes 0.

    Canny's non-maximum suppression (TPAMI 1986) on a map of edges, as in Dollár and Zitnick's structured forests
    (TPAMI 2015, section 4.2): across is where the smoothed map curves most, the eigenvector of its Hessian. On the
    flanks of a ridge it curves up most across, too, and downwards along it, where all is equal and all would stay.

    Args:
        probability: (B, 1, H, W) in [0, 1].
        sigma: of the smoothing, pixels.
        slack: neighbours must be this much higher to suppress a pixel, so that plateaus survive.

    Returns:
        (B, 1, H, W).
    """
    size = 2 * int(3 * sigma + 0.5) + 1
    smooth = gaussian_blur2d(probability, (size, size), (sigma, sigma), border_type="replicate")
    xx, xy, yy = spatial_gradient(smooth, mode="sobel", order=2).squeeze(1).unbind(1)
    across = _most_curved(xx, xy, yy)
    grid = pixel_grid(*probability.shape[-2:], device=probability.device)
    beside = [warp_image(probability, grid + sign * across) for sign in (-1.0, 1.0)]
    highest = torch.maximum(*beside)
    return torch.where(slack * probability >= highest, probability, 0.0)


def _most_curved(xx: Tensor, xy: Tensor, yy: Tensor) -> Tensor:
    """Unit eigenvectors (B, H, W, 2) of the eigenvalue of [[xx, xy], [xy, yy]], each (B, H, W), farther from 0."""
    half = (xx - yy) / 2
    root = (half.square() + xy.square() + 1e-16).sqrt()
    root = torch.where(xx + yy > 0, root, -root)
    # of the two forms of the vector the one that does not vanish
    one = torch.stack((half + root, xy), dim=-1)
    other = torch.stack((xy, root - half), dim=-1)
    return F.normalize(torch.where((half * root > 0).unsqueeze(-1), one, other), dim=-1)
