from collections.abc import Callable
from itertools import islice

import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.utils.data import TensorDataset

from tiepoint.data.order import Draw, Place, TrainingOrder, derived_seed


def order(
    samples: int,
    *,
    steps: int,
    batch_size: int = 2,
    seed: int = 0,
    replicas: int = 1,
    rank: int = 0,
    groups: list[int] | None = None,
    place: Callable[[], Place] = lambda: Place(0, 0),
) -> TrainingOrder:
    dataset = TensorDataset(torch.zeros(samples))
    return TrainingOrder(
        dataset, steps=steps, batch_size=batch_size, seed=seed, place=place, replicas=replicas, rank=rank, groups=groups
    )


def draws(samples: int, count: int, **kwargs: int) -> list[Draw]:
    return list(islice(order(samples, steps=count, batch_size=1, **kwargs), count))


def test_every_permutation_holds_every_sample_once() -> None:
    drawn = [draw.sample for draw in draws(7, 21)]
    turns = [drawn[start : start + 7] for start in (0, 7, 14)]
    assert [sorted(turn) for turn in turns] == [list(range(7))] * 3
    assert turns[0] != turns[1] != turns[2]


def test_every_draw_has_its_own_seed_and_every_run_its_own_order() -> None:
    first, again, other = draws(50, 100), draws(50, 100), draws(50, 100, seed=1)
    assert first == again
    assert len({draw.seed for draw in (*first, *other)}) == 200
    assert [draw.sample for draw in first] != [draw.sample for draw in other]


@given(
    samples=st.integers(1, 9),
    steps=st.integers(1, 5),
    batch_size=st.integers(1, 3),
    replicas=st.integers(1, 3),
    total=st.integers(0, 12),
)
def test_what_is_left_of_an_epoch_is_what_it_would_have_been(
    samples: int, steps: int, batch_size: int, replicas: int, total: int
) -> None:
    """The epochs of a run that is never stopped, against one that begins anywhere."""
    sizes = {"steps": steps, "batch_size": batch_size, "replicas": replicas}
    for rank in range(replicas):
        whole: list[Draw] = []
        for epoch in range(total // steps + 1):
            whole += order(samples, rank=rank, place=lambda epoch=epoch: Place(epoch * steps, 0), **sizes)  # type: ignore[misc]
        rest = list(order(samples, rank=rank, place=lambda: Place(total, total % steps), **sizes))
        assert rest == whole[total * batch_size :]
        assert len(rest) == (steps - total % steps) * batch_size


def test_processes_share_the_samples_and_draw_none_twice() -> None:
    parts = [list(order(12, steps=3, rank=rank, replicas=2)) for rank in (0, 1)]
    assert sorted(draw.sample for part in parts for draw in part) == list(range(12))


def test_groups_take_turns_and_give_each_sample_once() -> None:
    """Three scenes of two, one and five pairs."""

    def drawn(count: int, seed: int = 0) -> list[int]:
        chosen = order(8, steps=count, batch_size=1, groups=[2, 1, 5], seed=seed)
        return [draw.sample for draw in chosen]

    samples = drawn(30)
    group = [0 if each < 2 else 1 if each < 3 else 2 for each in samples]
    assert all(sorted(group[start : start + 3]) == [0, 1, 2] for start in range(0, 30, 3))
    assert group[:3] != group[3:6] or group[:3] != group[6:9]
    large = [each for each in samples if each > 2]
    assert sorted(large[:5]) == sorted(large[5:]) == [3, 4, 5, 6, 7]
    assert samples == drawn(30)
    assert samples != drawn(30, seed=1)
    assert samples[12:] == [
        draw.sample for step in range(12, 30) for draw in order(8, steps=30, batch_size=1, groups=[2, 1, 5]).draws(step)
    ]


def test_an_epoch_that_is_over_is_followed_by_a_whole_one() -> None:
    assert len(list(order(5, steps=4, place=lambda: Place(4, 4)))) == 8


def test_derived_seeds_differ_by_purpose() -> None:
    seeds = [derived_seed(*origin) for origin in ((0,), (0, 0), (0, 1), (1, 0), (2**63, 5))]
    assert len(set(seeds)) == 5
    assert all(0 <= seed < 2**63 for seed in seeds)
