"""How good a form of networks is on views whose homography is known: the same figure before and after a conversion."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import nn

from tiepoint.conversion.check_images import CheckPair
from tiepoint.conversion.parity import Answer, Runner
from tiepoint.evaluation.metrics import auc, homography_corner_error
from tiepoint.geometry import estimate
from tiepoint.images import UInt8
from tiepoint.types import Matches

LIMITS = (1, 3, 5)  # px, of the mean distance of the four corners
THRESHOLD = 2.0  # px, of poselib's inliers


@dataclass(frozen=True)
class Accuracy:
    """AUC in percent of the corner errors up to each of `LIMITS` pixels, over a number of pairs.

    Attributes:
        pairs: how many.
        auc: by the limit.
    """

    pairs: int
    auc: dict[str, float]

    def fall_to(self, other: "Accuracy") -> float:
        """By how many points the AUC at the last limit is lower in the other; negative where it is higher."""
        last = str(LIMITS[-1])
        return self.auc[last] - other.auc[last]


def accuracy(run: Runner, pairs: Sequence[CheckPair]) -> Accuracy:
    """Match pairs, estimate their homographies and measure these.

    Args:
        run: with matches among what it tells; see `completed`.
        pairs: at least one.
    """
    answers = (run(pair.image0[None], pair.image1[None]) for pair in pairs)
    found = (_matches(answer, pair) for answer, pair in zip(answers, pairs, strict=True))
    return measured(corner_errors(found, pairs))


def measured(errors: Sequence[float]) -> Accuracy:
    """The AUC of corner errors, pixels."""
    areas = auc(np.array(errors), LIMITS)
    return Accuracy(len(errors), {str(limit): 100 * float(area) for limit, area in zip(LIMITS, areas, strict=True)})


def corner_errors(found: Iterable[Matches | None], pairs: Sequence[CheckPair]) -> list[float]:
    """Of the homographies of matches (poselib, seed 0), pixels; infinite where there is none.

    Args:
        found: of each pair.
        pairs: with the truth.
    """
    errors = []
    for matches, pair in zip(found, pairs, strict=True):
        H = None if matches is None else estimate(matches, "homography", threshold=THRESHOLD).matrix
        errors.append(homography_corner_error(H, pair.H_0to1, (pair.image0.shape[0], pair.image0.shape[1])))
    return errors


def _matches(answer: Answer, pair: CheckPair) -> Matches | None:
    """Of one pair, best first; None where places are no numbers."""
    assert answer.matches0 is not None
    assert answer.scores is not None
    matched = np.flatnonzero(answer.matches0[0] >= 0)
    chosen = matched[np.argsort(-answer.scores[0][matched], kind="stable")]
    points0, points1 = (features.keypoints[0] for features in answer.features)
    ends = points0[chosen], points1[answer.matches0[0][chosen]]
    if not all(np.isfinite(points).all() for points in ends):
        return None
    sizes = [(image.shape[0], image.shape[1]) for image in (pair.image0, pair.image1)]
    return Matches(*ends, answer.scores[0][chosen].clip(0, 1), sizes[0], sizes[1])


def completed(run: Runner, matcher: nn.Module) -> Runner:
    """The same with matches where a form tells features alone: those that a matcher in torch finds among them.

    Args:
        run: what is to be completed.
        matcher: from the features of two images to matches, `Weights.graph("matcher")`.
    """

    @torch.inference_mode()
    def complete(image0: UInt8, image1: UInt8) -> Answer:
        answer = run(image0, image1)
        if answer.matches0 is not None:
            return answer
        given = []
        for image, found in zip((image0, image1), answer.features, strict=True):
            fields = (torch.from_numpy(field) for field in (found.keypoints, found.descriptors, found.mask))
            given += [*fields, torch.tensor(len(image) * [image.shape[1:3]])]
        return Answer(answer.features, *(field.numpy() for field in matcher(*given)))

    return complete
