"""`tiepoint pose`: how the camera moved between two photographs, and the points that both see."""

import sys
from pathlib import Path
from typing import Any, Literal

import numpy as np

from tiepoint.cameras import camera_of_fov, cameras_of_files, check_fit, read_cameras
from tiepoint.draw import draw_epipolar_lines, write_picture
from tiepoint.errors import InputError, WorkError
from tiepoint.files import atomic_path, check_writable, json_line
from tiepoint.images import UInt8, check_texture
from tiepoint.motion import Points, RelativePose, relative_pose
from tiepoint.runtime import load
from tiepoint.runtime.matcher import read_usable
from tiepoint.types import Float64, Matches

WRITTEN = (".json", "-epipolar.png", ".ply")
NO_CAMERA = "unknown"


def pose(
    left: str,
    right: str,
    output: str = "pose",
    cameras: str | None = None,
    fov: float | None = None,
    json: bool = False,
    threshold: float | None = None,
    model: str = "default",
    max_keypoints: int = 2048,
    long_side: int = 1024,
    backend: Literal["auto", "onnxruntime", "openvino", "torch"] = "auto",
    device: Literal["auto", "cpu", "cuda"] = "auto",
    weights: str | list[str] | None = None,
) -> None:
    """Find how the camera moved between two images.

    Without --cameras and --fov the focal length is taken from EXIF; where there is none, what is found is a fundamental
    matrix without a pose.

    Args:
        left: image 0.
        right: image 1.
        output: (-o) a folder, which receives LEFT-RIGHT.json (pose and figures), -epipolar.png, and with cameras .ply
            (the points, in camera 0; the cameras are 1 apart).
        cameras: a JSON file {"K0": 3×3, "K1": 3×3}, in pixels of the images as given.
        fov: field of view along the longer side of both images, degrees.
        json: print the figures as JSON instead of a sentence.
        threshold: largest Sampson distance of an inlier, pixels; if not given, 2, more beyond 1024 pixels.
        model: default, sift, orb, another name from `tiepoint models`, or a path to an .onnx, .ckpt or .pt file.
        max_keypoints: keypoints an image at most.
        long_side: larger images are shrunk to this before matching.
        backend: what runs the network.
        device: where it runs.
        weights: local weight files of one of the field's matchers.
    """
    if cameras is not None and fov is not None:
        raise InputError("--cameras and --fov are both given, expected one of them")
    stem = Path(output) / f"{Path(left).stem}-{Path(right).stem}"
    for ending in WRITTEN:
        check_writable(f"{stem}{ending}")
    calibration = read_cameras(cameras) if cameras is not None else None
    images = read_usable(left, name="left"), read_usable(right, name="right")
    source = "--cameras"
    if calibration is None:
        calibration, source = _guessed((left, right), images, fov)
    if calibration is not None:
        check_fit(calibration, [(image.shape[0], image.shape[1]) for image in images])
    if images[0].shape == images[1].shape and np.array_equal(*images):
        raise WorkError(
            f"{left} and {right} are identical, pixel for pixel; two photographs from two places would help"
        )
    for name, image in zip(("left", "right"), images, strict=True):
        check_texture(image, name=name)
    matcher = load(model, max_keypoints=max_keypoints, backend=backend, device=device, weights=weights)
    matcher.long_side = long_side
    matches = matcher(*images)
    found = relative_pose(matches, calibration, threshold=threshold)
    told = _figures(found, matches, calibration) | {"cameras": source, "image0": left, "image1": right}
    picture = draw_epipolar_lines(*images, matches, found.fundamental, inliers=found.geometry.inliers)
    write_picture(f"{stem}-epipolar.png", picture)
    if found.points is not None:
        _write_ply(f"{stem}.ply", found.points, matches, images[0])
    with atomic_path(f"{stem}.json") as temporary:
        temporary.write_text(json_line(told), encoding="utf-8")
    sys.stdout.write(json_line(told) if json else _sentence(told, str(stem)))


def _guessed(
    paths: tuple[str, str], images: tuple[UInt8, UInt8], fov: float | None
) -> tuple[tuple[Float64, Float64] | None, str]:
    """Both cameras and where they are from."""
    sizes = [(image.shape[0], image.shape[1]) for image in images]
    if fov is not None:
        return (camera_of_fov(sizes[0], fov), camera_of_fov(sizes[1], fov)), f"--fov {fov:g}"
    return cameras_of_files(paths, sizes) or (None, NO_CAMERA)


def _figures(found: RelativePose, matches: Matches, cameras: tuple[Float64, Float64] | None) -> dict[str, Any]:
    """What the .json holds."""
    geometry = found.geometry
    told: dict[str, Any] = {
        "kind": geometry.kind,
        "matrix": geometry.matrix.tolist(),
        "fundamental": found.fundamental.tolist(),
        "matches": len(matches),
        "inliers": int(geometry.inliers.sum()),
        "doubtful": found.doubtful,
        "scene": found.scene,
        "gric": {name: round(value, 2) for name, value in found.gric.items()},
    }
    if cameras is not None and geometry.rotation is not None:
        turn = np.rad2deg(np.arccos(np.clip((np.trace(geometry.rotation) - 1) / 2, -1, 1)))
        told |= {
            "K0": cameras[0].tolist(),
            "K1": cameras[1].tolist(),
            "rotation": geometry.rotation.tolist(),
            "rotation_deg": round(float(turn), 4),
            "rotation_sigma_deg": _rounded(found.rotation_sigma),
        }
    if found.points is not None and geometry.translation is not None:
        told |= {
            "translation": geometry.translation.tolist(),
            "translation_sigma_deg": _rounded(found.translation_sigma),
            "points": len(found.points.indices),
            "median_reprojection_px": _rounded(float(np.median(found.points.error)))
            if len(found.points.indices)
            else None,
            "median_parallax_deg": _rounded(float(np.median(found.points.parallax)))
            if len(found.points.indices)
            else None,
        }
    return told


def _rounded(value: float | None) -> float | None:
    return None if value is None else round(value, 4)


def _sentence(told: dict[str, Any], stem: str) -> str:
    words = [f"{told['inliers']} of {told['matches']} matches agree ({told['kind']}, cameras: {told['cameras']})"]
    if "rotation" in told:
        words.append(f"turned by {told['rotation_deg']:.2f}° (± {told['rotation_sigma_deg']:.2f}°)")
    if "translation" in told:
        x, y, z = told["translation"]
        words.append(f"moved along ({x:.3f}, {y:.3f}, {z:.3f}) (± {told['translation_sigma_deg']:.2f}°)")
        if told["points"]:
            words.append(f"{told['points']} points, median reprojection {told['median_reprojection_px']:.2f} px")
    if told["kind"] == "fundamental":
        words.append("no pose without cameras: give --cameras or --fov")
    doubt = {
        "plane": "a homography fits better (GRIC): the scene is a plane, which allows two poses",
        "rotation": "a homography fits better (GRIC): the camera only turned, it has no direction and points no depth",
        "plane or rotation": "a homography fits better (GRIC): the scene is a plane or the camera only turned",
    }
    if told["scene"] in doubt:
        words.append(doubt[told["scene"]])
    if told["doubtful"]:
        words.append("so few may agree by chance: look at the epipolar lines")
    return "; ".join([*words, f"{stem}.json"]) + "\n"


def _write_ply(path: str, points: Points, matches: Matches, image: UInt8) -> None:
    """The points with the colours that the left image has there (PLY 1.0, text)."""
    places = matches.keypoints0[points.indices].round().astype(int).clip(0, np.array(image.shape[1::-1]) - 1)
    colours = image[places[:, 1], places[:, 0]]
    names = [
        *(f"property float {axis}" for axis in "xyz"),
        *(f"property uchar {each}" for each in ("red", "green", "blue")),
    ]
    head = ["ply", "format ascii 1.0", f"element vertex {len(points.xyz)}", *names, "end_header"]
    rows = [f"{x:.6g} {y:.6g} {z:.6g} {r} {g} {b}" for (x, y, z), (r, g, b) in zip(points.xyz, colours, strict=True)]
    with atomic_path(path) as temporary:
        temporary.write_text("\n".join([*head, *rows]) + "\n", encoding="ascii")
