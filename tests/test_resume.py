"""A run that was stopped, at any moment and in any way, ends as the run that was not."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import nullcontext
from functools import partial
from pathlib import Path
from typing import Any

import lightning as L
import pytest
import torch
from lightning.pytorch.plugins import MixedPrecision
from loguru import logger
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from torch import Tensor

from tiepoint.callbacks import AverageWeights, RunCheckpoint
from tiepoint.cli import main
from tiepoint.data.mixed import MixedPairs
from tiepoint.data.photos import PhotoPairs
from tiepoint.data.posed import PosedPairs
from tiepoint.errors import InputError
from tiepoint.models.pyramid import PyramidExtractor
from tiepoint.resume import AtomicCheckpoints, SeededSteps, keep_previous, newest_checkpoint, newest_run
from tiepoint.tasks.matching import MatchingTask

pytestmark = [
    pytest.mark.filterwarnings("ignore::lightning.pytorch.utilities.warnings.PossibleUserWarning"),
    pytest.mark.filterwarnings("ignore:The dirpath has changed"),
]
STEPS = 10  # epochs of 4 steps, a validation every 3: no two of them fall together


class StoppedError(RuntimeError):
    """What `Stop` raises."""


class Stop(L.Callback):
    """Ends the training with an error before a batch is trained on."""

    def __init__(self, batch: int) -> None:
        self.batch = batch

    def on_train_batch_start(self, trainer: L.Trainer, *args: Any) -> None:
        if trainer.fit_loop.total_batch_idx == self.batch:
            raise StoppedError


class Curve(L.Callback):
    """The loss of every step."""

    def __init__(self) -> None:
        self.losses: dict[int, float] = {}

    def on_train_batch_end(self, trainer: L.Trainer, *args: Any) -> None:
        self.losses[trainer.global_step] = float(trainer.callback_metrics["train/loss"])


def photo_pairs(photos: Path, **options: Any) -> PhotoPairs:
    return PhotoPairs(str(photos), epoch_pairs=8, ease=0.8, **options)


def posed_pairs(posed: Path, **options: Any) -> PosedPairs:
    return PosedPairs(posed, epoch_pairs=8, **options)


def mixed_pairs(photos: Path, posed: Path, *, num_workers: int, **options: Any) -> MixedPairs:
    sources = [each(folder, **options) for each, folder in ((photo_pairs, photos), (posed_pairs, posed))]
    return MixedPairs(sources, [0.4, 0.6], epoch_steps=4, num_workers=num_workers)


def train(
    make_data: Callable[..., L.LightningDataModule],
    folder: Path,
    *,
    resume: Path | None = None,
    stop: int | None = None,
    workers: int = 0,
    half: bool = False,
) -> tuple[dict[str, Tensor], dict[int, float]]:
    """The weights and the curve of a training that writes a checkpoint every 3 steps."""
    L.seed_everything(3 if resume is None else 99)  # how the resumed process was seeded does not matter
    task = MatchingTask(PyramidExtractor(dim=32), detections=20, random_points=8, max_keypoints=32, lr=5e-3)
    options: dict[str, Any] = {"size": (64, 64), "batch_size": 2, "held_out_pairs": 2, "num_workers": workers}
    data = make_data(**options)
    saving = RunCheckpoint(every_n_train_steps=3)
    saving.dirpath = str(folder)
    curve = Curve()
    trainer = L.Trainer(
        max_steps=STEPS,
        max_epochs=-1,
        accelerator="cpu",
        deterministic=True,
        logger=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        num_sanity_val_steps=0,
        val_check_interval=3,
        check_val_every_n_epoch=None,
        log_every_n_steps=1,
        # Lightning itself takes bfloat16 on a CPU, which needs no scale
        plugins=[AtomicCheckpoints(), *([MixedPrecision("16-mixed", "cpu")] if half else [])],
        callbacks=[SeededSteps(), AverageWeights(0.9), saving, curve, *([] if stop is None else [Stop(stop)])],
    )
    with nullcontext() if stop is None else pytest.raises(StoppedError):
        trainer.fit(task, data, ckpt_path=resume)
    return task.state_dict(), curve.losses


@pytest.fixture(scope="module")
def straight(photos: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[dict[str, Tensor], dict[int, float]]:
    return train(partial(photo_pairs, photos), tmp_path_factory.mktemp("straight"))


@pytest.mark.parametrize("stop", range(1, STEPS))
def test_a_training_that_fails_at_any_step_goes_on_as_if_it_had_not(
    straight: tuple[dict[str, Tensor], dict[int, float]], photos: Path, tmp_path: Path, stop: int
) -> None:
    """Within an epoch, at its end, right before and after a validation: from what is kept when it fails."""
    data = partial(photo_pairs, photos)
    _, before = train(data, tmp_path, stop=stop)
    weights, after = train(data, tmp_path / "more", resume=newest_checkpoint(tmp_path))
    expected_weights, expected = straight
    assert {**before, **after} == expected
    assert set(before) | set(after) == set(range(1, STEPS + 1))
    assert all(torch.equal(value, weights[name]) for name, value in expected_weights.items())


@pytest.mark.parametrize("stop", [5, 8])
def test_a_training_that_is_killed_goes_on_from_its_last_checkpoint(
    straight: tuple[dict[str, Tensor], dict[int, float]], photos: Path, tmp_path: Path, stop: int
) -> None:
    """What the failure itself kept is taken away: the steps since the last regular checkpoint are made again."""
    data = partial(photo_pairs, photos)
    train(data, tmp_path, stop=stop, workers=1)
    (tmp_path / "last.ckpt").unlink()
    again = newest_checkpoint(tmp_path)
    reached = torch.load(again, weights_only=True)["global_step"]
    assert 0 < reached < stop
    weights, after = train(data, tmp_path / "more", resume=again)
    expected_weights, expected = straight
    assert after == {step: loss for step, loss in expected.items() if step > reached}
    assert all(torch.equal(value, weights[name]) for name, value in expected_weights.items())


@pytest.mark.filterwarnings("ignore:Detected call of `lr_scheduler.step")  # of a step that was left out
def test_the_scale_of_the_loss_goes_on_too(photos: Path, tmp_path: Path) -> None:
    """In half precision it is looked for, from far too high: the first steps are left out."""
    data = partial(photo_pairs, photos)
    expected_weights, expected = train(data, tmp_path / "straight", half=True)
    _, before = train(data, tmp_path / "stopped", stop=4, half=True)
    reached = newest_checkpoint(tmp_path / "stopped")
    assert 0 < torch.load(reached, weights_only=True)["MixedPrecision"]["scale"] < 2**16
    weights, after = train(data, tmp_path / "more", resume=reached, half=True)
    assert {**before, **after} == expected
    assert all(torch.equal(value, weights[name]) for name, value in expected_weights.items())


@pytest.mark.parametrize("kind", ["posed", "mixed"])
def test_so_does_one_on_other_data(photos: Path, posed: Path, tmp_path: Path, kind: str) -> None:
    """Real pairs, and several sources, of which a step takes one: within an epoch and at its end."""
    data = partial(posed_pairs, posed) if kind == "posed" else partial(mixed_pairs, photos, posed)
    expected_weights, expected = train(data, tmp_path / "straight")
    for stop in (3, 6):
        folder = tmp_path / str(stop)
        _, before = train(data, folder, stop=stop, workers=stop % 2)
        weights, after = train(data, folder / "more", resume=newest_checkpoint(folder))
        assert {**before, **after} == expected
        assert all(torch.equal(value, weights[name]) for name, value in expected_weights.items())


# through the command line, with real signals


@pytest.fixture(scope="module")
def command(small_fit: Callable[..., list[str]]) -> Callable[..., list[str]]:
    """A training of two dozen steps in the given folder, whose last checkpoint is at most two steps old."""

    def run(runs: Path, *extra: str) -> list[str]:
        return small_fit(
            *("--data.num_workers", "1", "--data.epoch_pairs", "12", "--model.random_points", "8"),
            *("--trainer.deterministic", "true", "--trainer.max_steps", "24", "--trainer.val_check_interval", "5"),
            *("--trainer.logger.save_dir", str(runs), "--checkpoint.every_n_train_steps", "2", *extra),
        )

    return run


def curve(folder: Path) -> dict[int, float]:
    events = EventAccumulator(str(folder)).Reload()
    return {each.step: each.value for each in events.Scalars("train/loss")}


@pytest.fixture(scope="module")
def whole(command: Callable[..., list[str]], tmp_path_factory: pytest.TempPathFactory) -> Path:
    runs = tmp_path_factory.mktemp("whole")
    assert main(command(runs, "--trainer.logger.version", "mine")) == 0
    return runs / "mine"


@pytest.mark.parametrize("sent", [signal.SIGKILL, signal.SIGTERM])
def test_a_process_that_is_killed_is_gone_on_with_by_ckpt_path_last(
    command: Callable[..., list[str]], whole: Path, tmp_path: Path, sent: signal.Signals
) -> None:
    process = subprocess.Popen(
        [sys.executable, "-m", "tiepoint", *command(tmp_path, "--trainer.logger.version", "mine")],
        env=os.environ | {"OMP_NUM_THREADS": str(torch.get_num_threads())},
        stderr=subprocess.DEVNULL,
    )
    folder = tmp_path / "mine"
    deadline = time.monotonic() + 300
    while not (folder / "last.ckpt").exists() and time.monotonic() < deadline and process.poll() is None:
        time.sleep(0.02)
    process.send_signal(sent)
    assert process.wait(timeout=120) != 0
    reached = torch.load(newest_checkpoint(folder), weights_only=True)["global_step"]
    assert 0 < reached < 24

    assert main(command(tmp_path, "--trainer.logger.version", "mine", "--ckpt_path", "last")) == 0
    expected, found = (torch.load(each / "last.ckpt", weights_only=True) for each in (whole, folder))
    assert found["global_step"] == 24
    assert all(torch.equal(value, found["state_dict"][name]) for name, value in expected["state_dict"].items())
    assert curve(folder) == curve(whole)


def test_ckpt_path_last_finds_the_newest_run_and_goes_on_in_its_folder(
    command: Callable[..., list[str]], tmp_path: Path
) -> None:
    first = command(tmp_path)
    assert main([*first, "--trainer.max_steps", "4"]) == 0
    assert main([*first, "--trainer.max_steps", "6", "--ckpt_path=last"]) == 0
    assert [path.name for path in tmp_path.iterdir()] == ["version_0"]
    assert torch.load(tmp_path / "version_0" / "last.ckpt", weights_only=True)["global_step"] == 6


def test_ckpt_path_last_without_a_run_is_told_in_a_line(
    command: Callable[..., list[str]], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(command(tmp_path, "--ckpt_path", "last")) == 2
    assert f"no run in {tmp_path} holds a checkpoint" in capsys.readouterr().err.splitlines()[-1]
    assert main([*command(tmp_path, "--ckpt_path", "last"), "--trainer.logger", "false"]) == 2
    assert "no logger keeps a folder of the run" in capsys.readouterr().err.splitlines()[-1]


# files


def touch(path: Path, at: int, content: object) -> None:
    torch.save(content, path)
    os.utime(path, ns=(at, at))


def test_a_truncated_checkpoint_is_passed_over(tmp_path: Path) -> None:
    touch(tmp_path / "best-2.ckpt", 2, {"a": torch.zeros(1000)})
    touch(tmp_path / "previous.ckpt", 3, {"a": torch.zeros(1000)})
    touch(tmp_path / "last.ckpt", 4, {"a": torch.zeros(1000)})
    assert newest_checkpoint(tmp_path).name == "last.ckpt"
    content = (tmp_path / "last.ckpt").read_bytes()
    (tmp_path / "last.ckpt").write_bytes(content[: len(content) // 2])
    os.utime(tmp_path / "last.ckpt", ns=(4, 4))
    said: list[str] = []
    sink = logger.add(lambda message: said.append(message.record["message"]), level="WARNING")
    assert newest_checkpoint(tmp_path).name == "previous.ckpt"
    logger.remove(sink)
    assert len(said) == 1
    assert "last.ckpt is damaged and passed over" in said[0]


def test_a_run_without_a_readable_checkpoint_is_an_input_error(tmp_path: Path) -> None:
    (tmp_path / "last.ckpt").write_bytes(b"PK")
    with pytest.raises(InputError, match="holds no checkpoint that can be read"):
        newest_checkpoint(tmp_path)


def test_the_newest_run_is_the_one_that_wrote_last(tmp_path: Path) -> None:
    for at, name in ((5, "a"), (9, "b"), (7, "c")):
        (tmp_path / name).mkdir()
        touch(tmp_path / name / "last.ckpt", at, {})
    assert newest_run(tmp_path).name == "b"


def test_the_checkpoint_before_the_last_is_kept(tmp_path: Path) -> None:
    keep_previous(tmp_path / "last.ckpt")
    assert list(tmp_path.iterdir()) == []
    for content in (1, 2, 3):
        keep_previous(tmp_path / "last.ckpt")
        AtomicCheckpoints().save_checkpoint({"n": content}, tmp_path / "last.ckpt")
    assert torch.load(tmp_path / "last.ckpt")["n"] == 3
    assert torch.load(tmp_path / "previous.ckpt")["n"] == 2
    assert {path.name for path in tmp_path.iterdir()} == {"last.ckpt", "previous.ckpt"}


def test_what_cannot_be_written_leaves_the_old_checkpoint(tmp_path: Path) -> None:
    AtomicCheckpoints().save_checkpoint({"n": 1}, tmp_path / "last.ckpt")
    with pytest.raises((AttributeError, TypeError)):  # torch cannot pickle it
        AtomicCheckpoints().save_checkpoint({"n": lambda: 2}, tmp_path / "last.ckpt")
    assert torch.load(tmp_path / "last.ckpt")["n"] == 1
    assert len(list(tmp_path.iterdir())) == 1
