"""How far a matcher bears in-plane rotation and change of scale: each photo is matched with a turned or shrunk copy.

python benchmarks/limits.py --photos PHOTOS --model default --model sift --json limits.json
"""

import argparse
import json
import os
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

import cv2
import numpy as np
import numpy.typing as npt
from tqdm import tqdm

import tiepoint
from tiepoint.errors import InputError, WorkError
from tiepoint.files import atomic_path
from tiepoint.geometry import warp_points
from tiepoint.images import read_image, resize_to_long_side
from tiepoint.runtime import Matcher

UInt8 = npt.NDArray[np.uint8]
Float64 = npt.NDArray[np.float64]
ANGLES = (0, 15, 30, 45, 60, 90, 180)
FACTORS = (1.0, 1.25, 1.5, 2.0, 3.0, 4.0)
RADIUS = 3.0  # pixels of the changed copy, within which a match is right
SUFFIXES = (".jpg", ".jpeg", ".png", ".webp", ".tif", ".tiff")


def turned(size: tuple[int, int], degrees: float) -> tuple[Float64, tuple[int, int]]:
    """The rotation about the centre, and the size (height, width) that holds the whole turned image."""
    height, width = size
    cos, sin = np.cos(np.deg2rad(degrees)), np.sin(np.deg2rad(degrees))
    R = np.array(((cos, -sin), (sin, cos)))
    extent = np.abs(R) @ (width, height)
    centre = np.array((width - 1, height - 1)) / 2
    H = np.eye(3)
    H[:2, :2], H[:2, 2] = R, (extent - 1) / 2 - R @ centre
    return H, (int(extent[1]), int(extent[0]))


def shrunk(size: tuple[int, int], factor: float) -> tuple[Float64, tuple[int, int]]:
    """The reduction by a factor, pixel areas kept, and the size (height, width) that results."""
    new = (round(size[0] / factor), round(size[1] / factor))
    sy, sx = new[0] / size[0], new[1] / size[1]
    return np.array(((sx, 0, (sx - 1) / 2), (0, sy, (sy - 1) / 2), (0, 0, 1))), new


def changed(photo: UInt8, H: Float64, size: tuple[int, int]) -> UInt8:
    """The photo under H, with the blur that a smaller copy needs."""
    factor = 1 / np.sqrt(abs(np.linalg.det(H[:2, :2])))
    if factor > 1.01:
        photo = np.asarray(cv2.GaussianBlur(photo, (0, 0), 0.5 * np.sqrt(factor**2 - 1)), np.uint8)
    return np.asarray(cv2.warpPerspective(photo, H, size[::-1], borderMode=cv2.BORDER_REFLECT_101), np.uint8)


def right(matcher: Matcher, photo: UInt8, H: Float64, size: tuple[int, int]) -> tuple[int, float]:
    """How many matches are found, and the share of them that is right."""
    matches = matcher(photo, changed(photo, H, size))
    errors = np.linalg.norm(warp_points(H, matches.keypoints0) - matches.keypoints1, axis=1)
    return len(matches), float((errors <= RADIUS).mean()) if len(matches) else 0.0


def sweep(
    matcher: Matcher,
    photos: Sequence[UInt8],
    change: Callable[[tuple[int, int], float], tuple[Float64, tuple[int, int]]],
    values: Sequence[float],
    *,
    title: str,
) -> list[tuple[float, float]]:
    """Medians over the photos for each value: matches, and percent of them right."""
    rows = []
    for value in tqdm(values, desc=title):
        found = [right(matcher, photo, *change((photo.shape[0], photo.shape[1]), value)) for photo in photos]
        count, share = np.median(np.array(found), axis=0)
        rows.append((float(count), 100 * float(share)))
    return rows


def table(heading: str, unit: str, values: Sequence[float], rows: dict[str, list[tuple[float, float]]]) -> str:
    """One line a method: percent right (matches)."""
    lines = [heading, f"{'method':<22}" + "".join(f"{value:g}{unit}".rjust(12) for value in values)]
    for name, cells in rows.items():
        lines.append(f"{name[-21:]:<22}" + "".join(f"{share:.0f} ({count:.0f})".rjust(12) for count, share in cells))
    return "\n".join(lines)


def run(options: argparse.Namespace) -> None:
    """Measure, print two tables and write the JSON."""
    if not options.photos.is_dir():
        raise InputError(f"--photos {options.photos} is not a folder")
    paths = sorted(path for path in options.photos.rglob("*") if path.suffix.lower() in SUFFIXES)[: options.count]
    if not paths:
        raise InputError(f"--photos {options.photos} holds no photo, expected {', '.join(SUFFIXES)}")
    cv2.setNumThreads(options.threads)
    os.environ["OMP_NUM_THREADS"] = str(options.threads)
    matchers = {name: tiepoint.load(name) for name in options.model or ("default", "sift")}
    photos = [resize_to_long_side(read_image(path), 640)[0] for path in paths]
    print(f"{len(photos)} photos, long side 640; median percent of matches within {RADIUS:g} px (median matches)")
    results = {}
    for heading, unit, change, values in (
        ("rotation", "°", turned, ANGLES),
        ("scale", "x", shrunk, FACTORS),
    ):
        rows = {
            name: sweep(matcher, photos, change, values, title=f"{heading}, {name}")
            for name, matcher in matchers.items()
        }
        print(f"\n{table(heading, unit, values, rows)}", flush=True)
        results[heading] = {"values": values, "methods": rows}
    if options.json:
        with atomic_path(options.json) as path:
            path.write_text(json.dumps({"photos": [p.name for p in paths], **results}, indent=1), encoding="utf-8")


def main(argv: Sequence[str] | None = None) -> int:
    """Run the measurement; the exit code is 0, 1 where the work failed, 2 where the input was wrong."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--photos", type=Path, required=True, help="folder of photos; subfolders are searched")
    parser.add_argument("--count", type=int, default=20, help="photos at most, the first by name")
    parser.add_argument("--model", action="append", help="a name or a file; may be repeated (default, sift)")
    parser.add_argument("--json", type=Path, help="write the figures here")
    parser.add_argument("--threads", type=int, default=2, help="of OpenCV and OpenMP")
    try:
        run(parser.parse_args(argv))
    except (InputError, WorkError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2 if isinstance(error, InputError) else 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
