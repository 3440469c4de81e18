"""One log: loguru's lines, Python's logging (Lightning's above all) and warnings, in one format on stderr."""

import logging
import os
import sys
from pathlib import Path

_LINE = "<dim>{time:HH:mm:ss}</dim> <level>{level: <7}</level> {message}"
_RANKS = ("RANK", "LOCAL_RANK", "SLURM_PROCID")  # by which Lightning tells its processes apart
_FILE_LINE = "{time:YYYY-MM-DD HH:mm:ss.SSS} {level: <7} {extra[origin]} {message}"

# what Lightning and torch say that no user of tiepoint can act on
_NOISE = (
    "💡 Tip",
    "litlogger",
    "litmodels",
    "LeafSpec",
    "Seed set to",
    "GPU available",
    "TPU available",
    "HPU available",
    "does not have many workers which may be a bottleneck",
    "exists and is not empty",
    "`Trainer.fit` stopped",
    "Restoring states from the checkpoint path",
    "Loaded model weights from the checkpoint",
    "Using bfloat16 Automatic Mixed Precision",
    "Precision bf16-mixed is not supported by the model summary",
    "Restored all states from the checkpoint",
    "nothing to validate",
    "The number of training batches",
)


class _ToLoguru(logging.Handler):
    """Hands records of Python's logging to loguru, under the name of their own logger."""

    def emit(self, record: logging.LogRecord) -> None:
        from loguru import logger

        message = record.getMessage().strip()
        if not message or any(noise in message for noise in _NOISE):
            return
        if record.name == "py.warnings":
            # "file:line: Category: text\n  source line" → the text
            message = message.splitlines()[0].split(": ", 2)[-1]
        level = record.levelname if record.levelname in logger._core.levels else record.levelno  # type: ignore[attr-defined]
        logger.bind(origin=record.name).opt(exception=record.exc_info).log(level, message)


class _Waiting(logging.Handler):
    """Sets the log up when there is something to log."""

    def emit(self, record: logging.LogRecord) -> None:
        setup()
        logging.getLogger().handle(record)


def _write(line: str) -> None:
    # stderr is looked up late and tqdm clears its bar first: no line is torn, whoever has redirected the stream
    from tqdm import tqdm

    tqdm.write(line, file=sys.stderr, end="")


def setup(level: str = "INFO") -> None:
    """Send everything through one sink. Call it after Lightning is imported, which adds handlers of its own.

    Where several processes train together, the first one speaks for all: the others only warn.

    Args:
        level: least level of the lines on stderr.
    """
    from loguru import logger

    logger.remove()
    logger.configure(extra={"origin": "tiepoint"})
    first = next((os.environ[name] for name in _RANKS if name in os.environ), "0") == "0"
    logger.add(_write, level=level if first else "WARNING", format=_LINE, colorize=sys.stderr.isatty())
    logging.captureWarnings(True)
    root = logging.getLogger()
    root.handlers = [_ToLoguru()]
    root.setLevel(logging.INFO)
    for name in ("lightning", "lightning.pytorch", "lightning.fabric", "pytorch_lightning", "py.warnings"):
        logging.getLogger(name).handlers.clear()
        logging.getLogger(name).propagate = True
    _quieten()


def setup_when_needed() -> None:
    """Like `setup`, but loguru is imported by the first line that is to be logged.

    For verbs that use Python's logging alone and mostly have nothing to say: loguru takes a tenth of their time.
    """
    logging.captureWarnings(True)
    root = logging.getLogger()
    root.handlers = [_Waiting()]
    root.setLevel(logging.INFO)
    _quieten()


def _quieten() -> None:
    for name in ("fsspec", "urllib3", "matplotlib", "PIL", "torch", "onnxscript", "onnx_ir"):
        logging.getLogger(name).setLevel(logging.WARNING)


def to_file(path: Path) -> int:
    """Keep all lines in a file as well.

    Args:
        path: it is appended to; parent folders are created.

    Returns:
        The handle for `loguru.logger.remove`.
    """
    from loguru import logger

    return logger.add(path, level="DEBUG", format=_FILE_LINE, encoding="utf-8")
