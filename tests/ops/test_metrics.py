import torch
from torch import Tensor

from tiepoint.ops.metrics import match_accuracy, repeatability, right_matches
from tiepoint.ops.sampling import pixel_grid

SIZE = (40, 60)


def shift_truth(dx: float, dy: float, batch: int = 1) -> tuple[Tensor, Tensor]:
    """(x, y) of view 0 is (x + dx, y + dy) of view 1."""
    warp = pixel_grid(*SIZE) + torch.tensor([dx, dy])
    covisible = ((warp >= 0) & (warp <= torch.tensor([SIZE[1] - 1, SIZE[0] - 1]))).all(-1)
    return warp.expand(batch, *SIZE, 2), covisible.expand(batch, *SIZE)


def places(*points: tuple[float, float]) -> Tensor:
    return torch.tensor([points], dtype=torch.float32)


def accuracy(*pairs: Tensor, radius: float = 3.0) -> Tensor:
    return match_accuracy(*right_matches(*pairs, radius=radius))


def test_accuracy_counts_the_right_matches() -> None:
    keypoints0 = places((5, 5), (15, 20), (30, 10), (20, 30))
    keypoints1 = places((15, 1), (25, 16), (43.1, 6), (33, 26))
    truth = shift_truth(10, -4)
    # right; right; 3.1 px off; 3 px off
    assert accuracy(keypoints0, keypoints1, torch.tensor([[0, 1, 2, 3]]), *truth).tolist() == [0.75]
    # a wrong partner, two without a match
    assert accuracy(keypoints0, keypoints1, torch.tensor([[0, 0, -1, -1]]), *truth).tolist() == [0.5]
    tight = accuracy(keypoints0, keypoints1, torch.tensor([[0, 1, 2, 3]]), *truth, radius=2.0)
    assert tight.tolist() == [0.5]


def test_matches_that_view_1_cannot_show_do_not_count() -> None:
    keypoints0, keypoints1 = places((5, 5), (55, 20)), places((15, 5), (0, 0))
    assert accuracy(keypoints0, keypoints1, torch.tensor([[0, 1]]), *shift_truth(10, 0)).tolist() == [1.0]


def test_accuracy_is_nan_without_a_match_and_each_pair_has_its_own() -> None:
    keypoints = places((5, 5), (20, 20)).expand(3, -1, -1)
    matches = torch.tensor([[0, 1], [1, -1], [-1, -1]])
    found = accuracy(keypoints, keypoints, matches, *shift_truth(0, 0, batch=3))
    assert found[:2].tolist() == [1.0, 0.0]
    assert found[2].isnan()


def masks(*values: list[bool]) -> list[Tensor]:
    return [torch.tensor([value]) for value in values]


def test_repeatability_counts_keypoints_that_view_1_has_too() -> None:
    keypoints0 = places((5, 5), (15, 20), (30, 10), (40, 30))
    keypoints1 = places((26, 17), (15, 5), (0, 0))
    everything = masks([True] * 4, [True] * 3)
    assert repeatability(keypoints0, keypoints1, *everything, *shift_truth(10, 0)).tolist() == [0.25]
    wide = repeatability(keypoints0, keypoints1, *everything, *shift_truth(10, 0), radius=3.5)
    assert wide.tolist() == [0.5]


def test_padding_is_neither_repeated_nor_a_repetition() -> None:
    keypoints0, keypoints1 = places((5, 5), (20, 20), (0, 0)), places((5, 5), (20, 20), (0, 0))
    truth = shift_truth(0, 0)
    assert repeatability(keypoints0, keypoints1, *masks([True, True, False], [True, False, False]), *truth) == 0.5
    assert repeatability(keypoints0, keypoints1, *masks([True, False, False], [True, True, True]), *truth) == 1.0


def test_keypoints_that_view_1_cannot_show_do_not_count() -> None:
    keypoints0, keypoints1 = places((5, 5), (55, 20)), places((15, 5), (30, 30))
    everything = masks([True, True], [True, True])
    assert repeatability(keypoints0, keypoints1, *everything, *shift_truth(10, 0)).tolist() == [1.0]


def test_repeatability_is_nan_where_nothing_can_be_repeated_and_zero_where_view_1_is_empty() -> None:
    keypoints = places((5, 5), (20, 20))
    nothing, everything = [False, False], [True, True]
    assert repeatability(keypoints, keypoints, *masks(nothing, everything), *shift_truth(0, 0)).isnan()
    assert repeatability(keypoints, keypoints, *masks(everything, nothing), *shift_truth(0, 0)) == 0
    assert repeatability(keypoints, keypoints, *masks(everything, everything), *shift_truth(100, 0)).isnan()
