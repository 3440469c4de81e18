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
from tiepoint.tasks.scores import BenchmarkScores, HomographyScores, MeanScores, MeasuredPair, PoseScores

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

    model: Extractor

    def __init__(self, model: Extractor, **options: Any) -> None:
        super().__init__(model, **options)
        self.means, self.homographies, self.poses = MeanScores(), HomographyScores(), PoseScores()
        self.benchmarks: BenchmarkScores | None = None  # while public benchmarks are measured
        self.total_ms, self.timed_pairs = 0.0, 0

    def forward(self, image0: Tensor, image1: Tensor, max_keypoints: int | None = None) -> TwoViewOutput:
        """Match two batches of images, (B, 1 or 3, H, W) in [0, 1]."""
        raise NotImplementedError

    def validation_step(self, batch: Batch, batch_idx: int) -> dict[str, Any]:
        """Match the held-out pairs and collect their scores.

        Returns:
            `output`, the `TwoViewOutput`, and of its matches `right` and `judged`, see `metrics.right_matches`.
        """
        output = self(batch["image0"], batch["image1"])
        right, judged = self._score(output, batch)
        return {"output": output, "right": right, "judged": judged}

    def on_validation_epoch_end(self) -> None:
        """Log the figures of the pairs seen."""
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
        self._score(output, batch)
        return {}

    def on_test_start(self) -> None:
        """Find out whether benchmarks are measured."""
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

    def _score(self, output: TwoViewOutput, batch: Batch) -> tuple[Tensor, Tensor]:
        points0, points1 = output.keypoints0.keypoints, output.keypoints1.keypoints
        truth = batch["warp_0to1"], batch["covisible0"]
        right, judged = metrics.right_matches(points0, points1, output.matches0, *truth)
        accuracy = metrics.match_accuracy(right, judged)
        repeated = metrics.repeatability(points0, points1, output.keypoints0.mask, output.keypoints1.mask, *truth)
        found = (output.matches0 >= 0).sum(1).float()
        # a pair without any match has no right one
        for name, value in (("accuracy", accuracy), ("repeatability", repeated), ("matches", found)):
            self.means.update(name, value.nan_to_num(0.0))
        if "source" in batch:
            self.means.update(f"accuracy/{batch['source']}", accuracy.nan_to_num(0.0))
        matched = points0, points1, output.matches0, output.similarities
        self.homographies.update(*matched, batch)
        self.poses.update(*matched, batch)
        return right, judged

    def _log_scores(self, stage: Literal["val", "test"]) -> None:
        found = self.means.compute() | self.homographies.compute() | self.poses.compute()
        for name, value in found.items():
            self.log(f"{stage}/{name}", value, prog_bar=name == "accuracy", sync_dist=True)
