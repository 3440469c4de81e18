"""Train and measure a detector with descriptors on pairs whose correspondence is known."""

from collections.abc import Callable
from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tiepoint.models.base import Extractor, Keypoints, Maps
from tiepoint.models.pyramid import PyramidExtractor
from tiepoint.ops import losses
from tiepoint.ops.assignment import PADDED, Assignment
from tiepoint.ops.keypoints import select_keypoints
from tiepoint.ops.matching import MIN_SIMILARITY, match_descriptors
from tiepoint.ops.pose_loss import pose_loss, weighted_matches
from tiepoint.ops.sampling import sample
from tiepoint.ops.supervision import PointPairs, corner_response, detector_targets, point_pairs, warp_points
from tiepoint.tasks.base import OptimizerName
from tiepoint.tasks.teacher import Teacher
from tiepoint.tasks.twoview import Batch, TwoViewOutput, TwoViewTask


class MatchingTask(TwoViewTask):
    """Sparse matching: detector, descriptor and reliability learned together.

    Args:
        model: the extractor; `PyramidExtractor()` if None.
        lr: peak learning rate.
        weight_decay: of the optimizer.
        warmup_steps: steps over which the rate rises linearly.
        optimizer: "adamw" or "muon", see `tasks.base.build_optimizer`.
        detections: training points a view taken from its own detections.
        random_points: training points a view taken anywhere.
        radius: points nearer than this to the true one are no negatives, pixels.
        reliability_weight: weight of the reliability loss.
        corners_weight: weight of the cross-entropy to low-level corners, from which the detector starts.
        corners_share: share of the training over which the detector turns from corners to repeatability.
        corners_floor: how much of the corners remains afterwards, 0 to 1; at 1, the best so far in short runs,
            repeatability plays no part.
        repeatability_weight: weight of the expected repeatability.
        precision_weight: weight of the distance, in pixels, between keypoints of both views at the same place.
        precision_share: share of the training over which that weight rises: first there must be keypoints.
        precision_radius: keypoints farther apart than this are not of the same place, pixels.
        pose_weight: weight of the error, in radians, of the camera motion that the matches of pairs in depth lead to by
            the weighted 8-point algorithm; 0 to leave it out.
        pose_share: share of the training after which it sets in: first there must be matches.
        keypoint_cost: share of the mean gain that a keypoint must earn; higher gives fewer, surer keypoints.
        max_keypoints: keypoints a view in validation, test and prediction.
        teacher: an extractor that `tiepoint models` lists, as "aliked-n16" or "xfeat", whose keypoints take the place
            of the corners; it costs its own time at every step.
        teacher_weights: local files of its weights.
        compiled: let torch.compile fuse the network for training; takes a minute at the start and a C++ compiler.
    """

    def __init__(
        self,
        model: Extractor | None = None,
        lr: float = 2e-3,
        weight_decay: float = 1e-4,
        warmup_steps: int = 100,
        optimizer: OptimizerName = "adamw",
        detections: int = 256,
        random_points: int = 48,
        radius: float = 5.0,
        reliability_weight: float = 0.5,
        corners_weight: float = 0.3,
        corners_share: float = 0.3,
        corners_floor: float = 1.0,
        repeatability_weight: float = 1.0,
        precision_weight: float = 1.0,
        precision_share: float = 0.3,
        precision_radius: float = 2.0,
        pose_weight: float = 0.0,
        pose_share: float = 0.3,
        keypoint_cost: float = 0.5,
        max_keypoints: int = 512,
        teacher: str | None = None,
        teacher_weights: list[str] | None = None,
        compiled: bool = False,
    ) -> None:
        super().__init__(
            model or PyramidExtractor(),
            lr=lr,
            weight_decay=weight_decay,
            warmup_steps=warmup_steps,
            optimizer=optimizer,
        )
        self.detections, self.random_points, self.radius = detections, random_points, radius
        self.reliability_weight = reliability_weight
        self.corners_weight, self.corners_share, self.corners_floor = corners_weight, corners_share, corners_floor
        self.repeatability_weight, self.keypoint_cost = repeatability_weight, keypoint_cost
        self.precision_weight, self.precision_share = precision_weight, precision_share
        self.precision_radius = precision_radius
        self.pose_weight, self.pose_share = pose_weight, pose_share
        self.max_keypoints = max_keypoints
        self.teacher, self.teacher_weights = teacher, teacher_weights or []
        self.compiled = compiled
        self._maps: Callable[[Tensor], Maps] = self.model.maps
        self._teacher: Teacher | None = None  # while training; what it weighs is not this task's to keep
        self.log_scale = nn.Parameter(torch.tensor(20.0).log())  # inverse temperature of the contrastive loss

    def forward(self, image0: Tensor, image1: Tensor, max_keypoints: int | None = None) -> TwoViewOutput:
        """Match two batches of images, (B, 1 or 3, H, W) in [0, 1]: in full precision, as the exported graph does."""
        count = max_keypoints or self.max_keypoints
        with torch.autocast(self.device.type, enabled=False):
            features0: Keypoints = self.model(image0, count)
            features1: Keypoints = self.model(image1, count)
            described = features0.descriptors, features1.descriptors
            masks = features0.mask, features1.mask
            found = match_descriptors(*described, *masks, min_similarity=MIN_SIMILARITY)
            return TwoViewOutput(features0, features1, *found)

    def on_fit_start(self) -> None:
        """Compile the network, call the teacher in."""
        if self.compiled:
            self._maps = torch.compile(self.model.maps, dynamic=False)
        if self.teacher is not None:
            self._teacher = Teacher(self.teacher, self.teacher_weights)
            self._teacher.to(self.device)

    def training_step(self, batch: Batch, batch_idx: int) -> Tensor:
        """Average the losses of a batch of pairs and log each."""
        maps = self._maps(torch.cat((batch["image0"], batch["image1"])))
        # similarities and probabilities need more digits than half precision has
        with torch.autocast(self.device.type, enabled=False):
            terms = self._losses(Maps(*(m.float() for m in maps)), batch)
        loss = sum(terms.values(), torch.zeros((), device=self.device))
        self.log("train/loss", loss, prog_bar=True)
        self.log_dict({f"train/{name}": value.detach() for name, value in terms.items()})
        self.log("train/scale", self._scale().detach())
        return loss

    def _losses(self, maps: Maps, batch: Batch) -> dict[str, Tensor]:
        keypoints, found = self._detections(maps)
        terms = self._descriptor_losses(maps, self._training_points(keypoints.detach(), found, batch), batch)
        precision = self.precision_weight * self._done(self.precision_share)
        terms["precision"] = precision * self._imprecision(keypoints, found, batch)
        if self.pose_weight > 0 and self._done(self.pose_share) == 1 and "posed" in batch and batch["posed"].any():
            terms["pose"] = self.pose_weight * self._pose_error(maps, keypoints.detach(), found, batch)
        detection0, detection1 = maps.detection.chunk(2)
        return terms | self._detector_losses(detection0, detection1, maps.reliability.detach(), batch)

    def _detections(self, maps: Maps) -> tuple[Tensor, Tensor]:
        """The surest keypoints of all views, (2B, N, 2), and which (2B, N) there are: a small view has fewer."""
        height, width = maps.detection.shape[-2:]
        keypoints, odds = select_keypoints(
            F.pixel_unshuffle(maps.detection, 2),
            maps.reliability,
            (height, width),
            self.detections,
            threshold=-torch.inf,
            border=4,
        )
        return keypoints, torch.isfinite(odds)

    def _training_points(self, keypoints: Tensor, found: Tensor, batch: Batch) -> PointPairs:
        """Detections of both views and random places, with where they truly lie in the other view."""
        height, width = batch["image0"].shape[-2:]
        size = torch.tensor((width - 1, height - 1), device=keypoints.device)
        count = self.detections + self.random_points
        points = size * torch.rand((len(keypoints), count, 2), device=keypoints.device)
        # where a view has fewer detections than asked for, the random places stay
        points[:, : self.detections] = torch.where(found.unsqueeze(2), keypoints, points[:, : self.detections])
        points0, points1 = points.chunk(2)
        return point_pairs(points0, points1, batch)

    def _descriptor_losses(self, maps: Maps, pairs: PointPairs, batch: Batch) -> dict[str, Tensor]:
        """Descriptors that tell the places from each other, and a reliability that knows which they tell."""
        valid = pairs.valid
        points = torch.cat((pairs.points0, pairs.points1))
        descriptors, odds = _read(maps, points, width=batch["image0"].shape[-1])
        descriptors0, descriptors1 = descriptors.chunk(2)
        contrast = partial(losses.contrast_logits, scale=self._scale(), radius=self.radius, scene=batch.get("scene"))
        logits0 = contrast(descriptors0, descriptors1, pairs)
        swapped = PointPairs(pairs.points1, pairs.points0, valid)
        logits1 = contrast(descriptors1, descriptors0, swapped)
        nce = _mean(losses.info_nce(logits0) + losses.info_nce(logits1), valid)
        success = losses.matched(logits0.detach(), logits1.detach())
        odds0, odds1 = odds.chunk(2)
        trust = _mean(losses.reliability_loss(odds0, success) + losses.reliability_loss(odds1, success), valid)
        self.log("train/matched", _mean(success.float(), valid), prog_bar=True)
        return {"descriptor": nce / 2, "reliability": self.reliability_weight * trust / 2}

    def _pose_error(self, maps: Maps, keypoints: Tensor, found: Tensor, batch: Batch) -> Tensor:
        """The mean error of the motion, radians, where it is known; it teaches who matches, not where keypoints lie."""
        described, odds = _read(maps, keypoints, width=batch["image0"].shape[-1])
        posed = batch["posed"]
        points, vectors, trust, there = (
            [side[posed] for side in f.chunk(2)] for f in (keypoints, described, odds, found)
        )
        both = there[0].unsqueeze(2) & there[1].unsqueeze(1)
        similarity = (self._scale() * vectors[0] @ vectors[1].transpose(1, 2)).masked_fill(~both, PADDED)
        matches = weighted_matches(points[0], points[1], Assignment(similarity, trust[0], trust[1]))
        errors, known = pose_loss(matches, *(batch[name][posed] for name in ("K0", "K1", "T_0to1")))
        error = _mean(errors, known)
        self.log("train/motion", error.detach())
        return error

    def _imprecision(self, keypoints: Tensor, found: Tensor, batch: Batch) -> Tensor:
        """The mean distance in pixels between keypoints of both views at the same place."""
        (keypoints0, keypoints1), (found0, found1) = keypoints.chunk(2), found.chunk(2)
        moved0, seen0 = warp_points(keypoints0, batch["warp_0to1"], batch["covisible0"])
        # what is no keypoint lies where nothing comes near
        others = torch.where(found1.unsqueeze(2), keypoints1, -1e4)
        errors, counts = losses.reprojection_errors(moved0, seen0 & found0, others, radius=self.precision_radius)
        return _mean(errors, counts)

    def _detector_losses(
        self, detection0: Tensor, detection1: Tensor, reliability: Tensor, batch: Batch
    ) -> dict[str, Tensor]:
        """Corners, or the teacher's keypoints, at first, then repeatability, mixed linearly in between."""
        corners = self._corners_factor()
        terms = {}
        if corners > 0:
            clean = torch.cat((batch["clean0"], batch["clean1"]))
            response = corner_response(clean) if self._teacher is None else self._teacher.response(clean)
            response0, response1 = response.chunk(2)
            targets = detector_targets(response0, response1, batch)
            entropy = losses.detection_cross_entropy(torch.cat((detection0, detection1)), torch.cat(targets))
            terms["corners"] = corners * self.corners_weight * entropy.mean()
        if corners < 1:
            worth = F.interpolate(0.3 + 0.7 * torch.sigmoid(reliability), detection0.shape[-2:], mode="bilinear")
            worth0, worth1 = worth.chunk(2)
            warps = (batch["warp_0to1"], batch["covisible0"]), (batch["warp_1to0"], batch["covisible1"])
            gain0 = losses.repeatability_gain(detection0, detection1, *warps[0], worth0, cost=self.keypoint_cost)
            gain1 = losses.repeatability_gain(detection1, detection0, *warps[1], worth1, cost=self.keypoint_cost)
            weight = (1 - corners) * self.repeatability_weight
            terms["repeatability"] = -weight * (gain0.mean() + gain1.mean()) / 2
        return terms

    def _corners_factor(self) -> float:
        """1 in the first half of `corners_share` of the training, then falling to `corners_floor`."""
        return min(1.0, max(self.corners_floor, 2 - 2 * self._done(self.corners_share)))

    def _done(self, share: float) -> float:
        """How much of the first `share` of the training is over, 0 to 1; all of it where its length is unknown."""
        steps = share * self.trainer.estimated_stepping_batches
        return min(1.0, self.trainer.global_step / steps) if 0 < steps < float("inf") else 1.0

    def _scale(self) -> Tensor:
        return self.log_scale.float().exp().clamp(max=50.0)


def _read(maps: Maps, points: Tensor, *, width: int) -> tuple[Tensor, Tensor]:
    """Descriptors of unit length (B, N, D) and log-odds of reliability (B, N) at pixels (B, N, 2) of views so wide."""
    stride = width // maps.descriptors.shape[-1]
    at = (points - (stride - 1) / 2) / stride
    return F.normalize(sample(maps.descriptors, at), dim=-1), sample(maps.reliability, at).squeeze(-1)


def _mean(values: Tensor, valid: Tensor) -> Tensor:
    """Mean of the valid values, 0 where there is none."""
    return (values * valid).sum() / valid.sum().clamp_min(1)
