"""The peers' own weights on a real pair with a true homography."""

import os
from pathlib import Path

import cv2
import numpy as np
import pytest

import tiepoint
from tiepoint.cli import main
from tiepoint.formats import read_matches
from tiepoint.geometry import warp_points
from tiepoint.types import Matches

SHARED = Path(__file__).parents[3] / "shared"
PEERS = Path(os.environ.get("TIEPOINT_PEERS", SHARED / "peers"))
GRAF = Path(os.environ.get("TIEPOINT_DATA", SHARED / "data")) / "homography" / "ox_graf"
pytestmark = pytest.mark.skipif(
    not (PEERS / "xfeat.safetensors").is_file() or not GRAF.is_dir(),
    reason=f"no weights in {PEERS} or no pairs in {GRAF} (set TIEPOINT_PEERS and TIEPOINT_DATA)",
)


def shares(matches: Matches) -> float:
    """Share of matches within 3 px of the truth."""
    true = warp_points(np.loadtxt(GRAF / "H_1_2"), matches.keypoints0)
    return float((np.linalg.norm(true - matches.keypoints1, axis=1) < 3).mean())


@pytest.mark.parametrize(
    ("name", "files", "least", "share"),
    [
        ("xfeat", ["xfeat.safetensors"], 600, 0.5),
        ("xfeat+lighterglue", ["xfeat.safetensors", "xfeat_lighterglue.onnx"], 600, 0.6),
        ("aliked-t16", ["aliked-t16.pth"], 700, 0.6),
        pytest.param("aliked-n16", ["aliked-n16.pth"], 500, 0.65, marks=pytest.mark.slow),
    ],
)
def test_finds_the_wall(name: str, files: list[str], least: int, share: float) -> None:
    matcher = tiepoint.load(name, weights=[PEERS / file for file in files])
    matches = matcher(GRAF / "1.jpg", GRAF / "2.jpg")
    assert len(matches) > least
    assert shares(matches) > share


def test_the_command_line_takes_local_weights(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    files = f"[{PEERS / 'xfeat.safetensors'}, {PEERS / 'xfeat_lighterglue.onnx'}]"
    out = tmp_path / "matches.npz"
    command = ["match", str(GRAF / "1.jpg"), str(GRAF / "2.jpg"), "--model", "xfeat+lighterglue", "--weights", files]
    assert main([*command, "--max_keypoints", "1024", "-o", str(out)]) == 0
    assert "(xfeat+lighterglue)" in capsys.readouterr().out
    matches = read_matches(out)
    assert 300 < len(matches) <= 1024
    assert shares(matches) > 0.6


def test_xfeats_coordinates_do_not_drift_where_the_size_is_no_multiple_of_32() -> None:
    matcher = tiepoint.load("xfeat", weights=PEERS / "xfeat.safetensors")
    image = cv2.imread(str(GRAF / "1.jpg"))[:479, :500, ::-1]
    first = matcher.measure(image, image).keypoints0
    second = matcher.measure(image[:, ::-1], image).keypoints0
    assert first is not None
    assert second is not None
    # mirrored, a keypoint lies where its mirror image lies; the frame of XFeat's own code is 0.035 px off on each side
    mirrored = np.array([499, 0]) + second * np.array([-1, 1])
    distance = np.linalg.norm(first[:, None] - mirrored[None], axis=2)
    near = distance.min(axis=1) < 2
    assert near.sum() > 300
    drift = np.median((first - mirrored[distance.argmin(axis=1)])[near], axis=0)
    assert np.abs(drift).max() < 0.01
