"""From a dense detection map to a fixed number of sub-pixel keypoints, without data-dependent shapes."""

import torch
import torch.nn.functional as F
from torch import Tensor

_WINDOW = 2  # the soft-argmax reads 5×5 pixels


def select_keypoints(
    detection: Tensor,
    reliability: Tensor,
    size: tuple[int, int],
    count: int,
    *,
    threshold: float,
    border: int,
) -> tuple[Tensor, Tensor]:
    """The best local maxima of a detection map, refined to sub-pixel places.

    Suppression works on 2×2 blocks (each block offers its best pixel, a block must beat its eight
    neighbours), which costs a quarter of a 5×5 maximum filter at full resolution.

    Args:
        detection: (B, 4, H/2, W/2), log-odds; channel 2·i + j is pixel (row i, column j) of the 2×2 block.
        reliability: (B, 1, H/s, W/s), log-odds; s is 2, 4, 8, ….
        size: (height, width) of the image without padding; what lies outside is never chosen.
        count: how many keypoints to return, K.
        threshold: least detection log-odds.
        border: least distance from the image's edge, in pixels; at least 2.

    Returns:
        keypoints: (B, K, 2), pixels (x, y).
        odds: (B, K), falling: detection log-odds + log-probability of reliability; -inf where padded.
    """
    best, right, lower = _block_maxima(detection)
    # to a size, not by a factor: for a factor ONNX Runtime would carry the single channel as one of sixteen
    enlarged = F.interpolate(reliability, size=best.shape[-2:], mode="bilinear", align_corners=False)
    peak = F.max_pool2d(best.unsqueeze(1), 3, 1, 1).squeeze(1) == best
    allowed = _within(lower, size[0], border, dim=1) & _within(right, size[1], border, dim=2)
    odds = torch.where(peak & allowed & (best > threshold), best + F.logsigmoid(enlarged.squeeze(1)), -torch.inf)
    # at least `count` entries, so that small images need no other graph
    padded = F.pad(odds.flatten(1), (0, count), value=-torch.inf)
    top, index = padded.topk(count, dim=1)
    index = torch.where(torch.isfinite(top), index, 0)
    # places are worked out for the few that are chosen: whole numbers are slow, and there are 2,000 of 80,000
    row = index // best.shape[2]
    x = 2 * (index - row * best.shape[2]) + right.flatten(1).gather(1, index)
    y = 2 * row + lower.flatten(1).gather(1, index)
    return refine(detection, torch.stack((x, y), dim=-1)), top


def _block_maxima(detection: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Of each block the maximum, and whether it lies in the right column and in the lower row; each (B, H/2, W/2)."""
    a, b, c, d = detection.unbind(1)
    above, below = torch.maximum(a, b), torch.maximum(c, d)
    lower = below > above
    # not where(lower, d - c, b - a) > 0: ONNX Runtime chooses among numbers ten times more slowly than among answers
    right = (lower & (d > c)) | (~lower & (b > a))
    return torch.maximum(above, below), right, lower


def _within(second: Tensor, size: int, border: int, *, dim: int) -> Tensor:
    """Whether the best pixel of each block keeps its distance from both edges across one axis.

    Args:
        second: (B, H/2, W/2) bool, whether it lies in the block's second row or column.
        size: of the image along the axis.
        border: the distance, in pixels.
        dim: 1 for rows, 2 for columns.
    """
    place = 2 * torch.arange(second.shape[dim], device=second.device)
    place = place.unsqueeze(1) if dim == 1 else place
    fits, second_fits = ((at >= border) & (at < size - border) for at in (place, place + 1))
    return (second & second_fits) | (~second & fits)


def refine(detection: Tensor, pixels: Tensor) -> Tensor:
    """Sub-pixel places: the mean of the softmax over the 5×5 pixels around each one.

    The soft-argmax of ALIKE's differentiable keypoint detection (Zhao et al., IEEE TMM 2022, eq. 3–4).

    Args:
        detection: (B, 4, H/2, W/2), as for `select_keypoints`.
        pixels: (B, N, 2) int64, pixels (x, y).

    Returns:
        (B, N, 2) float32, at most two pixels from `pixels` along each axis.
    """
    height, width = detection.shape[-2:]
    steps = torch.arange(-_WINDOW, _WINDOW + 1, device=detection.device)
    x = (pixels[..., :1] + steps).clamp(0, 2 * width - 1)
    y = (pixels[..., 1:] + steps).clamp(0, 2 * height - 1)
    # read where the network wrote it: to bring the blocks into rows first would move the whole map for a few places
    in_column = (x % 2) * height * width + x // 2
    in_row = 2 * (y % 2) * height * width + y // 2 * width
    index = (in_row.unsqueeze(-1) + in_column.unsqueeze(-2)).flatten(2)
    window = detection.flatten(1).gather(1, index.flatten(1)).reshape(index.shape)
    weights = window.float().softmax(dim=-1)
    dy = steps.repeat_interleave(len(steps))
    dx = steps.repeat(len(steps))
    offset = torch.stack(((weights * dx).sum(-1), (weights * dy).sum(-1)), dim=-1)
    return pixels.float() + offset
