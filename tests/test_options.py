"""Every option of the Trainer does what it says, through the command line, on a real training."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import lightning as L
import pytest
import torch
from lightning.pytorch.callbacks import Callback
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from tiepoint import training
from tiepoint.cli import main

pytestmark = [
    pytest.mark.filterwarnings("ignore::lightning.pytorch.utilities.warnings.PossibleUserWarning"),
    pytest.mark.filterwarnings("ignore:The dirpath has changed"),
]


class Watch(Callback):
    """What a training did: a note of every step, gradient, validation and batch."""

    def __init__(self) -> None:
        self.batches: list[Any] = []
        self.steps = self.epochs = self.validations = self.validated = 0
        self.largest_gradient = 0.0
        self.dtypes: set[torch.dtype] = set()
        self.trainer: L.Trainer | None = None

    def setup(self, trainer: L.Trainer, pl_module: L.LightningModule, stage: str) -> None:
        self.trainer = trainer

    def on_train_batch_start(
        self, trainer: L.Trainer, pl_module: L.LightningModule, batch: Any, batch_idx: int
    ) -> None:
        self.batches.append(batch["image0"].clone())

    def on_before_zero_grad(self, trainer: L.Trainer, pl_module: L.LightningModule, optimizer: Any) -> None:
        gradients = [weights.grad for weights in pl_module.parameters() if weights.grad is not None]
        if gradients:
            self.largest_gradient = max(self.largest_gradient, float(torch.nn.utils.get_total_norm(gradients)))
        self.dtypes |= {weights.dtype for weights in pl_module.parameters()}

    def on_train_epoch_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        self.epochs += 1

    def on_validation_batch_end(self, *args: Any) -> None:
        self.validated += 1

    def on_validation_epoch_end(self, *args: Any) -> None:
        self.validations += 1

    def on_train_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        self.steps = trainer.global_step


@pytest.fixture
def fit(small_fit: Callable[..., list[str]], tmp_path: Path) -> Any:
    """A training of 3 batches an epoch and 4 validation pairs, with the options of a test; what `Watch` saw."""

    def run(*options: str, name: str = "mine") -> Watch:
        watch = Watch()
        command = small_fit(
            *("--data.epoch_pairs", "6", "--data.held_out_pairs", "4", "--trainer.precision", "32-true"),
            *("--trainer.val_check_interval", "2", "--trainer.max_steps", "4"),
            *("--trainer.logger.save_dir", str(tmp_path), "--trainer.logger.version", name, *options),
        )
        training.main(command, [watch])
        return watch

    return run


BY_EPOCH = ("--trainer.check_val_every_n_epoch", "1", "--trainer.val_check_interval", "1.0")


def logged(folder: Path) -> list[int]:
    return [each.step for each in EventAccumulator(str(folder)).Reload().Scalars("train/loss")]


@pytest.mark.parametrize(
    ("options", "steps", "epochs"),
    [
        (["--trainer.max_steps", "5"], 5, 2),
        (["--trainer.max_steps", "-1", "--trainer.max_epochs", "2"], 6, 2),
        (["--trainer.limit_train_batches", "2", "--trainer.max_epochs", "1", "--trainer.max_steps", "-1"], 2, 1),
        (["--trainer.accumulate_grad_batches", "2", "--trainer.max_steps", "-1", "--trainer.max_epochs", "2"], 4, 2),
    ],
)
def test_how_long_a_training_is(fit: Any, options: list[str], steps: int, epochs: int) -> None:
    watch = fit(*options)
    assert (watch.steps, watch.epochs) == (steps, epochs)


STOPPING = ["--trainer.callbacks+=EarlyStopping", "--trainer.callbacks.monitor=val/accuracy"]


@pytest.mark.parametrize(
    ("options", "steps"),
    [
        ([], 6),  # the second validation is not better than the first by 1
        (["--trainer.min_steps", "9"], 9),
        (["--trainer.min_epochs", "5", "--trainer.max_steps", "-1", "--trainer.max_epochs", "7"], 15),
    ],
)
def test_a_training_that_wants_to_stop_early_is_held_to_the_least(fit: Any, options: list[str], steps: int) -> None:
    patience = ["--trainer.callbacks.patience=1", "--trainer.callbacks.min_delta=1.0", "--trainer.callbacks.mode=max"]
    watch = fit("--trainer.max_steps", "12", *BY_EPOCH, *STOPPING, *patience, *options)
    assert watch.steps == steps


@pytest.mark.parametrize(
    ("options", "validations", "batches"),
    [
        (["--trainer.val_check_interval", "2"], 2, 4),
        (["--trainer.val_check_interval", "4"], 1, 2),
        ([*BY_EPOCH, "--trainer.max_steps", "6"], 2, 4),
        ([*BY_EPOCH, "--trainer.check_val_every_n_epoch", "2", "--trainer.max_steps", "6"], 1, 2),
        (["--trainer.limit_val_batches", "1"], 2, 2),
        (["--trainer.limit_val_batches", "0"], 0, 0),
    ],
)
def test_when_and_on_how_much_a_training_is_validated(
    fit: Any, options: list[str], validations: int, batches: int
) -> None:
    watch = fit(*options)
    assert (watch.validations, watch.validated) == (validations, batches)


def test_gradients_are_clipped(fit: Any) -> None:
    free = fit("--trainer.gradient_clip_val", "null", "--trainer.max_steps", "2", name="free")
    clipped = fit("--trainer.gradient_clip_val", "0.01", "--trainer.max_steps", "2", name="clipped")
    assert clipped.largest_gradient == pytest.approx(0.01, rel=1e-3)
    assert free.largest_gradient > 0.1


def test_a_rehearsal_runs_everything_once_and_leaves_nothing(
    fit: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    watch = fit("--trainer.fast_dev_run", "true")
    assert (watch.steps, watch.validated) == (1, 1)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.filterwarnings("ignore:You requested to overfit")
def test_overfitting_sees_the_same_pairs_again(fit: Any) -> None:
    watch = fit("--trainer.overfit_batches", "2", "--trainer.max_steps", "5", "--data.ease", "0")
    assert watch.steps == 5
    first, second, *others = watch.batches
    assert not torch.equal(first, second)
    assert all(torch.equal(seen, again) for seen, again in zip(others, (first, second, first), strict=True))


def test_accumulated_gradients_make_one_step(fit: Any) -> None:
    options = ["--trainer.max_steps", "2", "--trainer.limit_val_batches", "0"]
    assert len(fit("--trainer.accumulate_grad_batches", "3", *options).batches) == 6


@pytest.mark.parametrize(
    ("precision", "weights"),
    [("32-true", torch.float32), ("bf16-mixed", torch.float32), ("bf16-true", torch.bfloat16)],
)
def test_precision(fit: Any, precision: str, weights: torch.dtype) -> None:
    watch = fit("--trainer.precision", precision)
    assert watch.dtypes == {weights}
    assert watch.trainer is not None
    assert watch.trainer.precision == precision
    assert (watch.steps, watch.validated) == (4, 4)


def test_how_often_is_logged(fit: Any, tmp_path: Path) -> None:
    fit("--trainer.log_every_n_steps", "2", name="two")
    fit("--trainer.log_every_n_steps", "1", name="one")
    assert logged(tmp_path / "one") == [0, 1, 2, 3]
    assert logged(tmp_path / "two") == [1, 3]


def test_a_profiler_says_where_the_time_went(fit: Any, tmp_path: Path) -> None:
    profiler = ["--trainer.profiler", "SimpleProfiler", "--trainer.profiler.dirpath", str(tmp_path)]
    fit(*profiler, "--trainer.profiler.filename", "where")
    (report,) = tmp_path.glob("*where*")
    assert "run_training_batch" in report.read_text()


def test_deterministic_turns_to_reproducible_algorithms(fit: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    seen = []
    monkeypatch.setattr(Watch, "on_train_end", lambda *_: seen.append(torch.are_deterministic_algorithms_enabled()))
    fit("--trainer.deterministic", "true", name="yes")
    fit("--trainer.deterministic", "false", name="no")
    assert seen == [True, False]


@pytest.mark.parametrize(("accelerator", "devices"), [("auto", "1"), ("cpu", "1"), ("auto", "auto")])
def test_accelerators(fit: Any, accelerator: str, devices: str) -> None:
    watch = fit("--trainer.accelerator", accelerator, "--trainer.devices", devices)
    assert watch.trainer is not None
    assert watch.steps == 4
    expected = "cuda" if torch.cuda.is_available() and accelerator == "auto" else "cpu"
    assert watch.trainer.strategy.root_device.type == expected


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_a_gpu_that_is_not_there_is_told_in_a_line(
    small_fit: Callable[..., list[str]], capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(small_fit("--trainer.accelerator", "gpu")) == 2
    assert "tiepoint: " in capsys.readouterr().err.splitlines()[-1]
