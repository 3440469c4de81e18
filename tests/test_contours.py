"""Thinning and tracing without torch: the same as in training, known shapes, and files."""

from pathlib import Path
from xml.etree import ElementTree

import cv2
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from skimage import data

from tiepoint.contours import thin, thin_edges, trace_lines, write_svg
from tiepoint.errors import InputError
from tiepoint.ops import edges as in_torch


def smooth(seed: int, size: tuple[int, int] = (61, 83)) -> np.ndarray:
    """Blurred lines in [0, 1]."""
    rng = np.random.default_rng(seed)
    drawn = np.zeros(size, np.float32)
    for _ in range(6):
        ends = rng.integers(0, size[::-1], (2, 2)).tolist()
        cv2.line(drawn, *ends, float(rng.uniform(0.3, 1)), int(rng.integers(1, 4)))
    return cv2.GaussianBlur(drawn, (0, 0), 1.2)


def thinned_by_torch(probability: np.ndarray) -> np.ndarray:
    return in_torch.thin_edges(torch.from_numpy(probability)[None, None])[0, 0].numpy()


@given(st.integers(0, 10_000))
@settings(max_examples=25, deadline=None)
def test_thinning_is_that_of_the_training(seed: int) -> None:
    """But for a pixel in a thousand, where rounding decides; where both keep a pixel its value is the same."""
    probability = smooth(seed) + np.random.default_rng(seed).uniform(0, 0.02, (61, 83)).astype(np.float32)
    ours, theirs = thin_edges(probability), thinned_by_torch(probability)
    assert ((ours > 0) != (theirs > 0)).mean() <= 1e-3
    both = (ours > 0) & (theirs > 0)
    assert np.array_equal(ours[both], theirs[both])


def test_thinning_of_a_photograph_is_that_of_the_training() -> None:
    grey = cv2.cvtColor(data.astronaut(), cv2.COLOR_RGB2GRAY).astype(np.float32) / 255
    magnitude = np.hypot(cv2.Sobel(grey, cv2.CV_32F, 1, 0), cv2.Sobel(grey, cv2.CV_32F, 0, 1)).clip(0, 1)
    ours, theirs = thin_edges(magnitude), thinned_by_torch(magnitude)
    assert ((ours > 0) != (theirs > 0)).mean() <= 1e-3
    assert 0.01 < (ours > 0.1).mean() < 0.2


def test_a_ridge_becomes_a_line() -> None:
    drawn = np.zeros((40, 60), np.float32)
    drawn[:, 30] = 1
    thinned = thin_edges(cv2.GaussianBlur(drawn, (0, 0), 2))
    assert (np.flatnonzero(thinned[20] > 0.05) == [30]).all()


def test_what_is_thin_stays_connected() -> None:
    blob = smooth(3) > 0.2
    thinned = thin(blob)
    assert not (thinned & ~blob).any()
    assert cv2.connectedComponents(thinned.astype(np.uint8))[0] == cv2.connectedComponents(blob.astype(np.uint8))[0]
    assert np.array_equal(thin(thinned), thinned)


def test_a_straight_line_is_two_points() -> None:
    drawn = np.zeros((30, 40), bool)
    drawn[12, 5:36] = True
    (line,) = trace_lines(drawn)
    assert sorted(map(tuple, line.tolist())) == [(5, 12), (35, 12)]


def test_a_fork_has_three_lines() -> None:
    drawn = np.zeros((40, 41), bool)
    drawn[20:, 20] = drawn[20, 5:36] = True
    lines = trace_lines(drawn)
    assert len(lines) == 3
    ends = np.concatenate([line[[0, -1]] for line in lines])
    assert (np.abs(ends - (20, 20)).max(1) <= 1).sum() == 3
    assert [len(line) for line in lines] == [2, 2, 2]


def test_a_circle_goes_around() -> None:
    drawn = np.zeros((80, 80), np.uint8)
    cv2.circle(drawn, (40, 40), 25, 1)
    (line,) = trace_lines(drawn.astype(bool))
    assert np.array_equal(line[0], line[-1])
    assert np.abs(np.linalg.norm(line - 40, axis=1) - 25).max() < 1
    assert np.linalg.norm(np.diff(line, axis=0), axis=1).sum() == pytest.approx(2 * np.pi * 25, rel=0.03)


@given(st.integers(0, 10_000))
@settings(max_examples=20, deadline=None)
def test_lines_stay_on_their_pixels_and_cover_them(seed: int) -> None:
    drawn = smooth(seed) > 0.3
    lines = trace_lines(drawn, shortest=0, tolerance=0.75)
    traced = np.zeros(drawn.shape, np.uint8)
    for line in lines:
        cv2.polylines(traced, [np.rint(line).astype(np.int32)], False, 1)
    pixels = thin(drawn)
    apart = [cv2.distanceTransform((~each).astype(np.uint8), cv2.DIST_L2, 5) for each in (pixels, traced > 0)]
    assert apart[0][traced > 0].max(initial=0) < 2
    # a pixel that hangs together with no other is no line
    alone = cv2.filter2D(pixels.astype(np.uint8), -1, np.ones((3, 3)), borderType=cv2.BORDER_CONSTANT) == 1
    assert apart[1][pixels & ~alone].max(initial=0) < 2


def test_nothing_has_no_lines() -> None:
    assert trace_lines(np.zeros((20, 30), bool)) == []


def test_an_svg_holds_the_lines_half_a_pixel_further(tmp_path: Path) -> None:
    lines = [np.array([[5, 12], [35, 12]], np.float32), np.array([[0, 0], [1, 1], [2.5, 9]], np.float32)]
    write_svg(tmp_path / "a.svg", lines, (30, 40))
    root = ElementTree.parse(tmp_path / "a.svg").getroot()
    assert root.attrib["viewBox"] == "0 0 40 30"
    points = [each.attrib["points"] for each in root.iter("{http://www.w3.org/2000/svg}polyline")]
    assert points == ["5.5,12.5 35.5,12.5", "0.5,0.5 1.5,1.5 3,9.5"]
    with pytest.raises(InputError, match="a folder"):
        write_svg(tmp_path, lines, (30, 40))
