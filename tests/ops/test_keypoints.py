import math

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from tiepoint.ops.keypoints import refine, select_keypoints
from tiepoint.ops.sampling import pixel_grid

LOW = -20.0


def blobs(size: tuple[int, int], centres: list[tuple[float, float, float]], sharpness: float = 1.0) -> Tensor:
    """A map (1, 1, H, W) with a smooth peak at every (x, y, height)."""
    grid = pixel_grid(*size)
    peaks = [h - sharpness * (grid - torch.tensor((x, y))).square().sum(-1) for x, y, h in centres]
    return torch.stack([*peaks, torch.full(size, LOW)]).amax(0).reshape(1, 1, *size)


def select(
    logits: Tensor,
    count: int = 16,
    *,
    size: tuple[int, int] | None = None,
    threshold: float = -10.0,
    border: int = 2,
    reliability: Tensor | None = None,
) -> tuple[Tensor, Tensor]:
    height, width = logits.shape[-2:]
    if reliability is None:
        reliability = torch.zeros(len(logits), 1, height // 4, width // 4)
    return select_keypoints(
        F.pixel_unshuffle(logits, 2), reliability, size or (height, width), count, threshold=threshold, border=border
    )


def refined(logits: Tensor, pixels: Tensor) -> Tensor:
    return refine(F.pixel_unshuffle(logits, 2), pixels)


def random_logits(seed: int, batch: int = 1, size: tuple[int, int] = (32, 48)) -> Tensor:
    return 3 * torch.randn((batch, 1, *size), generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("place", [(10.0, 9.0), (11.0, 8.0), (10.3, 9.4), (13.6, 7.25)])
def test_a_peak_is_found_at_its_sub_pixel_place(place: tuple[float, float]) -> None:
    keypoints, odds = select(blobs((24, 32), [(*place, 4.0)]), 4)
    assert odds[0].isfinite().tolist() == [True, False, False, False]
    assert keypoints[0, 0].tolist() == pytest.approx(place, abs=0.06)


def test_keypoints_come_best_first_and_padded() -> None:
    centres = [(6.0, 6.0, 1.0), (20.0, 8.0, 5.0), (12.0, 18.0, 3.0)]
    keypoints, odds = select(blobs((24, 32), centres), 8)
    assert keypoints.shape == (1, 8, 2)
    assert odds.shape == (1, 8)
    expected = torch.tensor([[20.0, 8.0], [12.0, 18.0], [6.0, 6.0]])
    assert torch.allclose(keypoints[0, :3], expected, atol=0.05)
    assert torch.allclose(odds[0, :3], torch.tensor([5.0, 3.0, 1.0]) + F.logsigmoid(torch.zeros(1)), atol=1e-4)
    assert (odds[0, 3:] == -torch.inf).all()
    assert keypoints.isfinite().all()


def test_only_the_best_are_kept_where_there_are_more() -> None:
    centres = [(6.0, 6.0, 1.0), (20.0, 8.0, 5.0), (12.0, 18.0, 3.0)]
    keypoints, odds = select(blobs((24, 32), centres), 1)
    assert keypoints[0, 0].tolist() == pytest.approx([20, 8], abs=0.05)
    assert odds.shape == (1, 1)


def test_unreliable_places_fall_behind() -> None:
    reliability = torch.zeros(1, 1, 6, 8)
    reliability[..., 4:] = -8.0
    keypoints, odds = select(blobs((24, 32), [(6.0, 12.0, 1.0), (26.0, 12.0, 4.0)]), 2, reliability=reliability)
    assert keypoints[0, :, 0].tolist() == pytest.approx([6, 26], abs=0.05)
    assert odds[0, 1].item() == pytest.approx(4 - 8, abs=0.05)


def test_the_threshold_is_on_the_detection_alone() -> None:
    logits = blobs((24, 32), [(6.0, 6.0, 1.0), (20.0, 8.0, 3.0)])
    reliability = torch.full((1, 1, 6, 8), -9.0)
    _, odds = select(logits, 4, threshold=2.0, reliability=reliability)
    assert odds[0].isfinite().sum() == 1
    _, odds = select(logits, 4, threshold=5.0)
    assert not odds.isfinite().any()


@pytest.mark.parametrize("border", [2, 4, 7])
def test_nothing_is_chosen_near_the_edge(border: int) -> None:
    size = (24, 32)
    near = [(border - 1, 12), (32 - border, 12), (16, border - 1), (16, 24 - border)]
    far = [(border, 12), (31 - border, 12), (16, border), (16, 23 - border)]
    for place in near:
        assert not select(blobs(size, [(*map(float, place), 4.0)], 30.0), 4, border=border)[1].isfinite().any()
    for place in far:
        keypoints, odds = select(blobs(size, [(*map(float, place), 4.0)], 30.0), 4, border=border)
        assert odds.isfinite().sum() == 1
        assert keypoints[0, 0].tolist() == pytest.approx(place, abs=0.01)


def test_padding_beyond_the_size_is_never_chosen() -> None:
    keypoints, odds = select(random_logits(0), 400, size=(21, 30), border=3)
    chosen = keypoints[odds.isfinite()]
    assert len(chosen) > 5
    assert (chosen >= 0).all()
    assert (chosen <= torch.tensor([29.0, 20.0])).all()


@settings(max_examples=25, deadline=None)
@given(seed=st.integers(0, 10**6), height=st.integers(1, 32), width=st.integers(1, 48), border=st.integers(2, 5))
def test_what_is_chosen_lies_in_the_image_sorted_and_apart(seed: int, height: int, width: int, border: int) -> None:
    logits = random_logits(seed)
    keypoints, odds = select(logits, 64, size=(height, width), border=border)
    assert (odds[0, :-1] >= odds[0, 1:]).all()
    chosen = keypoints[0, odds[0].isfinite()]
    assert ((chosen >= 0) & (chosen <= torch.tensor([width - 1.0, height - 1.0]))).all()
    # unrefined: select by a map whose peaks are so sharp that refinement does not move them
    sharp, odds = select(1000 * logits, 64, size=(height, width), border=border, threshold=-torch.inf)
    pixels = sharp[0, odds[0].isfinite()].round()
    assert ((pixels >= border) & (pixels < torch.tensor([width - border, height - border]))).all()
    apart = (pixels // 2).unsqueeze(0) - (pixels // 2).unsqueeze(1)
    assert (apart.abs().amax(-1) + 9 * torch.eye(len(pixels)) > 1).all()


def test_every_chosen_pixel_is_the_best_of_its_neighbourhood() -> None:
    logits = 1000 * random_logits(3)
    keypoints, odds = select(logits, 64)
    pixels = keypoints[0, odds[0].isfinite()].round().long()
    assert len(pixels) > 10
    for x, y in pixels.tolist():
        around = logits[0, 0, max(0, y // 2 * 2 - 2) : y // 2 * 2 + 4, max(0, x // 2 * 2 - 2) : x // 2 * 2 + 4]
        assert logits[0, 0, y, x] == around.max()


def test_no_peak_is_forgotten() -> None:
    """Every block that beats its neighbours, away from the border, is there when there is room for all."""
    logits = random_logits(4)
    best = F.max_pool2d(logits, 2)
    peaks = (F.max_pool2d(best, 3, 1, 1) == best)[0, 0, 1:-1, 1:-1].sum()
    _, odds = select(logits, 400, threshold=-torch.inf)
    assert odds.isfinite().sum() == peaks


def test_more_keypoints_than_pixels_can_be_asked_for() -> None:
    keypoints, odds = select(random_logits(0, 2, (32, 32)), 5000)
    assert keypoints.shape == (2, 5000, 2)
    assert odds.shape == (2, 5000)
    assert 0 < odds.isfinite().sum() < 2 * 32 * 32 / 4


def test_images_of_a_batch_do_not_mix() -> None:
    logits = random_logits(0, 3)
    keypoints, odds = select(logits)
    for index in range(3):
        alone, alone_odds = select(logits[index : index + 1])
        assert torch.equal(keypoints[index], alone[0])
        assert torch.equal(odds[index], alone_odds[0])


def test_refinement_is_the_centre_of_mass_of_the_softmax() -> None:
    logits = random_logits(1, size=(8, 10))
    x, y = 4, 3
    window = logits[0, 0, y - 2 : y + 3, x - 2 : x + 3]
    weights = window.flatten().softmax(0).reshape(5, 5)
    steps = torch.arange(-2.0, 3.0)
    expected = [x + (weights.sum(0) * steps).sum().item(), y + (weights.sum(1) * steps).sum().item()]
    assert refined(logits, torch.tensor([[[x, y]]]))[0, 0].tolist() == pytest.approx(expected, abs=1e-5)


def test_refinement_moves_two_pixels_at_most_and_not_at_all_in_a_flat_map() -> None:
    pixels = torch.tensor([[[0, 0], [9, 7], [4, 4]]])
    assert torch.allclose(refined(torch.zeros(1, 1, 8, 10), pixels), pixels.float(), atol=1e-5)
    slope = 50 * pixel_grid(8, 10).sum(-1).reshape(1, 1, 8, 10)
    assert torch.allclose(refined(slope, pixels)[0, 2], torch.tensor([6.0, 6.0]), atol=1e-4)
    moved = refined(slope, pixels) - pixels
    assert moved.abs().max() <= 2 + 1e-5


def test_every_pixel_is_refined_by_its_own_neighbours() -> None:
    """A pixel's place in the blocks of four is worked out anew for every neighbour, across every edge."""
    logits = random_logits(2, 2, (10, 14))
    pixels = pixel_grid(10, 14).long().reshape(1, -1, 2).expand(2, -1, -1)
    windows = F.unfold(F.pad(logits, (2, 2, 2, 2), mode="replicate"), 5).transpose(1, 2)
    dy, dx = (torch.arange(-2.0, 3.0).repeat_interleave(5), torch.arange(-2.0, 3.0).repeat(5))
    weights = windows.softmax(-1)
    expected = pixels + torch.stack(((weights * dx).sum(-1), (weights * dy).sum(-1)), -1)
    assert torch.allclose(refined(logits, pixels), expected, atol=1e-5)


@settings(max_examples=40, deadline=None)
@given(seed=st.integers(0, 10**6), border=st.integers(2, 5), height=st.integers(9, 32), width=st.integers(9, 48))
def test_blocks_are_chosen_as_their_maxima_say(seed: int, border: int, height: int, width: int) -> None:
    """Against the plain way: the first maximum of each block, its pixel, its place. Few levels make many ties."""
    logits = random_logits(seed).round()
    blocks = F.pixel_unshuffle(logits, 2)
    best, which = blocks.max(1)
    peak = F.max_pool2d(best, 3, 1, 1) == best
    rows, columns = torch.arange(16).reshape(1, -1, 1), torch.arange(24).reshape(1, 1, -1)
    y, x = 2 * rows + which // 2, 2 * columns + which % 2
    inside = (y >= border) & (x >= border) & (y < height - border) & (x < width - border)
    expected = torch.stack((x, y), -1)[peak & inside & (best > -1)]
    keypoints, odds = select(100 * logits, 16 * 24, size=(height, width), border=border, threshold=-100.0)
    found = odds.isfinite()
    assert found.sum() == len(expected)
    assert torch.equal(odds[found].sort()[0], (100 * best - math.log(2))[peak & inside & (best > -1)].sort()[0])
    # at these heights refinement is the mean of the equal maxima of the 5×5 pixels around
    pixels = refined(100 * logits, expected.unsqueeze(0))[0]
    key = torch.tensor([1000.0, 1.0])
    assert torch.allclose((keypoints[found] * key).sum(-1).sort()[0], (pixels * key).sum(-1).sort()[0], atol=1e-2)
