"""In which order a training reads its samples: a function of its seed and of how far it is, and of nothing else."""

from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

import lightning as L
import numpy as np
import numpy.typing as npt
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
        groups: how many of the samples, one group after the other, belong together: all groups are drawn from equally
            often, one after the other in random order, each in permutations of its own; a single group if None.
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
        groups: Sequence[int] | None = None,
    ) -> None:
        super().__init__(dataset, replicas, rank, seed=seed)
        self._groups = list(groups) if groups is not None else [len(dataset)]  # type: ignore[arg-type]
        self._starts = np.cumsum([0, *self._groups])
        self._steps, self._batch_size, self._place = steps, batch_size, place
        self._permutations: dict[int, tuple[int, npt.NDArray[np.int64]]] = {}  # of each group, with its turn

    def __len__(self) -> int:
        return self._steps * self._batch_size

    def __iter__(self) -> Iterator[Draw]:
        total, done = self._place()
        for step in range(total, total + self._steps - done % self._steps):
            yield from self.draws(step)

    def draws(self, step: int) -> list[Draw]:
        """What this process draws for a step of the training."""
        first = (step * self.num_replicas + self.rank) * self._batch_size
        return [
            Draw(self._sample(first + each), derived_seed(self.seed, first + each)) for each in range(self._batch_size)
        ]

    def _sample(self, number: int) -> int:
        """The sample of one draw of all processes, counted from the beginning of the training."""
        round_, position = divmod(number, len(self._groups))
        group = int(self._permuted(-1, round_, len(self._groups))[position])
        turn, position = divmod(round_, self._groups[group])
        return int(self._starts[group] + self._permuted(group, turn, self._groups[group])[position])

    def _permuted(self, group: int, turn: int, count: int) -> npt.NDArray[np.int64]:
        """The permutation of a group (-1: of the groups themselves) in one turn."""
        known, permutation = self._permutations.get(group, (-1, np.empty(0, np.int64)))
        if known != turn:
            origin = (self.seed, turn) if len(self._groups) == 1 else derived_seed(self.seed, group + 1, turn)
            permutation = np.random.default_rng(origin).permutation(count)
            self._permutations[group] = turn, permutation
        return permutation


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
