"""Pairs as they are drawn: with the verdict of the protocol's estimator, in the frame that the protocol names."""

from dataclasses import asdict, replace
from pathlib import Path
from typing import NamedTuple

import cv2
import numpy as np
import pytest
from PIL import Image

from tiepoint.draw import draw_matches
from tiepoint.errors import InputError
from tiepoint.evaluation.cache import Cached, write_cached
from tiepoint.evaluation.pictures import describe, draw_pair
from tiepoint.evaluation.protocol import Protocol
from tiepoint.evaluation.results import Results, SetResult
from tiepoint.evaluation.results_io import read_results
from tiepoint.images import UInt8, read_image
from tiepoint.types import Matches

SIZE = (120, 160)
K = np.array([[150.0, 0, 80], [0, 150, 60], [0, 0, 1]])


class Run(NamedTuple):
    folder: Path
    results: Results
    found: SetResult

    def draw(self) -> UInt8:
        method = self.found.methods[0]
        return draw_pair(self.results, self.found, method, pair=method.pairs[0], folder=self.folder)


def one_pair(
    run_folder: Path, folder: Path, matches: Matches, *, scale: float = 1.0, paths: tuple[Path, Path] | None = None
) -> Run:
    """A run of one method on one pair, with these matches."""
    write_cached(folder / "m.npz", Cached(matches, None, None, (scale, scale), (scale, scale), {}), "key")
    results = read_results(run_folder)
    method = results.sets[0].methods[0]
    pair = replace(method.pairs[0], matches_file="m.npz", size0=matches.size0, size1=matches.size1)
    if paths is not None:
        pair = replace(pair, path0=str(paths[0]), path1=str(paths[1]))
    found = replace(results.sets[0], methods=[replace(method, pairs=[pair])])
    return Run(folder, results, found)


def shifted(offsets: np.ndarray) -> Matches:
    """Matches moved by (9, 5) pixels, and by what is given for each."""
    rng = np.random.default_rng(3)
    points = rng.uniform(10, 100, (len(offsets), 2))
    return Matches(points, points + np.array([9, 5]) + offsets, np.linspace(1, 0, len(offsets)), SIZE, SIZE)


def picture(run: Run, matches: Matches, inliers: np.ndarray | None) -> UInt8:
    pair = run.found.methods[0].pairs[0]
    images = [
        cv2.resize(read_image(path), SIZE[::-1], interpolation=cv2.INTER_AREA) for path in (pair.path0, pair.path1)
    ]
    return draw_matches(*images, matches, inliers=inliers)


def test_green_are_the_matches_that_agree_with_the_homography(run_folder: Path, tmp_path: Path) -> None:
    offsets = np.zeros((40, 2))
    offsets[25:] = np.random.default_rng(0).uniform(20, 40, (15, 2))
    matches = shifted(offsets)
    run = one_pair(run_folder, tmp_path, matches)
    np.testing.assert_array_equal(run.draw(), picture(run, matches, np.arange(40) < 25))


@pytest.mark.parametrize(("frame", "right"), [("resized", 40), ("stored", 30)])
def test_the_threshold_is_meant_in_the_protocols_frame(
    frame: str, right: int, run_folder: Path, tmp_path: Path
) -> None:
    offsets = np.zeros((40, 2))
    offsets[30:, 0] = 2  # 2 px resized, 4 px stored: the method's threshold of 3 px lies between
    matches = shifted(offsets)
    paths = tmp_path / "0.png", tmp_path / "1.png"
    for seed, path in enumerate(paths):
        noise = np.random.default_rng(seed).integers(0, 255, (240, 320, 3), np.uint8)
        Image.fromarray(noise).save(path)
    run = one_pair(run_folder, tmp_path, matches, scale=2.0, paths=paths)
    run = run._replace(found=replace(run.found, protocol=asdict(Protocol(frame=frame))))
    np.testing.assert_array_equal(run.draw(), picture(run, matches, np.arange(40) < right))


def test_matches_beyond_the_protocols_number_are_outside(run_folder: Path, tmp_path: Path) -> None:
    matches = shifted(np.zeros((40, 2)))
    run = one_pair(run_folder, tmp_path, matches)
    run = run._replace(found=replace(run.found, protocol=asdict(Protocol(max_matches=15))))
    np.testing.assert_array_equal(run.draw(), picture(run, matches, np.arange(40) < 15))


def posed(folder: Path) -> tuple[Matches, Path]:
    """Matches of points in space, ten of them wrong, and a list with the pair's cameras."""
    rng = np.random.default_rng(1)
    points = np.stack([rng.uniform(-1, 1, 50), rng.uniform(-0.7, 0.7, 50), rng.uniform(3, 6, 50)], axis=1)
    pixels = [(each / each[:, 2:] @ K.T)[:, :2] for each in (points, points + np.array([0.6, 0.1, 0.0]))]
    pixels[1][40:] += rng.uniform(20, 30, (10, 2))
    data = folder / "data"
    data.mkdir()
    T = np.eye(4)
    T[:3, 3] = [0.6, 0.1, 0.0]
    fields = ["a.png", "b.png", "0", "0", *K.ravel().astype(str), *K.ravel().astype(str), *T.ravel().astype(str)]
    (data / "pairs_superglue.txt").write_text(" ".join(fields) + "\n")
    for name in ("a.png", "b.png"):
        Image.fromarray(rng.integers(0, 255, (*SIZE, 3), np.uint8)).save(data / name)
    return Matches(*pixels, np.linspace(1, 0, 50), SIZE, SIZE), data


def test_a_pose_takes_its_cameras_from_the_benchmark(run_folder: Path, tmp_path: Path) -> None:
    matches, data = posed(tmp_path)
    run = one_pair(run_folder, tmp_path, matches, paths=(data / "a.png", data / "b.png"))
    pair = replace(run.found.methods[0].pairs[0], name="a.png b.png")
    methods = [replace(run.found.methods[0], pairs=[pair])]
    found = replace(run.found, name="pose", truth="pose", unit="degrees", folder=str(data), methods=methods)
    run = run._replace(found=found)
    np.testing.assert_array_equal(run.draw(), picture(run, matches, np.arange(50) < 40))
    gone = run._replace(found=replace(found, folder=str(tmp_path / "gone")))
    np.testing.assert_array_equal(gone.draw(), picture(run, matches, None))
    assert describe(run.results, found, found.methods[0], pair=pair).startswith("0.50° (threshold 3 px)")


def test_an_image_that_is_another_one_now_is_named(run_folder: Path, tmp_path: Path) -> None:
    paths = tmp_path / "0.png", tmp_path / "1.png"
    for path in paths:
        Image.new("RGB", (160, 90)).save(path)
    run = one_pair(run_folder, tmp_path, shifted(np.zeros((20, 2))), paths=paths)
    with pytest.raises(InputError, match=r"0\.png is 160×90 px, expected the proportions of 160×120, in which"):
        run.draw()


def test_missing_matches_are_named(run_folder: Path, tmp_path: Path) -> None:
    run = one_pair(run_folder, tmp_path, shifted(np.zeros((20, 2))))
    with pytest.raises(InputError, match=r"m\.npz"):
        run._replace(folder=tmp_path / "gone").draw()


def test_no_match_at_all_is_a_picture_too(run_folder: Path, tmp_path: Path) -> None:
    none = Matches(np.zeros((0, 2)), np.zeros((0, 2)), np.zeros(0), SIZE, SIZE)
    run = one_pair(run_folder, tmp_path, none)
    np.testing.assert_array_equal(run.draw(), picture(run, none, np.zeros(0, dtype=bool)))
