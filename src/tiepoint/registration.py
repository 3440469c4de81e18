"""`tiepoint register`: lay one image over another, a folder over one image, or a row of images side by side."""

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

import cv2
import numpy as np
from tqdm import tqdm

from tiepoint.alignment import DOUBTFUL, Registration, TransformChoice, register
from tiepoint.draw import write_picture
from tiepoint.errors import InputError, WorkError
from tiepoint.files import atomic_path, check_writable, json_line
from tiepoint.images import SUFFIXES, UInt8
from tiepoint.overlays import draw_checkerboard, draw_overlay, warp_over, write_flicker
from tiepoint.runtime import load
from tiepoint.runtime.matcher import Matcher, read_usable

WRITTEN = (".png", ".json", "-overlay.png", "-checkerboard.png", "-flicker.gif")


def register_files(
    *images: str,
    output: str = "registered",
    transform: TransformChoice = "auto",
    no_refine: bool = False,
    stack: str | None = None,
    panorama: bool = False,
    json: bool = False,
    threshold: float | None = None,
    model: str = "default",
    max_keypoints: int = 2048,
    long_side: int = 1024,
    backend: Literal["auto", "onnxruntime", "openvino", "torch"] = "auto",
    device: Literal["auto", "cpu", "cuda"] = "auto",
    weights: str | list[str] | None = None,
) -> None:
    """Lay an image over another one.

    Args:
        *images: MOVING FIXED; with --panorama two or more in their order; with --stack the one image to which the
            folder is aligned (its first if none is given).
        output: (-o) a folder, which receives for each pair the warped MOVING in the size of FIXED (.png, transparent
            where it does not reach), the matrix and figures (.json), an overlay, a checkerboard and a flicker .gif.
        transform: homography for a plane or a camera that only turned, affine or similarity for scans and
            satellites, translation for a shift; auto lets the data choose by Torr's GRIC.
        no_refine: stop at what the matches say; needs no torch.
        stack: align all images of this folder.
        panorama: stitch all images given, neighbours in their order, to one: OUTPUT/panorama.png.
        json: print the matrix and figures as JSON instead of a sentence.
        threshold: largest distance of an inlier in FIXED, pixels; if not given, 3, more beyond 1024 pixels.
        model: default, sift, orb, another name from `tiepoint models`, or a path to an .onnx, .ckpt or .pt file.
        max_keypoints: keypoints an image at most.
        long_side: larger images are shrunk to this before matching; the refinement looks at up to 1536 pixels.
        backend: what runs the network.
        device: where it runs.
        weights: local weight files of one of the field's matchers.
    """
    folder = Path(output)
    if folder.exists() and not folder.is_dir():
        raise InputError(f"--output: {folder} is a file, expected a folder")
    matcher_of: dict[str, Any] = {
        "max_keypoints": max_keypoints,
        "backend": backend,
        "device": device,
        "weights": weights,
    }
    if panorama:
        matching = model, long_side, matcher_of
        _stitch(
            images,
            stack,
            folder,
            matching,
            transform=transform,
            refine=not no_refine,
            threshold=threshold,
            as_json=json,
        )
        return
    moving, fixed = _sources(images, stack)
    stems = [f"{path.stem}-{fixed.stem}" for path in moving]
    if len(set(stems)) < len(stems):
        raise InputError(f"--stack: {stack} holds images that differ only in their ending, expected different names")
    for stem in stems:
        for ending in WRITTEN:
            check_writable(folder / f"{stem}{ending}")
    matcher = load(model, **matcher_of)
    matcher.long_side = long_side
    target = read_usable(str(fixed), name="fixed")
    options: dict[str, Any] = {"model": transform, "refine": not no_refine, "threshold": threshold}
    if stack is None:
        told = _register_one(moving[0], target, folder / stems[0], matcher, options) | {"fixed": str(fixed)}
        sys.stdout.write(json_line(told) if json else _sentence(told, folder / stems[0]))
        return
    _register_all(moving, fixed, target, [folder / stem for stem in stems], matcher, options, as_json=json)


def _stitch(
    names: Sequence[str],
    stack: str | None,
    folder: Path,
    matching: tuple[str, int, dict[str, Any]],
    *,
    transform: TransformChoice,
    refine: bool,
    threshold: float | None,
    as_json: bool,
) -> None:
    """Register each image to the next, and stitch them all."""
    from tiepoint.stitching import stitch

    if stack is not None:
        raise InputError("--panorama and --stack are both given, expected one of them")
    if len(names) < 2:
        raise InputError(f"--panorama is given with {len(names)} image(s), expected two or more")
    for ending in (".png", ".json"):
        check_writable(folder / f"panorama{ending}")
    matcher = load(matching[0], **matching[2])
    matcher.long_side = matching[1]
    images = [read_usable(name, name=name) for name in names]
    options: dict[str, Any] = {"model": transform, "refine": refine, "threshold": threshold}
    found = _registered_row(names, images, matcher, options)
    picture = stitch(images, [each.matrix for each in found])
    write_picture(folder / "panorama.png", picture)
    told = {
        "images": list(names),
        "size": list(picture.shape[:2]),
        "steps": [
            {"model": each.model, "matrix": each.matrix.tolist(), "median_error_px": round(each.error, 4)}
            for each in found
        ],
    }
    with atomic_path(folder / "panorama.json") as temporary:
        temporary.write_text(json_line(told), encoding="utf-8")
    worst = max(each.error for each in found)
    size = f"{picture.shape[1]}×{picture.shape[0]} px, largest median error {worst:.2f} px"
    sys.stdout.write(json_line(told) if as_json else f"{len(names)} images: {size}; {folder / 'panorama.png'}\n")


def _registered_row(
    names: Sequence[str], images: Sequence[UInt8], matcher: Matcher, options: dict[str, Any]
) -> list[Registration]:
    """Each image over the next one."""
    found = []
    for number in tqdm(range(len(images) - 1), desc="registering", disable=None):
        try:
            found.append(register(images[number], images[number + 1], matcher=matcher, **options))
        except WorkError as error:
            raise WorkError(f"{names[number]} and {names[number + 1]}: {error}") from error
    return found


def _sources(images: Sequence[str], stack: str | None) -> tuple[list[Path], Path]:
    """The images to move, and the one that stays."""
    if stack is None:
        if len(images) != 2:
            raise InputError(f"{len(images)} image(s) are given, expected two: MOVING FIXED")
        return [Path(images[0])], Path(images[1])
    if len(images) > 1:
        raise InputError(f"{len(images)} images are given, expected at most one beside --stack: the reference")
    folder = Path(stack)
    if not folder.is_dir():
        raise InputError(f"--stack: {folder} is not a folder")
    found = sorted(path for path in folder.iterdir() if path.suffix.lower() in SUFFIXES)
    if not found:
        raise InputError(f"--stack: {folder} holds no image, expected {', '.join(SUFFIXES)}")
    fixed = Path(images[0]) if images else found[0]
    moving = [path for path in found if not (fixed.exists() and path.samefile(fixed))]
    if not moving:
        raise InputError(f"--stack: {folder} holds only the reference, expected further images")
    return moving, fixed


def _register_one(path: Path, fixed: UInt8, stem: Path, matcher: Matcher, options: dict[str, Any]) -> dict[str, Any]:
    """Register one image, write its files, and tell its figures."""
    moving = read_usable(str(path), name="moving")
    found = register(moving, fixed, matcher=matcher, **options)
    warped = warp_over(moving, found.matrix, (fixed.shape[0], fixed.shape[1]))
    told = _figures(found, warped, fixed) | {"moving": str(path)}
    write_picture(f"{stem}.png", warped[..., :3] if (warped[..., 3] == 255).all() else warped)
    write_picture(f"{stem}-overlay.png", draw_overlay(warped, fixed))
    write_picture(f"{stem}-checkerboard.png", draw_checkerboard(warped, fixed))
    write_flicker(f"{stem}-flicker.gif", warped, fixed)
    with atomic_path(f"{stem}.json") as temporary:
        temporary.write_text(json_line(told), encoding="utf-8")
    return told


def _register_all(
    moving: Sequence[Path],
    fixed: Path,
    target: UInt8,
    stems: Sequence[Path],
    matcher: Matcher,
    options: dict[str, Any],
    *,
    as_json: bool,
) -> None:
    """Register a folder; what fails is told at the end and keeps nothing else from being done."""
    rows: list[dict[str, Any]] = []
    for path, stem in zip(tqdm(moving, desc="registering", disable=None), stems, strict=True):
        try:
            rows.append(_register_one(path, target, stem, matcher, options))
        except (InputError, WorkError) as error:
            rows.append({"moving": str(path), "failed": str(error)})
    failed = [row for row in rows if "failed" in row]
    if as_json:
        sys.stdout.write(json_line({"fixed": str(fixed), "images": rows}))
    else:
        for row, stem in zip(rows, stems, strict=True):
            sys.stdout.write(f"{row['moving']}: " + (row["failed"] + "\n" if "failed" in row else _sentence(row, stem)))
    if failed:
        raise WorkError(
            f"{len(failed)} of {len(rows)} images could not be registered, the first: {failed[0]['failed']}"
        )


def _figures(found: Registration, warped: UInt8, fixed: UInt8) -> dict[str, Any]:
    """What the .json holds."""
    shown = warped[..., 3] > 0
    return {
        "model": found.model,
        "matrix": found.matrix.tolist(),
        "matches": len(found.matches),
        "inliers": int(found.inliers.sum()),
        "median_error_px": round(found.error, 4),
        "refined": found.refined,
        "overlap": round(float(shown.mean()), 4),
        "residual_grey": _residual(warped, fixed, shown),
        "gric": {name: round(value, 2) for name, value in found.criterion.items()},
    }


def _residual(warped: UInt8, fixed: UInt8, shown: Any) -> float | None:
    """Root mean square difference in grey levels of 255 where both are seen, after the best gain and bias."""
    if shown.sum() < 2:
        return None
    a, b = (cv2.cvtColor(np.ascontiguousarray(each[..., :3]), cv2.COLOR_RGB2GRAY)[shown] for each in (warped, fixed))
    a, b = a.astype(np.float64) - a.mean(), b.astype(np.float64) - b.mean()
    gain = (a @ b) / max(float(a @ a), 1e-9)
    return round(float(np.sqrt(np.mean((b - gain * a) ** 2))), 3)


def _sentence(told: dict[str, Any], stem: Path) -> str:
    how = "refined on the images" if told["refined"] else "from the matches alone"
    grey = "" if told["residual_grey"] is None else f", grey levels differ by {told['residual_grey']:.1f} of 255"
    doubt = "; so few may agree by chance: look at the overlay" if told["inliers"] < DOUBTFUL else ""
    agree = f"{told['inliers']} of {told['matches']} matches agree, median {told['median_error_px']:.2f} px"
    return (
        f"{told['model']} {how}: {agree}; {told['overlap']:.0%} of the fixed image covered{grey}{doubt}; {stem}.png\n"
    )
