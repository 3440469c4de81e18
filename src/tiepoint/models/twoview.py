"""Two photographs in, tie points out: the graph that is exported and run."""

from typing import NamedTuple

import torch
from torch import Tensor, nn

from tiepoint.models.base import Extractor, Keypoints
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


class FeatureMatches(NamedTuple):
    """Which keypoints of two images match. The names are those of the ONNX outputs.

    Attributes:
        matches0: (B, K) int64, for each keypoint of image 0 its partner in image 1, -1 for none.
        scores: (B, K) in [0, 1], 0 where unmatched.
    """

    matches0: Tensor
    scores: Tensor


class ImageFeatures(nn.Module):
    """Pre-processing and extraction of one image as one graph.

    Args:
        extractor: finds and describes the keypoints.
    """

    def __init__(self, extractor: Extractor) -> None:
        super().__init__()
        self.extractor = extractor

    def forward(self, image: Tensor, max_keypoints: Tensor) -> Keypoints:
        """The keypoints of a batch of images.

        Args:
            image: (B, H, W, 3) uint8, RGB.
            max_keypoints: () int64, how many keypoints an image, K.
        """
        count = max_keypoints.item()
        torch._check(count >= 1)  # type: ignore[no-untyped-call]
        found: Keypoints = self.extractor(_to_float(image), count)
        return found


class FeatureMatcher(nn.Module):
    """Mutual nearest neighbours of features that are at hand, as one graph.

    Args:
        min_similarity: matches with a smaller cosine are dropped.
    """

    def __init__(self, min_similarity: float = MIN_SIMILARITY) -> None:
        super().__init__()
        self.min_similarity = min_similarity

    def forward(
        self,
        keypoints0: Tensor,
        descriptors0: Tensor,
        mask0: Tensor,
        size0: Tensor,
        keypoints1: Tensor,
        descriptors1: Tensor,
        mask1: Tensor,
        size1: Tensor,
    ) -> FeatureMatches:
        """Match the features of two batches of images; places and sizes are taken and play no part.

        Args:
            keypoints0: (B, K, 2), pixels of image 0.
            descriptors0: (B, K, D), unit length.
            mask0: (B, K) bool, False where padded.
            size0: (B, 2) int64, height and width of image 0.
            keypoints1: (B, K, 2), pixels of image 1.
            descriptors1: (B, K, D), unit length.
            mask1: (B, K) bool, False where padded.
            size1: (B, 2) int64, height and width of image 1.
        """
        described = descriptors0, descriptors1
        matches0, cosines = match_descriptors(*described, mask0, mask1, min_similarity=self.min_similarity)
        return FeatureMatches(matches0, cosines.clamp(0, 1))


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
