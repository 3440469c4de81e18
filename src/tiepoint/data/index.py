"""Which files of a folder are usable photos: found once, verified once, remembered."""

import hashlib
import json
import os
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from loguru import logger
from PIL import Image
from tqdm import tqdm

from tiepoint.errors import InputError, WorkError
from tiepoint.files import atomic_path
from tiepoint.images import verify_image

# what Pillow opens and is no photo, or only with a program of somebody else's
_NO_PHOTOS = {"BUFR", "EPS", "FITS", "GRIB", "HDF5", "MPEG", "WMF"}
LEAST_SIDE = 64  # a photo with a shorter side than this teaches nothing: it is smaller than one crop


@dataclass(frozen=True, slots=True)
class Photo:
    """One file, verified or found wanting.

    Attributes:
        path: the file.
        size_bytes: with `modified_ns`, what tells that it has changed since.
        modified_ns: time of its last change, nanoseconds.
        sha256: of the content, hexadecimal; "" where it cannot be read.
        height: rows after EXIF orientation, 0 where the file is not usable.
        width: columns.
        fault: why it is not usable, "" where it is.
    """

    path: str
    size_bytes: int
    modified_ns: int
    sha256: str
    height: int = 0
    width: int = 0
    fault: str = ""


def cache_folder() -> Path:
    """Where indices are kept: $TIEPOINT_CACHE, else tiepoint/ in the user's cache folder."""
    if chosen := os.environ.get("TIEPOINT_CACHE"):
        return Path(chosen)
    return Path(os.environ.get("XDG_CACHE_HOME", Path.home() / ".cache")) / "tiepoint"


def index_photos(folders: Sequence[str | Path]) -> list[Photo]:
    """Walk the folders and verify what has changed since the last time.

    Files that are broken or too small are left out, each with one warning.

    Args:
        folders: searched with their subfolders.

    Returns:
        The usable photos without duplicates (by content), in the order of their hashes.

    Raises:
        InputError: a folder does not exist, or no photo is usable.
    """
    roots = [Path(folder) for folder in folders]
    if not roots:
        raise InputError("data.folders: no folder given, expected at least one folder of photos")
    for root in roots:
        if not root.is_dir():
            found = "is a file" if root.is_file() else "does not exist"
            raise InputError(f"data.folders: {root} {found}, expected a folder of photos")
    # a folder may lie in another one: each file counts once
    entries = list({entry.path: entry for root in roots for entry in _indexed(root)}.values())
    for entry in entries:
        if entry.fault:
            logger.warning("left out: {}", entry.fault)
    usable = {entry.sha256: entry for entry in entries if not entry.fault}
    if not usable:
        where = ", ".join(str(root) for root in roots)
        raise InputError(
            f"no usable photo in {where}: found {len(entries)} image files, "
            f"expected at least one that Pillow can read with sides of {LEAST_SIDE} px or more"
        )
    faulty = sum(bool(entry.fault) for entry in entries)
    duplicates = len(entries) - faulty - len(usable)
    logger.info("{} photos usable, {} left out, {} duplicates", len(usable), faulty, duplicates)
    return [usable[key] for key in sorted(usable)]


def _indexed(root: Path) -> list[Photo]:
    path = cache_folder() / f"index-{hashlib.sha256(str(root.resolve()).encode()).hexdigest()[:16]}.json"
    known = _read_index(path)
    files = sorted(_image_files(root))
    entries = []
    for file in tqdm(files, desc=f"Reading {root}", unit="photo", disable=None, leave=False):
        size, modified = _stamp(file)
        entry = known.get(str(file.resolve()))
        if entry is None or (entry.size_bytes, entry.modified_ns) != (size, modified):
            entry = _verify(file, size, modified)
        entries.append(entry)
    if {entry.path: entry for entry in entries} != known:
        _write_index(path, entries)
    return entries


def _stamp(file: Path) -> tuple[int, int]:
    """Size and time of change; (-1, -1), never true of a file, for a link that leads nowhere."""
    try:
        stat = file.stat()
    except OSError:
        return -1, -1
    return stat.st_size, stat.st_mtime_ns


def _image_files(root: Path) -> Iterator[Path]:
    formats = Image.registered_extensions()
    suffixes = {suffix for suffix, name in formats.items() if name in Image.OPEN and name not in _NO_PHOTOS}
    visited: set[tuple[int, int]] = set()
    for folder, folders, names in os.walk(root, followlinks=True):
        stat = os.stat(folder)
        if (stat.st_dev, stat.st_ino) in visited:  # a link led back
            folders.clear()
            continue
        visited.add((stat.st_dev, stat.st_ino))
        folders[:] = [name for name in folders if not name.startswith(".")]
        for name in names:
            if Path(name).suffix.lower() in suffixes and not name.startswith("."):
                yield Path(folder, name)


def _verify(file: Path, size: int, modified: int) -> Photo:
    try:
        digest = hashlib.sha256(file.read_bytes()).hexdigest()
        height, width = verify_image(file)
    except (InputError, OSError) as error:
        return Photo(str(file.resolve()), size, modified, "", fault=str(error))
    fault = ""
    if min(height, width) < LEAST_SIDE:
        fault = f"{file}: {width}×{height} px, expected sides of {LEAST_SIDE} px or more"
    return Photo(str(file.resolve()), size, modified, digest, height, width, fault)


def _read_index(path: Path) -> dict[str, Photo]:
    try:
        return {row["path"]: Photo(**row) for row in json.loads(path.read_text(encoding="utf-8"))}
    except FileNotFoundError:
        return {}
    except (OSError, ValueError, TypeError, KeyError):
        logger.warning("index {} is unreadable and will be made anew", path)
        return {}


def _write_index(path: Path, entries: Sequence[Photo]) -> None:
    try:
        with atomic_path(path) as temporary:
            temporary.write_text(json.dumps([asdict(entry) for entry in entries]), encoding="utf-8")
    except (InputError, WorkError) as error:
        # the index only saves time: without it the next run verifies again
        logger.warning("index not kept: {}", error)


def split_photos(photos: Sequence[Photo], *, held_out: float) -> dict[str, list[Photo]]:
    """Training, validation and test photos, decided by each photo's own content.

    Neither the order of the files nor other photos move a photo to another split, except where a split would be
    empty, as with a dozen photos: then validation and test take a fifth each in the order of the hashes, and with
    fewer than three photos the splits share them.

    Args:
        photos: in the order of their hashes.
        held_out: share of the validation photos, and as much again for test.

    Returns:
        "train", "val" and "test".
    """
    splits: dict[str, list[Photo]] = {"train": [], "val": [], "test": []}
    for photo in photos:
        place = int(photo.sha256[:8], 16) / 2**32
        splits["val" if place < held_out else "test" if place < 2 * held_out else "train"].append(photo)
    if all(splits.values()):
        return splits
    fifth = max(1, len(photos) // 5)
    if len(photos) < 3:
        logger.warning("only {} photos: validation and test show training photos", len(photos))
        return {"train": list(photos), "val": list(photos), "test": list(photos)}
    return {
        "val": list(photos[:fifth]),
        "test": list(photos[fifth : 2 * fifth]),
        "train": list(photos[2 * fifth :]),
    }


def data_hash(photos: Sequence[Photo]) -> str:
    """One hash for a set of photos, whatever their names and places: for model cards and checkpoints."""
    return hashlib.sha256("".join(sorted(photo.sha256 for photo in photos)).encode()).hexdigest()[:16]
