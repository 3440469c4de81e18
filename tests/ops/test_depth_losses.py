"""Losses of depth: where their minima are, and their gradients."""

import pytest
import torch
from kornia.losses import inverse_depth_smoothness_loss

from tiepoint.ops.depth_losses import (
    confidence_loss,
    mean_where,
    photometric_error,
    picked,
    plane_likelihood,
    slopes,
)


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


def random(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.rand(shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def test_the_photometric_error_is_0_of_equal_views_and_knows_structure() -> None:
    image = random(1, 3, 20, 24)
    assert photometric_error(image, image).abs().max() < 1e-6
    brighter, other = photometric_error(image, image + 0.1), photometric_error(image, random(1, 3, 20, 24, seed=1))
    assert brighter.shape == (1, 20, 24)
    assert other.mean() > 3 * brighter.mean()
    # without structure it is the absolute difference
    assert torch.allclose(photometric_error(image, image + 0.1, structure=0.0), torch.tensor(0.1, dtype=torch.float64))


def test_the_photometric_error_is_least_at_the_true_shift() -> None:
    wide = torch.nn.functional.interpolate(random(1, 1, 6, 20), (24, 80), mode="bicubic")
    left = wide[..., 10:60]
    errors = [photometric_error(left, wide[..., 10 + d : 60 + d]).mean() for d in range(-3, 4)]
    assert min(errors) == errors[3]


def test_slopes_add_up_to_what_kornia_means() -> None:
    d, image = random(2, 9, 11), random(2, 3, 9, 11, seed=1)
    across, down = d.clone(), d.clone()
    across[:], down[:] = d[:, :1], d[:, :, :1]  # of one axis each
    for each, count in ((across, 2 * 9 * 10), (down, 2 * 8 * 11)):
        mean = inverse_depth_smoothness_loss(each.unsqueeze(1), image)
        assert float(slopes(each, image).sum() / count) == pytest.approx(float(mean))
    assert slopes(torch.ones_like(d), image).eq(0).all()


def test_a_step_at_an_edge_of_the_image_costs_less() -> None:
    d, edge = torch.zeros((1, 4, 6)), torch.zeros((1, 1, 4, 6))
    d[..., 3:] = edge[..., 3:] = 1
    assert torch.allclose(slopes(d, edge).sum(), 4 * torch.tensor(-1.0).exp())
    assert slopes(d, torch.zeros_like(edge)).sum() == 4


def test_gradcheck_of_confidence_and_means() -> None:
    odds, error = (2 * random(1, 3, 4) - 1).requires_grad_(), random(1, 3, 4, seed=1)
    assert torch.autograd.gradcheck(lambda each: confidence_loss(each, error, bound=0.5), odds)
    values, weights = random(1, 3, 4, seed=2).requires_grad_(), (0.5 + random(1, 3, 4, seed=3)).requires_grad_()
    assert torch.autograd.gradcheck(mean_where, (values, weights))
    assert torch.autograd.gradcheck(lambda each: picked(each, 2, 1, 0), values)


def test_gradcheck_of_what_compares_views() -> None:
    image, warped = random(1, 2, 6, 7), (0.2 + 0.6 * random(1, 2, 6, 7, seed=3)).requires_grad_()
    assert torch.autograd.gradcheck(lambda each: photometric_error(image, each), warped)
    d = random(1, 5, 6, seed=4).requires_grad_()
    assert torch.autograd.gradcheck(lambda each: slopes(each, image[..., :5, :6]), d)
