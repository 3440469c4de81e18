"""The benchmark of denoising: its methods, its noise, its cache, matching in little light, and what it refuses."""

import json
import runpy
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from skimage import data

from tiepoint.ops.noise import gaussian_noise

SCRIPT = Path(__file__).parents[2] / "benchmarks" / "denoise.py"


@pytest.fixture(scope="module")
def script() -> dict[str, Any]:
    return runpy.run_path(str(SCRIPT))


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two grey images, two in colour, and two to search on."""
    root = tmp_path_factory.mktemp("data")
    train = root / "bsds500" / "images" / "train"
    for folder in (root / "denoise" / "set12", train):
        folder.mkdir(parents=True)
    for name, pixels in (("01", data.camera()), ("02", data.moon())):
        Image.fromarray(pixels[100:180, 100:196]).save(root / "denoise" / "set12" / f"{name}.png")
    for name, pixels in (("a", data.astronaut()), ("b", data.coffee())):
        Image.fromarray(pixels[50:130, 150:246]).save(train / f"{name}.png")
    (root / "denoise" / "cbsd68.txt").write_text("train/a.png\ntrain/b.png\n")
    return root


def test_the_noise_is_that_of_the_test_of_a_training(script: dict[str, Any]) -> None:
    clean = np.ascontiguousarray(data.astronaut()[:40, :50] / np.float32(255))
    each = script["with_noise"](clean, 25, 7, "a")
    tensor = torch.from_numpy(clean).permute(2, 0, 1)[None]
    generator = torch.Generator().manual_seed(25007)
    expected = gaussian_noise(tensor, torch.tensor([25.0]), generator=generator)[0].permute(1, 2, 0).numpy()
    assert np.array_equal(each.noisy, expected)
    assert each.kind == "colour"
    assert script["with_noise"](clean[..., 0], 25, 7, "a").kind == "grey"


@pytest.mark.parametrize("kind", ["grey", "colour"])
@pytest.mark.parametrize(
    "name", ["OpenCV non-local means", "kornia bilateral", "kornia guided", "kornia median", "BM3D"]
)
def test_every_method_takes_noise_out(name: str, kind: str, script: dict[str, Any]) -> None:
    if name == "BM3D":
        pytest.importorskip(
            "bm3d", reason="BM3D, whose licence is not free, is not there: pip install 'tiepoint[bm3d]'"
        )
    pixels = data.astronaut()[40:104, 180:244]
    clean = np.ascontiguousarray(pixels if kind == "colour" else pixels[..., 1]) / np.float32(255)
    for sigma in (15, 25, 50):
        each = script["with_noise"](clean, sigma, 0, "a")
        found = script["BASELINES"][name](each.noisy, sigma, *script["_setting"](script["BEST"][name], each))
        assert found.shape == clean.shape
        assert script["measured"](found, clean)[0] > script["measured"](each.noisy, clean)[0] + 0.5


def test_figures_come_from_the_cache_the_second_time(
    script: dict[str, Any], root: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    told = []
    stamps: dict[Path, int] = {}
    for number in range(2):
        where = ["--cache", str(tmp_path / "cache"), "--json", str(tmp_path / f"{number}.json")]
        assert script["main"](["--data", str(root), "--methods", "tiepoint", "kornia median", *where]) == 0
        told.append(json.loads((tmp_path / f"{number}.json").read_text()))
        if not number:
            stamps = {path: path.stat().st_mtime_ns for path in (tmp_path / "cache").iterdir()}
    assert told[0] == told[1]
    assert stamps == {path: path.stat().st_mtime_ns for path in (tmp_path / "cache").iterdir()}
    assert len(stamps) == 2 * 2 * 2 * 3  # sets, images, methods, strengths
    for name in ("set12", "cbsd68"):
        assert told[0][name]["tiepoint"]["images"] == 2
        assert all(
            told[0][name]["tiepoint"][sigma][0] > told[0][name]["kornia median"][sigma][0] for sigma in ("15", "50")
        )
    assert "cbsd68, 2 images" in capsys.readouterr().out


def test_settings_are_searched(script: dict[str, Any], root: Path, tmp_path: Path) -> None:
    where = ["--json", str(tmp_path / "best.json")]
    assert script["main"](["--data", str(root), "--search", "--methods", "kornia median", *where]) == 0
    best = json.loads((tmp_path / "best.json").read_text())["kornia median"]
    assert [len(best[kind]) for kind in ("grey", "colour")] == [3, 3]
    assert best["grey"][0][0] <= best["grey"][2][0]  # stronger noise wants no smaller windows


def test_the_less_light_the_more_noise(script: dict[str, Any]) -> None:
    image = np.ascontiguousarray(data.astronaut()[:100, :120])
    errors = [
        np.abs(script["in_little_light"](image, light, 0).astype(int) - image).mean()
        for light in (1.0, 0.2, 0.05, 0.02)
    ]
    assert errors[0] == 0
    assert errors == sorted(errors)
    assert errors[1] > 3
    again = script["in_little_light"](image, 0.2, 0)
    assert np.array_equal(again, script["in_little_light"](image, 0.2, 0))


def test_matching_with_and_without(
    script: dict[str, Any], pair_sets: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    command = ["--data", str(pair_sets), "--matching", "--matchers", "sift", "--json", str(tmp_path / "m.json")]
    assert script["main"](command) == 0
    told = json.loads((tmp_path / "m.json").read_text())
    assert list(told) == ["1", "0.2", "0.05", "0.02"]
    assert all(list(rows) == ["sift", "sift, denoised"] for rows in told.values())
    assert told["1"]["sift"]["figures"]["AUC@5"] > 50
    assert "gain" in told["1"]["sift, denoised"]
    assert "light 0.05, 3 pairs" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("options", "named"),
    [
        ([], "does not exist"),
        (["--methods", "wavelets"], "there is no 'wavelets', expected some of tiepoint, BM3D"),
        (["--model", "missing.onnx"], "missing.onnx does not exist"),
    ],
)
def test_what_is_wrong_is_one_line(
    options: list[str], named: str, script: dict[str, Any], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert script["main"](["--data", str(tmp_path), *options]) == 2
    error = capsys.readouterr().err
    assert error.count("\n") == 1
    assert named in error
