"""A row of photographs taken from one place, cut out of one picture, with other exposures."""

from pathlib import Path

import cv2
import numpy as np
import pytest
from PIL import Image
from skimage import data

from tiepoint import WorkError
from tiepoint.cli import main
from tiepoint.stitching import stitch

SIZE = (360, 300)


def views() -> tuple[np.ndarray, list[np.ndarray], list[np.ndarray]]:
    """A picture, three views of it, and the homography of each from the picture."""
    photo = cv2.resize(data.coffee(), (720, 480), interpolation=cv2.INTER_CUBIC)
    to_view = []
    for x, tilt in ((30, -1e-4), (200, 0.0), (380, 1e-4)):
        to_view.append(np.array([[1.0, 0, -x], [0.01, 1, -60], [tilt, 0, 1]]))
    made = [cv2.warpPerspective(photo, H, SIZE[::-1], flags=cv2.INTER_CUBIC) for H in to_view]
    gains = (0.75, 1.0, 0.9)
    return photo, [(view * gain).astype(np.uint8) for view, gain in zip(made, gains, strict=True)], to_view


def test_seams_and_exposures_do_not_show() -> None:
    photo, images, to_view = views()
    steps = [to_view[i + 1] @ np.linalg.inv(to_view[i]) for i in range(2)]
    panorama = stitch(images, steps)
    assert panorama.shape[1] > 600
    # the picture in the frame of the middle view, whose gain is 1: find the offset by the middle view itself
    grey = cv2.cvtColor(panorama[..., :3], cv2.COLOR_RGB2GRAY)
    middle = cv2.cvtColor(images[1], cv2.COLOR_RGB2GRAY)
    score = cv2.matchTemplate(grey, middle[40:-40, 40:-40], cv2.TM_CCOEFF_NORMED)
    assert score.max() > 0.99
    x, y = np.array(cv2.minMaxLoc(score)[3]) - 40
    shift = np.array([[1.0, 0, x], [0, 1, y], [0, 0, 1]])
    expected = cv2.warpPerspective(photo, shift @ to_view[1], panorama.shape[1::-1])
    solid = cv2.erode(panorama[..., 3], np.ones((9, 9), np.uint8)) == 255
    a, b = (each[solid].astype(float).ravel() for each in (panorama[..., :3], expected))
    assert np.corrcoef(a, b)[0, 1] > 0.97


def test_a_bright_sky_stays_even_where_outlines_lie() -> None:
    """The blender's bands reach beyond the outline of a photograph, where there is nothing of it."""
    rng = np.random.default_rng(0)
    views = [np.clip(rng.normal(210, 2, (*SIZE, 3)), 0, 255).astype(np.uint8) for _ in range(3)]
    step = np.array([[0.95, 0.12, -130.0], [-0.12, 0.95, 40], [1e-4, 5e-5, 1]])
    panorama = stitch(views, [step, step])
    solid = cv2.erode(panorama[..., 3], np.ones((5, 5), np.uint8)) == 255
    assert np.abs(panorama[solid][:, :3].astype(int) - 210).max() < 15


def test_a_row_that_turns_too_far() -> None:
    _, images, _ = views()
    steep = np.array([[1.0, 0, -100], [0, 1, 0], [-4e-3, 0, 1]])
    with pytest.raises(WorkError, match="too far"):
        stitch(images, [steep, steep])


def test_the_command(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    names = []
    for number, image in enumerate(views()[1]):
        names.append(str(tmp_path / f"{number}.png"))
        Image.fromarray(image).save(names[-1])
    assert main(["register", *names, "--panorama", "--no_refine", "-o", str(tmp_path / "out")]) == 0
    assert "3 images: " in capsys.readouterr().out
    with Image.open(tmp_path / "out" / "panorama.png") as picture:
        assert picture.width > 600
    Image.fromarray(data.astronaut()).save(tmp_path / "other.png")
    names.append(str(tmp_path / "other.png"))
    assert main(["register", *names, "--panorama", "--no_refine", "-o", str(tmp_path / "new")]) == 1
    assert "other.png: too few" in capsys.readouterr().err
    assert main(["register", names[0], "--panorama"]) == 2
    assert "two or more" in capsys.readouterr().err
