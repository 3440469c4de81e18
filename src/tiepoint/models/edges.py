"""A small network that marks edges: a pyramid with an output at every level."""

from collections.abc import Sequence
from itertools import pairwise

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tiepoint.models.blocks import Residual, block, enlarge
from tiepoint.models.image import ImageNetwork, padded

_MEAN, _SPREAD = 0.45, 0.25  # of the values of photographs


class EdgeNetwork(ImageNetwork):
    """Images in, the probability of an edge at every pixel out.

    Outputs at every level, each supervised by itself and all together (Xie and Tu, "Holistically-nested edge
    detection", ICCV 2015), on a top-down pyramid (Lin et al., CVPR 2017); the last one tells the four pixels of each
    place of the finest level apart. Convolutions at full resolution took 40 % of the time, and found no more.

    Args:
        widths: channels at H/2, H/4 and so on.
        dim: channels of the top-down pyramid, half as many at its finest level.
    """

    OUTPUT = "probability"

    def __init__(self, widths: Sequence[int] = (16, 48, 64, 64, 48), dim: int = 32) -> None:
        super().__init__()
        self.multiple = 2 ** len(widths)
        self.stem = nn.Sequential(block(3, widths[0], stride=2, kernel=4), Residual(widths[0], widths[0]))
        self.stages = nn.ModuleList(
            nn.Sequential(block(inputs, outputs, stride=2, kernel=4), Residual(outputs, outputs))
            for inputs, outputs in pairwise(widths)
        )
        dims = [dim // 2] + [dim] * (len(widths) - 1)
        self.laterals = nn.ModuleList(nn.Conv2d(width, own, 1) for width, own in zip(widths, dims, strict=True))
        # before it is enlarged, what comes from above gets as many channels as its level has
        self.narrowed = nn.ModuleList(nn.Conv2d(above, own, 1) for own, above in pairwise(dims))
        self.merges = nn.ModuleList(block(own, own) for own in dims)
        self.sides = nn.ModuleList(nn.Conv2d(own, 1, 1) for own in dims)
        self.last = nn.Sequential(block(dims[0], dims[0]), nn.Conv2d(dims[0], 4, 1))
        for head in (*self.sides, self.last[1]):
            nn.init.constant_(head.bias, -2.0)  # an edge is rare: start near the true rate

    def forward(self, image: Tensor) -> Tensor:
        """Probabilities (B, 1, H, W) of images (B, 3, H, W) in [0, 1], RGB, of any size."""
        return torch.sigmoid(self.logits(image)[-1])

    def logits(self, image: Tensor) -> list[Tensor]:
        """Log-odds (B, 1, H, W): of every level, coarsest first, and last those that count."""
        height, width = image.shape[-2:]
        x = padded((image - _MEAN) / _SPREAD, self.multiple)
        levels = [self.stem(x)]
        for stage in self.stages:
            levels.append(stage(levels[-1]))
        top = len(levels) - 1
        merged = self.merges[top](self.laterals[top](levels[top]))
        found = [enlarge(self.sides[top](merged), 2 ** (top + 1))]
        for number in reversed(range(top)):
            above = enlarge(self.narrowed[number](merged), 2)
            merged = self.merges[number](self.laterals[number](levels[number]) + above)
            found.append(enlarge(self.sides[number](merged), 2 ** (number + 1)))
        found.append(F.pixel_shuffle(self.last(merged), 2))
        return [each[..., :height, :width] for each in found]
