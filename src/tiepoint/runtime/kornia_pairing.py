"""The second stage of kornia's matchers: the features of two images in, matches out."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, NamedTuple

import kornia.feature as kf
import torch
from torch import Tensor, nn
from torch.nn import functional

from tiepoint.errors import InputError
from tiepoint.ops.matching import mutual_nearest
from tiepoint.runtime.graph import start_session
from tiepoint.runtime.kornia_features import Dense, Extraction, Features
from tiepoint.runtime.peer_weights import Source
from tiepoint.runtime.peers import PEERS

GLUE_THRESHOLD = 0.1  # LightGlue's own least score; the exported graph leaves it to its caller
GRAPH = {"kpts0", "kpts1", "desc0", "desc1"}, {"matches", "scores"}  # inputs and outputs of LighterGlue's export

# kornia's name for the features that a LightGlue was trained on
GLUES = {
    "xfeat": "xfeat",
    "aliked-n16": "aliked",
    "disk": "disk",
    "dedode": "dedodeb",
    "keynet-affnet-hardnet": "keynet_affnet_hardnet",
    "dog-hardnet": "doghardnet",
    "dog-affnet-hardnet": "dog_affnet_hardnet",
    "sift": "sift",
}


class Paired(NamedTuple):
    """Matched places (N, 2) in both images and their scores (N,) in [0, 1]."""

    points0: Tensor
    points1: Tensor
    scores: Tensor


@dataclass(frozen=True)
class Pairing:
    """The second stage of a matcher.

    Attributes:
        run: the matches of two images' features.
        networks: what weights are loaded into, by the key of `peers.WEIGHTS`.
    """

    run: Callable[[Any, Any], Paired]
    networks: dict[str, nn.Module]


def pairing(name: str, extraction: Extraction, *, count: int, graphs: Sequence[Source], device: str) -> Pairing:
    """The second stage of a matcher.

    Args:
        name: of the matcher, a key of `peers.PEERS`.
        extraction: its first stage.
        count: matches at most, where there is no detector.
        graphs: ONNX files that are given for it.
        device: "cpu" or "cuda".

    Raises:
        InputError: it takes no such ONNX file.
    """
    family, _, glue = name.partition("+")
    if graphs and (glue != "lighterglue" or len(graphs) > 1):
        raise InputError(f"{graphs[-1].title} is an ONNX graph, expected torch weights for {name}")
    if graphs:
        return Pairing(lighterglue_graph(graphs[0], device), {})
    if glue:
        features = GLUES[family]
        options = {key: value for key, value in kf.LightGlue.features[features].items() if key != "weights"}
        network = kf.LightGlue(None, **options)
        return Pairing(partial(match_lightglue, network, features), {PEERS[name].parts[-1]: network})
    if family.startswith("loftr"):
        return Pairing(partial(match_loftr, extraction.module, count), {})
    if family == "xfeat-star":
        return Pairing(partial(match_xfeat_star, extraction.module), {})
    return Pairing(match_dual_softmax if family == "dedode" else match_mutual, {})


def match_mutual(features0: Features, features1: Features) -> Paired:
    """Mutual nearest neighbours; the score is the cosine of the descriptors."""
    return _mutual(features0, features1, features0.descriptors @ features1.descriptors.T, -1.0)


def match_dual_softmax(
    features0: Features, features1: Features, *, temperature: float = 1 / 20, threshold: float = 0.01
) -> Paired:
    """Mutual nearest neighbours in P_ij = softmax_i(c_ij / t) softmax_j(c_ij / t), c the cosine; the score is P.

    Sun et al., CVPR 2021, equation 2; the options are those of DeDoDe's evaluation (Edstedt et al., 3DV 2024).
    """
    unit0, unit1 = (functional.normalize(one.descriptors, dim=1) for one in (features0, features1))
    logits = unit0 @ unit1.T / temperature
    return _mutual(features0, features1, logits.softmax(dim=0) * logits.softmax(dim=1), threshold)


def _mutual(features0: Features, features1: Features, products: Tensor, threshold: float) -> Paired:
    if not products.numel():
        return Paired(features0.keypoints[:0], features1.keypoints[:0], products.new_zeros(0))
    matches0, scores = (field[0] for field in mutual_nearest(products[None], min_similarity=threshold))
    chosen = matches0 >= 0
    return Paired(features0.keypoints[chosen], features1.keypoints[matches0[chosen]], scores[chosen])


def match_lightglue(network: nn.Module, features: str, features0: Features, features1: Features) -> Paired:
    """LightGlue (Lindenberger et al., ICCV 2023).

    Args:
        network: kornia's `LightGlue`.
        features: kornia's name of the features that it was trained on.
        features0: of image 0.
        features1: of image 1.
    """
    found = network({f"image{side}": _glued(one, features) for side, one in enumerate((features0, features1))})
    first, second = found["matches"][0].T
    return Paired(features0.keypoints[first], features1.keypoints[second], found["scores"][0])


def _glued(one: Features, features: str) -> dict[str, Tensor]:
    """What kornia's LightGlue takes for one image: descriptors, and geometry as its weights were trained on."""
    height, width = one.size
    size = one.keypoints.new_tensor([width, height])
    # half a pixel beyond the border is a place like any other, but kornia refuses it
    data = {
        "keypoints": one.keypoints.clamp(torch.zeros_like(size), size)[None],
        "descriptors": one.descriptors[None],
        "image_size": size[None],
    }
    if one.frames is not None:
        frames = one.frames[None]
        scales, angles = kf.get_laf_scale(frames)[..., 0, 0], kf.get_laf_orientation(frames)[..., 0].deg2rad()
        # SIFT's was trained on COLMAP's keypoints: sigma, and angles that turn the other way about
        sift = features == "sift"
        data |= {
            "lafs": frames,
            "scales": scales / 6 if sift else scales,
            "oris": -angles if sift else angles % (2 * torch.pi),
        }
    return data


def lighterglue_graph(source: Source, device: str) -> Callable[[Features, Features], Paired]:
    """LighterGlue on ONNX Runtime; keypoints go in with the image's centre at 0 and its long side from -1 to 1.

    Raises:
        InputError: the file is no ONNX graph, or another one.
    """
    # torch may have a GPU where ONNX Runtime has none
    session = start_session(source.content, name=source.title, device="auto" if device == "cuda" else "cpu")
    names = {node.name for node in session.get_inputs()}, {node.name for node in session.get_outputs()}
    if names != GRAPH:
        raise InputError(
            f"{source.title} is an ONNX graph from {', '.join(sorted(names[0]))} to {', '.join(sorted(names[1]))}, "
            f"expected LighterGlue: from {', '.join(sorted(GRAPH[0]))} to {', '.join(sorted(GRAPH[1]))}"
        )

    def run(features0: Features, features1: Features) -> Paired:
        if not len(features0.keypoints) or not len(features1.keypoints):
            return Paired(features0.keypoints[:0], features1.keypoints[:0], features0.keypoints.new_zeros(0))
        feed = {}
        for side, one in enumerate((features0, features1)):
            feed[f"kpts{side}"] = _centred(one.keypoints, one.size)[None].cpu().numpy()
            feed[f"desc{side}"] = one.descriptors[None].cpu().numpy()
        matches, scores = (torch.from_numpy(array).to(device) for array in session.run(["matches", "scores"], feed))
        kept = scores > GLUE_THRESHOLD
        first, second = matches[kept].T
        return Paired(features0.keypoints[first], features1.keypoints[second], scores[kept])

    return run


def _centred(points: Tensor, size: tuple[int, int]) -> Tensor:
    height, width = size
    return (points - points.new_tensor([width / 2, height / 2])) / (max(height, width) / 2)


def match_loftr(network: Any, count: int, features0: Dense, features1: Dense) -> Paired:
    """LoFTR's coarse and fine matching (Sun et al., CVPR 2021); the `count` best, by the coarse score."""
    found = network({"features0": features0.maps, "features1": features1.maps})
    scores = found["confidence"]
    best = scores.argsort(descending=True, stable=True)[:count]
    # it puts pixel centres at halves
    return Paired(found["keypoints0"][best] - 0.5, found["keypoints1"][best] - 0.5, scores[best])


def match_xfeat_star(network: Any, features0: Dense, features1: Dense) -> Paired:
    """XFeat* (Potje et al., CVPR 2024): matched cells, refined in image 0; it gives no scores, so that all are 1."""
    points0, points1 = network.match_xfeat_star(features0.maps, features1.maps)
    return Paired(points0, points1, points0.new_ones(len(points0)))
