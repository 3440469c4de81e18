"""Train and measure a matcher by attention on top of features that are done learning."""

import warnings
from pathlib import Path
from typing import Self

import torch
from loguru import logger
from torch import Tensor

from tiepoint.checkpoints import read_weights
from tiepoint.errors import InputError
from tiepoint.models.attention import AttentionMatcher
from tiepoint.models.base import Extractor, Keypoints
from tiepoint.models.pyramid import PyramidExtractor
from tiepoint.ops.assignment import mutual_assignment
from tiepoint.ops.assignment_loss import TrueAssignment, assignment_losses, true_assignment
from tiepoint.tasks.base import OptimizerName
from tiepoint.tasks.twoview import Batch, TwoViewOutput, TwoViewTask


class AttentionTask(TwoViewTask):
    """A matcher that learns to assign the keypoints of a frozen extractor.

    The checkpoint holds both networks: it measures, converts and matches without the file of the features.

    Args:
        features: a .ckpt or .pt file with the trained extractor; its class and weights win over `model`.
        model: the extractor where no file is given, `PyramidExtractor()` if None; a checkpoint of this task fills in
            its weights.
        matcher: what is trained; `AttentionMatcher` for the extractor's descriptors if None.
        lr: peak learning rate.
        weight_decay: of the optimizer.
        warmup_steps: steps over which the rate rises linearly.
        optimizer: "adamw" or "muon", see `tasks.base.build_optimizer`.
        keypoints: keypoints a view in training.
        radius: largest error of a true match, pixels.
        stranger: a keypoint with none of the other view's nearer than this to its true place is unmatchable, pixels.
        max_keypoints: keypoints a view in validation, test and prediction.

    Raises:
        InputError: the file of the features is missing or of something else, or the matcher takes other descriptors.
    """

    def __init__(
        self,
        features: str | Path | None = None,
        model: Extractor | None = None,
        matcher: AttentionMatcher | None = None,
        lr: float = 1e-3,
        weight_decay: float = 1e-4,
        warmup_steps: int = 100,
        optimizer: OptimizerName = "adamw",
        keypoints: int = 512,
        radius: float = 3.0,
        stranger: float = 5.0,
        max_keypoints: int = 512,
    ) -> None:
        extractor = read_weights(Path(features)).extractor if features else model or PyramidExtractor()
        dim = descriptor_length(extractor)
        matcher = matcher or AttentionMatcher(dim, dim=max(dim, 96))
        if matcher.inputs != dim:
            raise InputError(f"the matcher takes descriptors of length {matcher.inputs}, the features have {dim}")
        super().__init__(
            extractor, lr=lr, weight_decay=weight_decay, warmup_steps=warmup_steps, optimizer=optimizer, matcher=matcher
        )
        # the weights travel in the checkpoint: whoever loads it needs no file
        self.hparams["features"] = None
        self.model.requires_grad_(False).eval()
        self.matcher, self.untrained = matcher, features is None
        self.keypoints, self.radius, self.stranger = keypoints, radius, stranger
        self.max_keypoints = max_keypoints

    def train(self, mode: bool = True) -> Self:
        """Turn training on or off for all but the features, which stay as they are."""
        super().train(mode)
        self.model.eval()
        return self

    def on_load_checkpoint(self, checkpoint: Batch) -> None:
        """Note that the features come from a checkpoint."""
        self.untrained = False

    def on_fit_start(self) -> None:
        """Say when there is nothing to learn from."""
        # Lightning wonders at what is not in training mode; the features are not on purpose
        warnings.filterwarnings("ignore", message=r"Found \d+ module\(s\) in eval mode at the start")
        if self.untrained:
            logger.warning("the features are untrained: name a file that holds trained ones with --model.features")

    def forward(self, image0: Tensor, image1: Tensor, max_keypoints: int | None = None) -> TwoViewOutput:
        """Match two batches of images, (B, 1 or 3, H, W) in [0, 1]: in full precision, as the exported graph does."""
        count = max_keypoints or self.max_keypoints
        with torch.autocast(self.device.type, enabled=False):
            features0: Keypoints = self.model(image0, count)
            features1: Keypoints = self.model(image1, count)
            assignment = self.matcher(features0, features1, image0.shape[-2:], image1.shape[-2:])
            return TwoViewOutput(features0, features1, *mutual_assignment(assignment, min_score=self.matcher.min_score))

    def training_step(self, batch: Batch, batch_idx: int) -> Tensor:
        """Average the losses of every layer's assignment of a batch of pairs and log the last one's."""
        with torch.no_grad():
            features = self.model(torch.cat((batch["image0"], batch["image1"])), self.keypoints)
            features0, features1 = (Keypoints(*each) for each in zip(*(f.chunk(2) for f in features), strict=True))
            truth = self._truth(features0, features1, batch)
        sizes = batch["image0"].shape[-2:], batch["image1"].shape[-2:]
        layers = [
            self._balanced(*assignment_losses(assignment, truth), truth)
            for assignment in self.matcher.assignments(features0, features1, *sizes)
        ]
        loss = torch.stack([matched + alone for matched, alone in layers]).mean()
        self.log("train/loss", loss, prog_bar=True)
        self.log_dict({"train/match": layers[-1][0].detach(), "train/unmatchable": layers[-1][1].detach()})
        self.log("train/true_matches", (truth.matches0 >= 0).sum(1).float().mean())
        return loss

    def _truth(self, features0: Keypoints, features1: Keypoints, batch: Batch) -> TrueAssignment:
        places, masks = (features0.keypoints, features1.keypoints), (features0.mask, features1.mask)
        return true_assignment(*places, *masks, batch, radius=self.radius, stranger=self.stranger)

    @staticmethod
    def _balanced(matched: Tensor, alone0: Tensor, alone1: Tensor, truth: TrueAssignment) -> tuple[Tensor, Tensor]:
        """Mean over the true matches of a batch, and over the unmatchable keypoints of both views, half each."""
        positive = matched.sum() / (truth.matches0 >= 0).sum().clamp_min(1)
        negative0 = alone0.sum() / truth.unmatchable0.sum().clamp_min(1)
        negative1 = alone1.sum() / truth.unmatchable1.sum().clamp_min(1)
        return positive, (negative0 + negative1) / 2


def descriptor_length(extractor: Extractor) -> int:
    """Of the extractor's descriptors."""
    training = extractor.training
    with torch.no_grad():
        found: Keypoints = extractor.eval()(torch.zeros(1, 1, 64, 64), 1)
    extractor.train(training)
    return found.descriptors.shape[2]
