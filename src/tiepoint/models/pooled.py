"""The shape of EdgePoint2 (Yao et al., 2025): most of the work at half the resolution, average pooling in between.

Features at H/2, H/8 and H/32; a detector whose 2×2 pixels a block are shuffled to full resolution; descriptors at H/4.
A reliability is added, which the paper has not: all networks here are trained with one.
"""

from collections.abc import Sequence

import torch.nn.functional as F
from torch import Tensor, nn

from tiepoint.errors import InputError
from tiepoint.models.blocks import Residual, block, enlarge
from tiepoint.models.dense import DenseExtractor


class PooledExtractor(DenseExtractor):
    """Descriptors and reliability at H/4, detector at H/2 with four pixels each.

    Args:
        widths: channels of the stem, and at H/2, H/8 and H/32; the default is about the paper's E64.
        dim: length of the descriptors.
        head: channels of the detector's head, which runs at half the resolution.
        groups: of the descriptors' 3×3 convolution.
        branches: train the 3×3 convolutions as parallel branches, which `deployed` makes one.
        threshold: keypoints whose detection log-odds lie below are left out; the default keeps all local maxima.
        border: keypoints nearer than this to the image's edge, in pixels, are left out.

    Raises:
        InputError: `widths` has another length.
    """

    STRIDE = 4

    def __init__(
        self,
        widths: Sequence[int] = (16, 24, 64, 64),
        dim: int = 64,
        head: int = 8,
        groups: int = 4,
        branches: bool = False,
        threshold: float = -20.0,
        border: int = 3,
    ) -> None:
        super().__init__(threshold=threshold, border=border)
        if len(widths) != 4:
            raise InputError(
                f"widths is {list(widths)}, expected 4 numbers: the channels of the stem, and at H/2, H/8 and H/32"
            )
        stem, half, eighth, last = widths
        self.stem = nn.Sequential(
            block(1, stem, kernel=4, stride=2),
            block(stem, half, branches=branches),
            Residual(half, half, branches=branches),
        )
        self.eighth = Residual(half, eighth, branches=branches)
        self.last = Residual(eighth, last, branches=branches)
        self.taps = nn.ModuleList(nn.Conv2d(width, dim, 1, bias=False) for width in widths[1:])
        self.describe = nn.Sequential(
            nn.BatchNorm2d(dim),
            nn.ReLU(inplace=True),
            block(dim, dim, groups=groups, branches=branches),
            nn.Conv2d(dim, dim, 1),
        )
        self.reliability = nn.Sequential(block(dim, dim // 2, kernel=1), nn.Conv2d(dim // 2, 1, 1))
        self.detector_taps = nn.ModuleList(nn.Conv2d(width, head, 1, bias=False) for width in widths[1:])
        self.detector = nn.Sequential(
            nn.BatchNorm2d(head),
            nn.ReLU(inplace=True),
            block(head, head, branches=branches),
            block(head, head, branches=branches),
            odds := nn.Conv2d(head, 4, 3, padding=1),
        )
        assert odds.bias is not None
        nn.init.constant_(odds.bias, -4.0)  # a keypoint is rare: start near the true rate

    def heads(self, grey: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """See `DenseExtractor.heads`."""
        half = self.stem(grey)
        eighth = self.eighth(F.avg_pool2d(half, 4))
        last = self.last(F.avg_pool2d(eighth, 4))
        levels = half, eighth, last
        # a 1×1 convolution of concatenated maps is a sum of three; each runs where its level is, not enlarged
        seen = [tap(level) for tap, level in zip(self.detector_taps, levels, strict=True)]
        detection = self.detector(seen[0] + enlarge(seen[1], 4) + enlarge(seen[2], 16))
        told = [tap(level) for tap, level in zip(self.taps, (F.avg_pool2d(half, 2), eighth, last), strict=True)]
        descriptors = self.describe(told[0] + enlarge(told[1], 2) + enlarge(told[2], 8))
        return detection, self.reliability(descriptors), descriptors
