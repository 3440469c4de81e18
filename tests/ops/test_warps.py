import pytest
import torch
from kornia.geometry.linalg import transform_points
from torch import Generator, Tensor

from tiepoint.ops.sampling import sample
from tiepoint.ops.warps import random_homographies, smooth_noise, thin_plate_fields, uniform

VIEW, PHOTO = (128, 160), (192, 240)
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
    assert 0.19 < angle.abs().max() <= 0.2001
    assert angle.std().item() == pytest.approx(0.2 / 3**0.5, rel=0.1)
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


PHOTO_FULL = (320, 400)  # of the photos that PhotoPairs trains with


def bendings(batch: int = 8, largest: float = 10.0) -> Tensor:
    return thin_plate_fields(
        PHOTO_FULL, largest=torch.full((batch,), largest), stride=8, like=LIKE, generator=generator()
    )


def test_thin_plates_move_their_control_points_up_to_the_largest() -> None:
    field = bendings(200)
    assert field.shape == (200, 2, 40, 50)
    # the control points are the corners of the photo and what divides its sides in three
    corner = sample(field, torch.tensor([[[-0.5, -0.5]]]).expand(200, -1, -1)).squeeze(1)
    assert 8.5 < corner.abs().max() < 11
    assert corner.mean(0).abs().max() < 2
    assert field.abs().max() < 17


def test_thin_plates_are_smooth_enough_to_be_inverted() -> None:
    field = bendings(200)
    slope = max((field.diff(dim=d) / 8).abs().max().item() for d in (2, 3))
    assert 0.05 < slope < 0.5


def test_thin_plates_without_strength_are_flat() -> None:
    field = thin_plate_fields(PHOTO_FULL, largest=torch.tensor([0.0, 5.0]), stride=8, like=LIKE, generator=generator())
    assert field[0].abs().max() < 1e-3
    assert field[1].abs().max() > 1
