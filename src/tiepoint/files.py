"""Writing files so that a reader finds the old content or the new, never half of it."""

import errno
import json
import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from tiepoint.errors import InputError, WorkError

_DISK_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


@contextmanager
def atomic_path(path: str | os.PathLike[str]) -> Iterator[Path]:
    """Yields a path to write to, which takes the name `path` once the block ends without an error.

    The temporary file lies hidden in the folder of the target and keeps its suffix, because many writers
    choose their format by it. Missing parent folders are created. A link is followed, not replaced.

    Args:
        path: the file to write; an existing file is replaced.

    Yields:
        The path of the temporary file, which does not exist yet.

    Raises:
        InputError: `path` is a folder or no ordinary file, or its folder cannot be created or written to.
        WorkError: the disk is full.
    """
    check_writable(path)
    target = Path(os.path.realpath(path))
    temporary = _beside(target)
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        yield temporary
        os.replace(temporary, target)
    except OSError as error:
        if error.errno in _DISK_FULL:
            raise WorkError(f"{os.fspath(path)} could not be written: {error.strerror}") from error
        raise
    finally:
        with suppress(OSError):
            temporary.unlink(missing_ok=True)


def json_line(value: object) -> str:
    """A line of JSON, which every reader takes: what is no number is refused."""
    return json.dumps(value, allow_nan=False) + "\n"


def check_writable(path: str | os.PathLike[str]) -> None:
    """Finds out before long work whether its result can be written, and leaves nothing behind.

    Args:
        path: the file that is going to be written; missing parent folders are no fault if they can be created.

    Raises:
        InputError: `path` is a folder or no ordinary file, or its folder cannot be created or written to.
    """
    name = os.fspath(path)
    try:
        target = Path(os.path.realpath(name))
        _check_kind(name, target)
        missing = [folder for folder in target.parents if not folder.exists()]
        target.parent.mkdir(parents=True, exist_ok=True)
        try:
            # permission bits say little about network shares, read-only mounts and root: trying says all
            probe = _beside(target)
            probe.touch(exist_ok=False)
            probe.unlink()
        finally:
            for folder in missing:
                with suppress(OSError):  # somebody else may have put a file there by now
                    folder.rmdir()
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or error
        raise InputError(f"{name} cannot be written: {reason}") from error


def _check_kind(name: str, target: Path) -> None:
    """Raises InputError where something that is not an ordinary file stands at the target."""
    try:
        mode = os.stat(target).st_mode
    except FileNotFoundError:
        mode = stat.S_IFREG
    if not name:
        raise InputError("the name of the file to write is empty")
    if stat.S_ISDIR(mode) or name.endswith(("/", os.sep)):
        raise InputError(f"{name} is a folder, expected the name of a file to write")
    # renaming over a device such as /dev/null would replace the device itself
    if not stat.S_ISREG(mode):
        raise InputError(f"{name} is not an ordinary file, expected the name of a file to write")


def _beside(target: Path) -> Path:
    """A hidden, unused name in the same folder; short, as the target's own may be as long as is allowed."""
    return target.with_name(f".tiepoint-{os.urandom(6).hex()}{target.suffix}")
