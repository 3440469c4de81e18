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
        reliability: (B, 1, H/4, W/4), log-odds.
        size: (height, width) of the image without padding; what lies outside is never chosen.
        count: how many keypoints to return, K.
        threshold: least detection log-odds.
        border: least distance from the image's edge, in pixels; at least 2.

    Returns:
        keypoints: (B, K, 2), pixels (x, y).
        odds: (B, K), falling: detection log-odds + log-probability of reliability; -inf where padded.
    """
    best, which = detection.max(dim=1)
    trust = F.logsigmoid(F.interpolate(reliability, scale_factor=2.0, mode="bilinear", align_corners=False))
    peak = F.max_pool2d(best.unsqueeze(1), 3, 1, 1).squeeze(1) == best
    rows = torch.arange(best.shape[1], device=best.device).reshape(1, -1, 1)
    columns = torch.arange(best.shape[2], device=best.device).reshape(1, 1, -1)
    y = 2 * rows + which // 2
    x = 2 * columns + which - 2 * (which // 2)
    allowed = (y >= border) & (x >= border) & (y < size[0] - border) & (x < size[1] - border)
    odds = torch.where(peak & allowed & (best > threshold), best + trust.squeeze(1), -torch.inf)
    # at least `count` entries, so that small images need no other graph
    padded = F.pad(odds.flatten(1), (0, count), value=-torch.inf)
    top, index = padded.topk(count, dim=1)
    index = torch.where(torch.isfinite(top), index, 0)
    chosen = torch.stack((x.flatten(1).gather(1, index), y.flatten(1).gather(1, index)), dim=-1)
    return refine(F.pixel_shuffle(detection, 2), chosen), top


def refine(logits: Tensor, pixels: Tensor) -> Tensor:
    """Sub-pixel places: the mean of the softmax over the 5×5 pixels around each one.

    The soft-argmax of ALIKE's differentiable keypoint detection (Zhao et al., IEEE TMM 2022, eq. 3–4).

    Args:
        logits: (B, 1, H, W).
        pixels: (B, N, 2) int64, pixels (x, y).

    Returns:
        (B, N, 2) float32, at most two pixels from `pixels` along each axis.
    """
    height, width = logits.shape[-2:]
    steps = torch.arange(-_WINDOW, _WINDOW + 1, device=logits.device)
    dy = steps.repeat_interleave(len(steps))
    dx = steps.repeat(len(steps))
    x = (pixels[..., :1] + dx).clamp(0, width - 1)
    y = (pixels[..., 1:] + dy).clamp(0, height - 1)
    window = logits.flatten(1).gather(1, (y * width + x).flatten(1)).reshape(x.shape)
    weights = window.float().softmax(dim=-1)
    offset = torch.stack(((weights * dx).sum(-1), (weights * dy).sum(-1)), dim=-1)
    return pixels.float() + offset
