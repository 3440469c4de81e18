"""`tiepoint match`: its files, its picture, its summary."""

import json
import subprocess
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest
from PIL import Image
from skimage import data

from tiepoint import load
from tiepoint.cli import main
from tiepoint.formats import read_matches
from tiepoint.geometry import warp_points


@pytest.fixture(scope="module")
def pair(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path, np.ndarray]:
    """A photograph, the same warped by a homography, and the homography."""
    folder = tmp_path_factory.mktemp("pair")
    photo = data.coffee()
    H = np.array([[0.92, -0.08, 40.0], [0.06, 0.9, 15.0], [5e-5, 2e-5, 1.0]])
    Image.fromarray(photo).save(folder / "left.png")
    Image.fromarray(cv2.warpPerspective(photo, H, (600, 400))).save(folder / "right.png")
    return folder / "left.png", folder / "right.png", H


def test_writes_tables_and_picture(
    pair: tuple[Path, Path, np.ndarray], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    left, right, H = pair
    assert main(["match", str(left), str(right), "--geometry", "homography", "-o", str(tmp_path / "out")]) == 0
    summary = capsys.readouterr().out
    assert summary.count("\n") == 1
    assert "homography" in summary
    assert "inliers" in summary
    files = {path.name for path in (tmp_path / "out").iterdir()}
    assert files == {"left-right.npz", "left-right.json", "left-right.png"}
    matches = read_matches(tmp_path / "out" / "left-right.npz")
    direct = load()(left, right)
    assert np.array_equal(matches.keypoints0, direct.keypoints0)
    content = json.loads((tmp_path / "out" / "left-right.json").read_text())
    corners = np.array([[0.0, 0.0], [599.0, 0.0], [0.0, 399.0], [599.0, 399.0]])
    found = warp_points(content["geometry"]["matrix"], corners)
    assert np.linalg.norm(found - warp_points(H, corners), axis=1).mean() < 3
    with Image.open(tmp_path / "out" / "left-right.png") as picture:
        assert min(picture.size) > 300


@pytest.mark.parametrize("name", ["one.npz", "one.json", "one.png", "one.jpg"])
def test_one_file_where_its_ending_says_so(
    name: str, pair: tuple[Path, Path, np.ndarray], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["match", str(pair[0]), str(pair[1]), "--model", "sift", "-o", str(tmp_path / name)]) == 0
    assert name in capsys.readouterr().out
    assert [path.name for path in tmp_path.iterdir()] == [name]


def test_essential_needs_and_takes_cameras(
    pair: tuple[Path, Path, np.ndarray], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    K = [[600.0, 0.0, 300.0], [0.0, 600.0, 200.0], [0.0, 0.0, 1.0]]
    (tmp_path / "cameras.json").write_text(json.dumps({"K0": K, "K1": K}))
    options = ["--geometry", "essential", "--cameras", str(tmp_path / "cameras.json")]
    assert main(["match", str(pair[0]), str(pair[1]), *options, "-o", str(tmp_path / "m.json")]) == 0
    assert "essential" in capsys.readouterr().out
    geometry = json.loads((tmp_path / "m.json").read_text())["geometry"]
    assert np.allclose(np.array(geometry["rotation"]) @ np.array(geometry["rotation"]).T, np.eye(3))
    assert np.isclose(np.linalg.norm(geometry["translation"]), 1)


def test_too_few_matches_are_said_and_are_no_error(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    Image.new("RGB", (90, 70), (9, 9, 9)).save(tmp_path / "blank.png")
    path = str(tmp_path / "blank.png")
    assert main(["match", path, path, "--geometry", "homography", "-o", str(tmp_path / "out")]) == 0
    out = capsys.readouterr().out
    assert "0 matches" in out
    assert "too few" in out
    assert len(list((tmp_path / "out").iterdir())) == 3


@pytest.mark.parametrize(
    ("options", "unused"),
    [
        (["-o", "m.npz"], {"torch", "loguru", "poselib", "tiepoint.draw", "PIL.ImageFont"}),
        (["-o", "m.png"], {"torch", "loguru", "poselib", "tiepoint.geometry"}),
        (["-o", "m.npz", "--geometry", "homography"], {"torch", "loguru", "tiepoint.draw"}),
    ],
)
def test_a_command_waits_for_nothing_that_it_does_not_need(
    options: list[str], unused: set[str], pair: tuple[Path, Path, np.ndarray], tmp_path: Path
) -> None:
    """Imports are half of the time of a command that matches two small photos."""
    script = (
        "import sys; from tiepoint.cli import main; code = main(sys.argv[1:]);"
        "sys.stderr.write(' '.join(sys.modules)); sys.exit(code)"
    )
    command = [sys.executable, "-c", script, "match", str(pair[0]), str(pair[1]), *options]
    done = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert not unused & set(done.stderr.split())
    assert (tmp_path / options[1]).is_file()


def test_json_of_denoised_images(
    pair: tuple[Path, Path, np.ndarray], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    left, right, _ = pair
    options = ["--denoise", "--json", "--geometry", "homography", "-o", str(tmp_path / "m.json")]
    assert main(["match", str(left), str(right), *options]) == 0
    told = json.loads(capsys.readouterr().out)
    matches = read_matches(tmp_path / "m.json")
    assert (told["denoised"], told["matches"], told["found"]) == (True, len(matches), True)
    assert told["files"] == [str(tmp_path / "m.json")]
    assert np.array_equal(matches.keypoints0, load(denoise=True)(left, right).keypoints0)
    assert main(["match", str(left), str(right), "-o", str(tmp_path / "m.json"), "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert told["denoised"] is False
    assert "geometry" not in told
