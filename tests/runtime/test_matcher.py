"""What every backend shares: coordinates of the images as given, stages that add up, a fingerprint that tells."""

import os
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from types import MappingProxyType

import numpy as np
import pytest
import torch
from skimage import data

import tiepoint
from tiepoint.checkpoints import Weights, write_pt
from tiepoint.images import to_original
from tiepoint.models.pyramid import PyramidExtractor
from tiepoint.runtime import Matcher
from tiepoint.runtime.matcher import Found, timed

NOWHERE: Mapping[str, float] = MappingProxyType({})


class Told:
    """A backend that finds what it is told, after a rest."""

    facts: Mapping[str, str] = MappingProxyType({"backend": "told 1.0", "max_keypoints": "7"})

    def __init__(self, seconds: Mapping[str, float] = NOWHERE, keypoints: bool = True) -> None:
        points = np.array([[0, 0], [10, 20], [30, 5]], np.float32)
        known = (points, points + 1) if keypoints else (None, None)
        self.found = Found(points[:2], points[:2] + 1, np.array([0.25, 0.75], np.float32), *known, seconds)
        self.sizes: list[tuple[int, ...]] = []

    def match(self, image0: np.ndarray, image1: np.ndarray) -> Found:
        self.sizes += [image0.shape, image1.shape]
        time.sleep(0.02)
        return self.found


@pytest.fixture(scope="module")
def pair() -> tuple[np.ndarray, np.ndarray]:
    photo = data.astronaut()
    return photo[:300, :400].copy(), photo[12:312, 30:430].copy()


def test_matches_and_keypoints_refer_to_the_images_as_given() -> None:
    backend = Told()
    images = np.zeros((200, 300, 3), np.uint8), np.zeros((128, 64, 3), np.uint8)
    measured = Matcher(backend, name="told", long_side=100).measure(*images)
    assert backend.sizes == [(67, 100, 3), (100, 50, 3)]
    scale0, scale1 = (3.0, 200 / 67), (1.28, 1.28)
    assert np.allclose(measured.keypoints0, to_original(backend.found.keypoints0, scale0))
    assert np.allclose(measured.keypoints1, to_original(backend.found.keypoints1, scale1))
    assert np.allclose(measured.matches.keypoints0, measured.keypoints0[[1, 0]])
    assert measured.matches.scores.tolist() == [0.75, 0.25]
    assert (measured.matches.size0, measured.matches.size1) == ((200, 300), (128, 64))


def test_no_keypoints_where_there_is_no_detector() -> None:
    measured = Matcher(Told(keypoints=False), name="told").measure(*[np.zeros((50, 60, 3), np.uint8)] * 2)
    assert measured.keypoints0 is None
    assert measured.keypoints1 is None


def test_the_whole_time_is_one_stage_where_none_can_be_told_apart() -> None:
    start = time.perf_counter()
    seconds = Matcher(Told(), name="told").measure(*[np.zeros((50, 60, 3), np.uint8)] * 2).seconds
    assert set(seconds) == {"match"}
    assert 0.02 <= seconds["match"] <= time.perf_counter() - start


def test_stages_add_up_to_the_whole() -> None:
    matcher = Matcher(Told({"extract": 0.015, "match": 0.003}), name="told", long_side=64)
    start = time.perf_counter()
    seconds = matcher.measure(*[np.zeros((500, 600, 3), np.uint8)] * 2).seconds
    assert set(seconds) == {"extract", "match"}
    assert seconds["extract"] > 0.015
    assert seconds["match"] > 0.003
    assert 0.02 <= sum(seconds.values()) <= time.perf_counter() - start


def test_timed_adds_up_and_waits_for_what_goes_on_behind() -> None:
    seconds: dict[str, float] = {}
    with timed(seconds, "extract", wait=lambda: time.sleep(0.01)):
        pass
    first = seconds["extract"]
    assert first >= 0.01
    with timed(seconds, "extract"):
        time.sleep(0.01)
    assert seconds["extract"] >= first + 0.01


def test_calling_and_measuring_find_the_same(pair: tuple[np.ndarray, np.ndarray]) -> None:
    matcher = tiepoint.load(max_keypoints=256)
    matches, measured = matcher(*pair), matcher.measure(*pair)
    assert np.array_equal(matches.keypoints0, measured.matches.keypoints0)
    assert np.array_equal(matches.scores, measured.matches.scores)


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    torch.manual_seed(0)
    path = tmp_path_factory.mktemp("weights") / "random.pt"
    write_pt(path, Weights(PyramidExtractor().eval(), {}))
    return path


@pytest.mark.parametrize("name", ["default", "sift", "orb", "checkpoint"])
def test_every_match_joins_two_keypoints(name: str, pair: tuple[np.ndarray, np.ndarray], checkpoint: Path) -> None:
    model = checkpoint if name == "checkpoint" else name
    measured = tiepoint.load(model, max_keypoints=100).measure(*pair)
    stages = {"match"} if name == "default" else {"extract", "match"}
    assert set(measured.seconds) == stages
    assert min(measured.seconds.values()) > 0
    for keypoints, matched in (
        (measured.keypoints0, measured.matches.keypoints0),
        (measured.keypoints1, measured.matches.keypoints1),
    ):
        assert keypoints is not None
        assert 0 < len(keypoints) <= 100
        known = {tuple(point) for point in keypoints.tolist()}
        assert {tuple(point) for point in matched.tolist()} <= known


def test_blank_images_have_no_keypoints() -> None:
    measured = tiepoint.load().measure(*[np.full((64, 80, 3), 90, np.uint8)] * 2)
    assert measured.keypoints0 is not None
    assert len(measured.keypoints0) == 0


def test_a_fingerprint_tells_everything_that_decides() -> None:
    matcher = Matcher(Told(), name="runs/mine/last.ckpt")
    matcher.long_side = 640
    assert matcher.fingerprint == (
        f"last.ckpt; backend=told 1.0; long_side=640; max_keypoints=7; tiepoint={tiepoint.__version__}"
    )


@pytest.mark.parametrize(
    "change",
    [
        lambda: tiepoint.load("default", max_keypoints=100),
        lambda: tiepoint.load("sift", max_keypoints=128),
        lambda: tiepoint.load("orb", max_keypoints=128),
    ],
)
def test_fingerprints_differ_where_answers_may(change: Callable[[], Matcher]) -> None:
    assert change().fingerprint != tiepoint.load("default", max_keypoints=128).fingerprint


def test_a_weight_file_is_known_by_its_content_wherever_it_lies(checkpoint: Path, tmp_path: Path) -> None:
    copy = tmp_path / checkpoint.name
    copy.write_bytes(checkpoint.read_bytes())
    assert tiepoint.load(copy).fingerprint == tiepoint.load(checkpoint).fingerprint
    torch.manual_seed(1)
    write_pt(copy, Weights(PyramidExtractor().eval(), {}))
    assert tiepoint.load(copy).fingerprint != tiepoint.load(checkpoint).fingerprint


def test_a_fingerprint_outlives_the_process() -> None:
    told = "import tiepoint; print(tiepoint.load('default').fingerprint)"
    surroundings = {**os.environ, "PYTHONHASHSEED": "7"}
    done = subprocess.run([sys.executable, "-c", told], capture_output=True, text=True, env=surroundings, check=True)
    assert done.stdout.strip() == tiepoint.load("default").fingerprint
