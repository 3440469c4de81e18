"""Descriptor matching."""

import torch
from torch import Tensor

# of matches between two photographs: where the cosine is smaller, a mutual nearest neighbour is mostly chance
MIN_SIMILARITY = 0.6


def similarity(descriptors0: Tensor, descriptors1: Tensor, mask0: Tensor, mask1: Tensor) -> Tensor:
    """Inner products (B, N0, N1); -2, below any cosine, where a side is only padding.

    Args:
        descriptors0: (B, N0, D), unit length.
        descriptors1: (B, N1, D), unit length.
        mask0: (B, N0) bool, False where padded.
        mask1: (B, N1) bool, False where padded.
    """
    products = descriptors0 @ descriptors1.transpose(1, 2)
    return torch.where(mask0.unsqueeze(2) & mask1.unsqueeze(1), products, -2.0)


def mutual_nearest(products: Tensor, *, min_similarity: float = -1.0) -> tuple[Tensor, Tensor]:
    """Mutual nearest neighbours.

    Args:
        products: (B, N0, N1), as `similarity` gives them.
        min_similarity: pairs less similar than this stay unmatched; the default accepts every cosine.

    Returns:
        matches0: (B, N0) int64, for each row its column, -1 where unmatched.
        similarities: (B, N0), the product of the match, 0 where unmatched.
    """
    best, nearest1 = products.max(dim=2)
    nearest0 = products.argmax(dim=1)
    rows = torch.arange(products.shape[1], device=products.device)
    mutual = (nearest0.gather(1, nearest1) == rows) & (best >= min_similarity)
    return torch.where(mutual, nearest1, -1), torch.where(mutual, best, 0.0)
