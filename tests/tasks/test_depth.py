"""A training of depth, from photographs to the graph that the verb runs."""

import json
from pathlib import Path

import pytest
import torch

from tiepoint.checkpoints import read_weights
from tiepoint.cli import main
from tiepoint.conversion import sweep_parity
from tiepoint.errors import InputError
from tiepoint.models.sweep import PlaneSweep
from tiepoint.runtime.sweep import SweepGraph
from tiepoint.tasks.depth import DepthTask, begin_with


def test_the_pyramid_of_the_embedded_matcher_is_taken_over(tmp_path: Path) -> None:
    model = PlaneSweep()
    before = model.backbone.fuse[1].weight.clone()
    begin_with(model, "default")
    assert not torch.equal(model.backbone.fuse[1].weight, before)
    with pytest.raises(InputError, match="PyramidExtractor"):
        begin_with(PlaneSweep(dim=32), "default")


@pytest.fixture(scope="module")
def checkpoint(photos: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Of two steps."""
    folder = tmp_path_factory.mktemp("depth")
    recipe = Path(__file__).parents[2] / "recipes" / "depth.yaml"
    command = [
        *("fit", "--config", str(recipe), "--data.folders", str(photos), "--data.size", "[64,96]"),
        *("--data.batch_size", "2", "--data.held_out_pairs", "2", "--data.num_workers", "0", "--data.planes", "8"),
        *("--trainer.max_steps", "2", "--trainer.val_check_interval", "2", "--trainer.precision", "32-true"),
        *("--trainer.log_every_n_steps", "1", "--trainer.accelerator", "cpu", "--model.lr", "2e-3"),
        *("--trainer.default_root_dir", str(folder)),
        *("--trainer.logger.save_dir", str(folder), "--trainer.logger.version", "run"),
    ]
    assert main(command) == 0
    (found,) = folder.rglob("last.ckpt")
    return found


def test_a_training_remembers_its_network_and_keeps_the_pyramid(checkpoint: Path) -> None:
    task = DepthTask.load_from_checkpoint(checkpoint, map_location="cpu")
    assert isinstance(task.model, PlaneSweep)
    begun = PlaneSweep()
    begin_with(begun, "default")
    assert torch.equal(task.model.backbone.fuse[1].weight, begun.backbone.fuse[1].weight)
    assert not torch.equal(task.model.aggregate.score.weight, begun.aggregate.score.weight)


@pytest.fixture(autouse=True)
def small_pairs(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of the proof of a conversion."""
    monkeypatch.setattr(sweep_parity, "CASES", (((64, 96), 8), ((96, 64), 12)))
    monkeypatch.setattr(sweep_parity, "bundled_photo", lambda: None)


def test_it_converts_among_the_formats_of_torch(
    checkpoint: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["convert", str(checkpoint), str(tmp_path / "sweep.pt")]) == 0
    assert main(["convert", str(tmp_path / "sweep.pt"), str(tmp_path / "sweep.ckpt")]) == 0
    assert "100.00% of the inverse depths equal" in capsys.readouterr().out


@pytest.mark.slow
def test_it_becomes_the_graph_that_the_verb_runs_and_can_be_trained_again(
    checkpoint: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    graph, back, warm, report = (tmp_path / name for name in ("a.onnx", "a.pt", "warm.ckpt", "a.json"))
    assert main(["convert", str(checkpoint), str(graph), "--report", str(report)]) == 0
    assert "100.00% of the inverse depths equal" in capsys.readouterr().out
    assert SweepGraph(graph) is not None
    rows = json.loads(report.read_text())["sweeps"]
    assert {row["name"] for row in rows} >= {"96×64", "64×96", "noise"}
    assert all(row["same"] > 0.99 and row["largest_confidence"] < 0.01 for row in rows)

    assert main(["convert", str(graph), str(back)]) == 0
    assert main(["convert", str(graph), str(warm)]) == 0
    states = [read_weights(path).model.state_dict() for path in (checkpoint, back, warm)]
    for name, value in states[0].items():
        for other in states[1:]:
            assert torch.allclose(other[name], value, rtol=1e-4, atol=1e-5 * float(value.abs().max())), name
    assert DepthTask.load_from_checkpoint(warm, map_location="cpu").hparams["lr"] == 2e-3


def test_what_only_matching_networks_become_is_refused(
    checkpoint: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for option in (["--shape", "extractor"], ["--precision", "fp16"]):
        assert main(["convert", str(checkpoint), str(tmp_path / "a.onnx"), *option]) == 2
        assert "PlaneSweep, which has one form of graph alone" in capsys.readouterr().err
    assert not list(tmp_path.iterdir())
