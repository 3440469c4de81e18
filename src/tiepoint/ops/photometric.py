"""Random photometric change, batched: every image of the batch draws its own (but for the factor of `resample`).

Each function takes images (B, C, H, W) in [0, 1] and a `strength` in (0, 1], and returns images of the same shape.
None uses a loop over samples.
"""

import torch
import torch.nn.functional as F
from kornia.filters import get_gaussian_kernel2d, get_motion_kernel2d
from torch import Generator, Tensor

from tiepoint.ops.warps import smooth_noise, uniform


def _draw(images: Tensor, low: float, high: float, generator: Generator | None) -> Tensor:
    return uniform((len(images), 1, 1, 1), low, high, like=images, generator=generator)


def _happens(images: Tensor, probability: float, generator: Generator | None) -> Tensor:
    return _draw(images, 0.0, 1.0, generator) < probability


def mix_channels(images: Tensor, strength: float, *, generator: Generator | None = None) -> Tensor:
    """RGB to grey with random weights: a sensor, a white balance and a filter nobody knows.

    Args:
        images: (B, 3, H, W).
        strength: how far from luma the weights may go.
        generator: the source of randomness.

    Returns:
        (B, 1, H, W), convex combinations of the channels.
    """
    luma = torch.tensor((0.299, 0.587, 0.114), device=images.device).reshape(1, 3, 1, 1)
    drawn = uniform((len(images), 3, 1, 1), 0.02, 1.0, like=images, generator=generator)
    weights = luma + strength * (drawn / drawn.sum(1, keepdim=True) - luma)
    return (images * weights).sum(1, keepdim=True)


def tone(images: Tensor, strength: float, *, generator: Generator | None = None) -> Tensor:
    """Gamma, contrast and brightness; rarely a negative, as between visible and infrared."""
    gamma = (strength * 0.4 * _normal(images, generator)).exp()
    contrast = (strength * 0.35 * _normal(images, generator)).exp()
    brightness = strength * 0.12 * _normal(images, generator)
    toned = images.clamp(1e-4, 1).pow(gamma)
    mean = toned.mean((1, 2, 3), keepdim=True)
    toned = (toned - mean) * contrast + mean + brightness
    negative = _happens(images, 0.04 * strength, generator)
    return torch.where(negative, 1 - toned, toned)


def _normal(images: Tensor, generator: Generator | None) -> Tensor:
    return torch.randn((len(images), 1, 1, 1), device=images.device, generator=generator)


def shade(images: Tensor, strength: float, *, generator: Generator | None = None) -> Tensor:
    """A smooth gain over the image (vignette, lamp, haze) and, for half of them, shadows with an edge."""
    size = (images.shape[-2], images.shape[-1])
    gain = smooth_noise(len(images), size, 4, like=images, generator=generator)
    shaded = images * (0.5 * strength * gain).exp()
    field = smooth_noise(len(images), size, 5, like=images, generator=generator)
    edge = torch.sigmoid(_draw(images, 5.0, 60.0, generator) * (field - _draw(images, -0.3, 0.6, generator)))
    depth = _draw(images, 0.2, 0.75, generator) * strength * _happens(images, 0.5, generator)
    return shaded * (1 - depth * edge)


def blur(images: Tensor, strength: float, *, generator: Generator | None = None) -> Tensor:
    """Defocus for a third of the images, motion blur for a sixth; the rest stays sharp.

    One depth-wise convolution a batch: every image has a 7×7 kernel of its own.
    """
    batch = len(images)
    sigma = _draw(images, 0.3, 0.3 + 1.7 * strength, generator).reshape(batch, 1).expand(batch, 2)
    defocus = get_gaussian_kernel2d((7, 7), sigma)
    angle = uniform((batch,), 0.0, 360.0, like=images, generator=generator)
    direction = uniform((batch,), -1.0, 1.0, like=images, generator=generator)
    motion = get_motion_kernel2d(7, angle, direction, mode="bilinear")
    identity = torch.zeros_like(defocus)
    identity[:, 3, 3] = 1
    which = uniform((batch, 1, 1), 0.0, 1.0, like=images, generator=generator)
    kernel = torch.where(which < strength / 3, defocus, identity)
    kernel = torch.where(which > 1 - strength / 6, motion, kernel)
    channels = images.shape[1]
    padded = F.pad(images, (3, 3, 3, 3), mode="replicate").flatten(0, 1).unsqueeze(0)
    kernel = kernel.repeat_interleave(channels, 0).unsqueeze(1).to(images.dtype)
    return F.conv2d(padded, kernel, groups=batch * channels).reshape(images.shape)


def resample(images: Tensor, strength: float, *, generator: Generator | None = None) -> Tensor:
    """Lose resolution: half of the images are taken down to 40–100 % and up again (one factor a batch)."""
    factor = float(uniform((1,), 1 - 0.6 * strength, 1.0, like=images, generator=generator))
    small = F.interpolate(images, scale_factor=factor, mode="bilinear", antialias=True)
    coarse = F.interpolate(small, size=images.shape[-2:], mode="bilinear", align_corners=False)
    return torch.where(_happens(images, 0.5, generator), coarse, images)


def noise(images: Tensor, strength: float, *, generator: Generator | None = None) -> Tensor:
    """Shot noise (grows with the square root of the light) and read noise."""
    shot = _draw(images, 0.0, 0.035 * strength, generator)
    read = _draw(images, 0.0, 0.025 * strength, generator)
    deviation = (shot.square() * images.clamp(0, 1) + read.square()).sqrt()
    return images + deviation * torch.randn(images.shape, device=images.device, generator=generator)


def photometric_change(photos: Tensor, strength: float, *, generator: Generator | None = None) -> Tensor:
    """All of it, in the order that light meets it: scene, lens, sensor.

    Args:
        photos: (B, 3, H, W) in [0, 1].
        strength: from 0 (luma only) to 1.
        generator: the source of randomness.

    Returns:
        (B, 1, H, W) in [0, 1].
    """
    grey = mix_channels(photos, strength, generator=generator)
    if strength > 0:
        for change in (shade, tone, resample, blur, noise):
            grey = change(grey, strength, generator=generator)
    return grey.clamp(0, 1)
