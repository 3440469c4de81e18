"""Losses of depth: where their minima are, and their gradients."""

import torch

from tiepoint.ops.depth_losses import confidence_loss, mean_where, picked, plane_likelihood


def test_the_likelihood_is_least_where_the_expectation_is_the_truth() -> None:
    plane = torch.tensor([[[2.25]]])
    right = torch.full((1, 6, 1, 1), -60.0)
    right[0, 2], right[0, 3] = torch.tensor(0.75).log(), torch.tensor(0.25).log()
    best = plane_likelihood(right, plane)
    for step in (-0.3, 0.3):
        other = right.clone()
        other[0, 2] += step
        assert plane_likelihood(other, plane) > best
    assert (best >= 0).all()


def test_gradcheck() -> None:
    generator = torch.Generator().manual_seed(0)
    scores = torch.randn((2, 5, 2, 3), dtype=torch.float64, generator=generator).requires_grad_()
    plane = 4 * torch.rand((2, 2, 3), dtype=torch.float64, generator=generator)
    assert torch.autograd.gradcheck(lambda s: plane_likelihood(s, plane), scores)


def test_confidence_learns_whether_the_error_is_within_the_bound() -> None:
    sure, error = torch.tensor([4.0, 4.0]), torch.tensor([0.5, 3.0])
    loss = confidence_loss(sure, error, bound=1.0)
    assert loss[0] < 0.1
    assert loss[1] > 3


def test_means_and_picks() -> None:
    values = torch.tensor([[1.0, torch.nan], [3.0, 5.0]])
    assert mean_where(values, torch.tensor([[True, False], [True, False]])) == 2
    assert mean_where(values, torch.zeros(2, 2, dtype=torch.bool)) == 0
    maps = torch.arange(16.0).reshape(1, 4, 4)
    assert picked(maps, 2, 1, 0).tolist() == [[[4.0, 6.0], [12.0, 14.0]]]
