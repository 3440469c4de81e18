"""Fetches public benchmarks: downloads that go on where they broke off, are checked, and are unpacked with care."""

import hashlib
import http.client
import os
import re
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Callable
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

from loguru import logger
from tqdm import tqdm

from tiepoint import __version__
from tiepoint.errors import InputError, WorkError
from tiepoint.evaluation.pairs import Archive, Benchmark
from tiepoint.evaluation.unpack import RefusedArchiveError, unpack
from tiepoint.files import atomic_path, check_writable

ATTEMPTS = 4  # of a transfer that breaks off
PAUSE = 1.0  # seconds before the second attempt, twice as long before each further one
TIMEOUT = 30.0  # seconds without a byte
BLOCK = 1 << 18  # bytes
PASSING = (408, 416, 425, 429)  # the refusals that may end differently next time


class _BrokenTransferError(Exception):
    """A transfer that may succeed if it is tried again; the message says what happened."""


def prepare(benchmark: Benchmark, root: Path) -> Path:
    """Makes sure that a benchmark's data lie under a folder: downloads them if its own folder is absent.

    Args:
        benchmark: what is wanted.
        root: the folder that holds the benchmarks. Downloads lie in `root/downloads` until they are unpacked; the
            checksum of a file whose publisher states none stays there.

    Returns:
        The benchmark's folder.

    Raises:
        InputError: the data have to be placed there by hand, or `root` cannot be written to.
        WorkError: the download or the unpacking failed; a download that broke off is kept and resumed.
    """
    folder = root / benchmark.folder
    if folder.is_dir():
        return folder
    if not benchmark.archives:
        raise InputError(
            f"{folder} does not exist, expected the data of {benchmark.title!r}, to be placed there by hand: "
            f"{benchmark.source} (licence: {benchmark.licence})"
        )
    check_writable(folder)
    logger.info(f"Downloading {benchmark.title} to {folder} (licence: {benchmark.licence})")
    files = [fetch(archive, root / "downloads") for archive in benchmark.archives]
    with tempfile.TemporaryDirectory(prefix=".tiepoint-", dir=root) as scratch:
        content = Path(scratch) / "content"
        for file in files:
            _unpack(file, content)
        _move(_innermost(content), folder)
    for file in files:
        file.unlink(missing_ok=True)
    return folder


def fetch(archive: Archive, target_folder: Path) -> Path:
    """Downloads a file over HTTP or HTTPS, goes on where an earlier download broke off, and checks it.

    While it grows the file is called `NAME.part`. It is resumed only where the server says that it is still the same
    file, or where a checksum will tell; a server that cannot send the rest sends the whole again. Where the publisher
    states no checksum, the SHA-256 of the first download is written to `NAME.sha256`, and later downloads are held
    to that.

    Args:
        archive: where it lies and what is known of it.
        target_folder: where to put it; created if absent.

    Returns:
        The file; nothing is downloaded if it is there already and right.

    Raises:
        InputError: the address is none of HTTP, or the folder cannot be written to.
        WorkError: there is no such file, no connection, the transfer broke off for good, the content is not what
            was expected (then nothing is kept), or the disk is full.
    """
    target = target_folder / _name(archive.url)
    check_writable(target)
    try:
        target_folder.mkdir(parents=True, exist_ok=True)
        if not target.is_file():
            _download(archive, target)
        _verify(archive, target)
    except OSError as error:
        raise WorkError(f"{target} could not be written: {error.strerror or error}") from error
    return target


def _name(url: str) -> str:
    parts = urlsplit(url)
    name = unquote(parts.path).rsplit("/", 1)[-1]
    if parts.scheme not in ("http", "https") or name in ("", ".", ".."):
        raise InputError(f"{url} is no address of a file to download, expected http://... or https://...")
    return name


def _download(archive: Archive, target: Path) -> None:
    """Brings the whole file to `target`, in as many attempts as it takes and are allowed."""
    part = target.with_name(f"{target.name}.part")
    for attempt in range(1, ATTEMPTS + 1):
        try:
            _transfer(archive, part)
            break
        except _BrokenTransferError as error:
            if attempt == ATTEMPTS:
                kept = f"; {part.stat().st_size} bytes are kept for the next run" if part.exists() else ""
                raise WorkError(
                    f"{archive.url} could not be downloaded ({ATTEMPTS} attempts): {error}{kept}"
                ) from error
            logger.warning(f"{archive.url}: {error}, trying again")
            time.sleep(PAUSE * 2 ** (attempt - 1))
    os.replace(part, target)
    _validator_of(part).unlink(missing_ok=True)


def _transfer(archive: Archive, part: Path) -> None:
    """Asks for what is missing and appends it; whatever the disk does wrong stays an OSError."""
    with _ask(archive, part) as answer:
        start = part.stat().st_size if answer.status == 206 else 0
        total = _total(answer, start)
        if not start:
            part.unlink(missing_ok=True)  # never an old part beside the name of a new version
            _validator_of(part).write_text(_validator(answer), encoding="utf-8")
        title = _name(archive.url)
        with (
            part.open("ab" if start else "wb") as file,
            tqdm(total=total, initial=start, desc=title, unit="B", unit_scale=True, disable=None, leave=False) as bar,
        ):
            while block := _or_broken(lambda: answer.read(BLOCK)):
                file.write(block)
                bar.update(len(block))
    found = part.stat().st_size
    if total is not None and found != total:
        raise _BrokenTransferError(f"the transfer broke off after {found} of {total} bytes")


def _ask(archive: Archive, part: Path) -> Any:
    """Asks for the file, or for what follows the part that is there already.

    Raises:
        WorkError: the server refuses, and would refuse again.
        _BrokenTransferError: anything else.
    """
    start = part.stat().st_size if part.exists() else 0
    validator = _validator_of(part).read_text(encoding="utf-8") if _validator_of(part).exists() else ""
    headers = {"User-Agent": f"tiepoint/{__version__}"}
    if start and (validator or archive.sha256 or archive.md5):
        headers["Range"] = f"bytes={start}-"
        if validator:
            headers["If-Range"] = validator  # the server sends the whole file if it is another one by now
    request = urllib.request.Request(archive.url, headers=headers)
    try:
        return _or_broken(lambda: urllib.request.urlopen(request, timeout=TIMEOUT))
    except urllib.error.HTTPError as error:
        error.close()
        if error.code == 416:  # the part is longer than the file
            part.unlink()
        if 400 <= error.code < 500 and error.code not in PASSING:
            raise WorkError(f"{archive.url} answered {error.code} {error.reason}, expected the file") from error
        raise _BrokenTransferError(f"the server answered {error.code} {error.reason}") from error


def _or_broken(exchange: Callable[[], Any]) -> Any:
    """Talks to the server; what goes wrong there must not be taken for a fault of the disk."""
    try:
        return exchange()
    except urllib.error.HTTPError:
        raise
    except urllib.error.URLError as error:
        raise _BrokenTransferError(f"no connection to the server ({error.reason})") from error
    except (OSError, http.client.HTTPException) as error:
        raise _BrokenTransferError(f"the transfer broke off ({error or type(error).__name__})") from error


def _total(answer: Any, start: int) -> int | None:
    """Bytes of the whole file, where the server says so."""
    if answer.status != 206:
        length = answer.headers.get("Content-Length", "")
        return int(length) if length.isdecimal() else None
    span = answer.headers.get("Content-Range", "")
    told = re.fullmatch(r"bytes (\d+)-\d+/(\d+)", span)
    if not told or int(told[1]) != start:
        raise _BrokenTransferError(f"the server sent {span or 'no Content-Range'}, expected bytes from {start} on")
    return int(told[2])


def _validator_of(part: Path) -> Path:
    return part.with_name(f"{part.name}.version")


def _validator(answer: Any) -> str:
    """What the server calls this version of the file (RFC 9110, 13.1.5: a weak ETag will not do); may be empty."""
    tag: str = answer.headers.get("ETag", "")
    return tag if tag.startswith('"') else str(answer.headers.get("Last-Modified", ""))


def _verify(archive: Archive, file: Path) -> None:
    """Compares a download with what is known of it, and removes it where it differs."""
    if archive.size is not None:
        _compare(archive, file, "size in bytes", found=str(file.stat().st_size), expected=str(archive.size))
    if archive.md5 is not None:
        _compare(archive, file, "MD5", found=_digest(file, "md5"), expected=archive.md5)
    record, found = _record_of(file), _digest(file, "sha256")
    if archive.sha256 is not None:
        _compare(archive, file, "SHA-256", found=found, expected=archive.sha256)
    elif record.is_file():
        first = record.read_text(encoding="utf-8").split(maxsplit=1)[0]
        _compare(archive, file, "SHA-256", found=found, expected=f"{first} as at the first download ({record})")
    elif archive.md5 is None:
        with atomic_path(record) as path:
            path.write_text(f"{found}  {file.name}\n", encoding="utf-8")


def _record_of(file: Path) -> Path:
    return file.with_name(f"{file.name}.sha256")


def _digest(file: Path, kind: str) -> str:
    with file.open("rb") as stream:
        return hashlib.file_digest(stream, lambda: hashlib.new(kind, usedforsecurity=False)).hexdigest()


def _compare(archive: Archive, file: Path, what: str, *, found: str, expected: str) -> None:
    if found != expected.split(" ", 1)[0].lower():
        file.unlink()
        raise WorkError(f"{archive.url} has the {what} {found}, expected {expected}: the download was not kept")


def _unpack(file: Path, content: Path) -> None:
    try:
        unpack(file, content)
    except RefusedArchiveError:
        # some servers send a page of apology as if it were the file: nothing may be held to its checksum
        for useless in (file, _record_of(file)):
            useless.unlink(missing_ok=True)
        raise


def _innermost(content: Path) -> Path:
    """Skips the one folder that many archives pack all their folders into."""
    visible = [path for path in content.iterdir() if not path.name.startswith((".", "__MACOSX"))]
    wraps = len(visible) == 1 and any(path.is_dir() for path in visible[0].glob("*"))
    return visible[0] if wraps else content


def _move(source: Path, folder: Path) -> None:
    try:
        source.rename(folder)
    except OSError as error:
        # another process may have been faster, which is as good
        if not folder.is_dir():
            raise WorkError(f"{folder} could not be written: {error.strerror}") from error
