"""Where torch runs, and how its time is taken there."""

from collections.abc import Callable

import torch
from torch import Tensor

from tiepoint.errors import InputError
from tiepoint.images import UInt8


def torch_device(device: str) -> str:
    """The device that "auto", "cpu" or "cuda" means here.

    Raises:
        InputError: "cuda" is asked for, and torch finds no GPU.
    """
    if device == "cuda" and not torch.cuda.is_available():
        raise InputError("device is cuda, but torch finds no GPU")
    return "cuda" if device != "cpu" and torch.cuda.is_available() else "cpu"


def waiting_for(device: str) -> Callable[[], object] | None:
    """What to call before the clock is read: a GPU works on behind the caller's back; None for the processor."""
    return torch.cuda.synchronize if device == "cuda" else None


def to_tensor(image: UInt8, device: str) -> Tensor:
    """An image (H, W, 3) as (1, 3, H, W) float in [0, 1]."""
    # torch.tensor copies: the caller's array may be read-only
    return torch.tensor(image).to(device).permute(2, 0, 1)[None].float() / 255
