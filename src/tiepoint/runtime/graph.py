"""One ONNX graph from two images to their matches, on ONNX Runtime."""

import hashlib
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime

from tiepoint.errors import InputError
from tiepoint.images import UInt8
from tiepoint.runtime.matcher import Found, PaddedMatches, check_graph, existing_graph
from tiepoint.runtime.threads import thread_count


class OnnxGraph:
    """Runs a file that `tiepoint convert` has written.

    Args:
        path: the .onnx file.
        max_keypoints: keypoints an image.
        device: "auto", "cpu" or "cuda".

    Raises:
        InputError: there is no such file, it is no ONNX graph from two images to matches, or there is no such
            device.
    """

    def __init__(self, path: Path, *, max_keypoints: int, device: str) -> None:
        existing_graph(path)
        self._session = start_session(path, name=str(path), device=device)
        nodes = self._session.get_inputs(), self._session.get_outputs()
        check_graph(path, *({node.name for node in several} for several in nodes))
        self._count = np.array(max_keypoints, np.int64)
        self.facts = {
            "backend": f"onnxruntime {onnxruntime.__version__}",
            "device": session_device(self._session),
            "max_keypoints": str(max_keypoints),
            "weights": hashlib.sha256(path.read_bytes()).hexdigest(),
        }

    def match(self, image0: UInt8, image1: UInt8) -> Found:
        """See `Backend.match`; one graph extracts and matches, so that the stages cannot be told apart."""
        return self.run(image0[None], image1[None]).found(0)

    def run(self, image0: UInt8, image1: UInt8) -> PaddedMatches:
        """Match a batch of pairs: two arrays (B, H, W, 3)."""
        feed = {"image0": image0, "image1": image1, "max_keypoints": self._count}
        return PaddedMatches(*self._session.run(PaddedMatches._fields, feed))


def start_session(model: Path | bytes, *, name: str, device: str) -> Any:
    """An ONNX Runtime session.

    Args:
        model: an .onnx file, or the content of one.
        name: what an error message calls it.
        device: "auto", "cpu" or "cuda".

    Raises:
        InputError: it is no ONNX graph that can be run, or there is no such device.
    """
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4  # errors reach the user as exceptions, warnings about shapes help nobody
    # Waiting threads that spin take the cores from whoever shares the machine. Measured on two cores: with spinning a
    # pair takes a twentieth less where nothing else runs, and two fifths more beside one busy program
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    # A plan of the memory for every size that comes: no faster here than without, and all of them are kept
    options.enable_mem_pattern = False
    if threads := thread_count():
        options.intra_op_num_threads = threads
    providers = _providers(device)
    source = model if isinstance(model, bytes) else str(model)
    try:
        return onnxruntime.InferenceSession(source, options, providers=providers)
    except Exception as error:  # ONNX Runtime's exceptions share no base but Exception
        reason = str(error).splitlines()[0][:160]
        raise InputError(f"{name} is no ONNX graph that ONNX Runtime can run: {reason}") from error


def session_device(session: Any) -> str:
    """Where a session runs: "cuda" or "cpu"."""
    return "cuda" if "CUDAExecutionProvider" in session.get_providers() else "cpu"


def _providers(device: str) -> list[Any]:
    has_cuda = "CUDAExecutionProvider" in onnxruntime.get_available_providers()
    if device == "cuda" and not has_cuda:
        raise InputError("device is cuda, but this ONNX Runtime has no CUDA provider: pip install onnxruntime-gpu")
    # by default every size that comes is timed with all of cuDNN's algorithms first
    cuda = [("CUDAExecutionProvider", {"cudnn_conv_algo_search": "HEURISTIC"})] if has_cuda and device != "cpu" else []
    return [*cuda, "CPUExecutionProvider"]
