"""`tiepoint register`: its files, its sentence, its JSON, and what it refuses."""

import json
from pathlib import Path

import cv2
import numpy as np
import pytest
from PIL import Image
from skimage import data

from tiepoint.cli import main
from tiepoint.evaluation.metrics import homography_corner_error

H = np.array([[0.92, -0.08, 40.0], [0.06, 0.9, 15.0], [5e-5, 2e-5, 1.0]])


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A photograph, two others of the same, one of something else, and what is no image."""
    folder = tmp_path_factory.mktemp("register")
    photo = data.coffee()
    (folder / "stack").mkdir()
    Image.fromarray(photo).save(folder / "stack" / "a.png")
    Image.fromarray(cv2.warpPerspective(photo, np.linalg.inv(H), (600, 400))).save(folder / "stack" / "b.png")
    Image.fromarray(cv2.warpPerspective(photo, H, (600, 400))).save(folder / "stack" / "c.png")
    Image.fromarray(data.astronaut()).save(folder / "other.png")
    Image.new("RGB", (200, 200), (90, 90, 90)).save(folder / "flat.png")
    return folder


def run(capsys: pytest.CaptureFixture[str], *args: object) -> tuple[int, str, str]:
    code = main(["register", *map(str, args)])
    return code, *capsys.readouterr()


def test_writes_all_and_says_one_sentence(folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pair = folder / "stack" / "a.png", folder / "stack" / "c.png"
    code, out, err = run(capsys, *pair, "-o", tmp_path)
    assert (code, out.count("\n"), err) == (0, 1, "")
    assert "refined on the images" in out
    names = {path.name for path in tmp_path.iterdir()}
    assert names == {f"a-c{end}" for end in (".png", ".json", "-overlay.png", "-checkerboard.png", "-flicker.gif")}
    told = json.loads((tmp_path / "a-c.json").read_text())
    assert homography_corner_error(np.array(told["matrix"]), H, (400, 600)) < 0.3
    assert told["residual_grey"] < 5
    with Image.open(tmp_path / "a-c.png") as warped, Image.open(pair[1]) as fixed:
        over, under = np.array(warped.convert("RGBA")), np.array(fixed)
    shown = over[..., 3] > 0
    assert 0.5 < shown.mean() < 1
    assert np.abs(over[..., :3].astype(int) - under)[shown].mean() < 2


def test_json_on_stdout(folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pair = folder / "stack" / "a.png", folder / "stack" / "c.png"
    code, out, _ = run(capsys, *pair, "-o", tmp_path, "--json", "--no_refine", "--transform", "homography")
    told = json.loads(out)
    assert code == 0
    assert told == json.loads((tmp_path / "a-c.json").read_text()) | {"fixed": str(pair[1])}
    assert (told["model"], told["refined"]) == ("homography", False)


def test_a_folder_is_laid_over_its_first_image(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    code, out, _ = run(capsys, "--stack", folder / "stack", "-o", tmp_path, "--no_refine")
    assert code == 0
    assert out.count("\n") == 2
    assert {"b-a.png", "c-a.png"} <= {path.name for path in tmp_path.iterdir()}


def test_what_fails_in_a_folder_is_told_and_the_rest_is_done(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    code, out, err = run(
        capsys, folder / "other.png", "--stack", folder / "stack", "-o", tmp_path / "out", "--json", "--no_refine"
    )
    assert code == 1
    assert "3 of 3 images could not be registered" in err
    assert all("too few" in row["failed"] for row in json.loads(out)["images"])


@pytest.mark.parametrize(
    ("args", "code", "named"),
    [
        (["stack/a.png", "stack/a.png"], 1, "identical"),
        (["stack/a.png", "flat.png"], 1, "no texture"),
        (["stack/a.png", "other.png"], 1, "would help"),
        (["stack/a.png"], 2, "1 image(s) are given"),
        (["stack/a.png", "missing.png"], 2, "missing.png"),
        (["stack/a.png", "stack/c.png", "--transform", "rigid"], 2, "rigid"),
        (["stack/a.png", "stack/c.png", "--threshold", "-2"], 2, "threshold"),
        (["stack/a.png", "stack/c.png", "-o", "flat.png"], 2, "expected a folder"),
        (["--stack", "nowhere"], 2, "nowhere"),
        (["stack/a.png", "stack/c.png", "--stack", "stack"], 2, "at most one"),
        (["stack/a.png", "--panorama"], 2, "two or more"),
        (["stack/a.png", "stack/c.png", "--panorama", "--stack", "stack"], 2, "expected one of them"),
    ],
)
def test_what_is_wrong_is_one_line(
    args: list[str],
    code: int,
    named: str,
    folder: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(folder)
    found, out, err = run(capsys, *args)
    assert (found, out, err.count("\n")) == (code, "", 1)
    assert named in err
    assert not (folder / "registered").exists()
