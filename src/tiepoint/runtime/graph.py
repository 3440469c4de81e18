"""One ONNX graph from two images to their matches, on ONNX Runtime."""

import os
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime

from tiepoint.errors import InputError
from tiepoint.images import UInt8
from tiepoint.runtime.matcher import PaddedMatches, Points

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
        self._session = _session(path, _providers(device))
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

    def match(self, image0: UInt8, image1: UInt8) -> Points:
        """See `Backend.match`."""
        return self.run(image0[None], image1[None]).points(0)

    def run(self, image0: UInt8, image1: UInt8) -> PaddedMatches:
        """Match a batch of pairs: two arrays (B, H, W, 3)."""
        feed = {"image0": image0, "image1": image1, "max_keypoints": self._count}
        return PaddedMatches(*self._session.run(PaddedMatches._fields, feed))


def _providers(device: str) -> list[str]:
    has_cuda = "CUDAExecutionProvider" in onnxruntime.get_available_providers()
    if device == "cuda" and not has_cuda:
        raise InputError("device is cuda, but this ONNX Runtime has no CUDA provider: pip install onnxruntime-gpu")
    cuda = ["CUDAExecutionProvider"] if has_cuda and device != "cpu" else []
    return [*cuda, "CPUExecutionProvider"]


def _session(path: Path, providers: list[str]) -> Any:
    if not path.is_file():
        raise InputError(f"{path} {'is a folder' if path.is_dir() else 'does not exist'}, expected an .onnx file")
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3  # errors reach the user as exceptions, warnings about shapes help nobody
    # waiting threads that spin take the cores from whoever shares the machine
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    if threads := os.environ.get("OMP_NUM_THREADS"):
        # ONNX Runtime's own pool ignores it; who pins the threads of a process means all of them
        options.intra_op_num_threads = int(threads.split(",")[0])  # OpenMP takes a list, one number a level
    try:
        return onnxruntime.InferenceSession(str(path), options, providers=providers)
    except Exception as error:  # ONNX Runtime's exceptions share no base but Exception
        reason = str(error).splitlines()[0][:160]
        raise InputError(f"{path} is no ONNX graph that ONNX Runtime can run: {reason}") from error
