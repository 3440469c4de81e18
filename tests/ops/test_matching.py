import numpy as np
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from tiepoint.ops.matching import match_descriptors, mutual_nearest, similarity


def unit(batch: int, count: int, dim: int, seed: int) -> torch.Tensor:
    drawn = torch.randn((batch, count, dim), generator=torch.Generator().manual_seed(seed))
    return torch.nn.functional.normalize(drawn, dim=-1)


def brute_force(products: np.ndarray, least: float) -> tuple[list[int], list[float]]:
    matches, similarities = [], []
    for row in range(products.shape[0]):
        column = int(products[row].argmax())
        right = int(products[:, column].argmax()) == row and products[row, column] >= least
        matches.append(column if right else -1)
        similarities.append(float(products[row, column]) if right else 0.0)
    return matches, similarities


@settings(max_examples=60, deadline=None)
@given(
    rows=st.integers(1, 40),
    columns=st.integers(1, 9),
    seed=st.integers(0, 2**31),
    least=st.sampled_from([-1.0, 0.0, 0.3, 0.9]),
)
def test_mutual_nearest_agrees_with_brute_force(rows: int, columns: int, seed: int, least: float) -> None:
    products = np.random.default_rng(seed).uniform(-1, 1, (2, rows, columns)).astype(np.float32)
    matches, similarities = mutual_nearest(torch.from_numpy(products), min_similarity=least)
    for index in range(2):
        expected, values = brute_force(products[index], least)
        assert matches[index].tolist() == expected
        assert similarities[index].tolist() == values


@settings(max_examples=60, deadline=None)
@given(rows=st.integers(1, 4), columns=st.integers(1, 4), seed=st.integers(0, 2**31), levels=st.integers(1, 50))
def test_blocks_change_nothing_and_ties_stay_sound(rows: int, columns: int, seed: int, levels: int) -> None:
    """Few levels of similarity, so that nearly every row and column has several maxima."""
    drawn = np.random.default_rng(seed).integers(-levels, levels + 1, (2, 3 * rows, 3 * columns))
    products = torch.from_numpy(drawn.astype(np.float32) / levels)
    matches, similarities = mutual_nearest(products, block=3)
    plain = mutual_nearest(products)
    assert torch.equal(matches, plain[0])
    assert torch.equal(similarities, plain[1])
    for found, values, table in zip(matches, similarities, products, strict=True):
        matched = found >= 0
        partners = found[matched]
        assert len(partners.unique()) == len(partners)
        assert torch.equal(values[matched], table[matched, partners])
        assert torch.equal(table[matched].amax(1), table[:, partners].amax(0))
        # the one maximum of a table is its first row's or its column's: somebody is always matched
        assert matched.any()
        sole = (table == table.amax(1, keepdim=True)).sum(1) == 1
        crowned = (table == table.amax(0)) & (table == table.amax(1, keepdim=True)) & sole.unsqueeze(1)
        assert matched.sum() >= crowned.any(0).sum()


@settings(max_examples=30, deadline=None)
@given(
    counts=st.tuples(st.integers(1, 140), st.integers(1, 140)),
    seed=st.integers(0, 2**31),
    share=st.sampled_from([0.0, 0.3, 1.0]),
    least=st.sampled_from([-1.0, 0.0, 0.4]),
)
def test_matching_descriptors_is_brute_force_over_those_that_are_real(
    counts: tuple[int, int], seed: int, share: float, least: float
) -> None:
    """With padding anywhere, of any number, and cosines that are mostly negative."""
    descriptors = [unit(2, count, 3, seed + index) for index, count in enumerate(counts)]
    descriptors[1] = descriptors[1] * torch.where(descriptors[1][..., :1] > 0, -1.0, 1.0)
    generator = torch.Generator().manual_seed(seed)
    chosen = [torch.rand((2, count), generator=generator) >= share for count in counts]
    matches, similarities = match_descriptors(*descriptors, *chosen, min_similarity=least)
    assert matches.shape == similarities.shape == (2, counts[0])
    for index in range(2):
        kept = [mask[index].nonzero().flatten() for mask in chosen]
        expected = torch.full((counts[0],), -1)
        if all(map(len, kept)):
            products = descriptors[0][index, kept[0]] @ descriptors[1][index, kept[1]].T
            found = torch.tensor(brute_force(products.numpy(), least)[0])
            expected[kept[0]] = torch.where(found >= 0, kept[1][found], -1)
        assert torch.equal(matches[index], expected)
        assert (similarities[index][expected < 0] == 0).all()


def test_equal_descriptors_are_given_to_one_another_once() -> None:
    descriptor = unit(1, 1, 8, 0).expand(1, 5, 8)
    mask = torch.ones(1, 5, dtype=torch.bool)
    matches, _ = match_descriptors(descriptor, descriptor, mask, mask)
    assert matches.tolist() == [[0, -1, -1, -1, -1]]


def test_a_permutation_is_found_again() -> None:
    descriptors = unit(1, 40, 16, 0)
    order = torch.randperm(40, generator=torch.Generator().manual_seed(1))
    mask = torch.ones(1, 40, dtype=torch.bool)
    matches, similarities = mutual_nearest(similarity(descriptors, descriptors[:, order], mask, mask))
    assert torch.equal(order[matches[0]], torch.arange(40))
    assert torch.allclose(similarities, torch.ones(1, 40), atol=1e-5)


def test_matches_are_mutual_and_typed() -> None:
    matches, similarities = mutual_nearest(similarity(unit(2, 7, 4, 0), unit(2, 5, 4, 1), *masks(7, 5)))
    assert matches.dtype == torch.int64
    assert matches.shape == similarities.shape == (2, 7)
    for row in matches:
        partners = row[row >= 0]
        assert len(partners.unique()) == len(partners)


def masks(rows: int, columns: int) -> tuple[torch.Tensor, torch.Tensor]:
    return torch.ones(2, rows, dtype=torch.bool), torch.ones(2, columns, dtype=torch.bool)


def test_padding_never_matches() -> None:
    descriptors = unit(2, 6, 4, 0)
    mask0, mask1 = masks(6, 6)
    mask0[0, 2:], mask1[0, 3], mask1[1] = False, False, False
    matches, similarities = mutual_nearest(similarity(descriptors, descriptors, mask0, mask1))
    assert matches[0].tolist() == [0, 1, -1, -1, -1, -1]
    assert (matches[1] == -1).all()  # no keypoint in the other image at all
    assert (similarities[matches < 0] == 0).all()


def test_similarity_is_the_cosine_and_below_any_cosine_for_padding() -> None:
    descriptors0, descriptors1 = unit(2, 3, 4, 0), unit(2, 5, 4, 1)
    mask0, mask1 = masks(3, 5)
    mask1[1, 4] = False
    products = similarity(descriptors0, descriptors1, mask0, mask1)
    expected = np.einsum("bnd,bmd->bnm", descriptors0.numpy(), descriptors1.numpy())
    assert np.allclose(products[0], expected[0], atol=1e-6)
    assert np.allclose(products[1, :, :4], expected[1, :, :4], atol=1e-6)
    assert (products[1, :, 4] == -2).all()
    mask0[1, 0] = False
    assert similarity(descriptors0, descriptors1, mask0, mask1)[1, 0].max() <= -2


def test_even_opposite_descriptors_match_by_default() -> None:
    descriptor = unit(1, 1, 4, 0)
    mask = torch.ones(1, 1, dtype=torch.bool)
    products = similarity(descriptor, -descriptor, mask, mask).clamp_min(-1)
    assert mutual_nearest(products)[0].item() == 0
    assert mutual_nearest(products, min_similarity=0.0)[0].item() == -1
