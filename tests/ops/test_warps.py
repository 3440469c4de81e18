import pytest
import torch
from kornia.geometry.linalg import transform_points
from torch import Generator, Tensor

from tiepoint.ops.sampling import pixel_grid, sample
from tiepoint.ops.warps import (
    correspondence,
    dense,
    displaced,
    parallax_fields,
    random_homographies,
    smooth_noise,
    undisplaced,
    uniform,
)

VIEW, PHOTO = (128, 160), (192, 240)
FULL_VIEW, FULL_PHOTO = (256, 320), (384, 480)  # the sizes that PhotoPairs trains with
LIKE = torch.zeros(6, 1)


def generator(seed: int = 0) -> Generator:
    return Generator().manual_seed(seed)


def homographies(
    batch: int = 6, *, view: tuple[int, int] = VIEW, photo: tuple[int, int] = PHOTO, **kw: float
) -> Tensor:
    strengths = {"jitter": 0.14, "rotation": 0.21, "zoom": 1.3, "shift": 0.12} | kw
    return random_homographies(batch, view, photo, **strengths, like=LIKE, generator=generator())


def centres(size: tuple[int, int]) -> Tensor:
    return torch.tensor([[(size[1] - 1) / 2, (size[0] - 1) / 2]])


def no_field(batch: int, photo: tuple[int, int] = PHOTO) -> Tensor:
    return torch.zeros(batch, 2, *photo)


def fields(batch: int = 6) -> Tensor:
    return parallax_fields(batch, FULL_PHOTO, largest=18.0, share=1.0, like=LIKE, generator=generator(1))


def test_uniform_stays_in_its_range_and_fills_it() -> None:
    drawn = uniform((1000,), -2.0, 3.0, like=LIKE, generator=generator())
    assert -2 <= drawn.min() < -1.9
    assert 2.9 < drawn.max() <= 3


def test_smooth_noise_is_smooth_varied_and_about_in_range() -> None:
    noise = smooth_noise(8, (64, 96), 4, like=LIKE, generator=generator())
    assert noise.shape == (8, 1, 64, 96)
    assert noise.abs().max() < 1.5
    assert (noise.std((1, 2, 3)) > 0.1).all()
    assert (noise[..., 1:] - noise[..., :-1]).abs().max() < 0.15


def test_without_strength_the_view_is_laid_centrally() -> None:
    H = homographies(3, jitter=0.0, rotation=0.0, zoom=1.0, shift=0.0)
    expected = torch.eye(3)
    expected[:2, 2] = (centres(PHOTO) - centres(VIEW))[0]
    assert torch.allclose(H / H[:, 2:, 2:], expected.expand(3, 3, 3), atol=1e-3)


def test_the_centre_of_the_view_falls_near_the_centre_of_the_photo() -> None:
    H = homographies(64, rotation=1.0, shift=0.0)
    moved = transform_points(H, centres(VIEW).expand(64, 1, 2)) - centres(PHOTO)
    assert moved.norm(dim=-1).max() < 0.3 * VIEW[0]
    assert moved.mean(0).norm() < 0.05 * VIEW[0]


def test_the_shift_is_bounded_and_used() -> None:
    H = homographies(200, jitter=0.0, rotation=0.0, zoom=1.0, shift=0.1)
    moved = transform_points(H, centres(VIEW).expand(200, 1, 2)) - centres(PHOTO)
    largest = moved.abs().amax((0, 1))
    assert largest.tolist() == pytest.approx([16.0, 12.8], rel=0.05)


def test_rotation_and_zoom_are_those_asked_for() -> None:
    H = homographies(400, jitter=0.0, rotation=0.2, zoom=1.5, shift=0.0)
    H = H / H[:, 2:, 2:]
    angle = torch.atan2(H[:, 1, 0], H[:, 0, 0])
    assert angle.std().item() == pytest.approx(0.2, rel=0.15)
    log_zoom = H[:, 0, :2].norm(dim=1).log() / torch.tensor(1.5).log()
    assert log_zoom.abs().max() <= 1.001
    assert log_zoom.min() < -0.95 < 0.95 < log_zoom.max()


def test_jitter_moves_each_corner_by_itself_and_no_farther() -> None:
    H = homographies(300, jitter=0.1, rotation=0.0, zoom=1.0, shift=0.0)
    corners = torch.tensor([[-0.5, -0.5], [159.5, -0.5], [159.5, 127.5], [-0.5, 127.5]])
    moved = transform_points(H, corners.expand(300, 4, 2)) - corners - (centres(PHOTO) - centres(VIEW))
    assert moved[..., 0].abs().max().item() == pytest.approx(16.0, rel=0.05)
    assert moved[..., 1].abs().max().item() == pytest.approx(12.8, rel=0.05)
    correlation = torch.corrcoef(moved.flatten(1).T) - torch.eye(8)
    assert correlation.abs().max() < 0.25


def test_homographies_repeat_with_their_generator() -> None:
    assert torch.equal(homographies(), homographies())
    assert not torch.equal(homographies()[0], homographies()[1])


def test_parallax_fields_point_along_one_direction_up_to_the_largest() -> None:
    field = fields(16)
    magnitude = field.norm(dim=1)
    assert magnitude.max() < 18 * 1.5
    assert (magnitude.flatten(1).amax(1) > 18 / 10 * 0.3).all()
    vectors = field.flatten(2)
    longest = vectors.gather(2, magnitude.flatten(1).argmax(1).reshape(16, 1, 1).expand(-1, 2, 1))
    direction = longest / longest.norm(dim=1, keepdim=True)
    across = vectors[:, 0] * direction[:, 1] - vectors[:, 1] * direction[:, 0]
    assert across.abs().max() < 1e-3


def test_share_says_how_many_fields_are_not_zero() -> None:
    options = {"largest": 5.0, "like": LIKE}
    drawn = [
        parallax_fields(200, (16, 16), share=share, generator=generator(), **options).flatten(1).any(1).float().mean()
        for share in (0.0, 0.3, 1.0)
    ]
    assert drawn[0] == 0
    assert drawn[1] == pytest.approx(0.3, abs=0.1)
    assert drawn[2] == 1


def test_undisplaced_inverts_displaced() -> None:
    field = fields()
    points = pixel_grid(*FULL_PHOTO)[::16, ::16].reshape(1, -1, 2).expand(len(field), -1, -1)
    there = displaced(points, field)
    assert (there - points).norm(dim=-1).max() > 5
    assert (undisplaced(there, field) - points).norm(dim=-1).max() < 0.05
    assert (displaced(undisplaced(points, field), field) - points).norm(dim=-1).max() < 0.05


def test_displaced_adds_the_field_at_the_point() -> None:
    field = torch.zeros(1, 2, 4, 6)
    field[0, :, 2, 3] = torch.tensor([1.5, -2.0])
    assert displaced(torch.tensor([[[3.0, 2.0], [0.0, 0.0]]]), field).tolist() == [[[4.5, 0.0], [0.0, 0.0]]]


def test_dense_agrees_with_the_exact_mapping() -> None:
    H = homographies(view=FULL_VIEW, photo=FULL_PHOTO)
    grid = pixel_grid(*FULL_VIEW).reshape(1, -1, 2).expand(len(H), -1, -1)
    exact = transform_points(H, grid).reshape(len(H), *FULL_VIEW, 2)
    approximate = dense(lambda points: transform_points(H, points), FULL_VIEW, like=H)
    assert (approximate - exact).norm(dim=-1).max() < 0.01


@pytest.mark.parametrize("size", [(32, 32), (37, 50), (4, 64)])
def test_dense_of_the_identity_is_the_grid_for_any_size(size: tuple[int, int]) -> None:
    assert torch.allclose(dense(lambda points: points, size, like=LIKE), pixel_grid(*size), atol=1e-4)


def there_and_back(size: tuple[int, int], first: Tensor, second: Tensor, seen: Tensor) -> Tensor:
    """Errors in pixels of going to the other view and back, where both directions are seen."""
    batch = len(first)
    back = sample(second.permute(0, 3, 1, 2), first.reshape(batch, -1, 2)).reshape(batch, *size, 2)
    assert seen.float().mean() > 0.2
    return (back - pixel_grid(*size)).norm(dim=-1)[seen]


@pytest.mark.parametrize("planar", [True, False])
def test_going_to_the_other_view_and_back_ends_where_it_began(planar: bool) -> None:
    view0, view1 = homographies(12, view=FULL_VIEW, photo=FULL_PHOTO).chunk(2)
    field = no_field(6, FULL_PHOTO) if planar else fields()
    truth = correspondence(view0, view1, field, FULL_VIEW)
    limit = 0.02 if planar else 0.1
    assert there_and_back(FULL_VIEW, truth.warp_0to1, truth.warp_1to0, truth.covisible0).max() < limit
    assert there_and_back(FULL_VIEW, truth.warp_1to0, truth.warp_0to1, truth.covisible1).max() < limit


def test_the_warp_of_a_planar_pair_is_its_homography() -> None:
    view0, view1 = homographies(12, view=FULL_VIEW, photo=FULL_PHOTO).chunk(2)
    truth = correspondence(view0, view1, no_field(6, FULL_PHOTO), FULL_VIEW)
    H_0to1 = torch.linalg.inv(view1.double()) @ view0.double()
    grid = pixel_grid(*FULL_VIEW).double().reshape(1, -1, 2).expand(6, -1, -1)
    exact = transform_points(H_0to1, grid).reshape(6, *FULL_VIEW, 2)
    off = (truth.warp_0to1 - exact).norm(dim=-1)
    assert off[truth.covisible0].max() < 0.02


def test_covisible_pixels_are_those_whose_partner_is_inside() -> None:
    view = homographies(1, jitter=0.0, rotation=0.0, zoom=1.0, shift=0.0)
    shifted = view @ torch.tensor([[1.0, 0, 40], [0, 1, 0], [0, 0, 1]])
    truth = correspondence(view, shifted, no_field(1), VIEW)
    # x in view 0 is x - 40 in view 1; pixels on the border itself may fall on either side of it
    assert not truth.covisible0[..., :39].any()
    assert truth.covisible0[:, 1:-1, 41:].all()
    assert truth.covisible1[:, 1:-1, :119].all()
    assert not truth.covisible1[..., 121:].any()


def test_parallax_moves_what_view_1_sees() -> None:
    """View 1 reads the photo at q + field(q): what lies at p in view 0 lies at q, with q + field(q) = p, in view 1."""
    view = homographies(1, view=FULL_VIEW, photo=FULL_PHOTO, jitter=0.0, rotation=0.0, zoom=1.0, shift=0.0)
    field = no_field(1, FULL_PHOTO)
    field[:, 0] = 7.0
    truth = correspondence(view, view, field, FULL_VIEW)
    expected = pixel_grid(*FULL_VIEW)
    assert torch.allclose(truth.warp_0to1[0], expected - torch.tensor([7.0, 0.0]), atol=0.01)
    assert torch.allclose(truth.warp_1to0[0], expected + torch.tensor([7.0, 0.0]), atol=0.01)
