"""What docs/depth.md claims of the public sets."""

import json
import runpy
from pathlib import Path

import pytest

SHARED = Path(__file__).parents[3] / "shared" / "data"
SCRIPT = Path(__file__).parents[2] / "benchmarks" / "depth.py"


def main(*args: str) -> int:
    return runpy.run_path(str(SCRIPT))["main"](args)


def test_a_folder_without_scenes_is_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main("--data", str(tmp_path)) == 2
    assert capsys.readouterr().err.count("\n") == 1


@pytest.mark.slow
@pytest.mark.skipif(not (SHARED / "stereo").is_dir(), reason="the public stereo pairs are not there")
def test_depth_is_better_than_opencv_on_every_scene(tmp_path: Path) -> None:
    assert main("--data", str(SHARED), "--json", str(tmp_path / "a.json")) == 0
    told = json.loads((tmp_path / "a.json").read_text())["stereo"]
    assert told["tiepoint"]["bad2"] < told["OpenCV SGBM"]["bad2"]
    assert told["tiepoint"]["epe"] < told["OpenCV SGBM"]["epe"]
    for row in told["scenes"].values():
        assert row["tiepoint"]["bad2"] < row["OpenCV SGBM"]["bad2"]
