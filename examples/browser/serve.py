"""Serves the page of this folder to this machine: `python examples/browser/serve.py`, after `npm install` in here.

Two headers make a page cross-origin isolated; without them browsers give WebAssembly one thread.
"""

import argparse
import importlib.util
import io
from contextlib import suppress
from functools import cache, partial
from http import HTTPStatus
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

FOLDER = Path(__file__).resolve().parent
RUNTIME = FOLDER / "node_modules" / "onnxruntime-web" / "dist"
HEADERS = {
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Embedder-Policy": "require-corp",
    "Cache-Control": "no-cache",
}


class Handler(SimpleHTTPRequestHandler):
    """This folder's files, /default.onnx, and the demo pair under /demo/ where scikit-image is installed."""

    # not left to the machine's own table, which may know neither or say text/plain: browsers refuse both then
    extensions_map = {  # noqa: RUF012, the base class has it so
        **SimpleHTTPRequestHandler.extensions_map,
        ".js": "text/javascript",
        ".mjs": "text/javascript",
        ".wasm": "application/wasm",
        ".onnx": "application/octet-stream",
    }

    def __init__(self, *args: object, model: Path, **kwargs: object) -> None:
        self.model = model
        super().__init__(*args, **kwargs)  # type: ignore[arg-type]

    def end_headers(self) -> None:
        """Adds ours to every answer."""
        for name, value in HEADERS.items():
            self.send_header(name, value)
        super().end_headers()

    def translate_path(self, path: str) -> str:
        """The one file that lies elsewhere."""
        return str(self.model) if path.partition("?")[0] == "/default.onnx" else super().translate_path(path)

    def do_GET(self) -> None:
        """Pictures of the demo are made, all else is a file."""
        if not self._sent_demo():
            super().do_GET()

    def do_HEAD(self) -> None:
        """As GET, by which the page learns whether there is a demo."""
        if not self._sent_demo(with_body=False):
            super().do_HEAD()

    def _sent_demo(self, *, with_body: bool = True) -> bool:
        if self.path not in ("/demo/left.png", "/demo/right.png") or importlib.util.find_spec("skimage") is None:
            return False
        content = demo_pair()[self.path.endswith("right.png")]
        self.send_response(HTTPStatus.OK)
        self.send_header("Content-Type", "image/png")
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        if with_body:
            self.wfile.write(content)
        return True

    def log_message(self, format: str, *args: object) -> None:
        """Says only what failed."""
        if len(args) > 1 and str(args[1]) >= "400":
            super().log_message(format, *args)


@cache
def demo_pair() -> tuple[bytes, bytes]:
    """Middlebury's Motorcycle (Scharstein et al., GCPR 2014), which comes with scikit-image, as two PNG files."""
    from PIL import Image
    from skimage import data

    left, right = io.BytesIO(), io.BytesIO()
    for file, pixels in zip((left, right), data.stereo_motorcycle()[:2], strict=True):
        Image.fromarray(pixels).save(file, format="PNG")
    return left.getvalue(), right.getvalue()


def embedded_model() -> Path:
    """The weights that come with tiepoint, in a clone or installed; tiepoint itself is not imported."""
    spec = importlib.util.find_spec("tiepoint")
    root = Path(spec.origin).parent if spec and spec.origin else FOLDER.parents[1] / "src" / "tiepoint"
    return root / "weights" / "default.onnx"


def main() -> None:
    """Serve until interrupted."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--port", type=int, default=8000, help="0 takes a free one")
    parser.add_argument("--model", type=Path, default=embedded_model(), help="what the page gets as default.onnx")
    args = parser.parse_args()
    if not RUNTIME.is_dir():
        parser.error(f"{RUNTIME} is missing: run `npm install` in {FOLDER} first")
    if not args.model.is_file():
        parser.error(f"--model is {args.model}, expected an .onnx file")
    handler = partial(Handler, directory=str(FOLDER), model=args.model)
    try:  # to this machine alone: nobody else is to be served files from here
        server = ThreadingHTTPServer(("127.0.0.1", args.port), handler)
    except OSError as error:
        parser.error(f"--port is {args.port}, which cannot be had: {error.strerror}")
    with server, suppress(KeyboardInterrupt):
        print(f"http://localhost:{server.server_port}/", flush=True)
        server.serve_forever()


if __name__ == "__main__":
    main()
