"""What extractors share that compute dense maps and choose the keypoints afterwards."""

from abc import ABC, abstractmethod
from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor

from tiepoint.models.base import Extractor, Keypoints, Maps
from tiepoint.ops.keypoints import select_keypoints
from tiepoint.ops.sampling import sample_rows


class DenseExtractor(Extractor, ABC):
    """An extractor given by its heads alone; grey, normalisation, padding, selection and sampling are the same for all.

    Args:
        threshold: keypoints whose detection log-odds lie below are left out.
        border: keypoints nearer than this to the image's edge, in pixels, are left out.
    """

    STRIDE: ClassVar[
        int
    ]  # of descriptors and reliability: the centre of pixel 0 is pixel (STRIDE - 1) / 2 of the image
    MULTIPLE: ClassVar[int] = 32  # the heads take sizes that are multiples of it

    def __init__(self, *, threshold: float, border: int) -> None:
        super().__init__()
        self.threshold, self.border = threshold, border

    @abstractmethod
    def heads(self, grey: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """The maps of standardised grey images (B, 1, H, W), H and W multiples of `MULTIPLE`.

        Returns:
            detection: (B, 4, H/2, W/2), log-odds; channel 2·i + j is pixel (row i, column j) of the 2×2 block.
            reliability: (B, 1, H/s, W/s), log-odds.
            features: (B, C, H/s, W/s), which `to_descriptors` makes descriptors of; s is `STRIDE`.
        """

    def to_descriptors(self, features: Tensor) -> Tensor:
        """Descriptors (..., D), not normalised, of features (..., C): each row a linear function of its own.

        That is why it may come after the maps were read between their pixels, for the few places that are chosen.
        """
        return features

    def maps(self, image: Tensor) -> Maps:
        """See `Extractor.maps`; H and W must be multiples of `MULTIPLE`."""
        detection, reliability, features = self._in_precision(standardise(to_grey(image))[0])
        descriptors = self.to_descriptors(features.movedim(1, -1)).movedim(-1, 1)
        return Maps(F.pixel_shuffle(detection, 2), reliability, descriptors)

    def forward(self, image: Tensor, max_keypoints: int = 2048) -> Keypoints:
        """See `Extractor.forward`; images of any size. An image without contrast has no keypoints."""
        grey = to_grey(image)
        height, width = grey.shape[-2:]
        standard, contrast = standardise(grey)
        right, bottom = (self._whole(size) - size for size in (width, height))
        padded = F.pad(standard, (0, right, 0, bottom), mode="replicate")
        # places and odds in full precision, whatever that of the weights
        detection, reliability, features = (each.float() for each in self._in_precision(padded))
        keypoints, odds = select_keypoints(
            detection,
            reliability,
            (height, width),
            max_keypoints,
            threshold=self.threshold,
            border=self.border,
        )
        mask = torch.isfinite(odds) & contrast.unsqueeze(1)
        cells = (keypoints - (self.STRIDE - 1) / 2) / self.STRIDE
        read = sample_rows(features, cells)
        sampled = _unit(self.to_descriptors(read.to(next(self.parameters()).dtype)).float())
        scores = torch.where(mask, torch.sigmoid(odds), 0.0)
        return Keypoints(torch.where(mask.unsqueeze(-1), keypoints, 0.0), sampled, scores, mask)

    def _in_precision(self, grey: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """The heads' maps, computed in the precision of the weights."""
        return self.heads(grey.to(next(self.parameters()).dtype))

    def _whole(self, size: int) -> int:
        # not size + -size % MULTIPLE: torch.export takes the remainder of a negative size for negative
        return (size + self.MULTIPLE - 1) // self.MULTIPLE * self.MULTIPLE


def to_grey(image: Tensor) -> Tensor:
    """(B, 1 or 3, H, W) to (B, 1, H, W), the mean of the channels."""
    # not mean(1): ONNX Runtime reduces three planes four times more slowly than it adds them
    return (image[:, :1] + image[:, 1:2] + image[:, 2:]) / 3 if image.shape[1] == 3 else image


def standardise(grey: Tensor) -> tuple[Tensor, Tensor]:
    """Zero mean and unit deviation, exactly 0 for an image without contrast; and which images (B,) have contrast.

    The mean is taken over columns, then rows: in one sweep over 300,000 pixels ONNX Runtime loses three digits.
    """
    centred = grey - grey.mean(3, keepdim=True).mean(2, keepdim=True)
    variance = (centred * centred).mean(3, keepdim=True).mean(2, keepdim=True)
    contrast = variance > 1e-6
    # centred is NaN where the image or its variance is: NaN is found out, where it would pass as a blank image
    return centred * torch.where(contrast, (variance + 1e-6).rsqrt(), 0.0), contrast.flatten()


def _unit(vectors: Tensor) -> Tensor:
    """Vectors (..., D) at unit length; not F.normalize, whose norm ONNX Runtime takes ten times as long for."""
    return vectors / (vectors * vectors).sum(-1, keepdim=True).sqrt().clamp_min(1e-12)
