"""`tiepoint depth`: how far away every pixel of a photograph is, from a second one."""

import json
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal, NamedTuple

import cv2
import numpy as np
import numpy.typing as npt

from tiepoint.cameras import camera_of_fov, check_fit, read_cameras
from tiepoint.dense import DepthMap, depth_map, disparity_map
from tiepoint.draw import draw_depth, write_picture
from tiepoint.errors import InputError, WorkError
from tiepoint.evaluation.frames import rescale_intrinsics
from tiepoint.files import atomic_path, check_writable, json_line
from tiepoint.images import UInt8, resize_to_long_side
from tiepoint.motion import relative_pose
from tiepoint.runtime import load
from tiepoint.runtime.matcher import read_usable
from tiepoint.runtime.sweep import SweepGraph
from tiepoint.types import Float32, Float64

WRITTEN = (".json", "-depth.png", ".npy", "-colours.png", ".ply")
MARGIN = 1.25  # beyond the nearest and farthest tie points there may be more
LARGEST_PNG = 65535


class Result(NamedTuple):
    """What the verb writes: depth (H, W) at the size of the map, its colours, its camera, and the figures."""

    depth: Float32
    image: UInt8
    K: Float64 | None
    told: dict[str, Any]


def depth(
    left: str,
    right: str,
    output: str = "depth",
    cameras: str | None = None,
    fov: float | None = None,
    disparities: float | None = None,
    baseline: float = 1.0,
    json: bool = False,
    model: str = "default",
    sweep: str | None = None,
    long_side: int = 640,
    device: Literal["auto", "cpu", "cuda"] = "auto",
) -> None:
    """Find the depth of every pixel of the left image.

    The pose is found from the matches, unless --cameras holds "T_0to1". With --disparities the images are taken for
    rectified, and no pose is needed.

    Args:
        left: image 0, whose depth is found.
        right: image 1.
        output: (-o) a folder, which receives LEFT-RIGHT.json (figures), -depth.png (16 bits, millimetres, 0: none),
            .npy (float32, metres), -colours.png (with a scale) and .ply (points that both images confirm).
        cameras: a JSON file {"K0": 3×3, "K1": 3×3}, in pixels of the images as given; with "T_0to1" (4×4) the pose is
            taken from there.
        fov: field of view along the longer side of both images, degrees.
        disparities: the largest disparity of a rectified pair, pixels of the images as given.
        baseline: distance of the cameras in metres; all depths scale with it.
        json: print the figures as JSON instead of a sentence.
        model: what finds the matches, as of `tiepoint match`.
        sweep: an .onnx file of a plane sweep of your own; the embedded one if not given.
        long_side: larger images are shrunk to this.
        device: where the networks run.
    """
    _check(cameras, fov, disparities, baseline)
    stem = f"{Path(output) / Path(left).stem}-{Path(right).stem}"
    for ending in WRITTEN:
        check_writable(stem + ending)
    images = read_usable(left, name="left"), read_usable(right, name="right")
    if images[0].shape != images[1].shape:
        sizes = [f"{image.shape[1]}×{image.shape[0]}" for image in images]
        raise InputError(f"{left} has {sizes[0]} px and {right} {sizes[1]}, expected one size")
    if np.array_equal(*images):
        raise WorkError(f"{left} and {right} are identical, pixel for pixel; photographs from two places would help")
    size = images[0].shape[:2]
    small = [resize_to_long_side(image, long_side) for image in images]
    pixels, shrink = (small[0][0], small[1][0]), small[0][1][0]
    graph = SweepGraph(None if sweep is None else Path(sweep), device=device)
    K = _calibration(cameras, fov, size)
    if disparities is not None:
        found = disparity_map(*pixels, largest=disparities / shrink, graph=graph)
        source = "rectified"
        apart = 0.0 if K is None else (K[1][0, 2] - K[0][0, 2]) / shrink
        focal = 1.0 if K is None else K[0][0, 0] / shrink
        # d = f B / z + (c_x0 - c_x1): what the axes lie apart adds to every disparity
        inverse = np.maximum(found.inverse_depth + apart, 0) / focal
        scaled = replace(found, inverse_depth=inverse.astype(np.float32))
    else:
        assert K is not None
        T = _given_pose(cameras)
        scaled, source = _general(images, pixels, K, shrink, T, model, graph, device)
    unit = "m" if K is not None else "1 / pixel of disparity"
    told = _figures(scaled, baseline) | {"pose": source, "unit": unit, "image0": left, "image1": right}
    metres = np.where(np.isfinite(scaled.depth), baseline * scaled.depth, 0).astype(np.float32)
    own = None if K is None else K[0]
    _write(stem, scaled, metres, images[0], pixels[0], own, shrink)
    with atomic_path(f"{stem}.json") as temporary:
        temporary.write_text(json_line(told), encoding="utf-8")
    sys.stdout.write(json_line(told) if json else _sentence(told, stem))


def depth_range(points: npt.ArrayLike) -> tuple[float, float]:
    """Least and greatest inverse depth to sweep, from triangulated points (N, 3): all but outliers, and a margin."""
    z = np.asarray(points, dtype=np.float64)[:, 2]
    near, far = np.quantile(1 / z, (0.99, 0.01))
    return max(float(far) / MARGIN - 0.05 * float(near), 0.0), float(near) * MARGIN


def _check(cameras: str | None, fov: float | None, disparities: float | None, baseline: float) -> None:
    if cameras is not None and fov is not None:
        raise InputError("--cameras and --fov are both given, expected one of them")
    if cameras is None and fov is None and disparities is None:
        raise InputError("depth needs --cameras FILE, --fov DEGREES, or --disparities of a rectified pair, found none")
    if disparities is not None and not 1 <= disparities < 10_000:
        raise InputError(f"--disparities is {disparities:g}, expected the largest one in pixels, 1 or more")
    if not 0 < baseline < np.inf:
        raise InputError(f"--baseline is {baseline:g}, expected metres above 0")


def _calibration(cameras: str | None, fov: float | None, size: tuple[int, ...]) -> tuple[Float64, Float64] | None:
    """Both cameras, of the images as given."""
    height, width = size
    if fov is not None:
        K = camera_of_fov((height, width), fov)
        return K, K
    if cameras is None:
        return None
    known = read_cameras(cameras)
    check_fit(known, 2 * [(height, width)])
    return known


def _given_pose(cameras: str | None) -> Float64 | None:
    """The entry T_0to1 of the camera file."""
    if cameras is None:
        return None
    content = json.loads(Path(cameras).read_text(encoding="utf-8"))
    if "T_0to1" not in content:
        return None
    try:
        T = np.array(content["T_0to1"], dtype=np.float64)
    except (TypeError, ValueError) as error:
        raise InputError(f"--cameras: T_0to1 of {cameras} is no matrix of numbers") from error
    if T.shape != (4, 4) or not np.allclose(T[:3, :3] @ T[:3, :3].T, np.eye(3), atol=1e-3):
        raise InputError(f"--cameras: T_0to1 of {cameras} is no 4×4 matrix of a rotation and a translation")
    return T


def _general(
    images: tuple[UInt8, UInt8],
    pixels: tuple[UInt8, UInt8],
    K: tuple[Float64, Float64],
    shrink: float,
    T: Float64 | None,
    model: str,
    graph: SweepGraph,
    device: Literal["auto", "cpu", "cuda"],
) -> tuple[DepthMap, str]:
    """Depth in distances of the cameras, and where the pose is from."""
    motion = relative_pose(load(model, device=device)(*images), K)
    if motion.scene == "rotation" or motion.points is None:
        raise WorkError(
            "the camera only turned (GRIC): such a pair tells no depth; photographs taken from two places would help"
        )
    if len(motion.points.xyz) < 20:
        raise WorkError(
            f"only {len(motion.points.xyz)} tie points have a parallax: photographs from farther apart would help"
        )
    R, t = motion.geometry.rotation, motion.geometry.translation
    assert R is not None
    assert t is not None
    source = "from the matches"
    if T is not None:
        R, t, source = T[:3, :3], T[:3, 3] / max(float(np.linalg.norm(T[:3, 3])), 1e-12), "given"
    smaller = tuple(rescale_intrinsics(each, (shrink, shrink)) for each in K)
    found = depth_map(*pixels, (smaller[0], smaller[1]), (R, t), depth_range(motion.points.xyz), graph=graph)
    return found, source


def _figures(found: DepthMap, baseline: float) -> dict[str, Any]:
    sure = found.depth[found.checked & np.isfinite(found.depth)]
    if not len(sure):
        raise WorkError("no pixel agrees in both images; --disparities that fit, or other photographs, would help")
    low, middle, high = (baseline * float(each) for each in np.quantile(sure, (0.02, 0.5, 0.98)))
    return {
        "confirmed": round(float(found.checked.mean()), 4),
        "nearest": round(low, 4),
        "median": round(middle, 4),
        "farthest": round(high, 4),
        "confidence": round(float(found.confidence[found.checked].mean()), 4),
        "baseline_m": baseline,
        "png_unit_mm": 1,
    }


def _write(
    stem: str, found: DepthMap, metres: Float32, image: UInt8, pixels: UInt8, K: Float64 | None, shrink: float
) -> None:
    """All files but the .json; depth at the size of the image as given."""
    size = image.shape[1], image.shape[0]
    full = cv2.resize(metres, size, interpolation=cv2.INTER_NEAREST)
    millimetres = np.where(1000 * full <= LARGEST_PNG, 1000 * full, 0).round().astype(np.uint16)
    with atomic_path(f"{stem}-depth.png") as temporary:
        temporary.write_bytes(cv2.imencode(".png", millimetres)[1].tobytes())
    with atomic_path(f"{stem}.npy") as temporary:
        np.save(temporary, np.asarray(full, np.float32))
    write_picture(f"{stem}-colours.png", draw_depth(metres, found.checked))
    if K is not None:
        _write_ply(f"{stem}.ply", metres, found.checked, pixels, rescale_intrinsics(K, (shrink, shrink)))


def _write_ply(path: str, metres: Float32, chosen: npt.NDArray[np.bool_], pixels: UInt8, K: Float64) -> None:
    """The confirmed points in camera 0 with their colours (PLY 1.0, binary)."""
    y, x = np.nonzero(chosen & (metres > 0))
    rays = np.linalg.solve(K, np.stack((x, y, np.ones(len(x)))).astype(np.float64)).T
    table = np.empty(len(x), dtype=[("xyz", "<f4", 3), ("rgb", "u1", 3)])
    table["xyz"], table["rgb"] = rays * metres[y, x, None], pixels[y, x]
    names = [f"property float {axis}" for axis in "xyz"] + [
        f"property uchar {each}" for each in ("red", "green", "blue")
    ]
    head = ["ply", "format binary_little_endian 1.0", f"element vertex {len(x)}", *names, "end_header"]
    with atomic_path(path) as temporary:
        temporary.write_bytes("\n".join([*head, ""]).encode("ascii") + table.tobytes())


def _sentence(told: dict[str, Any], stem: str) -> str:
    unit = "m" if told["unit"] == "m" else "(1 / disparity)"
    return (
        f"both images confirm {told['confirmed']:.0%} of the pixels, the rest is filled; depth "
        f"{told['nearest']:.2f} to {told['farthest']:.2f} {unit}, median {told['median']:.2f} (cameras "
        f"{told['baseline_m']:g} m apart, pose: {told['pose']}); {stem}.json\n"
    )
