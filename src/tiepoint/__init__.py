"""tiepoint: find the tie points of two photographs, with networks that you train on photographs of your own."""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from tiepoint.alignment import Registration, register
    from tiepoint.denoise import Denoised, Denoiser
    from tiepoint.dense import DepthMap, depth_map, disparity_map
    from tiepoint.edges import EdgeDetector, EdgeMap
    from tiepoint.errors import InputError, WorkError
    from tiepoint.geometry import estimate
    from tiepoint.motion import RelativePose, relative_pose
    from tiepoint.runtime import load
    from tiepoint.types import Matches, TwoViewGeometry

__version__ = "0.1.0"
__all__ = [
    "Denoised",
    "Denoiser",
    "DepthMap",
    "EdgeDetector",
    "EdgeMap",
    "InputError",
    "Matches",
    "Registration",
    "RelativePose",
    "TwoViewGeometry",
    "WorkError",
    "__version__",
    "depth_map",
    "disparity_map",
    "estimate",
    "load",
    "register",
    "relative_pose",
]

_HOMES = {
    "InputError": "tiepoint.errors",
    "WorkError": "tiepoint.errors",
    "DepthMap": "tiepoint.dense",
    "depth_map": "tiepoint.dense",
    "disparity_map": "tiepoint.dense",
    "Denoised": "tiepoint.denoise",
    "Denoiser": "tiepoint.denoise",
    "EdgeDetector": "tiepoint.edges",
    "EdgeMap": "tiepoint.edges",
    "Registration": "tiepoint.alignment",
    "register": "tiepoint.alignment",
    "RelativePose": "tiepoint.motion",
    "relative_pose": "tiepoint.motion",
    "estimate": "tiepoint.geometry",
    "load": "tiepoint.runtime",
    "Matches": "tiepoint.types",
    "TwoViewGeometry": "tiepoint.types",
}


def __getattr__(name: str) -> Any:
    """Import a public name when it is first used: `import tiepoint` costs milliseconds."""
    if name not in _HOMES:
        raise AttributeError(f"module 'tiepoint' has no attribute {name!r}")
    from importlib import import_module

    value = getattr(import_module(_HOMES[name]), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted([*globals(), *_HOMES])
