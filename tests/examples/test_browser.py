"""`examples/browser` in a real browser: the same matches as Python, the picture, and what it says to mistakes.

Needs `npm install` in examples/browser, `pip install 'tiepoint[browser]'` and a Chromium: the system's, or the one that
`playwright install chromium` fetches.
"""

import base64
import io
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from onnx import TensorProto, helper
from PIL import Image
from skimage import data

import tiepoint
from tiepoint.images import resize_to_long_side
from tiepoint.runtime import embedded_models

pytestmark = pytest.mark.slow

FOLDER = Path(__file__).parents[2] / "examples" / "browser"
SECOND = 1000  # ms


@pytest.fixture(scope="module")
def playwright() -> Iterator[Any]:
    if not (FOLDER / "node_modules" / "onnxruntime-web").is_dir():
        pytest.skip("run `npm install` in examples/browser first")
    api = pytest.importorskip("playwright.sync_api", reason="pip install 'tiepoint[browser]'")
    with api.sync_playwright() as started:
        yield started


@pytest.fixture(scope="module")
def browser(playwright: Any) -> Iterator[Any]:
    started = launch(playwright)
    yield started
    started.close()


def launch(playwright: Any, *options: str) -> Any:
    """The system's Chromium or playwright's own."""
    chosen = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
    root = ["--no-sandbox"] if os.geteuid() == 0 else []  # has none
    try:
        return playwright.chromium.launch(executable_path=chosen, args=[*root, *options])
    except Exception as error:
        pytest.skip(f"there is no Chromium here: {str(error).splitlines()[0]}")


@pytest.fixture(scope="module")
def address() -> Iterator[str]:
    command = [sys.executable, str(FOLDER / "serve.py"), "--port", "0"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as server:
        assert server.stdout
        yield server.stdout.readline().strip()
        server.terminate()


@pytest.fixture(scope="module")
def page(browser: Any, address: str) -> Any:
    return opened(browser, f"{address}?threads=2")


def opened(browser: Any, address: str) -> Any:
    page = browser.new_page(viewport={"width": 1200, "height": 900})
    page.goto(address)
    page.wait_for_selector("#status[data-state=ready]")
    return page


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("photos")
    left, right = data.stereo_motorcycle()[:2]
    Image.fromarray(left).save(folder / "left.png")
    Image.fromarray(right).save(folder / "right.png")
    Image.fromarray(cv2.resize(left, (2223, 1500), interpolation=cv2.INTER_CUBIC)).save(folder / "big.png")
    Image.fromarray(cv2.resize(right, (2048, 1382), interpolation=cv2.INTER_CUBIC)).save(folder / "double.png")
    Image.new("RGB", (90, 70), (9, 9, 9)).save(folder / "blank.png")
    Image.new("RGB", (90, 5)).save(folder / "thin.png")
    exif = Image.Exif()
    exif[274] = 6  # lies on its side
    Image.fromarray(np.rot90(right).copy()).save(folder / "turned.png", exif=exif)
    (folder / "words.png").write_text("no image")
    x, y = (helper.make_tensor_value_info(name, TensorProto.FLOAT, [1]) for name in "xy")
    graph = helper.make_graph([helper.make_node("Identity", ["x"], ["y"])], "other", [x], [y])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10)
    (folder / "other.onnx").write_bytes(model.SerializeToString())
    shutil.copy(embedded_models()["default"], folder / "mine.onnx")
    return folder


def submit(
    page: Any, left: Path, right: Path, *, keypoints: int = 2048, model: Path | None = None, patience: int = 90
) -> str:
    """Fills the form as a person would, and waits for the line that it ends in."""
    page.set_input_files("#left", left)
    page.set_input_files("#right", right)
    page.set_input_files("#model", [model] if model else [])
    page.fill("#keypoints", str(keypoints))
    page.click("#match")
    page.wait_for_selector("#status[data-state=done], #status[data-state=error]", timeout=patience * SECOND)
    return page.inner_text("#status")


def downloaded(page: Any, folder: Path) -> np.ndarray:
    with page.expect_download() as download:
        page.click("#download")
    path = folder / download.value.suggested_filename
    download.value.save_as(path)
    header, *rows = path.read_text().splitlines()
    assert header == "x0,y0,x1,y1,score"
    return np.array([row.split(",") for row in rows], dtype=np.float32).reshape(-1, 5)


def agreement(table: np.ndarray, matches: tiepoint.Matches, radius: float) -> float:
    """Share of the matches that the other side has within `radius` px, the smaller of both directions."""
    theirs = np.hstack((matches.keypoints0, matches.keypoints1))
    distance = np.abs(table[:, None, :4] - theirs[None]).max(2)
    return float(min((distance.min(axis) <= radius).mean() for axis in (0, 1)))


def test_finds_what_python_finds(page: Any, photos: Path, tmp_path: Path) -> None:
    line = submit(page, photos / "left.png", photos / "right.png")
    assert page.evaluate("crossOriginIsolated")
    assert re.fullmatch(r"\d+ matches in [\d.]+ s \(wasm, 2 threads\)", line)
    table = downloaded(page, tmp_path)
    expected = tiepoint.load()(photos / "left.png", photos / "right.png")
    assert len(expected) > 1000
    assert len(table) == len(expected) == int(line.split()[0])
    assert agreement(table, expected, 1e-3) == 1
    assert np.allclose(table[:, 4], expected.scores, rtol=0, atol=1e-5)  # both fall, whatever the ranks


@pytest.mark.parametrize(
    ("left", "right", "keypoints"),
    [("big.png", "right.png", 2048), ("big.png", "double.png", 500), ("left.png", "turned.png", 300)],
)
def test_sizes_turned_photographs_and_keypoints(
    page: Any, photos: Path, tmp_path: Path, left: str, right: str, keypoints: int
) -> None:
    """Of large images some samples in ten thousand are shrunk to the grey level beside Python's."""
    submit(page, photos / left, photos / right, keypoints=keypoints)
    table = downloaded(page, tmp_path)
    expected = tiepoint.load(max_keypoints=keypoints)(photos / left, photos / right)
    assert len(expected) > 100
    assert abs(len(table) - len(expected)) <= 2
    assert agreement(table, expected, 0.03) >= 0.995


@pytest.mark.parametrize(
    ("size", "long_side", "unlike"),
    [
        ((300, 400), 200, 0),  # two to one and four to one: OpenCV rounds halves in two ways
        ((300, 400), 100, 0),
        ((300, 400), 133, 5e-4),
        ((201, 403), 300, 5e-4),
        ((400, 90), 399, 1e-2),  # one in 400 is a half, which OpenCV's sums in 32 bits miss by a little, either way
        ((60, 40), 64, 0),  # nothing to do
    ],
)
def test_shrinks_as_python_does(page: Any, size: tuple[int, int], long_side: int, unlike: float) -> None:
    image = np.random.default_rng(0).integers(0, 256, (*size, 3), dtype=np.uint8)
    expected, scale = resize_to_long_side(image, long_side)
    script = """async ([width, height, text, longSide]) => {
        const { shrink } = await import("./tiepoint.js");
        const small = shrink({ width, height, data: Uint8Array.from(atob(text), (c) => c.charCodeAt(0)) }, longSide);
        return { ...small, data: Array.from(small.data) };
    }"""
    found = page.evaluate(script, [size[1], size[0], base64.b64encode(image.tobytes()).decode(), long_side])
    assert (found["height"], found["width"]) == expected.shape[:2]
    assert found["scale"] == list(scale)
    difference = np.abs(np.array(found["data"]).reshape(expected.shape) - expected.astype(int))
    assert difference.max() <= 1
    assert (difference > 0).mean() <= unlike


def test_another_network_and_no_match(page: Any, photos: Path, tmp_path: Path) -> None:
    assert submit(page, photos / "blank.png", photos / "left.png", model=photos / "mine.onnx").startswith("0 matches")
    assert len(downloaded(page, tmp_path)) == 0


def test_webgpu_finds_the_same(playwright: Any, address: str, photos: Path, tmp_path: Path) -> None:
    """By software where there is no graphics card: minutes for a photograph, so a small one."""
    card = ("--enable-unsafe-webgpu", "--use-webgpu-adapter=swiftshader", "--ignore-gpu-blocklist")
    browser = launch(playwright, *card)
    page = opened(browser, address)
    if not page.evaluate("navigator.gpu?.requestAdapter().then(Boolean)"):
        pytest.skip("this Chromium has no WebGPU")
    page.select_option("#backend", "webgpu")
    page.fill("#long-side", "192")
    line = submit(page, photos / "left.png", photos / "right.png", keypoints=512, patience=300)
    assert line.endswith("(webgpu)")
    matcher = tiepoint.load(max_keypoints=512)
    matcher.long_side = 192
    expected = matcher(photos / "left.png", photos / "right.png")
    table = downloaded(page, tmp_path)
    browser.close()
    assert len(expected) > 200
    assert abs(len(table) - len(expected)) <= 2
    assert agreement(table, expected, 0.05) >= 0.99


def test_draws_the_photographs_and_the_lines(page: Any, photos: Path) -> None:
    submit(page, photos / "left.png", photos / "right.png")
    left = np.asarray(Image.open(photos / "left.png"))
    height, width = left.shape[:2]
    changed = []
    for lines in (1, 1000):
        page.locator("#lines").fill(str(lines))
        encoded = page.evaluate("document.getElementById('picture').toDataURL()").partition(",")[2]
        shown = np.asarray(Image.open(io.BytesIO(base64.b64decode(encoded))).convert("RGB"))[:height, :width]
        changed.append((shown != left).any(axis=2).mean())
    assert changed[0] < 0.01
    assert 0.05 < changed[1] < 0.9
    assert page.inner_text("#lines-shown").startswith("1000 of ")


def test_the_code_of_the_docs_runs(page: Any) -> None:
    text = (FOLDER.parents[1] / "docs" / "deploy.md").read_text(encoding="utf-8")
    block = re.findall(r"```js\n(.*?)```", text, re.DOTALL)[0]
    imported = re.sub(r"^import (.*) from (.*);", r"const \1 = await import(\2);", block)
    script = """async () => {
        const [left, right] = await Promise.all(
            ["left", "right"].map(async (side) => (await fetch(`demo/${side}.png`)).blob()));
        %s
        return [matches.keypoints0.length, matches.scores.length, toCsv(matches).split("\\n").length];
    }"""
    coordinates, count, lines = page.evaluate(script % imported)
    assert count > 1000
    assert (coordinates, lines) == (2 * count, count + 2)


def test_half_of_the_cores_are_left_to_others(browser: Any, address: str, photos: Path) -> None:
    page = opened(browser, address)
    line = submit(page, photos / "left.png", photos / "right.png", keypoints=64)
    half = page.evaluate("Math.min(4, Math.ceil(navigator.hardwareConcurrency / 2))")
    assert line.endswith(f"(wasm, {half} thread{'s' if half > 1 else ''})")
    page.close()


def test_the_demo_pair(page: Any) -> None:
    page.fill("#keypoints", "0")
    page.click("#demo")
    page.wait_for_selector("#status[data-state=error]")
    assert page.inner_text("#status") == "keypoints is 0, expected 1 to 65536"
    page.fill("#keypoints", "512")
    page.click("#demo")
    page.wait_for_selector("#status[data-state=done]", timeout=90 * SECOND)
    assert int(page.inner_text("#status").split()[0]) > 100


@pytest.mark.parametrize(
    ("left", "right", "model", "said"),
    [
        ("words.png", "left.png", None, "words.png is not an image that this browser reads"),
        ("left.png", "thin.png", None, "thin.png is 90×5 px, expected sides of 8 px or more"),
        ("left.png", "right.png", "words.png", "words.png is no ONNX graph that ONNX Runtime Web can run on wasm"),
        ("left.png", "right.png", "other.onnx", "other.onnx is an ONNX graph from x to y, expected one from image0"),
    ],
)
def test_a_mistake_is_one_sentence_and_the_page_goes_on(
    page: Any, photos: Path, left: str, right: str, model: str | None, said: str
) -> None:
    line = submit(page, photos / left, photos / right, model=photos / model if model else None)
    assert line.startswith(said)
    assert "\n" not in line
    assert re.match(r"\d+ matches", submit(page, photos / "left.png", photos / "right.png", keypoints=64))


def test_without_the_headers_it_says_so_and_has_one_thread(browser: Any, photos: Path) -> None:
    command = [sys.executable, "-u", "-m", "http.server", "0", "--bind", "127.0.0.1", "--directory", str(FOLDER)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True) as server:
        assert server.stdout
        port = re.search(r"port (\d+)", server.stdout.readline())
        assert port
        page = opened(browser, f"http://127.0.0.1:{port[1]}/?threads=2")
        assert "on one thread: the page is not cross-origin isolated" in page.inner_text("#status")
        assert page.locator("#demo").is_disabled()
        assert not any(page.locator(part).is_visible() for part in ("#picture", "#download", "#lines-label"))
        line = submit(page, photos / "left.png", photos / "right.png")
        assert line == "default.onnx cannot be had (404): start the page by serve.py"
        line = submit(page, photos / "left.png", photos / "right.png", keypoints=64, model=photos / "mine.onnx")
        assert line.endswith("(wasm, 1 thread)")
        page.close()
        server.terminate()
