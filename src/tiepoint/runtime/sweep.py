"""The plane sweep as an ONNX graph, on ONNX Runtime."""

from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from tiepoint.errors import InputError
from tiepoint.images import UInt8
from tiepoint.runtime.graph import start_session
from tiepoint.types import Float32

INPUTS = ("image0", "image1", "at_infinity", "epipole", "planes")
OUTPUTS = ("inverse_depth", "confidence", "likelihood")
EMBEDDED = Path(__file__).parents[1] / "weights" / "depth" / "sweep.onnx"
STRIDE, PLANES = 32, 4  # what sizes and numbers of planes are multiples of


class SweepGraph:
    """Runs a file that `tiepoint convert` has written from a plane sweep.

    Args:
        path: the .onnx file; the embedded one if None.
        device: "auto", "cpu" or "cuda".

    Raises:
        InputError: there is no such file, or it is no such graph.
    """

    def __init__(self, path: Path | None = None, *, device: str = "auto") -> None:
        path = path or EMBEDDED
        if not path.is_file():
            raise InputError(f"{path} does not exist, expected an .onnx file of a plane sweep")
        self._session: Any = start_session(path, name=str(path), device=device)
        found = tuple(node.name for node in self._session.get_inputs())
        if set(found) != set(INPUTS):
            raise InputError(
                f"{path} is an ONNX graph from {', '.join(found)}, expected one from {', '.join(INPUTS)}, as `tiepoint "
                "convert` writes it of a checkpoint of DepthTask"
            )

    def run(
        self,
        image0: UInt8,
        image1: UInt8,
        at_infinity: npt.NDArray[Any],
        epipole: npt.NDArray[Any],
        planes: npt.NDArray[Any],
    ) -> tuple[Float32, Float32, Float32]:
        """Sweep planes through a pair; B is 1.

        Args:
            image0: (B, H, W, 3), sides multiples of 32.
            image1: likewise, of the same size.
            at_infinity: (B, 3, 3), pixels of view 0 to pixels of view 1 at infinity.
            epipole: (B, 3), what is added to them for each unit of inverse depth.
            planes: (B, P), inverse depths at equal steps, P a multiple of 4.

        Returns:
            (B, H, W) inverse depth, (B, H, W) confidence in [0, 1], and (B, P, H/4, W/4) the planes' log-likelihoods.
        """
        geometry = (np.asarray(each, np.float32) for each in (at_infinity, epipole, planes))
        feed = dict(zip(INPUTS, (image0, image1, *geometry), strict=True))
        depth, confidence, likelihood = self._session.run(OUTPUTS, feed)
        return depth, confidence, likelihood
