"""Training pairs from single photos: two views of a planar, bent or three-dimensional scene, and the truth between."""

from functools import partial

import torch
from kornia.filters import gaussian_blur2d
from torch import Generator, Tensor

from tiepoint.ops.photometric import PhotometricChanges, mix_channels, photometric_change
from tiepoint.ops.sampling import warp_image
from tiepoint.ops.scenes import (
    STRIDE,
    Cameras,
    Seen,
    View,
    layered_scenes,
    look,
    planar_scenes,
    random_cameras,
)
from tiepoint.ops.warps import random_homographies, thin_plate_fields, uniform

# largest move of a control point by bending, as a share of the photo's width: 10 px of 400. The points are a third of
# the photo apart, so that its slope stays well below 1 and the warp can be inverted.
BENDING = 0.025


def photo_pairs(
    photos: Tensor,
    size: tuple[int, int],
    *,
    jitter: float = 0.14,
    rotation: float = 30.0,
    zoom: float = 1.5,
    shift: float = 0.12,
    parallax: float = 0.5,
    bending: float = 0.15,
    baseline: float = 0.35,
    layers: int = 3,
    photometric: float = 1.0,
    changes: PhotometricChanges | None = None,
    difficulty: float = 1.0,
    colour: bool = False,
    generator: Generator | None = None,
) -> dict[str, Tensor]:
    """Two views of every photo, and where each pixel of one lies in the other.

    A pair is one of three kinds: a plane (two random homographies), a bent plane (homographies and thin-plate
    splines), or a scene in depth seen by two cameras. What the photo does not show, outside of it or behind
    something, is filled from another photo and has no correspondence.

    Args:
        photos: (B, 3, H, W) in [0, 1], RGB; H and W multiples of 8.
        size: (height, width) of the views.
        jitter: largest move of a view's corner, as a share of its sides.
        rotation: largest rotation of each view, degrees: 15 for upright cameras, 90 for any rotation between the two.
        zoom: largest scale factor of each view.
        shift: largest shift of each view, as a share of its sides.
        parallax: share of the pairs in depth.
        bending: share of the pairs that are bent.
        baseline: largest distance of the cameras, the background being at depth 1.
        layers: layers of a scene in depth, the background included.
        photometric: strength of the photometric change.
        changes: how often each photometric change happens; the defaults if None.
        difficulty: scales all of the above but the shares and the layers; a curriculum raises it from low to 1.
        colour: keep the colours instead of mixing the channels; `photometric` is 0 then.
        generator: the source of randomness.

    Returns:
        image0, image1: (B, 1, h, w) in [0, 1], (B, 3, h, w) with `colour`; clean0, clean1: the same before the
        photometric change;
        warp_0to1, warp_1to0: (B, h, w, 2), pixels; covisible0, covisible1: (B, h, w) bool;
        planar: (B,) bool; H_0to1: (B, 3, 3), of planar pairs, else that of the plane at infinity;
        posed: (B,) bool, pairs in depth; of those K0, K1: (B, 3, 3), T_0to1: (B, 4, 4) and depth0, depth1:
        (B, h, w), 0 where unknown, in the unit of T's translation; elsewhere identity and 0.
    """
    batch, photo_size = len(photos), (photos.shape[-2], photos.shape[-1])
    draw = partial(uniform, like=photos, generator=generator)
    # which of a batch are in depth does not matter, since its photos are in random order: the first ones
    in_depth = int(parallax * batch + float(draw((), 0.0, 1.0))) if difficulty > 0 else 0
    share = bending / max(1 - parallax, bending, 1e-6)
    bent = draw((batch - in_depth,), 0.0, 1.0) < share * (difficulty > 0)
    motion = {
        "rotation": torch.pi / 180 * rotation * difficulty,
        "zoom": zoom**difficulty,
        "shift": shift * difficulty,
        "like": photos,
        "generator": generator,
    }
    cameras = random_cameras(in_depth, size, photo_size, baseline=baseline * difficulty, **motion)
    A0, A1 = random_homographies(2 * len(bent), size, photo_size, jitter=jitter * difficulty, **motion).chunk(2)
    largest = BENDING * photo_size[1] * difficulty * bent
    field = thin_plate_fields(photo_size, largest=largest, stride=STRIDE, like=photos, generator=generator)
    nowhere = torch.zeros_like(A0[:, 0])
    walls = View(A0, nowhere, torch.zeros_like(field)), View(A1, nowhere, field)
    grey = photos[:in_depth].mean(1, keepdim=True)
    deep = look(layered_scenes(grey, layers, generator=generator), *cameras.views, size)
    flat = look(planar_scenes(photos[in_depth:]), *walls, size)
    seen0, seen1 = (Seen(*map(torch.cat, zip(a, b, strict=True))) for a, b in zip(deep, flat, strict=True))
    strength = photometric * difficulty
    # in a grey of its own for each view
    own0, own1 = (photos if colour else mix_channels(photos, strength, generator=generator) for _ in range(2))
    clean0, clean1 = _render(own0, own1, seen0, seen1)
    images = photometric_change(torch.cat((clean0, clean1)), strength, changes, generator=generator)
    image0, image1 = images.chunk(2)
    A = (torch.cat((camera.at_infinity, wall.at_infinity)) for camera, wall in zip(cameras.views, walls, strict=True))
    return {
        "image0": image0,
        "image1": image1,
        "clean0": clean0,
        "clean1": clean1,
        "warp_0to1": seen0.warp,
        "warp_1to0": seen1.warp,
        "covisible0": seen0.covisible,
        "covisible1": seen1.covisible,
        "depth0": seen0.depth,
        "depth1": seen1.depth,
        "planar": torch.cat((bent.new_zeros(in_depth), ~bent)),
        **_geometry(cameras, *A),
    }


def _geometry(cameras: Cameras, A0: Tensor, A1: Tensor) -> dict[str, Tensor]:
    """Homography at infinity, intrinsics and motion; the first pairs are those of the cameras."""
    in_depth, batch = len(cameras.K0), len(A0)
    H_0to1 = torch.linalg.inv(A1) @ A0
    posed = torch.arange(batch, device=A0.device) < in_depth
    known = {"K0": cameras.K0, "K1": cameras.K1, "T_0to1": cameras.T_0to1}
    rest = batch - in_depth
    return {
        "H_0to1": H_0to1 / H_0to1[:, 2:, 2:],
        "posed": posed,
        **{
            name: torch.cat((value, torch.eye(value.shape[-1]).to(value).repeat(rest, 1, 1)))
            for name, value in known.items()
        },
    }


def _render(photos0: Tensor, photos1: Tensor, seen0: Seen, seen1: Seen) -> tuple[Tensor, Tensor]:
    """Read the photos; holes are filled from another photo in each view."""
    # mirrored, lest a batch of one photo fills its holes with what belongs elsewhere
    return _view(photos0, photos0.roll(1, 0).flip(3), seen0), _view(photos1, photos1.roll(2, 0).flip(2), seen1)


def _view(photos: Tensor, stranger: Tensor, seen: Seen) -> Tensor:
    # as many of the photo's pixels as a pixel of the view covers are averaged: fine texture would alias
    rows = seen.source[:, ::16]
    spacing = (rows[:, :, 1:] - rows[:, :, :-1]).square().sum(-1).flatten(1).median(1).values
    sigma = 0.5 * (spacing - 1).clamp_min(0.01).sqrt()
    smooth = gaussian_blur2d(photos, (7, 7), sigma.unsqueeze(1).expand(-1, 2), separable=True)
    view = warp_image(smooth, seen.source)
    if seen.hole.any():
        view = torch.where(seen.hole.unsqueeze(1), warp_image(stranger, seen.beyond), view)
    return view
