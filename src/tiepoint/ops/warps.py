"""Pairs of views of one photo: random homographies, smooth parallax, and the correspondence that follows.

Both views are *backward* warps: a map B takes pixels of a view to pixels of the photo, which makes rendering
a single read. The correspondence of the two views composes one map with the inverse of the other.
"""

from collections.abc import Callable
from typing import NamedTuple

import torch
import torch.nn.functional as F
from kornia.geometry.linalg import transform_points
from kornia.geometry.transform import get_perspective_transform
from torch import Generator, Tensor

from tiepoint.ops.sampling import inside, sample


class Correspondence(NamedTuple):
    """Where every pixel of two views lies in the other one.

    Attributes:
        warp_0to1: (B, h, w, 2), for each pixel of view 0 its place in view 1, in pixels.
        warp_1to0: (B, h, w, 2), the other way.
        covisible0: (B, h, w) bool, pixels of view 0 that view 1 shows.
        covisible1: (B, h, w) bool, pixels of view 1 that view 0 shows.
    """

    warp_0to1: Tensor
    warp_1to0: Tensor
    covisible0: Tensor
    covisible1: Tensor


def uniform(shape: tuple[int, ...], low: float, high: float, *, like: Tensor, generator: Generator | None) -> Tensor:
    """Uniform random numbers on the device of `like`."""
    return low + (high - low) * torch.rand(shape, device=like.device, generator=generator)


def smooth_noise(batch: int, size: tuple[int, int], cells: int, *, like: Tensor, generator: Generator | None) -> Tensor:
    """Smooth random fields: white noise on a coarse grid, enlarged bicubically.

    Args:
        batch: number of fields.
        size: (height, width) of the fields.
        cells: nodes of the coarse grid along each side; more is rougher.
        like: a tensor on the device wanted.
        generator: the source of randomness.

    Returns:
        (batch, 1, height, width), each about in [-1, 1].
    """
    coarse = uniform((batch, 1, cells, cells), -1.0, 1.0, like=like, generator=generator)
    # bicubic to an eighth, bilinear from there: as smooth to the eye at a fraction of the time
    smooth = F.interpolate(coarse, (size[0] // 8 + 1, size[1] // 8 + 1), mode="bicubic", align_corners=True)
    return F.interpolate(smooth, size=size, mode="bilinear", align_corners=True)


def random_homographies(
    batch: int,
    view: tuple[int, int],
    photo: tuple[int, int],
    *,
    jitter: float,
    rotation: float,
    zoom: float,
    shift: float,
    like: Tensor,
    generator: Generator | None = None,
) -> Tensor:
    """Random homographies from the pixels of a view to those of a photo.

    The view's rectangle is laid centrally on the photo at one view pixel a photo pixel; its corners move
    independently (perspective), then it is scaled, rotated and shifted as a whole.

    Args:
        batch: how many.
        view: (height, width) of the view.
        photo: (height, width) of the photo.
        jitter: largest move of a corner, as a share of the view's sides.
        rotation: standard deviation of the rotation, radians.
        zoom: largest scale factor, 1 or more; drawn log-uniformly from [1/zoom, zoom].
        shift: largest shift, as a share of the view's sides.
        like: a tensor on the device wanted.
        generator: the source of randomness.

    Returns:
        (batch, 3, 3), view to photo.
    """
    height, width = view
    side = torch.tensor((width, height), dtype=torch.float32, device=like.device)
    corners = torch.tensor(((-0.5, -0.5), (0.5, -0.5), (0.5, 0.5), (-0.5, 0.5)), device=like.device)
    corners = corners.expand(batch, 4, 2)
    moved = (corners + uniform((batch, 4, 2), -jitter, jitter, like=like, generator=generator)) * side
    angle = rotation * torch.randn((batch,), device=like.device, generator=generator)
    log_zoom = float(torch.tensor(zoom).log())
    scale = uniform((batch,), -log_zoom, log_zoom, like=like, generator=generator).exp()
    cos, sin = scale * angle.cos(), scale * angle.sin()
    similarity = torch.stack((torch.stack((cos, -sin), -1), torch.stack((sin, cos), -1)), dim=-2)
    offset = side * uniform((batch, 1, 2), -shift, shift, like=like, generator=generator)
    centre = torch.tensor((photo[1] - 1, photo[0] - 1), device=like.device) / 2
    target = moved @ similarity.transpose(1, 2) + offset + centre
    source = corners * side + (side - 1) / 2
    transform: Tensor = get_perspective_transform(source.contiguous(), target.contiguous())
    return transform


def parallax_fields(
    batch: int,
    size: tuple[int, int],
    *,
    largest: float,
    share: float,
    like: Tensor,
    generator: Generator | None = None,
) -> Tensor:
    """Displacements of the photo's points between the two views, as a smooth relief makes under a small motion.

    Each field points along one direction (the epipolar lines of a sideways motion) with a smooth magnitude.

    Args:
        batch: how many.
        size: (height, width) of the photo.
        largest: largest magnitude in pixels; each field draws its own between a tenth of it and all.
        share: which share of the fields is not zero.
        like: a tensor on the device wanted.
        generator: the source of randomness.

    Returns:
        (batch, 2, height, width), pixels (x, y).
    """
    angle = uniform((batch, 1, 1, 1), 0.0, 2 * torch.pi, like=like, generator=generator)
    magnitude = uniform((batch, 1, 1, 1), largest / 10, largest, like=like, generator=generator)
    chosen = uniform((batch, 1, 1, 1), 0.0, 1.0, like=like, generator=generator) < share
    relief = smooth_noise(batch, size, 4, like=like, generator=generator)
    return torch.cat((angle.cos(), angle.sin()), dim=1) * relief * (magnitude * chosen)


def _apply(H: Tensor, points: Tensor) -> Tensor:
    moved: Tensor = transform_points(H, points)
    return moved


def displaced(points: Tensor, field: Tensor) -> Tensor:
    """Points (B, N, 2) moved by the field (B, 2, H, W) at their places."""
    return points + sample(field, points)


def undisplaced(points: Tensor, field: Tensor, *, iterations: int = 8) -> Tensor:
    """The inverse of `displaced`, by fixed-point iteration.

    It converges where the field's gradient is below 1; each iteration multiplies the error by that gradient
    (Chen et al., "A simple fixed-point approach to invert a deformation field", Med. Phys. 2008).
    """
    origin = points
    for _ in range(iterations):
        origin = points - sample(field, origin)
    return origin


def dense(mapping: Callable[[Tensor], Tensor], size: tuple[int, int], *, stride: int = 4, like: Tensor) -> Tensor:
    """A smooth mapping of points, evaluated at every pixel of an image.

    It is computed every `stride` pixels and interpolated in between, which for a homography over a quarter of
    an image's side of perspective is off by less than 0.01 px, and takes a sixteenth of the time.

    Args:
        mapping: takes points (B, N, 2) to points (B, N, 2).
        size: (height, width) of the image.
        stride: distance of the nodes in pixels.
        like: a tensor of batch size B on the device wanted.

    Returns:
        (B, height, width, 2).
    """
    height, width = size
    y = torch.linspace(0, height - 1, max(2, height // stride + 1), device=like.device)
    x = torch.linspace(0, width - 1, max(2, width // stride + 1), device=like.device)
    nodes = torch.stack(torch.meshgrid(x, y, indexing="xy"), dim=-1)
    mapped = mapping(nodes.reshape(1, -1, 2).expand(len(like), -1, -1))
    maps = mapped.transpose(1, 2).reshape(len(like), 2, len(y), len(x))
    return F.interpolate(maps, size=size, mode="bilinear", align_corners=True).permute(0, 2, 3, 1)


def correspondence(view0: Tensor, view1: Tensor, field: Tensor, size: tuple[int, int]) -> Correspondence:
    """The true correspondence of two views of one photo.

    View 0 shows the photo through `view0`; view 1 shows it through `view1` after its points moved by `field`.

    Args:
        view0: (B, 3, 3), pixels of view 0 to pixels of the photo.
        view1: (B, 3, 3), pixels of view 1 to pixels of the moved photo.
        field: (B, 2, H, W), displacement from the moved photo to the photo at the moved photo's pixels.
        size: (height, width) of both views.

    Returns:
        The warps in both directions and what both views show.
    """
    height, width = size
    into0, into1 = torch.linalg.inv(view0), torch.linalg.inv(view1)

    def forth(points: Tensor) -> Tensor:
        return _apply(into1, undisplaced(_apply(view0, points), field))

    def back(points: Tensor) -> Tensor:
        return _apply(into0, displaced(_apply(view1, points), field))

    warp_0to1, warp_1to0 = dense(forth, size, like=view0), dense(back, size, like=view0)
    return Correspondence(warp_0to1, warp_1to0, inside(warp_0to1, height, width), inside(warp_1to0, height, width))
