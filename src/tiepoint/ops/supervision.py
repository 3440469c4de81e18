"""What a pair's true correspondence demands of keypoints, descriptors and detections."""

from typing import NamedTuple

import torch
import torch.nn.functional as F
from kornia.filters import gaussian_blur2d
from torch import Tensor

from tiepoint.ops.sampling import inside, sample, warp_image

CELL = 8  # side of the detector's cells: each holds at most one keypoint


class PointPairs(NamedTuple):
    """Corresponding places of two views.

    Attributes:
        points0: (B, N, 2), pixels of view 0.
        points1: (B, N, 2), the same places in view 1.
        valid: (B, N) bool, False where one of the views does not show the place.
    """

    points0: Tensor
    points1: Tensor
    valid: Tensor


def warp_points(points: Tensor, warp: Tensor, covisible: Tensor) -> tuple[Tensor, Tensor]:
    """Take points to the other view.

    Args:
        points: (B, N, 2), pixels.
        warp: (B, h, w, 2), for each pixel its place in the other view.
        covisible: (B, h, w) bool.

    Returns:
        (B, N, 2), their places in the other view, and (B, N) bool, whether that view shows them.
    """
    moved = sample(warp.permute(0, 3, 1, 2), points)
    seen = sample(covisible.unsqueeze(1).float(), points, padding="zeros").squeeze(-1) > 0.99
    return moved, seen & inside(points, *warp.shape[1:3])


def point_pairs(keypoints0: Tensor, keypoints1: Tensor, batch: dict[str, Tensor]) -> PointPairs:
    """Corresponding places from the points of both views: those of view 1 are taken back to view 0.

    Args:
        keypoints0: (B, N0, 2), pixels of view 0.
        keypoints1: (B, N1, 2), pixels of view 1.
        batch: with `warp_0to1`, `warp_1to0`, `covisible0`, `covisible1`.

    Returns:
        N0 + N1 pairs.
    """
    forth, seen0 = warp_points(keypoints0, batch["warp_0to1"], batch["covisible0"])
    back, seen1 = warp_points(keypoints1, batch["warp_1to0"], batch["covisible1"])
    return PointPairs(
        torch.cat((keypoints0, back), dim=1),
        torch.cat((forth, keypoints1), dim=1),
        torch.cat((seen0, seen1), dim=1),
    )


def corner_response(image: Tensor) -> Tensor:
    """Low-level corners and blobs: Shi-Tomasi plus difference of Gaussians, each scaled to its own mean.

    Shi and Tomasi, "Good features to track", CVPR 1994; Lowe, IJCV 2004.

    Args:
        image: (B, 1, H, W).

    Returns:
        (B, 1, H, W), not negative.
    """
    corners = _least_change(gaussian_blur2d(image, (5, 5), (1.0, 1.0))).clamp_min(0).sqrt()
    fine = gaussian_blur2d(image, (7, 7), (1.2, 1.2))
    blobs = (fine - gaussian_blur2d(image, (11, 11), (2.0, 2.0))).abs()
    scaled = [response / (response.mean((2, 3), keepdim=True) + 1e-6) for response in (corners, blobs)]
    return torch.stack(scaled).sum(0)


def _least_change(image: Tensor) -> Tensor:
    """The smaller eigenvalue of the structure tensor of Sobel's slopes, (B, 1, H, W).

    As kornia's `gftt_response`, whose slopes by a convolution of a single channel take ten times as long on a CPU.
    """
    padded = F.pad(image, (1, 1, 1, 1), mode="replicate")
    across = padded[:, :, :-2] + 2 * padded[:, :, 1:-1] + padded[:, :, 2:]
    along = padded[..., :-2] + 2 * padded[..., 1:-1] + padded[..., 2:]
    dx, dy = (across[..., 2:] - across[..., :-2]) / 8, (along[:, :, 2:] - along[:, :, :-2]) / 8
    xx, yy, xy = (gaussian_blur2d(product, (7, 7), (1.0, 1.0)) for product in (dx * dx, dy * dy, dx * dy))
    smaller: Tensor = (xx + yy - ((xx - yy).square() + 4 * xy.square()).sqrt()) / 2
    return smaller


def detector_targets(
    response0: Tensor, response1: Tensor, batch: dict[str, Tensor], *, share: float = 0.3
) -> tuple[Tensor, Tensor]:
    """Where a detector should fire: at the peaks of a response that both views show.

    The response of each view is averaged with the one that the other view sees at the same place (homographic
    adaptation with two views; DeTone et al., "SuperPoint", CVPRW 2018), so that the targets of both views agree. It is
    best taken from the views before their photometric change: structure is there, though noise, shadow or blur may
    hide it afterwards.

    Args:
        response0: (B, 1, H, W), not negative, of view 0.
        response1: (B, 1, H, W), of view 1.
        batch: with the warps and covisibilities of a pair.
        share: which share of the cells holds a keypoint, at most.

    Returns:
        For view 0 and view 1, (B, H/8, W/8) int64: the pixel of the cell (8·row + column), 64 for none.
    """
    seen1 = warp_image(response1, batch["warp_0to1"]) * batch["covisible0"].unsqueeze(1)
    seen0 = warp_image(response0, batch["warp_1to0"]) * batch["covisible1"].unsqueeze(1)
    return _cell_peaks(response0 + seen1, share), _cell_peaks(response1 + seen0, share)


def _cell_peaks(response: Tensor, share: float) -> Tensor:
    # windows of 5×5, one way after the other; pooling takes seven times as long on a CPU
    padded = F.pad(response, (2, 2, 2, 2), value=-torch.inf)
    peak = padded.unfold(2, 5, 1).amax(4).unfold(3, 5, 1).amax(4) == response
    cells = F.pixel_unshuffle(response * peak, CELL)
    value, index = cells.max(dim=1)
    least = value.flatten(1).quantile(1 - share, dim=1).reshape(-1, 1, 1)
    return torch.where((value > least) & (value > 0), index, CELL * CELL)
