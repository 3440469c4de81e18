"""`tiepoint pose`: its files, its sentence, its JSON, and what it refuses."""

import json
import os
from pathlib import Path

import numpy as np
import pytest
from PIL import ExifTags, Image
from skimage import data

from tiepoint.cli import main
from tiepoint.evaluation.metrics import rotation_angle, translation_angle

REAL = Path(os.environ.get("TIEPOINT_DATA", Path(__file__).parents[2] / "shared" / "data")) / "pose"


def run(capsys: pytest.CaptureFixture[str], *args: object) -> tuple[int, str, str]:
    code = main(["pose", *map(str, args)])
    return code, *capsys.readouterr()


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The stereo pair of scikit-image at half size, its cameras, one in turn, and something else."""
    folder = tmp_path_factory.mktemp("pose")
    left, right, _ = data.stereo_motorcycle()
    for name, pixels in (("left", left), ("right", right)):
        Image.fromarray(pixels).save(folder / f"{name}.png")
    # 994.978 px at this size, by the calibration of Middlebury's Motorcycle; the axes lie 31 px apart
    K0 = [[994.978, 0, 311.193], [0, 994.978, 254.877], [0, 0, 1]]
    K1 = [[994.978, 0, 342.279], [0, 994.978, 254.877], [0, 0, 1]]
    (folder / "cameras.json").write_text(json.dumps({"K0": K0, "K1": K1}))
    (folder / "large.json").write_text(json.dumps({"K0": (np.diag([8, 8, 1]) @ K0).tolist(), "K1": K1}))
    (folder / "wrong.json").write_text("[]")
    zero = [[0, 0, 311], [0, 0, 254], [0, 0, 1]]
    (folder / "zero.json").write_text(json.dumps({"K0": zero, "K1": zero}))
    Image.new("RGB", (741, 500), (90, 120, 30)).save(folder / "flat.png")
    exif = Image.Exif()
    exif.get_ifd(ExifTags.IFD.Exif)[ExifTags.Base.FocalLengthIn35mmFilm] = 48
    for name, pixels in (("exif0", left), ("exif1", right)):
        Image.fromarray(pixels).save(folder / f"{name}.jpg", quality=95, exif=exif)
    Image.fromarray(data.coffee()).save(folder / "other.png")
    return folder


def test_a_rectified_pair_moved_to_the_right(folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pair = folder / "left.png", folder / "right.png"
    code, out, err = run(capsys, *pair, "--cameras", folder / "cameras.json", "-o", tmp_path)
    assert (code, out.count("\n"), err) == (0, 1, "")
    assert "turned by 0." in out
    told = json.loads((tmp_path / "left-right.json").read_text())
    assert told["scene"] == "general"
    assert rotation_angle(np.array(told["rotation"]), np.eye(3)) < 0.5
    assert translation_angle(np.array(told["translation"]), np.array([-1.0, 0, 0])) < 3
    assert told["translation"][0] < 0
    lines = (tmp_path / "left-right.ply").read_text().splitlines()
    end = lines.index("end_header")
    assert f"element vertex {told['points']}" in lines
    assert len(lines) - end - 1 == told["points"] > 100
    depths = np.array([line.split()[:3] for line in lines[end + 1 :]], dtype=float)[:, 2]
    assert (depths > 0).all()
    with Image.open(tmp_path / "left-right-epipolar.png") as picture:
        assert min(picture.size) > 300


def test_the_focal_length_of_the_file_is_used_and_named(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    code, out, _ = run(capsys, folder / "exif0.jpg", folder / "exif1.jpg", "-o", tmp_path)
    assert code == 0
    assert "EXIF, 48 mm equivalent" in out


def test_without_cameras_there_is_no_pose(folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pair = folder / "left.png", folder / "right.png"
    code, out, _ = run(capsys, *pair, "-o", tmp_path, "--json")
    told = json.loads(out)
    assert (code, told["kind"], told["cameras"]) == (0, "fundamental", "unknown")
    assert "rotation" not in told
    assert not (tmp_path / "left-right.ply").exists()
    assert "give --cameras or --fov" in run(capsys, *pair, "-o", tmp_path)[1]


@pytest.mark.parametrize(
    ("args", "code", "named"),
    [
        (["left.png", "other.png", "--fov", "60"], 1, "would help"),
        (["left.png", "right.png", "--fov", "60", "--cameras", "cameras.json"], 2, "--fov"),
        (["left.png", "right.png", "--fov", "200"], 2, "--fov"),
        (["left.png", "right.png", "--cameras", "wrong.json"], 2, "wrong.json"),
        (["left.png", "right.png", "--cameras", "missing.json"], 2, "missing.json"),
        (["left.png", "right.png", "--cameras", "large.json"], 2, "another size"),
        (["left.png", "missing.png"], 2, "missing.png"),
        (["left.png", "left.png", "--fov", "60"], 1, "identical"),
        (["left.png", "flat.png", "--fov", "60"], 1, "right image has no texture"),
        (["left.png", "right.png", "--cameras", "zero.json"], 2, "zero.json: K0 has focal lengths 0 and 0"),
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
    assert not (folder / "pose").exists()


@pytest.mark.skipif(not REAL.is_dir(), reason="the public pose pairs are not there")
def test_a_real_pair(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    content = json.loads((REAL / "pairs.json").read_text())
    entries = content["pairs"] if isinstance(content, dict) else content
    entry = next(each for each in entries if each["dataset"] == "strecha" and each["gap"] == 1)
    (tmp_path / "cameras.json").write_text(json.dumps({name: entry[name] for name in ("K0", "K1")}))
    paths = [REAL.parent / entry[name] for name in ("image0", "image1")]
    code, out, _ = run(capsys, *paths, "--cameras", tmp_path / "cameras.json", "--json", "-o", tmp_path)
    told, T = json.loads(out), np.array(entry["T_0to1"])
    assert code == 0
    assert rotation_angle(np.array(told["rotation"]), T[:3, :3]) < 1
    assert translation_angle(np.array(told["translation"]), T[:3, 3]) < 3
    assert told["median_reprojection_px"] < 0.5
