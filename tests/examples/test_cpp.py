"""`examples/cpp`, compiled as docs/deploy.md says: the same bytes as `tiepoint match` writes.

ONNXRUNTIME_ROOT tells where ONNX Runtime's headers are if the system has none; the library is the one in Python's
wheel, so that both sides compute with the same.
"""

import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import onnxruntime
import pytest
from onnx import TensorProto, helper
from PIL import Image
from skimage import data

from tiepoint.cli import main
from tiepoint.runtime import embedded_models

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parents[2]
COMMANDS = re.findall(r"^((?:cmake|build/tiepoint-match) .*)$", (ROOT / "docs" / "deploy.md").read_text(), re.MULTILINE)
MODEL = str(embedded_models()["default"])
Run = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Run:
    """Builds the program by the page's own two commands; runs it."""
    folder = tmp_path_factory.mktemp("cpp")
    wheel = sorted(Path(onnxruntime.__file__).parent.glob("capi/libonnxruntime.so.*"))
    for tool in ("cmake", "c++"):
        if shutil.which(tool) is None:
            pytest.skip(f"there is no {tool} here")
    if sys.platform != "linux" or not wheel:
        pytest.skip("Python's wheel of ONNX Runtime has a library to link with on Linux alone")
    # linked by its short name and found at run time by the name that it has given itself
    for name in ("libonnxruntime.so", "libonnxruntime.so.1"):
        (folder / name).symlink_to(wheel[-1])
    configure, build = (
        [str(folder / "build") if word == "build" else word for word in shlex.split(line)] for line in COMMANDS[:2]
    )
    configure = [word for word in configure if not word.startswith("-DONNXRUNTIME_ROOT")]
    configure.append(f"-DONNXRUNTIME_LIBRARY={folder / 'libonnxruntime.so'}")
    done = subprocess.run(configure, cwd=ROOT, capture_output=True, text=True)
    if missing := re.search(r"ONNXRUNTIME_INCLUDE_DIR was not found|Could not find a package.*OpenCV", done.stderr):
        pytest.skip(f"{missing[0]}: see docs/deploy.md")
    assert done.returncode == 0, done.stderr
    done = subprocess.run([*build, "--", "-j2"], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "warning" not in done.stdout + done.stderr

    def call(*words: str, cwd: Path | None = None) -> subprocess.CompletedProcess[str]:
        command = [str(folder / "build" / "tiepoint-match"), *words]
        return subprocess.run(command, capture_output=True, text=True, cwd=cwd)

    return call


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One scene in several sizes and files."""
    folder = tmp_path_factory.mktemp("photos")
    left, right = data.stereo_motorcycle()[:2]
    sizes = {"big": (2223, 1500), "huge": (4096, 2764), "double": (2048, 1382), "odd": (333, 201), "small": (64, 65)}
    for name, size in sizes.items():
        Image.fromarray(cv2.resize(left, size, interpolation=cv2.INTER_CUBIC)).save(folder / f"{name}.png")
    Image.fromarray(left).save(folder / "left.png")
    Image.fromarray(right).save(folder / "right.png")
    Image.fromarray(right[:, 200:500].copy()).save(folder / "portrait.png")
    Image.fromarray(left).convert("L").save(folder / "grey.png")
    Image.new("RGB", (90, 70), (9, 9, 9)).save(folder / "blank.png")
    Image.new("RGB", (90, 5)).save(folder / "thin.png")
    exif = Image.Exif()
    exif[274] = 6  # lies on its side
    Image.fromarray(np.rot90(right).copy()).save(folder / "turned.jpg", quality=90, exif=exif)
    (folder / "words.jpg").write_text("no image")
    return folder


@pytest.mark.parametrize("suffix", ["csv", "json"])
@pytest.mark.parametrize(
    ("left", "right", "options", "least"),
    [
        ("left.png", "right.png", [], 1000),
        ("left.png", "right.png", ["--max_keypoints", "100"], 40),
        ("left.png", "right.png", ["--long_side", "320"], 100),
        ("big.png", "right.png", [], 500),  # each shrunk by another of OpenCV's ways
        ("double.png", "huge.png", [], 500),
        ("portrait.png", "odd.png", [], 0),
        ("small.png", "left.png", [], 0),
        ("grey.png", "turned.jpg", [], 500),
        ("blank.png", "left.png", [], 0),
    ],
)
def test_writes_what_python_writes(
    run: Run,
    photos: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    left: str,
    right: str,
    options: list[str],
    least: int,
    suffix: str,
) -> None:
    monkeypatch.chdir(photos)
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    ours, theirs = tmp_path / f"cpp.{suffix}", tmp_path / f"python.{suffix}"
    done = run(MODEL, left, right, *options, "--threads", "1", "-o", str(ours), cwd=photos)
    assert done.returncode == 0, done.stderr
    assert main(["match", left, right, "--model", MODEL, *options, "-o", str(theirs)]) == 0
    assert ours.read_bytes() == theirs.read_bytes()
    assert int(done.stdout.split()[0]) >= least


def test_the_page_s_command_runs(run: Run, photos: Path, tmp_path: Path) -> None:
    shutil.copy(MODEL, tmp_path / "default.onnx")
    for name in ("left", "right"):
        Image.open(photos / f"{name}.png").save(tmp_path / f"{name}.jpg")
    done = run(*shlex.split(COMMANDS[2])[1:], cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "matches.csv").read_text().startswith("x0,y0,x1,y1,score\n")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["default.onnx", "left.jpg", "matches.csv", "right.jpg"]


def test_without_a_file_the_table_goes_to_the_standard_output(run: Run, photos: Path, tmp_path: Path) -> None:
    done = run(MODEL, "left.png", "right.png", "-o", str(tmp_path / "m.csv"), cwd=photos)
    assert done.returncode == 0
    assert run(MODEL, "left.png", "right.png", cwd=photos).stdout == (tmp_path / "m.csv").read_text()


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["none.onnx", "left.png", "right.png"], "none.onnx does not exist or is no file, expected an .onnx file"),
        (["left.png", "left.png", "right.png"], "left.png is no ONNX graph that ONNX Runtime can run"),
        (["other.onnx", "left.png", "right.png"], "other.onnx is an ONNX graph from x to y, expected one from image0"),
        ([MODEL, "none.png", "right.png"], "none.png does not exist or is no file, expected an image"),
        ([MODEL, "words.jpg", "right.png"], "words.jpg is not an image that OpenCV reads"),
        ([MODEL, "left.png", "thin.png"], "thin.png is 90x5 px, expected sides of 8 px or more"),
        ([MODEL, "left.png"], "found 2 files, expected three"),
        ([MODEL, "left.png", "right.png", "-o", "m.txt"], "-o is m.txt, expected a file that ends in .csv or .json"),
        ([MODEL, "left.png", "right.png", "-o", "no/m.csv"], "-o is no/m.csv, but there is no folder"),
        ([MODEL, "left.png", "right.png", "--max_keypoints", "0"], "--max_keypoints is 0, expected a whole number, 1"),
        ([MODEL, "left.png", "right.png", "--long_side", "1e3"], "--long_side is 1e3, expected a whole number, 32"),
        ([MODEL, "left.png", "right.png", "--colour", "1"], "there is no option --colour, expected -o"),
    ],
)
def test_a_mistake_is_one_sentence_and_exit_code_2(run: Run, photos: Path, words: list[str], said: str) -> None:
    x, y = (helper.make_tensor_value_info(name, TensorProto.FLOAT, [1]) for name in "xy")
    graph = helper.make_graph([helper.make_node("Identity", ["x"], ["y"])], "other", [x], [y])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10)
    (photos / "other.onnx").write_bytes(model.SerializeToString())
    done = run(*words, cwd=photos)
    assert done.returncode == 2
    assert done.stderr.startswith(f"tiepoint-match: {said}")
    assert done.stderr.count("\n") == 1
    assert not done.stdout
