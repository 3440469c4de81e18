"""A photo as a three-dimensional scene of layers, seen by two cameras: occlusion, correspondence, depth and pose.

The photo is what a camera at the origin sees. Its pixel p lies at inverse depth w(p) on one of a few layers, each of
them smooth: a tilted plane with a relief. View i has the rotation R_i, the centre c_i and the intrinsics K_i; with
A_i = K R_i^T K_i^-1 (where the view's pixel y meets the photo at infinity, q) and e_i = K c_i, a point of a layer obeys

    q = π(A_i y),    p = q + w(p) (e_xy - e_z q)                                                  (1)

since its place is e_i + λ A_i y with the third coordinate 1/w (Hartley and Zisserman, "Multiple View Geometry",
2nd ed., §13.1: the homography of the plane at infinity and the parallax that is added to it). (1) is solved for p by
fixed-point iteration, and for q, which gives the way back, directly. Without translation and with any homography for
A_i it is a planar scene; a bending of the photo adds to both.

Depth steps are where one layer ends and another shows: each view keeps the nearest layer at every pixel (z-buffer).
"""

from typing import NamedTuple

import torch
import torch.nn.functional as F
from kornia.filters import gaussian_blur2d
from kornia.geometry.conversions import axis_angle_to_rotation_matrix
from kornia.geometry.linalg import transform_points
from torch import Generator, Tensor

from tiepoint.ops.sampling import inside, normalise_points, sample, warp_image
from tiepoint.ops.warps import smooth_noise, uniform

STRIDE = 8  # pixels of the photo from one value of a smooth map to the next
_NODES = 4  # pixels of a view from one node to the next, where (1) is solved
_ITERATIONS = 8  # the error shrinks by the slope of the parallax each time, which stays below a half


class Scene(NamedTuple):
    """What a photo shows.

    Attributes:
        inverse_depth: (B, L, H/8, W/8), of each layer; 0 for a scene without parallax.
        masks: (B, L, H/2, W/2) in [0, 1], where each layer is; the first is everywhere.
    """

    inverse_depth: Tensor
    masks: Tensor


class View(NamedTuple):
    """How a view sees the photo.

    Attributes:
        at_infinity: (B, 3, 3), A: pixels of the view to pixels of the photo.
        epipole: (B, 3), e = K c: the image of the camera's centre in the photo, not divided.
        bending: (B, 2, H/8, W/8), displacement of the photo before the camera sees it, pixels.
    """

    at_infinity: Tensor
    epipole: Tensor
    bending: Tensor


class Cameras(NamedTuple):
    """Two pinhole cameras.

    Attributes:
        views: how both see the photo.
        K0: (B, 3, 3), intrinsics of view 0.
        K1: (B, 3, 3), intrinsics of view 1.
        T_0to1: (B, 4, 4), camera 0 to camera 1.
    """

    views: tuple[View, View]
    K0: Tensor
    K1: Tensor
    T_0to1: Tensor


class Seen(NamedTuple):
    """What a view shows.

    Attributes:
        source: (B, h, w, 2), for each pixel its place in the photo, pixels.
        beyond: (B, h, w, 2), its place if everything were infinitely far: what is behind the holes.
        hole: (B, h, w) bool, where the photo knows nothing: outside of it, or behind what it shows.
        warp: (B, h, w, 2), for each pixel its place in the other view, pixels.
        covisible: (B, h, w) bool, whether the other view shows it.
        depth: (B, h, w), 0 in holes and where there is no parallax.
    """

    source: Tensor
    beyond: Tensor
    hole: Tensor
    warp: Tensor
    covisible: Tensor
    depth: Tensor


def planar_scenes(photos: Tensor) -> Scene:
    """The photos themselves, as pictures on a wall: (B, C, H, W) to one layer without parallax."""
    batch, _, height, width = photos.shape
    wall = torch.zeros((batch, 1, height // STRIDE, width // STRIDE), device=photos.device)
    return Scene(wall, torch.ones((batch, 1, height // 2, width // 2), device=photos.device))


def layered_scenes(
    grey: Tensor, layers: int, *, relief: float = 0.2, tilt: float = 0.5, generator: Generator | None = None
) -> Scene:
    """Random layers in front of a background, cut out along the edges of the photo.

    Args:
        grey: (B, 1, H, W), the photos, from whose brightness the layers' outlines are taken.
        layers: how many, the background included.
        relief: largest share by which the relief changes a layer's inverse depth.
        tilt: largest share by which the inverse depth changes from the middle to an edge.
        generator: the source of randomness.

    Returns:
        A scene whose background is about at depth 1.
    """
    batch, _, height, width = grey.shape
    size = height // STRIDE, width // STRIDE
    like = grey
    slope = uniform((batch * layers, 2, 1, 1), -tilt, tilt, like=like, generator=generator)
    x = torch.linspace(-1, 1, size[1], device=like.device)
    y = torch.linspace(-1, 1, size[0], device=like.device).unsqueeze(1)
    plane = 1 + (slope[:, :1] * x + slope[:, 1:] * y) / 2
    bumps = smooth_noise(batch * layers, size, 4, like=like, generator=generator)
    surface = (plane + relief * bumps).reshape(batch, layers, *size)
    # each layer stands in front of the one before
    steps = uniform((batch, layers), 0.15, 0.8, like=like, generator=generator)
    steps[:, 0] = 0
    distance = (1 + steps.cumsum(1)).reshape(batch, layers, 1, 1)
    return Scene((surface * distance).clamp_min(0.1), _outlines(grey, layers, generator=generator))


def _outlines(grey: Tensor, layers: int, *, generator: Generator | None) -> Tensor:
    """The first layer is everywhere; the others are where a smooth field plus the photo's brightness is high."""
    batch = len(grey)
    half = F.avg_pool2d(grey, 2)
    guide = gaussian_blur2d(half, (9, 9), (2.0, 2.0))
    mean, deviation = _statistics(guide)
    guide = (guide - mean) / (deviation + 1e-3)
    size = half.shape[-2], half.shape[-1]
    front = layers - 1
    field = smooth_noise(batch * front, size, 4, like=grey, generator=generator).reshape(batch, front, *size)
    weight = uniform((batch, front, 1, 1), -0.5, 0.5, like=grey, generator=generator)
    share = uniform((batch, front, 1, 1), 0.1, 0.45, like=grey, generator=generator)
    field = field + weight * guide
    # the quantile through a normal distribution: sorting 80,000 values a layer would cost more than all the rest
    mean, deviation = _statistics(field)
    threshold = mean + deviation * (1 - 2 * share).erfinv() * 2**0.5
    edge = torch.sigmoid(40 * (field - threshold))
    return torch.cat((torch.ones_like(half), edge), dim=1)


def _statistics(maps: Tensor) -> tuple[Tensor, Tensor]:
    """Mean and deviation of each map; of no map at all too, where torch's own warns."""
    mean = maps.mean((2, 3), keepdim=True)
    return mean, (maps - mean).square().mean((2, 3), keepdim=True).sqrt()


def random_cameras(
    batch: int,
    view: tuple[int, int],
    photo: tuple[int, int],
    *,
    baseline: float,
    rotation: float,
    zoom: float,
    shift: float,
    like: Tensor,
    generator: Generator | None = None,
) -> Cameras:
    """Two cameras on opposite sides of where the photo was taken, both looking at its middle.

    Args:
        batch: how many pairs.
        view: (height, width) of the views.
        photo: (height, width) of the photo.
        baseline: largest distance of the cameras, the background being at depth 1.
        rotation: largest rotation of each about its axis, radians.
        zoom: largest factor between a view's focal length and the photo's.
        shift: how far from the photo's middle they look at most, as a share of the view's sides.
        like: a tensor on the device wanted.
        generator: the source of randomness.
    """
    device = like.device
    focal = photo[1] * uniform((batch,), 0.7, 1.6, like=like, generator=generator)
    K = _intrinsics(focal, photo)
    direction = torch.randn((batch, 3), device=device, generator=generator) * torch.tensor((1, 1, 0.5), device=device)
    distance = uniform((batch, 1), 0.15, 1.0, like=like, generator=generator) * baseline
    half = F.normalize(direction, dim=1) * distance / 2
    centres = torch.cat((half, -half))
    side = torch.tensor((view[1], view[0]), device=device) / focal.repeat(2).unsqueeze(1)
    aim = side * uniform((2 * batch, 2), -shift, shift, like=like, generator=generator)
    target = torch.cat((aim, torch.ones_like(aim[:, :1])), dim=1)
    R = _looking(target - centres, uniform((2 * batch,), -rotation, rotation, like=like, generator=generator))
    log_zoom = float(torch.tensor(zoom).log())
    scale = uniform((2 * batch,), -log_zoom, log_zoom, like=like, generator=generator).exp()
    K_views = _intrinsics(focal.repeat(2) / scale, view)
    at_infinity = K.repeat(2, 1, 1) @ R.transpose(1, 2) @ torch.linalg.inv(K_views)
    epipoles = (K.repeat(2, 1, 1) @ centres.unsqueeze(2)).squeeze(2)
    flat = torch.zeros((batch, 2, photo[0] // STRIDE, photo[1] // STRIDE), device=device)
    (A0, A1), (e0, e1) = at_infinity.chunk(2), epipoles.chunk(2)
    (R0, R1), (K0, K1), (c0, c1) = R.chunk(2), K_views.chunk(2), centres.chunk(2)
    T = torch.eye(4, device=device).repeat(batch, 1, 1)
    T[:, :3, :3] = R1 @ R0.transpose(1, 2)
    T[:, :3, 3:] = R1 @ (c0 - c1).unsqueeze(2)
    return Cameras((View(A0, e0, flat), View(A1, e1, flat)), K0, K1, T)


def _intrinsics(focal: Tensor, size: tuple[int, int]) -> Tensor:
    K = torch.zeros((len(focal), 3, 3), device=focal.device)
    K[:, 0, 0] = K[:, 1, 1] = focal
    K[:, 0, 2], K[:, 1, 2], K[:, 2, 2] = (size[1] - 1) / 2, (size[0] - 1) / 2, 1
    return K


def _looking(forward: Tensor, roll: Tensor) -> Tensor:
    """Rotations (B, 3, 3), world to camera, whose axis points along `forward` (B, 3), rolled about it."""
    z = F.normalize(forward, dim=1)
    down = torch.tensor((0.0, 1.0, 0.0), device=z.device).expand_as(z)
    x = F.normalize(torch.linalg.cross(down, z), dim=1)
    upright = torch.stack((x, torch.linalg.cross(z, x), z), dim=1)
    axis = torch.zeros_like(forward)
    axis[:, 2] = roll
    rolled: Tensor = axis_angle_to_rotation_matrix(axis)
    return rolled @ upright


def look(scene: Scene, view0: View, view1: View, size: tuple[int, int]) -> tuple[Seen, Seen]:
    """See a scene from two sides.

    Args:
        scene: the photos as scenes.
        view0: how view 0 sees each photo.
        view1: how view 1 sees it.
        size: (height, width) of both views.

    Returns:
        What each view shows: sources, correspondences with the other one, occlusions and depth.
    """
    # both views at once: those of view 0 come first
    own = View(*(torch.cat(pair) for pair in zip(view0, view1, strict=True)))
    other = View(*(torch.cat(pair) for pair in zip(view1, view0, strict=True)))
    batch, layers = len(own.epipole), scene.masks.shape[1]
    beyond, traced = _trace(Scene(*(part.repeat(2, 1, 1, 1) for part in scene)), own, other, size)
    places, nearness = traced[:, :, :4], traced[:, :, 4]
    masks = scene.masks.repeat(2, 1, 1, 1).flatten(0, 1).unsqueeze(1)
    at = places[:, :, :2].permute(0, 1, 3, 4, 2).flatten(0, 1)
    covered = warp_image(masks, (at - 0.5) / 2, padding="zeros").reshape(batch, layers, *size) > 0.5
    best, layer = torch.where(covered, nearness, -1.0).max(1)
    chosen = layer[:, None, None].expand(-1, -1, 4, -1, -1)
    seen = places.gather(1, chosen).squeeze(1).permute(0, 2, 3, 1)
    source, warp = seen[..., :2], seen[..., 2:]
    hole = best < 0
    shown = layer.masked_fill(hole, -1).float().unsqueeze(1)
    there = F.grid_sample(
        torch.cat(shown.chunk(2)[::-1]), normalise_points(warp, *size), mode="nearest", align_corners=False
    ).squeeze(1)
    covisible = ~hole & (there == layer) & inside(warp, *size)
    depth = torch.where(best > 1e-6, 1 / best.clamp_min(1e-6), 0.0)
    parts = (source, beyond, hole, warp, covisible, depth)
    seen0, seen1 = zip(*(part.chunk(2) for part in parts), strict=True)
    return Seen(*seen0), Seen(*seen1)


def _trace(scene: Scene, own: View, other: View, size: tuple[int, int]) -> tuple[Tensor, Tensor]:
    """Every layer as it would show without the others.

    Returns:
        (B, h, w, 2), the places at infinity; and (B, L, 5, h, w): place in the photo, place in the other view,
        inverse depth in the own one.
    """
    batch, layers, rows, columns = scene.inverse_depth.shape
    nodes = _grid(size).to(own.epipole)
    q = transform_points(own.at_infinity, nodes.reshape(1, -1, 2).expand(batch, -1, -1))
    flat = q.repeat_interleave(layers, 0)
    inverse_depth = scene.inverse_depth.reshape(-1, 1, rows, columns)
    bendings = torch.cat((own.bending, other.bending), dim=1).repeat_interleave(layers, 0)
    maps = torch.cat((inverse_depth, bendings), dim=1)
    own_e, other_e = (view.epipole.repeat_interleave(layers, 0).unsqueeze(1) for view in (own, other))
    flow = own_e[..., :2] - own_e[..., 2:] * flat
    p, read = flat, flat
    for step in range(_ITERATIONS + 1):
        read = sample(maps, (p + 0.5) / STRIDE - 0.5)
        if step < _ITERATIONS:
            p = flat + read[..., :1] * flow + read[..., 1:3]
    w = read[..., :1]
    seen = p - read[..., 3:]
    to_other = torch.linalg.inv(other.at_infinity).repeat_interleave(layers, 0)
    target = transform_points(to_other, (seen - w * other_e[..., :2]) / (1 - w * other_e[..., 2:]))
    # A^-1 (p - w e) = w · (point in camera coordinates, times K_i): its third coordinate is depth · w
    ray = torch.cat((p - read[..., 1:3], torch.ones_like(w)), dim=-1) - w * own_e
    towards = torch.linalg.inv(own.at_infinity).repeat_interleave(layers, 0)
    scaled = (ray @ towards[:, 2:].transpose(1, 2)).clamp_min(1e-3)
    values = torch.cat((p, target, w / scaled), dim=-1).transpose(1, 2)
    coarse = values.reshape(batch * layers, 5, *nodes.shape[:2])
    full = F.interpolate(coarse, size=size, mode="bilinear", align_corners=True)
    at_infinity = q.transpose(1, 2).reshape(batch, 2, *nodes.shape[:2])
    beyond = F.interpolate(at_infinity, size=size, mode="bilinear", align_corners=True)
    return beyond.permute(0, 2, 3, 1), full.reshape(batch, layers, 5, *size)


def _grid(size: tuple[int, int]) -> Tensor:
    """Places every few pixels, the corners of the view included: what lies between is interpolated.

    For a homography over a quarter of an image's side of perspective that is off by less than 0.01 px.
    """
    y = torch.linspace(0, size[0] - 1, max(2, size[0] // _NODES + 1))
    x = torch.linspace(0, size[1] - 1, max(2, size[1] // _NODES + 1))
    return torch.stack(torch.meshgrid(x, y, indexing="xy"), dim=-1)
