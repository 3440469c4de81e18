"""What every network, and every extractor of keypoints and descriptors, offers."""

import inspect
from typing import Any, NamedTuple, Self

from torch import Tensor, nn


class Maps(NamedTuple):
    """The dense output of an extractor, what training supervises.

    Attributes:
        detection: (B, 1, H, W), log-odds that a pixel is the keypoint of its neighbourhood.
        reliability: (B, 1, H/s, W/s), log-odds that a keypoint there would be matched rightly.
        descriptors: (B, D, H/s, W/s), not normalised.
    """

    detection: Tensor
    reliability: Tensor
    descriptors: Tensor


class Keypoints(NamedTuple):
    """A fixed number of keypoints an image, best first, padded.

    Attributes:
        keypoints: (B, K, 2), pixels (x, y) of the image given; sub-pixel.
        descriptors: (B, K, D), unit length.
        scores: (B, K) in [0, 1]; 0 where there is only padding.
        mask: (B, K) bool, False where there is only padding.
    """

    keypoints: Tensor
    descriptors: Tensor
    scores: Tensor
    mask: Tensor


class Network(nn.Module):
    """Remembers the arguments that it was built with, so that a weight file can tell how to build it again."""

    init_args: dict[str, Any]

    def __new__(cls, *args: Any, **kwargs: Any) -> Self:
        """Record the arguments."""
        self = super().__new__(cls)
        # partial: unpickling and deepcopy call __new__ without arguments and restore init_args afterwards
        bound = inspect.signature(cls).bind_partial(*args, **kwargs)
        bound.apply_defaults()
        object.__setattr__(self, "init_args", dict(bound.arguments))
        return self

    def compose(self) -> None:
        """Make one of what only training needs apart; called on the copy that `blocks.deployed` has fused."""


class Extractor(Network):
    """Base of the extractors: images in, dense maps for training, keypoints for use.

    A subclass gives `maps` and `forward`; both are free of data-dependent Python, so that they export.
    """

    def maps(self, image: Tensor) -> Maps:
        """The dense maps of images (B, 1 or 3, H, W) in [0, 1]."""
        raise NotImplementedError

    def forward(self, image: Tensor, max_keypoints: int = 2048) -> Keypoints:
        """The `max_keypoints` best keypoints of images (B, 1 or 3, H, W) in [0, 1]."""
        raise NotImplementedError


def spec_of(model: Network) -> dict[str, Any]:
    """How to build a model again, as plain data: `{"class_path": ..., "init_args": {...}}`."""
    cls = type(model)
    # lists, as every file format gives them back
    plain = {k: list(v) if isinstance(v, tuple) else v for k, v in model.init_args.items()}
    return {"class_path": f"{cls.__module__}.{cls.__qualname__}", "init_args": plain}
