import itertools
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from PIL import Image

from tiepoint.draw import CAPTION_HEIGHT, PAPER, draw_depth, draw_keypoints, draw_matches, draw_training_pairs
from tiepoint.errors import InputError
from tiepoint.types import Matches

RNG = np.random.default_rng(0)


def make_matches(n: int, size0: tuple[int, int] = (90, 120), size1: tuple[int, int] = (90, 120)) -> Matches:
    keypoints = [RNG.uniform((0, 0), size[::-1], (n, 2)) for size in (size0, size1)]
    return Matches(keypoints[0], keypoints[1], np.linspace(0.9, 0.2, n), size0, size1)


def blank(size: tuple[int, int], shade: int = 100) -> npt.NDArray[np.uint8]:
    return np.full((*size, 3), shade, dtype=np.uint8)


def draw(matches: Matches, **options: Any) -> npt.NDArray[np.uint8]:
    return draw_matches(blank(matches.size0), blank(matches.size1), matches, **options)


def pixels_near(picture: npt.NDArray[np.uint8], colour: tuple[int, int, int]) -> int:
    body = picture[:-CAPTION_HEIGHT].astype(int)
    return int((np.abs(body - colour).max(axis=2) < 30).sum())


SIZES = [(90, 120), (120, 90), (2000, 3000), (30, 900), (900, 30), (1, 1), (1, 500), (500, 1)]


@pytest.mark.parametrize(("size0", "size1"), list(itertools.combinations_with_replacement(SIZES, 2)))
def test_pictures_of_any_two_sizes_are_of_pleasant_size(size0: tuple[int, int], size1: tuple[int, int]) -> None:
    picture = draw(make_matches(3, size0, size1))
    assert picture.dtype == np.uint8
    assert picture.shape[2] == 3
    assert 700 <= picture.shape[1] <= 1600
    assert picture.shape[0] <= 1300


def test_upright_images_stand_side_by_side_and_wide_ones_above_each_other() -> None:
    dark, light = 40, 200
    for size, axis in (((120, 90), 1), ((90, 120), 1), ((50, 120), 0)):
        picture = draw_matches(blank(size, dark), blank(size, light), make_matches(0, size, size))
        body = picture[:-CAPTION_HEIGHT, :, 0]
        first, second = np.array_split(body, 2, axis=axis)
        assert np.median(first) < np.median(second)


def test_grey_images_and_paths_are_welcome(tmp_path: Path) -> None:
    matches = make_matches(5)
    Image.fromarray(blank((90, 120))).save(tmp_path / "image.png")
    from_files = draw_matches(tmp_path / "image.png", tmp_path / "image.png", matches)
    assert (from_files == draw(matches)).all()
    assert (draw_matches(blank((90, 120))[..., 0], blank((90, 120)), matches) == from_files).all()


def test_lines_end_at_their_keypoints() -> None:
    matches = Matches([[30, 60]], [[90, 30]], [1.0], (90, 120), (90, 120))
    changed = (draw(matches) != draw(make_matches(0))).any(axis=2)[:-CAPTION_HEIGHT]
    rows, columns = changed.nonzero()
    scale = 796 / 120  # two images and a gap of 8 pixels share 1600
    left, right = columns.argmin(), columns.argmax()
    assert (columns[left], rows[left]) == pytest.approx((30.5 * scale, 60.5 * scale), abs=8)
    assert (columns[right], rows[right]) == pytest.approx((796 + 8 + 90.5 * scale, 30.5 * scale), abs=8)


def test_inliers_are_green_and_outliers_are_not() -> None:
    matches = make_matches(20)
    everyone, nobody = (
        draw(matches, inliers=np.ones(20, dtype=bool)),
        draw(matches, inliers=np.zeros(20, dtype=bool)),
    )
    green = (74, 222, 128)
    assert pixels_near(everyone, green) > 1000
    assert pixels_near(nobody, green) == 0
    assert (draw(matches, inliers=[True] * 20) == everyone).all()


def test_only_as_many_lines_as_stay_legible_are_drawn() -> None:
    matches = make_matches(2000)
    empty = draw(make_matches(0))
    touched = {
        most: (draw(matches, max_lines=most) != empty).any(axis=2)[:-CAPTION_HEIGHT].sum() for most in (0, 1, 10, 300)
    }
    assert touched[0] == 0
    assert 0 < touched[1] < touched[10] < touched[300]
    assert (draw(matches) == draw(matches, max_lines=300)).all()


def test_the_caption_tells_counts_apart() -> None:
    captions = [
        draw(make_matches(n), **options)[-CAPTION_HEIGHT:].tobytes()
        for n, options in (
            (0, {}),
            (1, {}),
            (2, {}),
            (2, {"max_lines": 1}),
            (2, {"inliers": [True, False]}),
            (2, {"inliers": [True, True]}),
        )
    ]
    assert len(set(captions)) == len(captions)


def test_no_matches_and_equal_scores_can_be_drawn() -> None:
    nothing = make_matches(0)
    assert draw(nothing, inliers=[]).shape == draw(nothing).shape
    equal = Matches(np.ones((3, 2)), np.ones((3, 2)), np.ones(3), (90, 120), (90, 120))
    assert draw(equal).shape == draw(nothing).shape


def test_keypoints_far_off_the_image_do_not_disturb() -> None:
    far = Matches([[1e30, -1e30]], [[-5, 5]], [1.0], (90, 120), (90, 120))
    assert draw(far).shape == draw(make_matches(1)).shape


def test_images_of_another_size_are_an_input_error() -> None:
    with pytest.raises(InputError, match="image 1 has 60 x 90 pixels, expected 120 x 90"):
        draw_matches(blank((90, 120)), blank((90, 60)), make_matches(3))


def test_inliers_of_another_length_are_refused() -> None:
    with pytest.raises(ValueError, match=r"inliers has shape \(2,\), expected \(3,\)"):
        draw(make_matches(3), inliers=[True, False])


@pytest.mark.parametrize("size", SIZES)
def test_keypoints_are_drawn_on_images_of_any_size(size: tuple[int, int]) -> None:
    keypoints = RNG.uniform((0, 0), size[::-1], (9, 2))
    plain = draw_keypoints(blank(size), np.zeros((0, 2)))
    scored = draw_keypoints(blank(size), keypoints, scores=np.arange(9) * 100.0)
    assert plain.shape == scored.shape
    assert 700 <= plain.shape[1] <= 1600
    assert (plain[:-CAPTION_HEIGHT] != scored[:-CAPTION_HEIGHT]).any()
    assert (draw_keypoints(blank(size), keypoints) != scored).any()


def test_wrong_keypoints_are_refused() -> None:
    with pytest.raises(ValueError, match="scores has shape"):
        draw_keypoints(blank((9, 9)), np.zeros((3, 2)), scores=[1.0])
    with pytest.raises(ValueError, match="not finite"):
        draw_keypoints(blank((9, 9)), [[np.nan, 0]])
    with pytest.raises(ValueError, match=r"keypoints has shape \(2, 3\)"):
        draw_keypoints(blank((9, 9)), np.zeros((2, 3)))


def training_pairs(count: int) -> dict[str, npt.NDArray[Any]]:
    rng = np.random.default_rng(0)
    return {
        "image0": rng.random((count, 1, 32, 48), np.float32),
        "image1": rng.random((count, 1, 32, 48), np.float32),
        "covisible0": np.ones((count, 32, 48), np.bool_),
        "covisible1": np.zeros((count, 32, 48), np.bool_),
        "depth0": np.zeros((count, 32, 48), np.float32),
    }


def test_training_pairs_show_what_the_other_view_does_not_see_and_how_near_things_are() -> None:
    pairs = training_pairs(3)
    pairs["depth0"][1] = 2.0
    pairs["depth0"][1, :, :24] = 1.0
    picture = draw_training_pairs(pairs, rows=2)
    header = picture.shape[0] - 2 * 32
    assert picture.shape == (header + 64, 5 * 48, 3)
    first, second = picture[header : header + 32], picture[header + 32 :]
    grey = (255 * pairs["image0"][0, 0]).round()
    assert (first[:, :48] == grey[:, :, None]).all()
    assert (first[:, 96:144] == first[:, :48]).all()  # all of view 0 is seen
    hidden = first[:, 144:192].astype(int)
    assert (hidden[..., 0] > hidden[..., 1]).all()  # nothing of view 1 is
    assert (first[:, 192:] == PAPER).all()  # no depth is known
    near, far = second[:, 192:216].reshape(-1, 3), second[:, 216:].reshape(-1, 3)
    assert len(np.unique(near, axis=0)) == len(np.unique(far, axis=0)) == 1
    assert near[0].sum() > far[0].sum()


def test_depth_is_drawn_beside_a_bar_and_what_is_filled_is_darker() -> None:
    depth = np.linspace(1, 4, 200, dtype=np.float32).reshape(1, 200).repeat(120, 0)
    checked = np.ones((120, 200), dtype=np.bool_)
    checked[60:] = False
    depth[:20, :20] = 0
    picture = draw_depth(depth, checked)
    height, width = picture.shape[:2]
    bar = width - round(height * 200 / 120)
    assert 100 < bar < 160
    light = picture[:, : width - bar].astype(float).sum(-1)
    upper, lower = light[height // 3, width // 3], light[3 * height // 4, width // 3]
    assert lower == pytest.approx(0.7 * upper, abs=4)
    # near is yellow, far is violet; what is unknown is as dark as the paper
    near, far = picture[height // 3, width // 8].astype(int), picture[height // 3, width - bar - 20].astype(int)
    assert near[1] > far[1]
    assert picture[5, 5].tolist() == list(PAPER)
