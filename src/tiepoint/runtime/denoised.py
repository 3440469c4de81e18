"""A matcher that sees images without their noise."""

from collections.abc import Mapping
from typing import TYPE_CHECKING

from tiepoint.images import UInt8
from tiepoint.runtime.matcher import Backend, Found

if TYPE_CHECKING:
    from tiepoint.denoise import Denoiser


class DenoisedViews:
    """Another backend, which is handed both images without their noise, at the size at which it matches them.

    Args:
        backend: that matches.
        denoiser: that takes the noise out.
    """

    def __init__(self, backend: Backend, denoiser: "Denoiser") -> None:
        self._backend, self._denoiser = backend, denoiser

    @property
    def facts(self) -> Mapping[str, str]:
        """See `Backend.facts`."""
        return {**self._backend.facts, **{f"denoiser_{key}": value for key, value in self._denoiser.facts.items()}}

    def match(self, image0: UInt8, image1: UInt8) -> Found:
        """See `Backend.match`; pixels stay where they are."""
        return self._backend.match(self._denoiser(image0).image, self._denoiser(image1).image)
