"""How sure a difference of two methods is, when both were measured on the same pairs."""

from collections.abc import Callable, Iterator
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from tiepoint.types import Float64

AT_ONCE = 1 << 20  # values held in memory, which ten thousand pairs would otherwise fill with gigabytes
Figure = Callable[[Float64], Float64]


class PairedDifference(NamedTuple):
    """A difference of two figures over the same pairs.

    Attributes:
        difference: figure of a minus figure of b.
        standard_error: standard deviation of the difference over the bootstrap samples.
        low: 2.5th percentile of the bootstrap samples.
        high: 97.5th percentile of the bootstrap samples.
    """

    difference: float
    standard_error: float
    low: float
    high: float


def paired_bootstrap(
    values_a: Float64, values_b: Float64, figure: Figure, *, samples: int = 2000, seed: int = 0
) -> PairedDifference:
    """How sure the difference of two methods' figure is, when both were measured on the same pairs.

    The pairs are drawn with replacement, the same for both methods, so that what is hard for both cancels
    (Efron and Tibshirani, "An Introduction to the Bootstrap", 1993, chapters 6 and 13: percentile interval).
    What it says holds for other pairs of the same kind; each method's threshold is taken as given.

    Args:
        values_a: (N,) one value a pair of method a: errors, or shares.
        values_b: (N,) of method b on the same pairs in the same order.
        figure: of the values along the last axis, (..., N) to (...): an AUC, a share, a mean.
        samples: number of bootstrap samples.
        seed: of the draw.

    Returns:
        The difference a - b with its standard error and 95 % interval.

    Raises:
        ValueError: the two methods do not have the same number of values, or none.
    """
    if values_a.shape != values_b.shape or values_a.ndim != 1 or not len(values_a):
        raise ValueError(f"paired values must have one shape (N,), got {values_a.shape} and {values_b.shape}")
    sampled = np.concatenate(
        [figure(values_a[draws]) - figure(values_b[draws]) for draws in _draws(len(values_a), samples, seed)]
    )
    low, high = np.percentile(sampled, [2.5, 97.5])
    difference = float(figure(values_a) - figure(values_b))
    return PairedDifference(difference, float(sampled.std(ddof=1)), float(low), float(high))


def _draws(count: int, samples: int, seed: int) -> Iterator[npt.NDArray[np.int64]]:
    """Indices (rows, count) of the drawn pairs, several samples at a time."""
    rng = np.random.default_rng(seed)
    rows = max(1, AT_ONCE // count)
    for start in range(0, samples, rows):
        yield rng.integers(count, size=(min(rows, samples - start), count))
