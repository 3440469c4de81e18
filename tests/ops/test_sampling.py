import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from tiepoint.ops.sampling import inside, normalise_points, pixel_grid, sample, sample_rows, warp_image


def random_maps(*shape: int) -> torch.Tensor:
    return torch.rand(shape, generator=torch.Generator().manual_seed(0))


def test_the_grid_holds_x_and_y_of_every_pixel() -> None:
    grid = pixel_grid(3, 5)
    assert grid.shape == (3, 5, 2)
    assert grid.dtype == torch.float32
    assert grid[2, 4].tolist() == [4, 2]
    assert grid[0, 0].tolist() == [0, 0]


def test_normalised_edges_are_half_a_pixel_outside_the_centres() -> None:
    points = torch.tensor([[-0.5, -0.5], [6.5, 3.5], [3.0, 1.5]])
    expected = torch.tensor([[-1.0, -1.0], [1.0, 1.0], [0.0, 0.0]])
    assert torch.allclose(normalise_points(points, 4, 7), expected)


def test_sampling_at_pixel_centres_reads_the_pixels() -> None:
    maps = random_maps(2, 3, 5, 7)
    points = pixel_grid(5, 7).reshape(1, -1, 2).expand(2, -1, -1)
    assert torch.allclose(sample(maps, points), maps.flatten(2).transpose(1, 2), atol=1e-5)


def test_sampling_between_pixels_is_bilinear() -> None:
    maps = torch.tensor([[1.0, 3.0], [5.0, 9.0]]).reshape(1, 1, 2, 2)
    points = torch.tensor([[[0.5, 0.0], [0.0, 0.25], [0.5, 0.5]]])
    assert torch.allclose(sample(maps, points).flatten(), torch.tensor([2.0, 2.0, 4.5]), atol=1e-6)


@pytest.mark.parametrize(("padding", "expected"), [("border", [4.0, 1.0]), ("zeros", [0.0, 0.0])])
def test_sampling_outside(padding: str, expected: list[float]) -> None:
    maps = torch.tensor([[1.0, 2.0], [3.0, 4.0]]).reshape(1, 1, 2, 2)
    points = torch.tensor([[[9.0, 9.0], [-4.0, -4.0]]])
    assert sample(maps, points, padding=padding).flatten().tolist() == pytest.approx(expected)


def test_each_image_is_read_at_its_own_points() -> None:
    maps = random_maps(2, 1, 4, 4)
    points = torch.tensor([[[1.0, 2.0]], [[3.0, 0.0]]])
    read = sample(maps, points).flatten()
    assert torch.allclose(read, torch.stack((maps[0, 0, 2, 1], maps[1, 0, 0, 3])), atol=1e-6)


def test_warping_by_the_grid_changes_nothing() -> None:
    image = random_maps(2, 3, 6, 9)
    source = pixel_grid(6, 9).expand(2, -1, -1, -1)
    assert torch.allclose(warp_image(image, source), image, atol=1e-5)


def test_warping_by_a_shift_reads_there_and_mirrors_outside() -> None:
    image = random_maps(1, 1, 6, 9)
    source = pixel_grid(6, 9).unsqueeze(0) + torch.tensor([2.0, -1.0])
    warped = warp_image(image, source)
    assert torch.allclose(warped[:, :, 1:, :7], image[:, :, :5, 2:], atol=1e-5)
    assert torch.allclose(warped[0, 0, 0, :7], image[0, 0, 0, 2:], atol=1e-5)  # row -1 mirrors row 0
    assert torch.allclose(warped[0, 0, 1:, 7:], image[0, 0, :5, [8, 7]], atol=1e-5)  # columns 9, 10: 8, 7


def test_warping_may_leave_zeros_and_change_the_size() -> None:
    warped = warp_image(torch.ones(1, 1, 4, 4), pixel_grid(2, 6).unsqueeze(0), padding="zeros")
    assert warped.shape == (1, 1, 2, 6)
    assert torch.allclose(warped[0, 0], torch.tensor([1.0, 1.0, 1.0, 1.0, 0.0, 0.0]).expand(2, 6), atol=1e-5)


def test_inside_ends_at_the_outermost_centres() -> None:
    points = torch.tensor([[0.0, 0.0], [6.0, 3.0], [-0.01, 1.0], [6.01, 1.0], [1.0, -0.01], [1.0, 3.01]])
    assert inside(points, 4, 7).tolist() == [True, True, False, False, False, False]


def test_inside_reaches_to_the_outermost_pixel_centres() -> None:
    points = torch.tensor([[0.0, 0.0], [6.0, 3.0], [-0.1, 1.0], [6.1, 2.0], [5.0, 3.1], [float("nan"), 2.0]])
    assert inside(points, 4, 7).tolist() == [True, True, False, False, False, False]


def test_half_precision_maps_are_read_at_exact_places() -> None:
    width = 256
    ramp = torch.arange(width, dtype=torch.float32).expand(1, 1, 4, width).clone()
    points = torch.rand(1, 100, 2) * torch.tensor([200.0, 3.0]) + torch.tensor([40.0, 0.0])
    read = sample(ramp.bfloat16(), points).squeeze(-1)
    # the values of the ramp up to 256 are exact in bfloat16; only the places could be off
    assert (read - points[..., 0]).abs().max() < 0.01


@settings(max_examples=40, deadline=None)
@given(
    batch=st.integers(1, 3),
    channels=st.integers(1, 5),
    height=st.integers(1, 6),
    width=st.integers(1, 6),
    seed=st.integers(0, 2**31),
)
def test_rows_read_what_sampling_reads_inside_and_outside(
    batch: int, channels: int, height: int, width: int, seed: int
) -> None:
    generator = torch.Generator().manual_seed(seed)
    maps = torch.rand((batch, channels, height, width), generator=generator)
    points = torch.rand((batch, 20, 2), generator=generator) * torch.tensor([width + 6.0, height + 6.0]) - 3
    points[:, :8] = points[:, :8].round()
    assert torch.allclose(sample_rows(maps, points), sample(maps, points), atol=2e-5)


def test_rows_have_the_gradient_of_sampling() -> None:
    maps, points = random_maps(2, 3, 4, 5), 4 * torch.rand((2, 9, 2), generator=torch.Generator().manual_seed(1)) - 0.5
    gradients = []
    for read in (sample, sample_rows):
        given_maps, given_points = maps.clone().requires_grad_(), points.clone().requires_grad_()
        read(given_maps, given_points).square().sum().backward()
        gradients.append((given_maps.grad, given_points.grad))
    for one, other in zip(*gradients, strict=True):
        assert one is not None
        assert torch.allclose(one, other, atol=1e-4)


def test_rows_of_half_precision_maps_are_weighed_in_full_precision() -> None:
    ramp = torch.arange(256, dtype=torch.bfloat16).expand(1, 2, 4, 256)
    points = torch.rand(1, 100, 2) * torch.tensor([200.0, 3.0]) + torch.tensor([40.0, 0.0])
    read = sample_rows(ramp, points)
    assert read.dtype == torch.float32
    assert (read - points[..., :1]).abs().max() < 0.01


def test_a_place_that_is_no_number_reads_none() -> None:
    points = torch.tensor([[[float("nan"), 1.0], [1.0, 1.0]]])
    read = sample_rows(random_maps(1, 2, 3, 4), points)
    assert read[0, 0].isnan().all()
    assert read[0, 1].isfinite().all()
