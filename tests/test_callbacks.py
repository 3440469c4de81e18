"""What runs beside a training: progress where a person watches, checkpoints, and what a recipe names."""

import io
from collections.abc import Callable
from pathlib import Path

import lightning as L
import pytest
import torch
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from tiepoint.callbacks import Progress, RunCheckpoint
from tiepoint.cli import main


class Terminal(io.StringIO):
    """A stream that says it is a terminal."""

    def isatty(self) -> bool:
        return True


BARS = ["init_sanity_tqdm", "init_train_tqdm", "init_validation_tqdm", "init_test_tqdm", "init_predict_tqdm"]


@pytest.fixture
def progress(monkeypatch: pytest.MonkeyPatch) -> Progress:
    callback = Progress()
    # Lightning sets the trainer in setup(); a bar only asks which verb runs
    monkeypatch.setattr(Progress, "trainer", type("Stub", (), {"state": type("State", (), {"fn": "fit"})}))
    return callback


@pytest.mark.parametrize("name", BARS)
def test_bars_are_drawn_on_stderr_alone(
    name: str, progress: Progress, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    terminal = Terminal()
    monkeypatch.setattr("sys.stderr", terminal)
    bar = getattr(progress, name)()
    bar.total = 4
    bar.update(3)
    bar.refresh()
    bar.close()
    assert "3/4" in terminal.getvalue()
    assert capsys.readouterr().out == ""


@pytest.mark.parametrize("name", BARS)
def test_no_bar_where_stderr_is_no_terminal(name: str, progress: Progress, capsys: pytest.CaptureFixture[str]) -> None:
    bar = getattr(progress, name)()
    bar.update(3)
    bar.close()
    assert capsys.readouterr() == ("", "")


# by their names, from a recipe

CALLBACKS = """
trainer:
  callbacks:
    - class_path: LearningRateMonitor
      init_args: {logging_interval: step}
    - class_path: EarlyStopping
      init_args: {monitor: val/accuracy, mode: max, patience: 1, min_delta: 1.0}
    - class_path: DeviceStatsMonitor
      init_args: {cpu_stats: true}
    - class_path: ModelCheckpoint
      init_args:
        filename: "top-{step}"
        monitor: val/matches
        mode: max
        save_top_k: 2
        auto_insert_metric_name: false
    - class_path: AverageWeights
      init_args: {decay: 0.9}
    - class_path: mine.CountsBatches
      init_args: {path: counted.txt}
"""
MINE = '''
from pathlib import Path

from lightning.pytorch.callbacks import Callback


class CountsBatches(Callback):
    """A user's own."""

    def __init__(self, path: str) -> None:
        self.path, self.count = Path(path), 0

    def on_train_batch_end(self, *args) -> None:
        self.count += 1

    def on_train_end(self, *args) -> None:
        self.path.write_text(str(self.count))
'''


@pytest.mark.filterwarnings("ignore::lightning.pytorch.utilities.warnings.PossibleUserWarning")
def test_callbacks_of_lightning_of_tiepoint_and_of_the_user_by_name(
    small_fit: Callable[..., list[str]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("psutil")  # DeviceStatsMonitor's
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    Path("mine.py").write_text(MINE)
    Path("callbacks.yaml").write_text(CALLBACKS)
    options = ("--trainer.max_steps", "9", "--trainer.val_check_interval", "2", "--data.epoch_pairs", "6")
    assert main(small_fit(*options, "--config", "callbacks.yaml", "--trainer.logger.version", "mine")) == 0
    folder = tmp_path / "runs" / "mine"
    # the second validation is not better by 1 than the first: at step 4 the training ends
    assert Path("counted.txt").read_text() == "4"
    events = EventAccumulator(str(folder)).Reload()
    rates = [each.value for each in events.Scalars("lr-AdamW/pg1")]
    assert len(rates) == 4
    assert rates[0] != rates[1]
    assert any("cpu_percent" in tag for tag in events.Tags()["scalars"])
    assert sorted(path.name for path in folder.rglob("top-*.ckpt")) == ["top-2.ckpt", "top-4.ckpt"]
    content = torch.load(folder / "last.ckpt", weights_only=True)
    assert "current_model_state" in content  # beside the averaged ones
    # ours are still there
    assert (folder / "pairs" / "000000.png").exists()
    assert (folder / "matches" / "000004.png").exists()


def test_the_last_checkpoint_is_written_by_steps_and_by_time_and_the_best_by_validations(
    small_fit: Callable[..., list[str]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    written: dict[str, list[int]] = {"last": [], "best": []}

    class Noted(RunCheckpoint):
        def _save_checkpoint(self, trainer: L.Trainer, filepath: str) -> None:
            written[Path(filepath).stem.partition("-")[0]].append(trainer.global_step)
            super()._save_checkpoint(trainer, filepath)

    monkeypatch.setattr("tiepoint.training.RunCheckpoint", Noted)
    where = ("--trainer.logger.save_dir", str(tmp_path), "--trainer.logger.version")
    options = ("--trainer.max_steps", "6", "--trainer.val_check_interval", "5", "--data.epoch_pairs", "20")
    assert main(small_fit(*options, *where, "steps", "--checkpoint.every_n_train_steps", "2")) == 0
    assert written == {"last": [2, 4, 5, 6], "best": [5]}
    written["last"].clear()
    assert main(small_fit(*options, *where, "time", "--checkpoint.every_minutes", "0")) == 0
    assert written["last"] == [1, 2, 3, 4, 5, 6]
    written["last"].clear()
    assert main(small_fit(*options, *where, "never", "--checkpoint.every_minutes", "60")) == 0
    assert written["last"] == [5, 6]
