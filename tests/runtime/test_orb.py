"""OpenCV's ORB: mutual nearest neighbours in Hamming distance."""

import cv2
import numpy as np
from skimage import data

import tiepoint

SHIFT = np.array([24, 10])


def test_finds_a_translation() -> None:
    photo = data.astronaut()[:360, :400]
    matches = tiepoint.load("orb")(photo[:340, :370], photo[SHIFT[1] : 340 + SHIFT[1], SHIFT[0] : 370 + SHIFT[0]])
    error = np.linalg.norm(matches.keypoints1 - (matches.keypoints0 - SHIFT), axis=1)
    assert len(matches) > 300
    assert (error < 3).mean() > 0.9


def test_matches_are_mutually_nearest_and_scores_are_the_share_of_equal_bits() -> None:
    photo = data.chelsea()
    images = photo, cv2.warpAffine(photo, cv2.getRotationMatrix2D((225, 150), 20, 0.9), (451, 300))
    matches = tiepoint.load("orb", max_keypoints=200)(*images)
    detector = cv2.ORB.create(200)
    found = [detector.detectAndCompute(cv2.cvtColor(image, cv2.COLOR_RGB2GRAY), None) for image in images]
    points = [np.array([keypoint.pt for keypoint in keypoints], np.float32) for keypoints, _ in found]
    bits0, bits1 = (np.unpackbits(codes, axis=1).astype(int) for _, codes in found)
    distances = bits0 @ (1 - bits1).T + (1 - bits0) @ bits1.T
    assert len(matches) > 50
    for keypoint0, keypoint1, score in zip(matches.keypoints0, matches.keypoints1, matches.scores, strict=True):
        # a place may hold keypoints of several scales
        rows = np.flatnonzero((points[0] == keypoint0).all(1))
        columns = np.flatnonzero((points[1] == keypoint1).all(1))
        mutual = {
            int(distances[row, column])
            for row in rows
            for column in columns
            if distances[row, column] == distances[row].min() == distances[:, column].min()
        }
        assert round(256 * (1 - float(score))) in mutual


def test_an_image_without_corners_has_no_match() -> None:
    blank = np.full((80, 90, 3), 128, np.uint8)
    measured = tiepoint.load("orb").measure(data.chelsea(), blank)
    assert len(measured.matches) == 0
    assert measured.keypoints0 is not None
    assert len(measured.keypoints0) > 100
    assert measured.keypoints1 is not None
    assert measured.keypoints1.shape == (0, 2)


def test_never_more_keypoints_than_asked_for() -> None:
    measured = tiepoint.load("orb", max_keypoints=33).measure(data.astronaut(), data.chelsea())
    assert measured.keypoints0 is not None
    assert 0 < len(measured.keypoints0) <= 33
