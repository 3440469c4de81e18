"""Reading maps at points, in pixels with the centre of the top-left pixel at (0, 0)."""

import torch
import torch.nn.functional as F
from torch import Tensor


def pixel_grid(height: int, width: int, *, device: torch.device | None = None) -> Tensor:
    """The pixel centres of an image.

    Returns:
        (height, width, 2) float32, the (x, y) of every pixel.
    """
    y, x = torch.meshgrid(
        torch.arange(height, device=device, dtype=torch.float32),
        torch.arange(width, device=device, dtype=torch.float32),
        indexing="ij",
    )
    return torch.stack((x, y), dim=-1)


def normalise_points(points: Tensor, height: int, width: int) -> Tensor:
    """Pixels to the [-1, 1] of `torch.nn.functional.grid_sample` with align_corners=False.

    Args:
        points: (..., 2), pixels (x, y).
        height: rows of the map that will be read.
        width: columns of the map that will be read.

    Returns:
        (..., 2), -1 and 1 being the outer edges of the border pixels.
    """
    size = torch.tensor((width, height), device=points.device, dtype=points.dtype)
    return (2 * points + 1) / size - 1


def sample(maps: Tensor, points: Tensor, *, padding: str = "border") -> Tensor:
    """Read maps bilinearly at points.

    Args:
        maps: (B, C, H, W).
        points: (B, N, 2), pixels (x, y) of the map.
        padding: what lies outside: "border", "zeros" or "reflection".

    Returns:
        (B, N, C).
    """
    # in full precision whatever the maps are: half precision rounds places to tenths of a pixel
    grid = normalise_points(points.float(), *maps.shape[-2:]).unsqueeze(1)
    read = F.grid_sample(maps.float(), grid, padding_mode=padding, align_corners=False)
    return read.squeeze(2).transpose(1, 2)


def sample_rows(maps: Tensor, points: Tensor) -> Tensor:
    """Read maps bilinearly at points, as `sample` does with padding "border": faster where the maps have many channels.

    Each of the four neighbours of a point is one row of a table with the channels last. On ONNX Runtime this costs a
    third of GridSample, which walks through every channel by itself.

    Args:
        maps: (B, C, H, W).
        points: (B, N, 2), pixels (x, y) of the map.

    Returns:
        (B, N, C) float32.
    """
    height, width = maps.shape[-2:]
    table = maps.permute(0, 2, 3, 1).flatten(0, 2)
    x, y = points[..., 0].float().clamp(0, width - 1), points[..., 1].float().clamp(0, height - 1)
    left, top = x.floor(), y.floor()
    right_share, low_share = (x - left).unsqueeze(-1), (y - top).unsqueeze(-1)
    image = torch.arange(maps.shape[0], device=maps.device).unsqueeze(1) * height
    # clamped once more as whole numbers: a place that is NaN reads NaN, not beyond the table
    upper, lower = ((image + (top.long() + step).clamp(0, height - 1)) * width for step in (0, 1))
    columns = [(left.long() + step).clamp(0, width - 1) for step in (0, 1)]
    rows = (_row(table, line + column) for line in (upper, lower) for column in columns)
    a, b, c, d = rows
    above, below = a + right_share * (b - a), c + right_share * (d - c)
    return above + low_share * (below - above)


def _row(table: Tensor, index: Tensor) -> Tensor:
    """Rows (B, N, C) of a table (M, C), as float32."""
    return table.index_select(0, index.flatten()).reshape(*index.shape, table.shape[1]).float()


def warp_image(image: Tensor, source: Tensor, *, padding: str = "reflection") -> Tensor:
    """Backward warp: every output pixel reads the image where `source` says.

    Args:
        image: (B, C, H, W).
        source: (B, h, w, 2), pixels (x, y) of the image.
        padding: what lies outside. "reflection" continues a photo as a mirrored plane, so that no pixel is
            a hole and every pixel still has one true correspondence.

    Returns:
        (B, C, h, w).
    """
    grid = normalise_points(source.float(), *image.shape[-2:])
    return F.grid_sample(image.float(), grid, padding_mode=padding, align_corners=False)


def inside(points: Tensor, height: int, width: int) -> Tensor:
    """Which points lie in an image, between its outermost pixel centres.

    Args:
        points: (..., 2), pixels (x, y).
        height: rows.
        width: columns.

    Returns:
        (...) bool.
    """
    x, y = points.unbind(-1)
    return (x >= 0) & (y >= 0) & (x <= width - 1) & (y <= height - 1)
