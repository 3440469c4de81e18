"""A training of depth, from photographs to the graph that the verb runs."""

from pathlib import Path

import pytest
import torch

from tiepoint.cli import main
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
        *("--trainer.log_every_n_steps", "1", "--trainer.accelerator", "cpu"),
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


def test_it_converts_among_the_formats_of_torch(
    checkpoint: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["convert", str(checkpoint), str(tmp_path / "sweep.pt")]) == 0
    assert main(["convert", str(tmp_path / "sweep.pt"), str(tmp_path / "sweep.ckpt")]) == 0
    assert "all weights equal" in capsys.readouterr().out


@pytest.mark.slow
def test_it_converts_to_the_graph_that_the_verb_runs(
    checkpoint: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    target = tmp_path / "sweep.onnx"
    assert main(["convert", str(checkpoint), str(target)]) == 0
    assert "of the pixels equal" in capsys.readouterr().out
    assert SweepGraph(target) is not None
