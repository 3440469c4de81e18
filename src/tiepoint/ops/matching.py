"""Descriptor matching."""

import torch
import torch.nn.functional as F
from torch import Tensor

# of matches between two photographs: where the cosine is smaller, a mutual nearest neighbour is mostly chance
MIN_SIMILARITY = 0.6
_BLOCK = 16  # rows and columns of the products that are searched at once; measured


def match_descriptors(
    descriptors0: Tensor, descriptors1: Tensor, mask0: Tensor, mask1: Tensor, *, min_similarity: float = -1.0
) -> tuple[Tensor, Tensor]:
    """Mutual nearest neighbours of two sets of descriptors, `mutual_nearest` of their `similarity` at its fastest.

    Args:
        descriptors0: (B, N0, D), unit length.
        descriptors1: (B, N1, D), unit length.
        mask0: (B, N0) bool, False where padded.
        mask1: (B, N1) bool, False where padded.
        min_similarity: pairs less similar than this stay unmatched; the default accepts every cosine.

    Returns:
        matches0: (B, N0) int64, for each descriptor of set 0 its partner in set 1, -1 where unmatched.
        similarities: (B, N0), the cosine of the match, 0 where unmatched.
    """
    padded = (*_to_blocks(descriptors0, mask0), *_to_blocks(descriptors1, mask1))
    if min_similarity > 0:  # padding may then be as similar to everything as 0 says: it is nobody's match
        left, right = (each * mask.unsqueeze(2) for each, mask in (padded[:2], padded[2:]))
        products = left @ right.transpose(1, 2)
    else:
        products = similarity(padded[0], padded[2], padded[1], padded[3])
    matches0, similarities = mutual_nearest(products, min_similarity=min_similarity, block=_BLOCK)
    count = mask0.shape[1]
    return matches0[:, :count], similarities[:, :count]


def _to_blocks(descriptors: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
    """The same with padding at the end, up to whole blocks."""
    count = mask.shape[1]
    missing = (count + _BLOCK - 1) // _BLOCK * _BLOCK - count
    return F.pad(descriptors, (0, 0, 0, missing)), F.pad(mask, (0, missing))


def similarity(descriptors0: Tensor, descriptors1: Tensor, mask0: Tensor, mask1: Tensor) -> Tensor:
    """Inner products (B, N0, N1); -2 or less, below any cosine, where a side is only padding.

    Args:
        descriptors0: (B, N0, D), unit length.
        descriptors1: (B, N1, D), unit length.
        mask0: (B, N0) bool, False where padded.
        mask1: (B, N1) bool, False where padded.
    """
    # the masks travel as two more entries of every descriptor: to mask the products takes as long as they themselves
    padding0, padding1 = (torch.where(mask, 0.0, -2.0).unsqueeze(2).to(descriptors0) for mask in (mask0, mask1))
    ones0, ones1 = torch.ones_like(padding0), torch.ones_like(padding1)
    left = torch.cat((descriptors0 * mask0.unsqueeze(2), padding0, ones0), dim=2)
    right = torch.cat((descriptors1 * mask1.unsqueeze(2), ones1, padding1), dim=2)
    return left @ right.transpose(1, 2)


def mutual_nearest(products: Tensor, *, min_similarity: float = -1.0, block: int = 1) -> tuple[Tensor, Tensor]:
    """Mutual nearest neighbours.

    Args:
        products: (B, N0, N1), as `similarity` gives them.
        min_similarity: pairs less similar than this stay unmatched; the default accepts every cosine.
        block: rows and columns that are searched at once, a divisor of N0 and N1; it changes the time alone.

    Returns:
        matches0: (B, N0) int64, for each row its column, -1 where unmatched; no column is given twice.
        similarities: (B, N0), the product of the match, 0 where unmatched.
    """
    best, nearest1 = _row_maxima(products, block)
    # no row is nearer to the column
    columns = products.shape[2]
    mutual = (best >= _column_maxima(products, block).gather(1, nearest1)) & (best >= min_similarity)
    mutual = mutual & _first_claims(nearest1, mutual, columns)
    return torch.where(mutual, nearest1, -1), torch.where(mutual, best, 0.0)


def _column_maxima(products: Tensor, block: int) -> Tensor:
    """Of each column (B, N1): of blocks of rows, then of blocks of those; of one long axis runtimes are slow."""
    batch, rows, columns = products.shape
    first = products.reshape(batch, -1, block, columns).amax(2)
    groups = rows // block
    missing = (groups + _BLOCK - 1) // _BLOCK * _BLOCK - groups
    filled = F.pad(first, (0, 0, 0, missing), value=-torch.inf)
    return filled.reshape(batch, -1, _BLOCK, columns).amax(2).amax(1)


def _row_maxima(products: Tensor, block: int) -> tuple[Tensor, Tensor]:
    """Of each row the maximum and its first column: first among the blocks' maxima, then within one block."""
    blocks = products.reshape(*products.shape[:2], -1, block)
    best, chosen = blocks.amax(3).max(2)
    table = blocks.flatten(0, 2)
    rows = torch.arange(chosen.numel(), device=products.device).view_as(chosen)
    inside = table.index_select(0, (rows * blocks.shape[2] + chosen).flatten()).argmax(1).view_as(chosen)
    return best, chosen * block + inside


def _first_claims(columns: Tensor, claims: Tensor, count: int) -> Tensor:
    """Of the rows that claim one column, all equally near, the first; (B, N0) bool."""
    rows = torch.arange(columns.shape[1], device=columns.device).expand_as(columns)
    ranks = torch.where(claims, rows, columns.shape[1])
    first = ranks.new_full((columns.shape[0], count), columns.shape[1]).scatter_reduce(1, columns, ranks, "amin")
    return first.gather(1, columns) == rows
