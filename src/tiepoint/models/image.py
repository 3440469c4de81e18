"""What networks share that make maps of one image: their base, and the graph that is exported and run."""

from abc import ABC, abstractmethod
from typing import ClassVar

import torch
from torch import Tensor, nn

from tiepoint.models.base import Network


class ImageNetwork(Network, ABC):
    """Base of the networks from one image to maps of its size: edges, a clean copy.

    `forward` is free of data-dependent Python, so that it exports.

    Attributes:
        OUTPUT: what the maps are, the name of the graph's output.
        BYTES: whether the graph takes images of eight bits; floats in [0, 1], or beyond, if not.
        CHANNELS: of what it takes: red, green and blue, and what the network must be told beside them.
    """

    OUTPUT: ClassVar[str]
    BYTES: ClassVar[bool] = True
    CHANNELS: ClassVar[int] = 3

    @abstractmethod
    def forward(self, image: Tensor) -> Tensor:
        """Maps (B, C, H, W) of images (B, CHANNELS, H, W) in [0, 1], RGB first, of any size."""


class ImageMaps(nn.Module):
    """Pre-processing and network as one graph.

    Args:
        model: makes the maps.
    """

    def __init__(self, model: ImageNetwork) -> None:
        super().__init__()
        self.model = model

    def forward(self, image: Tensor) -> Tensor:
        """Maps (B, H, W, C) of images (B, H, W, CHANNELS), RGB first: uint8, or float32 where white is 1."""
        planes = image.permute(0, 3, 1, 2)
        maps: Tensor = self.model(planes.float() / 255 if image.dtype == torch.uint8 else planes)
        return maps.permute(0, 2, 3, 1)


def padded(image: Tensor, multiple: int) -> Tensor:
    """Images (B, C, H, W) mirrored at the right and at the bottom, up to sides that are multiples of a number.

    Not repeated: from stripes that begin at the border a network that looks for edges takes it for one.
    """
    height, width = image.shape[-2:]
    # not -size // multiple: torch.export divides negative sizes otherwise
    rows, columns = (_mirrored(size, (size + multiple - 1) // multiple * multiple, image) for size in (height, width))
    return image.index_select(2, rows).index_select(3, columns)


def _mirrored(size: int, total: int, image: Tensor) -> Tensor:
    """Places 0, 1, … size - 1, size - 2, … to read from; F.pad refuses to mirror more than there is."""
    last = size - 1
    return (last - (last - torch.arange(total, device=image.device)).abs()).clamp_min(0)
