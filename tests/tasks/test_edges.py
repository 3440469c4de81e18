"""The task of edges: its loss, and the figures of maps whose answer is known."""

from pathlib import Path
from typing import Any

import pytest
import torch

from tiepoint.models.edges import EdgeNetwork
from tiepoint.ops.edges import edge_cross_entropy
from tiepoint.tasks.edges import EdgeTask


class Drawn(EdgeNetwork):
    """Returns what is written into the red channel."""

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        return image[:, :1]


@pytest.fixture
def task() -> EdgeTask:
    torch.manual_seed(0)
    made = EdgeTask(EdgeNetwork(widths=(8, 8), dim=8), workers=1)
    made.log = lambda name, value, **_: logged.__setitem__(name, float(torch.as_tensor(value).detach()))  # type: ignore[method-assign]
    return made


logged: dict[str, float] = {}


def batch(seed: int = 0) -> dict[str, Any]:
    generator = torch.Generator().manual_seed(seed)
    consensus = torch.zeros(2, 1, 40, 48)
    consensus[..., torch.randint(48, (2,), generator=generator)] = 1
    consensus[..., torch.randint(40, (2,), generator=generator), :] = 1
    return {"image": torch.rand(2, 3, 40, 48, generator=generator), "consensus": consensus}


def test_the_loss_is_that_of_the_last_output_and_a_share_of_the_levels(task: EdgeTask) -> None:
    task.eval()
    given = batch()
    with torch.no_grad():
        loss = task.training_step(given, 0)
        terms = [edge_cross_entropy(each, given["consensus"]).mean() for each in task.model.logits(given["image"])]
    assert torch.isclose(loss, terms[-1] + 0.4 * torch.stack(terms[:-1]).mean())
    assert logged["train/last"] == pytest.approx(float(terms[-1]))


def test_some_steps_learn_a_batch(task: EdgeTask) -> None:
    task.train()
    given = batch()
    given["image"][:, 0] = given["consensus"][:, 0]
    optimizer = torch.optim.AdamW(task.parameters(), lr=1e-2)
    losses = []
    for _ in range(25):
        optimizer.zero_grad()
        loss = task.training_step(given, 0)
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < 0.5 * losses[0]


@pytest.mark.parametrize(("stage", "shift", "expected"), [("val", 0, 1.0), ("test", 1, 1.0), ("test", 12, 0.0)])
def test_the_figures_of_a_known_map(stage: str, shift: int, expected: float) -> None:
    """A map that draws what the annotators drew is right, also a pixel aside, and wrong when it draws elsewhere."""
    made, figures = EdgeTask(Drawn(widths=(8,), dim=8), workers=1), {}
    made.log = lambda name, value, **_: figures.__setitem__(name, float(torch.as_tensor(value).detach()))  # type: ignore[method-assign]
    truth = torch.zeros(1, 2, 120, 160, dtype=torch.bool)
    truth[..., 10:110, 50] = True
    image = torch.zeros(1, 3, 120, 160)
    image[..., 10:110, 50 + shift] = 0.8
    step = {"val": made.validation_step, "test": made.test_step}[stage]
    step({"image": image, "annotations": truth}, 0)
    {"val": made.on_validation_epoch_end, "test": made.on_test_epoch_end}[stage]()
    assert figures[f"{stage}/ods"] == pytest.approx(expected)
    assert figures[f"{stage}/ois"] == pytest.approx(expected)


def test_a_checkpoint_tells_its_settings(task: EdgeTask, tmp_path: Path) -> None:
    assert task.hparams["agreed"] == 0.3
    assert task.hparams["model"]["class_path"] == "tiepoint.models.edges.EdgeNetwork"
    assert task.hparams["model"]["init_args"]["dim"] == 8
