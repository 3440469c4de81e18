"""Depth from two views: planes swept through learned features, regularised by a small network, then refined.

All is said in the numbers of the planes: plane k lies at inverse depth w_k, the planes follow each other at equal
steps, and a place p of view 0 on it lies in view 1 at A p + w_k e, A being the homography of the plane at infinity and
e the epipole, in pixels (Hartley and Zisserman, 2nd ed., eq. 13.2; the sweep: Collins, CVPR 1996). Rectified stereo is
A = I, e = (-1, 0, 0), w the disparity.

After GwcNet (Guo et al., CVPR 2019: group-wise correlation), CoEx (Bangunharcana et al., IROS 2021: the image excites
the volume, and only the planes about the best one vote), and RAFT (Teed and Deng, ECCV 2020: convex enlarging).
"""

from collections.abc import Sequence
from itertools import pairwise
from typing import NamedTuple, Self

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tiepoint.models.base import Network
from tiepoint.models.blocks import block, enlarge
from tiepoint.models.dense import standardise, to_grey
from tiepoint.ops.sampling import normalise_points, pixel_grid

STRIDE = 32  # sides of the images are multiples of it
PLANES = 4  # the number of planes is a multiple of it
_COARSE, _FINE = 4, 2  # strides of the volume and of the refinement


class Geometry(NamedTuple):
    """How view 1 sees what view 0 sees.

    Attributes:
        at_infinity: (B, 3, 3), A, pixels of view 0 to pixels of view 1.
        epipole: (B, 3), e.
        first: (B,), inverse depth of the first plane.
        step: (B,), from one plane to the next.
    """

    at_infinity: Tensor
    epipole: Tensor
    first: Tensor
    step: Tensor


class Swept(NamedTuple):
    """What training supervises.

    Attributes:
        scores: (B, P, H/4, W/4), log-likelihood of each plane.
        coarse: (B, H/2, W/2), number of the plane, fractional.
        plane: (B, H, W), the same after refinement.
        confidence: (B, H, W), log-odds that the place is within a quarter of a plane, which is about a pixel.
    """

    scores: Tensor
    coarse: Tensor
    plane: Tensor
    confidence: Tensor


class PlaneSweep(Network):
    """Inverse depth of view 0 from two views of known geometry.

    What is matched are the descriptors of a pyramid that was trained to match keypoints: it can do so before the sweep
    has learned anything, and `backbone` gives it the weights of a `PyramidExtractor`.

    Args:
        volume: channels of the volume at a quarter of the resolution.
        width: channels of the features at half the resolution, by which the result is refined.
        groups: of the correlation.
        reach: how many steps of about a pixel the refinement looks to either side.
        widths: of the pyramid, as of `PyramidExtractor`.
        dim: length of its descriptors.
        frozen: keep the pyramid as it is.
    """

    def __init__(
        self,
        volume: int = 16,
        width: int = 24,
        groups: int = 8,
        reach: int = 4,
        widths: Sequence[int] = (16, 24, 48, 96, 128),
        dim: int = 64,
        frozen: bool = True,
    ) -> None:
        super().__init__()
        self.groups, self.reach, self.frozen = groups, reach, frozen
        self.backbone = Pyramid(widths, dim).requires_grad_(not frozen)
        self.side = nn.Conv2d(dim, width, 1)
        self.fine = block(widths[0] + 3 + width, width)
        self.match = nn.Conv2d(width, width, 1)
        self.aggregate = Hourglass(groups + 2, volume, context=dim)
        self.convex = nn.Sequential(block(width, width), nn.Conv2d(width, 9, 1))
        self.refine = Refinement(width, samples=2 * reach + 1)

    def train(self, mode: bool = True) -> Self:
        """As usual, but a frozen pyramid keeps its statistics."""
        super().train(mode)
        if self.frozen:
            self.backbone.eval()
        return self

    def forward(
        self, image0: Tensor, image1: Tensor, at_infinity: Tensor, epipole: Tensor, inverse_depth: Tensor
    ) -> tuple[Tensor, Tensor]:
        """Inverse depth of view 0 and how sure it is.

        Args:
            image0: (B, 1 or 3, H, W) in [0, 1]; H and W multiples of 32.
            image1: likewise.
            at_infinity: (B, 3, 3).
            epipole: (B, 3).
            inverse_depth: (B, P), of the planes, at equal steps; P a multiple of 4.

        Returns:
            (B, H, W) inverse depth, and (B, H, W) in [0, 1], the probability that it is within about a pixel.
        """
        first, step = inverse_depth[:, 0], inverse_depth[:, 1] - inverse_depth[:, 0]
        swept = self.sweep_planes(image0, image1, at_infinity, epipole, inverse_depth)
        found = first[:, None, None] + swept.plane * step[:, None, None]
        return found, swept.confidence.sigmoid()

    def sweep_planes(
        self, image0: Tensor, image1: Tensor, at_infinity: Tensor, epipole: Tensor, inverse_depth: Tensor
    ) -> Swept:
        """All that `forward` finds; arguments as of it."""
        first, step = inverse_depth[:, 0], inverse_depth[:, 1] - inverse_depth[:, 0]
        return self.sweep(image0, image1, Geometry(at_infinity, epipole, first, step), inverse_depth.shape[1])

    def sweep(self, image0: Tensor, image1: Tensor, geometry: Geometry, planes: int) -> Swept:
        """All stages; arguments as of `forward`."""
        batch = len(image0)
        images = torch.cat((image0, image1))
        half, quarter, eighth, sixteenth, descriptors = self.backbone(standardise(to_grey(images))[0])
        numbers = torch.arange(planes, device=image0.device, dtype=torch.float32)
        descriptors0, descriptors1 = unit(descriptors).chunk(2)
        volume = self._volume(descriptors0, descriptors1, geometry, numbers)
        scores = self.aggregate(volume, quarter[:batch], eighth[:batch], sixteenth[:batch]).float()
        colours = F.avg_pool2d(_standard(images), 2).to(half)
        fine = self.fine(torch.cat((half, colours, enlarge(self.side(quarter), 2)), dim=1))
        weights = self.convex(fine[:batch]).float().softmax(1)
        coarse = convex_enlarge(expected_plane(scores), weights)
        fine0, fine1 = self.match(fine).chunk(2)
        correlation = self._about(fine0, fine1, geometry, coarse)
        refined, weights, confidence = self.refine(fine[:batch], correlation, coarse)
        return Swept(scores, coarse, convex_enlarge(refined, weights), enlarge(confidence, 2).squeeze(1))

    def _volume(self, features0: Tensor, features1: Tensor, geometry: Geometry, numbers: Tensor) -> Tensor:
        """Group-wise correlation (B, groups + 2, P, H/4, W/4), what view 1 shows, and the cosine."""
        planes = numbers.expand(len(features0), -1)[:, :, None, None]
        parts = self._correlate(features0, features1, geometry, planes, _COARSE, self.groups)
        whole = parts[:, :-1].sum(1, keepdim=True)
        return torch.cat((parts, whole), dim=1)

    def _about(self, features0: Tensor, features1: Tensor, geometry: Geometry, plane: Tensor) -> Tensor:
        """Correlation at quarters of a plane about the one of each pixel: (B, 3 (2 reach + 1), H/2, W/2)."""
        offsets = torch.arange(-self.reach, self.reach + 1, device=plane.device, dtype=torch.float32) / 4
        planes = plane.detach().unsqueeze(1) + offsets[:, None, None]
        scale = features0.shape[1] ** -0.5
        return self._correlate(scale * features0, features1, geometry, planes, _FINE, 2).flatten(1, 2)

    def _correlate(
        self, features0: Tensor, features1: Tensor, geometry: Geometry, planes: Tensor, stride: int, groups: int
    ) -> Tensor:
        batch, _, height, width = features0.shape
        places = plane_places(geometry, planes, (height, width), stride)
        count = places.shape[1]
        grid = normalise_points(places, height, width)
        inside = (grid.abs().amax(-1) <= 1).to(features0)
        grid = grid.clamp(-2, 2).flatten(1, 2)
        seen = F.grid_sample(features1.float(), grid, padding_mode="border", align_corners=False)
        seen = seen.to(features0.dtype).reshape(batch, groups, -1, count, height, width)
        own = features0.reshape(batch, groups, -1, 1, height, width)
        alike = (own * seen).sum(2) * inside.unsqueeze(1)
        return torch.cat((alike, inside.unsqueeze(1)), dim=1)


class Pyramid(nn.Module):
    """The descriptors of `PyramidExtractor`, and what lies on the way to them; its weights fit by their names."""

    def __init__(self, widths: Sequence[int], dim: int) -> None:
        super().__init__()
        half = widths[0]
        self.stem = nn.Sequential(block(1, half, stride=2, kernel=4), block(half, half))
        self.stages = nn.ModuleList(
            nn.Sequential(block(inputs, outputs, stride=2, kernel=4), block(outputs, outputs))
            for inputs, outputs in pairwise(widths)
        )
        self.laterals = nn.ModuleList(nn.Conv2d(each, dim, 1) for each in widths[1:])
        self.fuse = nn.Sequential(block(dim, dim, groups=4), nn.Conv2d(dim, dim, 1))

    def forward(self, grey: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
        """Standardised (B, 1, H, W) to maps at 1/2, 1/4, 1/8, 1/16, and the descriptors at 1/4."""
        half = self.stem(grey)
        levels, current = [], half
        for stage in self.stages:
            current = stage(current)
            levels.append(current)
        merged = [self.laterals[-1](levels[-1])]
        for level, lateral in zip(levels[-2::-1], list(self.laterals)[-2::-1], strict=True):
            merged.append(lateral(level) + enlarge(merged[-1], 2))
        return half, merged[-1], merged[-2], merged[-3], self.fuse(merged[-1])


class Hourglass(nn.Module):
    """Regularises a volume at three resolutions, each excited by the image (CoEx, eq. 1).

    Args:
        inputs: channels of the volume.
        width: channels within.
        context: channels of the image's features.
    """

    def __init__(self, inputs: int, width: int, *, context: int) -> None:
        super().__init__()
        widths = width, 2 * width, 4 * width
        self.enter = nn.ModuleList(
            nn.Sequential(_block3(before, each), _block3(each, each))
            for before, each in zip((inputs, *widths[:2]), widths, strict=True)
        )
        self.excite = nn.ModuleList(nn.Conv2d(context, each, 1) for each in widths)
        self.project = nn.ModuleList(nn.Conv3d(below, each, 1) for each, below in pairwise(widths))
        self.leave = nn.ModuleList(_block3(each, each) for each in widths[:2])
        self.score = nn.Conv3d(width, 1, 3, padding=1)

    def forward(self, volume: Tensor, quarter: Tensor, eighth: Tensor, sixteenth: Tensor) -> Tensor:
        """(B, C, P, h, w) to (B, P, h, w)."""
        fine = self._entered(0, volume, quarter)
        middle = self._entered(1, F.avg_pool3d(fine, 2), eighth)
        coarse = self._entered(2, F.avg_pool3d(middle, 2), sixteenth)
        middle = self.leave[1](middle + _doubled(self.project[1](coarse)))
        fine = self.leave[0](fine + _doubled(self.project[0](middle)))
        scores: Tensor = self.score(fine)
        return scores.squeeze(1)

    def _entered(self, level: int, volume: Tensor, context: Tensor) -> Tensor:
        gate = self.excite[level](context).sigmoid().unsqueeze(2)
        first, second = self.enter[level].children()
        entered: Tensor = second(first(volume) * gate)
        return entered


class Refinement(nn.Module):
    """Moves the planes of pixels at half resolution, by what the features say about them and what stands beside them.

    Args:
        width: of the features.
        samples: planes that were correlated about each pixel's.
    """

    def __init__(self, width: int, *, samples: int) -> None:
        super().__init__()
        inner = width
        self.enter = block(width + 3 * samples + 9, inner)
        self.body = nn.Sequential(*(_Dilated(inner, dilation) for dilation in (1, 2, 4, 8, 1)))
        self.move = nn.Conv2d(inner, 1, 3, padding=1)
        self.weights = nn.Sequential(block(inner, inner), nn.Conv2d(inner, 36 + 1, 1))

    def forward(self, half: Tensor, correlation: Tensor, plane: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Moved planes (B, h, w), weights (B, 9, 4 h w folded as pixels (2h, 2w)) and confidence (B, 1, h, w)."""
        around = neighbours(plane) - plane.unsqueeze(1)
        # far planes differ by any amount: what counts is whether they differ
        x = torch.cat((half, correlation, (4 * around).clamp(-8, 8) / 4), dim=1)
        x = self.body(self.enter(x))
        moved = plane + self.move(x).squeeze(1).float() / 4
        found = self.weights(x).float()
        weights = F.pixel_shuffle(found[:, :36], 2).softmax(1)
        return moved, weights, found[:, 36:]


class _Dilated(nn.Module):
    def __init__(self, width: int, dilation: int) -> None:
        super().__init__()
        self.body = nn.Sequential(
            nn.Conv2d(width, width, 3, padding=dilation, dilation=dilation, bias=False), nn.BatchNorm2d(width)
        )

    def forward(self, x: Tensor) -> Tensor:
        return F.relu(x + self.body(x))


def plane_places(geometry: Geometry, planes: Tensor, size: tuple[int, int], stride: int) -> Tensor:
    """Where view 1 sees the pixels of view 0, at each plane.

    Args:
        geometry: of the views, in full pixels.
        planes: (B, P, h or 1, w or 1), numbers of planes.
        size: (h, w) of maps of either view.
        stride: pixels from one value of the maps to the next.

    Returns:
        (B, P, h, w, 2), places in the map of view 1; far outside for what lies behind camera 1.
    """
    own = (pixel_grid(*size, device=planes.device) + 0.5) * stride - 0.5
    own = torch.cat((own, torch.ones_like(own[..., :1])), dim=-1)
    far = (own.reshape(1, -1, 3) @ geometry.at_infinity.transpose(1, 2)).reshape(-1, 1, *size, 3)
    inverse_depth = geometry.first[:, None, None, None] + geometry.step[:, None, None, None] * planes
    seen = far + inverse_depth.unsqueeze(-1) * geometry.epipole[:, None, None, None, :]
    z = seen[..., 2:]
    place = torch.where(z > 1e-3, seen[..., :2] / z.clamp_min(1e-3), -1e4)
    return (place + 0.5) / stride - 0.5


def expected_plane(scores: Tensor, *, reach: int = 1) -> Tensor:
    """The mean number of the planes about the likeliest one.

    Args:
        scores: (B, P, h, w), log-likelihoods.
        reach: how many planes to either side vote.

    Returns:
        (B, h, w).
    """
    planes = scores.shape[1]
    best = scores.argmax(1, keepdim=True)
    numbers = torch.arange(planes, device=scores.device).reshape(1, -1, 1, 1)
    voting = (numbers - best).abs() <= reach
    share = torch.where(voting, scores, -1e4).softmax(1)
    return (share * numbers).sum(1)


def neighbours(values: Tensor) -> Tensor:
    """Each value and the eight about it: (B, h, w) to (B, 9, h, w), the borders repeated."""
    padded = F.pad(values.unsqueeze(1), (1, 1, 1, 1), mode="replicate")
    height, width = values.shape[-2:]
    shifted = [padded[:, :, y : y + height, x : x + width] for y in range(3) for x in range(3)]
    return torch.cat(shifted, dim=1)


def convex_enlarge(values: Tensor, weights: Tensor) -> Tensor:
    """Twice as large, each new value a convex combination of the nine about the old one that it lies in (RAFT).

    Args:
        values: (B, h, w).
        weights: (B, 9, 2h, 2w), adding up to 1.

    Returns:
        (B, 2h, 2w).
    """
    around = F.interpolate(neighbours(values), scale_factor=2.0, mode="nearest")
    return (weights * around).sum(1)


def _block3(inputs: int, outputs: int) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv3d(inputs, outputs, 3, padding=1, bias=False), nn.BatchNorm3d(outputs), nn.ReLU(inplace=True)
    )


def _doubled(volume: Tensor) -> Tensor:
    return F.interpolate(volume, scale_factor=2.0, mode="nearest")


def _standard(image: Tensor) -> Tensor:
    """RGB of mean 0 and deviation 1 over each image: exposure and contrast do not count."""
    image = image.expand(-1, 3, -1, -1)
    mean = image.mean((1, 2, 3), keepdim=True)
    deviation = (image - mean).square().mean((1, 2, 3), keepdim=True).sqrt()
    return (image - mean) / (deviation + 0.05)


def unit(maps: Tensor) -> Tensor:
    """(B, D, H, W) with vectors of unit length."""
    return maps / (maps.float() * maps).sum(1, keepdim=True).sqrt().clamp_min(1e-6).to(maps)
