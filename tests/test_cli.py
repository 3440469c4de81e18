"""The command line as a user meets it: verbs, exit codes, one line for what is wrong."""

import io
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tiepoint.cli import VERBS, main


def run(capsys: pytest.CaptureFixture[str], *args: str) -> tuple[int, str, str]:
    code = main(args)
    captured = capsys.readouterr()
    return code, captured.out, captured.err


def test_help_lists_every_verb(capsys: pytest.CaptureFixture[str]) -> None:
    for args in ([], ["--help"], ["-h"]):
        code, out, _ = run(capsys, *args)
        assert code == 0
        assert all(verb in out for verb in VERBS)


def test_version(capsys: pytest.CaptureFixture[str]) -> None:
    from tiepoint import __version__

    assert run(capsys, "--version") == (0, f"tiepoint {__version__}\n", "")


def test_python_dash_m_is_the_same_program() -> None:
    done = subprocess.run([sys.executable, "-m", "tiepoint", "nonsense"], capture_output=True, text=True)
    assert done.returncode == 2
    assert done.stderr.startswith("tiepoint: there is no verb 'nonsense'")


@pytest.mark.parametrize("verb", ["match", "register", "pose", "convert", "models"])
def test_each_verb_has_help(verb: str, capsys: pytest.CaptureFixture[str]) -> None:
    code, out, _ = run(capsys, verb, "--help")
    assert code == 0
    assert f"tiepoint {verb}" in out


def test_models_lists_the_embedded_one_with_its_licence(capsys: pytest.CaptureFixture[str]) -> None:
    code, out, _ = run(capsys, "models")
    assert code == 0
    row = next(line for line in out.splitlines() if line.startswith("default"))
    assert "MB" in row
    assert "?" not in row


@pytest.fixture(scope="module")
def wrong_files(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with one specimen of everything that is not an image."""
    tmp_path = tmp_path_factory.mktemp("wrong")
    (tmp_path / "folder").mkdir()
    (tmp_path / "text.jpg").write_text("this is no image")
    (tmp_path / "empty.png").touch()
    Image.fromarray(np.random.default_rng(0).integers(0, 255, (64, 64, 3), np.uint8)).save(tmp_path / "whole.jpg")
    (tmp_path / "half.jpg").write_bytes((tmp_path / "whole.jpg").read_bytes()[:900])
    Image.new("1", (20000, 20000)).save(tmp_path / "bomb.png")
    (tmp_path / "text.onnx").write_text("no network")
    Image.new("RGB", (1, 1)).save(tmp_path / "dot.png")
    return tmp_path


def contents(folder: Path) -> dict[Path, int]:
    """Every file with its time of change, every folder with 0."""
    return {path: path.stat().st_mtime_ns if path.is_file() else 0 for path in folder.rglob("*")}


@pytest.mark.parametrize(
    ("args", "named"),
    [
        (["missing.jpg", "whole.jpg"], "missing.jpg"),
        (["whole.jpg", "folder"], "folder"),
        (["text.jpg", "whole.jpg"], "text.jpg"),
        (["whole.jpg", "empty.png"], "empty.png"),
        (["whole.jpg", "half.jpg"], "half.jpg"),
        (["bomb.png", "whole.jpg"], "bomb.png"),
        (["dot.png", "whole.jpg"], "dot.png"),
        (["missing.jpg", "whole.jpg", "-o", "new/folder"], "missing.jpg"),
        (["whole.jpg", "whole.jpg", "-o", "whole.jpg"], "whole.jpg"),
        (["whole.jpg"], "right"),
        (["whole.jpg", "whole.jpg", "--modle", "sift"], "--modle"),
        (["whole.jpg", "whole.jpg", "--geometry", "affine"], "affine"),
        (["whole.jpg", "whole.jpg", "--geometry", "essential"], "--cameras"),
        (["whole.jpg", "whole.jpg", "--geometry", "essential", "--cameras", "text.jpg"], "text.jpg"),
        (["whole.jpg", "whole.jpg", "--threshold", "-1", "--geometry", "homography"], "--threshold"),
        (["whole.jpg", "whole.jpg", "--long_side", "1"], "long_side"),
        (["whole.jpg", "whole.jpg", "--max_keypoints", "many"], "max_keypoints"),
        (["whole.jpg", "whole.jpg", "--model", "text.onnx"], "text.onnx"),
        (["whole.jpg", "whole.jpg", "-o", "whole.jpg/out"], "whole.jpg"),
        (["whole.jpg", "whole.jpg", "-o", "out.docx"], ".docx"),
    ],
)
def test_wrong_input_is_one_line_and_leaves_nothing(
    args: list[str],
    named: str,
    wrong_files: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(wrong_files)
    before = contents(wrong_files)
    code, out, err = run(capsys, "match", *args)
    assert code == 2
    assert out == ""
    assert err.count("\n") == 1
    assert named in err
    assert "Traceback" not in err
    assert contents(wrong_files) == before


def test_an_unforeseen_error_is_one_line_too_and_debug_shows_where(
    wrong_files: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def broken(*_: object, **__: object) -> None:
        raise ZeroDivisionError("unforeseen")

    monkeypatch.setattr("tiepoint.match.load", broken)
    monkeypatch.setattr("sys.stdin", io.StringIO())
    pair = [str(wrong_files / "whole.jpg")] * 2
    code, _, err = run(capsys, "match", *pair, "-o", str(tmp_path))
    assert (code, err.count("\n")) == (1, 1)
    assert "ZeroDivisionError: unforeseen" in err
    code, _, err = run(capsys, "match", *pair, "-o", str(tmp_path), "--debug")
    assert code == 1
    assert "Traceback" in err
