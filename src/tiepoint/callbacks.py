"""What runs beside the training: progress, the run's log and checkpoints, predictions on disk."""

import shlex
import sys
import time
import warnings
from collections.abc import Sequence
from contextlib import redirect_stdout
from pathlib import Path
from typing import Any

import lightning as L
import numpy as np
import torch
from lightning.pytorch.callbacks import (
    BasePredictionWriter,
    Callback,
    ModelCheckpoint,
    TQDMProgressBar,
    WeightAveraging,
)
from lightning.pytorch.callbacks.progress.tqdm_progress import Tqdm
from loguru import logger
from torch import Tensor

from tiepoint import logs
from tiepoint.evaluation.cache import write_cached
from tiepoint.evaluation.environment import environment
from tiepoint.evaluation.pictures import draw_pair
from tiepoint.evaluation.report import write_reports
from tiepoint.evaluation.results import Results, SetResult
from tiepoint.evaluation.results_io import NAME, write_results
from tiepoint.evaluation.standing import best_errors
from tiepoint.formats import write_matches
from tiepoint.images import read_image
from tiepoint.loggers import folder_of, log_files, log_image
from tiepoint.resume import LAST, AtomicCheckpoints, forget_unfinished, keep_previous
from tiepoint.tasks.scores import MeasuredPair, to_matches

# in the order in which a person reads them: how good first, the loss last
_LEADING = ("accuracy", "repeatability", "matches", "homography_auc@3", "pose_auc@10", "loss")


class Progress(TQDMProgressBar):
    """Lightning's tqdm bars, on stderr and only where a person watches; one line a validation everywhere.

    Args:
        refresh_rate: batches between two updates of the bar.
    """

    def __init__(self, refresh_rate: int = 5) -> None:
        super().__init__(refresh_rate=refresh_rate)

    @property
    def is_disabled(self) -> bool:
        """Whether the bars stay away: always where stderr is no terminal."""
        return super().is_disabled or not sys.stderr.isatty()

    def init_sanity_tqdm(self) -> Tqdm:
        """The bar of the sanity check."""
        with redirect_stdout(sys.stderr):  # Lightning opens its bars on whatever stdout is
            return super().init_sanity_tqdm()

    def init_train_tqdm(self) -> Tqdm:
        """The bar of an epoch."""
        with redirect_stdout(sys.stderr):  # Lightning opens its bars on whatever stdout is
            return super().init_train_tqdm()

    def init_validation_tqdm(self) -> Tqdm:
        """The bar of a validation."""
        with redirect_stdout(sys.stderr):  # Lightning opens its bars on whatever stdout is
            return super().init_validation_tqdm()

    def init_test_tqdm(self) -> Tqdm:
        """The bar of a test."""
        with redirect_stdout(sys.stderr):  # Lightning opens its bars on whatever stdout is
            return super().init_test_tqdm()

    def init_predict_tqdm(self) -> Tqdm:
        """The bar of a prediction."""
        with redirect_stdout(sys.stderr):  # Lightning opens its bars on whatever stdout is
            return super().init_predict_tqdm()

    def get_metrics(self, trainer: L.Trainer, pl_module: L.LightningModule) -> dict[str, Any]:
        """What stands beside the bar, without the version number of the logger."""
        metrics = dict(super().get_metrics(trainer, pl_module))
        metrics.pop("v_num", None)
        return metrics

    def on_validation_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Say how good the model is now."""
        super().on_validation_end(trainer, pl_module)
        if not trainer.sanity_checking:
            self._say(trainer, "val")

    def on_test_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Say how good the model is."""
        super().on_test_end(trainer, pl_module)
        self._say(trainer, "test")

    def on_exception(self, trainer: L.Trainer, pl_module: L.LightningModule, exception: BaseException) -> None:
        """Leave no bar that a message or a debugger's prompt would share its line with."""
        super().on_exception(trainer, pl_module, exception)
        for bar in list(getattr(Tqdm, "_instances", ())):
            bar.close()

    def _say(self, trainer: L.Trainer, stage: str) -> None:
        found = {name: float(value) for name, value in trainer.callback_metrics.items()}
        own = {n.removeprefix(f"{stage}/"): v for n, v in found.items() if n.startswith(f"{stage}/")}
        if stage == "val" and "train/loss" in found:
            own["loss"] = found["train/loss"]
        names = [n for n in _LEADING if n in own] + sorted(n for n in own if n not in _LEADING)
        steps = f"step {trainer.global_step}" if trainer.state.fn == "fit" else stage
        logger.info("{}: {}", steps, "  ".join(f"{name} {_short(own[name])}" for name in names))


def _short(value: float) -> str:
    return f"{value:.0f}" if abs(value) >= 100 else f"{value:.3f}"


class RunCheckpoint(ModelCheckpoint):
    """Lightning's ModelCheckpoint in the run's own folder: the best by held-out accuracy, and `last.ckpt`.

    Both are written after each validation, and `last.ckpt` alone also in between: the best is known only then.

    Args:
        monitor: what decides which is best; higher is better.
        save_top_k: how many of the best to keep.
        every_n_train_steps: write `last.ckpt` also every so many steps.
        every_minutes: write `last.ckpt` also where the one before is so old.
    """

    def __init__(
        self,
        monitor: str = "val/accuracy",
        save_top_k: int = 1,
        every_n_train_steps: int | None = None,
        every_minutes: float | None = None,
    ) -> None:
        super().__init__(
            filename="best-{step}",
            auto_insert_metric_name=False,
            monitor=monitor,
            mode="max",
            save_top_k=save_top_k,
            save_last=True,
            save_on_train_epoch_end=False,
            enable_version_counter=False,  # last.ckpt is always the last one
        )
        self.every_steps, self.every_minutes = every_n_train_steps, every_minutes
        self._saved_at = time.monotonic()
        self._told = False

    def setup(self, trainer: L.Trainer, pl_module: L.LightningModule, stage: str) -> None:
        """Put the files where config.yaml and the log are."""
        folder = run_folder(trainer)
        if self.dirpath is None and folder is not None:
            self.dirpath = str(folder)
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", message=".*exists and is not empty")  # config.yaml is there already
            super().setup(trainer, pl_module, stage)

    def _save_topk_checkpoint(self, trainer: L.Trainer, monitor_candidates: dict[str, Tensor]) -> None:
        """Say once that what decides which is best is not measured, where Lightning would end the training."""
        if self.monitor in monitor_candidates or not trainer.fit_loop.epoch_loop.val_loop._has_run:
            super()._save_topk_checkpoint(trainer, monitor_candidates)
        elif not self._told:
            self._told = True
            measured = ", ".join(sorted(name for name in monitor_candidates if "/" in name))
            logger.warning("no best checkpoint: --checkpoint.monitor is {}, expected one of {}", self.monitor, measured)

    def _save_last_checkpoint(self, trainer: L.Trainer, monitor_candidates: dict[str, Tensor]) -> None:
        """Keep the one before it as `previous.ckpt`; nothing in a rehearsal, where Lightning would write at its end."""
        if is_rehearsal(trainer):
            return
        if trainer.is_global_zero and self.dirpath is not None:
            keep_previous(Path(self.dirpath) / LAST)
        super()._save_last_checkpoint(trainer, monitor_candidates)
        self._saved_at = time.monotonic()

    def on_train_batch_end(
        self, trainer: L.Trainer, pl_module: L.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Keep the last weights, where it is time to."""
        super().on_train_batch_end(trainer, pl_module, outputs, batch, batch_idx)
        due = bool(self.every_steps) and trainer.global_step % (self.every_steps or 1) == 0
        if self.every_minutes is not None:
            # one clock for all processes: they write together
            due |= trainer.strategy.broadcast(time.monotonic() - self._saved_at > 60 * self.every_minutes)
        if due:
            self._keep_last(trainer)

    def on_exception(self, trainer: L.Trainer, pl_module: L.LightningModule, exception: BaseException) -> None:
        """Keep what was learned when the training is interrupted or fails, to go on from it."""
        super().on_exception(trainer, pl_module, exception)
        # not within a validation: the averaged weights stand in for the trained ones there
        if trainer.state.fn != "fit" or not trainer.training or trainer.global_step == 0 or is_rehearsal(trainer):
            return
        forget_unfinished(trainer)
        if trainer.world_size == 1:
            self._keep_last(trainer)
        elif trainer.is_global_zero and self.dirpath is not None:
            # not save_checkpoint, which waits for the other processes: they may have failed, or not
            last = Path(self.dirpath) / LAST
            keep_previous(last)
            AtomicCheckpoints().save_checkpoint(trainer._checkpoint_connector.dump_checkpoint(), last)

    def on_train_epoch_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Keep the last weights, also where the training ends between two validations.

        Not in on_train_end: averaging has put the averaged weights in place of the trained ones by then.
        """
        super().on_train_epoch_end(trainer, pl_module)
        self._keep_last(trainer)

    def _keep_last(self, trainer: L.Trainer) -> None:
        if self._last_global_step_saved != trainer.global_step:
            self._save_last_checkpoint(trainer, self._monitor_candidates(trainer))

    def on_train_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Say where the weights are."""
        super().on_train_end(trainer, pl_module)
        if trainer.is_global_zero and self.last_model_path:
            logger.info("weights: {}", self.last_model_path)
            if self.best_model_path:
                best = "" if self.best_model_score is None else f" ({self.monitor} {self.best_model_score:.3f})"
                logger.info("best:    {}{}", self.best_model_path, best)


class RunFolder(Callback):
    """Knows the run's folder, the same one in all processes, and keeps every line of the log in its `run.log`.

    Attributes:
        folder: None before the run begins, and where there is none.
    """

    def __init__(self) -> None:
        self.folder: Path | None = None
        self._handle: int | None = None

    def setup(self, trainer: L.Trainer, pl_module: L.LightningModule, stage: str) -> None:
        """Open the log."""
        # loggers of other processes than the first one do not know what it is called
        self.folder = folder = trainer.strategy.broadcast(run_folder(trainer))
        if trainer.is_global_zero and folder is not None and self._handle is None:
            self._handle = logs.to_file(folder / "run.log")
            logger.info("run: {}", folder)
            parameters = sum(parameter.numel() for parameter in pl_module.parameters())
            logger.info("{} with {:,} parameters", type(pl_module).__name__, parameters)

    def teardown(self, trainer: L.Trainer, pl_module: L.LightningModule, stage: str) -> None:
        """Close the file."""
        if self._handle is not None:
            logger.remove(self._handle)
            self._handle = None


class AverageWeights(WeightAveraging):
    """Exponential moving average of the weights, which validation, checkpoints and exports then use.

    The decay rises as min(decay, (1 + n) / (10 + n)) over the first updates n (as in Abadi et al.'s TensorFlow), so
    that a short run is not an average of its random start.

    Args:
        decay: how much of the average each step keeps.
    """

    def __init__(self, decay: float = 0.998) -> None:
        def average(averaged: Tensor, current: Tensor, updates: Tensor | int) -> Tensor:
            n = float(updates)
            keep = min(decay, (1 + n) / (10 + n))
            # what does not change, as frozen weights, stays the same to the last digit
            return averaged + (1 - keep) * (current - averaged)

        super().__init__(avg_fn=average)


def is_rehearsal(trainer: L.Trainer) -> bool:
    """Whether this is a `fast_dev_run`, which leaves no files."""
    return bool(getattr(trainer, "fast_dev_run", False))


def run_folder(trainer: L.Trainer) -> Path | None:
    """The folder of the run; None where it has none: in a rehearsal, and without a logger.

    Lightning would then name the current folder, in which a user's own config.yaml may lie.
    """
    if is_rehearsal(trainer):
        return None
    known = (each.folder for each in trainer.callbacks if isinstance(each, RunFolder))  # type: ignore[attr-defined]
    return next(known, None) or folder_of(trainer)


class PredictionWriter(BasePredictionWriter):
    """Writes the matches of each predicted pair as .npz into `predictions/` in the run's folder."""

    def __init__(self) -> None:
        super().__init__(write_interval="batch")
        self._written = 0

    def write_on_batch_end(
        self,
        trainer: L.Trainer,
        pl_module: L.LightningModule,
        prediction: Any,
        batch_indices: Sequence[int] | None,
        batch: Any,
        batch_idx: int,
        dataloader_idx: int,
    ) -> None:
        """Write one file a pair."""
        if not isinstance(prediction, dict) or "path0" not in prediction or is_rehearsal(trainer):
            return
        folder = self._folder(trainer)
        for index, paths in enumerate(zip(prediction["path0"], prediction["path1"], strict=True)):
            fields = ("keypoints0", "keypoints1", "matches0", "similarities")
            sizes = [read_image(path).shape[:2] for path in paths]
            matches = to_matches(*(prediction[name][index] for name in fields), *sizes)
            # numbered: photos of different folders may share their names
            name = f"{self._written:05d}-{Path(paths[0]).stem}-{Path(paths[1]).stem}.npz"
            write_matches(folder / name, matches, metadata={"image0": paths[0], "image1": paths[1]})
            self._written += 1

    def on_predict_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Say where the files are."""
        logger.info("{} files in {}", self._written, self._folder(trainer))

    def _folder(self, trainer: L.Trainer) -> Path:
        return (run_folder(trainer) or Path(trainer.default_root_dir)) / "predictions"


class BenchmarkReport(Callback):
    """After a test on public benchmarks: the files of a `tiepoint benchmark` run in the run's folder, and pictures.

    The pairs with the largest errors go to every logger that takes images.

    Args:
        pictures: how many of them a set.
    """

    def __init__(self, pictures: int = 3) -> None:
        self.pictures = pictures

    def on_test_batch_end(self, trainer: L.Trainer, pl_module: L.LightningModule, outputs: Any, *args: Any) -> None:
        """Keep the matches of a pair."""
        measured = outputs.get("pair") if isinstance(outputs, dict) else None
        folder = run_folder(trainer)
        if isinstance(measured, MeasuredPair) and folder is not None:
            write_cached(folder / measured.file, measured.matched, "")

    def on_test_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Write results.json, report.md and report.html, and draw."""
        scores, folder = getattr(pl_module, "benchmarks", None), run_folder(trainer)
        if scores is None or folder is None:
            return
        sets = scores.compute()
        protocol = sets[0].protocol if sets else {}
        results = Results(shlex.join(sys.argv), protocol, environment(torch.get_num_threads()), sets, [])
        write_results(results, folder / NAME)
        written = write_reports(results, folder)
        logger.info("report: {}", written[1])
        for each in trainer.loggers:
            log_files(each, "report", [folder / NAME, *written], step=trainer.global_step)
        for found in sets:
            self._draw(trainer, results, found, folder)

    def _draw(self, trainer: L.Trainer, results: Results, found: SetResult, folder: Path) -> None:
        method = found.methods[0]
        errors = best_errors(results, found, method)
        for index in np.argsort(-errors, kind="stable")[: self.pictures]:
            picture = draw_pair(results, found, method, pair=method.pairs[index], folder=folder)
            for each in trainer.loggers:
                log_image(each, f"{found.name}/{method.pairs[index].name}", picture, step=trainer.global_step)
