"""The door from the light half to the refinement of registrations, which runs on torch."""

import math

import numpy as np
import torch

from tiepoint.geometry import REFERENCE_SIDE
from tiepoint.images import UInt8
from tiepoint.ops.registration import TransformModel, refine_transform
from tiepoint.types import Float32, Float64

LONG_SIDE = 1536  # px: beyond it the finest level is shrunk; it then still places to a tenth of its pixels


def refine(
    moving: UInt8, fixed: UInt8, H: Float64, points: tuple[Float32, Float32], *, model: TransformModel
) -> tuple[Float64, bool]:
    """Refines a transformation on the images: `ops.registration.refine_transform` for arrays.

    Args:
        moving: (H, W, 3).
        fixed: (h, w, 3).
        H: (3, 3), moving to fixed.
        points: (M, 2) and (M, 2), the matches that agree with H.
        model: the group in which the answer lies.

    Returns:
        (3, 3), and whether it helped.
    """
    side = max(*moving.shape[:2], *fixed.shape[:2])
    finest = math.ceil(side / LONG_SIDE)
    refined = refine_transform(
        _grey(moving),
        _grey(fixed),
        torch.tensor(H),
        *(torch.tensor(each) for each in points),
        model=model,
        levels=(4 * finest, 2 * finest, finest),
        sigma=max(1.0, max(fixed.shape[:2]) / REFERENCE_SIDE),  # matchers look at images of that size
    )
    return refined.matrix.numpy(), refined.helped


def _grey(image: UInt8) -> torch.Tensor:
    """(1, 1, H, W) in [0, 1], luma of BT.601."""
    grey = image @ np.array([0.299, 0.587, 0.114], dtype=np.float32) / 255
    return torch.from_numpy(grey)[None, None]
