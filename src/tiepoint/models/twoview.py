"""Two photographs in, tie points out: the graph that is exported and run."""

from typing import NamedTuple

import torch
from torch import Tensor, nn

from tiepoint.models.base import Extractor
from tiepoint.ops.matching import MIN_SIMILARITY, match_descriptors


class TwoViewMatches(NamedTuple):
    """Padded keypoints of both images and which of them match. The names are those of the ONNX outputs.

    Attributes:
        keypoints0: (B, K, 2), pixels (x, y) of image 0, best first.
        keypoints1: (B, K, 2), pixels (x, y) of image 1, best first.
        keypoint_scores0: (B, K) in [0, 1], 0 where padded.
        keypoint_scores1: (B, K) in [0, 1], 0 where padded.
        matches0: (B, K) int64, for each keypoint of image 0 its partner in image 1, -1 for none.
        scores: (B, K) in [0, 1], the cosine of the match, 0 where unmatched.
    """

    keypoints0: Tensor
    keypoints1: Tensor
    keypoint_scores0: Tensor
    keypoint_scores1: Tensor
    matches0: Tensor
    scores: Tensor


class TwoViewMatcher(nn.Module):
    """Pre-processing, extraction of both images and mutual matching as one graph.

    Args:
        extractor: finds and describes the keypoints.
        min_similarity: matches with a smaller cosine are dropped.
    """

    def __init__(self, extractor: Extractor, min_similarity: float = MIN_SIMILARITY) -> None:
        super().__init__()
        self.extractor, self.min_similarity = extractor, min_similarity

    def forward(self, image0: Tensor, image1: Tensor, max_keypoints: Tensor) -> TwoViewMatches:
        """Match two batches of images.

        Args:
            image0: (B, H0, W0, 3) uint8, RGB.
            image1: (B, H1, W1, 3) uint8, RGB.
            max_keypoints: () int64, how many keypoints an image, K.
        """
        count = max_keypoints.item()
        torch._check(count >= 1)  # type: ignore[no-untyped-call]
        features0 = self.extractor(_to_float(image0), count)
        features1 = self.extractor(_to_float(image1), count)
        matches0, cosines = match_descriptors(
            features0.descriptors,
            features1.descriptors,
            features0.mask,
            features1.mask,
            min_similarity=self.min_similarity,
        )
        return TwoViewMatches(
            features0.keypoints,
            features1.keypoints,
            features0.scores,
            features1.scores,
            matches0,
            cosines.clamp(0, 1),
        )


def _to_float(image: Tensor) -> Tensor:
    return image.permute(0, 3, 1, 2).float() / 255
