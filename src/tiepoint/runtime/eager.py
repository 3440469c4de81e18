"""The same matcher in torch, from every kind of weight file."""

import hashlib
import time
from pathlib import Path

import torch

from tiepoint.checkpoints import read_weights
from tiepoint.images import UInt8
from tiepoint.models.blocks import deployed
from tiepoint.runtime.device import torch_device, waiting_for
from tiepoint.runtime.matcher import Found, PaddedMatches, timed


class EagerNetwork:
    """Runs the networks of a weight file, fused as an ONNX graph holds them.

    Args:
        path: a .ckpt, .pt, .safetensors or .onnx file.
        max_keypoints: keypoints an image.
        device: "auto", "cpu" or "cuda".

    Raises:
        InputError: the file is missing or of something else, or there is no such device.
    """

    def __init__(self, path: Path, *, max_keypoints: int, device: str) -> None:
        self._device = torch_device(device)
        network = deployed(read_weights(path).two_view()).to(self._device)
        extractor = network.get_submodule("extractor")
        extractor.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        self._network = network
        self._count = torch.tensor(max_keypoints)
        self._extracting = _Stopwatch(extractor, self._device)
        self.facts = {
            "backend": f"torch {torch.__version__}",
            "device": self._device,
            "max_keypoints": str(max_keypoints),
            "weights": hashlib.sha256(path.read_bytes()).hexdigest(),
        }

    def match(self, image0: UInt8, image1: UInt8) -> Found:
        """See `Backend.match`."""
        seconds = dict.fromkeys(("extract", "match"), 0.0)
        with timed(seconds, "match", wait=waiting_for(self._device)), self._extracting as extracting:
            padded = self.run(image0[None], image1[None])
        seconds["extract"] = extracting.seconds
        seconds["match"] -= extracting.seconds
        return padded.found(0, seconds)

    @torch.inference_mode()
    def run(self, image0: UInt8, image1: UInt8) -> PaddedMatches:
        """Match a batch of pairs: two arrays (B, H, W, 3)."""
        # torch.tensor copies: the caller's array may be read-only
        images = (torch.tensor(image).to(self._device) for image in (image0, image1))
        return PaddedMatches(*(field.cpu().numpy() for field in self._network(*images, self._count)))


class _Stopwatch:
    """The time that a module spends in its forward pass while this context is open."""

    def __init__(self, module: torch.nn.Module, device: str) -> None:
        self._module, self._wait = module, waiting_for(device)
        self.seconds = self._start = 0.0

    def __enter__(self) -> "_Stopwatch":
        self.seconds = 0.0
        self._hooks = [
            self._module.register_forward_pre_hook(lambda *_: self._begin()),
            self._module.register_forward_hook(lambda *_: self._end()),
        ]
        return self

    def __exit__(self, *_: object) -> None:
        for hook in self._hooks:
            hook.remove()

    def _begin(self) -> None:
        if self._wait:
            self._wait()
        self._start = time.perf_counter()

    def _end(self) -> None:
        if self._wait:
            self._wait()
        self.seconds += time.perf_counter() - self._start
