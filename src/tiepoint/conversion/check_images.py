"""The images on which a copy of networks is compared with its original: always the same, and none has to be fetched."""

from collections.abc import Iterator, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import NamedTuple

import cv2
import numpy as np

from tiepoint.images import MID_GREY, UInt8, read_image, resize_to_long_side
from tiepoint.types import Float64

# (height, width): the least, tiny, odd, even, portrait, large
SIZES = ((64, 64), (96, 64), (333, 517), (480, 640), (641, 479), (1200, 1600))
VIEWS = 12  # of each image of the check set
LONG_SIDE = 512  # of these images, pixels
_PHOTO = "mpl-data/sample_data/grace_hopper.jpg"  # in matplotlib, which the extra `train` brings; public domain

Pair = tuple[str, UInt8, UInt8]


class CheckPair(NamedTuple):
    """Two views whose homography is known, (3, 3), pixels of image 0 to image 1."""

    image0: UInt8
    image1: UInt8
    H_0to1: Float64


def parity_pairs() -> Iterator[Pair]:
    """Pairs of batches of images: many sizes, noise, without contrast, a batch of four, and a real photograph."""
    for height, width in SIZES:
        image0, image1 = made_pair(height, width)
        yield f"{width}×{height}", image0[None], image1[None]
    noise = np.random.default_rng(1).integers(0, 256, (256, 336, 3), np.uint8)
    yield "noise", noise[None, :240, :320], noise[None, 16:, 16:]
    textured = made_pair(97, 131)
    blank = np.full_like(textured[0], MID_GREY)
    yield "blank", blank[None], textured[1][None]
    batch0, batch1 = (textured[0], textured[1], blank, textured[0]), (textured[1], blank, blank, textured[0])
    yield "batch of 4", np.stack(batch0), np.stack(batch1)
    photo = bundled_photo()
    if photo is not None:
        yield "photo, cut", photo[None, :401, :407], photo[None, 40:, 30:]
        yield "photo, another view", photo[None], second_view(photo, 0).image1[None]


def parity_images() -> Iterator[tuple[str, UInt8]]:
    """Batches (B, H, W, 3) of single images: of each of the pairs the first, of another view the view itself."""
    for name, image0, image1 in parity_pairs():
        yield name, image1 if name.endswith("another view") else image0


def check_set(photos: Sequence[UInt8] = (), *, views: int | None = None) -> Iterator[CheckPair]:
    """Views of images by homographies that are known exactly, with other light, blur and noise.

    Args:
        photos: the images; without any those that are always there: the photograph of `bundled_photo` and the
            made scene of `made_pair`.
        views: of each image, `VIEWS` if None; fewer are as difficult on the average over the images.
    """
    usual = [image for image in (bundled_photo(), made_pair(384, LONG_SIDE)[0]) if image is not None]
    count = VIEWS if views is None else views
    for number, image in enumerate(photos or usual):
        small = resize_to_long_side(image, LONG_SIDE)[0]
        for view in range(count):
            yield second_view(small, (number + view * VIEWS // count) % VIEWS)


def bundled_photo() -> UInt8 | None:
    """The photograph (606×512 px) that matplotlib carries; None where it was installed without it."""
    found = find_spec("matplotlib")
    path = Path(found.origin).parent / _PHOTO if found is not None and found.origin else None
    return read_image(path) if path is not None and path.is_file() else None


def made_pair(height: int, width: int) -> tuple[UInt8, UInt8]:
    """Two overlapping views of a procedural scene: rectangles of all sizes with a little noise, always the same."""
    random = np.random.default_rng(0)
    scene = np.full((height + 16, width + 16, 3), MID_GREY, np.float32)
    for _ in range(400):
        y, x = random.integers(0, (height, width))
        extent = np.maximum(2, (random.random(2) ** 3 * (height, width) / 2).astype(int))
        scene[y : y + extent[0], x : x + extent[1]] = random.integers(0, 256, 3)
    noisy = (scene + random.normal(0, 4, scene.shape)).clip(0, 255).astype(np.uint8)
    return noisy[:height, :width].copy(), noisy[8:, 16:][:height, :width].copy()


def second_view(image: UInt8, seed: int) -> CheckPair:
    """An image and another view of it, the more difficult the higher the seed, up to `VIEWS`.

    Turned by up to 45 degrees, scaled by up to 2, tilted, shifted; gamma, contrast, blur and noise.

    Args:
        image: (H, W, 3).
        seed: of everything that is drawn.
    """
    random = np.random.default_rng(seed)
    height, width = image.shape[:2]
    hardness = (seed % VIEWS + 1) / VIEWS
    H = _homography(random, (height, width), hardness)
    warped = cv2.warpPerspective(image, H, (width, height), borderValue=(MID_GREY,) * 3)
    blurred = cv2.GaussianBlur(warped, (0, 0), 0.3 + 0.7 * hardness * random.random())
    lit = 255 * (blurred / 255.0) ** 2 ** random.uniform(-hardness, hardness)
    contrast = 1 + 0.4 * hardness * random.uniform(-1, 1)
    noisy = MID_GREY + contrast * (lit - MID_GREY) + random.normal(0, 2 + 6 * hardness, lit.shape)
    return CheckPair(image, noisy.clip(0, 255).astype(np.uint8), H)


def _homography(random: np.random.Generator, size: tuple[int, int], hardness: float) -> Float64:
    """About the image's middle; (3, 3), pixels."""
    height, width = size
    middle = np.array([[1, 0, (width - 1) / 2], [0, 1, (height - 1) / 2], [0, 0, 1]])
    angle, octaves = np.deg2rad(45) * random.uniform(-hardness, hardness), random.uniform(-hardness, hardness)
    cosine, sine = 2**octaves * np.array([np.cos(angle), np.sin(angle)])
    shift = 0.15 * hardness * random.uniform(-1, 1, 2) * (width, height)
    similarity = np.array([[cosine, -sine, shift[0]], [sine, cosine, shift[1]], [0, 0, 1]])
    tilted = np.eye(3)
    tilted[2, :2] = 0.8 * hardness * random.uniform(-1, 1, 2) / (width, height)
    H = middle @ similarity @ tilted @ np.linalg.inv(middle)
    return np.asarray(H / H[2, 2], np.float64)
