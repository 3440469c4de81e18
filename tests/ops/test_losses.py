import math

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from tiepoint.ops import losses
from tiepoint.ops.losses import EXCLUDED
from tiepoint.ops.sampling import pixel_grid
from tiepoint.ops.supervision import CELL, PointPairs


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def unit(*shape: int, seed: int = 0) -> Tensor:
    return F.normalize(torch.randn(shape, generator=generator(seed), dtype=torch.float64), dim=-1)


def far_pairs(batch: int, count: int, valid: Tensor | None = None) -> PointPairs:
    """Points a hundred pixels apart: none is near another."""
    points = torch.arange(count * 2, dtype=torch.float64).reshape(1, count, 2).expand(batch, -1, -1) * 100
    seen = torch.ones(batch, count, dtype=torch.bool) if valid is None else valid
    return PointPairs(points, points, seen)


def logits_of(
    descriptors0: Tensor, descriptors1: Tensor, pairs: PointPairs, *, scale: float = 20.0, radius: float = 5.0
) -> Tensor:
    temperature = torch.tensor(scale, dtype=torch.float64)
    return losses.contrast_logits(descriptors0, descriptors1, pairs, scale=temperature, radius=radius)


# contrast


def test_contrast_logits_are_scaled_cosines_of_this_and_the_neighbouring_photo() -> None:
    descriptors0, descriptors1 = unit(2, 3, 8), unit(2, 3, 8, seed=1)
    logits = logits_of(descriptors0, descriptors1, far_pairs(2, 3), scale=7.0)
    assert logits.shape == (2, 3, 6)
    for photo in (0, 1):
        own = 7 * descriptors0[photo] @ descriptors1[photo].T
        others = 7 * descriptors0[photo] @ descriptors1[1 - photo].T
        assert torch.allclose(logits[photo], torch.cat((own, others), dim=1))


def test_a_neighbour_that_shows_the_same_place_has_no_negatives() -> None:
    pairs = far_pairs(3, 4)
    options = {"scale": torch.tensor(7.0), "radius": 5.0}
    scene = torch.tensor([2, 2, 5])  # the neighbours are 5, 2 and 2
    logits = losses.contrast_logits(unit(3, 4, 8), unit(3, 4, 8, seed=1), pairs, **options, scene=scene)
    assert [bool((logits[pair, :, 4:] < EXCLUDED / 2).all()) for pair in range(3)] == [False, True, False]
    assert not (logits[[0, 2]] < EXCLUDED / 2).any()
    assert not (logits[1, :, :4] < EXCLUDED / 2).any()


def test_near_points_are_no_negatives_but_the_true_one_stays() -> None:
    pairs = far_pairs(2, 3)
    points = pairs.points1.clone()
    points[0, 1] = points[0, 0] + torch.tensor([3.0, 3.9])  # 4.92 px away
    points[1, 1] = points[1, 0] + torch.tensor([3.0, 4.1])  # 5.08 px away
    logits = logits_of(unit(2, 3, 8), unit(2, 3, 8, seed=1), pairs._replace(points1=points))
    excluded = logits < EXCLUDED / 2
    assert excluded[0, :, :3].tolist() == [[False, True, False], [True, False, False], [False, False, False]]
    assert not excluded[1].any()
    assert not excluded[..., 3:].any()


def test_invalid_points_are_compared_with_nobody() -> None:
    valid = torch.tensor([[True, False, True], [False, True, True]])
    excluded = logits_of(unit(2, 3, 8), unit(2, 3, 8, seed=1), far_pairs(2, 3, valid)) < EXCLUDED / 2
    assert excluded[0].tolist() == [[False, True, False, True, False, False]] * 3
    assert excluded[1].tolist() == [[True, False, False, False, True, False]] * 3


def test_what_is_masked_does_not_matter() -> None:
    valid = torch.tensor([[True, False, True], [False, True, True]])
    descriptors0, descriptors1 = unit(2, 3, 8), unit(2, 3, 8, seed=1)
    before = losses.info_nce(logits_of(descriptors0, descriptors1, far_pairs(2, 3, valid)))[valid]
    replaced = torch.where(valid.unsqueeze(2), descriptors1, unit(2, 3, 8, seed=2))
    after = losses.info_nce(logits_of(descriptors0, replaced, far_pairs(2, 3, valid)))[valid]
    assert torch.allclose(before, after)
    everywhere = losses.info_nce(logits_of(descriptors0, replaced, far_pairs(2, 3)))[valid]
    assert not torch.allclose(before, everywhere)


def test_info_nce_in_closed_form() -> None:
    logits = torch.tensor([[[1.0, 2.0, 0.5, EXCLUDED], [0.0, 3.0, EXCLUDED, EXCLUDED]]])
    first = math.log(math.e + math.e**2 + math.e**0.5) - 1
    second = math.log(1 + math.e**3) - 3
    assert losses.info_nce(logits)[0].tolist() == pytest.approx([first, second], abs=1e-6)


def test_info_nce_vanishes_for_perfect_separation_and_counts_for_none() -> None:
    apart = torch.eye(12, dtype=torch.float64).reshape(2, 6, 12)
    assert losses.info_nce(logits_of(apart, apart, far_pairs(2, 6), scale=50.0)).max() < 1e-9
    alike = torch.ones(2, 6, 1, dtype=torch.float64)
    assert torch.allclose(
        losses.info_nce(logits_of(alike, alike, far_pairs(2, 6))), torch.tensor(math.log(12), dtype=torch.float64)
    )


def test_info_nce_vanishes_for_perfect_separation_in_a_batch_of_one() -> None:
    apart = torch.eye(6, dtype=torch.float64).unsqueeze(0)
    assert losses.info_nce(logits_of(apart, apart, far_pairs(1, 6), scale=50.0)).max() < 1e-9


def test_the_contrastive_loss_has_the_gradient_of_its_value() -> None:
    valid = torch.tensor([[True, False, True], [True, True, True]])

    def loss(descriptors0: Tensor, descriptors1: Tensor, scale: Tensor) -> Tensor:
        pairs = far_pairs(2, 3, valid)
        logits = losses.contrast_logits(descriptors0, descriptors1, pairs, scale=scale, radius=5.0)
        return losses.info_nce(logits)[valid]

    inputs = [unit(2, 3, 4), unit(2, 3, 4, seed=1), torch.tensor(3.0, dtype=torch.float64)]
    assert torch.autograd.gradcheck(loss, [value.requires_grad_() for value in inputs])


def test_gradients_are_finite_where_a_pair_has_no_valid_point() -> None:
    valid = torch.tensor([[False, False, False], [True, True, False]])
    descriptors0 = unit(2, 3, 4).float().requires_grad_()
    descriptors1 = unit(2, 3, 4, seed=1).float().requires_grad_()
    pairs = far_pairs(2, 3, valid)
    logits = losses.contrast_logits(descriptors0, descriptors1, pairs, scale=torch.tensor(50.0), radius=5.0)
    loss = losses.info_nce(logits)
    assert loss.isfinite().all()
    loss[valid].mean().backward()
    for gradient in (descriptors0.grad, descriptors1.grad):
        assert gradient is not None
        assert gradient.isfinite().all()
        assert gradient[1, :2].abs().sum() > 0
    assert descriptors0.grad is not None
    assert (descriptors0.grad[0] == 0).all()


# success and reliability


def test_matched_demands_both_directions() -> None:
    good = torch.tensor([[[3.0, 1.0, 0.0, 0.0], [0.0, 3.0, 1.0, 0.0]]])
    distracted = torch.tensor([[[3.0, 1.0, 0.0, 4.0], [0.0, 3.0, 1.0, 0.0]]])
    assert losses.matched(good, good).tolist() == [[True, True]]
    assert losses.matched(distracted, good).tolist() == [[False, True]]
    assert losses.matched(good, distracted).tolist() == [[False, True]]


def test_reliability_loss_is_the_cross_entropy() -> None:
    log_odds = torch.tensor([[0.0, 2.0, -1.0]])
    success = torch.tensor([[True, True, False]])
    probability = log_odds.sigmoid()
    expected = -torch.where(success, probability, 1 - probability).log()
    assert torch.allclose(losses.reliability_loss(log_odds, success), expected)


def test_reliability_loss_is_finite_for_extreme_odds_and_differentiable() -> None:
    success = torch.tensor([[True, False]])
    assert losses.reliability_loss(torch.tensor([[-500.0, 500.0]]), success).tolist() == [[500.0, 500.0]]
    log_odds = torch.tensor([[0.3, -2.0]], dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda odds: losses.reliability_loss(odds, success), log_odds)


# detection


def test_cells_choose_one_pixel_or_none() -> None:
    detection = torch.randn((2, 1, 16, 24), generator=generator())
    probability = losses.cell_log_probabilities(detection).exp()
    assert probability.shape == (2, 65, 2, 3)
    assert torch.allclose(probability.sum(1), torch.ones(2, 2, 3), atol=1e-5)
    # pixel (row 9, column 18) is pixel (1, 2) of the cell in row 1, column 2; none has log-odds 0
    cell = detection[1, 0, 8:16, 16:24]
    total = cell.exp().sum() + 1
    assert torch.allclose(probability[1, 8 * 1 + 2, 1, 2], cell[1, 2].exp() / total, atol=1e-6)
    assert torch.allclose(probability[1, 64, 1, 2], 1 / total, atol=1e-6)


def test_detection_cross_entropy_in_closed_form() -> None:
    detection = torch.zeros(1, 1, 8, 16)
    detection[0, 0, 3, 5] = 4.0
    targets = torch.tensor([[[3 * 8 + 5, 64]]])
    loss = losses.detection_cross_entropy(detection, targets)
    assert loss.shape == (1, 1, 2)
    assert loss.flatten().tolist() == pytest.approx([math.log(math.exp(4) + 64) - 4, math.log(65)], abs=1e-5)


def test_the_gradient_of_the_cross_entropy_raises_the_target_alone() -> None:
    detection = torch.zeros(1, 1, 8, 8, requires_grad=True)
    losses.detection_cross_entropy(detection, torch.tensor([[[17]]])).sum().backward()
    assert detection.grad is not None
    expected = torch.full((64,), 1 / 65)
    expected[17] -= 1
    assert torch.allclose(detection.grad.flatten(), expected, atol=1e-6)


# repeatability


def detection_map(seed: int, size: int = 16) -> Tensor:
    """Log-odds without any probability within three pixels of the edge, where the blur would be cut off."""
    odds = torch.randn((1, 1, size, size), generator=generator(seed)) - 4
    inner = torch.full_like(odds, -60.0)
    inner[..., 3:-3, 3:-3] = odds[..., 3:-3, 3:-3]
    return inner


def probabilities(detection: Tensor) -> dict[tuple[int, int], float]:
    """(x, y) → probability that the pixel is its cell's choice, by explicit sums."""
    odds = detection[0, 0].double()
    found = {}
    for y in range(odds.shape[0]):
        for x in range(odds.shape[1]):
            top, left = y // CELL * CELL, x // CELL * CELL
            total = odds[top : top + CELL, left : left + CELL].exp().sum() + 1
            found[x, y] = (odds[y, x].exp() / total).item()
    return found


def brute_force_gain(
    detection0: Tensor, detection1: Tensor, warp: Tensor, covisible: Tensor, value: Tensor, cost: float
) -> Tensor:
    ones = probabilities(detection1)
    earned: dict[tuple[int, int], tuple[float, float]] = {}  # probability and earning of each covisible pixel
    for (x, y), zero in probabilities(detection0).items():
        if covisible[0, y, x]:
            u, v = warp[0, y, x].tolist()
            expected = sum(
                one * math.exp(-((u - x1) ** 2 + (v - y1) ** 2) / 2)
                for (x1, y1), one in ones.items()
                if max(abs(u - x1), abs(v - y1)) <= 3
            )
            earned[x, y] = zero, value[0, 0, y, x].item() * min(1.0, expected)
    mean = sum(zero * earning for zero, earning in earned.values()) / sum(zero for zero, _ in earned.values())
    gain = torch.zeros(detection0.shape[-2] // CELL, detection0.shape[-1] // CELL, dtype=torch.float64)
    for (x, y), (zero, earning) in earned.items():
        gain[y // CELL, x // CELL] += zero * (earning - cost * mean)
    return gain


@pytest.mark.parametrize("shift", [(0, 0), (2, -3)])
def test_the_gain_is_the_expectation_by_explicit_sums(shift: tuple[int, int]) -> None:
    detection0, detection1 = detection_map(0), detection_map(1)
    warp = (pixel_grid(16, 16) + torch.tensor(shift)).unsqueeze(0)
    covisible = torch.rand((1, 16, 16), generator=generator(2)) < 0.8
    value = torch.rand((1, 1, 16, 16), generator=generator(3))
    gain = losses.repeatability_gain(detection0, detection1, warp, covisible, value, cost=0.7)
    expected = brute_force_gain(detection0, detection1, warp, covisible, value, 0.7)
    assert gain.shape == (1, 2, 2)
    assert gain[0].double().numpy() == pytest.approx(expected.numpy(), abs=2e-5)
    assert gain.abs().min() > 2e-4


def sure(*places: tuple[int, int]) -> Tensor:
    """A detector that fires surely at each (x, y) and nowhere else."""
    detection = torch.full((1, 1, 16, 16), -30.0)
    for x, y in places:
        detection[..., y, x] = 20.0
    return detection


def identity_scene() -> tuple[Tensor, Tensor, Tensor]:
    """Both views are the same, wholly covisible, and every keypoint is worth 1."""
    return pixel_grid(16, 16).unsqueeze(0), torch.ones(1, 16, 16, dtype=torch.bool), torch.ones(1, 1, 16, 16)


def test_the_gain_rises_with_the_agreement_of_the_views() -> None:
    for x, expected in ((4, 1.0), (5, math.exp(-0.5)), (6, math.exp(-2)), (12, 0.0)):
        gain = losses.repeatability_gain(sure((4, 4)), sure((x, 4)), *identity_scene(), cost=0.0)
        assert gain[0, 0, 0].item() == pytest.approx(expected, abs=2e-3)


def test_a_keypoint_that_nobody_repeats_costs_a_share_of_what_the_others_earn() -> None:
    gain = losses.repeatability_gain(sure((4, 4), (12, 12)), sure((4, 4)), *identity_scene(), cost=0.5)
    assert gain[0].flatten().tolist() == pytest.approx([0.75, 0, 0, -0.25], abs=2e-3)


def test_no_keypoint_costs_nothing() -> None:
    assert losses.repeatability_gain(sure(), sure((4, 4)), *identity_scene(), cost=0.5).abs().max() < 1e-6


def test_a_keypoint_is_worth_its_value() -> None:
    warp, covisible, value = identity_scene()
    gain = losses.repeatability_gain(sure((4, 4)), sure((4, 4)), warp, covisible, 0.3 * value, cost=0.0)
    assert gain.sum().item() == pytest.approx(0.3, abs=1e-3)


def test_outside_the_covisible_part_nothing_is_earned_or_paid() -> None:
    detection = detection_map(0)
    warp, covisible, value = identity_scene()
    assert (losses.repeatability_gain(detection, detection, warp, ~covisible, value, cost=0.2) == 0).all()


def test_view_1_passes_no_gradient_and_view_0_does() -> None:
    detection0, detection1 = detection_map(0).requires_grad_(), detection_map(1).requires_grad_()
    losses.repeatability_gain(detection0, detection1, *identity_scene(), cost=0.1).sum().backward()
    assert detection1.grad is None
    assert detection0.grad is not None
    assert detection0.grad.isfinite().all()
    assert detection0.grad.abs().sum() > 0


def test_climbing_the_gain_moves_the_detections_together() -> None:
    """The gradient of view 0 is largest where view 1 fires."""
    detection0 = torch.full((1, 1, 16, 16), -4.0, requires_grad=True)
    losses.repeatability_gain(detection0, sure((11, 4)), *identity_scene(), cost=0.5).sum().backward()
    assert detection0.grad is not None
    gradient = detection0.grad[0, 0]
    assert gradient.argmax().item() == 4 * 16 + 11
    assert (gradient[8:] < 0).all()  # cells with nothing to earn learn to stay empty


# precision


def places(*points: tuple[float, float]) -> Tensor:
    return torch.tensor([points], dtype=torch.float64)


def test_the_reprojection_error_is_the_distance_to_the_keypoint_there() -> None:
    moved, keypoints = places((10, 10), (50, 50)), places((50, 51.5), (10.3, 9.6))
    errors, counts = losses.reprojection_errors(moved, torch.ones(1, 2, dtype=torch.bool), keypoints, radius=2.0)
    assert errors[0].tolist() == pytest.approx([0.5, 1.5], abs=1e-3)
    assert counts.tolist() == [[True, True]]


def test_only_near_and_mutual_keypoints_of_seen_places_count() -> None:
    moved = places((10, 10), (11, 10), (50, 50), (80, 80))  # the second has a nearer rival
    keypoints = places((9.8, 10), (50, 53), (80, 80))
    seen = torch.tensor([[True, True, True, False]])
    _, counts = losses.reprojection_errors(moved, seen, keypoints, radius=2.0)
    assert counts.tolist() == [[True, False, False, False]]


def test_the_reprojection_error_pulls_both_keypoints_together() -> None:
    moved, keypoints = places((10, 10)).requires_grad_(), places((10.6, 10.8)).requires_grad_()
    errors, _ = losses.reprojection_errors(moved, torch.ones(1, 1, dtype=torch.bool), keypoints, radius=2.0)
    errors.sum().backward()
    assert moved.grad is not None
    assert keypoints.grad is not None
    assert moved.grad[0, 0].tolist() == pytest.approx([-0.6, -0.8], abs=1e-3)
    assert torch.equal(keypoints.grad, -moved.grad)


def test_keypoints_that_agree_have_a_finite_gradient() -> None:
    moved, keypoints = places((10, 10), (0, 0)).requires_grad_(), places((10, 10))
    seen = torch.zeros(1, 2, dtype=torch.bool)
    seen[0, 0] = True
    errors, counts = losses.reprojection_errors(moved, seen, keypoints, radius=2.0)
    (errors * counts).sum().backward()
    assert moved.grad is not None
    assert moved.grad.isfinite().all()
