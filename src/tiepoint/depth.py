"""`tiepoint depth`: how far away every pixel of a photograph is, from a second one."""

import sys
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal, NamedTuple

import cv2
import numpy as np
import numpy.typing as npt

from tiepoint.cameras import camera_of_fov, cameras_of_files, check_fit, read_cameras, read_motion
from tiepoint.dense import DepthMap, depth_map, disparity_map
from tiepoint.draw import draw_depth, write_picture
from tiepoint.errors import InputError, WorkError
from tiepoint.evaluation.frames import rescale_intrinsics
from tiepoint.files import atomic_path, check_writable, json_line
from tiepoint.images import UInt8, check_texture, resize_to_long_side
from tiepoint.motion import relative_pose
from tiepoint.runtime import load
from tiepoint.runtime.matcher import LEAST_SIDE, read_usable
from tiepoint.runtime.sweep import SweepGraph
from tiepoint.types import Float32, Float64

WRITTEN = (".json", "-depth.png", "-disparity.png", ".npy", "-colours.png", ".ply")
MARGIN = 1.25  # beyond the nearest and farthest tie points there may be more
LARGEST_PNG = 65535
PNG_PER_PIXEL = 256  # of disparity, as `MeasuredStereo` and public sets read it


class Result(NamedTuple):
    """What is found of the left image.

    Attributes:
        map: its inverse depth is in 1 / metre, or in pixels of the image as given where no camera is known.
        pixels: (H, W, 3), the left image at the size of the map.
        K: (3, 3), its camera; None where it is not known.
        pose: where the geometry of the pair is from.
        baseline: metres between the cameras; None where these are not known.
    """

    map: DepthMap
    pixels: UInt8
    K: Float64 | None
    pose: str
    baseline: float | None


class _Pair(NamedTuple):
    """Both images as given and shrunk, by the factors (sx, sy), and their cameras with where these are from."""

    images: tuple[UInt8, UInt8]
    pixels: tuple[UInt8, UInt8]
    scale: tuple[float, float]
    cameras: tuple[Float64, Float64] | None
    source: str

    def small_cameras(self) -> tuple[Float64, Float64] | None:
        """Those of the shrunk images."""
        if self.cameras is None:
            return None
        K0, K1 = (rescale_intrinsics(K, self.scale) for K in self.cameras)
        return K0, K1


def depth(
    left: str,
    right: str,
    output: str = "depth",
    cameras: str | None = None,
    fov: float | None = None,
    disparities: float | None = None,
    baseline: float | None = None,
    json: bool = False,
    model: str = "default",
    sweep: str | None = None,
    long_side: int = 640,
    device: Literal["auto", "cpu", "cuda"] = "auto",
) -> None:
    """Find the depth of every pixel of the left image.

    The pose is found from the matches, unless --cameras holds "T_0to1". With --disparities the images are taken for
    rectified, and no pose is needed. Without --cameras, --fov and --disparities the focal length is taken from EXIF.

    Args:
        left: image 0, whose depth is found.
        right: image 1.
        output: (-o) a folder, which receives LEFT-RIGHT.json (figures), -depth.png (16 bits, millimetres, 0: none),
            .npy (float32, metres), -colours.png (with a scale) and .ply (points that both images confirm). Of a
            rectified pair without cameras: -disparity.png (16 bits, 1/256 px), .npy (float32, px), -colours.png.
        cameras: a JSON file {"K0": 3×3, "K1": 3×3}, in pixels of the images as given; with "T_0to1" (4×4) the pose is
            taken from there.
        fov: field of view along the longer side of both images, degrees.
        disparities: the largest disparity of a rectified pair, pixels of the images as given.
        baseline: distance of the cameras in metres; all depths scale with it. If not given, that of "T_0to1", or 1.
        json: print the figures as JSON instead of a sentence.
        model: what finds the matches, as of `tiepoint match`.
        sweep: an .onnx file of a plane sweep of your own; the embedded one if not given.
        long_side: larger images are shrunk to this.
        device: where the networks run.
    """
    _check(cameras, fov, disparities, baseline, long_side)
    stem = f"{Path(output) / Path(left).stem}-{Path(right).stem}"
    for ending in WRITTEN:
        check_writable(stem + ending)
    T = None if cameras is None else read_motion(cameras)
    if baseline is None:
        # a motion of length 0 is refused later, as one that tells no depth
        baseline = (1.0 if T is None else float(np.linalg.norm(T[:3, 3]))) or 1.0
    pair = _read_pair((left, right), cameras, fov, disparities, long_side)
    graph = SweepGraph(None if sweep is None else Path(sweep), device=device)
    if disparities is not None:
        found = _rectified(pair, disparities, baseline, graph)
    else:
        found = _general(pair, T, baseline, model, graph, device)
    told = _figures(found) | {"pose": found.pose, "cameras": pair.source, "image0": left, "image1": right}
    _write(stem, found, (pair.images[0].shape[0], pair.images[0].shape[1]))
    with atomic_path(f"{stem}.json") as temporary:
        temporary.write_text(json_line(told), encoding="utf-8")
    sys.stdout.write(json_line(told) if json else _sentence(told, stem))


def depth_range(points: npt.ArrayLike) -> tuple[float, float]:
    """Least and greatest inverse depth to sweep, from triangulated points (N, 3): all but outliers, and a margin."""
    z = np.asarray(points, dtype=np.float64)[:, 2]
    near, far = np.quantile(1 / z, (0.99, 0.01))
    return max(float(far) / MARGIN - 0.05 * float(near), 0.0), float(near) * MARGIN


def _check(
    cameras: str | None, fov: float | None, disparities: float | None, baseline: float | None, long_side: int
) -> None:
    if cameras is not None and fov is not None:
        raise InputError("--cameras and --fov are both given, expected one of them")
    if disparities is not None and not 1 <= disparities < 10_000:
        raise InputError(f"--disparities is {disparities:g}, expected the largest one in pixels, 1 or more")
    if baseline is not None and not 0 < baseline < np.inf:
        raise InputError(f"--baseline is {baseline:g}, expected metres above 0")
    if baseline is not None and disparities is not None and cameras is None and fov is None:
        raise InputError("--baseline is given without --cameras and --fov, of which disparities need one to be metres")
    if long_side < LEAST_SIDE:
        raise InputError(f"--long_side is {long_side}, expected {LEAST_SIDE} px or more")


def _read_pair(
    paths: tuple[str, str], cameras: str | None, fov: float | None, disparities: float | None, long_side: int
) -> _Pair:
    """Both images and what is known of their cameras."""
    known = None if cameras is None else read_cameras(cameras)
    images = read_usable(paths[0], name="left"), read_usable(paths[1], name="right")
    if images[0].shape != images[1].shape:
        sizes = [f"{image.shape[1]}×{image.shape[0]}" for image in images]
        raise InputError(f"{paths[0]} has {sizes[0]} px and {paths[1]} {sizes[1]}, expected one size")
    size = images[0].shape[0], images[0].shape[1]
    source = "--cameras"
    if known is not None:
        check_fit(known, 2 * [size])
    elif fov is not None:
        known, source = 2 * (camera_of_fov(size, fov),), f"--fov {fov:g}"
    elif disparities is None:
        told = cameras_of_files(paths, 2 * [size])
        if told is None:
            raise InputError(
                "depth needs --cameras FILE, --fov DEGREES, or --disparities of a rectified pair, found none, and the "
                "files tell no focal length (EXIF)"
            )
        known, source = told
    if np.array_equal(*images):
        raise WorkError(
            f"{paths[0]} and {paths[1]} are identical, pixel for pixel; photographs from two places would help"
        )
    for name, image in zip(("left", "right"), images, strict=True):
        check_texture(image, name=name)
    (small0, scale), (small1, _) = (resize_to_long_side(image, long_side) for image in images)
    return _Pair(images, (small0, small1), scale, known, source if known is not None else "none")


def _rectified(pair: _Pair, disparities: float, baseline: float, graph: SweepGraph) -> Result:
    """Depth from disparities, which are all that is known without cameras."""
    shrink = pair.scale[0]
    found = disparity_map(*pair.pixels, largest=disparities / shrink, graph=graph, progress=True)
    K = pair.small_cameras()
    if K is None:
        inverse = shrink * found.inverse_depth
        return Result(_with_inverse(found, inverse), pair.pixels[0], None, "rectified", None)
    # d = f B / z + (c_x0 - c_x1): what the axes lie apart adds to every disparity
    inverse = (found.inverse_depth + (K[1][0, 2] - K[0][0, 2])) / (baseline * K[0][0, 0])
    return Result(_with_inverse(found, inverse), pair.pixels[0], K[0], "rectified", baseline)


def _general(
    pair: _Pair,
    T: Float64 | None,
    baseline: float,
    model: str,
    graph: SweepGraph,
    device: Literal["auto", "cpu", "cuda"],
) -> Result:
    """Depth by the pose that is given, or that the matches tell."""
    motion = relative_pose(load(model, device=device)(*pair.images), pair.cameras)
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
    K = pair.small_cameras()
    assert K is not None
    found = depth_map(*pair.pixels, K, (R, t), depth_range(motion.points.xyz), graph=graph, progress=True)
    return Result(_with_inverse(found, found.inverse_depth / baseline), pair.pixels[0], K[0], source, baseline)


def _with_inverse(found: DepthMap, inverse: npt.NDArray[Any]) -> DepthMap:
    return replace(found, inverse_depth=np.maximum(inverse, 0).astype(np.float32))


def _figures(found: Result) -> dict[str, Any]:
    inverse = found.map.inverse_depth[found.map.checked & (found.map.inverse_depth > 0)]
    if not len(inverse):
        raise WorkError("no pixel agrees in both images; --disparities that fit, or other photographs, would help")
    ends = np.quantile(inverse.astype(np.float64), (0.98, 0.5, 0.02))
    scale: dict[str, Any] = {"unit": "px", "png_unit_px": 1 / PNG_PER_PIXEL}
    if found.baseline is not None:
        ends = 1 / ends
        scale = {"unit": "m", "png_unit_mm": 1, "baseline_m": round(found.baseline, 6)}
    told = dict(zip(("nearest", "median", "farthest"), (round(float(each), 4) for each in ends), strict=True))
    confidence = round(float(found.map.confidence[found.map.checked].mean()), 4)
    return {"confirmed": round(float(found.map.checked.mean()), 4), **told, "confidence": confidence, **scale}


def _write(stem: str, found: Result, size: tuple[int, int]) -> None:
    """All files but the .json; depth, or disparity, at the size (height, width) of the image as given."""
    depth = np.where(np.isfinite(found.map.depth), found.map.depth, 0).astype(np.float32)
    known = found.K is not None
    values = depth if known else found.map.inverse_depth
    full = np.asarray(cv2.resize(values, size[::-1], interpolation=cv2.INTER_NEAREST), np.float32)
    steps = (1000 if known else PNG_PER_PIXEL) * full
    coded = np.where(steps <= LARGEST_PNG, steps, 0).round().astype(np.uint16)
    with atomic_path(f"{stem}-{'depth' if known else 'disparity'}.png") as temporary:
        temporary.write_bytes(cv2.imencode(".png", coded)[1].tobytes())
    with atomic_path(f"{stem}.npy") as temporary:
        np.save(temporary, full)
    write_picture(f"{stem}-colours.png", draw_depth(depth, found.map.checked, disparity=not known))
    if found.K is not None:
        _write_ply(f"{stem}.ply", depth, found.map.checked, found.pixels, found.K)


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
    words = f"both images confirm {told['confirmed']:.0%} of the pixels, the rest is filled; "
    if told["unit"] == "px":
        return (
            f"{words}disparity {told['nearest']:.1f} px (near) to {told['farthest']:.1f} px (far), median "
            f"{told['median']:.1f} px (pose: {told['pose']}; metres need --cameras or --fov, and --baseline); "
            f"{stem}.json\n"
        )
    return (
        f"{words}depth {told['nearest']:.2f} to {told['farthest']:.2f} m, median {told['median']:.2f} (cameras "
        f"{told['baseline_m']:g} m apart, pose: {told['pose']}, focal length: {told['cameras']}); {stem}.json\n"
    )
