"""Rectified stereo pairs made of photographs: layers at known disparity, with thin, holey and textureless ones.

A place x of view 0 lies at x - d in view 1, d being its disparity. Each layer is a tilted plane with a relief over view
0, cut out by an outline of its own; each view keeps the layer that is in front. Where view 1 shows a layer's place x_r,
its place x in view 0 solves x = x_r + d(x), by fixed-point iteration.
"""

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Generator, Tensor

from tiepoint.ops.photometric import defocus, exposure, gamma, noise, shading
from tiepoint.ops.sampling import inside, normalise_points, pixel_grid
from tiepoint.ops.warps import smooth_noise, uniform

LAYERS = 9
_NODES = 4  # pixels from one value of a smooth map to the next
_ITERATIONS = 5  # the error shrinks by the slope of the disparity each time, which stays below 0.35


class StereoScene(NamedTuple):
    """Layers over view 0, from back to front.

    Attributes:
        disparity: (B, L, h/4, w/4), pixels, also where the layer is not.
        shapes: (B, L, h, w), positive where the layer is; the first is everywhere.
        textures: (B, L, 2, 3), view 0's homogeneous pixels to pixels of the layer's photo.
        photos: (B, L) int64, which photo of the batch a layer shows.
        contrasts: (B, L), what is left of the photo's contrast.
    """

    disparity: Tensor
    shapes: Tensor
    textures: Tensor
    photos: Tensor
    contrasts: Tensor


def stereo_pairs(
    photos: Tensor,
    size: tuple[int, int],
    *,
    largest: float = 88.0,
    photometric: float = 1.0,
    generator: Generator | None = None,
) -> dict[str, Tensor]:
    """A rectified pair from every photo, the other photos of the batch lending surfaces to what stands before it.

    Args:
        photos: (B, 3, H, W) in [0, 1].
        size: (height, width) of the views, multiples of 4.
        largest: of all disparities, pixels.
        photometric: strength of the differences in light, focus and noise between the views.
        generator: the source of randomness.

    Returns:
        image0, image1: (B, 3, h, w) in [0, 1]; disparity0: (B, h, w), pixels; visible0: (B, h, w) bool, whether view 1
        shows the place.
    """
    scene = random_stereo_scene(photos, size, largest=largest, generator=generator)
    own = pixel_grid(*size, device=photos.device).expand(len(photos), LAYERS, -1, -1, -1)
    d0 = _enlarged(scene.disparity, size)
    layer0 = _front(scene.shapes, LAYERS)
    disparity0 = d0.gather(1, layer0.unsqueeze(1)).squeeze(1)
    # what view 1 shows: for every layer the place in view 0
    d1 = _enlarged(_seen_from_right(scene.disparity, size), size)
    places = own + torch.stack((d1, torch.zeros_like(d1)), dim=-1)
    flat = scene.shapes.flatten(0, 1).unsqueeze(1)
    shapes1 = F.grid_sample(flat, normalise_points(places.flatten(0, 1), *size), align_corners=False)
    shapes1 = shapes1.reshape(-1, LAYERS, *size)
    shapes1[:, 0] = 1
    layer1 = _front(shapes1, LAYERS)
    chosen = layer1[:, None, :, :, None].expand(-1, -1, -1, -1, 2)
    place1 = places.gather(1, chosen).squeeze(1)
    disparity1 = d1.gather(1, layer1.unsqueeze(1)).squeeze(1)
    # a rectification is never perfect
    slip = uniform((len(photos), 1, 1), -0.6, 0.6, like=photos, generator=generator)
    slip = slip * (torch.rand(slip.shape, device=photos.device, generator=generator) < 0.3)
    place1 = place1 + torch.stack((torch.zeros_like(slip), slip), dim=-1)
    views = torch.cat((_painted(photos, scene, layer0, own[:, 0]), _painted(photos, scene, layer1, place1)))
    image0, image1 = lit_apart(views, photometric, generator=generator).chunk(2)
    target = pixel_grid(*size, device=photos.device) - torch.stack((disparity0, torch.zeros_like(disparity0)), dim=-1)
    grid = normalise_points(target, *size)
    there = F.grid_sample(disparity1.unsqueeze(1), grid, mode="nearest", align_corners=False).squeeze(1)
    visible = ((there - disparity0).abs() < 1) & inside(target, *size)
    return {"image0": image0, "image1": image1, "disparity0": disparity0, "visible0": visible}


def random_stereo_scene(
    photos: Tensor, size: tuple[int, int], *, largest: float, generator: Generator | None = None
) -> StereoScene:
    """Layers with random surfaces, outlines and textures."""
    batch, device = len(photos), photos.device

    def draw(shape: tuple[int, ...], low: float, high: float) -> Tensor:
        return uniform(shape, low, high, like=photos, generator=generator)

    nearest = largest * draw((batch, 1), 0.2, 1.0)
    farthest = nearest * draw((batch, 1), 0.05, 0.6)
    share = draw((batch, LAYERS), 0.0, 1.0).sort(1).values
    share = torch.cat((torch.zeros_like(share[:, :1]), share[:, 1:]), dim=1)
    level = farthest + (nearest - farthest) * share
    nodes = size[0] // _NODES, size[1] // _NODES
    x = torch.linspace(-1, 1, nodes[1], device=device)
    y = torch.linspace(-1, 1, nodes[0], device=device).unsqueeze(1)
    tilt = draw((batch, LAYERS, 2, 1, 1), -1.0, 1.0)
    # across the whole view, at most 30 pixels of disparity along x and what the level allows
    reach = torch.minimum(0.5 * level, torch.tensor(0.09 * size[1], device=device))[..., None, None]
    relief = smooth_noise(batch * LAYERS, nodes, 5, like=photos, generator=generator)
    relief = relief.reshape(batch, LAYERS, *nodes) * draw((batch, LAYERS, 1, 1), 0.0, 0.25)
    surface = level[..., None, None] + reach * (tilt[:, :, 0] * x + tilt[:, :, 1] * y + relief) * 0.8
    order = torch.randperm(LAYERS - 1, device=device, generator=generator)
    shapes = _shapes(photos, size, generator=generator)[:, order]
    absent = torch.rand((batch, LAYERS - 1, 1, 1), device=device, generator=generator) < 0.5
    shapes = torch.cat((torch.ones_like(shapes[:, :1]), torch.where(absent, -1.0, shapes)), dim=1)
    contrast = draw((batch, LAYERS), 0.0, 1.0)
    plain = torch.rand((batch, LAYERS), device=device, generator=generator) < 0.18
    contrast = torch.where(plain, 0.15 * contrast.square(), 0.5 + 0.5 * contrast)
    lent = torch.randint(batch, (batch, LAYERS), device=device, generator=generator)
    lent[:, 0] = torch.arange(batch, device=device)
    textures = _textures(batch, size, photos, generator=generator)
    return StereoScene(surface.clamp(0.5, largest), shapes, textures, lent, contrast)


def _textures(batch: int, size: tuple[int, int], photos: Tensor, *, generator: Generator | None) -> Tensor:
    """Turned, scaled and shifted windows of photos; the background's is upright."""
    shape = (batch, LAYERS)
    angle = uniform(shape, -torch.pi, torch.pi, like=photos, generator=generator)
    angle = torch.cat((0.05 * angle[:, :1], angle[:, 1:]), dim=1)
    scale = uniform(shape, -0.5, 0.35, like=photos, generator=generator).exp()
    cos, sin = scale * angle.cos(), scale * angle.sin()
    middle = torch.tensor((photos.shape[-1], photos.shape[-2]), device=photos.device) / 2
    shift = uniform((*shape, 2), -0.5, 0.5, like=photos, generator=generator) * middle
    turn = torch.stack((torch.stack((cos, -sin), -1), torch.stack((sin, cos), -1)), dim=-2)
    centre = torch.tensor((size[1], size[0]), device=photos.device) / 2
    offset = middle + shift - (turn @ centre.unsqueeze(-1)).squeeze(-1)
    return torch.cat((turn, offset.unsqueeze(-1)), dim=-1)


def _shapes(photos: Tensor, size: tuple[int, int], *, generator: Generator | None) -> Tensor:
    """One outline of each kind: (B, 8, h, w), in pixels about the distance from its edge, positive inside."""
    batch, (height, width) = len(photos), size

    def draw(low: float, high: float, *shape: int) -> Tensor:
        return uniform((batch, *(shape or (1,)), 1, 1), low, high, like=photos, generator=generator)

    place = pixel_grid(height, width, device=photos.device)
    x, y = place[..., 0], place[..., 1]

    def turned(count: int) -> tuple[Tensor, Tensor]:
        """Coordinates about random centres, along random axes."""
        angle = draw(-torch.pi, torch.pi, count)
        dx, dy = x - draw(-0.1, 1.1, count) * width, y - draw(-0.1, 1.1, count) * height
        return angle.cos() * dx + angle.sin() * dy, angle.cos() * dy - angle.sin() * dx

    def blob(cells: int) -> Tensor:
        return smooth_noise(batch, size, cells, like=photos, generator=generator)

    grey = F.interpolate(photos.mean(1, keepdim=True), size, mode="bilinear", antialias=True)
    grey = ((grey - grey.mean((2, 3), keepdim=True)) / (grey.std((2, 3), keepdim=True) + 0.05)).to(place)
    large = 60 * (blob(4) - draw(0.1, 0.6))
    along_edges = 30 * (blob(5) + 0.35 * grey.roll(1, 0) - draw(0.3, 0.9))
    leaves = torch.minimum(40 * (blob(4) - draw(0.1, 0.5)), 12 * (blob(20) - draw(-0.2, 0.4)))
    u, v = turned(2)
    ellipses = draw(10, 60, 2) * (1 - ((u / draw(8, 80, 2)).square() + (v / draw(8, 80, 2)).square()).sqrt())
    u, v = turned(2)
    boxes = torch.minimum(draw(6, 90, 2) - u.abs(), draw(6, 60, 2) - v.abs())
    u, v = turned(1)
    sticks = torch.minimum(draw(30, 250) - u.abs(), draw(0.8, 5) - v.abs())
    u, v = turned(1)
    gap = draw(8, 30)
    fence = torch.minimum(draw(0.8, 4) - (v.remainder(gap) - gap / 2).abs(), draw(20, 120) - u.abs())
    return torch.cat((large, along_edges, leaves, ellipses[:, :1], boxes, sticks, fence), dim=1)


def _seen_from_right(disparity: Tensor, size: tuple[int, int]) -> Tensor:
    """The disparity of each layer over view 1, (B, L, h/4, w/4) to the same."""
    rows, columns = disparity.shape[-2:]
    maps = disparity.flatten(0, 1).unsqueeze(1)
    grid = pixel_grid(rows, columns, device=disparity.device).expand(len(maps), -1, -1, -1)
    stretch = columns / size[1]
    found = maps
    for _ in range(_ITERATIONS):
        step = found.squeeze(1) * stretch
        moved = normalise_points(grid + torch.stack((step, torch.zeros_like(step)), dim=-1), rows, columns)
        found = F.grid_sample(maps, moved, padding_mode="border", align_corners=False)
    return found.reshape(disparity.shape)


def _enlarged(maps: Tensor, size: tuple[int, int]) -> Tensor:
    return F.interpolate(maps, size=size, mode="bilinear", align_corners=False)


def _front(shapes: Tensor, layers: int) -> Tensor:
    """The number (B, h, w) of the foremost layer that is there."""
    numbers = torch.arange(layers, device=shapes.device).reshape(1, -1, 1, 1)
    return torch.where(shapes > 0, numbers, 0).amax(1)


def _painted(photos: Tensor, scene: StereoScene, layer: Tensor, places: Tensor) -> Tensor:
    """What a view shows of its layers, at places (B, h, w, 2) of view 0."""
    batch, height, width = layer.shape
    flat = layer.flatten(1)
    A = scene.textures.gather(1, flat[:, :, None, None].expand(-1, -1, 2, 3)).reshape(batch, height, width, 2, 3)
    at = (A[..., :2] @ places.unsqueeze(-1)).squeeze(-1) + A[..., 2]
    rows, columns = photos.shape[-2:]
    # mirrored at the borders, then moved down to the photo's place in the tower of all photos
    at = torch.stack([_mirrored(part, side) for part, side in zip(at.unbind(-1), (columns, rows), strict=True)], -1)
    which = scene.photos.gather(1, flat).reshape(batch, height, width)
    at[..., 1] += which * rows
    tower = photos.transpose(0, 1).reshape(1, 3, batch * rows, columns)
    grid = normalise_points(at, batch * rows, columns).reshape(1, batch * height, width, 2).to(photos)
    seen = F.grid_sample(tower, grid, padding_mode="border", align_corners=False)
    seen = seen.reshape(3, batch, height, width).transpose(0, 1)
    mean = photos.mean((2, 3))[scene.photos]
    mean = mean.gather(1, flat.unsqueeze(-1).expand(-1, -1, 3)).transpose(1, 2).reshape(batch, 3, height, width)
    contrast = scene.contrasts.gather(1, flat).reshape(batch, 1, height, width)
    painted: Tensor = mean + contrast * (seen - mean)
    return painted


def _mirrored(values: Tensor, length: int) -> Tensor:
    """Places on a line of so many pixels, folded back at its ends."""
    span = length - 1
    return span - (values.remainder(2 * span) - span).abs()


def lit_apart(images: Tensor, strength: float, *, generator: Generator | None) -> Tensor:
    """Light, focus and noise of two views: both alike in part, each its own in part.

    Args:
        images: (2 B, C, h, w) in [0, 1], those of view 0 first.
        strength: 0 to 1.
        generator: the source of randomness.

    Returns:
        The same shape, in [0, 1].
    """
    if strength <= 0:
        return images
    half = len(images) // 2
    lamp = smooth_noise(half, (images.shape[-2], images.shape[-1]), 4, like=images, generator=generator)
    images = images * (0.3 * strength * lamp).exp().repeat(2, 1, 1, 1)
    for change, chance, most in (
        (shading, 0.2, 0.15),
        (exposure, 0.3, 0.12),
        (gamma, 0.4, 0.15),
        (defocus, 0.5, 0.35),
        (noise, 0.8, 0.3),
    ):
        drawn = torch.rand(len(images), device=images.device, generator=generator) < chance
        chosen = drawn.nonzero().squeeze(1)
        if len(chosen):
            images = images.index_copy(0, chosen, change(images[chosen], most * strength, generator=generator))
    return images.clamp(0, 1)


def stereo_geometry(
    pairs: dict[str, Tensor],
    *,
    planes: int,
    largest: float,
    turn: float = 0.25,
    shift: float = 4.0,
    generator: Generator | None = None,
) -> dict[str, Tensor]:
    """Stereo pairs as pairs of a plane sweep: mirrored or turned at random, lest the network learns one direction.

    Args:
        pairs: of `stereo_pairs`; known0 (B, h, w) bool beside it, where not all disparities are known.
        planes: how many.
        largest: disparity of the last plane, the first being about 0.
        turn: how often a batch is mirrored, and how often it is turned.
        shift: how far from 0 the first plane may be.
        generator: the source of randomness.

    Returns:
        image0, image1; inverse_depth0 (B, h, w) and visible0; known0 if it was given; at_infinity (B, 3, 3), epipole
        (B, 3); and planes (B, P), their inverse depths, as of `models.sweep`.
    """
    image = pairs["image0"]
    batch = len(image)
    epipole = torch.tensor((-1.0, 0.0, 0.0), device=image.device)
    names = {"image0": "image0", "image1": "image1", "disparity0": "inverse_depth0", "visible0": "visible0"}
    names |= {"known0": "known0"} if "known0" in pairs else {}
    parts = [pairs[name] for name in names]
    mirrored, turned = (torch.rand((2,), device=image.device, generator=generator) < turn).tolist()
    if mirrored:
        parts, epipole = [part.flip(-1) for part in parts], -epipole
    if turned:
        parts, epipole = [part.transpose(-1, -2).contiguous() for part in parts], epipole[[1, 0, 2]]
    first = uniform((batch, 1), -shift, shift, like=image, generator=generator)
    steps = torch.arange(planes, device=image.device) * (largest / (planes - 1))
    return {
        **dict(zip(names.values(), parts, strict=True)),
        "at_infinity": torch.eye(3, device=image.device).repeat(batch, 1, 1),
        "epipole": epipole.repeat(batch, 1),
        "planes": first + steps,
    }
