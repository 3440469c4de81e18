"""Training losses. Each returns one value an element; averaging and weighting are the task's."""

import torch
import torch.nn.functional as F
from kornia.filters import gaussian_blur2d
from torch import Tensor

from tiepoint.ops.sampling import warp_image
from tiepoint.ops.supervision import CELL, PointPairs

# finite, so that a row without any comparison has a gradient of 0 instead of NaN; exp() of it is exactly 0
EXCLUDED = -1e4


def contrast_logits(
    descriptors0: Tensor,
    descriptors1: Tensor,
    pairs: PointPairs,
    *,
    scale: Tensor,
    radius: float,
    scene: Tensor | None = None,
) -> Tensor:
    """Similarities of corresponding points with all others, the neighbouring photo's included.

    Entry (i, j) compares point i of view 0 with point j of view 1; the diagonal is true. Columns N to 2N are the
    points of the next photo of the batch, where nothing is true.

    Args:
        descriptors0: (B, N, D), unit length, at `pairs.points0`.
        descriptors1: (B, N, D), unit length, at `pairs.points1`.
        pairs: the places and which are valid.
        scale: (), the inverse temperature.
        radius: points of view 1 nearer than this to the true one, in pixels, are no negatives.
        scene: (B,) int64, the place that each pair shows, where several may show the same: these are no negatives of
            each other. All differ if None.

    Returns:
        (B, N, 2N), scaled cosines, lower by `EXCLUDED` where a comparison must not count.
    """
    other = torch.cat((descriptors1, descriptors1.roll(1, 0)), dim=1)
    near = torch.cdist(pairs.points1, pairs.points1) < radius
    near = near & ~torch.eye(near.shape[1], dtype=torch.bool, device=near.device)
    ignored = torch.cat((near, torch.zeros_like(near)), dim=2)
    # the only photo of a batch has no neighbour but itself, where the true partner would count as false
    strangers = pairs.valid.roll(1, 0) if len(pairs.valid) > 1 else torch.zeros_like(pairs.valid)
    if scene is not None:
        strangers = strangers & (scene != scene.roll(1)).unsqueeze(1)
    valid = torch.cat((pairs.valid, strangers), dim=1)
    # a sweep over the (B, N, 2N) of this costs as much as the product: what is excluded rides along as an offset
    offsets = (ignored | ~valid.unsqueeze(1)).to(descriptors0.dtype).mul_(EXCLUDED)
    return torch.baddbmm(offsets, scale * descriptors0, other.transpose(1, 2))


def info_nce(logits: Tensor) -> Tensor:
    """Contrastive loss of every point: -log softmax of its true partner (van den Oord et al., 2018, eq. 4).

    Args:
        logits: (B, N, M), M ≥ N, the diagonal being true.

    Returns:
        (B, N); meaningless, but finite, where the diagonal itself is excluded.
    """
    own = torch.arange(logits.shape[1], device=logits.device).repeat(len(logits))
    return F.cross_entropy(logits.flatten(0, 1), own, reduction="none").reshape(logits.shape[:2])


def matched(logits0: Tensor, logits1: Tensor) -> Tensor:
    """Whether each true pair would be found as mutual nearest neighbours.

    Args:
        logits0: (B, N, M), as `contrast_logits` gives them from view 0.
        logits1: (B, N, M), the same from view 1.

    Returns:
        (B, N) bool.
    """
    own = torch.arange(logits0.shape[1], device=logits0.device)
    return (logits0.argmax(2) == own) & (logits1.argmax(2) == own)


def reliability_loss(log_odds: Tensor, success: Tensor) -> Tensor:
    """Cross-entropy of the predicted with the observed success of matching (SiLK; Gleize et al., ICCV 2023, §3.4).

    Args:
        log_odds: (B, N).
        success: (B, N) bool.

    Returns:
        (B, N).
    """
    return F.binary_cross_entropy_with_logits(log_odds, success.to(log_odds.dtype), reduction="none")


def cell_log_probabilities(detection: Tensor) -> Tensor:
    """Each 8×8 cell chooses one of its pixels or none, whose log-odds are 0.

    Args:
        detection: (B, 1, H, W), log-odds.

    Returns:
        (B, 65, H/8, W/8), log-probabilities; index 64 is "none".
    """
    cells = F.pixel_unshuffle(detection.float(), CELL)
    return F.log_softmax(torch.cat((cells, torch.zeros_like(cells[:, :1])), dim=1), dim=1)


def detection_cross_entropy(detection: Tensor, targets: Tensor) -> Tensor:
    """Cross-entropy of the cells' choice (DeTone et al., "SuperPoint", 2018, eq. 2–3).

    Args:
        detection: (B, 1, H, W), log-odds.
        targets: (B, H/8, W/8) int64 in [0, 64].

    Returns:
        (B, H/8, W/8).
    """
    return F.nll_loss(cell_log_probabilities(detection), targets, reduction="none")


def repeatability_gain(
    detection0: Tensor,
    detection1: Tensor,
    warp_0to1: Tensor,
    covisible0: Tensor,
    value0: Tensor,
    *,
    cost: float,
) -> Tensor:
    """Expected repeatability of view 0's keypoints, in closed form.

    Every cell of both views draws a keypoint or none. A keypoint x of view 0 earns exp(-d²/2), d being the
    distance in pixels of its true place to a keypoint of view 1 (several of them add up, to 1 at most), times its
    value. The expectation over the draws is a sum over pixels: p0(x)·(value(x)·(G∗p1)(warp(x)) - b). Where DISK
    (Tyszkiewicz et al., NeurIPS 2020) and DaD (Edstedt et al., 2025) sample and use the policy gradient, this is
    the mean itself, without variance. The baseline b is a share of what the keypoints of the batch earn on average:
    relative to them, not absolute, or all cells would learn to stay empty while the detector is still vague.

    View 1 passes no gradient. Called for both directions, each view learns from its own gain; the part that is
    left out would be the same again, since p0 and p1 enter symmetrically.

    Args:
        detection0: (B, 1, H, W), log-odds.
        detection1: (B, 1, H, W), log-odds.
        warp_0to1: (B, H, W, 2), pixels.
        covisible0: (B, H, W) bool; elsewhere nothing is earned or paid.
        value0: (B, 1, H, W), what a repeated keypoint is worth there, in [0, 1].
        cost: share of the mean earning that a keypoint costs, below 1; cells that expect less learn to stay
            empty.

    Returns:
        (B, H/8, W/8), the gain of each cell of view 0; a loss is its negative.
    """
    chosen0 = F.pixel_shuffle(cell_log_probabilities(detection0)[:, :-1].exp(), CELL)
    chosen1 = F.pixel_shuffle(cell_log_probabilities(detection1.detach())[:, :-1].exp(), CELL)
    # the kernel sums to 1; 2π makes its peak that of exp(-d²/2)
    nearby = 2 * torch.pi * gaussian_blur2d(chosen1, (7, 7), (1.0, 1.0))
    earned = value0 * warp_image(nearby, warp_0to1, padding="zeros").clamp_max(1.0)
    seen = chosen0.detach() * covisible0.unsqueeze(1)
    baseline = cost * (seen * earned).sum() / seen.sum().clamp_min(1e-6)
    gain = chosen0 * (earned - baseline) * covisible0.unsqueeze(1)
    return CELL * CELL * F.avg_pool2d(gain, CELL).squeeze(1)


def reprojection_errors(moved0: Tensor, seen0: Tensor, keypoints1: Tensor, *, radius: float) -> tuple[Tensor, Tensor]:
    """How far keypoints lie from those of the other view that mark the same place.

    The reprojection loss of ALIKE (Zhao et al., IEEE TMM 2022): with sub-pixel keypoints of which the detection map
    knows the derivative, both views learn to agree on where exactly the place is. Here only mutual nearest neighbours
    count, and only where they are near: what is far apart is another place.

    Args:
        moved0: (B, N0, 2), where the keypoints of view 0 truly lie in view 1, pixels.
        seen0: (B, N0) bool, whether view 1 shows these places.
        keypoints1: (B, N1, 2), of view 1.
        radius: largest distance that counts, pixels.

    Returns:
        (B, N0) float, the distance of each place to the nearest keypoint of view 1, in pixels, and (B, N0) bool,
        which of them count.
    """
    with torch.no_grad():
        distances = torch.cdist(moved0, keypoints1).masked_fill(~seen0.unsqueeze(2), torch.inf)
        nearest1 = distances.argmin(2)
        own = torch.arange(distances.shape[1], device=distances.device)
        mutual = distances.argmin(1).gather(1, nearest1) == own
        counts = mutual & (distances.amin(2) < radius)
    partner = keypoints1.gather(1, nearest1.unsqueeze(2).expand(-1, -1, 2))
    # the small number keeps the gradient finite where both agree already
    return ((moved0 - partner).square().sum(2) + 1e-6).sqrt(), counts
