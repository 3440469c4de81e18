"""Pairs of known cameras as pairs of a sweep: closed forms, and agreement with what rendered scenes know."""

import pytest
import torch
from torch import Generator, Tensor

from tiepoint.ops.pairs import photo_pairs
from tiepoint.ops.sampling import pixel_grid, warp_image
from tiepoint.ops.sweeps import STEP, known_range, planes_between, posed_sweep, seen_places, unhidden

SIZE = (64, 96)
EYE = torch.eye(3).unsqueeze(0)
LEFT = torch.tensor([[-1.0, 0.0, 0.0]])


@pytest.fixture(scope="module")
def photos() -> Tensor:
    noise = torch.rand((4, 3, 10, 14), generator=Generator().manual_seed(0))
    return torch.nn.functional.interpolate(noise, (80, 120), mode="bicubic").clamp(0, 1)


def rendered(photos: Tensor, seed: int) -> dict[str, Tensor]:
    generator = Generator().manual_seed(seed)
    views = {"rotation": 10.0, "zoom": 1.2, "parallax": 1.0, "bending": 0.0, "photometric": 0.0}
    pairs = photo_pairs(photos, SIZE, **views, colour=True, generator=generator)
    return pairs | posed_sweep(pairs | {"visible0": pairs["covisible0"]}, planes=16, generator=generator)


@pytest.mark.parametrize("seed", range(3))
def test_photos_in_depth_become_sweeps_whose_true_places_look_alike(photos: Tensor, seed: int) -> None:
    pair = rendered(photos, seed)
    assert pair["image0"].shape == (4, 3, *SIZE)
    # in colour: the channels of these photos have nothing to do with each other
    assert (pair["image0"][:, 0] - pair["image0"][:, 1]).abs().mean() > 0.1
    places, nearness = seen_places(pair["at_infinity"], pair["epipole"], pair["inverse_depth0"])
    off = (places - pair["warp_0to1"]).norm(dim=-1)
    assert off[pair["visible0"]].quantile(0.98) < 0.05
    error = (warp_image(pair["image1"], places) - pair["image0"]).abs().mean(1)
    assert error[pair["visible0"]].median() < 0.01
    # what view 1 makes of the depth is its own
    there = warp_image(pair["depth1"].unsqueeze(1), places).squeeze(1)
    assert (there * nearness - 1).abs()[pair["visible0"]].median() < 0.01


@pytest.mark.parametrize("seed", range(3))
def test_what_depth_tells_to_be_hidden_is_what_the_scene_hides(photos: Tensor, seed: int) -> None:
    pair = rendered(photos, seed)
    places, nearness = seen_places(pair["at_infinity"], pair["epipole"], pair["inverse_depth0"])
    found = unhidden(places, nearness, pair["planes"].diff(dim=1)[:, 0])
    known, visible = pair["known0"], pair["visible0"]
    # pixels about edges are in doubt, and there are many of them in views as small as these
    assert found[visible].float().mean() > 0.93
    # what view 0 does not see hides things too
    assert (~found)[known & ~visible].float().mean() > 0.8


@pytest.mark.parametrize("seed", range(3))
def test_planes_hold_all_that_is_known(photos: Tensor, seed: int) -> None:
    pair = rendered(photos, seed)
    planes = pair["planes"]
    assert planes.shape == (4, 16)
    assert torch.allclose(planes.diff(dim=1), planes[:, 1:2] - planes[:, :1], rtol=1e-3)
    assert (planes[:, 0] >= 0).all()
    for w, known, row in zip(pair["inverse_depth0"], pair["known0"], planes, strict=True):
        assert ((w[known] >= row[0]) & (w[known] <= row[-1])).float().mean() > 0.97


def test_planes_of_a_rectified_pair_are_four_pixels_apart_or_as_far_as_the_range_needs() -> None:
    for high, step in ((40.0, STEP), (120.0, 120 / 15)):
        planes = planes_between(torch.tensor([[0.0, high]]), EYE, LEFT, SIZE, 16)
        assert torch.allclose(planes, step * torch.arange(16.0)[None])


def test_planes_are_as_far_apart_as_they_move_the_fastest_place() -> None:
    """A camera that moves forward: the corners move the most, x = (x0 - c) / (1 - w t)."""
    K = torch.tensor([[[80.0, 0, 47.5], [0, 80.0, 31.5], [0, 0, 1]]])
    forward = torch.tensor([0.0, 0.0, -0.5])
    limits = torch.tensor([[0.2, 0.8]])
    planes = planes_between(limits, EYE, (K @ forward), SIZE, 64)
    radius = torch.tensor((47.5, 31.5)).norm()
    span = radius / (1 - 0.8 * 0.5) - radius / (1 - 0.2 * 0.5)
    assert planes[0, 0] == pytest.approx(0.2)
    assert float(planes[0, 1] - planes[0, 0]) == pytest.approx(float(0.6 / (span / STEP)), rel=1e-3)


def test_the_range_leaves_out_wrong_depths_and_has_a_margin() -> None:
    w = torch.full((2, 40, 50), 0.5)
    w[0, :, 25:] = 1.0
    w[0, 3, 3] = 900.0
    known = torch.ones_like(w, dtype=torch.bool)
    known[1] = False
    found = known_range(w, known)
    assert found[0].tolist() == pytest.approx([0.5 * 0.75 - 0.05, 1.25])
    assert found[1].isnan().all()


def test_a_pair_without_depth_takes_the_range_that_it_was_given_and_without_one_teaches_nothing() -> None:
    pair = {
        **{name: torch.rand((2, 3, *SIZE), generator=Generator().manual_seed(1)) for name in ("image0", "image1")},
        "depth0": torch.zeros((2, *SIZE)),
        "visible0": torch.ones((2, *SIZE), dtype=torch.bool),
        **{name: torch.tensor([[90.0, 0, 48], [0, 90.0, 32], [0, 0, 1]]).repeat(2, 1, 1) for name in ("K0", "K1")},
        "T_0to1": torch.eye(4).repeat(2, 1, 1),
    }
    pair["T_0to1"][:, 0, 3] = -1.0
    limits = torch.tensor([[0.1, 0.4], [torch.nan, torch.nan]])
    swept = posed_sweep(pair, planes=8, limits=limits)
    assert torch.allclose(swept["planes"][0], 0.1 + STEP / 90 * torch.arange(8.0))
    assert not swept["known0"].any()
    assert swept["visible0"].flatten(1).any(1).tolist() == [True, False]
    assert all(part.isfinite().all() for part in swept.values())


def test_what_lies_behind_the_other_camera_has_no_place_there() -> None:
    e = torch.tensor([[0.0, 0.0, -2.0]])
    w = torch.full((1, *SIZE), 0.4)
    w[:, :, 50:] = 0.6
    places, nearness = seen_places(EYE, e, w)
    assert torch.allclose(places[:, :, :50], pixel_grid(*SIZE)[None, :, :50] / 0.2, rtol=1e-3)
    assert torch.allclose(nearness[:, :, :50], torch.tensor(2.0), rtol=1e-3)
    assert not unhidden(places, nearness, torch.ones(1))[:, :, 50:].any()


def test_a_near_stripe_hides_what_lies_beside_it() -> None:
    d = torch.full((1, *SIZE), 4.0)
    d[:, :, 40:50] = 14.0
    places, nearness = seen_places(EYE, LEFT, d)
    found = unhidden(places, nearness, torch.tensor([1.0]))
    hidden = (~found[0]).all(0).nonzero().flatten().tolist()
    # x - 14 of the stripe meets x - 4 of columns 30 to 39; a pixel about it may count too, and 0 to 3 lie outside
    assert set(range(30, 40)) | set(range(4)) <= set(hidden) <= set(range(29, 41)) | set(range(4))


def posed(*, seed: int = 3) -> dict[str, Tensor]:
    """A pair of known depth in double precision, too small to be looked at."""
    generator = Generator().manual_seed(seed)
    double = {"dtype": torch.float64, "generator": generator}
    K = torch.tensor([[[9.0, 0.1, 3], [0, 8.0, 2], [0, 0, 1]]], dtype=torch.float64)
    T = torch.eye(4, dtype=torch.float64)[None] + 0.02 * torch.rand((1, 4, 4), **double)
    T[:, :3, 3] = torch.tensor([-0.6, 0.1, 0.05])
    views = {name: torch.rand((1, 1, 4, 6), **double) for name in ("image0", "image1")}
    visible = torch.ones((1, 4, 6), dtype=torch.bool)
    depth = 2 + 3 * torch.rand((1, 4, 6), **double)
    return views | {"depth0": depth, "visible0": visible, "K0": K, "K1": 1.1 * K, "T_0to1": T}


def test_gradcheck_of_a_posed_pair() -> None:
    pair = posed()
    names = ("depth0", "K0", "K1", "T_0to1")

    def swept(*parts: Tensor) -> list[Tensor]:
        found = posed_sweep(pair | dict(zip(names, parts, strict=True)), planes=5)
        return [found[name] for name in ("inverse_depth0", "at_infinity", "epipole", "planes")]

    assert torch.autograd.gradcheck(swept, [pair[name].requires_grad_() for name in names])


@pytest.mark.parametrize("count", [3, 60])
def test_gradcheck_of_the_planes_and_their_range(count: int) -> None:
    """Few planes lie as far apart as the range needs, many of them as far as the pixels do."""
    generator = Generator().manual_seed(4)
    w = (0.2 + torch.rand((2, 3, 4), dtype=torch.float64, generator=generator)).requires_grad_()
    known = torch.rand(w.shape, generator=generator) < 0.8
    assert torch.autograd.gradcheck(lambda each: known_range(each, known), w)
    A = (torch.eye(3, dtype=torch.float64) + 0.001).repeat(2, 1, 1).requires_grad_()
    e = torch.tensor([[-50.0, 3, 0.05], [-40.0, -2, -0.05]], dtype=torch.float64, requires_grad=True)
    limits = torch.tensor([[0.1, 0.9], [0.2, 1.1]], dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda *parts: planes_between(*parts, (30, 40), count), (limits, A, e))


def test_places_have_gradients() -> None:
    w = (0.2 + 0.1 * torch.rand((1, 3, 4), dtype=torch.float64, generator=Generator().manual_seed(2))).requires_grad_()
    A = torch.eye(3, dtype=torch.float64)[None] + 0.01
    e = torch.tensor([[3.0, -2.0, 0.3]], dtype=torch.float64)
    assert torch.autograd.gradcheck(lambda each: seen_places(A, e, each), w)
