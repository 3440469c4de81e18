"""Dense depth of one image from two of known geometry: learned sweep, semi-global matching, left-right check.

A pixel p of view 0 at inverse depth w lies in view 1 at A p + w e (`SweepGeometry`). Rectified stereo is A = I,
e = (-1, 0, 0), in which w is the disparity. No torch is needed.
"""

from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import cv2
import numpy as np
import numpy.typing as npt
from tqdm import tqdm

from tiepoint.errors import InputError
from tiepoint.geometry import check_cameras
from tiepoint.images import UInt8, check_texture
from tiepoint.runtime.sweep import STRIDE, SweepGraph
from tiepoint.runtime.threads import thread_count
from tiepoint.semiglobal import UNIT, aggregate, best_plane, filled, pixel_costs
from tiepoint.sweeping import FINE, SweepGeometry, homogeneous_grid, plane_warps, project, sweep_planes
from tiepoint.types import Bool, Float32, Float64

# weight of the network's likelihood beside the costs of pixels, which know edges better; turned views match less well
LEARNED_SHIFTED, LEARNED = 0.1, 0.5
DOUBT = 8.0  # nats: a plane that is unlikelier counts as this unlikely
TOLERANCE = 1.5  # planes by which both views may differ


@dataclass(frozen=True, slots=True, eq=False)
class DepthMap:
    """What is known of every pixel of view 0.

    Attributes:
        inverse_depth: (H, W) float32, in 1 / (distance of the cameras), or disparity in pixels; holes are filled.
        confidence: (H, W) float32 in [0, 1], the network's probability that it is right to about a pixel; 0 where
            filled.
        checked: (H, W) bool, where view 1 confirms it; the rest is hidden there, or doubtful, and filled from behind.
    """

    inverse_depth: Float32
    confidence: Float32
    checked: Bool

    @property
    def depth(self) -> Float32:
        """(H, W), in distances of the cameras; infinite where the inverse depth is 0."""
        with np.errstate(divide="ignore"):
            return np.asarray(1 / np.maximum(self.inverse_depth, 0), np.float32)


def disparity_map(
    left: UInt8,
    right: UInt8,
    *,
    largest: float,
    smallest: float = 0.0,
    graph: SweepGraph | None = None,
    progress: bool = False,
) -> DepthMap:
    """Disparity of the left one of two rectified images.

    Args:
        left: (H, W, 3).
        right: (H, W, 3); what lies at x in the left image lies at x - d here.
        largest: disparity, pixels.
        smallest: disparity, pixels.
        graph: the network; the embedded one if None.
        progress: shows a bar, at a terminal.

    Returns:
        The disparity as `inverse_depth`.

    Raises:
        InputError: the images differ in size, or the range is none.
        WorkError: there is nothing to match.
    """
    geometry = SweepGeometry(np.eye(3), np.array([-1.0, 0.0, 0.0]))
    limits = smallest, largest
    return sweep_depth(left, right, geometry, limits, limits, graph=graph, progress=progress)


def depth_map(
    image0: UInt8,
    image1: UInt8,
    cameras: tuple[npt.ArrayLike, npt.ArrayLike],
    pose: tuple[npt.ArrayLike, npt.ArrayLike],
    inverse_depths: tuple[float, float],
    *,
    graph: SweepGraph | None = None,
    progress: bool = False,
) -> DepthMap:
    """Depth of image 0 from two images of known cameras and pose.

    Args:
        image0: (H, W, 3).
        image1: (H, W, 3), of the same size.
        cameras: (K0, K1), each (3, 3), pixels.
        pose: (R, t), camera 0 to camera 1; t in whatever unit the depth shall have.
        inverse_depths: least and greatest in either view, in 1 / unit of t.
        graph: the network; the embedded one if None.
        progress: shows a bar, at a terminal.

    Raises:
        InputError: as `disparity_map`, or the cameras are none.
        WorkError: there is nothing to match, or the camera only turned.
    """
    K0, K1 = check_cameras(cameras)
    R, t = (np.asarray(part, np.float64) for part in pose)
    geometry = SweepGeometry(K1 @ R @ np.linalg.inv(K0), K1 @ t.reshape(3))
    return sweep_depth(image0, image1, geometry, inverse_depths, inverse_depths, graph=graph, progress=progress)


def sweep_depth(
    image0: UInt8,
    image1: UInt8,
    geometry: SweepGeometry,
    range0: tuple[float, float],
    range1: tuple[float, float],
    *,
    graph: SweepGraph | None = None,
    progress: bool = False,
) -> DepthMap:
    """Sweep planes through view 0 and through view 1, and keep what agrees; see `depth_map`."""
    _check_pair(image0, image1, (range0, range1))
    network = graph or SweepGraph()
    planes0 = sweep_planes(geometry, range0, image0.shape[:2])
    planes1 = sweep_planes(geometry.swapped(), range1, image0.shape[:2])
    # ONNX Runtime takes several threads by itself, and memory for each run; numpy and OpenCV let others run meanwhile
    with (
        tqdm(total=4, desc="depth", disable=None if progress else True) as bar,
        ThreadPoolExecutor(1 if thread_count() == 1 else 2) as pool,
    ):
        unlikely0, learned, confidence = _learned(image0, image1, geometry, planes0, network)
        bar.update()
        unlikely1, _, _ = _learned(image1, image0, geometry.swapped(), planes1, network)
        bar.update()
        back = pool.submit(_one_side, image1, image0, geometry.swapped(), planes1, unlikely1)
        forth = pool.submit(_one_side, image0, image1, geometry, planes0, unlikely0)
        found1 = back.result()
        bar.update()
        found0 = forth.result()
        bar.update()
    checked = _agree(found0, found1, geometry, planes0[1] - planes0[0], planes1[1] - planes1[0])
    # where the views differ by a shift alone, what is hidden continues what lies behind it; elsewhere holes are larger,
    # and the network knows better
    whole = filled(found0, checked) if geometry.shifted else np.where(checked, found0, learned)
    smooth = cv2.medianBlur(np.asarray(whole, np.float32), 5)
    return DepthMap(np.asarray(smooth, np.float32), np.where(checked, confidence, 0).astype(np.float32), checked)


def _check_pair(image0: UInt8, image1: UInt8, ranges: tuple[tuple[float, float], ...]) -> None:
    if image0.shape != image1.shape:
        sizes = [f"{each.shape[1]}×{each.shape[0]}" for each in (image0, image1)]
        raise InputError(f"the images have {sizes[0]} and {sizes[1]} px, expected one size")
    for low, high in ranges:
        if not 0 <= low < high < np.inf:
            raise InputError(
                f"the range of disparity or inverse depth is {low:g} to {high:g}, expected it to rise from 0"
            )
    for name, image in (("left", image0), ("right", image1)):
        check_texture(image, name=name)


def _one_side(image0: UInt8, image1: UInt8, geometry: SweepGeometry, planes: Float64, unlikely: Float32) -> Float32:
    """Inverse depth (H, W)."""
    size = image0.shape[:2]
    weight = LEARNED_SHIFTED if geometry.shifted else LEARNED
    costs = pixel_costs(image0, image1, plane_warps(geometry, planes, size), len(planes))
    prior = np.float32(UNIT * weight) * unlikely
    for plane, cost in enumerate(costs):
        below, share = divmod(plane, FINE)
        above = min(below + 1, len(prior) - 1)
        mixed = prior[below] + np.float32(share / FINE) * (prior[above] - prior[below])
        cv2.add(cost, _enlarged(mixed, size), dst=cost, dtype=cv2.CV_16U)
    number = best_plane(aggregate(costs, image0))
    return np.asarray(planes[0] + number * (planes[1] - planes[0]), np.float32)


def _learned(
    image0: UInt8, image1: UInt8, geometry: SweepGeometry, planes: Float64, network: SweepGraph
) -> tuple[Float32, Float32, Float32]:
    """How unlikely the network finds every fourth plane, (P/4, H'/4, W'/4) in [0, 1]; its depth and confidence."""
    height, width = image0.shape[:2]
    edges = ((0, -height % STRIDE), (0, -width % STRIDE), (0, 0))
    padded0, padded1 = (np.pad(image, edges, mode="edge")[None] for image in (image0, image1))
    coarse = planes[::FINE][None]
    depth, confidence, likelihood = network.run(
        padded0, padded1, geometry.at_infinity[None], geometry.epipole[None], coarse
    )
    unlikely = np.minimum(-likelihood[0], DOUBT) / DOUBT
    # never nearer to infinity than half a plane: a depth without bounds helps nobody
    least = planes[0] + 0.5 * (planes[1] - planes[0])
    own = np.maximum(depth[0, :height, :width], least).astype(np.float32)
    return unlikely.astype(np.float32), own, confidence[0, :height, :width]


def _enlarged(cells: Float32, size: tuple[int, ...]) -> Float32:
    """A map at a quarter of the padded size, at the image's own."""
    whole = cells.shape[1] * 4, cells.shape[0] * 4
    return np.asarray(cv2.resize(cells, whole, interpolation=cv2.INTER_LINEAR)[: size[0], : size[1]], np.float32)


def _agree(found0: Float32, found1: Float32, geometry: SweepGeometry, step0: float, step1: float) -> Bool:
    """Where view 1 has about the depth that view 0 expects there."""
    grid = homogeneous_grid(found0.shape)
    w = found0.astype(np.float64)
    place = project(geometry, grid, w).astype(np.float32)
    z = (grid @ geometry.at_infinity.T + w[..., None] * geometry.epipole)[..., 2]
    expected = w / np.where(z > 1e-6, z, np.nan)
    x, y = (np.nan_to_num(place[..., axis], nan=-9.0) for axis in (0, 1))
    there = cv2.remap(found1, x, y, cv2.INTER_LINEAR, borderMode=cv2.BORDER_CONSTANT, borderValue=(-1e6,))
    with np.errstate(invalid="ignore"):
        return np.asarray(np.abs(there - expected) <= TOLERANCE * max(step0, step1))
