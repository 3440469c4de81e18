"""Which keypoints of two views truly match, and what an assignment that says otherwise costs."""

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from tiepoint.ops.assignment import Assignment
from tiepoint.ops.sampling import sample
from tiepoint.ops.supervision import warp_points


class TrueAssignment(NamedTuple):
    """Which keypoints of two views match; what is neither matched nor unmatchable is uncertain and teaches nothing.

    Attributes:
        matches0: (B, N0) int64, for each keypoint of view 0 its partner, -1 for none.
        unmatchable0: (B, N0) bool, keypoints of view 0 without a partner for sure.
        unmatchable1: (B, N1) bool, likewise of view 1.
    """

    matches0: Tensor
    unmatchable0: Tensor
    unmatchable1: Tensor


class AssignmentLosses(NamedTuple):
    """One value a keypoint, 0 where it has nothing to say.

    Attributes:
        matched: (B, N0), of the keypoints of view 0 with a partner.
        unmatchable0: (B, N0), of the keypoints of view 0 without one.
        unmatchable1: (B, N1), of the keypoints of view 1 without one.
    """

    matched: Tensor
    unmatchable0: Tensor
    unmatchable1: Tensor


def true_assignment(
    keypoints0: Tensor,
    keypoints1: Tensor,
    mask0: Tensor,
    mask1: Tensor,
    batch: dict[str, Tensor],
    *,
    radius: float = 3.0,
    stranger: float = 5.0,
) -> TrueAssignment:
    """Match keypoints by where they truly lie in the other view.

    Two keypoints match if each is the other's nearest and lies nearer than `radius` to its true place in *both*
    views. A keypoint is unmatchable if the other view does not show its place, or shows it without any keypoint
    nearer than `stranger`. At the edge of what both views show, the warp is uncertain, and so are the keypoints; so is
    what a batch of real pairs does not know (`known0`, `known1`: see `ops.depth`).

    Args:
        keypoints0: (B, N0, 2), pixels of view 0.
        keypoints1: (B, N1, 2), pixels of view 1.
        mask0: (B, N0) bool, False where padded.
        mask1: (B, N1) bool, False where padded.
        batch: with `warp_0to1`, `warp_1to0`, `covisible0`, `covisible1`; `known0` and `known1`, (B, h, w) bool, where
            not all is known.
        radius: largest error of a match, pixels.
        stranger: least distance of what is no match for sure, pixels.
    """
    forth, back = (batch["warp_0to1"], batch["covisible0"]), (batch["warp_1to0"], batch["covisible1"])
    hidden0, hidden1 = ~batch["covisible0"], ~batch["covisible1"]
    if "known0" in batch:
        hidden0, hidden1 = hidden0 & batch["known0"], hidden1 & batch["known1"]
    error0, alone0 = _errors(keypoints0, mask0, *forth, hidden0, keypoints1, mask1, stranger=stranger)
    error1, alone1 = _errors(keypoints1, mask1, *back, hidden1, keypoints0, mask0, stranger=stranger)
    error = torch.maximum(error0, error1.transpose(1, 2))
    least, nearest1 = error.min(2)
    rows = torch.arange(error.shape[1], device=error.device)
    mutual = (error.argmin(1).gather(1, nearest1) == rows) & (least < radius)
    return TrueAssignment(torch.where(mutual, nearest1, -1), alone0, alone1)


def _errors(
    keypoints: Tensor,
    mask: Tensor,
    warp: Tensor,
    covisible: Tensor,
    hidden: Tensor,
    others: Tensor,
    known: Tensor,
    *,
    stranger: float,
) -> tuple[Tensor, Tensor]:
    """Distances (B, N, M) of keypoints to those of the other view, there, and which (B, N) are unmatchable for sure.

    The distance is infinite where a side is padded or the other view does not surely show the place.
    """
    moved, seen = warp_points(keypoints, warp, covisible)
    # not by the expanded square, which loses the digits that are in question here
    distance = torch.cdist(moved, others, compute_mode="donot_use_mm_for_euclid_dist")
    distance = torch.where(seen.unsqueeze(2) & mask.unsqueeze(2) & known.unsqueeze(1), distance, torch.inf)
    unseen = sample(hidden.unsqueeze(1).float(), keypoints).squeeze(-1) > 0.99
    return distance, mask & (unseen | (seen & (distance.amin(2) > stranger)))


def assignment_losses(assignment: Assignment, truth: TrueAssignment) -> AssignmentLosses:
    """Negative log-likelihood of the true assignment (Lindenberger et al., "LightGlue", ICCV 2023, eq. 10).

    -log P_ij of every true match, and -log (1 - σ_i) of every keypoint without a partner. The paper averages the
    matches, and over the two views the mean of the others: the task's affair.

    Args:
        assignment: of B pairs.
        truth: of the same keypoints.
    """
    similarity, odds0, odds1 = assignment
    partner = truth.matches0.clamp_min(0)
    # the entries of `log_assignment` that count, without the matrix of all others
    chosen = similarity.gather(2, partner.unsqueeze(2)).squeeze(2)
    rows = F.logsigmoid(odds0) - similarity.logsumexp(2)
    columns = F.logsigmoid(odds1) - similarity.logsumexp(1)
    logs = 2 * chosen + rows + columns.gather(1, partner)
    return AssignmentLosses(
        torch.where(truth.matches0 >= 0, -logs, 0.0),
        torch.where(truth.unmatchable0, F.softplus(odds0), 0.0),
        torch.where(truth.unmatchable1, F.softplus(odds1), 0.0),
    )
