"""Whether two forms of the same networks give the same answer, and by how much they differ."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import torch

from tiepoint.checkpoints import Shape, Weights
from tiepoint.conversion.check_images import parity_pairs
from tiepoint.conversion.graphs import SHAPES
from tiepoint.errors import InputError
from tiepoint.images import UInt8
from tiepoint.runtime.graph import start_session
from tiepoint.types import Float32

KEYPOINTS = 2048


@dataclass(frozen=True)
class Parity:
    """How far two forms agree on a batch of pairs. Sets are compared, in both directions, and the worse counts.

    Attributes:
        name: the pair.
        matches: number of matches of the original; None where one form has none to tell.
        same_keypoints: share of the keypoints of both images with a partner of the other form within the bound.
        same_matches: share of the matches whose two ends both have one in one and the same match of the other.
        largest_px: largest distance of a keypoint to its partner, pixels; infinite where one side has none.
        largest_score: largest difference of the scores of keypoints that are the same.
        largest_descriptor: of the numbers of their descriptors; None where one form has none to tell.
        largest_match_score: of the scores of matches that are the same.
    """

    name: str
    matches: int | None
    same_keypoints: float
    same_matches: float | None
    largest_px: float
    largest_score: float
    largest_descriptor: float | None
    largest_match_score: float | None

    @property
    def same(self) -> float:
        """The smaller of the two shares."""
        return min(self.same_keypoints, 1.0 if self.same_matches is None else self.same_matches)

    @property
    def largest(self) -> float:
        """The largest difference of a score or of a number of a descriptor."""
        return max(self.largest_score, self.largest_descriptor or 0.0, self.largest_match_score or 0.0)


class Features(NamedTuple):
    """Of a batch of images; the fields of `models.base.Keypoints`, without descriptors where they are not told."""

    keypoints: Float32
    descriptors: Float32 | None
    scores: Float32
    mask: npt.NDArray[np.bool_]


class Answer(NamedTuple):
    """Of a batch of pairs: (B, K) `matches0` and `scores` as in `PaddedMatches`, None where they are not told."""

    features: tuple[Features, Features]
    matches0: npt.NDArray[np.int64] | None
    scores: Float32 | None


Runner = Callable[[UInt8, UInt8], Answer]


def torch_runner(weights: Weights) -> Runner:
    """Runs networks in torch, stage by stage, so that all is told."""
    extract, match = weights.graph("extractor"), weights.graph("matcher")
    count = torch.tensor(KEYPOINTS)

    @torch.inference_mode()
    def run(image0: UInt8, image1: UInt8) -> Answer:
        features = [extract(torch.from_numpy(image), count) for image in (image0, image1)]
        sizes = [torch.tensor(len(image) * [image.shape[1:3]]) for image in (image0, image1)]
        given = [
            (found.keypoints, found.descriptors, found.mask, size) for found, size in zip(features, sizes, strict=True)
        ]
        told = [Features(*(field.numpy() for field in found)) for found in features]
        return Answer((told[0], told[1]), *(field.numpy() for field in match(*given[0], *given[1])))

    return run


def onnx_runner(path: Path, *, shape: Shape, features: Runner) -> Runner:
    """Runs an ONNX file.

    Args:
        path: the file.
        shape: of its graph.
        features: whose features a matcher alone is given.

    Raises:
        InputError: the graph takes something else.
    """
    session = start_session(path, name=str(path), device="cpu")
    inputs, expected = {each.name for each in session.get_inputs()}, SHAPES[shape][0]
    if inputs != set(expected):
        found = ", ".join(sorted(inputs))[:160]
        raise InputError(f"{path} is a graph from {found}, expected one from {', '.join(expected)}")
    names = [output.name for output in session.get_outputs()]
    count = np.array(KEYPOINTS, np.int64)

    def pair(image0: UInt8, image1: UInt8) -> Answer:
        feed = {"image0": image0, "image1": image1, "max_keypoints": count}
        found = dict(zip(names, session.run(names, feed), strict=True))
        told = [
            Features(found[f"keypoints{side}"], None, scores := found[f"keypoint_scores{side}"], scores > 0)
            for side in (0, 1)
        ]
        return Answer((told[0], told[1]), found["matches0"], found["scores"])

    def extractor(image0: UInt8, image1: UInt8) -> Answer:
        told = [
            Features(*session.run(Features._fields, {"image": image, "max_keypoints": count}))
            for image in (image0, image1)
        ]
        return Answer((told[0], told[1]), None, None)

    def matcher(image0: UInt8, image1: UInt8) -> Answer:
        given = features(image0, image1).features
        feed: dict[str, npt.NDArray[Any]] = {}
        for side, (image, found) in enumerate(zip((image0, image1), given, strict=True)):
            feed |= {f"{name}{side}": getattr(found, name) for name in ("keypoints", "descriptors", "mask")}
            feed[f"size{side}"] = np.array(len(image) * [image.shape[1:3]])
        return Answer(given, *session.run(("matches0", "scores"), feed))

    return {"pair": pair, "extractor": extractor, "matcher": matcher}[shape]


def compare(original: Runner, copy: Runner, *, bound: float) -> Iterator[Parity]:
    """Run two forms on all the test pairs.

    Args:
        original: what is right.
        copy: what is in question.
        bound: largest distance of keypoints that count as the same, pixels.
    """
    for name, image0, image1 in parity_pairs():
        yield parity(name, original(image0, image1), copy(image0, image1), bound=bound)


def parity(name: str, original: Answer, copy: Answer, *, bound: float) -> Parity:
    """Compare the answers to a batch: as sets, since near-equal scores swap ranks."""
    keypoints, px, scores, descriptors = [1.0], [0.0], [0.0], [0.0]
    described = True
    for ours, theirs in zip(original.features, copy.features, strict=True):
        described = described and ours.descriptors is not None and theirs.descriptors is not None
        for index in range(len(ours.mask)):
            both = _rows(ours, index), _rows(theirs, index)
            for (places, values, vectors), (other_places, other_values, other_vectors) in (both, both[::-1]):
                distance, partner = _nearest(places, other_places)
                same = distance <= bound
                keypoints.append(_share(same))
                px.append(float(distance.max(initial=0)))
                scores.append(_largest(values[same], other_values[partner[same]]))
                if described:
                    descriptors.append(_largest(vectors[same], other_vectors[partner[same]]))
    matches, same_matches, match_scores = _of_matches(original, copy, bound=bound)
    return Parity(
        name,
        matches,
        min(keypoints),
        same_matches,
        max(px),
        max(scores),
        max(descriptors) if described else None,
        match_scores,
    )


def _of_matches(original: Answer, copy: Answer, *, bound: float) -> tuple[int | None, float | None, float | None]:
    """Number of the original's, share that is the same, and the largest difference of the scores of these."""
    if original.matches0 is None or copy.matches0 is None:
        return None, None, None
    shares, scores = [1.0], [0.0]
    for index in range(len(original.matches0)):
        both = _ends(original, index), _ends(copy, index)
        for (ends, values), (other_ends, other_values) in (both, both[::-1]):
            distance, partner = _nearest(ends, other_ends)
            same = distance <= bound
            shares.append(_share(same))
            scores.append(_largest(values[same], other_values[partner[same]]))
    return int((original.matches0 >= 0).sum()), min(shares), max(scores)


def _rows(features: Features, index: int) -> tuple[Float32, Float32, Float32]:
    """Places (N, 2), scores (N,) and descriptors (N, D) of one image, without padding; no descriptors are (N, 0)."""
    mask = features.mask[index]
    vectors = features.keypoints[..., :0] if features.descriptors is None else features.descriptors
    return features.keypoints[index][mask], features.scores[index][mask], vectors[index][mask]


def _ends(answer: Answer, index: int) -> tuple[Float32, Float32]:
    """Both ends (N, 4) of the matches of one pair, and their scores (N,)."""
    assert answer.matches0 is not None
    assert answer.scores is not None
    matches0 = answer.matches0[index]
    chosen = np.flatnonzero(matches0 >= 0)
    places0, places1 = (features.keypoints[index] for features in answer.features)
    return np.hstack((places0[chosen], places1[matches0[chosen]])), answer.scores[index][chosen]


def _largest(values: Float32, others: Float32) -> float:
    return float(np.abs(values - others).max(initial=0))


def _share(same: npt.NDArray[np.bool_]) -> float:
    return float(same.mean()) if len(same) else 1.0


def _nearest(points: Float32, others: Float32) -> tuple[Float32, npt.NDArray[np.int64]]:
    """Distance of each of (N, D) points to the nearest of (M, D) others, and which; infinite where there is none."""
    if not len(others):
        return np.full(len(points), np.inf, np.float32), np.zeros(len(points), np.int64)
    # differences, not the expanded square: that loses the digits which are in question here
    distances = np.linalg.norm(points[:, None] - others[None], axis=2)
    return distances.min(1), distances.argmin(1)
