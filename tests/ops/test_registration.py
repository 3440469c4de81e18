from functools import partial

import cv2
import numpy as np
import pytest
import torch
from skimage import data
from torch import Tensor

from tiepoint.evaluation.metrics import homography_corner_error
from tiepoint.geometry import warp_points
from tiepoint.ops.registration import gradient_maps, photometric_residuals, refine_transform

H_TRUE = np.array([[0.92, -0.08, 40.0], [0.06, 0.9, 15.0], [2e-4, 1e-4, 1.0]])
SIZE = (400, 600)


def grey(image: np.ndarray) -> Tensor:
    return torch.from_numpy(cv2.cvtColor(image, cv2.COLOR_RGB2GRAY)).float()[None, None] / 255


def moved(H: np.ndarray) -> np.ndarray:
    return cv2.warpPerspective(data.coffee(), H, SIZE[::-1], flags=cv2.INTER_CUBIC, borderMode=cv2.BORDER_REFLECT_101)


def near(H: np.ndarray, offset: float) -> Tensor:
    """H with the corners of the moving image moved by about `offset` pixels."""
    corners = np.array([[0, 0], [599, 0], [0, 399], [599, 399]], np.float32)
    shifted = warp_points(H, corners) + offset * np.array([[1, 0], [0, -1], [-1, 0], [0.5, 1]])
    return torch.from_numpy(cv2.getPerspectiveTransform(corners, shifted.astype(np.float32)))


NONE = torch.zeros(0, 2)


@pytest.mark.parametrize("offset", [0.5, 2.0, 6.0])
def test_finds_back_without_any_match(offset: float) -> None:
    found = refine_transform(grey(data.coffee()), grey(moved(H_TRUE)), near(H_TRUE, offset), NONE, NONE)
    assert found.helped
    assert found.after < found.before
    assert homography_corner_error(found.matrix.numpy(), H_TRUE, SIZE) < 0.1


@pytest.mark.parametrize("degrees", [40, 90, 180])
def test_turned_images(degrees: float) -> None:
    turn = np.vstack([cv2.getRotationMatrix2D((300, 200), degrees, 0.9), [0, 0, 1]])
    found = refine_transform(grey(data.coffee()), grey(moved(turn)), near(turn, 1.5), NONE, NONE)
    assert homography_corner_error(found.matrix.numpy(), turn, SIZE) < 0.15


def test_neither_gain_nor_bias_nor_shade_matters() -> None:
    shade = torch.linspace(0.4, 0.9, 600)
    fixed = 0.1 + grey(moved(H_TRUE)) * shade
    found = refine_transform(grey(data.coffee()), fixed, near(H_TRUE, 2.0), NONE, NONE)
    assert homography_corner_error(found.matrix.numpy(), H_TRUE, SIZE) < 0.1


def test_something_in_the_way_does_not_matter() -> None:
    fixed = grey(moved(H_TRUE))
    fixed[..., 100:250, 150:400] = grey(data.astronaut())[..., :150, :250]
    found = refine_transform(grey(data.coffee()), fixed, near(H_TRUE, 2.0), NONE, NONE)
    assert homography_corner_error(found.matrix.numpy(), H_TRUE, SIZE) < 0.3


def test_the_truth_stays() -> None:
    """Between pixels bilinear interpolation averages noise away, by which a lesser place may look better."""
    rng = np.random.default_rng(0)
    noise = [torch.from_numpy(rng.normal(0, 0.05, SIZE)).float() for _ in range(2)]
    pair = [(grey(data.coffee()) + each).clamp(0, 1) for each in noise]
    found = refine_transform(*pair, near(np.eye(3), 0.4), NONE, NONE)
    assert found.helped
    assert homography_corner_error(found.matrix.numpy(), np.eye(3), SIZE) < 0.1


def test_what_does_not_overlap_or_has_no_texture_comes_back_as_it_was() -> None:
    start = torch.from_numpy(H_TRUE)
    far = torch.tensor([[1.0, 0, 5000], [0, 1, 0], [0, 0, 1]]).double()
    flat = torch.full((1, 1, *SIZE), 0.5)
    for moving, fixed, H in (
        (grey(data.coffee()), grey(moved(H_TRUE)), far),
        (flat, flat, start),
        (flat[..., :20, :20], flat, start),
        (grey(data.coffee()), grey(moved(H_TRUE)), torch.full((3, 3), torch.nan).double()),
    ):
        found = refine_transform(moving, fixed, H, NONE, NONE)
        assert not found.helped
        assert torch.equal(found.matrix, H) or H.isnan().any()


def test_matches_hold_what_the_images_leave_open() -> None:
    """A single straight edge: along it, only the matches say where it lies."""
    edge = torch.zeros(1, 1, 200, 200)
    edge[..., :, 100:] = 1
    points = torch.rand((30, 2), generator=torch.Generator().manual_seed(0)) * 199
    start = torch.tensor([[1.0, 0, 1.5], [0, 1, 0], [0, 0, 1]]).double()
    found = refine_transform(edge, edge, start, points, points, model="translation")
    assert found.matrix[0, 2].abs() < 0.1
    assert found.matrix[1, 2].abs() < 0.1


def test_gradients_of_the_residuals() -> None:
    generator = torch.Generator().manual_seed(0)
    maps1 = torch.rand((1, 2, 12, 14), generator=generator, dtype=torch.float64, requires_grad=True)
    # away from pixel centres, where bilinear interpolation has a kink
    pixels = torch.cartesian_prod(*[torch.tensor([3.3, 5.4, 8.4], dtype=torch.float64)] * 2)
    maps0 = torch.rand((9, 2), generator=generator, dtype=torch.float64, requires_grad=True)
    H = torch.tensor([[1.01, 0.01, 0.02], [-0.01, 0.99, 0.03], [1e-4, -1e-4, 1]], dtype=torch.float64)
    pixels.requires_grad_()
    H.requires_grad_()
    assert torch.autograd.gradcheck(photometric_residuals, (maps0, maps1, pixels, H))
    bicubic = partial(photometric_residuals, interpolation="bicubic")
    assert torch.autograd.gradcheck(bicubic, (maps0, maps1, pixels, H))


def test_gradients_of_the_maps() -> None:
    image = torch.rand((1, 1, 9, 10), generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    assert torch.autograd.gradcheck(gradient_maps, (image.requires_grad_(),))
    flat = torch.full((1, 1, 9, 10), 0.5, requires_grad=True)
    gradient_maps(flat).sum().backward()
    assert flat.grad.isfinite().all()
