"""A training of depth, from photographs to the graph that the verb runs."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from PIL import Image
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from torch import Tensor

from tiepoint.checkpoints import read_weights
from tiepoint.cli import main
from tiepoint.conversion import sweep_parity
from tiepoint.errors import InputError
from tiepoint.models.sweep import PlaneSweep
from tiepoint.ops.depth_losses import mean_where, slopes
from tiepoint.ops.sampling import pixel_grid, warp_image
from tiepoint.runtime.sweep import SweepGraph
from tiepoint.tasks.depth import DepthTask, begin_with, compared

pytestmark = [
    pytest.mark.filterwarnings("ignore::lightning.pytorch.utilities.warnings.PossibleUserWarning"),
    pytest.mark.filterwarnings("ignore:The dirpath has changed"),
]


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


# kinds of data


def slanted(batch: int = 2, size: tuple[int, int] = (64, 96)) -> dict[str, Tensor]:
    """A rectified pair of a slanted wall: d = 10 + x / 24 + y / 32."""
    noise = torch.rand((batch, 3, 16, 24), generator=torch.Generator().manual_seed(0))
    image1 = torch.nn.functional.interpolate(noise, size, mode="bicubic").clamp(0, 1)
    grid = pixel_grid(*size)
    d = (10 + grid[..., 0] / 24 + grid[..., 1] / 32).expand(batch, -1, -1)
    image0 = warp_image(image1, grid - torch.stack((d, torch.zeros_like(d)), dim=-1))
    return {
        "image0": image0,
        "image1": image1,
        "inverse_depth0": d,
        "visible0": grid[..., 0] - d >= 0,
        "at_infinity": torch.eye(3).repeat(batch, 1, 1),
        "epipole": torch.tensor([[-1.0, 0, 0]]).repeat(batch, 1),
        "planes": 4.0 * torch.arange(8.0).repeat(batch, 1),
    }


def test_views_that_fit_are_told_from_those_that_do_not() -> None:
    batch = slanted()
    true = batch["inverse_depth0"] / 4
    errors = []
    for off in (0.0, 0.25, 0.5, 1.0):
        found, error, seen = compared(batch, true + off)
        assert torch.allclose(found, batch["inverse_depth0"] + 4 * off)
        errors.append(float(error[seen].mean()))
    assert errors == sorted(errors)
    assert errors[0] < 0.02
    _, error, seen = compared(batch, true)
    assert not (seen & ~batch["visible0"]).any()
    assert seen[batch["visible0"]].float().mean() > 0.9
    # where no parallax fits better than what was found, nothing is learned
    assert not compared(batch | {"image1": batch["image0"]}, true)[2].any()


def test_the_views_alone_pull_the_depth_to_where_they_fit() -> None:
    batch = slanted()
    true = batch["inverse_depth0"] / 4
    plane = (true + 0.3 * torch.sin(pixel_grid(64, 96).sum(-1) / 9)).requires_grad_()
    before = float((plane.detach() - true).abs()[batch["visible0"]].mean())
    optimizer = torch.optim.Adam([plane], lr=0.02)
    for _ in range(60):
        found, error, seen = compared(batch, plane)
        loss = 10 * mean_where(error, seen) + 0.1 * mean_where(slopes(found / found.mean(), batch["image0"]), seen)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    after = float((plane.detach() - true).abs()[batch["visible0"]].mean())
    assert after < 0.4 * before


@pytest.mark.parametrize("kind", ["known", "partly", "hole", "none"])
def test_what_is_learned_depends_on_what_is_known(kind: str) -> None:
    batch = slanted()
    if kind in ("partly", "hole"):
        batch["known0"] = torch.ones_like(batch["visible0"]).expand(2, -1, -1).clone()
        batch["known0"][:, 20:40] = False
        batch["inverse_depth0"] = torch.where(batch["known0"], batch["inverse_depth0"], 0.0)
    if kind == "hole":  # view 1 does not show it
        batch["visible0"] = batch["visible0"] & batch["known0"]
    if kind == "none":
        del batch["inverse_depth0"], batch["visible0"]
    torch.manual_seed(0)
    task = DepthTask(PlaneSweep(), matcher=None)
    logged: dict[str, float] = {}
    task.log_dict = lambda values, **_: logged.update(values)  # type: ignore[method-assign]
    task.log = lambda *_, **__: None  # type: ignore[method-assign]
    loss = task.training_step(batch, 0)
    loss.backward()
    learned = [p.grad for p in task.model.parameters() if p.requires_grad]
    assert all(gradient is None or gradient.isfinite().all() for gradient in learned)
    assert any(gradient is not None and gradient.abs().sum() > 0 for gradient in learned)
    assert ("train/photometric" in logged) == (kind in ("partly", "none"))
    assert (float(logged["train/likelihood"]) > 0) == (kind != "none")
    task.validation_step(batch, 0)
    assert set(task.means.compute()) == (
        {"likeness"} if kind == "none" else {"accuracy", "epe", "accuracy_seen", "epe_seen"}
    )


def test_validation_without_depth_prefers_what_fits(monkeypatch: pytest.MonkeyPatch) -> None:
    batch = slanted()
    true = batch.pop("inverse_depth0") / 4
    del batch["visible0"]
    task = DepthTask(PlaneSweep(), matcher=None)
    likeness = []
    for off in (0.0, 0.5):
        swept = task.sweep(batch)[0]._replace(plane=true + off)
        monkeypatch.setattr(task.model, "sweep", lambda *_, swept=swept: swept)
        task.validation_step(batch, 0)
        monkeypatch.undo()
        likeness.append(task.means.compute()["likeness"])
    assert 1 > likeness[0] > likeness[1] + 0.05


def test_unknown_depths_do_not_count() -> None:
    batch = slanted()
    known = torch.ones((2, 64, 96), dtype=torch.bool)
    known[:, :, 50:] = False
    losses = []
    for wrong in (0.0, 9.0):
        torch.manual_seed(0)
        task = DepthTask(PlaneSweep(), matcher=None)
        logged: dict[str, float] = {}
        task.log_dict = lambda values, into=logged, **_: into.update(values)  # type: ignore[method-assign]
        task.log = lambda *_, **__: None  # type: ignore[method-assign]
        depth = torch.where(known, batch["inverse_depth0"], wrong)
        losses.append(task.training_step(batch | {"known0": known, "inverse_depth0": depth}, 0).item())
    assert losses[0] == losses[1]


@pytest.fixture
def stereo_folder(tmp_path: Path) -> Path:
    """Three scenes, of which one has a disparity."""
    for number in range(3):
        pair = slanted(1, (96, 128))
        place = tmp_path / "stereo" / f"scene{number}"
        place.mkdir(parents=True)
        for name, image in (("left", pair["image0"]), ("right", pair["image1"])):
            Image.fromarray((255 * image[0]).byte().permute(1, 2, 0).numpy()).save(place / f"{name}.png")
        if number == 0:
            np.save(place / "disp_left.npy", pair["inverse_depth0"][0].numpy())
    return tmp_path / "stereo"


def test_all_kinds_of_data_train_together(photos: Path, posed: Path, stereo_folder: Path, tmp_path: Path) -> None:
    options: dict[str, Any] = {"size": [64, 96], "batch_size": 2, "held_out_pairs": 2, "planes": 8}
    folders = {
        "stereo.StereoPairs": {"folders": str(photos)},
        "parallax.ParallaxPairs": {"folders": str(photos)},
        "posed_sweeps.PosedSweeps": {"folder": str(posed), "overlap": [0.0, 1.0]},
        "measured_stereo.MeasuredStereo": {"folder": str(stereo_folder)},
    }
    sources = [{"class_path": f"tiepoint.data.{name}", "init_args": where | options} for name, where in folders.items()]
    recipe = yaml.safe_load((Path(__file__).parents[2] / "recipes" / "depth-finetune.yaml").read_text())
    recipe["data"]["init_args"] |= {"sources": sources, "weights": None, "epoch_steps": 8, "num_workers": 0}
    (tmp_path / "mixed.yaml").write_text(yaml.safe_dump(recipe))
    command = [
        *("fit", "--config", str(tmp_path / "mixed.yaml"), "--trainer.max_steps", "8"),
        *("--trainer.val_check_interval", "8", "--trainer.precision", "32-true", "--trainer.accelerator", "cpu"),
        *("--trainer.log_every_n_steps", "1", "--trainer.default_root_dir", str(tmp_path)),
        *("--trainer.logger.save_dir", str(tmp_path), "--trainer.logger.version", "run"),
    ]
    assert main(command) == 0
    assert (tmp_path / "run" / "last.ckpt").is_file()
    events = EventAccumulator(str(tmp_path / "run")).Reload()
    tags = set(events.Tags()["scalars"])
    assert {"train/likelihood", "train/photometric", "train/smoothness", "val/accuracy"} <= tags
