"""A small network that takes noise out of photographs, whatever its strength."""

from collections.abc import Sequence
from itertools import pairwise

import torch.nn.functional as F
from torch import Tensor, nn

from tiepoint.models.image import ImageNetwork, padded


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
    """Noisy images in, clean ones out.

    A U-Net (Ronneberger et al., MICCAI 2015) of residual blocks that finds the noise, not the image (Zhang et al.,
    "Beyond a Gaussian denoiser", TIP 2017, section III), on blocks of 2×2 pixels, as FFDNet (Zhang et al., TIP 2018).

    Args:
        widths: channels at H/2, H/4 and so on.
        blocks: residual blocks of each level, both on the way down and up again; at the deepest level once.
    """

    OUTPUT = "clean"
    BYTES = False  # images of sixteen bits keep theirs

    def __init__(self, widths: Sequence[int] = (64, 96), blocks: int = 2) -> None:
        super().__init__()
        self.multiple = 2 ** len(widths)
        self.enter = nn.Conv2d(12, widths[0], 3, padding=1)
        self.down = nn.ModuleList(_several(width, blocks) for width in widths[:-1])
        self.deepest = _several(widths[-1], blocks)
        pairs = list(pairwise(widths))
        self.shrink = nn.ModuleList(nn.Conv2d(high, low, 2, stride=2) for high, low in pairs)
        self.enlarge = nn.ModuleList(nn.ConvTranspose2d(low, high, 2, stride=2) for high, low in pairs)
        self.up = nn.ModuleList(_several(width, blocks) for width in widths[:-1])
        self.leave = nn.Conv2d(widths[0], 12, 3, padding=1)

    def forward(self, image: Tensor) -> Tensor:
        """Images (B, 3, H, W), RGB in [0, 1] or beyond, of any size; grey ones have three equal channels."""
        height, width = image.shape[-2:]
        x = self.enter(F.pixel_unshuffle(padded(image, self.multiple) - 0.5, 2))
        kept = []
        for blocks, shrink in zip(self.down, self.shrink, strict=True):
            x = blocks(x)
            kept.append(x)
            x = shrink(x)
        x = self.deepest(x)
        for number in reversed(range(len(kept))):
            x = self.up[number](self.enlarge[number](x) + kept[number])
        noise = F.pixel_shuffle(self.leave(x), 2)[..., :height, :width]
        return image - noise


def _several(width: int, count: int) -> nn.Sequential:
    return nn.Sequential(*(_Residual(width) for _ in range(count)))
