"""Where the time of one `tiepoint match` goes, measured inside this process; speed.py starts it afresh for every run.

python benchmarks/startup.py LEFT RIGHT
"""

import io
import json
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from contextlib import redirect_stdout
from typing import Any


def count(owner: Any, name: str, stage: str, seconds: dict[str, float]) -> None:
    """From now on, add the time of each call of `owner.name` to a stage."""
    function: Callable[..., Any] = getattr(owner, name)

    def timed(*args: Any, **kwargs: Any) -> Any:
        start = time.perf_counter()
        try:
            return function(*args, **kwargs)
        finally:
            seconds[stage] += time.perf_counter() - start

    setattr(owner, name, timed)


def measure(left: str, right: str) -> dict[str, float]:
    """Seconds of each stage of `tiepoint match LEFT RIGHT` with all its files; "rest" holds the command line."""
    seconds = dict.fromkeys(("import", "session", "read", "match", "write", "draw"), 0.0)
    start = time.perf_counter()
    import cv2
    import jsonargparse  # noqa: F401  the command line is read by it
    import onnxruntime  # noqa: F401  what a session runs on

    from tiepoint import cli, draw, match
    from tiepoint.runtime.matcher import Matcher

    seconds["import"] = time.perf_counter() - start
    counted = (
        (match, "load", "session"),
        (match, "read_usable", "read"),
        (Matcher, "__call__", "match"),
        (match, "write_matches", "write"),
        (draw, "draw_matches", "draw"),
        (cv2, "imencode", "draw"),
    )
    for owner, name, stage in counted:
        count(owner, name, stage, seconds)
    with tempfile.TemporaryDirectory() as folder, redirect_stdout(io.StringIO()):
        code = cli.main(["match", left, right, "-o", folder])
    if code:
        sys.exit(code)
    seconds["rest"] = time.perf_counter() - start - sum(seconds.values())
    return seconds


def main(argv: Sequence[str]) -> None:
    """Print the stages as JSON, in seconds."""
    if len(argv) != 2:
        print(f"error: {len(argv)} arguments are given, expected two images\n{__doc__}", file=sys.stderr)
        sys.exit(2)
    print(json.dumps(measure(*argv)))


if __name__ == "__main__":
    main(sys.argv[1:])
