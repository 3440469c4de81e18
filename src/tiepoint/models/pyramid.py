"""A small feature pyramid: detector at full resolution, descriptors and reliability at a quarter of it.

The shape follows EdgePoint2 (Yao et al., 2025; early down-sampling, shuffled full-resolution detector) and
XFeat (Potje et al., CVPR 2024; a separate reliability), with a top-down sum as in feature pyramid networks
(Lin et al., CVPR 2017). Every operation exports to ONNX opset 18.
"""

from collections.abc import Sequence
from functools import partial
from itertools import pairwise
from typing import Any, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tiepoint.models.blocks import block, enlarge
from tiepoint.models.dense import DenseExtractor


class PyramidExtractor(DenseExtractor):
    """Detector, descriptor and reliability of one small pyramid.

    Args:
        widths: channels at H/2, H/4, H/8, H/16 and H/32.
        dim: length of the descriptors.
        head: channels of the detector's head, which runs at half the resolution.
        threshold: keypoints whose detection log-odds lie below are left out; the default keeps all local maxima.
        border: keypoints nearer than this to the image's edge, in pixels, are left out.
        branches: train the 3×3 and 4×4 convolutions as parallel branches, which `deployed` makes one.
    """

    STRIDE = 4

    def __init__(
        self,
        widths: Sequence[int] = (16, 24, 48, 96, 128),
        dim: int = 64,
        head: int = 8,
        threshold: float = -20.0,
        border: int = 3,
        branches: bool = False,
    ) -> None:
        super().__init__(threshold=threshold, border=border)
        half, quarter, *deep = widths
        # even kernels: a level's pixel is centred on the four that it stands for, as bilinear enlarging takes it to be
        self.stem = nn.Sequential(block(1, half, stride=2, kernel=4), block(half, half, branches=branches))
        channels = [half, quarter, *deep]
        down = partial(block, stride=2, kernel=4, branches=branches)
        self.stages = nn.ModuleList(
            nn.Sequential(down(inputs, outputs), block(outputs, outputs, branches=branches))
            for inputs, outputs in pairwise(channels)
        )
        self.laterals = nn.ModuleList(nn.Conv2d(width, dim, 1) for width in widths[1:])
        self.fuse = nn.Sequential(block(dim, dim, groups=4, branches=branches), nn.Conv2d(dim, dim, 1))
        self.reliability = nn.Sequential(block(dim, dim // 2, kernel=1), nn.Conv2d(dim // 2, 1, 1))
        self.detector_taps = nn.ModuleList(nn.Conv2d(width, head, 1) for width in (half, dim, dim))
        self.detector = nn.Sequential(
            nn.BatchNorm2d(head),
            nn.ReLU(inplace=True),
            block(head, head, branches=branches),
            block(head, head, branches=branches),
            last := nn.Conv2d(head, 4, 3, padding=1),
        )
        assert last.bias is not None
        nn.init.constant_(last.bias, -4.0)  # a keypoint is rare: start near the true rate
        self._composed = False

    def heads(self, grey: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """See `DenseExtractor.heads`."""
        half = self.stem(grey)
        levels, current = [], half
        for stage in self.stages:
            current = stage(current)
            levels.append(current)
        merged: list[Tensor] = []
        for level, lateral in zip(reversed(levels), reversed(self.laterals), strict=True):
            summed = lateral(level)
            if merged:
                summed = summed + enlarge(merged[-1], 2)
            merged.append(summed)
        eighth, quarter = merged[-2], merged[-1]
        taps = [tap(x) for tap, x in zip(self.detector_taps, (half, quarter, eighth), strict=True)]
        # the first tap last: runtimes add to what a convolution writes while they write it
        detection = self.detector(taps[0] + (enlarge(taps[1], 2) + enlarge(taps[2], 4)))
        features = self.fuse[0](quarter) if self._composed else self.fuse(quarter)
        return detection, self.reliability(features), features

    def to_descriptors(self, features: Tensor) -> Tensor:
        """See `DenseExtractor.to_descriptors`: the last 1×1 convolution, where `heads` has left it out."""
        last = cast(nn.Conv2d, self.fuse[1])
        return F.linear(features, last.weight.flatten(1), last.bias) if self._composed else features

    @torch.no_grad()
    def compose(self) -> None:
        """See `Network.compose`: the descriptors' last layer goes to the places chosen, the rest into its neighbours.

        The reliability reads the features before that layer, by the product of both 1×1 convolutions; the detector's
        first normalisation goes into the taps whose sum it sees.
        """
        if self._composed:
            return
        self._composed = True
        last, first = cast(Any, self.fuse[1]), cast(Any, self.reliability.get_submodule("0.0"))
        norm = cast(Any, self.detector[0])
        kernel = first.weight.double().flatten(1)
        first.bias.copy_(first.bias.double() + kernel @ last.bias.double())
        first.weight.copy_((kernel @ last.weight.double().flatten(1)).view_as(first.weight))
        scale = norm.weight.double() * (norm.running_var.double() + norm.eps).rsqrt()
        taps = cast(Sequence[Any], self.detector_taps)
        for tap in taps:
            tap.weight.mul_(scale.view(-1, 1, 1, 1))
            tap.bias.mul_(scale)
        taps[0].bias.add_(norm.bias.double() - norm.running_mean.double() * scale)
        self.detector[0] = nn.Identity()
