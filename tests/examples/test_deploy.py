"""docs/deploy.md: what it says of the graph is so, and its Python runs as it stands."""

import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import pytest
from PIL import Image
from skimage import data

import tiepoint
from tiepoint.runtime import embedded_models

PAGE = (Path(__file__).parents[2] / "docs" / "deploy.md").read_text(encoding="utf-8")
TYPES = {"tensor(uint8)": "uint8", "tensor(int64)": "int64", "tensor(float)": "float32"}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What the page's blocks find where they run."""
    folder = tmp_path_factory.mktemp("deploy")
    shutil.copy(embedded_models()["default"], folder / "default.onnx")
    for name, photo in zip(("left", "right"), data.stereo_motorcycle()[:2], strict=True):
        Image.fromarray(photo[:300, :400]).save(folder / f"{name}.png")
    return folder


@pytest.fixture(scope="module")
def ran(folder: Path) -> dict[str, Any]:
    """The names that the page's Python leaves behind, all blocks in turn."""
    names: dict[str, Any] = {}
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        for block in re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL):
            exec(block, names)
    return names


def test_python_without_tiepoint_finds_the_same(ran: dict[str, Any], folder: Path) -> None:
    expected = tiepoint.load(folder / "default.onnx")(folder / "left.png", folder / "right.png")
    assert len(expected) > 200
    assert np.array_equal(ran["score"], expected.scores)
    assert np.allclose(ran["place0"], expected.keypoints0, rtol=0, atol=1e-4)
    assert np.allclose(ran["place1"], expected.keypoints1, rtol=0, atol=1e-4)


def test_it_takes_fifteen_lines() -> None:
    block = re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL)[0]
    assert "tiepoint" not in block
    assert len([line for line in block.splitlines() if line]) <= 15


def test_a_session_of_one_size_finds_the_same_and_takes_no_other(ran: dict[str, Any]) -> None:
    feed = ran["feed"]
    free, fixed = (session.run(["matches0", "keypoints0"], feed) for session in (ran["session"], ran["fixed"]))
    assert (free[0] == fixed[0]).mean() > 0.99
    assert np.abs(free[1] - fixed[1]).max() < 0.01
    with pytest.raises(Exception, match="invalid dimensions"):
        ran["fixed"].run(None, dict(feed, image0=feed["image0"][:, :-1]))


def test_the_table_of_inputs_and_outputs_is_the_file_s(folder: Path) -> None:
    rows = re.findall(r"^\| `(\w+)` \| (in|out) \| (\([^|]*\)) \| (\w+) \|", PAGE, re.MULTILINE)
    told = {name: (way, shape[1:-1].split(", ") if shape != "()" else [], kind) for name, way, shape, kind in rows}
    session = onnxruntime.InferenceSession(folder / "default.onnx")
    there = {
        node.name: (way, [str(side) for side in node.shape], TYPES[node.type])
        for way, nodes in (("in", session.get_inputs()), ("out", session.get_outputs()))
        for node in nodes
    }
    assert told.keys() == there.keys()
    for name, (way, shape, kind) in there.items():
        if way == "out":  # the exporter has formulas for K
            shape[1] = "K"
        assert told[name] == (way, shape, kind)


def test_the_embedded_file_is_where_the_page_says(tmp_path: Path) -> None:
    command = re.findall(r"^cp .*$", PAGE, re.MULTILINE)[0].replace("python", shlex.quote(sys.executable), 1)
    subprocess.run(["sh", "-c", command], cwd=tmp_path, check=True)
    assert (tmp_path / "default.onnx").read_bytes() == embedded_models()["default"].read_bytes()


@pytest.mark.parametrize(("size0", "size1", "count"), [((40, 64), (33, 57), 300), ((1, 1), (9, 9), 5)])
def test_padding_is_what_the_page_says(
    folder: Path, size0: tuple[int, int], size1: tuple[int, int], count: int
) -> None:
    """As many rows as were asked for, however small the image; the rest has score 0, no partner and place (0, 0)."""
    session = onnxruntime.InferenceSession(folder / "default.onnx")
    rng = np.random.default_rng(0)
    names = [node.name for node in session.get_outputs()]
    image0, image1 = (rng.integers(0, 256, (2, *size, 3), dtype=np.uint8) for size in (size0, size1))
    outputs = session.run(names, {"image0": image0, "image1": image1, "max_keypoints": np.array(count, np.int64)})
    found = dict(zip(names, outputs, strict=True))
    assert found["keypoints0"].shape == (2, count, 2)
    assert found["scores"].shape == found["matches0"].shape == (2, count)
    padding = found["keypoint_scores0"] == 0
    assert padding.any()
    assert (found["matches0"][padding] == -1).all()
    assert (found["keypoints0"][padding] == 0).all()
    assert (found["scores"][found["matches0"] < 0] == 0).all()
    # real ones come first, best first
    assert (np.diff(found["keypoint_scores0"], axis=1) <= 0).all()
