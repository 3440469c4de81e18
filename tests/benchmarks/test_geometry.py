"""What docs/register.md claims of the public sets."""

import json
import runpy
from pathlib import Path

import pytest

DATA = Path("/work/shared/data")
SCRIPT = Path(__file__).parents[2] / "benchmarks" / "geometry.py"


def main(*args: str) -> int:
    return runpy.run_path(str(SCRIPT))["main"](args)


def test_a_folder_without_sets_is_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main("--data", str(tmp_path)) == 2
    assert capsys.readouterr().err.count("\n") == 1


@pytest.mark.slow
@pytest.mark.skipif(not (DATA / "multimodal").is_dir(), reason="the public sets are not there")
def test_refinement_is_above_matches_and_ecc(tmp_path: Path) -> None:
    assert main("--data", str(DATA), "--json", str(tmp_path / "a.json")) == 0
    results = json.loads((tmp_path / "a.json").read_text())
    for name in ("homography", "multimodal"):
        areas = results[name]["auc"]
        for place in (0, 1):  # AUC@1 and @3
            assert areas["refined"][place] > areas["matches alone"][place]
            assert areas["refined"][place] > areas["OpenCV ECC"][place]
        for refined, alone in zip(areas["refined"], areas["matches alone"], strict=True):
            assert refined > alone - 1
