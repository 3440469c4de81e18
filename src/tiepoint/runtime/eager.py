"""The same matcher in torch, from .ckpt and .pt files."""

from pathlib import Path

import torch

from tiepoint.checkpoints import read_weights
from tiepoint.errors import InputError
from tiepoint.images import UInt8
from tiepoint.models.twoview import TwoViewMatcher
from tiepoint.runtime.matcher import PaddedMatches, Points


class EagerNetwork:
    """Runs the network of a checkpoint.

    Args:
        path: a .ckpt or .pt file.
        max_keypoints: keypoints an image.
        device: "auto", "cpu" or "cuda".

    Raises:
        InputError: the file is missing or of something else, or there is no such device.
    """

    def __init__(self, path: Path, *, max_keypoints: int, device: str) -> None:
        if device == "cuda" and not torch.cuda.is_available():
            raise InputError("device is cuda, but torch finds no GPU")
        self._device = "cuda" if device != "cpu" and torch.cuda.is_available() else "cpu"
        extractor = read_weights(path).extractor
        extractor.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        self._network = TwoViewMatcher(extractor).to(self._device).eval()
        self._count = torch.tensor(max_keypoints)

    def match(self, image0: UInt8, image1: UInt8) -> Points:
        """See `Backend.match`."""
        return self.run(image0[None], image1[None]).points(0)

    @torch.inference_mode()
    def run(self, image0: UInt8, image1: UInt8) -> PaddedMatches:
        """Match a batch of pairs: two arrays (B, H, W, 3)."""
        # torch.tensor copies: the caller's array may be read-only
        images = (torch.tensor(image).to(self._device) for image in (image0, image1))
        return PaddedMatches(*(field.cpu().numpy() for field in self._network(*images, self._count)))
