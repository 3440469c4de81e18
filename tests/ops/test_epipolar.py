from typing import NamedTuple

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from kornia.geometry.conversions import axis_angle_to_rotation_matrix
from torch import Tensor

from tiepoint.evaluation import metrics
from tiepoint.ops import epipolar
from tiepoint.ops.epipolar import (
    essential_from_pose,
    null_vector,
    pose_from_essential,
    rotation_error,
    sampson_distance,
    symmetric_epipolar_distance,
    translation_error,
    triangulate,
    weighted_eight_point,
)

turns = st.tuples(*[st.floats(-0.6, 0.6)] * 3)
moves = st.tuples(*[st.floats(-1, 1)] * 3).filter(lambda t: sum(x * x for x in t) > 0.1)


class Scene(NamedTuple):
    """Points before two cameras, and where these see them."""

    points: Tensor
    rays0: Tensor
    rays1: Tensor
    R: Tensor
    t: Tensor

    @property
    def E(self) -> Tensor:
        return essential_from_pose(self.R, self.t)


def scene(
    turn: tuple[float, ...] = (0.1, -0.2, 0.05), move: tuple[float, ...] = (1.0, 0.2, -0.3), n: int = 20
) -> Scene:
    rng = torch.Generator().manual_seed(n)
    low, extent = torch.tensor([-2.0, -2.0, 4.0]).double(), torch.tensor([4.0, 4.0, 4.0]).double()
    points = low + extent * torch.rand((1, n, 3), generator=rng, dtype=torch.float64)
    R = axis_angle_to_rotation_matrix(torch.tensor([turn], dtype=torch.float64))
    t = torch.nn.functional.normalize(torch.tensor([move], dtype=torch.float64))
    moved = points @ R.transpose(1, 2) + t
    return Scene(points, points[..., :2] / points[..., 2:], moved[..., :2] / moved[..., 2:], R, t)


def noisy(made: Scene, sigma: float = 0.01) -> tuple[Tensor, Tensor]:
    rng = torch.Generator().manual_seed(1)
    return tuple(
        rays + sigma * torch.randn(rays.shape, generator=rng, dtype=torch.float64) for rays in (made.rays0, made.rays1)
    )


@settings(max_examples=40, deadline=None)
@given(turn=turns, move=moves)
def test_exact_matches_give_the_pose_and_the_points(turn: tuple[float, ...], move: tuple[float, ...]) -> None:
    made = scene(turn, move)
    if not (made.points @ made.R.transpose(1, 2) + made.t)[..., 2].min() > 0.5:
        return  # behind camera 1
    E = weighted_eight_point(made.rays0, made.rays1)
    assert sampson_distance(made.rays0, made.rays1, E).abs().max() < 1e-9
    pose = pose_from_essential(E, made.rays0, made.rays1)
    assert rotation_error(pose.rotation, made.R) < 1e-5
    assert (pose.translation - made.t).norm() < 1e-5  # with its sign
    assert pose.before.all()
    points = triangulate(made.rays0, made.rays1, pose.rotation, pose.translation)
    assert (points - made.points).norm(dim=-1).max() < 1e-3


def test_matches_of_no_weight_do_not_count() -> None:
    made = scene()
    wrong = made.rays1.clone()
    wrong[:, :8] = wrong[:, :8].flip(1)
    weights = torch.ones(1, 20).double()
    weights[:, :8] = 0
    right = weighted_eight_point(made.rays0, wrong, weights)
    assert sampson_distance(made.rays0, made.rays1, right).abs().max() < 1e-9
    assert sampson_distance(made.rays0, made.rays1, weighted_eight_point(made.rays0, wrong)).abs().max() > 1e-3
    pose = pose_from_essential(right, made.rays0, wrong, weights)
    assert rotation_error(pose.rotation, made.R) < 1e-6


def test_a_batch_is_its_items() -> None:
    a, b = scene(), scene((0.3, 0.1, 0.0), (0.0, 0.1, 1.0))
    rays = tuple(torch.cat(pair) for pair in zip(noisy(a), noisy(b), strict=True))
    both = pose_from_essential(weighted_eight_point(*rays), *rays)
    for index, made in enumerate((a, b)):
        alone = pose_from_essential(weighted_eight_point(*noisy(made)), *noisy(made))
        torch.testing.assert_close(both.rotation[index], alone.rotation[0])
        torch.testing.assert_close(both.translation[index], alone.translation[0])


def test_the_pose_of_a_noisy_matrix_is_that_of_the_nearest_essential_matrix() -> None:
    made = scene()
    E = weighted_eight_point(*noisy(made))[0]
    U, _, Vt = torch.linalg.svd(E)
    W = torch.tensor([[0.0, -1, 0], [1, 0, 0], [0, 0, 1]]).double()
    candidates = [U @ turn @ Vt * torch.linalg.det(U @ Vt) for turn in (W, W.T)]
    R = pose_from_essential(E[None], *noisy(made)).rotation[0]
    assert min((R - each).norm() for each in candidates) < 1e-9


def test_distances_and_errors_agree_with_those_of_the_benchmarks() -> None:
    made = scene((0.2, 0.1, -0.3), (0.3, 1.0, 0.1))
    x0, x1 = noisy(made)
    arrays = [values[0].numpy() for values in (made.E, x0, x1)]
    expected = metrics.symmetric_epipolar_distance(*arrays)
    np.testing.assert_allclose(symmetric_epipolar_distance(x0, x1, made.E)[0].numpy(), expected, rtol=1e-9)
    other = scene((0.1, 0.2, 0.4), (-1.0, 0.2, 0.3))
    assert np.rad2deg(float(rotation_error(made.R, other.R))) == pytest.approx(
        metrics.rotation_angle(made.R[0].numpy(), other.R[0].numpy())
    )
    assert np.rad2deg(float(translation_error(made.t, other.t))) == pytest.approx(
        metrics.translation_angle(made.t[0].numpy(), other.t[0].numpy())
    )


def test_the_sampson_distance_is_that_to_the_nearest_exact_match_at_first_order() -> None:
    made = scene()
    x0, x1 = noisy(made, 1e-4)
    distance = sampson_distance(x0, x1, made.E)[0].abs()
    # the exact one by Newton on the constraint, in (x0, x1) together
    for index in range(5):
        z = torch.cat((x0[0, index], x1[0, index])).clone()
        for _ in range(20):
            z.requires_grad_()
            e = torch.cat((z[2:], torch.ones(1).double())) @ made.E[0] @ torch.cat((z[:2], torch.ones(1).double()))
            (slope,) = torch.autograd.grad(e, z)
            z = (z - e * slope / slope.square().sum()).detach()
        nearest = (z - torch.cat((x0[0, index], x1[0, index]))).norm()
        assert distance[index] == pytest.approx(float(nearest), rel=1e-2)


@pytest.mark.parametrize("angle", [0.0, 1e-7, 0.3, np.pi - 1e-6])
def test_rotation_errors_keep_their_digits(angle: float) -> None:
    R = axis_angle_to_rotation_matrix(torch.tensor([[angle, 0.0, 0.0]], dtype=torch.float64))
    eye = torch.eye(3).double()[None].requires_grad_()
    error = rotation_error(R, eye)
    assert float(error.detach()) == pytest.approx(angle, abs=1e-7)
    assert torch.autograd.grad(error.sum(), eye)[0].isfinite().all()


def test_eight_matches_are_needed() -> None:
    with pytest.raises(ValueError, match="8 matches, got 7"):
        weighted_eight_point(torch.rand(1, 7, 2), torch.rand(1, 7, 2))


def gradcheck(function, *inputs: Tensor) -> None:  # noqa: ANN001
    assert torch.autograd.gradcheck(function, [each.clone().requires_grad_() for each in inputs], atol=1e-5)


def test_gradients() -> None:
    made = scene(n=10)
    x0, x1 = noisy(made, 0.02)
    weights = torch.linspace(0.2, 1, 10).double()[None]
    symmetric = x0.transpose(1, 2) @ x0 + torch.diag(torch.tensor([0.0, 1.0]).double())
    aligned = null_vector(symmetric).sign()
    gradcheck(lambda M: null_vector((M + M.transpose(1, 2)) / 2) * aligned, symmetric)
    # the sign of a null vector is arbitrary, but the same for small changes
    gradcheck(weighted_eight_point, x0, x1, weights)
    gradcheck(symmetric_epipolar_distance, x0, x1, made.E)
    gradcheck(sampson_distance, x0, x1, made.E)
    gradcheck(essential_from_pose, made.R, made.t)
    E = weighted_eight_point(x0, x1)
    gradcheck(lambda E: pose_from_essential(E, x0, x1)[:2], E)
    gradcheck(lambda x0, x1, R, t: triangulate(x0, x1, R, t), x0, x1, made.R, made.t)
    other = scene((0.5, 0.2, 0.1), (0.1, 0.3, 1.0))
    gradcheck(rotation_error, made.R, other.R)
    gradcheck(translation_error, made.t, other.t)


def test_the_pose_has_a_gradient_from_exact_matches_too() -> None:
    """Where the two singular values of E are equal, and that of the singular vectors is not finite."""
    made = scene()
    rays = [each.clone().requires_grad_() for each in made[1:3]]
    pose = pose_from_essential(weighted_eight_point(*rays), *rays)
    wanted = rotation_error(pose.rotation, scene((0.2, -0.2, 0.05)).R) + translation_error(
        pose.translation, scene(move=(1.0, 0.0, -0.3)).t
    )
    wanted.sum().backward()
    assert all(each.grad.isfinite().all() and each.grad.abs().max() > 0 for each in rays)


def test_descent_on_the_weights_finds_the_wrong_matches() -> None:
    """What a loss on the pose is for: the weights of wrong matches fall."""
    made = scene(n=24)
    wrong = made.rays1.clone()
    wrong[:, :4] += 0.3
    logits = torch.zeros(1, 24, dtype=torch.float64, requires_grad=True)
    optimiser = torch.optim.Adam([logits], lr=0.3)
    losses = []
    for _ in range(60):
        optimiser.zero_grad()
        E = weighted_eight_point(made.rays0, wrong, logits.sigmoid())
        pose = pose_from_essential(E, made.rays0, wrong)
        loss = (rotation_error(pose.rotation, made.R) + translation_error(pose.translation, made.t)).sum()
        loss.backward()
        optimiser.step()
        losses.append(float(loss.detach()))
    weights = logits.detach().sigmoid()[0]
    assert weights[:4].max() < weights[4:].median()
    assert losses[-1] < losses[0] / 3


@pytest.mark.parametrize("kind", ["one place", "no motion", "pure rotation", "plane", "line", "no weight", "no matrix"])
def test_degenerate_input_has_finite_gradients(kind: str) -> None:
    made = scene((0.0, 0.0, 0.0) if kind == "no motion" else (0.1, -0.2, 0.05))
    x0, x1, weights = made.rays0.clone(), made.rays1.clone(), torch.ones(1, 20).double()
    if kind == "one place":
        x0, x1 = torch.zeros_like(x0), torch.zeros_like(x1)
    if kind == "no motion":
        x1 = x0.clone()
    if kind == "pure rotation":
        moved = made.points @ made.R.transpose(1, 2)
        x1 = moved[..., :2] / moved[..., 2:]
    if kind == "plane":
        flat = torch.cat((made.points[..., :2], torch.full_like(made.points[..., :1], 5.0)), dim=-1)
        moved = flat @ made.R.transpose(1, 2) + made.t
        x0, x1 = flat[..., :2] / flat[..., 2:], moved[..., :2] / moved[..., 2:]
    if kind == "line":
        x0[..., 1], x1[..., 1] = 0, 0
    if kind == "no weight":
        weights = torch.zeros_like(weights)
    inputs = [each.requires_grad_() for each in (x0, x1, weights)]
    E = weighted_eight_point(*inputs)
    if kind == "no matrix":
        E = E * 0
    pose = pose_from_essential(E, x0, x1)
    values = (
        symmetric_epipolar_distance(x0, x1, E),
        sampson_distance(x0, x1, E),
        rotation_error(pose.rotation, made.R),
        translation_error(pose.translation, made.t),
    )
    total = sum(value.sum() for value in values)
    assert total.isfinite()
    for gradient in torch.autograd.grad(total, inputs):
        assert gradient.isfinite().all()
    identity = pose.rotation @ pose.rotation.transpose(1, 2)
    torch.testing.assert_close(identity, torch.eye(3).double()[None], atol=1e-6, rtol=0)


def test_every_function_is_tested_here() -> None:
    own = {name for name, value in vars(epipolar).items() if getattr(value, "__module__", "") == epipolar.__name__}
    assert {name for name in own if name[0].islower()} <= set(globals())
