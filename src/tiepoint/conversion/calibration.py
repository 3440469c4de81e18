"""The user's photographs, on which a smaller graph is calibrated and measured: never the same for both."""

from pathlib import Path
from typing import NamedTuple

from tiepoint.data.index import index_photos
from tiepoint.errors import InputError
from tiepoint.images import UInt8, read_image, resize_to_long_side

LEAST, CALIBRATING, HELD_OUT = 6, 32, 12
LONG_SIDE = 640  # px


class CalibrationPhotos(NamedTuple):
    """Images (H, W, 3) that calibrate, and others that measure."""

    calibrating: list[UInt8]
    held_out: list[UInt8]


def calibration_photos(folder: Path) -> CalibrationPhotos:
    """At most 32 photographs of a folder that calibrate, and half as many or 12 that are held out.

    Which ones is decided by the hashes of their content: the same folder gives the same.

    Args:
        folder: of photographs, searched with its subfolders.

    Raises:
        InputError: it does not exist, or holds fewer than six that are usable.
    """
    if not folder.is_dir():
        raise InputError(
            f"--calibrate: {folder} {'is a file' if folder.exists() else 'does not exist'}, expected a folder"
        )
    photos = index_photos([folder])
    if len(photos) < LEAST:
        raise InputError(f"--calibrate: {folder} holds {len(photos)} usable photographs, expected {LEAST} or more")
    held = min(HELD_OUT, len(photos) // 3)
    chosen = [resize_to_long_side(read_image(photo.path), LONG_SIDE)[0] for photo in photos[: held + CALIBRATING]]
    return CalibrationPhotos(chosen[held:], chosen[:held])
