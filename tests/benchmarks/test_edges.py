"""The benchmark of edges: its methods, its cache, and what it refuses."""

import json
import runpy
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from kornia.filters import canny
from skimage import data

SCRIPT = Path(__file__).parents[2] / "benchmarks" / "edges.py"


@pytest.fixture(scope="module")
def script() -> dict[str, Any]:
    return runpy.run_path(str(SCRIPT))


def test_a_folder_without_images_is_one_line(
    script: dict[str, Any], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert script["main"](["--data", str(tmp_path)]) == 2
    assert capsys.readouterr().err.count("\n") == 1


@pytest.mark.parametrize("level", [0.2, 0.4, 0.6])
def test_the_hysteresis_is_kornias(script: dict[str, Any], level: float) -> None:
    image = np.ascontiguousarray(data.astronaut()[:120, 100:260])
    found = script["by_kornia_canny"](image, 1.5) >= level - 1e-6
    grey = script["_grey"](image, 1.5)
    expected = canny(grey, 0.4 * level**2, level**2, kernel_size=(3, 3), sigma=(0.5, 0.5))[1][0, 0].numpy() > 0
    assert np.array_equal(found, expected)
    assert expected.any()


def test_figures_come_from_the_cache_the_second_time(
    script: dict[str, Any], drawn: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    told = []
    for number in range(2):
        where = ["--cache", str(tmp_path / "cache"), "--json", str(tmp_path / f"{number}.json"), "--workers", "1"]
        assert script["main"](["--data", str(drawn), "--methods", "OpenCV Canny", "tiepoint", *where]) == 0
        told.append(json.loads((tmp_path / f"{number}.json").read_text()))
        if not number:
            stamps = {path: path.stat().st_mtime_ns for path in (tmp_path / "cache").iterdir()}
    assert told[0] == told[1]
    assert stamps == {path: path.stat().st_mtime_ns for path in (tmp_path / "cache").iterdir()}
    assert len(stamps) == 2
    assert told[0]["OpenCV Canny"]["images"] == 2
    assert 0.2 < told[0]["OpenCV Canny"]["ods"] <= 1
    assert "tiepoint" in capsys.readouterr().out
