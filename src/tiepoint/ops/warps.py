"""Random smooth fields, homographies and bendings, from which the views of a photo are made."""

import torch
import torch.nn.functional as F
from kornia.geometry.transform import get_perspective_transform, get_tps_transform, warp_points_tps
from torch import Generator, Tensor


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
        rotation: largest rotation, radians.
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
    angle = uniform((batch,), -rotation, rotation, like=like, generator=generator)
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


def thin_plate_fields(
    size: tuple[int, int],
    *,
    largest: Tensor,
    stride: int,
    like: Tensor,
    generator: Generator | None = None,
) -> Tensor:
    """Smooth bending: displacements by thin-plate splines through 4×4 control points (Bookstein, PAMI 1989).

    Args:
        size: (height, width) of the photo.
        largest: (B,), largest move of a control point along each axis, pixels.
        stride: pixels of the photo from one value to the next.
        like: a tensor on the device wanted.
        generator: the source of randomness.

    Returns:
        (B, 2, height/stride, width/stride), pixels (x, y).
    """
    batch, (height, width) = len(largest), size
    extent = torch.tensor((width, height), dtype=torch.float32, device=like.device) / 2
    steps = torch.linspace(-1, 1, 4, device=like.device)
    control = torch.cartesian_prod(steps, steps).expand(batch, -1, -1)
    drawn = uniform((batch, 16, 2), -1.0, 1.0, like=like, generator=generator)
    moved = control + drawn * largest.reshape(-1, 1, 1) / extent
    kernel, affine = get_tps_transform(control, moved)
    rows, columns = height // stride, width // stride
    x = (2 * torch.arange(columns, device=like.device) + 1) / columns - 1
    y = (2 * torch.arange(rows, device=like.device) + 1) / rows - 1
    places = torch.stack(torch.meshgrid(x, y, indexing="xy"), dim=-1).reshape(1, -1, 2).expand(batch, -1, -1)
    # kornia puts the centres of the kernels at the targets
    bent: Tensor = warp_points_tps(places, moved, kernel, affine)
    return ((bent - places) * extent).transpose(1, 2).reshape(batch, 2, rows, columns)
