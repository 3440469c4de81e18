"""A small feature pyramid: detector at full resolution, descriptors and reliability at a quarter of it.

The shape follows EdgePoint2 (Yao et al., 2025; early down-sampling, shuffled full-resolution detector) and
XFeat (Potje et al., CVPR 2024; a separate reliability), with a top-down sum as in feature pyramid networks
(Lin et al., CVPR 2017). Every operation exports to ONNX opset 18.
"""

from collections.abc import Sequence
from itertools import pairwise

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tiepoint.models.base import Extractor, Keypoints, Maps
from tiepoint.ops.keypoints import select_keypoints
from tiepoint.ops.sampling import sample

_STRIDE = 32  # of the deepest level: images are padded to a multiple of it


def _block(inputs: int, outputs: int, *, stride: int = 1, kernel: int = 3, groups: int = 1) -> nn.Sequential:
    padding = (kernel - stride) // 2 if kernel % 2 == 0 else kernel // 2
    return nn.Sequential(
        nn.Conv2d(inputs, outputs, kernel, stride, padding, groups=groups, bias=False),
        nn.BatchNorm2d(outputs),
        nn.ReLU(inplace=True),
    )


class PyramidExtractor(Extractor):
    """Detector, descriptor and reliability of one small pyramid.

    Args:
        widths: channels at H/2, H/4, H/8, H/16 and H/32.
        dim: length of the descriptors.
        head: channels of the detector's head, which runs at half the resolution.
        threshold: keypoints whose detection log-odds lie below are left out; the default keeps all local maxima.
        border: keypoints nearer than this to the image's edge, in pixels, are left out.
    """

    def __init__(
        self,
        widths: Sequence[int] = (16, 24, 64, 64, 64),
        dim: int = 64,
        head: int = 8,
        threshold: float = -20.0,
        border: int = 3,
    ) -> None:
        super().__init__()
        self.threshold, self.border = threshold, border
        half, quarter, *deep = widths
        # even kernels: a level's pixel is centred on the four that it stands for, as bilinear enlarging takes it to be
        self.stem = nn.Sequential(_block(1, half, stride=2, kernel=4), _block(half, half))
        channels = [half, quarter, *deep]
        self.stages = nn.ModuleList(
            nn.Sequential(_block(inputs, outputs, stride=2, kernel=4), _block(outputs, outputs))
            for inputs, outputs in pairwise(channels)
        )
        self.laterals = nn.ModuleList(nn.Conv2d(width, dim, 1) for width in widths[1:])
        self.fuse = nn.Sequential(_block(dim, dim, groups=4), nn.Conv2d(dim, dim, 1))
        self.reliability = nn.Sequential(_block(dim, dim // 2, kernel=1), nn.Conv2d(dim // 2, 1, 1))
        self.detector_taps = nn.ModuleList(nn.Conv2d(width, head, 1) for width in (half, dim, dim))
        self.detector = nn.Sequential(
            nn.BatchNorm2d(head),
            nn.ReLU(inplace=True),
            _block(head, head),
            _block(head, head),
            last := nn.Conv2d(head, 4, 3, padding=1),
        )
        assert last.bias is not None
        nn.init.constant_(last.bias, -4.0)  # a keypoint is rare: start near the true rate

    def maps(self, image: Tensor) -> Maps:
        """See `Extractor.maps`; H and W must be multiples of 32. Descriptors have stride 4."""
        detection, reliability, descriptors = self._heads(_standardise(_grey(image)))
        return Maps(F.pixel_shuffle(detection, 2), reliability, descriptors)

    def _heads(self, grey: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Detection log-odds before the shuffle (B, 4, H/2, W/2), reliability and descriptors at H/4."""
        half = self.stem(grey)
        levels, current = [], half
        for stage in self.stages:
            current = stage(current)
            levels.append(current)
        merged: list[Tensor] = []
        for level, lateral in zip(reversed(levels), reversed(self.laterals), strict=True):
            summed = lateral(level)
            if merged:
                summed = summed + _enlarge(merged[-1], 2)
            merged.append(summed)
        eighth, quarter = merged[-2], merged[-1]
        taps = [tap(x) for tap, x in zip(self.detector_taps, (half, quarter, eighth), strict=True)]
        detection = self.detector(taps[0] + _enlarge(taps[1], 2) + _enlarge(taps[2], 4))
        descriptors = self.fuse(quarter)
        return detection, self.reliability(descriptors), descriptors

    def forward(self, image: Tensor, max_keypoints: int = 2048) -> Keypoints:
        """See `Extractor.forward`; images of any size. An image without contrast has no keypoints."""
        grey = _grey(image)
        height, width = grey.shape[-2:]
        standard = _standardise(grey)
        right, bottom = (_up(width) - width, _up(height) - height)
        padded = F.pad(standard, (0, right, 0, bottom), mode="replicate")
        detection, reliability, descriptors = self._heads(padded)
        keypoints, odds = select_keypoints(
            detection,
            reliability,
            (height, width),
            max_keypoints,
            threshold=self.threshold,
            border=self.border,
        )
        mask = torch.isfinite(odds) & (standard.abs().amax((1, 2, 3)) > 0).unsqueeze(1)
        quarter = (keypoints - 1.5) / 4  # centre of a pixel at stride 4 is pixel 1.5 of the image
        sampled = F.normalize(sample(descriptors, quarter), dim=-1)
        scores = torch.where(mask, torch.sigmoid(odds), 0.0)
        return Keypoints(torch.where(mask.unsqueeze(-1), keypoints, 0.0), sampled, scores, mask)


def _enlarge(maps: Tensor, factor: int) -> Tensor:
    return F.interpolate(maps, scale_factor=float(factor), mode="bilinear", align_corners=False)


def _grey(image: Tensor) -> Tensor:
    return image.mean(1, keepdim=True) if image.shape[1] == 3 else image


def _standardise(grey: Tensor) -> Tensor:
    """Zero mean and unit deviation; exactly 0 for an image without contrast.

    The mean is taken over columns, then rows: in one sweep over 300,000 pixels ONNX Runtime loses three digits.
    """
    centred = grey - grey.mean(3, keepdim=True).mean(2, keepdim=True)
    variance = centred.square().mean(3, keepdim=True).mean(2, keepdim=True)
    # asked this way round, NaN stays NaN and is found out, where it would pass as a blank image
    return torch.where(variance <= 1e-6, torch.zeros_like(centred), centred * (variance + 1e-6).rsqrt())


def _up(size: int) -> int:
    return (size + _STRIDE - 1) // _STRIDE * _STRIDE
