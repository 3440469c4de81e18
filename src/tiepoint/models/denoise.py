"""A small network that takes noise out of photographs, of the strength that it is told."""

from collections.abc import Sequence
from itertools import pairwise

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tiepoint.models.image import ImageNetwork, padded

_LEVELS = 5.0  # inverse of a strong noise's deviation


class _Residual(nn.Module):
    """Two convolutions, to whose result the input is added; without a normalisation, which would hide the noise."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.first = nn.Conv2d(width, width, 3, padding=1)
        self.second = nn.Conv2d(width, width, 3, padding=1)
        # an identity at first
        nn.init.zeros_(self.second.weight)
        nn.init.zeros_(self.second.bias)  # type: ignore[arg-type]

    def forward(self, x: Tensor) -> Tensor:
        step: Tensor = self.second(F.relu(self.first(x), inplace=True))
        return x + step


class DenoiseNetwork(ImageNetwork):
    """Noisy images with the strength of their noise in, clean ones out.

    A U-Net (Ronneberger et al., MICCAI 2015) of residual blocks that finds the noise, not the image (Zhang et al.,
    "Beyond a Gaussian denoiser", TIP 2017, section III), on blocks of 2×2 pixels and told the noise level, as FFDNet
    (Zhang et al., TIP 2018). Whoever does not know the level estimates it, as in training: `ops.noise.noise_level`.

    Args:
        widths: channels at H/2, H/4 and so on.
        blocks: residual blocks of each level, both on the way down and up again; at the deepest level once.
    """

    OUTPUT = "clean"
    BYTES = False  # images of sixteen bits keep theirs
    CHANNELS = 4  # the last one: the deviation of the noise at every pixel, white being 1

    def __init__(self, widths: Sequence[int] = (64, 96), blocks: int = 2) -> None:
        super().__init__()
        self.multiple = 2 ** len(widths)
        self.enter = nn.Conv2d(16, widths[0], 3, padding=1)
        self.down = nn.ModuleList(_several(width, blocks) for width in widths[:-1])
        self.deepest = _several(widths[-1], blocks)
        pairs = list(pairwise(widths))
        self.shrink = nn.ModuleList(nn.Conv2d(high, low, 2, stride=2) for high, low in pairs)
        self.enlarge = nn.ModuleList(nn.ConvTranspose2d(low, high, 2, stride=2) for high, low in pairs)
        self.up = nn.ModuleList(_several(width, blocks) for width in widths[:-1])
        self.leave = nn.Conv2d(widths[0], 12, 3, padding=1)
        # an identity at first
        nn.init.zeros_(self.leave.weight)
        nn.init.zeros_(self.leave.bias)  # type: ignore[arg-type]

    def forward(self, image: Tensor) -> Tensor:
        """Clean images (B, 3, H, W) of noisy ones with the noise's deviation (B, 4, H, W), of any size.

        RGB in [0, 1] or beyond; grey images have three equal channels.
        """
        height, width = image.shape[-2:]
        colours, level = image[:, :3], image[:, 3:]
        # channels of about unit size
        told = torch.cat((colours - 0.5, _LEVELS * level), dim=1)
        x = self.enter(F.pixel_unshuffle(padded(told, self.multiple), 2))
        kept = []
        for blocks, shrink in zip(self.down, self.shrink, strict=True):
            x = blocks(x)
            kept.append(x)
            x = shrink(x)
        x = self.deepest(x)
        for number in reversed(range(len(kept))):
            x = self.up[number](self.enlarge[number](x) + kept[number])
        noise = F.pixel_shuffle(self.leave(x), 2)[..., :height, :width]
        return colours - noise


def _several(width: int, count: int) -> nn.Sequential:
    return nn.Sequential(*(_Residual(width) for _ in range(count)))
