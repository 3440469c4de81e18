"""In which order a training reads its samples: a function of its seed and of how far it is, and of nothing else."""

from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import lightning as L
import numpy as np
from torch.utils.data import DataLoader, Dataset, DistributedSampler


class Draw(NamedTuple):
    """What a dataset is asked for.

    Attributes:
        sample: its index.
        seed: of all that is random about it this time, below 2^63.
    """

    sample: int
    seed: int


class Place(NamedTuple):
    """How far a training is.

    Attributes:
        total: batches that this process has trained on.
        epoch: those of the current epoch.
    """

    total: int
    epoch: int


def place(trainer: L.Trainer) -> Place:
    """How far the training of a Trainer is, whatever batch is under way."""
    progress = trainer.fit_loop.epoch_loop.batch_progress
    # `ready` would count the batch under way, and `completed` leave out the last one while its end is made known
    return Place(progress.total.processed, progress.current.processed)  # type: ignore[attr-defined]


def batch_number(trainer: L.Trainer) -> int:
    """The number of the batch under way among those of all processes.

    What is random about a batch goes by it, so that two processes do what one does that accumulates the gradients of
    two batches.
    """
    return place(trainer).total * trainer.world_size + trainer.global_rank


class TrainingOrder(DistributedSampler[Any]):
    """Shuffled samples without end, cut into epochs; each permutation holds every sample once.

    Which sample comes, and with which seed, is known from the run's seed and the number of the draw: a training that is
    resumed in the middle of an epoch goes on where it was, whatever random numbers were drawn in between, and no two
    processes draw the same. A `DistributedSampler` in name only: Lightning replaces any other one by its own.

    Args:
        dataset: what is drawn from.
        steps: batches a process in each epoch.
        batch_size: draws a batch.
        seed: of the run.
        place: tells how far the training is when an epoch, or the rest of one, begins.
        replicas: how many processes train.
        rank: which of them this is.
    """

    def __init__(
        self,
        dataset: Dataset[Any],
        *,
        steps: int,
        batch_size: int,
        seed: int,
        place: Callable[[], Place],
        replicas: int = 1,
        rank: int = 0,
    ) -> None:
        super().__init__(dataset, replicas, rank, seed=seed)
        self._samples: int = len(dataset)  # type: ignore[arg-type]
        self._steps, self._batch_size, self._place = steps, batch_size, place

    def __len__(self) -> int:
        return self._steps * self._batch_size

    def __iter__(self) -> Iterator[Draw]:
        total, done = self._place()
        numbers = (
            (step * self.num_replicas + self.rank) * self._batch_size + each
            for step in range(total, total + self._steps - done % self._steps)
            for each in range(self._batch_size)
        )
        permutation, current = np.empty(0, np.int64), -1
        for number in numbers:
            turn, position = divmod(number, self._samples)
            if turn != current:
                permutation, current = np.random.default_rng((self.seed, turn)).permutation(self._samples), turn
            yield Draw(int(permutation[position]), derived_seed(self.seed, number))


class ResumableLoader(DataLoader[Any]):
    """A loader whose order knows where a resumed training goes on; Lightning would warn that it does not."""

    def state_dict(self) -> dict[str, Any]:
        """Nothing: see `TrainingOrder`."""
        return {}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Nothing to load."""


def derived_seed(*origin: int) -> int:
    """A seed below 2^63 for one purpose, from whole numbers that name it."""
    # its length is told apart too: numpy takes (1,) and (1, 0) for the same
    return int(np.random.SeedSequence((len(origin), *origin)).generate_state(1, np.uint64)[0] >> np.uint64(1))
