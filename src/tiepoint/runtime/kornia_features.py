"""The first stage of kornia's matchers: an image in, its keypoints and descriptors out.

Keypoints have pixel centres at integers, and there are at most as many as asked for.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any, NamedTuple

import kornia.feature as kf
from kornia.color import rgb_to_grayscale
from kornia.feature.loftr.loftr import default_cfg
from kornia.geometry.subpix import ConvQuadInterp3d
from kornia.geometry.transform import ScalePyramid
from torch import Tensor, nn


class Features(NamedTuple):
    """The keypoints of one image.

    Attributes:
        size: (height, width) of the image.
        keypoints: (N, 2).
        descriptors: (N, D).
        frames: (N, 2, 3), local affine frames, of the methods that have them.
    """

    size: tuple[int, int]
    keypoints: Tensor
    descriptors: Tensor
    frames: Tensor | None = None


class Dense(NamedTuple):
    """What a method without keypoints makes of one image of (height, width)."""

    size: tuple[int, int]
    maps: Any


@dataclass(frozen=True)
class Extraction:
    """The first stage of a matcher.

    Attributes:
        networks: what weights are loaded into, by the key of `peers.WEIGHTS`.
        module: all of it, to be moved to a device.
        run: features of an image (1, 3, H, W) in [0, 1].
    """

    networks: dict[str, nn.Module]
    module: nn.Module
    run: Callable[[Tensor], Features | Dense]


def _xfeat(count: int) -> Extraction:
    network = kf.XFeat(top_k=count)
    network.net.fine_matcher = nn.Identity()  # only XFeat* has a use for it, and some weight files leave it out

    def run(image: Tensor) -> Features:
        height, width = size_of(image)
        # XFeat shrinks to multiples of 32 and calls pixel i of the small image i * ratio of the large one, whose true
        # place is (i + 0.5) * ratio - 0.5
        ratio = image.new_tensor([width / max(32, width // 32 * 32), height / max(32, height // 32 * 32)])
        found = network.detectAndCompute(image)[0]
        return Features((height, width), found["keypoints"] + (ratio - 1) / 2, found["descriptors"])

    return Extraction({"xfeat": network.net}, network, run)


def _xfeat_star(count: int) -> Extraction:
    network = kf.XFeat(top_k=count)
    return Extraction({"xfeat": network.net}, network, lambda image: Dense(size_of(image), image))


def _aliked(variant: str, count: int) -> Extraction:
    network = kf.ALIKED(variant, max_num_keypoints=count)

    def run(image: Tensor) -> Features:
        found = network(image)[0]
        return Features(size_of(image), found.keypoints, found.descriptors)

    return Extraction({variant: network}, network, run)


def _disk(count: int) -> Extraction:
    network = kf.DISK()

    def run(image: Tensor) -> Features:
        found = network(image, n=count, pad_if_not_divisible=True)[0]
        return Features(size_of(image), found.keypoints, found.descriptors)

    return Extraction({"disk": network}, network, run)


def _dedode(count: int) -> Extraction:
    network = kf.DeDoDe("L", "B")

    def run(image: Tensor) -> Features:
        keypoints, _, descriptors = network(image, n=count)
        return Features(size_of(image), keypoints[0] - 0.5, descriptors[0])  # it puts pixel centres at halves

    parts = {"dedode-detector": network.detector, "dedode-descriptor": network.descriptor}
    return Extraction(parts, network, run)


def _keynet(affine: bool, count: int) -> Extraction:
    parts = {"keynet": None, "orinet": kf.OriNet(pretrained=False), "hardnet": kf.HardNet(pretrained=False)}
    if affine:
        parts["affnet"] = kf.LAFAffNetShapeEstimator(pretrained=False, preserve_orientation=False)
    orienter = kf.LAFOrienter(angle_detector=parts["orinet"])
    detector = kf.KeyNetDetector(False, count, ori_module=orienter, aff_module=parts.get("affnet"))
    parts["keynet"] = detector.model
    return _frames(parts, kf.LocalFeature(detector, kf.LAFDescriptor(parts["hardnet"])))


def _blobs(response: str, affine: bool, count: int) -> Extraction:
    """Detectors in scale space, with the options of kornia's presets of these names."""
    parts = {"hardnet": kf.HardNet(pretrained=False)}
    if affine:
        parts["affnet"] = kf.LAFAffNetShapeEstimator(pretrained=False, preserve_orientation=False)
    dog = response == "dog"
    corners = kf.BlobHessian() if response == "hessian" else kf.CornerGFTT()
    detector = kf.ScaleSpaceDetector(
        count,
        resp_module=kf.BlobDoG() if dog else corners,
        **({"subpix_module": ConvQuadInterp3d()} if dog else {}),
        scale_pyr_module=ScalePyramid(3, 1.6, 32, double_image=True, **({} if dog else {"extra_levels": 2})),
        ori_module=kf.LAFOrienter(19),
        aff_module=parts.get("affnet"),
        scale_space_response=dog,
        minima_are_also_good=dog,
        mr_size=6.0,
    )
    scale = 2.0 if dog else 1.0  # the frames that HardNet's LightGlue was trained on are as large as twelve sigma
    return _frames(parts, kf.LocalFeature(detector, kf.LAFDescriptor(parts["hardnet"]), scale))


def _sift(count: int) -> Extraction:
    # the layout of OpenCV's descriptors is the one that LightGlue was trained on
    return _frames({}, kf.SIFTFeatureScaleSpace(count, descriptor_backend="pyramid", descriptor_layout="opencv"))


def _frames(parts: dict[str, nn.Module], network: nn.Module) -> Extraction:
    """A detector of local affine frames; slots that it has not filled are dropped."""

    def run(image: Tensor) -> Features:
        frames, _, descriptors = network(rgb_to_grayscale(image))
        filled = kf.laf_is_filled(frames)[0]
        centres = kf.get_laf_center(frames)[0]
        return Features(size_of(image), centres[filled], descriptors[0][filled], frames[0][filled])

    return Extraction(parts, network, run)


def _loftr(part: str, count: int) -> Extraction:
    config = default_cfg | {"coarse": default_cfg["coarse"] | {"temp_bug_fix": part == "loftr-indoor"}}
    network = kf.LoFTR(pretrained=None, config=config)

    def run(image: Tensor) -> Dense:
        return Dense(size_of(image), network.extract_features(rgb_to_grayscale(image)))

    return Extraction({part: network}, network, run)


DETECTORLESS = ("xfeat-star", "loftr", "loftr-indoor")  # of these, those that give no keypoints


def size_of(image: Tensor) -> tuple[int, int]:
    """Height and width of images (B, C, H, W)."""
    return int(image.shape[-2]), int(image.shape[-1])


EXTRACTIONS: dict[str, Callable[[int], Extraction]] = {
    "xfeat": _xfeat,
    "xfeat-star": _xfeat_star,
    **{variant: partial(_aliked, variant) for variant in ("aliked-t16", "aliked-n16", "aliked-n16rot", "aliked-n32")},
    "disk": _disk,
    "dedode": _dedode,
    "keynet-hardnet": partial(_keynet, False),
    "keynet-affnet-hardnet": partial(_keynet, True),
    "dog-hardnet": partial(_blobs, "dog", False),
    "dog-affnet-hardnet": partial(_blobs, "dog", True),
    "hessian-affnet-hardnet": partial(_blobs, "hessian", True),
    "gftt-affnet-hardnet": partial(_blobs, "gftt", True),
    "sift": _sift,
    "loftr": partial(_loftr, "loftr"),
    "loftr-indoor": partial(_loftr, "loftr-indoor"),
}
