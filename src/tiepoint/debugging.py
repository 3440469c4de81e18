"""The debugger where it is needed: at a step that is named, where a condition holds, and where something failed."""

import pdb
import re
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from types import CodeType
from typing import Any

import lightning as L
from lightning.pytorch.callbacks import Callback
from loguru import logger
from tqdm import tqdm

from tiepoint.errors import InputError

STAGES = ("train", "validate", "test", "predict")


class BreakAt(Callback):
    """Opens the debugger before a step, with `batch`, `task`, `trainer` and `step` at hand.

    Args:
        at: the stage and the step, as "train:120"; steps of the training are optimizer steps, others batches, from 0.
        when: a Python expression, asked before each step of any stage: of the names above, and of what was logged last
            under its name without the stage ("loss" for train/loss). What was not logged yet makes it false.

    Raises:
        InputError: `at` is no stage and step, or `when` is no expression.
    """

    def __init__(self, at: str | None = None, when: str | None = None) -> None:
        self._stage, self._step = _stage_and_step(at) if at is not None else ("", -1)
        self._when = _expression(when) if when is not None else None
        self._opened, self._told = False, False

    def on_train_batch_start(
        self, trainer: L.Trainer, pl_module: L.LightningModule, batch: Any, batch_idx: int
    ) -> None:
        """Before a step of the training."""
        self._perhaps("train", trainer.global_step, batch, pl_module, trainer)

    def on_validation_batch_start(
        self, trainer: L.Trainer, pl_module: L.LightningModule, batch: Any, batch_idx: int, dataloader_idx: int = 0
    ) -> None:
        """Before a batch of the validation."""
        self._perhaps("validate", batch_idx, batch, pl_module, trainer)

    def on_test_batch_start(
        self, trainer: L.Trainer, pl_module: L.LightningModule, batch: Any, batch_idx: int, dataloader_idx: int = 0
    ) -> None:
        """Before a batch of the test."""
        self._perhaps("test", batch_idx, batch, pl_module, trainer)

    def on_predict_batch_start(
        self, trainer: L.Trainer, pl_module: L.LightningModule, batch: Any, batch_idx: int, dataloader_idx: int = 0
    ) -> None:
        """Before a batch of the prediction."""
        self._perhaps("predict", batch_idx, batch, pl_module, trainer)

    def _perhaps(self, stage: str, step: int, batch: Any, task: L.LightningModule, trainer: L.Trainer) -> None:
        there = (stage, step) == (self._stage, self._step) and not self._opened
        if there or self._holds({"step": step, "batch": batch, "task": task, "trainer": trainer}):
            self._opened |= there  # a step of accumulated gradients has several batches
            with without_bars():
                _prompt(stage, step, batch, task, trainer)

    def _holds(self, names: dict[str, Any]) -> bool:
        if self._when is None:
            return False
        logged = {name.rpartition("/")[2]: float(value) for name, value in names["trainer"].callback_metrics.items()}
        try:
            return bool(eval(self._when, {}, logged | names))  # the user's own expression
        except NameError as error:
            if names["step"] > 0 and not self._told:
                self._told = True
                logger.warning("--break-when waits: {} yet, of {}", error, ", ".join(sorted(logged | names)))
            return False


def _prompt(stage: str, step: int, batch: Any, task: L.LightningModule, trainer: L.Trainer) -> None:
    """A frame of its own for the prompt, in which the names stand for themselves."""
    sys.stdout.write(f"before {stage} step {step}; at hand: batch, task, trainer, step (c goes on, q ends)\n")
    pdb.Pdb().set_trace()
    return


def _stage_and_step(at: str) -> tuple[str, int]:
    found = re.fullmatch(r"(\w+):(\d+)", at)
    if not found or found[1] not in STAGES:
        raise InputError(f"--break-at is {at}, expected a stage and a step, as train:120 ({', '.join(STAGES)})")
    return found[1], int(found[2])


def _expression(when: str) -> CodeType:
    try:
        return compile(when, "--break-when", "eval")
    except SyntaxError as error:
        raise InputError(f"--break-when is {when}, expected a Python expression, as loss > 10: {error.msg}") from error


@contextmanager
def without_bars() -> Iterator[None]:
    """Takes tqdm's bars off the screen, and puts them back."""
    with tqdm.external_write_mode(file=sys.stderr):
        yield


def breakpoint_hook() -> None:
    """What `breakpoint()` calls: the debugger in the caller's frame, below the bars."""
    for bar in list(getattr(tqdm, "_instances", ())):
        bar.clear()
    pdb.Pdb().set_trace(sys._getframe(1))
