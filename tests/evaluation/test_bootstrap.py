import numpy as np
import numpy.typing as npt
import pytest

from tiepoint.evaluation.bootstrap import paired_bootstrap
from tiepoint.evaluation.metrics import auc

Array = npt.NDArray[np.float64]


def auc_at_10(errors: Array) -> Array:
    return auc(errors, [10])[..., 0]


def mean(shares: Array) -> Array:
    means: Array = shares.mean(axis=-1)
    return means


def test_bootstrap_of_equal_methods_is_certain() -> None:
    errors = np.random.default_rng(0).uniform(0, 20, 30)
    assert paired_bootstrap(errors, errors, auc_at_10) == (0, 0, 0, 0)


def test_bootstrap_gives_difference_and_interval() -> None:
    errors = np.random.default_rng(0).uniform(0, 20, 40)
    result = paired_bootstrap(errors / 2, errors, auc_at_10)
    assert result.difference == pytest.approx(float(auc(errors / 2, [10])[0] - auc(errors, [10])[0]))
    assert 0 < result.low < result.difference < result.high
    assert (result.high - result.low) / 4 == pytest.approx(result.standard_error, rel=0.2)


def test_bootstrap_is_repeatable_and_antisymmetric() -> None:
    a, b = np.random.default_rng(0).uniform(0, 20, (2, 40))
    one, other = paired_bootstrap(a, b, auc_at_10, seed=3), paired_bootstrap(b, a, auc_at_10, seed=3)
    assert one == paired_bootstrap(a, b, auc_at_10, seed=3)
    assert one.difference == pytest.approx(-other.difference)
    assert one.standard_error == pytest.approx(other.standard_error)


def test_bootstrap_standard_error_matches_the_mean_of_levels() -> None:
    # errors of 0 or infinity make the AUC a mean of zeros and ones, whose standard error is known
    a = np.where(np.arange(100) < 50, 0.0, np.inf)
    b = np.full(100, np.inf)
    assert paired_bootstrap(a, b, auc_at_10).standard_error == pytest.approx(0.05, rel=0.06)


def test_bootstrap_refuses_unequal_lengths() -> None:
    with pytest.raises(ValueError, match="one shape"):
        paired_bootstrap(np.zeros(3), np.zeros(4), mean)


def test_bootstrap_refuses_no_pair() -> None:
    with pytest.raises(ValueError, match="one shape"):
        paired_bootstrap(np.zeros(0), np.zeros(0), mean)


def test_bootstrap_of_a_mean_has_the_known_standard_error() -> None:
    a, b = np.random.default_rng(0).uniform(0, 1, (2, 200))
    known = (a - b).std() / np.sqrt(200)
    result = paired_bootstrap(a, b, mean)
    assert result.difference == pytest.approx(a.mean() - b.mean())
    assert result.standard_error == pytest.approx(known, rel=0.06)
    assert result.high - result.low == pytest.approx(2 * 1.96 * known, rel=0.08)


def test_pairing_cancels_what_is_hard_for_both() -> None:
    rng = np.random.default_rng(0)
    hard = rng.uniform(0, 1, 200)
    a, b = hard + rng.normal(0.02, 0.01, 200), hard
    assert paired_bootstrap(a, b, mean).low > 0
    # the same values in another order are no pairs
    assert paired_bootstrap(a, rng.permutation(b), mean).low < 0


def test_many_pairs_are_drawn_in_parts_without_changing_the_draw() -> None:
    a, b = np.random.default_rng(0).uniform(0, 1, (2, 2000))
    draws = np.random.default_rng(5).integers(2000, size=(1500, 2000))  # three parts
    sampled = a[draws].mean(axis=1) - b[draws].mean(axis=1)
    result = paired_bootstrap(a, b, mean, samples=1500, seed=5)
    assert (result.low, result.high) == pytest.approx(tuple(np.percentile(sampled, [2.5, 97.5])))
