"""The plane sweep: its geometry in closed form, its parts, and its graph."""

from pathlib import Path

import numpy as np
import onnxruntime
import pytest
import torch

from tiepoint.checkpoints import read_weights, sha256
from tiepoint.errors import InputError
from tiepoint.models.sweep import (
    Geometry,
    PlaneSweep,
    convex_enlarge,
    expected_plane,
    neighbours,
    plane_places,
)
from tiepoint.runtime.sweep import EMBEDDED, SweepGraph


def geometry(batch: int = 1) -> Geometry:
    A, e = torch.eye(3).repeat(batch, 1, 1), torch.tensor([[-1.0, 0, 0]]).repeat(batch, 1)
    return Geometry(A, e, torch.zeros(batch), torch.full((batch,), 4.0))


def test_places_of_rectified_stereo_are_shifts() -> None:
    planes = torch.arange(3.0).reshape(1, 3, 1, 1)
    places = plane_places(geometry(), planes, (5, 7), 1)
    x = torch.arange(7.0).expand(5, 7)
    for plane in range(3):
        assert torch.allclose(places[0, plane, ..., 0], x - 4 * plane)
        assert torch.allclose(places[0, plane, ..., 1], torch.arange(5.0).unsqueeze(1).expand(5, 7))


def test_places_are_projections_of_points_at_that_depth() -> None:
    K = torch.tensor([[50.0, 0, 16], [0, 50, 12], [0, 0, 1]])
    angle = torch.tensor(0.1)
    R = torch.tensor([[angle.cos(), 0, angle.sin()], [0, 1, 0], [-angle.sin(), 0, angle.cos()]])
    t = torch.tensor([0.3, -0.1, 0.2])
    views = Geometry((K @ R @ K.inverse())[None], (K @ t)[None], torch.tensor([0.1]), torch.tensor([0.05]))
    places = plane_places(views, torch.full((1, 1, 1, 1), 3.0), (24, 32), 1)
    point = (K.inverse() @ torch.tensor([20.0, 7.0, 1.0])) / 0.25
    seen = K @ (R @ point + t)
    assert torch.allclose(places[0, 0, 7, 20], seen[:2] / seen[2], atol=1e-3)


def test_the_expectation_is_exact_and_other_modes_do_not_vote() -> None:
    scores = torch.full((1, 9, 1, 1), -30.0)
    scores[0, 3], scores[0, 4] = torch.tensor(0.4).log(), torch.tensor(0.3).log()
    scores[0, 8] = torch.tensor(0.3).log()
    assert expected_plane(scores).item() == pytest.approx(3 + 0.3 / 0.7, abs=1e-4)
    free = torch.randn((1, 5, 2, 2), dtype=torch.float64, generator=torch.Generator().manual_seed(1)).requires_grad_()
    assert torch.autograd.gradcheck(expected_plane, free)


def test_enlarging_is_convex_and_keeps_planes() -> None:
    values = torch.rand((2, 4, 5), generator=torch.Generator().manual_seed(0), dtype=torch.float64).requires_grad_()
    weights = torch.rand((2, 9, 8, 10), generator=torch.Generator().manual_seed(1), dtype=torch.float64).softmax(1)
    large = convex_enlarge(values, weights)
    assert large.shape == (2, 8, 10)
    around = neighbours(values)
    assert (large <= around.amax(1).repeat_interleave(2, 1).repeat_interleave(2, 2) + 1e-9).all()
    assert torch.allclose(convex_enlarge(torch.ones_like(values), weights), torch.ones(2, 8, 10, dtype=torch.float64))
    assert torch.autograd.gradcheck(convex_enlarge, (values, weights))


def test_a_frozen_pyramid_gets_no_gradient_and_keeps_its_statistics() -> None:
    model = PlaneSweep().train()
    before = model.backbone.stem[0][1].running_mean.clone()
    image = torch.rand(1, 3, 64, 64)
    swept = model.sweep(image, image.roll(3, 3), geometry(), 8)
    assert [tuple(part.shape) for part in swept] == [(1, 8, 16, 16), (1, 32, 32), (1, 64, 64), (1, 64, 64)]
    (swept.plane.mean() + swept.scores.square().mean() + swept.confidence.mean()).backward()
    assert all(p.grad is None for p in model.backbone.parameters())
    learned = {name: p.grad for name, p in model.named_parameters() if p.requires_grad}
    assert all(gradient is not None and gradient.isfinite().all() for gradient in learned.values())
    assert torch.equal(model.backbone.stem[0][1].running_mean, before)
    assert (model.eval()(image, image, *geometry()[:2], torch.arange(8.0)[None])[1] <= 1).all()


def test_the_embedded_graph_prefers_the_true_plane() -> None:
    rng = np.random.default_rng(0)
    wide = rng.uniform(0, 255, (96, 160, 3)).astype(np.uint8).repeat(2, 0).repeat(2, 1)[:96, :200]
    left, right = wide[None, :, 0:160], wide[None, :, 16:176]  # x in the left one is x - 16 in the right one
    depth, confidence, likelihood = SweepGraph().run(
        left, right, np.eye(3)[None], np.array([[-1.0, 0, 0]]), 4.0 * np.arange(12)[None]
    )
    assert depth.shape == confidence.shape == (1, 96, 160)
    inner = likelihood[0, :, 3:-3, 8:-4]
    assert np.median(inner.argmax(0)) == 4
    assert abs(float(np.median(depth[0, 12:-12, 40:-12])) - 16) < 1
    assert np.allclose(np.exp(likelihood).sum(1), 1, atol=1e-3)


def test_the_embedded_file_can_be_trained_again() -> None:
    weights = read_weights(EMBEDDED)
    assert sha256(EMBEDDED) in EMBEDDED.with_suffix(".md").read_text(encoding="utf-8")
    assert weights.metadata["steps"] == 2531
    assert any(parameter.requires_grad for parameter in weights.sweep.train().parameters())
    with pytest.raises(InputError, match="PlaneSweep, which finds no keypoints"):
        _ = weights.extractor


def test_another_graph_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="does not exist"):
        SweepGraph(tmp_path / "none.onnx")
    with pytest.raises(InputError, match="DepthTask"):
        SweepGraph(EMBEDDED.parents[1] / "default.onnx")
    assert onnxruntime.InferenceSession(str(EMBEDDED)).get_modelmeta().custom_metadata_map["shape"] == "sweep"
