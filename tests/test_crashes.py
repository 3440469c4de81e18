"""A step that fails is kept, and fails again when it is replayed."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import lightning as L
import pytest
import torch
from torch import Tensor

from tiepoint.cli import main
from tiepoint.tasks.matching import MatchingTask

pytestmark = [
    pytest.mark.filterwarnings("ignore::lightning.pytorch.utilities.warnings.PossibleUserWarning"),
    pytest.mark.filterwarnings("ignore:The dirpath has changed"),
]


class FailsAtTheFourthStep(MatchingTask):
    """Raises what depends on the batch, the weights and the random numbers of the step."""

    def training_step(self, batch: dict[str, Tensor], batch_idx: int) -> Tensor:
        loss = super().training_step(batch, batch_idx)
        if self.global_step == 3:
            raise ValueError(f"loss {loss.item():.9g}, draw {torch.rand(()).item():.9g}")
        return loss


class LosesItsGradientAtTheFourthStep(MatchingTask):
    """The loss is finite, and its gradient is not."""

    def training_step(self, batch: dict[str, Tensor], batch_idx: int) -> Tensor:
        loss = super().training_step(batch, batch_idx)
        # sqrt(0) is 0 and its derivative infinite
        return loss + (0 * self.log_scale).sqrt() if self.global_step == 3 else loss


class FailsOnce(MatchingTask):
    """Raises only where it finds a file that says so, which it takes away."""

    def training_step(self, batch: dict[str, Tensor], batch_idx: int) -> Tensor:
        mark = Path(self.trainer.default_root_dir) / "fail-once"
        if self.global_step == 1 and mark.exists():
            mark.unlink()
            raise ValueError("something from outside")
        return super().training_step(batch, batch_idx)


@pytest.fixture
def fit(small_fit: Callable[..., list[str]], tmp_path: Path) -> Callable[..., int]:
    """Trains a task for six steps in the folder `mine`; the exit status."""

    def run(task: type[L.LightningModule], *extra: str) -> int:
        own = ("--model", f"{__name__}.{task.__name__}", "--model.max_keypoints", "32", "--model.detections", "20")
        where = ("--trainer.default_root_dir", str(tmp_path), "--trainer.logger.save_dir", str(tmp_path))
        steps = ("--data.epoch_pairs", "6", "--trainer.max_steps", "6", "--trainer.val_check_interval", "2")
        return main(small_fit(*own, *where, *steps, "--trainer.logger.version", "mine", *extra))

    return run


def last_line(capsys: pytest.CaptureFixture[str]) -> str:
    return capsys.readouterr().err.splitlines()[-1]


def test_a_step_that_raises_is_kept_and_raises_the_same_again(
    fit: Callable[..., int], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert fit(FailsAtTheFourthStep) == 1
    said = last_line(capsys)
    assert "ValueError: loss" in said
    crash = tmp_path / "mine" / "crash"
    assert {path.name for path in crash.iterdir()} == {"batch.pt", "state.ckpt", "trace.txt", "config.yaml"}
    assert "training_step" in (crash / "trace.txt").read_text()
    assert torch.load(crash / "state.ckpt", weights_only=True)["global_step"] == 3

    before = {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}
    assert main(["replay", str(crash), "--device", "cpu"]) == 1
    assert last_line(capsys) == said  # to the ninth digit
    assert {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()} == before


def test_a_gradient_that_is_not_finite_is_kept_before_it_reaches_the_weights(
    fit: Callable[..., int], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert fit(LosesItsGradientAtTheFourthStep) == 1
    said = last_line(capsys)
    assert "the gradient of log_scale is not finite at step 3" in said
    state = torch.load(tmp_path / "mine" / "crash" / "state.ckpt", weights_only=True)["state_dict"]
    assert all(value.isfinite().all() for value in state.values())
    assert main(["replay", str(tmp_path / "mine" / "crash")]) == 1
    assert last_line(capsys) == said


def test_a_step_that_goes_well_the_second_time_says_so_and_the_training_goes_on(
    fit: Callable[..., int], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "fail-once").touch()
    assert fit(FailsOnce) == 1
    capsys.readouterr()
    assert main(["replay", str(tmp_path / "mine" / "crash")]) == 0
    assert "the step went well here, with a loss of" in last_line(capsys)
    assert fit(FailsOnce, "--ckpt_path", "last") == 0


def test_a_second_failure_does_not_write_over_the_first(fit: Callable[..., int], tmp_path: Path) -> None:
    assert fit(FailsAtTheFourthStep) == 1
    assert fit(FailsAtTheFourthStep, "--ckpt_path", "last") == 1
    assert sorted(path.name for path in (tmp_path / "mine").glob("crash*")) == ["crash", "crash-2"]


def test_what_is_no_crash_is_told_in_a_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["replay", str(tmp_path)]) == 2
    assert f"{tmp_path} is no folder of a crash, expected config.yaml in it" in last_line(capsys)


def test_an_interruption_is_no_crash(fit: Callable[..., int], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted(*_: Any) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(MatchingTask, "training_step", interrupted)
    assert fit(MatchingTask) == 130
    assert not (tmp_path / "mine" / "crash").exists()
