"""Homography AUC over the pairs of an epoch."""

import numpy as np
from torch import Tensor

from tiepoint.evaluation.metrics import auc, homography_corner_error
from tiepoint.geometry import estimate
from tiepoint.types import Float32, Matches

THRESHOLDS = (1, 3, 5)  # pixels


def to_matches(
    keypoints0: Tensor, keypoints1: Tensor, matches0: Tensor, similarities: Tensor, *sizes: tuple[int, int]
) -> Matches:
    """One pair's padded tensors as `Matches`.

    Args:
        keypoints0: (K, 2), pixels.
        keypoints1: (K, 2), pixels.
        matches0: (K,) int64, -1 where unmatched.
        similarities: (K,), cosines.
        sizes: (height, width) of both images.
    """
    chosen = matches0 >= 0
    scores = similarities[chosen].float().clamp(0, 1)
    order = scores.argsort(descending=True)
    points0, points1 = keypoints0[chosen][order], keypoints1[matches0[chosen]][order]
    return Matches(_array(points0), _array(points1), _array(scores[order]), *sizes)


def _array(tensor: Tensor) -> Float32:
    array: Float32 = tensor.float().cpu().numpy()
    return array


class HomographyScores:
    """Collects the corner errors of planar pairs and sums them up as AUC.

    The estimator is `tiepoint.estimate` (poselib, seed 0) at a threshold of 2 px.
    """

    def __init__(self) -> None:
        self._errors: list[float] = []

    def update(
        self,
        keypoints0: Tensor,
        keypoints1: Tensor,
        matches0: Tensor,
        similarities: Tensor,
        batch: dict[str, Tensor],
    ) -> None:
        """Estimate the homography of every pair of a batch that has a true one in `H_0to1`."""
        if "H_0to1" not in batch:
            return
        sizes = [(int(image.shape[-2]), int(image.shape[-1])) for image in (batch["image0"], batch["image1"])]
        for index, true in enumerate(batch["H_0to1"].double().cpu().numpy()):
            pair = (keypoints0[index], keypoints1[index], matches0[index], similarities[index])
            geometry = estimate(to_matches(*pair, *sizes), "homography", threshold=2.0)
            self._errors.append(homography_corner_error(geometry.matrix, true, sizes[0]))

    def compute(self) -> dict[str, float]:
        """`homography_auc@t` for each threshold, and start anew."""
        errors, self._errors = np.array(self._errors), []
        if not len(errors):
            return {}
        areas = auc(errors, THRESHOLDS)
        return {f"homography_auc@{t}": float(area) for t, area in zip(THRESHOLDS, areas, strict=True)}
