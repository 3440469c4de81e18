"""What every task on pairs of views shares: how it is validated, tested and put to use."""

import time
from typing import Any, Literal, NamedTuple

import torch
from torch import Tensor

from tiepoint.data.benchmarks import BenchmarkPairs
from tiepoint.errors import InputError
from tiepoint.models.base import Extractor, Keypoints
from tiepoint.ops import metrics
from tiepoint.tasks.base import BaseTask
from tiepoint.tasks.scores import BenchmarkScores, HomographyScores, MeasuredPair, PoseScores, SourceScores

Batch = dict[str, Any]


class TwoViewOutput(NamedTuple):
    """What the task's forward returns for a batch of pairs.

    Attributes:
        keypoints0: the keypoints of view 0.
        keypoints1: the keypoints of view 1.
        matches0: (B, K) int64, for each keypoint of view 0 its partner, -1 for none.
        similarities: (B, K), cosines or probabilities of the matches, 0 where unmatched.
    """

    keypoints0: Keypoints
    keypoints1: Keypoints
    matches0: Tensor
    similarities: Tensor


class TwoViewTask(BaseTask):
    """A task whose forward matches two views; a subclass gives `forward` and `training_step`.

    Args:
        model: the extractor.
        options: as for `BaseTask`.
    """

    def __init__(self, model: Extractor, **options: Any) -> None:
        super().__init__(model, **options)
        self.scores, self.poses, self.sources = HomographyScores(), PoseScores(), SourceScores()
        self.benchmarks: BenchmarkScores | None = None  # while public benchmarks are measured
        self.total_ms, self.timed_pairs = 0.0, 0

    def forward(self, image0: Tensor, image1: Tensor, max_keypoints: int | None = None) -> TwoViewOutput:
        """Match two batches of images, (B, 1 or 3, H, W) in [0, 1]."""
        raise NotImplementedError

    def validation_step(self, batch: Batch, batch_idx: int) -> None:
        """Match the held-out pairs and collect their scores."""
        self._score(self(batch["image0"], batch["image1"]), batch, "val")

    def on_validation_epoch_end(self) -> None:
        """Log the AUC of homographies and poses of the pairs seen, and the accuracy by source."""
        self._log_scores("val")

    def test_step(self, batch: Batch, batch_idx: int, dataloader_idx: int = 0) -> dict[str, MeasuredPair]:
        """Score held-out pairs as in validation, or pairs of a benchmark; time the matching of all but the first."""
        benchmarks = self.benchmarks
        self._wait()
        start = time.perf_counter()
        count = benchmarks.max_keypoints(dataloader_idx) if benchmarks else None
        output = self(batch["image0"], batch["image1"], count)
        self._wait()
        seconds = time.perf_counter() - start
        if batch_idx > 0:
            self.total_ms += 1000 * seconds
            self.timed_pairs += len(batch["image0"])
        if benchmarks:
            features = output.keypoints0, output.keypoints1
            points = [each.keypoints[0] for each in features]
            masks = [each.mask[0] for each in features]
            found = output.matches0[0], output.similarities[0]
            return {"pair": benchmarks.update(dataloader_idx, batch, points, masks, *found, seconds=seconds)}
        self._score(output, batch, "test")
        return {}

    def on_test_start(self) -> None:
        """Lay out the weights as everywhere else; find out whether benchmarks are measured."""
        self.model.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        data = self.trainer.datamodule  # type: ignore[attr-defined]
        self.benchmarks = BenchmarkScores(data.sets, type(self).__name__) if isinstance(data, BenchmarkPairs) else None
        if self.benchmarks and self.trainer.world_size > 1:
            raise InputError("public benchmarks are measured on one device, expected --trainer.devices 1")

    def on_test_epoch_start(self) -> None:
        """Start the clock anew."""
        self.total_ms, self.timed_pairs = 0.0, 0

    def on_test_epoch_end(self) -> None:
        """Log the figures and the mean time of a pair, warm-up excluded."""
        self._log_scores("test")
        if self.benchmarks:
            self.log_dict({f"test/{name}": value for name, value in self.benchmarks.figures().items()})
        if self.timed_pairs:
            self.log("test/ms_per_pair", self.total_ms / self.timed_pairs, sync_dist=True)

    def _wait(self) -> None:
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)

    def predict_step(self, batch: Batch, batch_idx: int) -> dict[str, Any]:
        """Match pairs; places refer to the files where the batch tells their scale."""
        output = self(batch["image0"], batch["image1"])
        found: dict[str, Any] = {"matches0": output.matches0, "similarities": output.similarities}
        for side, features in enumerate((output.keypoints0, output.keypoints1)):
            keypoints = features.keypoints
            if f"scale{side}" in batch:
                keypoints = (keypoints + 0.5) * batch[f"scale{side}"].unsqueeze(1) - 0.5
            found |= {f"keypoints{side}": keypoints, f"mask{side}": features.mask}
        return found | {name: value for name, value in batch.items() if name.startswith("path")}

    def _score(self, output: TwoViewOutput, batch: Batch, stage: Literal["val", "test"]) -> None:
        points0, points1 = output.keypoints0.keypoints, output.keypoints1.keypoints
        truth = batch["warp_0to1"], batch["covisible0"]
        accuracy = metrics.match_accuracy(points0, points1, output.matches0, *truth)
        repeated = metrics.repeatability(points0, points1, output.keypoints0.mask, output.keypoints1.mask, *truth)
        found = (output.matches0 >= 0).sum(1).float()
        # a pair without any match has no right one
        for name, value in (("accuracy", accuracy), ("repeatability", repeated), ("matches", found)):
            mean = value.nan_to_num(0.0).mean()
            self.log(f"{stage}/{name}", mean, batch_size=len(value), sync_dist=True, prog_bar=name == "accuracy")
        self.scores.update(points0, points1, output.matches0, output.similarities, batch)
        self.poses.update(points0, points1, output.matches0, output.similarities, batch)
        if "source" in batch:
            self.sources.update(batch["source"], accuracy.nan_to_num(0.0))

    def _log_scores(self, stage: Literal["val", "test"]) -> None:
        found = self.scores.compute() | self.poses.compute() | self.sources.compute()
        self.log_dict({f"{stage}/{name}": value for name, value in found.items()}, sync_dist=True)
