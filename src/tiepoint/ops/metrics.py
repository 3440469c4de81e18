"""How good keypoints and matches are where the true correspondence is known. One value a pair."""

import torch
from torch import Tensor

from tiepoint.ops.supervision import warp_points


def _share(hits: Tensor, of: Tensor) -> Tensor:
    """Share of `of` that `hits` holds, along dimension 1; NaN where there is none."""
    return (hits & of).sum(1) / of.sum(1)


def right_matches(
    keypoints0: Tensor,
    keypoints1: Tensor,
    matches0: Tensor,
    warp_0to1: Tensor,
    covisible0: Tensor,
    *,
    radius: float = 3.0,
) -> tuple[Tensor, Tensor]:
    """Which matches are right, of those that can be judged: whose first keypoint the other view shows.

    Args:
        keypoints0: (B, N0, 2), pixels.
        keypoints1: (B, N1, 2), pixels.
        matches0: (B, N0) int64, for each keypoint of view 0 its partner in view 1, -1 for none.
        warp_0to1: (B, h, w, 2), pixels.
        covisible0: (B, h, w) bool.
        radius: largest distance of a right match from the true place, pixels.

    Returns:
        (B, N0) bool, right; and (B, N0) bool, judged.
    """
    true, seen = warp_points(keypoints0, warp_0to1, covisible0)
    partner = keypoints1.gather(1, matches0.clamp_min(0).unsqueeze(-1).expand(-1, -1, 2))
    judged = seen & (matches0 >= 0)
    return judged & ((partner - true).norm(dim=-1) <= radius), judged


def match_accuracy(right: Tensor, judged: Tensor) -> Tensor:
    """Share of the matches that are right.

    Args:
        right: (B, N0) bool, as from `right_matches`.
        judged: (B, N0) bool, likewise.

    Returns:
        (B,), in [0, 1]; NaN where a pair has no match that can be judged.
    """
    return _share(right, judged)


def repeatability(
    keypoints0: Tensor,
    keypoints1: Tensor,
    mask0: Tensor,
    mask1: Tensor,
    warp_0to1: Tensor,
    covisible0: Tensor,
    *,
    radius: float = 3.0,
) -> Tensor:
    """Share of view 0's keypoints, among those that view 1 shows, with a keypoint of view 1 at the same place.

    Mikolajczyk et al., IJCV 2005, with a distance instead of an overlap of regions.

    Args:
        keypoints0: (B, N0, 2), pixels.
        keypoints1: (B, N1, 2), pixels.
        mask0: (B, N0) bool, False where padded.
        mask1: (B, N1) bool, False where padded.
        warp_0to1: (B, h, w, 2), pixels.
        covisible0: (B, h, w) bool.
        radius: largest distance, pixels.

    Returns:
        (B,), in [0, 1]; NaN where view 1 shows none of them.
    """
    true, seen = warp_points(keypoints0, warp_0to1, covisible0)
    distance = torch.cdist(true, keypoints1).masked_fill(~mask1.unsqueeze(1), torch.inf)
    return _share(distance.amin(2) <= radius, seen & mask0)
