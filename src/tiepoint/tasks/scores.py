"""What is collected over the pairs of an epoch: AUC of homographies and poses, and the figures of public benchmarks."""

from collections.abc import Mapping, Sequence
from itertools import chain
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

import numpy as np
from torch import Tensor, distributed

from tiepoint.evaluation.cache import Cached, cache_path
from tiepoint.evaluation.metrics import auc, homography_corner_error, pose_error
from tiepoint.evaluation.results import PairResult, SetResult
from tiepoint.evaluation.sets import BenchmarkSet, set_result
from tiepoint.evaluation.workers import pair_result
from tiepoint.geometry import estimate
from tiepoint.types import Float32, Matches

_Any = TypeVar("_Any")

THRESHOLDS = (1, 3, 5)  # pixels
ANGLES = (5, 10, 20)  # degrees


def to_matches(
    keypoints0: Tensor, keypoints1: Tensor, matches0: Tensor, similarities: Tensor, *sizes: tuple[int, int]
) -> Matches:
    """One pair's padded tensors as `Matches`.

    Args:
        keypoints0: (K, 2), pixels.
        keypoints1: (K, 2), pixels.
        matches0: (K,) int64, -1 where unmatched.
        similarities: (K,), cosines.
        sizes: (height, width) of both images.
    """
    chosen = matches0 >= 0
    scores = similarities[chosen].float().clamp(0, 1)
    order = scores.argsort(descending=True, stable=True)
    points0, points1 = keypoints0[chosen][order], keypoints1[matches0[chosen]][order]
    return Matches(_array(points0), _array(points1), _array(scores[order]), *sizes)


def _array(tensor: Tensor) -> Float32:
    array: Float32 = tensor.float().cpu().numpy()
    return array


class HomographyScores:
    """Collects the corner errors of planar pairs and sums them up as AUC.

    The estimator is `tiepoint.estimate` (poselib, seed 0) at a threshold of 2 px.
    """

    def __init__(self) -> None:
        self._errors: list[float] = []

    def update(
        self,
        keypoints0: Tensor,
        keypoints1: Tensor,
        matches0: Tensor,
        similarities: Tensor,
        batch: dict[str, Tensor],
    ) -> None:
        """Estimate the homography of every pair of a batch that is planar and has a true one in `H_0to1`."""
        if "H_0to1" not in batch:
            return
        sizes = [(int(image.shape[-2]), int(image.shape[-1])) for image in (batch["image0"], batch["image1"])]
        planar = batch.get("planar")
        for index, true in enumerate(batch["H_0to1"].double().cpu().numpy()):
            if planar is not None and not planar[index]:
                continue
            pair = (keypoints0[index], keypoints1[index], matches0[index], similarities[index])
            geometry = estimate(to_matches(*pair, *sizes), "homography", threshold=2.0)
            self._errors.append(homography_corner_error(geometry.matrix, true, sizes[0]))

    def compute(self) -> dict[str, float]:
        """`homography_auc@t` for each threshold over the pairs of all processes, and start anew."""
        errors, self._errors = np.array(_of_all_processes(self._errors)), []
        if not len(errors):
            return {}
        areas = auc(errors, THRESHOLDS)
        return {f"homography_auc@{t}": float(area) for t, area in zip(THRESHOLDS, areas, strict=True)}


class PoseScores:
    """Collects the pose errors of pairs with known cameras and sums them up as AUC.

    The estimator is `tiepoint.estimate` (poselib, seed 0) at a threshold of 1 px.
    """

    def __init__(self) -> None:
        self._errors: list[float] = []

    def update(
        self,
        keypoints0: Tensor,
        keypoints1: Tensor,
        matches0: Tensor,
        similarities: Tensor,
        batch: dict[str, Tensor],
    ) -> None:
        """Estimate the relative pose of every pair of a batch that is `posed`: with true `K0`, `K1` and `T_0to1`."""
        if "posed" not in batch:
            return
        sizes = [(int(image.shape[-2]), int(image.shape[-1])) for image in (batch["image0"], batch["image1"])]
        K0, K1, T_0to1 = (batch[name].double().cpu().numpy() for name in ("K0", "K1", "T_0to1"))
        for index in batch["posed"].nonzero().flatten().tolist():
            pair = (keypoints0[index], keypoints1[index], matches0[index], similarities[index])
            cameras = K0[index], K1[index]
            geometry = estimate(to_matches(*pair, *sizes), "essential", cameras=cameras, threshold=1.0)
            found = (geometry.rotation, geometry.translation) if geometry else (None, None)
            self._errors.append(pose_error(*found, T_0to1[index]))

    def compute(self) -> dict[str, float]:
        """`pose_auc@t` for each angle over the pairs of all processes, and start anew."""
        errors, self._errors = np.array(_of_all_processes(self._errors)), []
        if not len(errors):
            return {}
        return {f"pose_auc@{t}": float(area) for t, area in zip(ANGLES, auc(errors, ANGLES), strict=True)}


class MeanScores:
    """Collects figures of single pairs, each under a name, for their means.

    Lightning's own means go wrong where one process has more pairs than another: it rounds their mean number down.
    """

    def __init__(self) -> None:
        self._found: list[tuple[str, float]] = []

    def update(self, name: str, values: Tensor) -> None:
        """Note a figure (B,) of the pairs of a batch."""
        self._found += [(name, value) for value in values.tolist()]

    def compute(self) -> dict[str, float]:
        """The mean of each figure over the pairs of all processes, and start anew."""
        by_name: dict[str, list[float]] = {}
        for name, value in _of_all_processes(self._found):
            by_name.setdefault(name, []).append(value)
        self._found = []
        return {name: float(np.mean(values)) for name, values in by_name.items()}


def _of_all_processes(values: list[_Any]) -> list[_Any]:
    """What all processes of a training hold; one of them may hold nothing where the others hold something."""
    if not (distributed.is_available() and distributed.is_initialized()):
        return values
    gathered: list[list[_Any]] = [[] for _ in range(distributed.get_world_size())]
    distributed.all_gather_object(gathered, values)
    return list(chain.from_iterable(gathered))


class MeasuredPair(NamedTuple):
    """A pair of a benchmark that has been matched.

    Attributes:
        file: where its matches belong, relative to the run's folder.
        matched: what was found.
    """

    file: str
    matched: Cached


class BenchmarkScores:
    """Collects what a task does on the pairs of public benchmarks, and sums it up as `tiepoint benchmark` does.

    Args:
        sets: the benchmarks, one a loader.
        name: of the method in the results.
    """

    def __init__(self, sets: Sequence[BenchmarkSet], name: str) -> None:
        self._sets, self._name = sets, name
        self._measured: list[dict[int, PairResult]] = [{} for _ in sets]

    def max_keypoints(self, index: int) -> int:
        """What the protocol of set `index` grants."""
        return self._sets[index].protocol.max_keypoints

    def update(
        self,
        index: int,
        batch: Mapping[str, Any],
        keypoints: Sequence[Tensor],
        masks: Sequence[Tensor],
        matches0: Tensor,
        similarities: Tensor,
        *,
        seconds: float,
    ) -> MeasuredPair:
        """Score one pair.

        Args:
            index: of its set.
            batch: with `image0`, `image1`, `scale0`, `scale1`, `pair` and `read_seconds`, one of each.
            keypoints: (K, 2) of both images, pixels.
            masks: (K,) bool of both images, False where padded.
            matches0: (K,) int64, for each keypoint of image 0 its partner, -1 for none.
            similarities: (K,), cosines of the matches.
            seconds: that matching took.
        """
        found, number = self._sets[index], int(batch["pair"])
        pair = found.pairs[number]
        sizes = [(int(batch[name].shape[-2]), int(batch[name].shape[-1])) for name in ("image0", "image1")]
        scale0, scale1 = (tuple(batch[name].flatten().tolist()) for name in ("scale0", "scale1"))
        matched = Cached(
            matches=to_matches(keypoints[0], keypoints[1], matches0, similarities, *sizes),
            keypoints0=_array(keypoints[0][masks[0]]),
            keypoints1=_array(keypoints[1][masks[1]]),
            scale0=scale0,
            scale1=scale1,
            seconds={"read": float(batch["read_seconds"]), "match": seconds},
        )
        path = cache_path(Path("matches"), set_name=found.name, method=self._name, identity="", pair=pair.name)
        self._measured[index][number] = pair_result(
            pair, matched, file=path.as_posix(), protocol=found.protocol, limits=found.benchmark.limits
        )
        return MeasuredPair(path.as_posix(), matched)

    def compute(self) -> list[SetResult]:
        """Sum up the sets of which a pair was measured."""
        results = [[pairs[number] for number in sorted(pairs)] for pairs in self._measured]
        return [
            set_result(found, {self._name: pairs}) for found, pairs in zip(self._sets, results, strict=True) if pairs
        ]

    def figures(self) -> dict[str, float]:
        """All figures under "SET/FIGURE", percent, with the medians of matches and inliers and the failures."""
        named: dict[str, float] = {}
        for found in self.compute():
            method = found.methods[0]
            counts = {"matches": method.matches, "inliers": method.inliers, "failures": float(method.failures)}
            shares = {"precision": method.precision, "repeatability": method.repeatability}
            told = method.figures | counts | {name: value for name, value in shares.items() if value is not None}
            named |= {f"{found.name}/{name}": value for name, value in told.items()}
        return named
