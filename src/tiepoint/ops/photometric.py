"""Random photometric change, batched: light, lens, sensor and file, each image with a draw of its own.

Every change takes grey images (B, 1, H, W) in [0, 1] (`mix_channels` takes RGB) and a `strength` in (0, 1], and
returns images of the same shape, not clamped unless it says so. None loops over samples.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass, fields

import torch
import torch.nn.functional as F
from kornia.filters import filter2d, get_gaussian_kernel2d, get_motion_kernel2d
from torch import Generator, Tensor

from tiepoint.ops.warps import smooth_noise, uniform

# luminance quantisation of the JPEG standard (ITU-T T.81, table K.1)
_JPEG_TABLE = (
    *(16, 11, 10, 16, 24, 40, 51, 61),
    *(12, 12, 14, 19, 26, 58, 60, 55),
    *(14, 13, 16, 24, 40, 57, 69, 56),
    *(14, 17, 22, 29, 51, 87, 80, 62),
    *(18, 22, 37, 56, 68, 109, 103, 77),
    *(24, 35, 55, 64, 81, 104, 113, 92),
    *(49, 64, 78, 87, 103, 121, 120, 101),
    *(72, 92, 95, 98, 112, 100, 103, 99),
)


@dataclass(frozen=True)
class PhotometricChanges:
    """How often each change happens to a view: probabilities.

    Attributes:
        shading: a smooth gain over the view (vignette, lamp, haze).
        shadows: shadows with an edge.
        lamps: darkness with a few lights, as at night.
        exposure: a wrong exposure, clipped as a sensor clips.
        gamma: another gamma, contrast and brightness.
        curve: a random tone curve, which need not rise: as between spectra.
        negative: dark for light.
        resampling: lost resolution (down and up again).
        defocus: a Gaussian blur.
        motion: motion blur.
        low_light: few photons and eight bits, brightened again.
        noise: shot and read noise.
        jpeg: JPEG blocks.
    """

    shading: float = 0.7
    shadows: float = 0.4
    lamps: float = 0.08
    exposure: float = 0.4
    gamma: float = 0.7
    curve: float = 0.12
    negative: float = 0.04
    resampling: float = 0.4
    defocus: float = 0.25
    motion: float = 0.12
    low_light: float = 0.12
    noise: float = 0.6
    jpeg: float = 0.3

    def __post_init__(self) -> None:
        """Check the ranges."""
        for field in fields(self):
            value = getattr(self, field.name)
            if not 0 <= value <= 1:
                raise ValueError(f"{field.name} is {value}, expected a probability, 0 to 1")


def _draw(images: Tensor, low: float, high: float, generator: Generator | None) -> Tensor:
    return uniform((len(images), 1, 1, 1), low, high, like=images, generator=generator)


def _normal(images: Tensor, generator: Generator | None) -> Tensor:
    return torch.randn((len(images), 1, 1, 1), device=images.device, generator=generator)


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


def exposure(images: Tensor, strength: float, *, generator: Generator | None = None) -> Tensor:
    """Up to about two stops too bright or too dark; clamped to [0, 1], so that lights burn out."""
    return (images * (0.5 * strength * _normal(images, generator)).exp()).clamp(0, 1)


def gamma(images: Tensor, strength: float, *, generator: Generator | None = None) -> Tensor:
    """Another gamma, contrast and brightness."""
    power = (0.45 * strength * _normal(images, generator)).exp()
    contrast = (0.35 * strength * _normal(images, generator)).exp()
    brightness = 0.12 * strength * _normal(images, generator)
    toned = images.clamp(1e-4, 1).pow(power)
    mean = toned.mean((1, 2, 3), keepdim=True)
    return (toned - mean) * contrast + mean + brightness


def curve(images: Tensor, strength: float, *, generator: Generator | None = None) -> Tensor:
    """A random tone curve through six knots; clamped to [0, 1]. At full strength it need not rise."""
    knots = 5
    rising = torch.linspace(0, 1, knots + 1, device=images.device)
    drawn = uniform((len(images), knots + 1), 0.0, 1.0, like=images, generator=generator)
    table = rising + 0.8 * strength * (drawn - rising)
    place = images.clamp(0, 1) * knots
    left = place.floor().clamp_max(knots - 1)
    below = table.gather(1, left.long().flatten(1)).reshape(images.shape)
    above = table.gather(1, left.long().flatten(1) + 1).reshape(images.shape)
    return below + (place - left) * (above - below)


def negative(images: Tensor, strength: float, *, generator: Generator | None = None) -> Tensor:
    """Dark for light, as between visible light and infrared."""
    return 1 - images


def shading(images: Tensor, strength: float, *, generator: Generator | None = None) -> Tensor:
    """A smooth gain over the image: vignette, lamp, haze."""
    gain = smooth_noise(len(images), _size(images), 4, like=images, generator=generator)
    return images * (_draw(images, 0.2, 0.9, generator) * strength * gain).exp()


def shadows(images: Tensor, strength: float, *, generator: Generator | None = None) -> Tensor:
    """Shadows whose edges are between sharp and wide."""
    field = smooth_noise(len(images), _size(images), 5, like=images, generator=generator)
    edge = torch.sigmoid(_draw(images, 5.0, 60.0, generator) * (field - _draw(images, -0.3, 0.6, generator)))
    return images * (1 - _draw(images, 0.2, 0.85, generator) * strength * edge)


def lamps(images: Tensor, strength: float, *, generator: Generator | None = None) -> Tensor:
    """Night: a gain of several stops between a few bright places and the dark; clamped to [0, 1]."""
    field = smooth_noise(len(images), _size(images), 6, like=images, generator=generator)
    lit = images * (strength * _draw(images, 1.0, 2.5, generator) * (field - 0.4)).exp()
    return lit.clamp(0, 1).clamp_min(1e-4).pow(1 - 0.3 * strength)


def resampling(images: Tensor, strength: float, *, generator: Generator | None = None) -> Tensor:
    """Lose resolution: down to 40–100 % and up again (one factor a batch)."""
    factor = float(uniform((1,), 1 - 0.6 * strength, 1.0, like=images, generator=generator))
    small = F.interpolate(images, scale_factor=factor, mode="bilinear", antialias=True)
    return F.interpolate(small, size=images.shape[-2:], mode="bilinear", align_corners=False)


def defocus(images: Tensor, strength: float, *, generator: Generator | None = None) -> Tensor:
    """A Gaussian blur of 0.3 to 2 px."""
    sigma = _draw(images, 0.3, 0.3 + 1.7 * strength, generator).reshape(-1, 1).expand(-1, 2)
    blurred: Tensor = filter2d(images, get_gaussian_kernel2d((7, 7), sigma), border_type="replicate")
    return blurred


def motion(images: Tensor, strength: float, *, generator: Generator | None = None) -> Tensor:
    """The camera moved while the shutter was open: up to 7 px at full strength, along any direction."""
    batch = len(images)
    angle = uniform((batch,), 0.0, 360.0, like=images, generator=generator)
    direction = uniform((batch,), -1.0, 1.0, like=images, generator=generator)
    kernel = get_motion_kernel2d(7, angle, direction, mode="bilinear")
    moved: Tensor = filter2d(images, kernel, border_type="replicate")
    return images + strength * (moved - images)


def noise(images: Tensor, strength: float, *, generator: Generator | None = None) -> Tensor:
    """Shot noise (grows with the square root of the light) and read noise."""
    shot = _draw(images, 0.0, 0.05 * strength, generator)
    read = _draw(images, 0.0, 0.035 * strength, generator)
    deviation = (shot.square() * images.clamp(0, 1) + read.square()).sqrt()
    return images + deviation * torch.randn(images.shape, device=images.device, generator=generator)


def low_light(images: Tensor, strength: float, *, generator: Generator | None = None) -> Tensor:
    """A few photons, eight bits, and the brightness turned up again."""
    light = 1 - strength * _draw(images, 0.6, 0.95, generator)
    dark = images.clamp(0, 1) * light
    deviation = (0.015**2 * dark + 0.006**2).sqrt()
    dark = dark + deviation * torch.randn(images.shape, device=images.device, generator=generator)
    return (255 * dark.clamp(0, 1)).round() / 255 / light


def jpeg(images: Tensor, strength: float, *, generator: Generator | None = None) -> Tensor:
    """Quantise the cosine transform of 8×8 blocks as JPEG does, at qualities from 90 down to 10.

    kornia's `jpeg_codec_differentiable` does it for RGB; a grey view needs one channel and no colour transform.
    Quality to table as the Independent JPEG Group's library scales it.
    """
    height, width = _size(images)
    quality = (90 - 80 * strength * _draw(images, 0.0, 1.0, generator)).round()
    scale = torch.where(quality < 50, 50 / quality, 2 - quality / 50)
    table = torch.tensor(_JPEG_TABLE, device=images.device).reshape(8, 1, 8)
    steps = (table * scale.unsqueeze(-1)).round().clamp(1, 255)
    cosines = _cosines(images.device)
    padded = F.pad(images, (0, -width % 8, 0, -height % 8), mode="replicate")
    blocks = 255 * padded.reshape(len(images), -1, 8, padded.shape[-1] // 8, 8) - 128
    spectrum = torch.einsum("ui,brihj,vj->bruhv", cosines, blocks, cosines)
    quantised = (spectrum / steps).round() * steps
    decoded = torch.einsum("ui,bruhv,vj->brihj", cosines, quantised, cosines)
    return ((decoded + 128) / 255).reshape(padded.shape)[..., :height, :width]


def _cosines(device: torch.device) -> Tensor:
    """The orthonormal 8-point DCT-II, (8, 8): rows are frequencies."""
    place = torch.arange(8, device=device)
    rows = ((2 * place + 1) * place.unsqueeze(1) * math.pi / 16).cos() / 2
    rows[0] /= math.sqrt(2)
    return rows


def _size(images: Tensor) -> tuple[int, int]:
    return images.shape[-2], images.shape[-1]


# in the order in which light meets them: scene, lens, sensor, file
_CHANGES: tuple[Callable[..., Tensor], ...] = (
    *(shading, shadows, lamps, exposure, gamma, curve, negative),
    *(resampling, defocus, motion, low_light, noise, jpeg),
)


def photometric_change(
    images: Tensor, strength: float, changes: PhotometricChanges | None = None, *, generator: Generator | None = None
) -> Tensor:
    """All of it: each change is made to those images that draw it.

    Args:
        images: (B, 1, H, W) in [0, 1].
        strength: scales every change, from 0 (none) to 1.
        changes: the probabilities; the defaults if None.
        generator: the source of randomness.

    Returns:
        (B, 1, H, W) in [0, 1].
    """
    changed = images
    if strength > 0:
        changes = changes or PhotometricChanges()
        for change in _CHANGES:
            drawn = torch.rand(len(images), device=images.device, generator=generator)
            chosen = (drawn < getattr(changes, change.__name__)).nonzero().squeeze(1)
            if len(chosen):
                touched = change(changed[chosen], strength, generator=generator)
                changed = changed.index_copy(0, chosen, touched)
    return changed.clamp(0, 1)
