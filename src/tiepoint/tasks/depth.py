"""Learn the depth of a view from two views of known geometry."""

from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor

from tiepoint.errors import InputError
from tiepoint.models.sweep import Geometry, PlaneSweep, Swept
from tiepoint.ops.depth_losses import (
    confidence_loss,
    mean_where,
    photometric_error,
    picked,
    plane_likelihood,
    slopes,
)
from tiepoint.ops.sampling import warp_image
from tiepoint.ops.sweeps import seen_places, unhidden
from tiepoint.runtime import embedded_models
from tiepoint.tasks.base import BaseTask, OptimizerName
from tiepoint.tasks.scores import MeanScores

Batch = dict[str, Any]
STEPS = 4.0  # about pixels a plane: errors are told in them


class Truth(NamedTuple):
    """What a batch tells.

    Attributes:
        plane: (B, H, W), the true number of the plane; of no account where it is not known.
        known: (B, H, W) bool.
        visible: (B, H, W) bool, false where view 1 surely does not show the place.
    """

    plane: Tensor
    known: Tensor
    visible: Tensor


class DepthTask(BaseTask):
    """Trains a plane sweep on pairs of known geometry.

    Where the inverse depth is known, it is what is learned; elsewhere it is what makes both views fit each other. A
    batch holds image0, image1, at_infinity, epipole and planes; inverse_depth0, known0 (without it, all of that is
    known) and visible0, or none of the three.

    Args:
        model: the network, `PlaneSweep()` if None.
        matcher: a weight file of a `PyramidExtractor`, whose pyramid the network begins with; the embedded one if
            "default", none if None.
        hidden: how much a pixel counts that the other view does not show.
        likelihood: weight of the cross-entropy of the planes.
        confidence: weight of the loss of the confidence.
        appearance: weight of the photometric difference between the views, where the depth is not known.
        smoothness: weight of the slopes of the inverse depth, there too.
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
        appearance: float = 10.0,
        smoothness: float = 0.1,
        lr: float = 1e-3,
        weight_decay: float = 1e-4,
        warmup_steps: int = 50,
        optimizer: OptimizerName = "adamw",
    ) -> None:
        super().__init__(
            model or PlaneSweep(), lr=lr, weight_decay=weight_decay, warmup_steps=warmup_steps, optimizer=optimizer
        )
        self.hidden, self.likelihood, self.confidence = hidden, likelihood, confidence
        self.appearance, self.smoothness = appearance, smoothness
        self.means = MeanScores()
        self.begins_with = matcher

    def setup(self, stage: str) -> None:
        """Take the pyramid over from a matcher; a resumed training replaces it by its own afterwards."""
        if stage == "fit" and self.begins_with is not None:
            begin_with(self.model, self.begins_with)

    def sweep(self, batch: Batch) -> tuple[Swept, Truth]:
        """What the network finds, and what is true."""
        planes = batch["planes"]
        first, step = planes[:, 0], planes[:, 1] - planes[:, 0]
        geometry = Geometry(batch["at_infinity"], batch["epipole"], first, step)
        swept = self.model.sweep(batch["image0"], batch["image1"], geometry, planes.shape[1])
        every = torch.ones_like(swept.plane, dtype=torch.bool)
        if "inverse_depth0" not in batch:
            return swept, Truth(torch.zeros_like(swept.plane), ~every, batch.get("visible0", every))
        true = (batch["inverse_depth0"] - first[:, None, None]) / step[:, None, None]
        return swept, Truth(true, batch.get("known0", every), batch["visible0"])

    def training_step(self, batch: Batch, batch_idx: int) -> Tensor:
        """What is known is compared, and what is not is compared with the other view."""
        swept, truth = self.sweep(batch)
        total, losses = self._told(swept, truth)
        open_ = truth.visible & ~truth.known
        if open_.any():
            unsaid, further = self._untold(batch, swept.plane, open_)
            total, losses = total + unsaid, losses | further
        self.log_dict({f"train/{name}": value.detach() for name, value in losses.items()})
        self.log("train/loss", total.detach(), prog_bar=True)
        return total

    def _told(self, swept: Swept, truth: Truth) -> tuple[Tensor, dict[str, Tensor]]:
        """Likelihood of the planes at a quarter of the resolution, distance at half and full, confidence."""
        true = truth.plane
        weight = torch.where(truth.visible, 1.0, self.hidden) * truth.known
        weight = weight * ((true >= 0) & (true <= swept.scores.shape[1] - 1))
        row, column = torch.randint(4, (2,)).tolist()
        likelihood = plane_likelihood(swept.scores, picked(true, 4, row, column))
        losses = {"likelihood": mean_where(likelihood, picked(weight, 4, row, column))}
        error = STEPS * (swept.plane - true).abs()
        losses["fine"] = mean_where(error.clamp_max(24), weight)
        rough = STEPS * (swept.coarse - picked(true, 2, row % 2, column % 2)).abs()
        losses["rough"] = mean_where(rough.clamp_max(24), picked(weight, 2, row % 2, column % 2))
        losses["confidence"] = mean_where(confidence_loss(swept.confidence, error, bound=1.0), weight > 0)
        total = self.likelihood * losses["likelihood"] + 0.5 * losses["fine"] + 0.25 * losses["rough"]
        return total + self.confidence * losses["confidence"], losses

    def _untold(self, batch: Batch, plane: Tensor, where: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
        """Difference of the views and slopes of the inverse depth."""
        found, error, seen = compared(batch, plane)
        losses = {"photometric": mean_where(error, seen & where)}
        relative = found / found.mean((1, 2), keepdim=True).abs().clamp_min(1e-6)
        losses["smoothness"] = mean_where(slopes(relative, batch["image0"]), where)
        return self.appearance * losses["photometric"] + self.smoothness * losses["smoothness"], losses

    def batch_maps(self, batch: Batch) -> dict[str, Tensor]:
        """Both views, and the inverse depth of the first one where it is known, white at the nearest plane."""
        views = {"image0": batch["image0"], "image1": batch["image1"]}
        if "inverse_depth0" not in batch:
            return views
        first, last = (batch["planes"][:, at, None, None] for at in (0, -1))
        return views | {"depth0": ((batch["inverse_depth0"] - first) / (last - first))[:, None]}

    def validation_step(self, batch: Batch, batch_idx: int) -> Batch:
        """Share of pixels that are at most two steps off, and mean distance: of all, and of those that both see.

        Of pairs without any known depth, how alike the views are, 1 less their photometric error.

        Returns:
            `maps`, for pictures: view 0, the inverse depth found, white at the nearest plane, and the true one, dark
            where it is not known.
        """
        swept, truth = self.sweep(batch)
        error = STEPS * (swept.plane - truth.plane).abs()
        for name, mask in (("", truth.known), ("_seen", truth.known & truth.visible)):
            told = [e[m] for e, m in zip(error, mask, strict=True) if m.any()]
            if told:
                accuracy = torch.stack([(each <= 2).float().mean() for each in told])
                self.means.update(f"accuracy{name}", accuracy)
                self.means.update(f"epe{name}", torch.stack([each.mean() for each in told]))
                if "source" in batch and not name:
                    self.means.update(f"accuracy/{batch['source']}", accuracy)
        untold = ~truth.known.flatten(1).any(1)
        if untold.any():
            _, difference, _ = compared(batch, swept.plane)
            # of all pixels, since masks follow what was found; higher is better, as the best checkpoint is chosen
            self.means.update("likeness", 1 - difference[untold].mean((1, 2)))
        found, true = (each[:, None] / (batch["planes"].shape[1] - 1) for each in (swept.plane, truth.plane))
        return {"maps": {"image": batch["image0"], "found": found, "true": true * truth.known[:, None]}}

    def on_validation_epoch_end(self) -> None:
        """Log the figures of the pairs seen."""
        for name, value in self.means.compute().items():
            self.log(f"val/{name}", value, prog_bar=name == "accuracy", sync_dist=True)


def compared(batch: Batch, plane: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """How well both views fit each other through the planes found.

    Masked are pixels that view 1 does not show as far as the found depth tells, and, after the auto-mask of Godard et
    al. (ICCV 2019, §3.2), those that fit no better than without any parallax.

    Args:
        batch: image0, image1, at_infinity, epipole and planes.
        plane: (B, H, W), numbers of planes.

    Returns:
        (B, H, W) inverse depth; (B, H, W), the photometric error; and (B, H, W) bool, where it counts.
    """
    planes, (A, e) = batch["planes"], (batch["at_infinity"], batch["epipole"])
    step = planes[:, 1] - planes[:, 0]
    found = planes[:, 0, None, None] + step[:, None, None] * plane
    image0, image1 = batch["image0"].float(), batch["image1"].float()
    places, nearness = seen_places(A, e, found)
    error = photometric_error(image0, warp_image(image1, places, padding="border"))
    with torch.no_grad():
        still, _ = seen_places(A, e, torch.zeros_like(found))
        far = photometric_error(image0, warp_image(image1, still, padding="border"))
        seen = unhidden(places, nearness, step) & (error < far)
    return found, error, seen


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
