"""A network of single images as an ONNX graph, on ONNX Runtime."""

import hashlib
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import onnxruntime

from tiepoint.errors import InputError
from tiepoint.runtime.graph import session_device, start_session
from tiepoint.runtime.matcher import existing_graph
from tiepoint.types import Float32

INPUT = "image"


class ImageGraph:
    """Runs a file that `tiepoint convert` has written from a network of single images.

    Args:
        path: the .onnx file.
        output: what its maps must be, such as "probability"; whatever they are if None.
        channels: how many an image must have; as many as the graph takes if None.
        device: "auto", "cpu" or "cuda".

    Attributes:
        output: what its maps are.
        bytes: whether it takes images of eight bits.
        metadata: what `tiepoint convert` has written into the file, such as the arguments of the network.
        facts: what decides its maps beside the images.

    Raises:
        InputError: there is no such file, it is no such graph, or there is no such device.
    """

    def __init__(
        self, path: Path, *, output: str | None = None, channels: int | None = None, device: str = "auto"
    ) -> None:
        existing_graph(path)
        self._session: Any = start_session(path, name=str(path), device=device)
        taken, given = ([node.name for node in nodes] for nodes in (self._session.get_inputs(), self._outputs()))
        if taken != [INPUT] or len(given) != 1 or output not in (None, given[0]):
            raise InputError(
                f"{path} is an ONNX graph from {', '.join(taken)[:160]} to {', '.join(given)[:160]}, expected one "
                f"from {INPUT} to {output or 'its maps'}, as `tiepoint convert` writes it of a network of single images"
            )
        own = self._session.get_inputs()[0].shape[-1]
        if channels not in (None, own):
            raise InputError(f"{path} takes images of {own} channels, expected {channels}")
        self.output = given[0]
        self.bytes = self._session.get_inputs()[0].type == "tensor(uint8)"
        self.metadata: dict[str, str] = self._session.get_modelmeta().custom_metadata_map
        self.facts = {
            "backend": f"onnxruntime {onnxruntime.__version__}",
            "device": session_device(self._session),
            "weights": hashlib.sha256(path.read_bytes()).hexdigest(),
        }

    def run(self, images: npt.NDArray[Any]) -> Float32:
        """The maps of a batch.

        Args:
            images: (B, H, W, C), RGB first: uint8, or, where the graph does not take `bytes`, float32 with white at 1.

        Returns:
            (B, H, W, C).
        """
        wide = self.bytes or images.dtype != np.uint8
        maps: Float32 = self._session.run(None, {INPUT: images if wide else images.astype(np.float32) / 255})[0]
        return maps

    def _outputs(self) -> Any:
        return self._session.get_outputs()
