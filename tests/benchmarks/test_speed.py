"""The command that measures speed: its figures, and what it says to wrong input."""

import json
import runpy
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest
from PIL import Image
from skimage import data

FOLDER = Path(__file__).parents[2] / "benchmarks"
Main = Callable[[Sequence[str]], int]


@pytest.fixture(scope="module")
def main() -> Main:
    return runpy.run_path(str(FOLDER / "speed.py"))["main"]


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    folder = tmp_path / "photos"
    folder.mkdir()
    for name, photo in zip("ab", data.stereo_motorcycle()[:2], strict=True):
        Image.fromarray(photo).save(folder / f"{name}.png")
    return folder


def test_measures_and_says_what_is_left_out(
    main: Main, photos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    options = ["--methods", "default", "orb", "dedode", "--repeats", "3", "--cold", "0", "--keypoints", "256"]
    assert main(["--photos", str(photos), *options, "--json", str(tmp_path / "speed.json")]) == 0
    told = json.loads((tmp_path / "speed.json").read_text())
    assert [row["method"] for row in told["methods"]] == ["default", "orb"]
    for row in told["methods"]:
        assert 10 < row["matches"] <= 256
        assert min(row["rounds"]) <= row["milliseconds"] <= max(row["rounds"])
        assert len(row["rounds"]) == 3
    assert "dedode_detector_L_v2.pth is not in --peers" in told["left out"]["dedode"]
    assert 0.1e6 < told["bytes"]["default.onnx"] < 4e6
    out = capsys.readouterr().out
    assert "default" in out
    assert "left out" in out


def test_the_stages_of_a_cold_run_are_those_of_the_command(photos: Path) -> None:
    command = [sys.executable, str(FOLDER / "startup.py"), str(photos / "a.png"), str(photos / "b.png")]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    stages = json.loads(done.stdout)
    assert list(stages) == ["import", "session", "read", "match", "write", "draw", "rest"]
    assert all(seconds > 0 for seconds in stages.values())


@pytest.mark.parametrize(
    ("options", "named"),
    [
        (["--photos", "nowhere"], "nowhere is not a folder"),
        (["--photos", "a.png", "b.png", "c.png"], "3 are given"),
        (["--photos", "a.png", "nowhere.png"], "nowhere.png does not exist"),
        (["--photos", "."], "holds 1 photos"),
        (["--threads", "0"], "--threads is 0"),
        (["--peers", "nowhere"], "--peers: nowhere is not a folder"),
        (["--methods", "nonsense"], "nonsense"),
        (["--model", "nowhere.onnx"], "nowhere.onnx does not exist"),
        (["--json", "a.png/speed.json"], "a.png/speed.json cannot be written"),
    ],
)
def test_wrong_input_is_one_sentence(
    options: list[str],
    named: str,
    main: Main,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    Image.new("RGB", (64, 64)).save("a.png")
    assert main(options) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err.count("\n") == 1
    assert named in captured.err
