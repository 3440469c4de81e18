import io
from collections.abc import Callable
from dataclasses import fields

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Generator, Tensor

from tiepoint.ops import photometric
from tiepoint.ops.photometric import PhotometricChanges, mix_channels, photometric_change
from tiepoint.ops.warps import smooth_noise

Change = Callable[..., Tensor]
NAMES = [field.name for field in fields(PhotometricChanges)]
CHANGES: list[Change] = [getattr(photometric, name) for name in NAMES]
NEVER = dict.fromkeys(NAMES, 0.0)
ALWAYS = PhotometricChanges(**dict.fromkeys(NAMES, 1.0))
LUMA = torch.tensor((0.299, 0.587, 0.114)).reshape(1, 3, 1, 1)


def generator(seed: int = 0) -> Generator:
    return Generator().manual_seed(seed)


def photos(batch: int = 4, channels: int = 1, size: tuple[int, int] = (40, 56)) -> Tensor:
    return torch.rand((batch, channels, *size), generator=generator(9)) * 0.9 + 0.05


@pytest.mark.parametrize("strength", [0.0, 0.3, 1.0])
@pytest.mark.parametrize("size", [(40, 56), (33, 17)])
@pytest.mark.parametrize("changes", [None, ALWAYS])
def test_the_change_gives_grey_images_in_range(
    strength: float, size: tuple[int, int], changes: PhotometricChanges | None
) -> None:
    changed = photometric_change(photos(16, size=size), strength, changes, generator=generator())
    assert changed.shape == (16, 1, *size)
    assert changed.dtype == torch.float32
    assert changed.isfinite().all()
    assert changed.min() >= 0
    assert changed.max() <= 1


@pytest.mark.parametrize("value", [0.0, 1.0])
def test_black_and_white_photos_stay_in_range(value: float) -> None:
    changed = photometric_change(torch.full((8, 1, 32, 32), value), 1.0, ALWAYS, generator=generator())
    assert changed.isfinite().all()
    assert 0 <= changed.min() <= changed.max() <= 1


def test_without_strength_or_with_no_change_it_is_the_photo() -> None:
    images = photos()
    assert torch.equal(photometric_change(images, 0.0, ALWAYS), images)
    assert torch.equal(photometric_change(images, 1.0, PhotometricChanges(**NEVER)), images)


def test_the_photo_given_is_not_changed() -> None:
    images = photos()
    before = images.clone()
    photometric_change(images, 1.0, ALWAYS, generator=generator())
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


def test_more_strength_changes_more() -> None:
    images = photos(32)
    off = [
        (photometric_change(images, strength, generator=generator()) - images).abs().mean()
        for strength in (0.1, 0.4, 1.0)
    ]
    assert 0 < off[0] < off[1] < off[2]


@pytest.mark.parametrize("name", NAMES)
def test_each_change_happens_as_often_as_asked_for(name: str) -> None:
    images = photos(400, size=(16, 16))
    share = 0.25
    changed = photometric_change(images, 1.0, PhotometricChanges(**NEVER | {name: share}), generator=generator())
    touched = (changed != images).flatten(1).any(1).float().mean()
    # a defocus of 0.3 px or the best JPEG may leave an image almost as it was, never more images than drawn
    assert 0.15 < touched < 0.35


@pytest.mark.parametrize("value", [-0.1, 1.5, float("nan")])
def test_a_probability_out_of_range_is_refused(value: float) -> None:
    with pytest.raises(ValueError, match=r"jpeg is .* expected a probability, 0 to 1"):
        PhotometricChanges(jpeg=value)


@pytest.mark.parametrize("change", CHANGES, ids=lambda change: change.__name__)
class TestEachChange:
    def test_keeps_shape_and_type(self, change: Change) -> None:
        images = photos(5)
        changed = change(images, 1.0, generator=generator())
        assert changed.shape == images.shape
        assert changed.dtype == images.dtype
        assert changed.isfinite().all()

    def test_changes_every_image(self, change: Change) -> None:
        images = photos(24)
        off = (change(images, 1.0, generator=generator()) - images).abs().amax((1, 2, 3))
        assert (off > 1e-3).sum() >= 20

    def test_repeats_with_its_generator(self, change: Change) -> None:
        images = photos(6)
        first, second = (change(images, 1.0, generator=generator(2)) for _ in range(2))
        assert torch.equal(first, second)

    def test_with_little_strength_changes_little(self, change: Change) -> None:
        if change in (photometric.negative, photometric.jpeg, photometric.resampling):
            pytest.skip("a negative has no half, JPEG at quality 90 and any interpolation a least effect")
        images = photos(40)
        weak, strong = ((change(images, s, generator=generator()) - images).abs().mean() for s in (0.02, 1.0))
        assert weak < 0.4 * strong

    def test_draws_another_strength_for_every_image(self, change: Change) -> None:
        if change in (photometric.negative, photometric.resampling):
            pytest.skip("there is one negative, and a batch is resampled by one factor")
        same = (
            smooth_noise(1, (40, 56), 12, like=torch.zeros(1), generator=generator(4)).expand(24, -1, -1, -1) * 0.3
            + 0.5
        )
        off = (change(same, 1.0, generator=generator()) - same).abs().mean((1, 2, 3))
        assert off.max() > 1.3 * off.min() + 1e-6


def test_mixing_is_convex() -> None:
    images = photos(20, 3)
    mixed = mix_channels(images, 1.0, generator=generator())
    assert (mixed >= images.amin(1, keepdim=True) - 1e-6).all()
    assert (mixed <= images.amax(1, keepdim=True) + 1e-6).all()


def test_mixing_leaves_grey_as_it_is() -> None:
    grey = photos(4, 1)
    assert torch.allclose(mix_channels(grey.expand(-1, 3, -1, -1), 1.0, generator=generator()), grey, atol=1e-5)


@pytest.mark.parametrize("blur", [photometric.defocus, photometric.motion, photometric.resampling])
def test_blur_keeps_flat_places_and_lowers_the_variance(blur: Change) -> None:
    flat = torch.full((30, 1, 20, 20), 0.4)
    assert torch.allclose(blur(flat, 1.0, generator=generator()), flat, atol=1e-4)
    images = photos(30)
    ratio = blur(images, 1.0, generator=generator()).var((1, 2, 3)) / images.var((1, 2, 3))
    assert ratio.max() < 1.001
    assert ratio.mean() < 0.7


def test_noise_has_no_mean_and_stays_small() -> None:
    images = torch.full((40, 1, 64, 64), 0.5)
    off = photometric.noise(images, 1.0, generator=generator()) - images
    assert off.mean((1, 2, 3)).abs().max() < 0.005
    assert 0.005 < off.std() < 0.06


def test_gamma_keeps_the_order_of_the_pixels_and_a_negative_reverses_it() -> None:
    ramp = torch.linspace(0.05, 0.95, 64).reshape(1, 1, 8, 8).expand(100, 1, 8, 8)
    assert (photometric.gamma(ramp, 1.0, generator=generator()).flatten(1).diff(dim=1) > 0).all()
    assert torch.equal(photometric.negative(photometric.negative(ramp, 1.0), 1.0), 1 - (1 - ramp))


def test_a_curve_is_one_function_of_brightness_that_need_not_rise() -> None:
    ramp = torch.linspace(0, 1, 64).reshape(1, 1, 8, 8).expand(200, 1, 8, 8)
    steps = photometric.curve(ramp, 1.0, generator=generator()).flatten(1).diff(dim=1)
    falling = (steps < -1e-3).any(1).float().mean()
    assert falling > 0.3
    swapped = photometric.curve(ramp.flip(3), 1.0, generator=generator()).flip(3)
    assert torch.allclose(swapped, photometric.curve(ramp, 1.0, generator=generator()), atol=1e-6)


def test_jpeg_is_what_a_codec_writes() -> None:
    """The same blocks as libjpeg's, by Pillow, at the quality that the draw gives."""
    texture = smooth_noise(1, (64, 72), 9, like=torch.zeros(1), generator=generator(4)) * 0.2 + photos(1, size=(64, 72))
    image = (255 * texture.clamp(0, 1)).round() / 255
    for seed in range(12):
        ours = photometric.jpeg(image, 1.0, generator=generator(seed)).clamp(0, 1)[0, 0]
        quality = round(90 - 80 * float(torch.rand((1, 1, 1, 1), generator=generator(seed))))
        buffer = io.BytesIO()
        Image.fromarray((255 * image[0, 0]).byte().numpy()).save(buffer, "jpeg", quality=quality)
        theirs = torch.from_numpy(np.array(Image.open(buffer))).float() / 255
        # coefficients half-way between two steps go to either
        assert (ours - theirs).square().mean() < 0.1 * (image[0, 0] - theirs).square().mean(), quality


def test_low_light_brings_few_levels_and_much_noise() -> None:
    flat = torch.full((20, 1, 40, 40), 0.5)
    dim = photometric.low_light(flat, 1.0, generator=generator())
    assert max(len(image.unique()) for image in dim) < 120
    assert (dim.std((1, 2, 3)) > 0.01).all()
    assert (dim.mean((1, 2, 3)) - 0.5).abs().max() < 0.1


def test_it_runs_without_gradient() -> None:
    with torch.inference_mode():
        assert not photometric_change(photos(), 1.0, generator=generator()).requires_grad
