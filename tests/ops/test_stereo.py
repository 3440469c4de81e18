"""Stereo pairs made of photographs: the truth agrees with the views."""

import pytest
import torch

from tiepoint.ops.sampling import pixel_grid, warp_image
from tiepoint.ops.stereo import lit_apart, stereo_geometry, stereo_pairs

SIZE = (64, 96)


@pytest.fixture(scope="module")
def photos() -> torch.Tensor:
    """Smooth ones: reading them between pixels changes little."""
    noise = torch.rand((3, 3, 12, 16), generator=torch.Generator().manual_seed(0))
    return torch.nn.functional.interpolate(noise, (96, 128), mode="bicubic").clamp(0, 1)


def test_view_1_shows_what_view_0_shows_at_its_disparity(photos: torch.Tensor) -> None:
    pairs = stereo_pairs(photos, SIZE, largest=24.0, photometric=0.0, generator=torch.Generator().manual_seed(5))
    d = pairs["disparity0"]
    assert d.shape == (3, *SIZE)
    assert d.min() > 0
    assert d.max() <= 24
    shift = torch.stack((d, torch.zeros_like(d)), dim=-1)
    warped = warp_image(pairs["image1"], pixel_grid(*SIZE) - shift)
    error = (warped - pairs["image0"]).abs().mean(1)
    seen = pairs["visible0"]
    assert 0.3 < seen.float().mean() < 1
    # a rectification slips by up to 0.6 px, and pixels beside an edge are mixed
    assert error[seen].median() < 0.02
    assert error[~seen].median() > 3 * error[seen].median()


def test_what_is_hidden_lies_behind(photos: torch.Tensor) -> None:
    pairs = stereo_pairs(photos, SIZE, largest=24.0, photometric=0.0, generator=torch.Generator().manual_seed(6))
    x = torch.arange(SIZE[1]) - pairs["disparity0"]
    outside = x < 0
    assert not (pairs["visible0"] & outside).any()


@pytest.mark.parametrize("seed", range(6))
def test_mirrored_and_turned_pairs_keep_the_truth(photos: torch.Tensor, seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    pairs = stereo_pairs(photos, SIZE, largest=24.0, photometric=0.0, generator=generator)
    swept = stereo_geometry(pairs, planes=8, largest=28.0, turn=0.6, generator=generator)
    w = swept["inverse_depth0"]
    place = pixel_grid(*w.shape[1:]) + w.unsqueeze(-1) * swept["epipole"][:, None, None, :2]
    error = (warp_image(swept["image1"], place) - swept["image0"]).abs().mean(1)
    assert error[swept["visible0"]].median() < 0.02
    steps = swept["planes"].diff(dim=1)
    assert torch.allclose(steps, torch.full_like(steps, 4.0), atol=1e-5)
    assert swept["epipole"].abs().sum(1).eq(1).all()


def test_the_same_seed_makes_the_same_pairs(photos: torch.Tensor) -> None:
    made = [stereo_pairs(photos, SIZE, generator=torch.Generator().manual_seed(3)) for _ in range(2)]
    assert all(torch.equal(made[0][name], made[1][name]) for name in made[0])


def tiny(*shape: int, seed: int = 0) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    return (0.3 + 0.4 * torch.rand(shape, dtype=torch.float64, generator=generator)).requires_grad_()


def test_gradcheck_of_pairs_by_their_photos() -> None:
    def views(photos: torch.Tensor) -> list[torch.Tensor]:
        generator = torch.Generator().manual_seed(1)
        pairs = stereo_pairs(photos, (8, 12), largest=4.0, photometric=0.0, generator=generator)
        return [pairs["image0"], pairs["image1"]]

    photos = tiny(2, 3, 8, 10)
    assert torch.autograd.gradcheck(views, photos, fast_mode=True)


def test_gradcheck_of_light_and_of_geometry() -> None:
    images = tiny(2, 3, 6, 7)
    lit = lambda each: lit_apart(each, 0.5, generator=torch.Generator().manual_seed(2))  # noqa: E731
    assert torch.autograd.gradcheck(lit, images, fast_mode=True)
    visible = torch.ones((1, 4, 6), dtype=torch.bool)

    def swept(image0: torch.Tensor, image1: torch.Tensor, d: torch.Tensor) -> list[torch.Tensor]:
        pairs = {"image0": image0, "image1": image1, "disparity0": d, "visible0": visible}
        generator = torch.Generator().manual_seed(3)
        found = stereo_geometry(pairs, planes=4, largest=8.0, turn=1.0, generator=generator)
        return [found[name] for name in ("image0", "image1", "inverse_depth0")]

    assert torch.autograd.gradcheck(swept, (tiny(1, 3, 4, 6), tiny(1, 3, 4, 6, seed=1), tiny(1, 4, 6, seed=2)))
