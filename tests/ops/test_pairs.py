import pytest
import torch
from kornia.geometry.linalg import transform_points
from torch import Generator, Tensor

from tiepoint.ops.pairs import photo_pairs
from tiepoint.ops.sampling import pixel_grid, warp_image

SIZE, PHOTO = (256, 320), (384, 480)
LUMA = torch.tensor((0.299, 0.587, 0.114)).reshape(1, 3, 1, 1)


def generator(seed: int = 0) -> Generator:
    return Generator().manual_seed(seed)


def smooth_photos(batch: int, size: tuple[int, int] = PHOTO) -> Tensor:
    """Sums of slow waves in each channel: interpolation hardly changes them, and any shift does."""
    grid = pixel_grid(*size)
    drawn = torch.rand((batch, 3, 6, 3), generator=generator(5))
    wave = 0.12 * (2 * drawn[..., :2] - 1) @ grid.reshape(-1, 2).T + 6.28 * drawn[..., 2:]
    return (0.5 + wave.sin().mean(2) * 0.5).reshape(batch, 3, *size)


def make(batch: int = 3, seed: int = 0, **options: float) -> dict[str, Tensor]:
    return photo_pairs(smooth_photos(batch), SIZE, generator=generator(seed), **options)


@pytest.mark.parametrize("parallax", [0.0, 1.0])
@pytest.mark.parametrize(("this", "other"), [(0, 1), (1, 0)])
def test_each_view_seen_through_the_warp_is_the_other(parallax: float, this: int, other: int) -> None:
    pair = make(parallax=parallax, photometric=0.0)
    seen = warp_image(pair[f"image{other}"], pair[f"warp_{this}to{other}"])
    covisible = pair[f"covisible{this}"].unsqueeze(1)
    assert covisible.float().mean() > 0.3
    off = (seen - pair[f"image{this}"]).abs()[covisible]
    assert off.max() < 0.01
    assert off.mean() < 0.001
    # and it is the warp that brings them together
    unwarped = (pair["image0"] - pair["image1"]).abs()[covisible]
    assert unwarped.mean() > 0.02


def test_shapes_and_types() -> None:
    pair = make(batch=2)
    assert {name: tuple(value.shape) for name, value in pair.items()} == {
        "image0": (2, 1, *SIZE),
        "image1": (2, 1, *SIZE),
        "warp_0to1": (2, *SIZE, 2),
        "warp_1to0": (2, *SIZE, 2),
        "covisible0": (2, *SIZE),
        "covisible1": (2, *SIZE),
        "H_0to1": (2, 3, 3),
        "planar": (2,),
    }
    booleans = {name for name, value in pair.items() if value.dtype == torch.bool}
    assert booleans == {"covisible0", "covisible1", "planar"}
    assert all(value.isfinite().all() for value in pair.values())
    assert all(0 <= pair[f"image{i}"].min() <= pair[f"image{i}"].max() <= 1 for i in (0, 1))


def test_pairs_repeat_with_their_generator() -> None:
    first, again, other = make(seed=1), make(seed=1), make(seed=2)
    assert all(torch.equal(first[name], again[name]) for name in first)
    assert not torch.equal(first["image0"], other["image0"])


def test_the_homography_of_planar_pairs_is_their_warp() -> None:
    pair = make(parallax=0.0)
    assert pair["planar"].all()
    grid = pixel_grid(*SIZE).reshape(1, -1, 2).expand(3, -1, -1)
    exact = transform_points(pair["H_0to1"], grid).reshape(3, *SIZE, 2)
    assert (exact - pair["warp_0to1"]).norm(dim=-1)[pair["covisible0"]].max() < 0.05
    assert torch.equal(pair["H_0to1"][:, 2, 2], torch.ones(3))


def test_pairs_with_parallax_are_not_planar() -> None:
    pair = make(parallax=1.0)
    assert not pair["planar"].any()
    grid = pixel_grid(*SIZE).reshape(1, -1, 2).expand(3, -1, -1)
    plane = transform_points(pair["H_0to1"], grid).reshape(3, *SIZE, 2)
    assert ((plane - pair["warp_0to1"]).norm(dim=-1).flatten(1).amax(1) > 0.5).all()


def test_parallax_is_the_share_of_pairs_that_are_not_planar() -> None:
    photos = torch.zeros(40, 3, 48, 48)
    planar = photo_pairs(photos, (32, 32), parallax=0.25, photometric=0.0, generator=generator())["planar"]
    assert 0.55 < planar.float().mean() < 0.95


def test_without_difficulty_both_views_are_the_centre_of_the_photo() -> None:
    photos = smooth_photos(2)
    pair = photo_pairs(photos, SIZE, difficulty=0.0, generator=generator())
    centre = (photos * LUMA).sum(1, keepdim=True)[..., 64:-64, 80:-80]
    assert torch.allclose(pair["image0"], centre, atol=1e-3)
    assert torch.allclose(pair["image1"], centre, atol=1e-3)
    assert torch.allclose(pair["warp_0to1"], pixel_grid(*SIZE).expand(2, -1, -1, -1), atol=1e-3)
    assert pair["planar"].all()


def test_difficulty_moves_the_views_farther_apart() -> None:
    moved = [
        (make(8, difficulty=difficulty, parallax=0.0)["warp_0to1"] - pixel_grid(*SIZE)).norm(dim=-1).mean()
        for difficulty in (0.2, 0.6, 1.0)
    ]
    assert moved[0] < moved[1] < moved[2]


def test_each_strength_alone_moves_the_views() -> None:
    still = {"jitter": 0.0, "rotation": 0.0, "zoom": 1.0, "shift": 0.0, "parallax": 0.0}
    for name, value in {"jitter": 0.1, "rotation": 10.0, "zoom": 1.3, "shift": 0.1, "parallax": 1.0}.items():
        pair = make(1, photometric=0.0, **still | {name: value})
        assert (pair["warp_0to1"] - pixel_grid(*SIZE)).norm(dim=-1).max() > 0.5, name


def test_photometric_change_differs_between_the_views() -> None:
    still = {"jitter": 0.0, "rotation": 0.0, "zoom": 1.0, "shift": 0.0, "parallax": 0.0}
    pair = make(4, **still)
    assert ((pair["image0"] - pair["image1"]).abs().mean((1, 2, 3)) > 0.005).all()
