from typing import Any

import pytest
import torch
from torch import Tensor

from tiepoint.ops.assignment import Assignment, log_assignment
from tiepoint.ops.assignment_loss import TrueAssignment, assignment_losses, true_assignment
from tiepoint.ops.sampling import inside, pixel_grid

SIZE = (48, 64)


def views(dx: float = 0.0, *, scale: float = 1.0) -> dict[str, Tensor]:
    """View 1 shows the place (x, y) of view 0 at (scale · x + dx, scale · y)."""
    grid = pixel_grid(*SIZE).unsqueeze(0)
    shift = torch.tensor((dx, 0.0))
    forth, back = scale * grid + shift, (grid - shift) / scale
    shown = (inside(forth, *SIZE), inside(back, *SIZE))
    return {"warp_0to1": forth, "warp_1to0": back, "covisible0": shown[0], "covisible1": shown[1]}


def truth(
    points0: list[tuple[float, float]], points1: list[tuple[float, float]], batch: dict[str, Tensor], **kwargs: Any
) -> TrueAssignment:
    places = [torch.tensor(points, dtype=torch.float32).unsqueeze(0) for points in (points0, points1)]
    masks = [torch.ones(place.shape[:2], dtype=torch.bool) for place in places]
    return true_assignment(*places, *masks, batch, **kwargs)


def told(found: TrueAssignment) -> tuple[list[int], list[bool], list[bool]]:
    return found.matches0[0].tolist(), found.unmatchable0[0].tolist(), found.unmatchable1[0].tolist()


def test_keypoints_at_the_same_place_match_in_whatever_order() -> None:
    points = pixel_grid(*SIZE)[4:-4:8, 4:-4:8].reshape(1, -1, 2)
    order = torch.randperm(points.shape[1], generator=torch.Generator().manual_seed(0))
    mask = torch.ones(points.shape[:2], dtype=torch.bool)
    found = true_assignment(points, points[:, order], mask, mask, views())
    assert torch.equal(order[found.matches0[0]], torch.arange(len(order)))
    assert not found.unmatchable0.any()
    assert not found.unmatchable1.any()


def test_a_keypoint_whose_place_the_other_view_does_not_show_is_unmatchable() -> None:
    found = truth([(10, 20), (60, 20)], [(18, 20), (3, 20)], views(8.0))
    assert told(found) == ([0, -1], [False, True], [False, True])


@pytest.mark.parametrize(
    ("off", "match", "alone"), [(0.0, 0, False), (2.9, 0, False), (3.1, -1, False), (4.9, -1, False), (5.1, -1, True)]
)
def test_between_a_match_and_a_stranger_nothing_is_said(off: float, match: int, alone: bool) -> None:
    found = truth([(20, 20)], [(20 + off, 20)], views())
    assert told(found) == ([match], [alone], [alone])


def test_the_radii_are_arguments() -> None:
    assert told(truth([(20, 20)], [(22, 20)], views(), radius=1.0, stranger=1.5)) == ([-1], [True], [True])
    assert told(truth([(20, 20)], [(26, 20)], views(), radius=7.0, stranger=9.0)) == ([0], [False], [False])


@pytest.mark.parametrize(("scale", "match"), [(1.0, 0), (2.0, -1), (0.5, -1)])
def test_a_match_is_near_in_both_views(scale: float, match: int) -> None:
    off = 2.0 * max(1.0, scale)  # 2 px in the view that shows less detail, and in the other one twice that
    found = truth([(20, 20)], [(scale * 20 + off, scale * 20)], views(scale=scale))
    assert told(found)[0] == [match]


def test_of_two_candidates_the_nearer_one_matches_and_the_other_is_uncertain() -> None:
    found = truth([(20, 20), (22, 20)], [(20.5, 20)], views())
    assert told(found) == ([0, -1], [False, False], [False])
    found = truth([(20.5, 20)], [(22, 20), (20, 20)], views())
    assert told(found) == ([1], [False], [False, False])


def test_an_occluded_keypoint_is_unmatchable_and_one_at_the_edge_uncertain() -> None:
    batch = views()
    for name in ("covisible0", "covisible1"):
        batch[name] = batch[name].clone()
        batch[name][:, :, :30] = False
    points = [(10.0, 20.0), (29.5, 20.0), (40.0, 20.0)]
    assert told(truth(points, points, batch)) == ([-1, -1, 2], [True, False, False], [True, False, False])


def test_a_keypoint_of_which_nothing_is_known_is_uncertain() -> None:
    batch = views()
    for side in "01":
        batch[f"covisible{side}"] = batch[f"covisible{side}"].clone()
        batch[f"covisible{side}"][:, :, :30] = False
        batch[f"known{side}"] = torch.ones_like(batch[f"covisible{side}"])
        batch[f"known{side}"][:, :, :15] = False
    points = [(10.0, 20.0), (20.0, 20.0), (40.0, 20.0)]
    assert told(truth(points, points, batch)) == ([-1, -1, 2], [False, True, False], [False, True, False])


def test_what_a_warp_says_of_hidden_places_does_not_matter() -> None:
    batch = views()
    hidden = torch.zeros(1, *SIZE, dtype=torch.bool)
    hidden[:, :, :30] = True
    for warp, covisible in (("warp_0to1", "covisible0"), ("warp_1to0", "covisible1")):
        batch[warp] = torch.where(hidden.unsqueeze(3), torch.nan, batch[warp])
        batch[covisible] = batch[covisible] & ~hidden
    assert told(truth([(10, 20), (40, 20)], [(40, 20)], batch)) == ([-1, 0], [True, False], [False])


def test_padding_neither_matches_nor_stands_alone() -> None:
    points = torch.tensor([[(20.0, 20.0), (0.0, 0.0)]])
    mask = torch.tensor([[True, False]])
    found = true_assignment(points, points, mask, mask, views())
    assert told(found) == ([0, -1], [False, False], [False, False])
    nothing = torch.zeros_like(mask)
    found = true_assignment(points, points, mask, nothing, views())
    assert told(found) == ([-1, -1], [True, False], [False, False])


def test_a_batch_is_its_pairs_one_by_one() -> None:
    both = {name: torch.cat((views(8.0)[name], views(scale=1.5)[name])) for name in views()}
    generator = torch.Generator().manual_seed(0)
    points = [torch.rand(2, 40, 2, generator=generator) * torch.tensor((63.0, 47.0)) for _ in range(2)]
    mask = torch.rand(2, 40, generator=generator) > 0.2
    together = true_assignment(*points, mask, mask, both)
    for index in range(2):
        one = slice(index, index + 1)
        alone = true_assignment(*(p[one] for p in points), mask[one], mask[one], {k: v[one] for k, v in both.items()})
        assert all(torch.equal(a[index], b[0]) for a, b in zip(together, alone, strict=True))
    assert (together.matches0 >= 0).any()


def drawn(dtype: torch.dtype = torch.float64) -> tuple[Assignment, TrueAssignment]:
    generator = torch.Generator().manual_seed(0)
    shapes = (2, 4, 5), (2, 4), (2, 5)
    logits = [torch.randn(shape, generator=generator, dtype=dtype, requires_grad=True) for shape in shapes]
    matches0 = torch.tensor([[3, -1, 0, -1], [-1, 1, -1, 4]])
    alone0 = torch.tensor([[False, True, False, False], [True, False, False, False]])
    alone1 = torch.tensor([[False, True, True, False, False], [False, False, True, False, False]])
    return Assignment(*logits), TrueAssignment(matches0, alone0, alone1)


def test_the_loss_is_the_likelihood_of_the_truth() -> None:
    assignment, true = drawn()
    matched, alone0, alone1 = assignment_losses(assignment, true)
    logs = log_assignment(assignment)
    for pair, row in ((0, 0), (0, 2), (1, 1), (1, 3)):
        assert matched[pair, row].item() == pytest.approx(-logs[pair, row, true.matches0[pair, row]].item())
    assert torch.allclose(alone0[true.unmatchable0], -(1 - assignment.odds0[true.unmatchable0].sigmoid()).log())
    assert torch.allclose(alone1[true.unmatchable1], -(1 - assignment.odds1[true.unmatchable1].sigmoid()).log())
    assert (matched[true.matches0 < 0] == 0).all()
    assert (alone0[~true.unmatchable0] == 0).all()
    assert (alone1[~true.unmatchable1] == 0).all()


def test_its_gradient_is_right() -> None:
    assignment, true = drawn()

    def losses(*logits: Tensor) -> tuple[Tensor, ...]:
        return tuple(assignment_losses(Assignment(*logits), true))

    assert torch.autograd.gradcheck(losses, tuple(assignment))


def test_a_step_down_the_gradient_makes_the_truth_more_probable() -> None:
    assignment, true = drawn()
    sum(each.sum() for each in assignment_losses(assignment, true)).backward()  # type: ignore[union-attr]
    assert all(value.grad is not None for value in assignment)
    later = Assignment(*(value.detach() - 0.1 * value.grad for value in assignment))  # type: ignore[operator]
    for before, after in zip(assignment_losses(assignment, true), assignment_losses(later, true), strict=True):
        assert after.sum() < before.sum()


def test_uncertain_keypoints_pass_no_gradient_to_their_odds() -> None:
    assignment, true = drawn()
    sum(each.sum() for each in assignment_losses(assignment, true)).backward()  # type: ignore[union-attr]
    uncertain = (true.matches0 < 0) & ~true.unmatchable0
    assert assignment.odds0.grad is not None
    assert (assignment.odds0.grad[uncertain] == 0).all()
    assert (assignment.odds0.grad[~uncertain] != 0).all()


def test_without_any_truth_there_is_no_loss() -> None:
    assignment, true = drawn(torch.float32)
    nothing = TrueAssignment(torch.full_like(true.matches0, -1), *(torch.zeros_like(mask) for mask in true[1:]))
    losses = assignment_losses(assignment, nothing)
    sum(each.sum() for each in losses).backward()  # type: ignore[union-attr]
    assert all((each == 0).all() for each in losses)
    assert all((value.grad == 0).all() for value in assignment if value.grad is not None)
