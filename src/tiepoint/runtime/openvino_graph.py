"""One ONNX graph from two images to their matches, on OpenVINO."""

import hashlib
import threading
from collections import Counter
from pathlib import Path
from typing import Any, Literal

import numpy as np
import openvino
from openvino import opset13

from tiepoint.errors import InputError
from tiepoint.images import UInt8
from tiepoint.runtime.graph import start_session
from tiepoint.runtime.matcher import Found, PaddedMatches, check_graph, existing_graph
from tiepoint.runtime.threads import thread_count

Sizes = tuple[tuple[int, ...], tuple[int, ...]]
OFTEN = (
    8  # pairs of the same sizes, from which on they get a model of their own: compiling it costs about a dozen pairs
)
KEPT = 4  # models of their own at most: each holds the memory of its sizes
IDLE = 64  # pairs after which one that nobody asked for makes room


class OpenVinoGraph:
    """Runs a file that `tiepoint convert` has written.

    One model is compiled for all sizes, and further ones for sizes that come often, which are faster.

    Args:
        path: the .onnx file.
        max_keypoints: keypoints an image.
        device: "auto" or "cpu".
        precision: of the arithmetic. bfloat16, which OpenVINO takes by itself where the processor has it, changes two
            matches of five (docs/runtime.md); `tiepoint.load` never asks for it.

    Raises:
        InputError: there is no such file, it is no ONNX graph from two images to matches, or there is no such
            device.
    """

    def __init__(
        self, path: Path, *, max_keypoints: int, device: str, precision: Literal["f32", "bf16"] = "f32"
    ) -> None:
        existing_graph(path)
        if device == "cuda":
            raise InputError("device is cuda, but backend openvino runs on the processor: choose onnxruntime or torch")
        self._core = openvino.Core()
        content = path.read_bytes()
        # ONNX Runtime looks at the file first: without a folder it refuses weights that lie in other files, of which
        # OpenVINO reads whatever the graph names
        session = start_session(content, name=str(path), device="cpu")
        check_graph(path, *({node.name for node in each} for each in (session.get_inputs(), session.get_outputs())))
        try:
            self._model = self._core.read_model(content, b"")
        except RuntimeError as error:
            reason = (str(error).strip().splitlines() or ["no reason given"])[-1].strip()[:160]
            raise InputError(f"{path} is no ONNX graph that OpenVINO can run: {reason}") from error
        _fix_count(self._model, max_keypoints)
        self._precision = precision
        self._any = self._compiled(None)
        self._own: dict[Sizes, Any] = {}
        self._seen: Counter[Sizes] = Counter()
        self._last: dict[Sizes, int] = {}
        self._pairs = 0
        self._turn = threading.Lock()  # a model holds the memory of one pair
        self.facts = {
            "backend": f"openvino {openvino.__version__.split('-')[0]}",
            "device": "cpu",
            "max_keypoints": str(max_keypoints),
            "precision": precision,
            "weights": hashlib.sha256(content).hexdigest(),
        }

    def match(self, image0: UInt8, image1: UInt8) -> Found:
        """See `Backend.match`; one graph extracts and matches, so that the stages cannot be told apart."""
        return self.run(image0[None], image1[None]).found(0)

    def run(self, image0: UInt8, image1: UInt8) -> PaddedMatches:
        """Match a batch of pairs: two arrays (B, H, W, 3)."""
        with self._turn:
            told = self._model_for((image0.shape, image1.shape))({"image0": image0, "image1": image1})
        return PaddedMatches(*(told[name] for name in PaddedMatches._fields))

    def _model_for(self, sizes: Sizes) -> Any:
        """What runs images of these shapes: the model for all, or one of their own once they have come often."""
        self._pairs += 1
        self._last[sizes] = self._pairs
        if sizes in self._own:
            return self._own[sizes]
        self._seen[sizes] += 1
        if self._seen[sizes] < OFTEN or not self._has_room():
            return self._any
        del self._seen[sizes]
        self._own[sizes] = self._compiled(sizes)
        return self._own[sizes]

    def _has_room(self) -> bool:
        """Whether one more model may be kept; the longest unused one goes for it, if it is out of use."""
        if len(self._own) < KEPT:
            return True
        oldest = min(self._own, key=self._last.__getitem__)
        if self._pairs - self._last[oldest] <= IDLE:
            return False
        del self._own[oldest]
        return True

    def _compiled(self, sizes: Sizes | None) -> Any:
        model = self._model.clone()
        if sizes:
            model.reshape({f"image{index}": list(shape) for index, shape in enumerate(sizes)})
        hints: dict[str, Any] = {"PERFORMANCE_HINT": "LATENCY", "INFERENCE_PRECISION_HINT": self._precision}
        if threads := thread_count():
            hints["INFERENCE_NUM_THREADS"] = threads
        return self._core.compile_model(model, "CPU", hints)


def _fix_count(model: Any, count: int) -> None:
    """Make the number of keypoints a constant of the graph: with it all shapes are known that the images leave open."""
    given = model.input("max_keypoints").get_node()
    given.output(0).replace(opset13.constant(np.array(count, np.int64)).output(0))
    model.remove_parameter(given)
