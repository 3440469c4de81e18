"""Training pairs of several sources in one training, each step from one of them."""

from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import lightning as L
import numpy as np
from lightning.pytorch.overrides.distributed import UnrepeatedDistributedSampler
from torch.utils.data import DataLoader, Dataset, DistributedSampler, default_collate

from tiepoint.data.base import ResumableData, expect
from tiepoint.data.order import Draw, ResumableLoader, TrainingOrder, derived_seed


class MixedDraw(NamedTuple):
    """What a whole batch is made from.

    Attributes:
        source: its number.
        samples: what its dataset is asked for, one after the other.
    """

    source: int
    samples: Sequence[int | Draw]


class MixedBatches(Dataset[dict[str, Any]]):
    """Whole batches, each of one source, which stands beside it as `source`.

    Args:
        datasets: of the sources.
        fixed: the batches that an index stands for.
    """

    def __init__(self, datasets: Sequence[Dataset[Any]], fixed: Sequence[MixedDraw]) -> None:
        self.datasets, self.fixed = datasets, fixed

    def __len__(self) -> int:
        return len(self.fixed)

    def __getitem__(self, which: int | MixedDraw) -> dict[str, Any]:
        source, samples = which if isinstance(which, MixedDraw) else self.fixed[which]
        batch: dict[str, Any] = default_collate([self.datasets[source][sample] for sample in samples])
        return batch | {"source": source}


class MixedOrder(DistributedSampler[Any]):
    """Which source each step of a training draws from, and what; all processes draw from the same one.

    Both follow from the run's seed and the number of the step, as in `TrainingOrder`: a source is asked for what it
    would give at that step if the training were its own.

    Args:
        batches: what is drawn from.
        orders: of the sources.
        shares: of the steps, of every source; together 1.
        steps: of each epoch.
        module: whose training it is.
    """

    def __init__(
        self,
        batches: MixedBatches,
        orders: Sequence[TrainingOrder],
        shares: Sequence[float],
        *,
        steps: int,
        module: ResumableData,
    ) -> None:
        replicas, rank = module.processes
        super().__init__(batches, replicas, rank)
        self._orders, self._shares, self._steps, self._module = orders, shares, steps, module

    def __len__(self) -> int:
        return self._steps

    def __iter__(self) -> Iterator[MixedDraw]:
        total, done = self._module.place()
        for step in range(total, total + self._steps - done % self._steps):
            random = np.random.default_rng(derived_seed(self._module.seed, step))
            source = int(random.choice(len(self._orders), p=self._shares))
            yield MixedDraw(source, self._orders[source].draws(step))


class MixedPairs(ResumableData):
    """Several sources of training pairs in one training: photographs and MegaDepth, say.

    The batch of a step comes from one source, drawn by weight, at that source's own size of views and batch.
    Validation and test run over the held-out pairs of all sources, one after the other.

    Args:
        sources: the data modules, each with its options; their `num_workers` do not count.
        weights: how often each is drawn from, relative to the others; equally often if None.
        epoch_steps: steps an epoch; if None, as many as the epochs of all sources together.
        num_workers: processes that decode; one less than the cores, at most 4, if None.
    """

    def __init__(
        self,
        sources: list[ResumableData],
        weights: list[float] | None = None,
        epoch_steps: int | None = None,
        num_workers: int | None = None,
    ) -> None:
        super().__init__(1, num_workers, content="sources")
        weights = [1.0] * len(sources) if weights is None else weights
        expect("sources", f"a list of {len(sources)}", len(sources) >= 1, "one source or more")
        fits = len(weights) == len(sources) and min(weights) >= 0 and sum(weights) > 0
        expect("weights", weights, fits, f"{len(sources)} numbers, one a source, none negative and not all 0")
        expect("epoch_steps", epoch_steps, epoch_steps is None or epoch_steps >= 1, "1 or more")
        for source in sources:
            kind = type(source).__name__
            expect("sources", kind, not isinstance(source, MixedPairs), "data modules that are not mixed themselves")
        self.save_hyperparameters(ignore=["sources"])
        self.sources, self.epoch_steps = sources, epoch_steps
        self.shares = [weight / sum(weights) for weight in weights]
        self.names = _names(sources)

    def prepare_data(self) -> None:
        """Prepare every source."""
        for source in self.sources:
            source.prepare_data()

    def setup(self, stage: str | None = None) -> None:
        """Set up every source, in the same training."""
        for source in self.sources:
            source.trainer = self.trainer
            source.setup(stage)  # type: ignore[arg-type]
        if not self.data_hash:
            self.data_hash = "-".join(source.data_hash for source in self.sources)
            self.begin()

    def state_dict(self) -> dict[str, Any]:
        """What a checkpoint remembers, of every source too."""
        return super().state_dict() | {"sources": [source.state_dict() for source in self.sources]}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Go on with the same pairs of every source."""
        super().load_state_dict(state_dict)
        remembered = state_dict.get("sources", [])
        if len(remembered) == len(self.sources):
            for source, state in zip(self.sources, remembered, strict=True):
                source.load_state_dict(state)

    def train_dataloader(self) -> DataLoader[dict[str, Any]]:
        """Batches of all sources."""
        loaders = [source.train_dataloader() for source in self.sources]
        orders = [loader.sampler for loader in loaders]
        # where Lightning overfits to a few batches, it asks for them by number: one of every source
        batches = MixedBatches(
            [loader.dataset for loader in loaders],
            [MixedDraw(index, order.draws(0)) for index, order in enumerate(orders)],
        )
        steps = self.epoch_steps or sum(map(len, loaders))
        order = MixedOrder(batches, orders, self.shares, steps=steps, module=self)
        return ResumableLoader(batches, batch_size=None, sampler=order, **self.loading())

    def val_dataloader(self) -> DataLoader[dict[str, Any]]:
        """The validation pairs of all sources."""
        return self._held_out_loader([source.val_dataloader() for source in self.sources])

    def test_dataloader(self) -> DataLoader[dict[str, Any]]:
        """The test pairs of all sources."""
        return self._held_out_loader([source.test_dataloader() for source in self.sources])

    def _held_out_loader(self, loaders: Sequence[DataLoader[Any]]) -> DataLoader[dict[str, Any]]:
        draws = [MixedDraw(n, samples) for n, loader in enumerate(loaders) for samples in loader.batch_sampler or ()]
        batches = MixedBatches([loader.dataset for loader in loaders], draws)
        # the sources have taken the share of this process: what looks like another one keeps Lightning from doing so
        whole = UnrepeatedDistributedSampler(batches, 1, 0, shuffle=False)
        return DataLoader(batches, batch_size=None, sampler=whole, **self.loading())

    def on_after_batch_transfer(self, batch: dict[str, Any], dataloader_idx: int) -> dict[str, Any]:
        """Let the source make its batch; its name stands in `source` then."""
        if "source" not in batch:
            return batch
        own = {name: value for name, value in batch.items() if name != "source"}
        made: dict[str, Any] = self.sources[batch["source"]].on_after_batch_transfer(own, dataloader_idx)
        return made | {"source": self.names[batch["source"]]}


def _names(sources: Sequence[L.LightningDataModule]) -> list[str]:
    """The names of the classes, numbered where there are several of one."""
    kinds = [type(source).__name__ for source in sources]
    return [
        kind if kinds.count(kind) == 1 else f"{kind}{kinds[: index + 1].count(kind)}"
        for index, kind in enumerate(kinds)
    ]
