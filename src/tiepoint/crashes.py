"""A training step that failed, kept whole, and made again."""

import random
import shutil
import traceback
from bdb import BdbQuit
from pathlib import Path
from typing import Any

import lightning as L
import numpy as np
import torch
from lightning.pytorch.callbacks import Callback
from lightning.pytorch.utilities.exceptions import SIGTERMException
from loguru import logger
from torch.utils.data import DataLoader, Dataset

from tiepoint.callbacks import is_rehearsal, run_folder
from tiepoint.data.order import ResumableLoader, place
from tiepoint.errors import InputError
from tiepoint.files import atomic_path
from tiepoint.resume import forget_unfinished

BATCH, STATE, TRACE, CONFIG = "batch.pt", "state.ckpt", "trace.txt", "config.yaml"


class CrashCapture(Callback):
    """When a training step raises, writes all that it takes to make it again into `crash/` in the run's folder.

    `batch.pt`: the batch as the task got it, the random states at that moment, where in the training it was;
    `state.ckpt`: weights, optimizers and everything else that Lightning keeps; `config.yaml`; `trace.txt`.
    A loss or a gradient that is not finite raises before it reaches the weights (`tiepoint.tasks.base`).
    """

    def __init__(self) -> None:
        self._batch: Any = None
        self._random: dict[str, Any] = {}

    def on_train_batch_start(
        self, trainer: L.Trainer, pl_module: L.LightningModule, batch: Any, batch_idx: int
    ) -> None:
        """Remember the batch, by reference, and where the random numbers are."""
        self._batch, self._random = batch, _random_states()

    def on_train_batch_end(self, *args: Any) -> None:
        """Let go of a batch that went well."""
        self._batch = None

    def on_exception(self, trainer: L.Trainer, pl_module: L.LightningModule, exception: BaseException) -> None:
        """Write the files and say where."""
        folder = run_folder(trainer)
        stopped = isinstance(exception, KeyboardInterrupt | SIGTERMException | BdbQuit)
        stopped |= "DataLoader worker" in str(exception)  # which interrupts the step, and is not its doing
        if self._batch is None or stopped or folder is None or is_rehearsal(trainer):
            return
        crash = _free(folder / "crash")
        crash.mkdir(parents=True)
        (crash / TRACE).write_text("".join(traceback.format_exception(exception)))
        if (folder / CONFIG).exists():
            shutil.copyfile(folder / CONFIG, crash / CONFIG)
        at = {"place": tuple(place(trainer)), "step": trainer.global_step, "batches": trainer.num_training_batches}
        with atomic_path(crash / BATCH) as temporary:
            torch.save({"batch": _to_cpu(self._batch), "random": self._random, "at": at}, temporary)
        forget_unfinished(trainer)
        with atomic_path(crash / STATE) as temporary:
            # not save_checkpoint, which waits for the other processes, whose step may have gone well
            torch.save(trainer._checkpoint_connector.dump_checkpoint(), temporary)
        logger.error("the step is kept: tiepoint replay {}", crash)


def _free(folder: Path) -> Path:
    """The folder, or one with the next number where it is taken: an earlier failure is not written over."""
    number, free = 1, folder
    while free.exists():
        number += 1
        free = folder.with_name(f"{folder.name}-{number}")
    return free


def _random_states() -> dict[str, Any]:
    kind, keys, position, has_gauss, cached = np.random.get_state()  # noqa: NPY002  a user's own task may draw from it
    states = {
        "torch": torch.get_rng_state(),
        "numpy": (kind, torch.from_numpy(np.asarray(keys).astype(np.int64)), position, has_gauss, cached),
        "python": random.getstate(),
    }
    if torch.cuda.is_available():
        states["cuda"] = torch.cuda.get_rng_state()
    return states


def _set_random_states(states: dict[str, Any]) -> None:
    torch.set_rng_state(states["torch"])
    kind, keys, *rest = states["numpy"]
    np.random.set_state((kind, keys.numpy().astype(np.uint32), *rest))  # noqa: NPY002
    random.setstate(states["python"])
    if "cuda" in states and torch.cuda.is_available():
        torch.cuda.set_rng_state(states["cuda"])


def _to_cpu(batch: Any) -> Any:
    """The same with tensors on the CPU, through lists, tuples and dictionaries."""
    if isinstance(batch, torch.Tensor):
        return batch.detach().cpu()
    if isinstance(batch, dict):
        return {name: _to_cpu(value) for name, value in batch.items()}
    if isinstance(batch, list | tuple):
        moved = [_to_cpu(value) for value in batch]
        return type(batch)(*moved) if hasattr(batch, "_fields") else type(batch)(moved)
    return batch


class _Repeated(Dataset[int]):
    """As many items as the training had batches; which they are does not matter."""

    def __init__(self, count: int) -> None:
        self._count = count

    def __len__(self) -> int:
        return self._count

    def __getitem__(self, index: int) -> int:
        return index


class CrashedBatch(L.LightningDataModule):
    """The one batch of a crash, as the task got it, in the place of the data.

    Args:
        crash: the folder that `CrashCapture` wrote.

    Raises:
        InputError: the folder holds no such batch.
    """

    def __init__(self, crash: str | Path) -> None:
        super().__init__()
        path = Path(crash) / BATCH
        if not path.is_file():
            raise InputError(f"{crash} is no folder of a crash, expected {BATCH} in it")
        self._kept: dict[str, Any] = torch.load(path, map_location="cpu", weights_only=True)

    def train_dataloader(self) -> DataLoader[int]:
        """A loader of the length of the training's own."""
        at = self._kept["at"]
        left = int(at["batches"]) - at["place"][1] % int(at["batches"])
        return ResumableLoader(_Repeated(left))

    def transfer_batch_to_device(self, batch: Any, device: torch.device, dataloader_idx: int) -> Any:
        """The batch itself, whatever the loader has served."""
        return super().transfer_batch_to_device(self._kept["batch"], device, dataloader_idx)

    @property
    def random_states(self) -> dict[str, Any]:
        """Where the random numbers were when the step began."""
        states: dict[str, Any] = self._kept["random"]
        return states


class StepWentWellError(Exception):
    """The replayed step ended: it does not fail here.

    Attributes:
        loss: of the step.
    """

    def __init__(self, loss: float) -> None:
        super().__init__(f"the step went well here, with a loss of {loss:.6g}")
        self.loss = loss


class Replay(Callback):
    """Makes the random numbers those of the crash, and ends after the one step. To be the last of the callbacks."""

    def on_train_batch_start(
        self, trainer: L.Trainer, pl_module: L.LightningModule, batch: Any, batch_idx: int
    ) -> None:
        """Set the random states."""
        data = trainer.datamodule  # type: ignore[attr-defined]
        assert isinstance(data, CrashedBatch)
        _set_random_states(data.random_states)

    def on_train_batch_end(
        self, trainer: L.Trainer, pl_module: L.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Say that nothing failed."""
        raise StepWentWellError(float(outputs["loss"]))
