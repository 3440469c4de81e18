"""What docs/register.md claims of the public sets."""

import json
import os
import runpy
from pathlib import Path

import pytest

import tiepoint

DATA = Path(os.environ.get("TIEPOINT_DATA", Path(__file__).parents[3] / "shared" / "data"))
SCRIPT = Path(__file__).parents[2] / "benchmarks" / "geometry.py"


def main(*args: str) -> int:
    return runpy.run_path(str(SCRIPT))["main"](args)


def test_a_folder_without_sets_is_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main("--data", str(tmp_path)) == 2
    assert capsys.readouterr().err.count("\n") == 1


def test_times_are_medians_of_turns_without_the_first() -> None:
    turns: list[str] = []
    found = runpy.run_path(str(SCRIPT))["timed"]({name: lambda name=name: turns.append(name) for name in "ab"}, 3)
    assert turns == list("ab") * 4
    assert set(found) == {"a", "b"}
    assert all(0 <= seconds < 1 for seconds in found.values())


@pytest.mark.skipif(not (DATA / "stereo").is_dir(), reason="the public sets are not there")
def test_registration_pose_and_depth_are_timed() -> None:
    script = runpy.run_path(str(SCRIPT))
    matcher = tiepoint.load()
    makers = {"homography": "plane_jobs", "pose": "posed_jobs", "stereo": "rectified_jobs"}
    names = [set(script[make](DATA / name, matcher)[1]) for name, make in makers.items()]
    assert names[0] == {"match", "register, matches alone", "register"}
    assert names[1] == {"match", "pose", "depth"}
    assert names[2] == {"match", "depth, rectified"}


@pytest.mark.slow
@pytest.mark.skipif(not (DATA / "multimodal").is_dir(), reason="the public sets are not there")
def test_refinement_is_above_matches_and_ecc(tmp_path: Path) -> None:
    assert main("--data", str(DATA), "--json", str(tmp_path / "a.json"), "--rounds", "1") == 0
    results = json.loads((tmp_path / "a.json").read_text())
    assert results["time"]["stereo"]["seconds"]["depth, rectified"] > 0
    for name in ("homography", "multimodal"):
        areas = results[name]["auc"]
        for place in (0, 1):  # AUC@1 and @3
            assert areas["refined"][place] > areas["matches alone"][place]
            assert areas["refined"][place] > areas["OpenCV ECC"][place]
        for refined, alone in zip(areas["refined"], areas["matches alone"], strict=True):
            assert refined > alone - 1
