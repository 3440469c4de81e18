"""The pose loss on made scenes: nothing wrong with true matches, and lower once wrong ones are doubted."""

from typing import NamedTuple

import pytest
import torch
from kornia.geometry.conversions import axis_angle_to_rotation_matrix
from torch import Tensor

from tiepoint.ops.assignment import PADDED, Assignment
from tiepoint.ops.pose_loss import WeightedMatches, pose_loss, weighted_matches

K = torch.tensor([[[400.0, 0, 320], [0, 400, 240], [0, 0, 1]]], dtype=torch.float64)


class Views(NamedTuple):
    """Where two cameras (K, motion T) see the same places, (1, N, 2)."""

    points0: Tensor
    points1: Tensor
    T: Tensor


@pytest.fixture
def views() -> Views:
    random = torch.Generator().manual_seed(0)
    low, extent = torch.tensor([-2.0, -2, 4], dtype=torch.float64), torch.tensor([4.0, 4, 4], dtype=torch.float64)
    places = low + extent * torch.rand((1, 40, 3), generator=random, dtype=torch.float64)
    T = torch.eye(4, dtype=torch.float64)[None].clone()
    T[:, :3, :3] = axis_angle_to_rotation_matrix(torch.tensor([[0.05, -0.2, 0.1]], dtype=torch.float64))
    T[:, :3, 3] = torch.tensor([0.8, 0.1, -0.2])
    moved = places @ T[:, :3, :3].transpose(1, 2) + T[:, None, :3, 3]
    seen = [each @ K.transpose(1, 2) for each in (places, moved)]
    return Views(*(each[..., :2] / each[..., 2:] for each in seen), T)


def test_the_likeliest_partner_is_taken_where_it_agrees() -> None:
    similarity = torch.tensor([[[9.0, 0, 0], [0, 0, 7], [6, 0, 0]]])
    sure = torch.full((1, 3), 20.0)
    places = torch.arange(6.0).reshape(1, 3, 2)
    found = weighted_matches(places, 10 + places, Assignment(similarity, sure, sure))
    assert found.points1[0, :2].tolist() == [[10, 11], [14, 15]]
    assert (found.weights[0, :2] > 0.9).all()
    assert found.weights[0, 2] == 0  # the first one is nearer to its partner
    padded = torch.full((1, 3), PADDED)
    assert (weighted_matches(places, places, Assignment(similarity, padded, sure)).weights == 0).all()


def test_true_matches_have_no_error(views: Views) -> None:
    errors, known = pose_loss(WeightedMatches(*views[:2], torch.rand(1, 40).double() + 0.1), K, K, views.T)
    assert known.all()
    assert errors.item() < 1e-6


def test_to_doubt_wrong_matches_makes_it_smaller(views: Views) -> None:
    points1 = views.points1.clone()
    wrong = torch.arange(40) % 8 == 0
    points1[:, wrong] += torch.tensor([20.0, -30.0], dtype=torch.float64)
    odds = torch.zeros((1, 40), dtype=torch.float64, requires_grad=True)
    optimizer = torch.optim.Adam([odds], lr=0.3)
    errors = []
    for _ in range(60):
        loss, _ = pose_loss(WeightedMatches(views.points0, points1, odds.sigmoid()), K, K, views.T)
        optimizer.zero_grad()
        loss.sum().backward()
        optimizer.step()
        errors.append(loss.item())
    assert errors[0] > 0.1
    assert errors[-1] < 0.5 * errors[0]
    assert odds[0, wrong].mean() < odds[0, ~wrong].mean() - 1


def test_the_gradient_is_that_of_the_function(views: Views) -> None:
    random = torch.Generator().manual_seed(1)
    noisy = views.points1 + torch.randn(views.points1.shape, generator=random, dtype=torch.float64)
    weights = (0.2 + 0.8 * torch.rand((1, 40), generator=random, dtype=torch.float64)).requires_grad_()

    def error(given: Tensor) -> Tensor:
        return pose_loss(WeightedMatches(views.points0, noisy, given), K, K, views.T)[0]

    assert torch.autograd.gradcheck(error, (weights,))


def test_the_gradient_reaches_the_points_and_the_assignment(views: Views) -> None:
    random = torch.Generator().manual_seed(2)
    double = {"generator": random, "dtype": torch.float64}
    few = [each[:, :12] + torch.randn((1, 12, 2), **double) for each in views[:2]]
    weights = 0.2 + 0.8 * torch.rand((1, 12), **double)
    assert torch.autograd.gradcheck(
        lambda x0, x1: pose_loss(WeightedMatches(x0, x1, weights), K, K, views.T)[0],
        [each.requires_grad_() for each in few],
    )
    similarity = torch.randn((1, 5, 6), **double).requires_grad_()
    sure = [torch.randn((1, count), **double).requires_grad_() for count in (5, 6)]
    places = torch.rand((1, 5, 2), **double), torch.rand((1, 6, 2), **double)
    assert torch.autograd.gradcheck(
        lambda *soft: weighted_matches(*places, Assignment(*soft)).weights, [similarity, *sure]
    )


def test_too_few_matches_say_nothing(views: Views) -> None:
    weights = torch.zeros((1, 40), dtype=torch.float64)
    weights[:, :7] = 1
    weights.requires_grad_()
    errors, known = pose_loss(WeightedMatches(*views[:2], weights), K, K, views.T)
    assert not known.any()
    errors.sum().backward()
    assert errors.item() == 0
    assert (weights.grad == 0).all()
