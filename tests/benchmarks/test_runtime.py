"""The command that measures what runs the network: its figures, and what it says to wrong input."""

import json
import runpy
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest

from tiepoint.runtime import embedded

FOLDER = Path(__file__).parents[2] / "benchmarks"
Main = Callable[[Sequence[str]], int]


@pytest.fixture(scope="module")
def main() -> Main:
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(FOLDER))
        told = runpy.run_path(str(FOLDER / "runtime.py"))
    told["main"].__globals__["WARM_UP"] = 0
    return told["main"]


def test_measures_backends_and_further_files(main: Main, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    further = tmp_path / "further.onnx"
    further.write_bytes(embedded("default").read_bytes())
    options = ["--backends", "as-trained", "torch", "onnxruntime", "--model", str(further), "--keypoints", "256"]
    size = ["--repeats", "1", "--threads", "1", "--starts", "0", "--no-sizes"]
    assert main([*options, *size, "--json", str(tmp_path / "runtime.json")]) == 0
    told = json.loads((tmp_path / "runtime.json").read_text())
    names = ["as-trained", "torch", "onnxruntime", "onnxruntime, further.onnx"]
    assert [row["name"] for row in told["backends"]] == names
    for row in told["backends"]:
        assert row["same"] >= 0.99
        assert 10 < row["matches"] <= 256
        assert row["wall"] > 0
        assert row["processor"] > 0
    out = capsys.readouterr().out
    assert all(name in out for name in names)


@pytest.mark.slow
def test_sizes_and_starts_are_told(main: Main, tmp_path: Path) -> None:
    pytest.importorskip("openvino")
    path = tmp_path / "runtime.json"
    options = ["--backends", "onnxruntime", "openvino", "openvino-bf16", "--repeats", "1", "--starts", "1"]
    assert main([*options, "--json", str(path)]) == 0
    told = json.loads(path.read_text())
    assert set(told["sizes"]) == {"onnxruntime", "openvino", "openvino-bf16"}
    assert set(told["start"]) == {"onnxruntime", "openvino"}
    for each in told["start"].values():
        assert each["seconds"] > 0.1
        assert each["processor"] > 0.1
        assert each["megabytes"] > 10


@pytest.mark.parametrize(
    ("options", "named"),
    [
        (["--threads", "0"], "--threads is 0"),
        (["--photos", "nowhere"], "nowhere is not a folder"),
        (["--model", "nowhere.onnx", "--backends", "onnxruntime"], "nowhere.onnx does not exist"),
        (["--weights", "nowhere.onnx"], "nowhere.onnx does not exist"),
    ],
)
def test_wrong_input_is_one_sentence(
    options: list[str],
    named: str,
    main: Main,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(options) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err.count("\n") == 1
    assert named in captured.err
