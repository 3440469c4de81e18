from typing import Any

import pytest
import torch
from torch import Tensor

from tiepoint.ops.depth import depth_warp
from tiepoint.ops.sampling import pixel_grid
from tiepoint.tasks.scores import MeanScores, PoseScores

SIZE = (96, 128)


def pair(noise: float = 0.0) -> tuple[tuple[Tensor, Tensor, Tensor, Tensor], dict[str, Any]]:
    """Matches of a wavy surface seen by two cameras, off by some pixels."""
    K = torch.tensor([[[100.0, 0.0, 63.5], [0.0, 100.0, 47.5], [0.0, 0.0, 1.0]]])
    T = torch.eye(4).unsqueeze(0)
    T[0, :3, 3] = torch.tensor([0.3, 0.1, -0.1])
    grid = pixel_grid(*SIZE)
    depth = (3 + 0.8 * torch.sin(grid[..., 0] / 9) * torch.cos(grid[..., 1] / 7)).unsqueeze(0)
    points = grid[10:-10:6, 20:-20:6].reshape(1, -1, 2)
    warp = depth_warp(depth, torch.zeros_like(depth), K, K, T).warp
    moved = warp[:, 10:-10:6, 20:-20:6].reshape(1, -1, 2)
    moved = moved + noise * torch.randn(moved.shape, generator=torch.Generator().manual_seed(0))
    count = points.shape[1]
    found = points, moved, torch.arange(count).unsqueeze(0), torch.ones(1, count)
    image = torch.zeros(1, 1, *SIZE)
    return found, {"image0": image, "image1": image, "posed": torch.tensor([True]), "K0": K, "K1": K, "T_0to1": T}


def test_right_matches_have_the_right_pose_and_random_ones_have_not() -> None:
    scores = PoseScores()
    for noise, low, high in ((0.0, 0.99, 1.0), (30.0, 0.0, 0.5)):
        found, batch = pair(noise)
        scores.update(*found, batch)
        areas = scores.compute()
        assert set(areas) == {"pose_auc@5", "pose_auc@10", "pose_auc@20"}
        assert all(low <= area <= high for area in areas.values())
    assert scores.compute() == {}


def test_pairs_without_a_pose_or_matches_are_no_error() -> None:
    found, batch = pair()
    scores = PoseScores()
    scores.update(*found, {name: value for name, value in batch.items() if name.startswith("image")})
    scores.update(*found, batch | {"posed": torch.tensor([False])})
    assert scores.compute() == {}
    points0, points1, matches, similarities = found
    scores.update(points0, points1, torch.full_like(matches, -1), similarities, batch)
    assert scores.compute() == {"pose_auc@5": 0.0, "pose_auc@10": 0.0, "pose_auc@20": 0.0}


def test_figures_of_pairs_are_averaged_by_their_names() -> None:
    scores = MeanScores()
    for name, values in (("accuracy", [1.0, 0.5]), ("accuracy/b", [0.25]), ("accuracy", [0.0])):
        scores.update(name, torch.tensor(values))
    assert scores.compute() == {"accuracy": pytest.approx(0.5), "accuracy/b": pytest.approx(0.25)}
    assert scores.compute() == {}
