"""The shape of XFeat (Potje et al., CVPR 2024): thin early layers, descriptors at an eighth, a detector of its own.

The widths and layers are those of the paper. The down-sampling convolutions have even kernels, so that maps lie where
their pixels say, and the normalisations are affine. The detector sees 8×8 blocks of the image and nothing else.
"""

from collections.abc import Sequence

import torch.nn.functional as F
from torch import Tensor, nn

from tiepoint.errors import InputError
from tiepoint.models.blocks import block, enlarge
from tiepoint.models.dense import DenseExtractor

_CELL = 8


class EighthExtractor(DenseExtractor):
    """Descriptors and reliability at H/8; the detector chooses one pixel of an 8×8 cell, or none.

    Args:
        widths: channels of the six stages, at H, H/2, H/4, H/8, H/16 and H/32.
        dim: length of the descriptors and channels of their head.
        detector: channels of the detector's head.
        branches: train the 3×3 convolutions from H/4 on as parallel branches, which `deployed` makes one.
        threshold: keypoints whose detection log-odds lie below are left out; the default keeps all local maxima.
        border: keypoints nearer than this to the image's edge, in pixels, are left out.

    Raises:
        InputError: `widths` has another length.
    """

    STRIDE = _CELL

    def __init__(
        self,
        widths: Sequence[int] = (4, 8, 24, 64, 64, 128),
        dim: int = 64,
        detector: int = 64,
        branches: bool = False,
        threshold: float = -20.0,
        border: int = 3,
    ) -> None:
        super().__init__(threshold=threshold, border=border)
        if len(widths) != 6:
            raise InputError(
                f"widths is {list(widths)}, expected 6 numbers: the channels at H, H/2, H/4, H/8, H/16 and H/32"
            )
        full, half, quarter, eighth, sixteenth, last = widths

        def down(inputs: int, outputs: int) -> nn.Module:
            return block(inputs, outputs, kernel=4, stride=2, branches=branches)

        def same(width: int) -> nn.Module:
            return block(width, width, branches=branches)

        # plain at the high resolutions, where branches would cost most of the training's time and memory
        self.early = nn.Sequential(
            block(1, full),
            block(full, half, kernel=4, stride=2),
            block(half, half),
            block(half, quarter, kernel=4, stride=2),
        )
        self.skip = nn.Conv2d(1, quarter, 1)
        self.quarter = nn.Sequential(same(quarter), same(quarter))
        self.eighth = nn.Sequential(down(quarter, eighth), same(eighth), block(eighth, dim, kernel=1))
        self.sixteenth = nn.Sequential(down(dim, sixteenth), same(sixteenth), block(sixteenth, dim, branches=branches))
        self.last = nn.Sequential(down(dim, last), same(last), same(last), block(last, dim, kernel=1))
        self.fuse = nn.Sequential(same(dim), same(dim), nn.Conv2d(dim, dim, 1))
        self.reliability = nn.Sequential(block(dim, dim, kernel=1), block(dim, dim, kernel=1), nn.Conv2d(dim, 1, 1))
        self.detector = nn.Sequential(
            block(_CELL * _CELL, detector, kernel=1),
            block(detector, detector, kernel=1),
            block(detector, detector, kernel=1),
            choice := nn.Conv2d(detector, _CELL * _CELL + 1, 1),
        )
        assert choice.bias is not None
        nn.init.zeros_(choice.bias)
        nn.init.constant_(choice.bias[-1:], 4.0)  # a keypoint is rare: start near the true rate

    def heads(self, grey: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """See `DenseExtractor.heads`."""
        choice = self.detector(F.pixel_unshuffle(grey, _CELL))
        odds = choice[:, :-1] - choice[:, -1:]  # against "none", which comes last
        quarter = self.quarter(self.early(grey) + self.skip(F.avg_pool2d(grey, 4)))
        eighth = self.eighth(quarter)
        sixteenth = self.sixteenth(eighth)
        last = self.last(sixteenth)
        descriptors = self.fuse(eighth + enlarge(sixteenth, 2) + enlarge(last, 4))
        return F.pixel_shuffle(odds, _CELL // 2), self.reliability(descriptors), descriptors
