import pytest
import torch
from kornia.feature import gftt_response
from kornia.filters import gaussian_blur2d
from torch import Tensor

from tiepoint.ops.sampling import pixel_grid
from tiepoint.ops.supervision import CELL, corner_response, detector_targets, point_pairs, warp_points

SIZE = (32, 48)


def shift_batch(dx: int, dy: int, batch: int = 1) -> dict[str, Tensor]:
    """A pair in which (x, y) of view 0 is (x + dx, y + dy) of view 1."""
    grid, shift = pixel_grid(*SIZE), torch.tensor([float(dx), float(dy)])
    warps = {"warp_0to1": grid + shift, "warp_1to0": grid - shift}
    size = torch.tensor([SIZE[1] - 1, SIZE[0] - 1])
    seen = {f"covisible{i}": ((w >= 0) & (w <= size)).all(-1) for i, w in enumerate(warps.values())}
    return {name: value.expand(batch, *value.shape) for name, value in (warps | seen).items()}


def square(x: int, y: int) -> Tensor:
    """A bright square of 14 pixels, each corner of it in a cell of its own."""
    image = torch.full((1, 1, *SIZE), 0.2)
    image[..., y : y + 14, x : x + 14] = 0.9
    return image


def test_points_are_taken_to_the_other_view() -> None:
    batch = shift_batch(10, -4)
    points = torch.tensor([[[5.5, 20.25], [30.0, 10.0], [40.0, 20.0], [20.0, 2.0]]])
    moved, seen = warp_points(points, batch["warp_0to1"], batch["covisible0"])
    assert torch.allclose(moved[0, :2], torch.tensor([[15.5, 16.25], [40.0, 6.0]]), atol=1e-3)
    assert seen.tolist() == [[True, True, False, False]]


def test_points_outside_their_own_view_are_not_seen() -> None:
    batch = shift_batch(0, 0)
    points = torch.tensor([[[0.0, 0.0], [47.0, 31.0], [-3.0, 5.0], [5.0, 31.6], [float("nan"), 1.0]]])
    _, seen = warp_points(points, batch["warp_0to1"], batch["covisible0"])
    assert seen.tolist() == [[True, True, False, False, False]]


def test_points_next_to_what_is_hidden_are_not_seen() -> None:
    batch = shift_batch(0, 0)
    covisible = batch["covisible0"].clone()
    covisible[:, 10, 10] = False
    points = torch.tensor([[[10.0, 10.0], [10.5, 10.5], [11.0, 10.0], [12.0, 10.0]]])
    _, seen = warp_points(points, batch["warp_0to1"], covisible)
    assert seen.tolist() == [[False, False, True, True]]


def test_point_pairs_join_the_points_of_both_views() -> None:
    batch = shift_batch(10, -4, batch=2)
    keypoints0 = torch.tensor([[[5.0, 20.0], [45.0, 20.0]]]).expand(2, -1, -1)
    keypoints1 = torch.tensor([[[20.0, 8.0], [3.0, 8.0], [12.0, 12.0]]]).expand(2, -1, -1)
    pairs = point_pairs(keypoints0, keypoints1, batch)
    assert pairs.points0.shape == pairs.points1.shape == (2, 5, 2)
    assert pairs.valid.tolist() == [[True, False, True, False, True]] * 2
    moved = (pairs.points1 - pairs.points0)[pairs.valid]
    assert torch.allclose(moved, torch.tensor([10.0, -4.0]).expand_as(moved), atol=1e-3)
    assert torch.equal(pairs.points0[:, :2], keypoints0)
    assert torch.equal(pairs.points1[:, 2:], keypoints1)


def test_corners_answer_more_than_edges_and_edges_more_than_nothing() -> None:
    image = torch.full((1, 1, 48, 48), 0.2)
    image[..., 16:, 16:] = 0.9
    response = corner_response(image)[0, 0]
    assert response.shape == (48, 48)
    assert (response >= 0).all()
    corner, edge, flat = response[13:20, 13:20].max(), response[30:40, 13:20].max(), response[2:8, 2:8].max()
    assert corner > 1.5 * edge
    assert edge > 5 * flat


def test_corners_are_those_of_kornia() -> None:
    image = torch.rand(2, 1, 40, 56, generator=torch.Generator().manual_seed(3))
    blurred = gaussian_blur2d(image, (5, 5), (1.0, 1.0))
    corners = gftt_response(blurred).clamp_min(0).sqrt()
    blobs = (gaussian_blur2d(image, (7, 7), (1.2, 1.2)) - gaussian_blur2d(image, (11, 11), (2.0, 2.0))).abs()
    expected = sum(response / (response.mean((2, 3), keepdim=True) + 1e-6) for response in (corners, blobs))
    assert torch.allclose(corner_response(image), torch.as_tensor(expected), atol=1e-3)


def test_the_response_does_not_depend_on_the_contrast() -> None:
    image = square(9, 9)
    assert torch.allclose(corner_response(image), corner_response(0.3 * image + 0.1), rtol=0.02, atol=0.02)


def test_the_response_of_a_blank_image_is_finite() -> None:
    assert corner_response(torch.full((1, 1, 32, 32), 0.5)).isfinite().all()


def pixels(targets: Tensor) -> set[tuple[int, int]]:
    """The (x, y) that targets (H/8, W/8) name."""
    return {
        (8 * column + int(index) % 8, 8 * row + int(index) // 8)
        for row, line in enumerate(targets)
        for column, index in enumerate(line)
        if index < CELL * CELL
    }


def targets_of(pair: dict[str, Tensor], share: float = 0.3) -> tuple[Tensor, Tensor]:
    return detector_targets(corner_response(pair["clean0"]), corner_response(pair["clean1"]), pair, share=share)


def test_targets_lie_at_the_corners_that_both_views_show() -> None:
    pair = shift_batch(8, 0) | {"clean0": square(9, 9), "clean1": square(17, 9)}
    targets0, targets1 = targets_of(pair, share=0.3)
    assert targets0.shape == targets1.shape == (1, 4, 6)
    assert targets0.dtype == torch.int64
    for targets, left in ((targets0, 9), (targets1, 17)):
        found = pixels(targets[0])
        for x, y in ((left, 9), (left + 13, 9), (left, 22), (left + 13, 22)):
            assert any(abs(u - x) <= 1 and abs(v - y) <= 1 for u, v in found), (x, y, found)
    # the shift is one cell: both views name the same places
    assert {(x + 8, y) for x, y in pixels(targets0[0])} == pixels(targets1[0])


def test_a_corner_that_both_views_show_beats_one_that_one_view_shows() -> None:
    image0 = torch.full((1, 1, *SIZE), 0.2)
    image0[..., 12, 12] = 0.6  # a dot that both views show
    image1 = image0.clone()
    image0[..., 12, 36] = 0.7  # a stronger one that only view 0 shows
    pair = shift_batch(0, 0) | {"clean0": image0, "clean1": image1}
    targets0, targets1 = targets_of(pair, share=1 / 24)
    assert pixels(targets0[0]) == pixels(targets1[0]) == {(12, 12)}


def test_share_bounds_how_many_cells_hold_a_corner() -> None:
    image = torch.rand((2, 1, *SIZE), generator=torch.Generator().manual_seed(0))
    pair = shift_batch(0, 0, batch=2) | {"clean0": image, "clean1": image}
    for share in (0.1, 0.3, 0.8):
        held = (targets_of(pair, share=share)[0] < CELL * CELL).float().mean()
        assert held.item() == pytest.approx(share, abs=0.06)


def test_blank_images_have_no_targets() -> None:
    image = torch.full((1, 1, *SIZE), 0.5)
    pair = shift_batch(3, 0) | {"clean0": image, "clean1": image}
    assert all((targets == CELL * CELL).all() for targets in targets_of(pair))
