"""One format for every line, whoever says it."""

import logging
import re
import subprocess
import sys
import warnings
from collections.abc import Iterator
from pathlib import Path

import pytest
from loguru import logger

from tiepoint import logs

LINE = re.compile(r"\d\d:\d\d:\d\d [A-Z]+ +\S")


@pytest.fixture(autouse=True)
def restored() -> Iterator[None]:
    """Leave logging as it was for other tests."""
    root = logging.getLogger()
    handlers, level = root.handlers, root.level
    # where an earlier test left it on, a second True would do nothing, and pytest has taken the hook away since
    logging.captureWarnings(False)
    yield
    logging.captureWarnings(False)
    root.handlers, root.level = handlers, level


def test_loguru_logging_and_warnings_share_one_format(capsys: pytest.CaptureFixture[str]) -> None:
    logs.setup()
    logger.info("from loguru")
    logging.getLogger("lightning.pytorch.utilities.rank_zero").info("from Lightning")
    with warnings.catch_warnings():
        warnings.simplefilter("always")
        warnings.warn("from a warning", UserWarning, stacklevel=1)
    lines = capsys.readouterr().err.splitlines()
    assert [line.split(maxsplit=2)[2] for line in lines] == ["from loguru", "from Lightning", "from a warning"]
    assert all(LINE.match(line) for line in lines)


def test_adverts_are_left_out_and_the_level_is_kept(capsys: pytest.CaptureFixture[str]) -> None:
    logs.setup(level="WARNING")
    logging.getLogger("lightning.pytorch.utilities.rank_zero").warning("💡 Tip: use litlogger")
    logger.info("too quiet")
    logger.warning("loud")
    assert [line.split(maxsplit=2)[2] for line in capsys.readouterr().err.splitlines()] == ["loud"]


def test_a_file_keeps_every_line(tmp_path: Path) -> None:
    logs.setup(level="ERROR")
    handle = logs.to_file(tmp_path / "run" / "run.log")
    logger.info("kept")
    logging.getLogger("somebody").warning("kept too")
    logger.remove(handle)
    text = (tmp_path / "run" / "run.log").read_text()
    assert "tiepoint kept\n" in text
    assert "somebody kept too\n" in text


def test_a_bar_never_tears_a_line() -> None:
    script = """
import sys, time
from loguru import logger
from tqdm import tqdm
from tiepoint import logs
logs.setup()
for i in tqdm(range(5), file=sys.stderr, mininterval=0):
    logger.info(f"line {i}")
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    pieces = re.split(r"[\r\n]+", done.stderr)
    assert [piece for piece in pieces if "line" in piece and LINE.match(piece)] == [
        piece for piece in pieces if "line" in piece
    ]
    assert sum("line" in piece for piece in pieces) == 5


def test_loguru_is_imported_when_there_is_something_to_log() -> None:
    script = """
import logging, sys, warnings
from tiepoint import logs
logs.setup_when_needed()
logging.getLogger("PIL").info("noise")
assert "loguru" not in sys.modules
warnings.warn("mind the gap")
logging.getLogger("anybody").info("here I am")
assert "loguru" in sys.modules
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    lines = done.stderr.splitlines()
    assert len(lines) == 2
    assert lines[0].endswith("WARNING mind the gap")
    assert lines[1].endswith("INFO    here I am")
