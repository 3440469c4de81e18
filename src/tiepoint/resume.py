"""What lets a training that was stopped at any moment go on as if it had not been."""

import io
import os
import random
from pathlib import Path
from typing import Any

import lightning as L
import numpy as np
import torch
from lightning.fabric.plugins import TorchCheckpointIO
from lightning.pytorch.callbacks import Callback
from loguru import logger

from tiepoint.data.order import batch_number, derived_seed
from tiepoint.errors import InputError
from tiepoint.files import atomic_path

LAST, PREVIOUS = "last.ckpt", "previous.ckpt"


class SeededSteps(Callback):
    """Starts the random numbers of every training step from the run's seed and the number of its batch.

    So a step draws the same numbers whether the training came to it in one go or was resumed in between, and one step
    can be repeated alone. What a loader draws is its order's affair (`tiepoint.data.order`).
    """

    def __init__(self) -> None:
        self._seed: int | None = None

    def setup(self, trainer: L.Trainer, pl_module: L.LightningModule, stage: str) -> None:
        """Take the run's seed; what a checkpoint remembers comes afterwards and wins."""
        if stage == "fit":
            self._seed = torch.initial_seed()

    def on_train_batch_start(
        self, trainer: L.Trainer, pl_module: L.LightningModule, batch: Any, batch_idx: int
    ) -> None:
        """Seed torch, numpy and Python."""
        assert self._seed is not None
        seed = derived_seed(self._seed, batch_number(trainer))
        torch.manual_seed(seed)
        np.random.seed(seed % 2**32)  # noqa: NPY002  a user's own task may draw from it
        random.seed(seed)

    def state_dict(self) -> dict[str, Any]:
        """The run's seed."""
        return {"seed": self._seed}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Go on with the seed that the run began with."""
        self._seed = state_dict["seed"]


class AtomicCheckpoints(TorchCheckpointIO):
    """Writes a checkpoint beside its name, to the disk, and renames it then: a reader finds the old one or the new one.

    Lightning's own goes by the folder for temporary files, and where that is another disk it copies onto the name.
    """

    def save_checkpoint(
        self, checkpoint: dict[str, Any], path: str | os.PathLike[str], storage_options: Any | None = None
    ) -> None:
        """Write it; what is no local file is left to Lightning."""
        if "://" in os.fspath(path):
            super().save_checkpoint(checkpoint, os.fspath(path), storage_options)
            return
        content = io.BytesIO()
        torch.save(checkpoint, content)  # to a file, torch would not tell why it could not write
        with atomic_path(path) as temporary, temporary.open("wb") as file:
            file.write(content.getbuffer())
            file.flush()
            os.fsync(file.fileno())


def keep_previous(last: Path) -> None:
    """Give the checkpoint `last` a second name before it is replaced, to go back to if the new one is damaged."""
    if not last.is_file():
        return
    previous = last.with_name(PREVIOUS)
    previous.unlink(missing_ok=True)
    try:
        os.link(last, previous)
    except OSError:  # a file system without links
        os.replace(last, previous)


def forget_unfinished(trainer: L.Trainer) -> None:
    """Count a batch that was begun and not trained on as not begun, so that a resumed training begins with it.

    Lightning would count it twice: every later validation would come one batch early.
    """
    progress = trainer.fit_loop.epoch_loop.batch_progress
    for count in (progress.total, progress.current):
        count.ready = count.started = count.processed  # type: ignore[attr-defined]


def newest_run(runs: Path) -> Path:
    """The folder of the run that has written a checkpoint last.

    Raises:
        InputError: no run has.
    """
    written = list(runs.glob("*/*.ckpt"))
    if not written:
        raise InputError(f"--ckpt_path is last, and no run in {runs} holds a checkpoint")
    return max(written, key=lambda path: path.stat().st_mtime_ns).parent


def newest_checkpoint(folder: Path) -> Path:
    """The newest checkpoint of a run that can be read; each newer one that cannot is told in a line.

    Raises:
        InputError: there is none.
    """
    # of two names of one file, which last.ckpt and previous.ckpt can be, the former first
    for path in sorted(folder.glob("*.ckpt"), key=lambda path: (-path.stat().st_mtime_ns, path.name != LAST)):
        try:
            torch.load(path, map_location="cpu", weights_only=True)
        except Exception as error:  # whatever half a file makes torch raise
            logger.warning("{} is damaged and passed over: {}", path, str(error).splitlines()[0][:120])
            continue
        return path
    raise InputError(f"--ckpt_path is last, and {folder} holds no checkpoint that can be read")
