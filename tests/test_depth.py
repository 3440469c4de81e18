"""`tiepoint depth`: its files, its sentence, its JSON, and what it refuses."""

import json
from pathlib import Path

import cv2
import numpy as np
import pytest
from PIL import ExifTags, Image
from skimage import data

from tiepoint.cli import main

# the calibration of Middlebury's Motorcycle, at half the size
K0 = np.array([[497.489, 0, 155.35], [0, 497.489, 127.19], [0, 0, 1]])
K1 = K0 + np.array([[0, 0, 15.543], [0, 0, 0], [0, 0, 0]])


def run(capsys: pytest.CaptureFixture[str], *args: object) -> tuple[int, str, str]:
    code = main(["depth", *map(str, args)])
    return code, *capsys.readouterr()


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The stereo pair of scikit-image at half its size, its cameras, a turned copy, and what is wrong."""
    folder = tmp_path_factory.mktemp("depth")
    left, right, disparity = data.stereo_motorcycle()
    size = left.shape[1] // 2, left.shape[0] // 2
    small = [cv2.resize(each, size, interpolation=cv2.INTER_AREA) for each in (left, right)]
    for name, pixels in zip(("left", "right"), small, strict=True):
        Image.fromarray(pixels).save(folder / f"{name}.png")
    np.save(folder / "disparity.npy", cv2.resize(disparity, size, interpolation=cv2.INTER_NEAREST) / 2)
    Image.fromarray(small[1][:, 9:]).save(folder / "narrow.png")
    Image.fromarray(np.full_like(small[0], 100)).save(folder / "blank.png")
    R = cv2.Rodrigues(np.array([0.01, -0.04, 0.02]))[0]
    turned = cv2.warpPerspective(small[0], K0 @ R @ np.linalg.inv(K0), size, borderMode=cv2.BORDER_REFLECT)
    Image.fromarray(turned).save(folder / "turned.png")
    Image.fromarray(cv2.resize(data.coffee(), size)).save(folder / "other.png")
    (folder / "cameras.json").write_text(json.dumps({"K0": K0.tolist(), "K1": K1.tolist()}))
    (folder / "same.json").write_text(json.dumps({"K0": K0.tolist(), "K1": K0.tolist()}))
    (folder / "large.json").write_text(json.dumps({"K0": (np.diag([8, 8, 1]) @ K0).tolist(), "K1": K1.tolist()}))
    T = np.eye(4)
    T[0, 3] = -0.193
    cameras = {"K0": K0.tolist(), "K1": K1.tolist()}
    (folder / "metric.json").write_text(json.dumps(cameras | {"T_0to1": T.tolist()}))
    (folder / "pose.json").write_text(json.dumps(cameras | {"T_0to1": [[1, 2], [3, 4]]}))
    T[0, 3] = np.nan
    (folder / "nan.json").write_text(json.dumps(cameras | {"T_0to1": T.tolist()}))
    (folder / "mirror.json").write_text(json.dumps(cameras | {"T_0to1": np.diag([-1, 1, 1, 1]).tolist()}))
    zero = [[0, 0, 155], [0, 0, 127], [0, 0, 1]]
    (folder / "zero.json").write_text(json.dumps({"K0": zero, "K1": zero}))
    exif = Image.Exif()
    exif.get_ifd(ExifTags.IFD.Exif)[ExifTags.Base.FocalLengthIn35mmFilm] = 48
    for number, pixels in enumerate(small):
        Image.fromarray(pixels).save(folder / f"exif{number}.jpg", quality=95, exif=exif)
    return folder


def test_a_rectified_pair_in_metres(folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    cameras = ("--cameras", folder / "cameras.json", "--disparities", "32", "--baseline", "0.193")
    code, out, err = run(capsys, folder / "left.png", folder / "right.png", *cameras, "-o", tmp_path, "--json")
    assert (code, err) == (0, "")
    told = json.loads(out)
    assert told == json.loads((tmp_path / "left-right.json").read_text())
    assert told["unit"] == "m"
    depth = np.load(tmp_path / "left-right.npy")
    disparity = np.load(folder / "disparity.npy")
    known = np.isfinite(disparity) & (disparity > 0)
    true = 0.193 * K0[0, 0] / (disparity + 15.543)
    assert np.median(np.abs(depth - true)[known] / true[known]) < 0.02
    png = cv2.imread(str(tmp_path / "left-right-depth.png"), cv2.IMREAD_UNCHANGED)
    assert png.dtype == np.uint16
    assert np.abs(png - 1000 * depth).max() <= 0.51
    head, _, body = (tmp_path / "left-right.ply").read_bytes().partition(b"end_header\n")
    count = int(head.split(b"element vertex ")[1].split()[0])
    assert len(body) == 15 * count > 15 * 30_000
    with Image.open(tmp_path / "left-right-colours.png") as picture:
        assert picture.width > picture.height > 300


def test_a_rectified_pair_without_cameras_in_pixels(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Disparities are those of the images as given, whatever they were shrunk to."""
    pair = folder / "left.png", folder / "right.png", "--disparities", "32", "--long_side", "300", "-o", tmp_path
    code, out, _ = run(capsys, *pair, "--json")
    told = json.loads(out)
    assert (code, told["unit"], told["png_unit_px"]) == (0, "px", 1 / 256)
    assert told["nearest"] > told["median"] > told["farthest"]
    found, true = np.load(tmp_path / "left-right.npy"), np.load(folder / "disparity.npy")
    known = np.isfinite(true) & (true > 0)
    assert np.median(np.abs(found - true)[known]) < 0.5
    png = cv2.imread(str(tmp_path / "left-right-disparity.png"), cv2.IMREAD_UNCHANGED)
    assert np.abs(png / 256 - found).max() < 0.003
    names = {path.name for path in tmp_path.iterdir()}
    assert not names & {"left-right-depth.png", "left-right.ply"}
    assert " px (near) to " in run(capsys, *pair)[1]


def test_a_motion_in_metres_gives_depth_in_metres(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    pair = folder / "left.png", folder / "right.png", "--cameras", folder / "metric.json", "--json", "-o", tmp_path
    told = json.loads(run(capsys, *pair)[1])
    assert (told["pose"], told["baseline_m"]) == ("given", 0.193)
    assert told["median"] == pytest.approx(2.6, abs=0.2)
    twice = json.loads(run(capsys, *pair, "--disparities", "32", "--baseline", "0.386")[1])
    assert twice["median"] == pytest.approx(2 * told["median"], rel=0.05)


def test_the_focal_length_of_the_files_is_used_and_named(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    code, out, _ = run(capsys, folder / "exif0.jpg", folder / "exif1.jpg", "-o", tmp_path)
    assert code == 0
    assert "EXIF, 48 mm equivalent" in out


@pytest.mark.slow
def test_the_pose_of_the_matches_gives_the_same_depth(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    cameras = ("--cameras", folder / "cameras.json", "--baseline", "0.193")
    code, out, _ = run(capsys, folder / "left.png", folder / "right.png", *cameras, "-o", tmp_path)
    assert code == 0
    assert "from the matches" in out
    depth, disparity = np.load(tmp_path / "left-right.npy"), np.load(folder / "disparity.npy")
    known = np.isfinite(disparity) & (disparity > 0)
    true = 0.193 * K0[0, 0] / (disparity + 15.543)
    assert np.median(np.abs(depth - true)[known] / true[known]) < 0.08


@pytest.mark.parametrize(
    ("args", "code", "named"),
    [
        (["left.png", "right.png"], 2, "--cameras"),
        (["left.png", "right.png", "--fov", "60", "--cameras", "cameras.json"], 2, "--fov"),
        (["left.png", "narrow.png", "--disparities", "32"], 2, "one size"),
        (["left.png", "right.png", "--disparities", "0"], 2, "--disparities"),
        (["left.png", "right.png", "--disparities", "32", "--baseline", "-1"], 2, "--baseline"),
        (["left.png", "right.png", "--cameras", "large.json"], 2, "another size"),
        (["left.png", "right.png", "--cameras", "pose.json"], 2, "T_0to1"),
        (["left.png", "right.png", "--cameras", "nan.json"], 2, "finite"),
        (["left.png", "right.png", "--cameras", "mirror.json"], 2, "no rotation"),
        (["left.png", "right.png", "--cameras", "zero.json", "--disparities", "32"], 2, "focal lengths"),
        (["left.png", "right.png", "--disparities", "32", "--baseline", "0.2"], 2, "--baseline"),
        (["left.png", "right.png", "--disparities", "32", "--long_side", "0"], 2, "--long_side"),
        (["left.png", "blank.png", "--cameras", "cameras.json"], 1, "right image has no texture"),
        (["left.png", "missing.png", "--disparities", "32"], 2, "missing.png"),
        (["left.png", "left.png", "--disparities", "32"], 1, "identical"),
        (["left.png", "blank.png", "--disparities", "32"], 1, "texture"),
        (["left.png", "other.png", "--cameras", "cameras.json"], 1, "would help"),
        (["left.png", "turned.png", "--cameras", "same.json"], 1, "turned"),
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
    assert not (folder / "depth").exists()
