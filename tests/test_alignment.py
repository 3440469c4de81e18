"""Registration as a function: closed-form truth, model selection, refinement, what cannot be registered."""

import sys

import cv2
import numpy as np
import pytest
from skimage import data

import tiepoint
from tiepoint.evaluation.metrics import homography_corner_error

TRUTH = {
    "translation": np.array([[1.0, 0, 23.3], [0, 1, -14.6], [0, 0, 1]]),
    "similarity": np.array([[0.92, -0.2, 60.0], [0.2, 0.92, -20.0], [0, 0, 1]]),
    "affine": np.array([[0.95, -0.08, 30.0], [0.02, 1.05, 5.0], [0, 0, 1]]),
    "homography": np.array([[0.92, -0.08, 40.0], [0.06, 0.9, 15.0], [2e-4, 1e-4, 1.0]]),
}


def made(H: np.ndarray, *, gain: float = 1.0, bias: float = 0.0) -> tuple[np.ndarray, np.ndarray]:
    """A photograph, and the same under H, darker, and with a shade that grows from left to right."""
    photo = data.coffee()
    moved = cv2.warpPerspective(photo, H, (600, 400), flags=cv2.INTER_CUBIC, borderMode=cv2.BORDER_REFLECT_101)
    shade = gain * np.linspace(1, 0.7 if gain < 1 else 1, 600)[None, :, None]
    return photo, (moved * shade + bias).clip(0, 255).astype(np.uint8)


@pytest.mark.parametrize("kind", list(TRUTH))
def test_the_data_choose_the_model_and_refinement_places_it(kind: str) -> None:
    moving, fixed = made(TRUTH[kind], gain=0.7, bias=20)
    found = tiepoint.register(moving, fixed)
    assert found.model == kind
    assert set(found.criterion) == set(TRUTH)
    assert homography_corner_error(found.matrix, TRUTH[kind], (400, 600)) < 0.25
    assert found.inliers.sum() > 100
    # the matrix stays in its group
    if kind in ("translation", "similarity"):
        a, b, c, d = found.matrix[:2, :2].ravel()
        assert (a, b) == pytest.approx((d, -c), abs=1e-9)
    if kind != "homography":
        assert found.matrix[2].tolist() == pytest.approx([0, 0, 1], abs=1e-12)


def test_refinement_is_better_than_the_matches_alone() -> None:
    moving, fixed = made(TRUTH["homography"], gain=0.7, bias=20)
    error = {
        refine: homography_corner_error(
            tiepoint.register(moving, fixed, model="homography", refine=refine).matrix, TRUTH["homography"], (400, 600)
        )
        for refine in (False, True)
    }
    assert error[True] < 0.5 * error[False]


def test_no_refinement_needs_no_torch(monkeypatch: pytest.MonkeyPatch) -> None:
    moving, fixed = made(TRUTH["affine"])
    monkeypatch.setitem(sys.modules, "torch", None)
    monkeypatch.delitem(sys.modules, "tiepoint.refinement", raising=False)
    found = tiepoint.register(moving, fixed, model="affine", refine=False)
    assert not found.refined
    assert homography_corner_error(found.matrix, TRUTH["affine"], (400, 600)) < 2
    with pytest.raises(tiepoint.InputError, match=r"needs torch.*no_refine"):
        tiepoint.register(moving, fixed)


def test_the_name_is_the_function_even_after_its_verb_is_imported() -> None:
    import tiepoint.registration

    assert callable(tiepoint.register)


def test_what_cannot_be_registered_says_why() -> None:
    moving, fixed = made(TRUTH["affine"])
    with pytest.raises(tiepoint.WorkError, match="identical"):
        tiepoint.register(moving, moving.copy())
    with pytest.raises(tiepoint.WorkError, match="fixed image has no texture"):
        tiepoint.register(moving, np.full_like(moving, 90))
    with pytest.raises(tiepoint.WorkError, match="too few of"):
        tiepoint.register(moving, data.astronaut(), refine=False)
    with pytest.raises(tiepoint.InputError, match="model is 'rigid'"):
        tiepoint.register(moving, fixed, model="rigid")
    with pytest.raises(tiepoint.InputError, match="threshold is -1"):
        tiepoint.register(moving, fixed, threshold=-1)
