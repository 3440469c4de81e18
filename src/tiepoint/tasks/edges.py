"""Train and measure a network that marks edges."""

from typing import Any

import torch
from torch import Tensor

from tiepoint.evaluation.boundaries import THRESHOLDS, Counts, count_all, summarise_boundaries
from tiepoint.models.edges import EdgeNetwork
from tiepoint.ops.edges import edge_cross_entropy, thin_edges
from tiepoint.tasks.base import BaseTask, OptimizerName
from tiepoint.types import Bool, Float64

Batch = dict[str, Any]
_COARSE = THRESHOLDS[9::10]  # while training: a tenth of the benchmark's


class EdgeTask(BaseTask):
    """A network that marks edges as people draw them.

    Args:
        model: the network, `EdgeNetwork()` if None.
        lr: peak learning rate.
        weight_decay: of the optimizer.
        warmup_steps: steps over which the rate rises linearly.
        optimizer: "adamw" or "muon", see `tasks.base.build_optimizer`.
        agreed: the share of the annotators that must have drawn an edge; what fewer drew teaches nothing.
        balance: how much all other pixels together weigh in comparison with all edges; above 1 for thinner maps.
        sides: weight of the outputs of the single levels.
        workers: processes that count in a test; one a core if None.
    """

    model: EdgeNetwork

    def __init__(
        self,
        model: EdgeNetwork | None = None,
        lr: float = 2e-3,
        weight_decay: float = 1e-4,
        warmup_steps: int = 100,
        optimizer: OptimizerName = "adamw",
        agreed: float = 0.3,
        balance: float = 1.1,
        sides: float = 0.4,
        workers: int | None = None,
    ) -> None:
        super().__init__(
            model or EdgeNetwork(), lr=lr, weight_decay=weight_decay, warmup_steps=warmup_steps, optimizer=optimizer
        )
        self.agreed, self.balance, self.sides, self.workers = agreed, balance, sides, workers
        self._found: list[tuple[Float64, Bool]] = []

    def forward(self, image: Tensor) -> Tensor:
        """Probabilities (B, 1, H, W) of images (B, 3, H, W) in [0, 1], in full precision as the exported graph."""
        with torch.autocast(self.device.type, enabled=False):
            probability: Tensor = self.model(image)
        return probability

    def training_step(self, batch: Batch, batch_idx: int) -> Tensor:
        """Average the cross-entropy over edges and others, of the last output and of those of the levels."""
        terms = [
            edge_cross_entropy(logits, batch["consensus"], agreed=self.agreed, balance=self.balance).mean()
            for logits in self.model.logits(batch["image"])
        ]
        loss = terms[-1] + self.sides * torch.stack(terms[:-1]).mean()
        self.log("train/loss", loss, prog_bar=True)
        self.log("train/last", terms[-1].detach())
        return loss

    def batch_maps(self, batch: Batch) -> dict[str, Tensor]:
        """Images and how many people drew an edge."""
        return {"image": batch["image"], "consensus": batch["consensus"]}

    def validation_step(self, batch: Batch, batch_idx: int) -> Batch:
        """Keep the thinned maps: they are counted together.

        Returns:
            `maps`, for pictures: image, probability and consensus.
        """
        probability = self(batch["image"])
        thinned = thin_edges(probability)[:, 0].double().cpu().numpy()
        self._found += zip(thinned, batch["annotations"].cpu().numpy(), strict=True)
        consensus = batch["annotations"].float().mean(1, keepdim=True)
        return {"maps": {"image": batch["image"], "probability": probability, "consensus": consensus}}

    def test_step(self, batch: Batch, batch_idx: int) -> None:
        """Likewise."""
        self.validation_step(batch, batch_idx)

    def predict_step(self, batch: Batch, batch_idx: int) -> dict[str, Tensor]:
        """The map and its ridges."""
        probability = self(batch["image"])
        return {"probability": probability, "thinned": thin_edges(probability)}

    def on_validation_epoch_end(self) -> None:
        """Log the F-measure at ten thresholds."""
        self._log_counts("val", _COARSE)

    def on_test_epoch_end(self) -> None:
        """Log the figures of the Berkeley benchmark."""
        self._log_counts("test", THRESHOLDS)

    def _log_counts(self, stage: str, thresholds: Float64) -> None:
        found, self._found = self._found, []
        counts: list[Counts] = count_all(found, thresholds=thresholds, workers=self.workers)
        figures = summarise_boundaries(counts, thresholds)
        for name in ("ods", "ois", "ap", "threshold"):
            self.log(f"{stage}/{name}", getattr(figures, name), prog_bar=name == "ods")
