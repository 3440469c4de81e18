import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from tiepoint.ops.assignment import PADDED, Assignment, log_assignment, mutual_assignment


def drawn(rows: int, columns: int, seed: int = 0, *, batch: int = 2, spread: float = 5.0) -> Assignment:
    generator = torch.Generator().manual_seed(seed)
    shapes = (batch, rows, columns), (batch, rows), (batch, columns)
    similarity, odds0, odds1 = (torch.randn(shape, generator=generator) for shape in shapes)
    return Assignment(spread * similarity, 2 * odds0, 2 * odds1)


def padded(assignment: Assignment, rows: int, columns: int) -> Assignment:
    """The same with padding at the end of both sides, as a matcher gives it."""
    batch, height, width = assignment.similarity.shape
    wide = torch.full((batch, height + rows, width + columns), 2 * PADDED)
    wide[:, :height, width:] = wide[:, height:, :width] = PADDED
    wide[:, :height, :width] = assignment.similarity
    odds = (
        torch.cat((odds, torch.full((batch, more), PADDED)), dim=1)
        for odds, more in ((assignment.odds0, rows), (assignment.odds1, columns))
    )
    return Assignment(wide, *odds)


def by_definition(assignment: Assignment) -> Tensor:
    similarity, odds0, odds1 = (value.double() for value in assignment)
    matchable = odds0.sigmoid().unsqueeze(2) * odds1.sigmoid().unsqueeze(1)
    return matchable * similarity.softmax(1) * similarity.softmax(2)


@settings(max_examples=40, deadline=None)
@given(
    rows=st.integers(1, 9),
    columns=st.integers(1, 9),
    seed=st.integers(0, 2**31),
    spread=st.sampled_from([0.0, 1.0, 10.0]),
)
def test_it_is_the_product_of_both_softmaxes_and_both_sigmoids(
    rows: int, columns: int, seed: int, spread: float
) -> None:
    assignment = drawn(rows, columns, seed, spread=spread)
    found = log_assignment(assignment).exp()
    assert torch.allclose(found.double(), by_definition(assignment), rtol=1e-3, atol=1e-7)
    assert (found.sum(1) <= 1 + 1e-5).all()
    assert (found.sum(2) <= 1 + 1e-5).all()


def test_the_other_way_round_it_is_transposed() -> None:
    similarity, odds0, odds1 = assignment = drawn(5, 7)
    swapped = Assignment(similarity.transpose(1, 2), odds1, odds0)
    assert torch.allclose(log_assignment(swapped).transpose(1, 2), log_assignment(assignment), atol=1e-4)


@pytest.mark.parametrize(("rows", "columns"), [(3, 0), (0, 2), (4, 4)])
def test_padding_takes_no_part(rows: int, columns: int) -> None:
    assignment = drawn(5, 7)
    found = log_assignment(padded(assignment, rows, columns))
    assert torch.allclose(found[:, :5, :7], log_assignment(assignment), atol=2e-3)
    assert (found[:, 5:] < PADDED / 2).all()
    assert (found[:, :, 7:] < PADDED / 2).all()


@pytest.mark.parametrize("min_score", [0.0, 0.1])
def test_where_there_is_only_padding_nothing_matches(min_score: float) -> None:
    odds = torch.full((1, 4), PADDED)
    for assignment in (
        Assignment(torch.full((1, 4, 4), 2 * PADDED), odds, odds),
        Assignment(torch.full((1, 4, 4), PADDED), torch.zeros(1, 4), odds),
        Assignment(torch.full((1, 4, 4), PADDED), odds, torch.zeros(1, 4)),
    ):
        matches0, scores = mutual_assignment(assignment, min_score=min_score)
        assert (matches0 == -1).all()
        assert (scores == 0).all()


def test_the_most_probable_pairs_match_each_other() -> None:
    assignment = drawn(20, 30)
    matches0, scores = mutual_assignment(assignment, min_score=0.0)
    probability = by_definition(assignment)
    for pair, (row, column) in ((p, divmod(int(i), 30)) for p, i in enumerate(probability.flatten(1).argmax(1))):
        assert matches0[pair, row] == column
        assert scores[pair, row] == pytest.approx(float(probability[pair, row, column]), rel=1e-3)
    for pair in range(2):
        partners = matches0[pair][matches0[pair] >= 0]
        assert len(partners.unique()) == len(partners) > 3


def test_matches_below_the_least_score_are_dropped_and_no_others() -> None:
    assignment = drawn(20, 30)
    every, scores = mutual_assignment(assignment, min_score=0.0)
    least = float(scores[every >= 0].median())
    some, _ = mutual_assignment(assignment, min_score=least)
    assert torch.equal(some, torch.where(scores >= least, every, -1))


@pytest.mark.parametrize("spread", [100.0, 1e4])
def test_extreme_logits_stay_finite(spread: float) -> None:
    logs = log_assignment(drawn(6, 6, spread=spread))
    assert logs.isfinite().all()
    assert logs.max() < 1e-3 * spread
