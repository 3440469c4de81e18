from collections.abc import Callable

import pytest
import torch
from torch import Generator, Tensor

from tiepoint.ops import photometric
from tiepoint.ops.photometric import mix_channels, photometric_change

Change = Callable[..., Tensor]
CHANGES: list[Change] = [getattr(photometric, name) for name in ("tone", "shade", "blur", "resample", "noise")]
LUMA = torch.tensor((0.299, 0.587, 0.114)).reshape(1, 3, 1, 1)


def generator(seed: int = 0) -> Generator:
    return Generator().manual_seed(seed)


def photos(batch: int = 4, channels: int = 3, size: tuple[int, int] = (40, 56)) -> Tensor:
    return torch.rand((batch, channels, *size), generator=generator(9)) * 0.9 + 0.05


@pytest.mark.parametrize("strength", [0.0, 0.3, 1.0])
@pytest.mark.parametrize("size", [(40, 56), (33, 17)])
def test_the_change_gives_grey_images_in_range(strength: float, size: tuple[int, int]) -> None:
    changed = photometric_change(photos(16, size=size), strength, generator=generator())
    assert changed.shape == (16, 1, *size)
    assert changed.dtype == torch.float32
    assert changed.isfinite().all()
    assert changed.min() >= 0
    assert changed.max() <= 1


def test_black_and_white_photos_stay_in_range() -> None:
    for value in (0.0, 1.0):
        changed = photometric_change(torch.full((8, 3, 32, 32), value), 1.0, generator=generator())
        assert changed.isfinite().all()
        assert 0 <= changed.min() <= changed.max() <= 1


def test_without_strength_it_is_luma() -> None:
    images = photos()
    assert torch.allclose(photometric_change(images, 0.0), (images * LUMA).sum(1, keepdim=True), atol=1e-6)


def test_the_photo_given_is_not_changed() -> None:
    images = photos()
    before = images.clone()
    photometric_change(images, 1.0, generator=generator())
    assert torch.equal(images, before)


def test_it_repeats_with_its_generator_only() -> None:
    images = photos()
    first = photometric_change(images, 1.0, generator=generator(3))
    torch.rand(5)  # the global source has no part in it
    assert torch.equal(first, photometric_change(images, 1.0, generator=generator(3)))
    assert not torch.equal(first, photometric_change(images, 1.0, generator=generator(4)))


def test_every_image_draws_its_own_change() -> None:
    same = photos(1).expand(8, -1, -1, -1)
    changed = photometric_change(same, 1.0, generator=generator()).flatten(1)
    distance = torch.cdist(changed, changed) + 10 * torch.eye(8)
    assert distance.min() > 0.1


def test_an_image_is_changed_alike_whatever_else_is_in_the_batch() -> None:
    images = photos(6)
    others = torch.cat((images[:3], 1 - images[3:]))
    changed = photometric_change(images, 1.0, generator=generator())
    beside = photometric_change(others, 1.0, generator=generator())
    assert torch.allclose(changed[:3], beside[:3], atol=1e-6)


def test_more_strength_changes_more() -> None:
    images = photos(32)
    luma = (images * LUMA).sum(1, keepdim=True)
    off = [
        (photometric_change(images, strength, generator=generator()) - luma).abs().mean()
        for strength in (0.1, 0.4, 1.0)
    ]
    assert 0 < off[0] < off[1] < off[2]


@pytest.mark.parametrize("change", CHANGES, ids=lambda change: change.__name__)
class TestEachChange:
    def test_keeps_shape_and_type(self, change: Change) -> None:
        for channels in (1, 3):
            images = photos(5, channels)
            changed = change(images, 1.0, generator=generator())
            assert changed.shape == images.shape
            assert changed.dtype == images.dtype
            assert changed.isfinite().all()

    def test_without_strength_changes_nothing(self, change: Change) -> None:
        images = photos(40, 1)
        assert torch.allclose(change(images, 0.0, generator=generator()), images, atol=1e-5)

    def test_with_strength_changes_some(self, change: Change) -> None:
        images = photos(24, 1)
        off = (change(images, 1.0, generator=generator()) - images).abs().amax((1, 2, 3))
        assert (off > 1e-3).sum() >= 6

    def test_draws_another_strength_for_every_image(self, change: Change) -> None:
        same = photos(1, 1).expand(24, -1, -1, -1)
        off = (change(same, 1.0, generator=generator()) - same).abs().mean((1, 2, 3))
        assert off.max() > 2 * off.min() + 1e-6

    def test_repeats_with_its_generator(self, change: Change) -> None:
        images = photos(6, 1)
        first, second = (change(images, 1.0, generator=generator(2)) for _ in range(2))
        assert torch.equal(first, second)


def test_mixing_is_convex() -> None:
    images = photos(20)
    mixed = mix_channels(images, 1.0, generator=generator())
    assert (mixed >= images.amin(1, keepdim=True) - 1e-6).all()
    assert (mixed <= images.amax(1, keepdim=True) + 1e-6).all()


def test_mixing_leaves_grey_as_it_is() -> None:
    grey = photos(4, 1)
    assert torch.allclose(mix_channels(grey.expand(-1, 3, -1, -1), 1.0, generator=generator()), grey, atol=1e-5)


def test_blur_keeps_the_mean_of_flat_places_and_lowers_the_variance() -> None:
    flat = torch.full((30, 1, 20, 20), 0.4)
    assert torch.allclose(photometric.blur(flat, 1.0, generator=generator()), flat, atol=1e-4)
    images = photos(30, 1)
    ratio = photometric.blur(images, 1.0, generator=generator()).var((1, 2, 3)) / images.var((1, 2, 3))
    assert ratio.max() < 1.001
    # a third defocused, a sixth moved, half as sharp as before
    assert 6 <= (ratio < 0.95).sum() <= 24


def test_noise_has_no_mean_and_stays_small() -> None:
    images = torch.full((40, 1, 64, 64), 0.5)
    off = photometric.noise(images, 1.0, generator=generator()) - images
    assert off.mean((1, 2, 3)).abs().max() < 0.005
    assert 0.005 < off.std() < 0.06


def test_tone_keeps_or_reverses_the_order_of_the_pixels() -> None:
    ramp = torch.linspace(0.05, 0.95, 64).reshape(1, 1, 8, 8).expand(400, 1, 8, 8)
    steps = photometric.tone(ramp, 1.0, generator=generator()).flatten(1).diff(dim=1)
    rising, falling = (steps > 0).all(1), (steps < 0).all(1)
    assert (rising | falling).all()
    assert 0.01 < falling.float().mean() < 0.08


def test_it_runs_without_gradient() -> None:
    with torch.inference_mode():
        assert not photometric_change(photos(), 1.0, generator=generator()).requires_grad
