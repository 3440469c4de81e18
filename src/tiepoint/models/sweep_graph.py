"""The plane sweep as the graph that is exported and run: eight-bit images in, inverse depth out."""

import torch
from torch import Tensor, nn

from tiepoint.models.sweep import PlaneSweep, Swept


class SweepPair(nn.Module):
    """Pre-processing and sweep as one graph.

    Args:
        model: the sweep.
    """

    def __init__(self, model: PlaneSweep) -> None:
        super().__init__()
        self.model = model

    def forward(
        self, image0: Tensor, image1: Tensor, at_infinity: Tensor, epipole: Tensor, planes: Tensor
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Sweep planes at inverse depths (B, P) through images (B, H, W, 3) uint8.

        Returns:
            (B, H, W) inverse depth, (B, H, W) confidence in [0, 1], and (B, P, H/4, W/4) the planes' log-likelihoods.
        """
        views = [image.permute(0, 3, 1, 2).float() / 255 for image in (image0, image1)]
        first, step = planes[:, 0], planes[:, 1] - planes[:, 0]
        swept: Swept = self.model.sweep_planes(views[0], views[1], at_infinity, epipole, planes)
        found = first[:, None, None] + swept.plane * step[:, None, None]
        return found, swept.confidence.sigmoid(), swept.scores.log_softmax(1)


def example_geometry(planes: int, *, step: float = 4.0) -> tuple[Tensor, Tensor, Tensor]:
    """Of a rectified pair but for a little tilt: `at_infinity`, `epipole`, `planes` of `SweepPair`, a batch of one."""
    epipole = torch.tensor([[-1.0, 0.02, 0.0]])
    return torch.eye(3)[None], epipole, step * torch.arange(planes, dtype=torch.float32)[None]
