"""Two processes do what one does: a real training by the installed command, on the CPU."""

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from PIL import Image
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from tiepoint.resume import newest_checkpoint

pytestmark = pytest.mark.filterwarnings("ignore::lightning.pytorch.utilities.warnings.PossibleUserWarning")
TWO = ("--trainer.devices", "2", "--trainer.strategy", "ddp")
GRADIENTS = '''
import torch
from lightning.pytorch.callbacks import Callback


class SaveGradient(Callback):
    """The gradients of all steps, as the optimizer gets them."""

    def __init__(self, path: str) -> None:
        self.path, self.steps = path, []

    def on_before_optimizer_step(self, trainer, task, optimizer) -> None:
        gradients = [weights.grad.flatten() for weights in task.parameters() if weights.grad is not None]
        self.steps.append(torch.cat(gradients))
        if trainer.is_global_zero:
            torch.save(torch.stack(self.steps), self.path)
'''


@pytest.fixture(scope="module")
def tiepoint(small_fit: Callable[..., list[str]], tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Path]:
    """Runs the installed command with a small training's options in `runs/NAME` of its folder, which it returns."""
    folder = tmp_path_factory.mktemp("processes")
    (folder / "gradients.py").write_text(GRADIENTS)

    def run(name: str, *options: str, verb: str = "fit") -> Path:
        where = ("--trainer.logger.version", name, "--trainer.precision", "32-true")
        data = ("--data.held_out_pairs", "5", "--data.epoch_pairs", "12")
        _, *command = small_fit(*where, *data, *options)
        done = subprocess.run(
            [str(Path(sys.executable).parent / "tiepoint"), verb, *command],
            cwd=folder,
            env=os.environ | {"PYTHONPATH": str(folder), "OMP_NUM_THREADS": "1"},
            capture_output=True,
            text=True,
            timeout=300,
        )
        assert done.returncode == 0, done.stderr
        (folder / "runs" / name / "stderr").write_text(done.stderr)
        return folder / "runs" / name

    return run


def figures(folder: Path, stage: str = "val") -> dict[str, float]:
    events = EventAccumulator(str(folder)).Reload()
    return {tag: events.Scalars(tag)[-1].value for tag in events.Tags()["scalars"] if tag.startswith(f"{stage}/")}


@pytest.fixture(scope="module")
def one(tiepoint: Callable[..., Path]) -> Path:
    steps = ("--trainer.max_steps", "3", "--trainer.val_check_interval", "6", "--trainer.accumulate_grad_batches", "2")
    return tiepoint("one", *steps, *saving("one.pt"))


@pytest.fixture(scope="module")
def two(tiepoint: Callable[..., Path]) -> Path:
    return tiepoint("two", "--trainer.max_steps", "3", "--trainer.val_check_interval", "3", *TWO, *saving("two.pt"))


def saving(name: str) -> list[str]:
    return ["--trainer.callbacks+=gradients.SaveGradient", f"--trainer.callbacks.path={name}"]


def test_two_processes_learn_what_one_does_that_accumulates_two_batches(one: Path, two: Path) -> None:
    ours, theirs = (torch.load(folder.parents[1] / f"{folder.name}.pt", weights_only=True) for folder in (one, two))
    assert ours[0].norm() > 1
    torch.testing.assert_close(ours[0], theirs[0], rtol=1e-3, atol=1e-5 * float(ours[0].norm()))
    # Adam moves the weights with the smallest gradients, whose digits are noise, as far as all others
    assert torch.cosine_similarity(ours, theirs, dim=1).min() > 0.98
    ours, theirs = figures(one), figures(two)
    assert ours.keys() == theirs.keys()
    # a match in each of the five pairs hangs on those digits; a wrong mean over the processes was off by 2.6
    assert ours["val/matches"] == pytest.approx(theirs["val/matches"], abs=1.0)


def test_a_batch_is_what_two_halves_accumulate(tiepoint: Callable[..., Path], photos: Path, tmp_path: Path) -> None:
    """Where neither batch norm nor negatives from other photos look across a batch, and views are not drawn."""
    for path in photos.iterdir():
        Image.open(path).convert("L").save(tmp_path / path.name)
    names = ("jitter", "rotation", "shift", "parallax", "bending", "photometric")
    still = ["--data.folders", str(tmp_path), *(f"--data.{name}=0" for name in names), "--data.zoom=1"]
    task = ["--model", "AttentionTask", "--model.keypoints", "48", "--model.max_keypoints", "48"]
    steps = ["--trainer.max_steps", "1", "--trainer.limit_val_batches", "0"]
    whole = tiepoint("whole", *still, *task, *steps, "--data.batch_size", "4", *saving("whole.pt"))
    tiepoint("halves", *still, *task, *steps, "--trainer.accumulate_grad_batches", "2", *saving("halves.pt"))
    gradients = [torch.load(whole.parents[1] / f"{name}.pt", weights_only=True) for name in ("whole", "halves")]
    assert gradients[0].norm() > 0.01
    torch.testing.assert_close(*gradients, rtol=1e-3, atol=1e-4 * float(gradients[0].norm()))


def test_figures_are_not_counted_twice(tiepoint: Callable[..., Path], two: Path) -> None:
    """Five pairs for two processes: one has three of them."""
    checkpoint = ("--ckpt_path", str(two / "last.ckpt"))
    found = [
        figures(tiepoint(name, *checkpoint, *processes, verb="validate"))
        for name, processes in (("alone", ()), ("together", TWO))
    ]
    assert {"val/accuracy", "val/repeatability", "val/matches"} <= found[0].keys()
    assert found[1] == pytest.approx(found[0], rel=1e-5)


def test_files_are_written_once_and_the_first_process_speaks_for_both(two: Path) -> None:
    names = sorted(path.name for path in two.iterdir())
    assert [name for name in names if not name.startswith(("best", "events"))] == [
        *("config.yaml", "hparams.yaml", "last.ckpt", "matches", "pairs", "run.log", "stderr")
    ]
    assert len([name for name in names if name.startswith("events")]) == 1
    assert (two / "run.log").read_text().count("step 3: accuracy") == 1
    assert (two / "stderr").read_text().count("step 3: accuracy") == 1
    assert [path.name for path in two.parent.iterdir() if path.name.startswith("version")] == []


FAILING = """
import torch
from tiepoint.tasks.matching import MatchingTask


class Failing(MatchingTask):
    def training_step(self, batch, batch_idx):
        loss = super().training_step(batch, batch_idx)
        here = self.trainer.world_size == 1 or self.global_rank == WHICH
        if here and self.global_step == 2 and self.trainer.max_steps == 4:
            raise ValueError(f"loss {loss.item():.9g}, draw {torch.rand(()).item():.9g}")
        return loss
"""


@pytest.mark.parametrize("which", [0, pytest.param(1, marks=pytest.mark.slow)])
def test_when_one_process_fails_all_end_its_step_is_kept_and_the_training_goes_on(
    tiepoint: Callable[..., Path], small_fit: Callable[..., list[str]], tmp_path: Path, which: int
) -> None:
    (tmp_path / "failing.py").write_text(FAILING.replace("WHICH", str(which)))
    command = small_fit(
        *("--model", "failing.Failing", "--trainer.max_steps", "4", "--trainer.val_check_interval", "2", *TWO),
        *("--data.epoch_pairs", "12", "--checkpoint.every_n_train_steps", "1"),
    )
    installed = str(Path(sys.executable).parent / "tiepoint")
    env = os.environ | {"PYTHONPATH": str(tmp_path), "OMP_NUM_THREADS": "1"}
    done = subprocess.run([installed, *command], cwd=tmp_path, env=env, capture_output=True, text=True, timeout=120)
    assert done.returncode != 0
    said = next(line for line in done.stderr.splitlines() if line.startswith("tiepoint: ValueError: loss"))
    folder = tmp_path / "runs" / "version_0"
    assert [path.name for path in folder.parent.iterdir()] == ["version_0"]
    replay = [installed, "replay", str(folder / "crash"), "--device", "cpu"]
    again = subprocess.run(replay, cwd=tmp_path, env=env, capture_output=True, text=True, timeout=120)
    assert again.stderr.splitlines()[-1] == said
    assert torch.load(newest_checkpoint(folder), weights_only=True)["global_step"] == 2
    more = [installed, *command, "--trainer.max_steps", "5", "--ckpt_path", "last"]
    done = subprocess.run(more, cwd=tmp_path, env=env, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    assert torch.load(folder / "last.ckpt", weights_only=True)["global_step"] == 5
