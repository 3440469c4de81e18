"""Every matcher of kornia with random weights: it runs on images of any size, and what it finds lies in them."""

import sys
from collections.abc import Callable
from functools import cache
from pathlib import Path

import cv2
import kornia.feature as kf
import numpy as np
import pytest
import safetensors.torch
import torch
from torch.nn import functional

import tiepoint
from tiepoint.runtime import Matcher
from tiepoint.runtime.device import to_tensor
from tiepoint.runtime.kornia_features import EXTRACTIONS
from tiepoint.runtime.kornia_matchers import KorniaMatcher
from tiepoint.runtime.kornia_pairing import pairing
from tiepoint.runtime.peers import PEERS

COUNT = 48
# of stages that the others have too
AGAIN = (
    "aliked-n16rot",
    "aliked-n32",
    "dedode",
    "dedode+lightglue",
    "keynet-affnet-hardnet",
    "dog-hardnet+lightglue",
    "dog-affnet-hardnet",
    "dog-affnet-hardnet+lightglue",
    "loftr-indoor",
)
NAMES = [pytest.param(name, marks=pytest.mark.slow) if name in AGAIN else name for name in PEERS]


@cache
def texture() -> np.ndarray:
    coarse = np.random.default_rng(0).uniform(0, 255, (24, 28, 3)).astype(np.float32)
    return cv2.resize(coarse, (131, 113), interpolation=cv2.INTER_CUBIC).clip(0, 255).astype(np.uint8)


@pytest.fixture
def load(tmp_path: Path) -> Callable[[str], Matcher]:
    """A matcher by name, through `tiepoint.load`, with the weights that kornia's classes start with."""

    def loaded(name: str, seed: int = 0) -> Matcher:
        torch.manual_seed(seed)
        extraction = EXTRACTIONS[name.partition("+")[0]](COUNT)
        networks = extraction.networks | pairing(name, extraction, count=COUNT, graphs=[], device="cpu").networks
        assert set(networks) == set(PEERS[name].parts)
        for part, network in networks.items():
            safetensors.torch.save_file(network.state_dict(), tmp_path / f"my-{part}.safetensors")
        return tiepoint.load(name, max_keypoints=COUNT, weights=sorted(tmp_path.glob("*.safetensors")))

    return loaded


@pytest.mark.parametrize("name", NAMES)
def test_runs_on_any_size_and_stays_within_bounds(name: str, load: Callable[[str], Matcher]) -> None:
    matcher = load(name)
    photo = texture()
    tiny, blank = photo[:8, :11].copy(), np.full((30, 20, 3), 200, np.uint8)
    for image0, image1 in ((photo, photo[3:104, 5:].copy()), (tiny, blank)):
        measured = matcher.measure(image0, image1)
        matches = measured.matches
        assert len(matches) <= COUNT
        for points, image in (
            (matches.keypoints0, image0),
            (matches.keypoints1, image1),
            (measured.keypoints0, image0),
            (measured.keypoints1, image1),
        ):
            if points is not None:
                assert len(points) <= COUNT
                assert (points >= -0.5).all()
                assert (points <= np.array(image.shape[1::-1]) - 0.5).all()
        if measured.keypoints0 is None:
            assert name in ("xfeat-star", "loftr", "loftr-indoor")
        else:
            known = {tuple(point) for point in measured.keypoints0.tolist()}
            assert {tuple(point) for point in matches.keypoints0.tolist()} <= known
        assert set(measured.seconds) == ({"match"} if name == "xfeat-star" else {"extract", "match"})
    assert matcher.fingerprint.startswith(f"{name}; backend=torch {torch.__version__}; device=cpu; kornia=")
    assert all(f"{part}:" in matcher.fingerprint for part in PEERS[name].parts)


@pytest.mark.parametrize("name", ["aliked-t16", "disk", "dog-hardnet", "gftt-affnet-hardnet"])
def test_even_random_descriptors_find_a_translation(name: str, load: Callable[[str], Matcher]) -> None:
    photo = texture()
    matches = load(name)(photo[:96, :112].copy(), photo[16:112, 16:128].copy())
    error = np.linalg.norm(matches.keypoints1 + 16 - matches.keypoints0, axis=1)
    assert len(matches) >= 10
    assert (error < 2).mean() > 0.5


def test_the_same_twice(load: Callable[[str], Matcher]) -> None:
    matcher = load("dog-affnet-hardnet")
    first, second = matcher(texture(), texture()[5:]), matcher(texture(), texture()[5:])
    assert np.array_equal(first.keypoints0, second.keypoints0)
    assert np.array_equal(first.scores, second.scores)


def test_xfeats_keypoints_are_the_centres_of_the_pixels_that_it_saw() -> None:
    torch.manual_seed(0)
    extraction = EXTRACTIONS["xfeat"](2000)
    head = extraction.networks["xfeat"].keypoint_head[-1]
    with torch.no_grad():
        head.weight *= 60  # a random network is never sure of a keypoint
    extraction.module.eval()
    image = to_tensor(texture(), "cpu")
    small = functional.interpolate(image, (96, 128), mode="bilinear", align_corners=False)
    with torch.inference_mode():
        found, seen = extraction.run(image), extraction.module.detectAndCompute(small)[0]["keypoints"]
    assert len(seen) > 20
    # as cv2.resize and every other tool of the house sees it
    scale = torch.tensor([131 / 128, 113 / 96])
    assert torch.allclose(found.keypoints, (seen + 0.5) * scale - 0.5, atol=1e-4)


def test_dedodes_keypoints_are_pixels() -> None:
    torch.manual_seed(0)
    extraction = EXTRACTIONS["dedode"](100)
    extraction.module.eval()
    with torch.inference_mode():
        keypoints = extraction.run(to_tensor(texture()[:40, :52], "cpu")).keypoints
    assert torch.allclose(keypoints, keypoints.round(), atol=1e-3)
    assert keypoints.min() >= -1e-3
    assert (keypoints <= torch.tensor([51.001, 39.001])).all()


def test_slots_that_a_detector_leaves_empty_are_no_keypoints() -> None:
    torch.manual_seed(0)
    extraction = EXTRACTIONS["dog-hardnet"](500)
    image = to_tensor(texture(), "cpu")
    with torch.inference_mode():
        found = extraction.run(image)
        frames, _, _ = extraction.module(image.mean(1, keepdim=True))
    assert frames.shape[1] == 500
    assert 0 < len(found.keypoints) < 500
    assert kf.laf_is_filled(found.frames[None]).all()
    assert len(found.keypoints) == len(found.descriptors) == len(found.frames)


def test_each_loftr_has_the_positional_encoding_that_it_was_trained_with() -> None:
    encodings = [EXTRACTIONS[name](COUNT).module.pos_encoding.pe for name in ("loftr", "loftr-indoor")]
    # only the newer indoor weights know the encoding of the paper: sines of frequencies 10000^(-2i / 128)
    frequencies = torch.exp(torch.arange(0, 128, 2).float() * (-torch.log(torch.tensor(10000.0)) / 128))
    expected = torch.sin(frequencies * 5)  # the fifth column
    assert torch.allclose(encodings[1][0, 0::4, 0, 4], expected, atol=1e-4)
    assert not torch.allclose(encodings[0][0, 0::4, 0, 4], expected, atol=1e-1)


def test_no_gpu_is_one_sentence() -> None:
    if torch.cuda.is_available():
        pytest.skip("there is a GPU")
    with pytest.raises(tiepoint.InputError, match="device is cuda, but torch finds no GPU"):
        KorniaMatcher("xfeat", max_keypoints=10, device="cuda", weights=[])


def test_without_torch_the_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "tiepoint.runtime.kornia_matchers", None)
    with pytest.raises(tiepoint.InputError, match=r"xfeat needs torch and kornia.*pip install 'tiepoint\[train\]'"):
        tiepoint.load("xfeat")
