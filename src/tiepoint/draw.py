"""Pictures for people: matches between two images, and keypoints on one."""

import math
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt
from PIL import Image, ImageDraw, ImageFont

from tiepoint.errors import InputError
from tiepoint.files import atomic_path
from tiepoint.images import ImageSource, UInt8, read_image
from tiepoint.types import Bool, Float64, Matches

Colour = tuple[int, int, int]
Size = tuple[int, int]

WIDTH, HEIGHT, NARROWEST = 1600, 1200, 720  # of a picture without its caption, in pixels
ASPECT = 1.6  # of a screen
GAP, CAPTION_HEIGHT, MARGIN = 8, 44, 16
PAPER: Colour = (24, 24, 27)
INK: Colour = (228, 228, 231)
FAINT: Colour = (161, 161, 170)
INLIER: Colour = (74, 222, 128)
OUTLIER: Colour = (239, 68, 68)
DIMMED = 0.7  # photographs behind lines: bright colours would outshine them
SHIFT = 4  # OpenCV draws with this many fractional bits


@dataclass(frozen=True, slots=True)
class _Place:
    """Where an image lies in a picture: its upper left corner (x, y) and its size there, (height, width)."""

    corner: tuple[int, int]
    size: Size


def draw_matches(
    image0: ImageSource,
    image1: ImageSource,
    matches: Matches,
    *,
    inliers: npt.ArrayLike | None = None,
    max_lines: int = 300,
) -> UInt8:
    """Draws two images and lines between their tie points, over a caption that counts them.

    The images stand side by side, or one above the other where that comes closer to the shape of a screen.
    Without `inliers` the lines are coloured by score, from blue for the lowest to yellow for the highest;
    with them the inliers are green and lie above the outliers, which are faint and red.

    Args:
        image0: whatever `read_image` takes, of the size that `matches.size0` says.
        image1: likewise for `matches.size1`.
        matches: the tie points.
        inliers: (N,) bool, for example `TwoViewGeometry.inliers`.
        max_lines: of more matches than this, evenly chosen ones are drawn and the caption says how many.

    Returns:
        (H, W, 3) uint8 RGB, at most 1600 pixels wide.

    Raises:
        InputError: an image cannot be read or has not the size that the matches were found in.
        ValueError: `inliers` has not the length of the matches.
    """
    pixels = (_sized(image0, matches.size0, "image 0"), _sized(image1, matches.size1, "image 1"))
    agree = None if inliers is None else _shaped(inliers, (len(matches),), "inliers").astype(np.bool_)
    places = _layout(matches.size0, matches.size1)
    shown = _evenly(len(matches), max_lines)[::-1]  # the best last, so that they lie on top
    starts = _placed(matches.keypoints0, matches.size0, places[0])[shown]
    ends = _placed(matches.keypoints1, matches.size1, places[1])[shown]
    picture = cv2.convertScaleAbs(_mosaic(pixels, places), alpha=DIMMED)
    if agree is None:
        picture = _with_lines(picture, starts, ends, colours=_colours(matches.scores)[shown], opacity=0.85)
        return _captioned(picture, _count(len(matches), None, len(shown)), matches.scores)
    picture = _with_verdicts(picture, starts, ends, agree[shown])
    return _captioned(picture, _count(len(matches), int(agree.sum()), len(shown)), None)


def draw_keypoints(image: ImageSource, keypoints: npt.ArrayLike, *, scores: npt.ArrayLike | None = None) -> UInt8:
    """Draws an image and a dot on each keypoint, over a caption that counts them.

    Args:
        image: whatever `read_image` takes.
        keypoints: (N, 2), pixels (x, y) of the image.
        scores: (N,), of any range: the dots are coloured from blue for the lowest to yellow for the
            highest.

    Returns:
        (H, W, 3) uint8 RGB, at most 1600 pixels wide.

    Raises:
        InputError: the image cannot be read.
        ValueError: the keypoints or their scores have the wrong shape or are not finite.
    """
    pixels = read_image(image)
    size: Size = (pixels.shape[0], pixels.shape[1])
    points = _shaped(keypoints, (np.shape(keypoints)[0], 2), "keypoints")
    values = None if scores is None else _shaped(scores, (len(points),), "scores")
    place = _centred((_Place((0, 0), _fitted(size)),))[0]
    order = np.arange(len(points)) if values is None else values.argsort(kind="stable")
    colours = np.tile(np.array(INLIER), (len(points), 1)) if values is None else _colours(values)
    picture = _with_dots(_mosaic((pixels,), (place,)), _placed(points, size, place)[order], colours[order])
    words = [(_plural(len(points), "keypoint"), INK)]
    return _captioned(picture, words, values)


def draw_epipolar_lines(
    image0: ImageSource,
    image1: ImageSource,
    matches: Matches,
    F: npt.ArrayLike,
    *,
    inliers: npt.ArrayLike,
    count: int = 14,
) -> UInt8:
    """Draws some inliers in both images, and through each the epipolar line of its partner in the same colour.

    Args:
        image0: whatever `read_image` takes, of the size that `matches.size0` says.
        image1: likewise for `matches.size1`.
        matches: the tie points.
        F: (3, 3), x1^T F x0 = 0.
        inliers: (N,) bool.
        count: how many at most, far apart in image 0.

    Returns:
        (H, W, 3) uint8 RGB, at most 1600 pixels wide.

    Raises:
        InputError: an image cannot be read or has not the size that the matches were found in.
    """
    pixels = (_sized(image0, matches.size0, "image 0"), _sized(image1, matches.size1, "image 1"))
    matrix = np.asarray(F, dtype=np.float64)
    chosen = np.flatnonzero(_shaped(inliers, (len(matches),), "inliers"))
    chosen = chosen[_far_apart(matches.keypoints0[chosen], count)]
    colours = cv2.applyColorMap(np.linspace(0, 255, len(chosen)).astype(np.uint8).reshape(-1, 1), cv2.COLORMAP_TURBO)
    colours = colours.reshape(-1, 3)[:, ::-1]
    places, views = _layout(matches.size0, matches.size1), []
    for image, points, others, M, place in (
        (pixels[0], matches.keypoints0, matches.keypoints1, matrix.T, places[0]),
        (pixels[1], matches.keypoints1, matches.keypoints0, matrix, places[1]),
    ):
        small = cv2.resize(image, place.size[::-1], interpolation=cv2.INTER_AREA)
        small = cv2.convertScaleAbs(small, alpha=DIMMED)
        own = _Place((0, 0), place.size)
        for ends in _line_ends(np.c_[others[chosen], np.ones(len(chosen))] @ M.T, image.shape[:2]):
            start, end = _fixed(_placed(ends[1], image.shape[:2], own))
            cv2.line(small, start, end, colours[ends[0]].tolist(), 1, cv2.LINE_AA, SHIFT)
        views.append(_with_dots(small, _placed(points[chosen], image.shape[:2], own), colours))
    words = [(f"{_plural(len(chosen), 'inlier')} with the epipolar lines of their partners", INK)]
    return _captioned(_mosaic(views, places), words, None)


def draw_training_pairs(batch: Mapping[str, npt.NDArray[Any]], *, rows: int = 8) -> UInt8:
    """Draws what a network learns from: a row for each pair.

    From left to right: both views; both again, red where the other view does not show the place; and the inverse
    depth of view 0 where the pair is in depth, from violet for far to yellow for near.

    Args:
        batch: `image0`, `image1`: (B, 1, H, W) in [0, 1]; `covisible0`, `covisible1`: (B, H, W) bool; `depth0`:
            (B, H, W), 0 where unknown; what else there is is not drawn.
        rows: how many pairs at most.

    Returns:
        (H', W', 3) uint8 RGB.
    """
    drawn = []
    for index in range(min(rows, len(batch["image0"]))):
        greys = [_grey(batch[f"image{side}"][index, 0]) for side in (0, 1)]
        seen = [_tinted(grey, batch[f"covisible{side}"][index]) for side, grey in enumerate(greys)]
        drawn.append(np.concatenate([*greys, *seen, _near_and_far(batch["depth0"][index])], axis=1))
    titles = ("view 0", "view 1", "not seen by view 1", "not seen by view 0", "inverse depth of view 0")
    strip = Image.new("RGB", (drawn[0].shape[1], CAPTION_HEIGHT), PAPER)
    pen, font, width = ImageDraw.Draw(strip), ImageFont.load_default(size=20), strip.width / len(titles)
    for column, title in enumerate(titles):
        pen.text(((column + 0.5) * width, CAPTION_HEIGHT / 2), title, fill=INK, font=font, anchor="mm")
    return np.concatenate([np.asarray(strip), *drawn])


def draw_depth(depth: npt.NDArray[Any], checked: Bool, *, disparity: bool = False) -> UInt8:
    """Draws depth in colours, darker where it is filled, beside a bar with its scale.

    Inverse depth is shown, from violet for far to yellow for near; the bar names depths, or disparities.

    Args:
        depth: (H, W), metres, 0 or less where unknown.
        checked: (H, W) bool, which pixels were measured; the others were filled.
        disparity: the depth is 1 / disparity in pixels.

    Returns:
        (H', W', 3) uint8 RGB.
    """
    known = depth > 0
    inverse = np.divide(1.0, depth, out=np.zeros(depth.shape, np.float64), where=known)
    chosen = inverse[known & checked] if (known & checked).any() else inverse[known]
    low, high = np.quantile(chosen, (0.01, 0.99)) if len(chosen) else (0.0, 1.0)
    colours = _scale_colours(inverse, low, high)
    colours = np.where(known[:, :, None], colours, np.array(PAPER, dtype=np.uint8))
    picture = np.where(checked[:, :, None], colours, (DIMMED * colours).astype(np.uint8))
    place = _Place((0, 0), _fitted((depth.shape[0], depth.shape[1])))
    large = cv2.resize(picture, place.size[::-1], interpolation=cv2.INTER_NEAREST)
    bar = _depth_bar(low, high, place.size[0], disparity=disparity)
    return np.concatenate([np.asarray(large, np.uint8), bar], axis=1)


def _scale_colours(values: npt.NDArray[Any], low: float, high: float) -> UInt8:
    """(H, W) in colours, (H, W, 3)."""
    steps = (255 * (values - low) / max(high - low, 1e-9)).clip(0, 255).astype(np.uint8)
    return np.asarray(cv2.applyColorMap(steps, cv2.COLORMAP_VIRIDIS)[:, :, ::-1], dtype=np.uint8)


def _depth_bar(low: float, high: float, height: int, *, disparity: bool) -> UInt8:
    """A bar of all colours, the nearest at the top, with five depths or disparities beside it."""
    strip = Image.new("RGB", (130, height), PAPER)
    pen, font = ImageDraw.Draw(strip), ImageFont.load_default(size=18)
    values = np.linspace(high, low, max(height - 2 * MARGIN, 1))[:, None].repeat(24, axis=1)
    strip.paste(Image.fromarray(_scale_colours(values, low, high)), (MARGIN, MARGIN))
    for share in np.linspace(0, 1, 5):
        inverse = high + share * (low - high)
        words = f"{1 / inverse:.3g} m" if inverse > 1e-9 else "far"
        words = f"{inverse:.3g} px" if disparity else words
        pen.text((MARGIN + 32, MARGIN + share * (height - 2 * MARGIN)), words, fill=INK, font=font, anchor="lm")
    return np.asarray(strip)


def draw_side_by_side(pictures: Sequence[UInt8], *, columns: int = 2, width: int = 800) -> UInt8:
    """Puts pictures of one shape, (H, W, 3), into rows, each `width` pixels wide; where one is missing it is dark."""
    height = round(pictures[0].shape[0] * width / pictures[0].shape[1])
    small = [cv2.resize(picture, (width, height), interpolation=cv2.INTER_AREA) for picture in pictures]
    small += [np.full_like(small[0], PAPER)] * (-len(small) % columns)
    rows = [np.concatenate(small[at : at + columns], axis=1) for at in range(0, len(small), columns)]
    return np.concatenate(rows)


def write_picture(path: str | os.PathLike[str], picture: UInt8) -> None:
    """Writes a picture (H, W, 3 or 4), RGB or RGBA, whole or not at all, in the format that the path's suffix names.

    Raises:
        InputError: as `atomic_path`.
        WorkError: the disk is full.
    """
    order = cv2.COLOR_RGB2BGR if picture.shape[2] == 3 else cv2.COLOR_RGBA2BGRA
    _, encoded = cv2.imencode(Path(path).suffix, cv2.cvtColor(picture, order))
    with atomic_path(path) as temporary:
        temporary.write_bytes(encoded.tobytes())


def _far_apart(points: npt.NDArray[Any], count: int) -> list[int]:
    """Indices of points (N, 2), each the farthest from those before."""
    if not len(points):
        return []
    chosen, distance = [0], np.linalg.norm(points - points[0], axis=1)
    while len(chosen) < min(count, len(points)):
        chosen.append(int(distance.argmax()))
        distance = np.minimum(distance, np.linalg.norm(points - points[chosen[-1]], axis=1))
    return chosen


def _line_ends(lines: Float64, size: Size) -> list[tuple[int, Float64]]:
    """Where lines (N, 3) enter and leave an image: the number of each that does, and (2, 2) places."""
    height, width = size
    found = []
    for number, (a, b, c) in enumerate(lines):
        with np.errstate(divide="ignore", invalid="ignore"):
            sides = [(x, -(a * x + c) / b) for x in (0, width - 1)] + [(-(b * y + c) / a, y) for y in (0, height - 1)]
        inner = [(x, y) for x, y in sides if -0.5 <= x <= width - 0.5 and -0.5 <= y <= height - 0.5]
        if len(inner) >= 2:
            ends = np.array(inner)
            far = int(np.linalg.norm(ends - ends[0], axis=1).argmax())
            found.append((number, ends[[0, far]]))
    return found


def _grey(image: npt.NDArray[Any]) -> UInt8:
    """(H, W) in [0, 1] as (H, W, 3)."""
    return np.repeat((image.clip(0, 1) * 255).round().astype(np.uint8)[:, :, None], 3, axis=2)


def _tinted(picture: UInt8, shown: Bool) -> UInt8:
    """Red over what is not `shown`."""
    red = np.asarray(cv2.addWeighted(picture, 0.4, np.full_like(picture, OUTLIER), 0.6, 0), dtype=np.uint8)
    return np.where(shown[:, :, None], picture, red)


def _near_and_far(depth: npt.NDArray[Any]) -> UInt8:
    """The inverse of a depth (H, W) in colours; dark where it is unknown."""
    known = depth > 0
    inverse = np.divide(1.0, depth, out=np.zeros_like(depth, dtype=np.float64), where=known)
    # a measured depth has outliers, beside which nothing else would show
    low, high = np.quantile(inverse[known], (0.01, 0.99)) if known.any() else (0.0, 1.0)
    steps = (255 * (inverse - low) / max(high - low, 1e-6)).clip(0, 255).astype(np.uint8)
    colours = np.asarray(cv2.applyColorMap(steps, cv2.COLORMAP_VIRIDIS)[:, :, ::-1], dtype=np.uint8)
    return np.where(known[:, :, None], colours, np.array(PAPER, dtype=np.uint8))


def _sized(image: ImageSource, size: Size, name: str) -> UInt8:
    """Reads an image and checks that the matches were found in one of its size."""
    pixels = read_image(image, name=name)
    if pixels.shape[:2] != tuple(size):
        found, expected = (f"{s[1]} x {s[0]}" for s in (pixels.shape, size))
        raise InputError(f"{name} has {found} pixels, expected {expected} as in the matches")
    return pixels


def _shaped(values: npt.ArrayLike, shape: tuple[int, ...], name: str) -> npt.NDArray[Any]:
    array = np.asarray(values)
    if array.shape != shape:
        raise ValueError(f"{name} has shape {array.shape}, expected {shape}")
    if not np.isfinite(array).all():
        raise ValueError(f"{name} holds values that are not finite")
    return array


def _evenly(count: int, most: int) -> npt.NDArray[np.intp]:
    """At most `most` indices below `count`, evenly spaced from the first to the last."""
    return np.linspace(0, max(count - 1, 0), min(count, max(most, 0))).round().astype(np.intp)


def _layout(size0: Size, size1: Size) -> tuple[_Place, ...]:
    """Places two images side by side with equal heights, or one above the other with equal widths."""
    aspects = size0[1] / size0[0], size1[1] / size1[0]
    beside, above = sum(aspects), 1 / sum(1 / aspect for aspect in aspects)
    if abs(math.log(beside / ASPECT)) <= abs(math.log(above / ASPECT)):
        height = min(HEIGHT, (WIDTH - GAP) / beside)
        sizes = [_whole(height, height * aspect) for aspect in aspects]
        corner = (sizes[0][1] + GAP, 0)
    else:
        width = min(WIDTH, (HEIGHT - GAP) * above)
        sizes = [_whole(width / aspect, width) for aspect in aspects]
        corner = (0, sizes[0][0] + GAP)
    return _centred((_Place((0, 0), sizes[0]), _Place(corner, sizes[1])))


def _fitted(size: Size) -> Size:
    """The size at which one image fills a picture."""
    scale = min(WIDTH / size[1], HEIGHT / size[0])
    return _whole(size[0] * scale, size[1] * scale)


def _whole(height: float, width: float) -> Size:
    return max(1, int(height)), max(1, int(width))


def _centred(places: tuple[_Place, ...]) -> tuple[_Place, ...]:
    """Moves images to the middle of a picture that is at least wide enough for its caption."""
    width = max(place.corner[0] + place.size[1] for place in places)
    left = max(0, NARROWEST - width) // 2
    return tuple(_Place((place.corner[0] + left, place.corner[1]), place.size) for place in places)


def _mosaic(images: Sequence[UInt8], places: Sequence[_Place]) -> UInt8:
    """The images at their places on dark paper."""
    width = max(NARROWEST, *(place.corner[0] + place.size[1] for place in places))
    height = max(place.corner[1] + place.size[0] for place in places)
    picture = np.full((height, width, 3), PAPER, dtype=np.uint8)
    for image, place in zip(images, places, strict=True):
        (x, y), (h, w) = place.corner, place.size
        shrinks = h <= image.shape[0]
        method = cv2.INTER_AREA if shrinks else cv2.INTER_CUBIC
        picture[y : y + h, x : x + w] = cv2.resize(image, (w, h), interpolation=method)
    return picture


def _placed(keypoints: npt.ArrayLike, size: Size, place: _Place) -> Float64:
    """Maps (N, 2) keypoints of an image to the picture; those off the image go to its border."""
    scale = np.array(place.size[::-1]) / np.array(size[::-1])
    points = (np.asarray(keypoints, dtype=np.float64) + 0.5) * scale - 0.5
    return np.asarray(points.clip(0, np.array(place.size[::-1]) - 1) + place.corner)


def _colours(scores: npt.NDArray[Any]) -> npt.NDArray[np.uint8]:
    """(N, 3) RGB along viridis, stretched over the scores; without its dark end, which photos swallow."""
    low, high = (scores.min(), scores.max()) if len(scores) else (0, 1)
    share = (scores - low) / (high - low) if high > low else np.ones(len(scores))
    steps = (80 + 175 * share).round().astype(np.uint8).reshape(-1, 1)
    if not len(steps):
        return np.zeros((0, 3), dtype=np.uint8)
    return np.asarray(cv2.applyColorMap(steps, cv2.COLORMAP_VIRIDIS)[:, 0, ::-1], dtype=np.uint8)


def _with_lines(picture: UInt8, starts: Float64, ends: Float64, *, colours: npt.NDArray[Any], opacity: float) -> UInt8:
    """Draws lines that end in dots; (N, 2), (N, 2) and (N, 3)."""
    layer = picture.copy()
    for start, end, colour in zip(_fixed(starts), _fixed(ends), colours.tolist(), strict=True):
        cv2.line(layer, start, end, colour, 1, cv2.LINE_AA, SHIFT)
        for point in (start, end):
            cv2.circle(layer, point, 3 << SHIFT, colour, cv2.FILLED, cv2.LINE_AA, SHIFT)
    return np.asarray(cv2.addWeighted(layer, opacity, picture, 1 - opacity, 0), dtype=np.uint8)


def _with_verdicts(picture: UInt8, starts: Float64, ends: Float64, agree: Bool) -> UInt8:
    """Draws the lines of outliers and above them those of inliers."""
    for wanted, colour, opacity in ((~agree, OUTLIER, 0.4), (agree, INLIER, 0.85)):
        colours = np.tile(np.array(colour), (int(wanted.sum()), 1))
        picture = _with_lines(picture, starts[wanted], ends[wanted], colours=colours, opacity=opacity)
    return picture


def _with_dots(picture: UInt8, points: Float64, colours: npt.NDArray[Any]) -> UInt8:
    """Draws dots with a dark rim, which shows on bright ground too; (N, 2) and (N, 3)."""
    layer = picture.copy()
    for point, colour in zip(_fixed(points), colours.tolist(), strict=True):
        cv2.circle(layer, point, 4 << SHIFT, PAPER, cv2.FILLED, cv2.LINE_AA, SHIFT)
        cv2.circle(layer, point, 3 << SHIFT, colour, cv2.FILLED, cv2.LINE_AA, SHIFT)
    return layer


def _fixed(points: Float64) -> list[list[int]]:
    """Coordinates as OpenCV's drawing takes them, with `SHIFT` fractional bits."""
    fixed: list[list[int]] = (points * (1 << SHIFT)).round().astype(int).tolist()
    return fixed


def _plural(count: int, word: str) -> str:
    ending = "" if count == 1 else "es" if word.endswith("h") else "s"
    return f"{count or 'no'} {word}{ending}"


def _count(matches: int, inliers: int | None, shown: int) -> list[tuple[str, Colour]]:
    """The words below a picture of matches, each in the colour of what it counts."""
    words = [(_plural(matches, "match"), INK)]
    if inliers is not None:
        words += [(_plural(inliers, "inlier"), INLIER), (_plural(matches - inliers, "outlier"), OUTLIER)]
    if shown < matches:
        words.append((f"(showing {shown})", FAINT))
    return words


def _captioned(picture: UInt8, words: Sequence[tuple[str, Colour]], scores: npt.NDArray[Any] | None) -> UInt8:
    """Adds a strip below with words on the left and, where there are scores, their colours on the right."""
    strip = Image.new("RGB", (picture.shape[1], CAPTION_HEIGHT), PAPER)
    pen, font = ImageDraw.Draw(strip), ImageFont.load_default(size=20)
    x = float(MARGIN)
    for text, colour in words:
        pen.text((x, CAPTION_HEIGHT / 2), text, fill=colour, font=font, anchor="lm")
        x += pen.textlength(text + "   ", font=font)
    if scores is not None and len(scores):
        _draw_scale(strip, float(scores.min()), float(scores.max()))
    return np.concatenate([picture, np.asarray(strip)])


def _draw_scale(strip: Image.Image, low: float, high: float) -> None:
    """Draws the scale of colours with the scores at its ends."""
    pen, font = ImageDraw.Draw(strip), ImageFont.load_default(size=16)
    right, middle, length = strip.width - MARGIN, CAPTION_HEIGHT // 2, 120
    pen.text((right, middle), f"{high:.2f}", fill=FAINT, font=font, anchor="rm")
    right -= int(pen.textlength(f"{high:.2f}", font=font)) + 8
    bar = np.tile(_colours(np.arange(length))[None], (10, 1, 1))
    strip.paste(Image.fromarray(bar), (right - length, middle - 5))
    pen.text((right - length - 8, middle), f"score {low:.2f}", fill=FAINT, font=font, anchor="rm")
