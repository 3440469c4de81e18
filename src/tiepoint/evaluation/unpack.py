"""Unpacks archives of whatever origin: no path leaves the target, nothing but files, no more than was announced."""

import re
import shutil
import stat
import tarfile
import zipfile
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from functools import partial
from pathlib import Path, PurePosixPath
from typing import IO, NamedTuple, cast

from tqdm import tqdm

from tiepoint.errors import WorkError

MAX_RATIO = 200  # unpacked to packed size: text of numbers has 10, a bomb has thousands
MAX_SLACK = 1 << 26  # bytes that even the smallest archive may unpack to
BLOCK = 1 << 20


class RefusedArchiveError(WorkError):
    """An archive that no second try would unpack: damaged, or made to do harm."""


class _Member(NamedTuple):
    """A file in an archive."""

    name: str
    size: int
    open: Callable[[], IO[bytes]]


def unpack(archive: Path, folder: Path) -> None:
    """Unpacks the files of a .zip or .tar(.gz, .bz2, .xz) archive.

    Args:
        archive: the archive, told by its content.
        folder: where to; created if absent.

    Raises:
        RefusedArchiveError: the archive is damaged, holds a link, a device or a path that leaves the folder, or
            unpacks to an absurd size.
        WorkError: the disk has less left than is needed, or fails.
    """
    with _damage_told(archive), _opened(archive) as members:
        _check_size(archive, sum(member.size for member in members), folder)
        for member in tqdm(members, desc=f"Unpacking {archive.name}", unit="file", disable=None, leave=False):
            _write(member, folder / _inside(archive, member.name))


@contextmanager
def _damage_told(archive: Path) -> Iterator[None]:
    try:
        yield
    except WorkError:
        raise
    except OSError as error:
        raise WorkError(f"{archive} could not be unpacked: {error.strerror or error}") from error
    # a damaged archive fails in whatever way it happens to
    except Exception as error:
        raise RefusedArchiveError(f"{archive} is damaged: {error or type(error).__name__}") from error


@contextmanager
def _opened(path: Path) -> Iterator[list[_Member]]:
    """Yields the files in an archive; raises WorkError where it holds anything else."""
    with ExitStack() as stack:
        if zipfile.is_zipfile(path):
            yield _in_zip(stack.enter_context(zipfile.ZipFile(path)))
        elif tarfile.is_tarfile(path):
            yield _in_tar(stack.enter_context(tarfile.open(path)))
        else:
            raise RefusedArchiveError(f"{path} is neither a .zip nor a .tar archive")


def _in_zip(archive: zipfile.ZipFile) -> list[_Member]:
    members = []
    for info in archive.infolist():
        mode = info.external_attr >> 16
        if stat.S_IFMT(mode) not in (0, stat.S_IFREG, stat.S_IFDIR):
            raise RefusedArchiveError(
                f"{archive.filename} holds {info.filename}, which is a link or a device, expected files"
            )
        if not info.is_dir():
            members.append(_Member(info.filename, info.file_size, partial(archive.open, info)))
    return members


def _in_tar(archive: tarfile.TarFile) -> list[_Member]:
    members = []
    for info in archive:
        if not (info.isreg() or info.isdir()):
            raise RefusedArchiveError(
                f"{archive.name!s} holds {info.name}, which is a link or a device, expected files"
            )
        if info.isreg():
            members.append(
                _Member(info.name, info.size, cast("Callable[[], IO[bytes]]", partial(archive.extractfile, info)))
            )
    return members


def _inside(archive: Path, name: str) -> PurePosixPath:
    """The path of a member, relative and free of ways out."""
    path = PurePosixPath(name.replace("\\", "/"))
    if path.is_absolute() or ".." in path.parts or re.match("[A-Za-z]:", name) or not path.parts:
        raise RefusedArchiveError(f"{archive} holds {name!r}, expected a path inside the folder to unpack to")
    return path


def _check_size(archive: Path, size: int, folder: Path) -> None:
    packed = archive.stat().st_size
    if size > MAX_RATIO * packed + MAX_SLACK:
        raise RefusedArchiveError(f"{archive} of {packed} bytes would unpack to {size}, which no data set does")
    folder.mkdir(parents=True, exist_ok=True)
    free = shutil.disk_usage(folder).free
    if size > free:
        raise WorkError(f"{archive} unpacks to {size} bytes, but only {free} are free in {folder.parent}")


def _write(member: _Member, path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with member.open() as source, path.open("xb") as target:
        left = member.size
        while block := source.read(min(BLOCK, left)):
            target.write(block)
            left -= len(block)
    if left:
        raise EOFError(f"{member.name} ends {left} bytes early")
