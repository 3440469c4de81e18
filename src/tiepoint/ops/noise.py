"""Noise of cameras, put into photographs, and how much of it is left."""

import torch
import torch.nn.functional as F
from kornia.enhance import jpeg_codec_differentiable
from kornia.metrics import ssim as ssim_map
from torch import Generator, Tensor

from tiepoint.ops.warps import uniform


def gaussian_noise(images: Tensor, sigma: Tensor, *, generator: Generator | None = None) -> Tensor:
    """White noise, not clipped, as denoisers are compared on it.

    Args:
        images: (B, C, H, W) in [0, 1].
        sigma: (B,), standard deviation in grey levels of 255.
        generator: the source of randomness.
    """
    noise = torch.randn(images.shape, device=images.device, generator=generator)
    return images + sigma.reshape(-1, 1, 1, 1) / 255 * noise


def low_light_noise(images: Tensor, *, generator: Generator | None = None) -> Tensor:
    """A photograph with too little light, brightened: shot and read noise, eight bits, and JPEG in half of the cases.

    Shot noise grows with the square root of the light, read noise does not (Foi et al., "Practical
    Poissonian-Gaussian noise modeling", TIP 2008, eq. 3–4). Where both follow from the light, dark pictures are the
    noisy ones.

    Args:
        images: (B, 3, H, W) in [0, 1].
        generator: the source of randomness.

    Returns:
        (B, 3, H, W) in [0, 1], as bright as before.
    """
    batch = len(images)
    light, shot, read, quality, chosen = (
        uniform((batch,), *limits, like=images, generator=generator)
        for limits in ((0.1, 0.8), (0.0, 0.03), (0.0, 0.012), (50.0, 95.0), (0.0, 1.0))
    )
    dark = images.clamp(0, 1) * light.reshape(-1, 1, 1, 1)
    deviation = (shot.square().reshape(-1, 1, 1, 1) * dark + read.square().reshape(-1, 1, 1, 1)).sqrt()
    dark = dark + deviation * torch.randn(images.shape, device=images.device, generator=generator)
    bright = ((255 * dark.clamp(0, 1)).round() / 255 / light.reshape(-1, 1, 1, 1)).clamp(0, 1)
    height, width = bright.shape[-2:]
    padded = F.pad(bright, (0, -width % 16, 0, -height % 16), mode="replicate")
    compressed = jpeg_codec_differentiable(padded, quality)[..., :height, :width]
    return torch.where((chosen < 0.5).reshape(-1, 1, 1, 1), compressed, bright)


def psnr(images: Tensor, clean: Tensor) -> Tensor:
    """Peak signal to noise, decibels, of each image (B,), values in [0, 1] after clipping."""
    error = (images.clamp(0, 1) - clean).square().flatten(1).mean(1)
    return -10 * error.clamp_min(1e-10).log10()


def ssim(images: Tensor, clean: Tensor) -> Tensor:
    """Structural similarity of each image (B,), window of 11, the mean of its channels (Wang et al., TIP 2004)."""
    found: Tensor = ssim_map(images.clamp(0, 1), clean, 11, padding="valid")
    return found.flatten(1).mean(1)


def noise_level(images: Tensor) -> Tensor:
    """Standard deviation of white noise, in grey levels of 255, of each image (B,).

    The median of the finest diagonal Haar coefficients, which scenes seldom have (Donoho and Johnstone, 1994, eq. 14).

    Args:
        images: (B, C, H, W) in [0, 1].
    """
    a, b = images[..., ::2, ::2], images[..., ::2, 1::2]
    c, d = images[..., 1::2, ::2], images[..., 1::2, 1::2]
    height, width = d.shape[-2:]
    diagonal = (a[..., :height, :width] - b[..., :height, :width] - c[..., :height, :width] + d) / 2
    return 255 * diagonal.abs().flatten(1).median(1).values / 0.6745
