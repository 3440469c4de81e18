"""Optimizers that every task offers."""

from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from tiepoint.cli import main
from tiepoint.tasks.base import OptimizerName, build_optimizer


def _network() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(3, 16, 3), nn.Conv2d(16, 24, 3), nn.Conv2d(24, 1, 1))


def _step(network: nn.Module, optimizer: torch.optim.Optimizer, seed: int) -> float:
    images = torch.rand(4, 3, 12, 12, generator=torch.Generator().manual_seed(seed))
    loss: Tensor = (network(images) - images[:, :1, 2:-2, 2:-2]).square().mean()
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
    return float(loss.detach())


def _change(name: OptimizerName, lr: float) -> list[Tensor]:
    """What one step along a random gradient changes: kernel and bias of the three layers."""
    network = _network()
    before = [each.detach().clone() for each in network.parameters()]
    for each in network.parameters():
        each.grad = torch.randn(each.shape, generator=torch.Generator().manual_seed(each.numel()))
    build_optimizer(name, network.parameters(), lr=lr, weight_decay=0.0).step()
    return [now.detach() - then for now, then in zip(network.parameters(), before, strict=True)]


def test_muon_steps_are_orthogonal() -> None:
    adamw, muon = (_change(name, 1e-3)[2].flatten(1) for name in ("adamw", "muon"))
    first, last = ((values := torch.linalg.svdvals(each))[0] / values[-1] for each in (adamw, muon))
    assert last < 2 < first  # Newton and Schulz's five steps leave singular values between 0.7 and 1.2


def test_muon_steps_are_a_fifth_of_the_largest_that_adamw_takes() -> None:
    change = _change("muon", 1e-3)[2]
    assert change.square().mean().sqrt() == pytest.approx(0.2e-3, rel=0.2)


def test_biases_and_kernels_of_few_rows_take_the_steps_of_adamw() -> None:
    adamw, muon = _change("adamw", 1e-3), _change("muon", 1e-3)
    for which in (1, 3, 4, 5):  # the biases, and the head of one output
        torch.testing.assert_close(muon[which], adamw[which])


def test_decay_shrinks_kernels_alone() -> None:
    network = _network()
    groups = build_optimizer("muon", network.parameters(), lr=1e-3, weight_decay=0.1).param_groups
    assert [group["weight_decay"] for group in groups] == [0.1, 0.0]
    assert [len(group["params"]) for group in groups] == [2, 4]


def test_what_is_frozen_stays() -> None:
    network = _network()
    network[0].requires_grad_(False)
    groups = build_optimizer("muon", network.parameters(), lr=1e-3, weight_decay=0.0).param_groups
    assert sum(len(group["params"]) for group in groups) == 4


@pytest.mark.parametrize("name", ["adamw", "muon"])
def test_a_resumed_optimizer_goes_on_as_if_never_stopped(name: OptimizerName, tmp_path: Path) -> None:
    network = _network()
    optimizer = build_optimizer(name, network.parameters(), lr=1e-3, weight_decay=0.01)
    for seed in range(3):
        _step(network, optimizer, seed)
    torch.save((network.state_dict(), optimizer.state_dict()), tmp_path / "half.ckpt")
    for seed in range(3, 6):
        _step(network, optimizer, seed)
    other = _network()
    again = build_optimizer(name, other.parameters(), lr=1e-3, weight_decay=0.01)
    weights, state = torch.load(tmp_path / "half.ckpt", weights_only=True)
    other.load_state_dict(weights)
    again.load_state_dict(state)
    for seed in range(3, 6):
        _step(other, again, seed)
    assert all(torch.equal(a, b) for a, b in zip(network.parameters(), other.parameters(), strict=True))


def test_an_unknown_optimizer_is_one_line(photos: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["fit", "--data.folders", str(photos), "--model.optimizer", "muom"]) == 2
    said = capsys.readouterr().err
    assert said.count("\n") == 1
    assert "muom" in said
