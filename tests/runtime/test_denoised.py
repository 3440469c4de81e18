"""A matcher that sees images without their noise."""

import numpy as np
import pytest
from skimage import data

from tiepoint import Denoiser, load


@pytest.fixture(scope="module")
def noisy() -> np.ndarray:
    clean = data.coffee()[:200, :300]
    return np.rint(clean + np.random.default_rng(0).normal(0, 20, clean.shape)).clip(0, 255).astype(np.uint8)


@pytest.mark.parametrize("model", ["default", "sift"])
def test_it_matches_what_the_denoiser_gives(model: str, noisy: np.ndarray) -> None:
    denoiser = Denoiser()
    first, second = noisy, np.ascontiguousarray(noisy[:, 40:])
    expected = load(model)(denoiser(first).image, denoiser(second).image)
    found = load(model, denoise=True)(first, second)
    assert len(found) > 50
    assert np.array_equal(found.keypoints0, expected.keypoints0)
    assert np.median(np.abs(found.keypoints0 - found.keypoints1 - (40, 0))) < 1


def test_coordinates_are_those_of_a_large_image(noisy: np.ndarray) -> None:
    matcher = load(denoise=True)
    matcher.long_side = 150
    found = matcher(noisy, noisy)
    assert found.size0 == noisy.shape[:2]
    assert found.keypoints0[:, 0].max() > 200


def test_the_answer_is_known_by_the_denoiser_too() -> None:
    plain, denoised = load("sift").fingerprint, load("sift", denoise=True).fingerprint
    assert plain != denoised
    assert "denoiser_weights" in denoised
