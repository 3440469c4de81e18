"""`examples/browser/serve.py`: the headers that give WebAssembly its threads, and what it serves."""

import io
import runpy
import subprocess
import sys
import threading
from collections.abc import Iterator
from functools import partial
from http.client import HTTPConnection, HTTPResponse
from http.server import ThreadingHTTPServer
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from skimage import data

from tiepoint.runtime import embedded_models

SERVE = Path(__file__).parents[2] / "examples" / "browser" / "serve.py"


@pytest.fixture(scope="module")
def port(tmp_path_factory: pytest.TempPathFactory) -> Iterator[int]:
    """A server on a copy of nothing but a page, so that the test needs no npm."""
    folder = tmp_path_factory.mktemp("site")
    (folder / "index.html").write_text("<p>page")
    for name in ("a.mjs", "a.wasm"):
        (folder / name).write_bytes(b"\0")
    handler = runpy.run_path(str(SERVE))["Handler"]
    made = partial(handler, directory=str(folder), model=embedded_models()["default"])
    with ThreadingHTTPServer(("127.0.0.1", 0), made) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield server.server_port
        server.shutdown()
        thread.join()


def ask(port: int, path: str, method: str = "GET") -> tuple[HTTPResponse, bytes]:
    connection = HTTPConnection("127.0.0.1", port, timeout=10)
    connection.request(method, path)
    answer = connection.getresponse()
    content = answer.read()
    connection.close()
    return answer, content


@pytest.mark.parametrize("path", ["/", "/default.onnx", "/demo/left.png", "/nothing"])
def test_every_answer_isolates_the_page(port: int, path: str) -> None:
    answer, _ = ask(port, path)
    assert answer.getheader("Cross-Origin-Opener-Policy") == "same-origin"
    assert answer.getheader("Cross-Origin-Embedder-Policy") == "require-corp"


def test_modules_and_webassembly_have_the_types_that_browsers_insist_on(port: int) -> None:
    assert ask(port, "/a.mjs")[0].getheader("Content-Type") == "text/javascript"
    assert ask(port, "/a.wasm")[0].getheader("Content-Type") == "application/wasm"


def test_serves_the_embedded_weights(port: int) -> None:
    for path in ("/default.onnx", "/default.onnx?again"):
        assert ask(port, path)[1] == embedded_models()["default"].read_bytes()


@pytest.mark.parametrize("side", [0, 1])
def test_the_demo_pair_is_lossless(port: int, side: int) -> None:
    path = f"/demo/{('left', 'right')[side]}.png"
    answer, content = ask(port, path)
    assert answer.status == 200
    assert np.array_equal(np.asarray(Image.open(io.BytesIO(content))), data.stereo_motorcycle()[side])
    head, nothing = ask(port, path, "HEAD")
    assert (head.status, nothing) == (200, b"")
    assert int(head.getheader("Content-Length") or 0) == len(content)


@pytest.mark.parametrize("path", ["/../serve.py", "/%2e%2e/%2e%2e/etc/passwd", "/demo/other.png"])
def test_nothing_outside_the_folder(port: int, path: str) -> None:
    assert ask(port, path)[0].status == 404


def test_what_is_missing_is_named(tmp_path: Path) -> None:
    (tmp_path / "serve.py").write_text(SERVE.read_text())
    done = subprocess.run([sys.executable, str(tmp_path / "serve.py")], capture_output=True, text=True)
    assert done.returncode == 2
    assert "run `npm install` in" in done.stderr
    (tmp_path / "node_modules" / "onnxruntime-web" / "dist").mkdir(parents=True)
    command = [sys.executable, str(tmp_path / "serve.py"), "--model", "nothing.onnx"]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 2
    assert "--model is nothing.onnx, expected an .onnx file" in done.stderr
