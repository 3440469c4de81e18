"""One ONNX graph from two images to their matches, on ONNX Runtime."""

import hashlib
import os
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime

from tiepoint.errors import InputError
from tiepoint.images import UInt8
from tiepoint.runtime.matcher import Found, PaddedMatches

INPUTS = ("image0", "image1", "max_keypoints")


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
        if not path.is_file():
            raise InputError(f"{path} {'is a folder' if path.is_dir() else 'does not exist'}, expected an .onnx file")
        self._session = start_session(path, name=str(path), device=device)
        names = (
            {node.name for node in self._session.get_inputs()},
            {n.name for n in self._session.get_outputs()},
        )
        if names[0] != set(INPUTS) or not names[1] >= set(PaddedMatches._fields):
            raise InputError(
                f"{path} is an ONNX graph from {', '.join(sorted(names[0]))} to {', '.join(sorted(names[1]))}, "
                f"expected one from {', '.join(INPUTS)} to {', '.join(PaddedMatches._fields)}, "
                "as `tiepoint convert` writes it"
            )
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
    options.log_severity_level = 3  # errors reach the user as exceptions, warnings about shapes help nobody
    # Waiting threads that spin take the cores from whoever shares the machine. Measured on two cores: with spinning a
    # pair takes a twentieth less where nothing else runs, and two fifths more beside one busy program
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    if threads := os.environ.get("OMP_NUM_THREADS"):
        # ONNX Runtime's own pool ignores it; who pins the threads of a process means all of them
        options.intra_op_num_threads = int(threads.split(",")[0])  # OpenMP takes a list, one number a level
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


def _providers(device: str) -> list[str]:
    has_cuda = "CUDAExecutionProvider" in onnxruntime.get_available_providers()
    if device == "cuda" and not has_cuda:
        raise InputError("device is cuda, but this ONNX Runtime has no CUDA provider: pip install onnxruntime-gpu")
    cuda = ["CUDAExecutionProvider"] if has_cuda and device != "cpu" else []
    return [*cuda, "CPUExecutionProvider"]
