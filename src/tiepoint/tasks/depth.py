"""Learn the depth of a view from two views of known geometry."""

from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from tiepoint.errors import InputError
from tiepoint.models.sweep import Geometry, PlaneSweep, Swept
from tiepoint.ops.depth_losses import confidence_loss, mean_where, picked, plane_likelihood
from tiepoint.runtime import embedded_models
from tiepoint.tasks.base import BaseTask
from tiepoint.tasks.scores import MeanScores

Batch = dict[str, Any]
STEPS = 4.0  # about pixels a plane: errors are told in them


class DepthTask(BaseTask):
    """Trains a plane sweep on pairs whose inverse depth is known.

    Args:
        model: the network, `PlaneSweep()` if None.
        matcher: a weight file of a `PyramidExtractor`, whose pyramid the network begins with; the embedded one if
            "default", none if None.
        hidden: how much a pixel counts that the other view does not show.
        likelihood: weight of the cross-entropy of the planes.
        confidence: weight of the loss of the confidence.
        options: as for `BaseTask`.
    """

    model: PlaneSweep

    def __init__(
        self,
        model: PlaneSweep | None = None,
        matcher: str | None = "default",
        hidden: float = 0.5,
        likelihood: float = 1.0,
        confidence: float = 0.1,
        lr: float = 1e-3,
        weight_decay: float = 1e-4,
        warmup_steps: int = 50,
    ) -> None:
        super().__init__(model or PlaneSweep(), lr=lr, weight_decay=weight_decay, warmup_steps=warmup_steps)
        self.hidden, self.likelihood, self.confidence = hidden, likelihood, confidence
        self.means = MeanScores()
        self.begins_with = matcher

    def setup(self, stage: str) -> None:
        """Take the pyramid over from a matcher; a resumed training replaces it by its own afterwards."""
        if stage == "fit" and self.begins_with is not None:
            begin_with(self.model, self.begins_with)

    def sweep(self, batch: Batch) -> tuple[Swept, Tensor]:
        """What the network finds, and the true number of the plane (B, H, W)."""
        planes = batch["planes"]
        step = planes[:, 1] - planes[:, 0]
        geometry = Geometry(batch["at_infinity"], batch["epipole"], planes[:, 0], step)
        swept = self.model.sweep(batch["image0"], batch["image1"], geometry, planes.shape[1])
        true = (batch["inverse_depth0"] - planes[:, 0, None, None]) / step[:, None, None]
        return swept, true

    def training_step(self, batch: Batch, batch_idx: int) -> Tensor:
        """Likelihood of the planes at a quarter of the resolution, distance at half and full, confidence."""
        swept, true = self.sweep(batch)
        weight = torch.where(batch["visible0"], 1.0, self.hidden)
        weight = weight * ((true >= 0) & (true <= swept.scores.shape[1] - 1))
        row, column = torch.randint(4, (2,)).tolist()
        likelihood = plane_likelihood(swept.scores, picked(true, 4, row, column))
        losses = {"likelihood": mean_where(likelihood, picked(weight, 4, row, column))}
        error = STEPS * (swept.plane - true).abs()
        losses["fine"] = mean_where(error.clamp_max(24), weight)
        rough = STEPS * (swept.coarse - picked(true, 2, row % 2, column % 2)).abs()
        losses["rough"] = mean_where(rough.clamp_max(24), picked(weight, 2, row % 2, column % 2))
        losses["confidence"] = mean_where(confidence_loss(swept.confidence, error, bound=1.0), weight > 0)
        self.log_dict({f"train/{name}": value.detach() for name, value in losses.items()})
        total = self.likelihood * losses["likelihood"] + 0.5 * losses["fine"] + 0.25 * losses["rough"]
        total = total + self.confidence * losses["confidence"]
        self.log("train/loss", total.detach(), prog_bar=True)
        return total

    def validation_step(self, batch: Batch, batch_idx: int) -> None:
        """Share of pixels that are at most two steps off, and mean distance: of all, and of those that both see."""
        swept, true = self.sweep(batch)
        error = STEPS * (swept.plane - true).abs()
        seen = batch["visible0"]
        for name, mask in (("", torch.ones_like(seen)), ("_seen", seen)):
            self.means.update(
                f"accuracy{name}", torch.stack([(e[m] <= 2).float().mean() for e, m in zip(error, mask, strict=True)])
            )
            self.means.update(f"epe{name}", torch.stack([e[m].mean() for e, m in zip(error, mask, strict=True)]))

    def on_validation_epoch_end(self) -> None:
        """Log the figures of the pairs seen."""
        for name, value in self.means.compute().items():
            self.log(f"val/{name}", value, prog_bar=name == "accuracy", sync_dist=True)


def begin_with(model: PlaneSweep, matcher: str) -> None:
    """Give a sweep the pyramid of a matcher.

    Args:
        model: the sweep.
        matcher: "default" or a weight file.

    Raises:
        InputError: it cannot be read, or has no such pyramid.
    """
    from tiepoint.checkpoints import read_weights  # here: nothing else waits for the exporter

    path = embedded_models()[matcher] if matcher in embedded_models() else Path(matcher)
    known = read_weights(path).extractor.state_dict()
    wanted = model.backbone.state_dict()
    state = {name: value for name, value in known.items() if name in wanted and value.shape == wanted[name].shape}
    if state.keys() != wanted.keys():
        raise InputError(
            f"model.matcher is {matcher}, expected a PyramidExtractor of the widths of the sweep's pyramid"
        )
    model.backbone.load_state_dict(state)
