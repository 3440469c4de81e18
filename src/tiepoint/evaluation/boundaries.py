"""How well boundaries were found, as the Berkeley benchmark counts (Arbeláez et al., TPAMI 2011, section 3.1).

Precision is the share of found pixels that belong to a boundary of any annotator, recall the share of all annotators'
pixels that were found. A found pixel and a true one belong together if a one-to-one assignment of pixels within a
tolerance says so: one with as many pairs as there can be, and near pairs first. The original minimises the sum of the
distances, where leaving a pixel out costs a hundred tolerances: as many pairs, so that recall is the same, but here and
there of another found pixel (0.3 % more right ones here, the median over three images at four thresholds).
"""

import os
from collections.abc import Iterable, Sequence
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from multiprocessing import get_context
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
from tqdm import tqdm

from tiepoint.contours import thin
from tiepoint.types import Bool, Float64

TOLERANCE = 0.0075  # of the image's diagonal, BSDS's
THRESHOLDS: Float64 = np.arange(1, 100) / 100


class Counts(NamedTuple):
    """What was found in one image at each of T thresholds, each (T,) float64.

    Attributes:
        right: found pixels that are assigned to a pixel of any annotator.
        found: all found pixels.
        recalled: pixels of the annotators that are assigned to a found one, summed over the annotators.
        true: pixels of the annotators, summed.
    """

    right: Float64
    found: Float64
    recalled: Float64
    true: Float64


class Boundaries(NamedTuple):
    """The figures of a set of images.

    Attributes:
        ods: the best F-measure that one threshold for all images reaches.
        threshold: that threshold.
        ois: the F-measure with the best threshold of each image.
        ap: the average precision: the area under the curve over the recall.
        precision: (T,), of each threshold.
        recall: (T,), likewise.
    """

    ods: float
    threshold: float
    ois: float
    ap: float
    precision: Float64
    recall: Float64


def count_boundaries(
    probability: Float64, annotations: Bool, *, thresholds: Float64 = THRESHOLDS, tolerance: float = TOLERANCE
) -> Counts:
    """Count at each threshold what was found and what not.

    Args:
        probability: (H, W) in [0, 1], thinned by non-maximum suppression.
        annotations: (A, H, W), the boundaries that each annotator drew.
        thresholds: (T,), ascending.
        tolerance: largest distance of what belongs together, as a share of the diagonal.

    Raises:
        ValueError: the shapes do not fit together.
    """
    if annotations.ndim != 3 or annotations.shape[1:] != probability.shape:
        raise ValueError(f"annotations are {annotations.shape}, expected (A, {probability.shape})")
    radius = tolerance * float(np.hypot(*probability.shape))
    places = np.argwhere(probability >= thresholds[0])
    shown = np.stack([thin(probability >= threshold)[tuple(places.T)] for threshold in thresholds])
    right, recalled = np.zeros_like(shown), np.zeros(len(thresholds))
    # at many thresholds the same is shown
    _, first, same = np.unique(np.packbits(shown, axis=1), axis=0, return_index=True, return_inverse=True)
    for annotation in annotations:
        candidates = _candidates(places, annotation, radius)
        for at in first:
            partnered = _assigned(candidates.among(shown[at]))
            right[at, partnered] = True
            recalled[at] += len(partnered)
    right, recalled = right[first[same]], recalled[first[same]]
    true = np.full(len(thresholds), float(np.count_nonzero(annotations)))
    return Counts(right.sum(1).astype(np.float64), shown.sum(1).astype(np.float64), recalled, true)


def count_all(
    found: Sequence[tuple[Float64, Bool]], *, thresholds: Float64 = THRESHOLDS, workers: int | None = None
) -> list[Counts]:
    """`count_boundaries` of many images, spread over the cores, with a bar.

    Args:
        found: thinned map and annotations of each.
        thresholds: (T,), ascending.
        workers: processes; one a core if None.
    """
    count = partial(_count_one, thresholds=thresholds)
    used = min(workers or os.cpu_count() or 1, len(found))
    bar = partial(tqdm, total=len(found), desc="counting edges", unit="image", disable=None, leave=False)
    if used <= 1:
        return list(bar(map(count, found)))
    with ProcessPoolExecutor(used, mp_context=get_context("spawn")) as pool:
        return list(bar(pool.map(count, found)))


def _count_one(found: tuple[Float64, Bool], thresholds: Float64) -> Counts:
    return count_boundaries(*found, thresholds=thresholds)


class _Candidates(NamedTuple):
    """What may belong together, the nearest first: (E,) each, numbers of places and of true pixels, squared distances.

    `sizes` are the numbers of places and of true pixels.
    """

    places: npt.NDArray[np.intp]
    true: npt.NDArray[np.intp]
    distances: npt.NDArray[np.intp]
    sizes: tuple[int, int]

    def among(self, chosen: Bool) -> "_Candidates":
        """Those of the chosen places."""
        kept = chosen[self.places]
        return _Candidates(self.places[kept], self.true[kept], self.distances[kept], self.sizes)


def _candidates(places: npt.NDArray[np.intp], truth: Bool, radius: float) -> _Candidates:
    reach = int(radius)
    offsets = np.mgrid[-reach : reach + 1, -reach : reach + 1].reshape(2, -1)
    distances = (offsets**2).sum(0)
    order = np.argsort(distances, kind="stable")
    offsets = offsets[:, order[distances[order] <= radius**2]]
    count = int(np.count_nonzero(truth))
    number = np.full(truth.shape, -1)
    number[truth] = np.arange(count)
    number = np.pad(number, reach, constant_values=-1)
    near = number[places[:, 0] + reach + offsets[0, :, None], places[:, 1] + reach + offsets[1, :, None]]
    which, rows = np.nonzero(near >= 0)
    return _Candidates(rows, near[which, rows], (offsets[:, which] ** 2).sum(0), (len(places), count))


def assign_pixels(places: npt.NDArray[np.intp], truth: Bool, radius: float) -> npt.NDArray[np.intp]:
    """Which places get a true pixel within `radius`, no two of them the same one.

    Args:
        places: (N, 2), rows and columns.
        truth: (H, W).
        radius: pixels.

    Returns:
        Their numbers, in any order.
    """
    return _assigned(_candidates(places, truth, radius))


def _assigned(candidates: _Candidates) -> npt.NDArray[np.intp]:
    """The numbers of the places that get a partner.

    The near pairs leave some without a partner who could have one if others changed theirs, along a chain of places
    and true pixels that ends at a free one (Berge, 1957). As many chains as can be had side by side are a largest flow;
    whoever had a partner has one afterwards.
    """
    # here: nothing but this needs it
    from scipy.sparse import csr_array
    from scipy.sparse.csgraph import maximum_flow

    partner = _nearest_first(candidates)
    assigned = np.flatnonzero(partner >= 0)
    count, others = candidates.sizes
    free, free_true = (np.ones(size, dtype=bool) for size in candidates.sizes)
    free[assigned], free_true[partner[assigned]] = False, False
    starts = np.flatnonzero(free & (np.bincount(candidates.places, minlength=count) > 0))
    ends = np.flatnonzero(free_true & (np.bincount(candidates.true, minlength=others) > 0))
    if not (len(starts) and len(ends)):
        return assigned
    source, sink = count + others, count + others + 1
    unused = partner[candidates.places] != candidates.true
    tails = (candidates.places[unused], count + partner[assigned], np.full(len(starts), source), count + ends)
    heads = (count + candidates.true[unused], assigned, starts, np.full(len(ends), sink))
    edges = np.concatenate(tails).astype(np.int32), np.concatenate(heads).astype(np.int32)
    capacities = np.ones(len(edges[0]), dtype=np.int32)
    graph = csr_array((capacities, edges), shape=(sink + 1, sink + 1))
    flow = maximum_flow(graph, source, sink, method="dinic").flow
    from_source = slice(*flow.indptr[source : source + 2])
    return np.concatenate([assigned, flow.indices[from_source][flow.data[from_source] > 0]])


def _nearest_first(candidates: _Candidates) -> npt.NDArray[np.intp]:
    """For each place its true pixel, -1 for none: of all pairs that are left the nearest ones, until none is left."""
    partner, taken = np.full(candidates.sizes[0], -1), np.zeros(candidates.sizes[1], dtype=bool)
    rings = np.flatnonzero(np.diff(candidates.distances)) + 1
    for places, true in zip(np.split(candidates.places, rings), np.split(candidates.true, rings), strict=True):
        while len(places):
            free = (partner[places] < 0) & ~taken[true]
            places, true = places[free], true[free]
            won = _one_each(places, len(partner))
            won = won[_one_each(true[won], len(taken))]
            partner[places[won]], taken[true[won]] = true[won], True
    return partner


def _one_each(numbers: npt.NDArray[np.intp], count: int) -> npt.NDArray[np.intp]:
    """The positions at which a number, below `count`, stands for the last time."""
    last = np.full(count, -1)
    last[numbers] = np.arange(len(numbers))
    return np.flatnonzero(last[numbers] == np.arange(len(numbers)))


def summarise_boundaries(counts: Sequence[Counts], thresholds: Float64 = THRESHOLDS) -> Boundaries:
    """The figures of all images together.

    Args:
        counts: of each image.
        thresholds: (T,), those of the counts.

    Raises:
        ValueError: there are no images.
    """
    if not counts:
        raise ValueError("no images to summarise")
    total = Counts(*(np.sum(each, axis=0) for each in zip(*counts, strict=True)))
    precision, recall = _ratio(total.right, total.found), _ratio(total.recalled, total.true)
    ods, threshold = _best(precision, recall, thresholds)
    best = [int(np.argmax(_f(_ratio(c.right, c.found), _ratio(c.recalled, c.true)))) for c in counts]
    chosen = Counts(
        *(np.sum([part[at] for part, at in zip(each, best, strict=True)]) for each in zip(*counts, strict=True))
    )
    ois = float(_f(_ratio(chosen.right, chosen.found), _ratio(chosen.recalled, chosen.true)))
    return Boundaries(ods, threshold, ois, _area(precision, recall), precision, recall)


def _ratio(part: Float64, whole: Float64) -> Float64:
    return np.divide(part, whole, out=np.zeros_like(np.asarray(part, dtype=np.float64)), where=whole > 0)


def _f(precision: Float64, recall: Float64) -> Float64:
    return _ratio(2 * precision * recall, precision + recall)


def _best(precision: Float64, recall: Float64, thresholds: Float64) -> tuple[float, float]:
    """The best F-measure and its threshold, a hundred steps between two thresholds, as the original interpolates."""
    fine = np.linspace(0, len(thresholds) - 1, 100 * (len(thresholds) - 1) + 1)
    at = np.arange(len(thresholds))
    values = _f(np.interp(fine, at, precision), np.interp(fine, at, recall))
    where = int(values.argmax())
    return float(values[where]), float(np.interp(fine[where], at, thresholds))


def _area(precision: Float64, recall: Float64) -> float:
    """Under the curve, in steps of 0.01 of the recall, within the recalls that were reached."""
    reached, first = np.unique(recall, return_index=True)
    if len(reached) < 2:
        return 0.0
    steps = np.arange(101) / 100
    return float(np.interp(steps, reached, precision[first], left=0, right=0).sum() * 0.01)


def of_humans(annotations: Iterable[Bool]) -> list[Counts]:
    """Each annotator of each image measured against the others of that image: how far people agree.

    Args:
        annotations: of each image (A, H, W); images of a single annotator are left out.

    Returns:
        Counts of each image, at the one threshold that a drawing has.
    """
    counts = []
    for each in annotations:
        if len(each) < 2:
            continue
        rows = [
            count_boundaries(one.astype(np.float64), np.delete(each, which, 0), thresholds=np.array([0.5]))
            for which, one in enumerate(each)
        ]
        counts.append(Counts(*(np.sum(part, axis=0) for part in zip(*rows, strict=True))))
    return counts
