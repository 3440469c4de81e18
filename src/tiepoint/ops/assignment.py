"""The soft assignment of two sets of keypoints: who matches whom, and who matches nobody.

Lindenberger et al., "LightGlue: Local feature matching at light speed", ICCV 2023, section 3.2.
"""

import math
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from tiepoint.ops.matching import mutual_nearest

# the logit of what is only padding: no float32 tells its exponential from 0, and half precision can still hold it
PADDED = -1e4


class Assignment(NamedTuple):
    """What a matcher thinks of the keypoints of two views.

    Attributes:
        similarity: (B, N0, N1), logits; `PADDED` or less where a side is only padding.
        odds0: (B, N0), log-odds that a keypoint of view 0 has a partner; `PADDED` where there is only padding.
        odds1: (B, N1), likewise of view 1.
    """

    similarity: Tensor
    odds0: Tensor
    odds1: Tensor


def log_assignment(assignment: Assignment) -> Tensor:
    """The logarithm of the probability that two keypoints match (eq. 7–8).

    Both must be matchable and choose each other: P_ij = σ_i · σ_j · softmax over j · softmax over i.

    Returns:
        (B, N0, N1), 0 or less.
    """
    similarity, odds0, odds1 = assignment
    # twice the similarity and what belongs to a row or a column alone: two sweeps over the matrix instead of six
    sums0, sums1 = _log_sums(similarity)
    rows, columns = F.logsigmoid(odds0) - sums0, F.logsigmoid(odds1) - sums1
    return 2 * similarity + rows.unsqueeze(2) + columns.unsqueeze(1)


def _log_sums(similarity: Tensor) -> tuple[Tensor, Tensor]:
    """Logarithms of the sums of exponentials along the rows (B, N0) and down the columns (B, N1).

    One exponential an entry serves both, and the columns are summed by a product with a vector: a third of the time
    of two `logsumexp` in ONNX Runtime. A column whose entries all lie 87 or more below the largest of the matrix
    comes out as if they lay at 87, and its matches less probable than they are.
    """
    top = similarity.amax(2, keepdim=True)
    shares = (similarity - top).exp()
    highest = top.amax(1, keepdim=True)
    columns = ((top - highest).exp().transpose(1, 2) @ shares).clamp_min(torch.finfo(similarity.dtype).tiny)
    return (top + shares.sum(2, keepdim=True).log()).squeeze(2), (highest + columns.log()).squeeze(1)


def mutual_assignment(assignment: Assignment, *, min_score: float, block: int = 1) -> tuple[Tensor, Tensor]:
    """Pairs that are each other's most probable partner.

    Args:
        assignment: of B pairs of views.
        min_score: matches less probable than this are dropped; in [0, 1].
        block: as for `mutual_nearest`.

    Returns:
        matches0: (B, N0) int64, for each keypoint of view 0 its partner, -1 for none.
        scores: (B, N0) in [0, 1], the probability of the match, 0 where unmatched.
    """
    # above what padding reaches, whatever is asked for
    least = math.log(max(min_score, 1e-12))
    matches0, logs = mutual_nearest(log_assignment(assignment), min_similarity=least, block=block)
    return matches0, torch.where(matches0 >= 0, logs.exp(), 0.0)
