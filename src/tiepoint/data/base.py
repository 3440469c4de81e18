"""What the data modules share: order and randomness that a resumed training goes on with."""

import os
from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

import lightning as L
import torch
from lightning.pytorch.overrides.distributed import UnrepeatedDistributedSampler
from loguru import logger
from torch import Generator
from torch.utils.data import DataLoader, Dataset

from tiepoint.data.order import Place, TrainingOrder, batch_number, derived_seed, place
from tiepoint.errors import InputError
from tiepoint.ops.photometric import PhotometricChanges


def expect(name: str, value: object, right: bool, expected: str) -> None:
    """Refuse an option of a data module.

    Raises:
        InputError: it is not `right`.
    """
    if not right:
        raise InputError(f"data.{name} is {value}, expected {expected}")


class ResumableData(L.LightningDataModule):
    """Samples in an order that a resume goes on with; a subclass sets `data_hash` and calls `begin` in its `setup`.

    Args:
        batch_size: draws a step.
        num_workers: processes that decode; one less than the cores, at most 4, if None.
        content: what the data are, for a warning's sentence.
    """

    def __init__(self, batch_size: int, num_workers: int | None, *, content: str) -> None:
        super().__init__()
        self.batch_size = batch_size
        self.num_workers = min(4, max(0, (os.cpu_count() or 1) - 1)) if num_workers is None else num_workers
        self.data_hash = ""
        self._content = content
        self.seed = 0  # of all that is random about the training samples

    def remember(self, changes: PhotometricChanges | None) -> None:
        """Keep photometric changes as plain data: a checkpoint with an object in it could not be read safely."""
        if changes is not None:
            cls = type(changes)
            spec = {"class_path": f"{cls.__module__}.{cls.__qualname__}", "init_args": asdict(changes)}
            self.save_hyperparameters({"changes": spec, "_instantiator": "lightning.pytorch.cli.instantiate_module"})

    def begin(self) -> None:
        """Take the run's seed; what a checkpoint remembers comes afterwards and wins."""
        self.seed = torch.initial_seed()

    def state_dict(self) -> dict[str, Any]:
        """What a checkpoint remembers: one hash over the content of all data, and the seed of the pairs."""
        return {"data_hash": self.data_hash, "seed": self.seed}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Go on with the same pairs; say when the run began with other data."""
        self.seed = state_dict.get("seed", self.seed)
        if state_dict.get("data_hash") != self.data_hash:
            logger.warning("the {} differ from those of the checkpoint: the split may have moved", self._content)

    def order(self, dataset: Dataset[Any], pairs: int, *, groups: Sequence[int] | None = None) -> TrainingOrder:
        """The order of the training samples, for an epoch of about so many `pairs`; `groups` as of `TrainingOrder`."""
        replicas, rank = self.processes
        there = len(dataset)  # type: ignore[arg-type]
        if there < self.batch_size:
            logger.warning("data.batch_size is {} and {} {} train: they repeat", self.batch_size, there, self._content)
        return TrainingOrder(
            dataset,
            steps=max(1, pairs // (self.batch_size * replicas)),
            batch_size=self.batch_size,
            seed=self.seed,
            place=self.place,
            replicas=replicas,
            rank=rank,
            groups=groups,
        )

    @property
    def processes(self) -> tuple[int, int]:
        """How many processes train, and which of them this is."""
        return (self.trainer.world_size, self.trainer.global_rank) if self.trainer is not None else (1, 0)

    def place(self) -> Place:
        """How far the training is."""
        return Place(0, 0) if self.trainer is None else place(self.trainer)

    def generator(self, device: torch.device) -> Generator | None:
        """Randomness by the run's seed and the number of the batch: processes differ, a resume goes on."""
        if self.trainer is None:
            return None
        # a network that shall learn a few batches by heart must see the same views of them
        again = self.trainer.overfit_batches  # type: ignore[attr-defined]
        number = self.place().epoch if again else batch_number(self.trainer)
        return Generator(device).manual_seed(derived_seed(self.seed, number))

    def held_out_loader(self, pairs: Dataset[Any]) -> DataLoader[Any]:
        """Fixed pairs, of which each process takes its share: Lightning's own sampler gives some to two of them."""
        replicas, rank = self.processes
        count = len(pairs)  # type: ignore[arg-type]
        expect("held_out_pairs", count, count >= replicas, f"one a process or more, {replicas}")
        share = UnrepeatedDistributedSampler(pairs, replicas, rank, shuffle=False)
        return DataLoader(pairs, batch_size=self.batch_size, sampler=share, **self.loading())

    def loading(self) -> dict[str, Any]:
        """The options of every loader."""
        return {
            "num_workers": self.num_workers,
            "persistent_workers": self.num_workers > 0,
            "pin_memory": torch.cuda.is_available(),
        }
