from typing import NamedTuple

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from kornia.geometry.conversions import axis_angle_to_rotation_matrix
from kornia.geometry.linalg import transform_points
from torch import Generator, Tensor

from tiepoint.ops.depth import depth_steps, depth_warp, infinite_homography
from tiepoint.ops.sampling import pixel_grid, sample
from tiepoint.ops.scenes import layered_scenes, look, random_cameras

SIZE = (48, 64)


class Pair(NamedTuple):
    """What `depth_warp` takes."""

    depth0: Tensor
    depth1: Tensor
    K0: Tensor
    K1: Tensor
    T_0to1: Tensor

    @property
    def back(self) -> "Pair":
        return Pair(self.depth1, self.depth0, self.K1, self.K0, torch.linalg.inv(self.T_0to1))


def intrinsics(focal: float) -> Tensor:
    return torch.tensor([[[focal, 0.0, (SIZE[1] - 1) / 2], [0.0, focal, (SIZE[0] - 1) / 2], [0.0, 0.0, 1.0]]])


def motion(turn: tuple[float, float, float], move: tuple[float, float, float]) -> Tensor:
    T = torch.eye(4).unsqueeze(0)
    T[:, :3, :3] = axis_angle_to_rotation_matrix(torch.tensor([turn]))
    T[:, :3, 3] = torch.tensor(move)
    return T


def depth_of_plane(normal: Tensor, distance: Tensor, K: Tensor) -> Tensor:
    """Of the plane n·X = d, seen by a camera: d / (n · K^-1 x)."""
    grid = pixel_grid(*SIZE)
    rays = torch.cat((grid, torch.ones_like(grid[..., :1])), dim=-1) @ torch.linalg.inv(K[0]).T
    return (distance / (rays @ normal)).unsqueeze(0)


def plane_pair(
    turn: tuple[float, float, float] = (0.03, -0.06, 0.1), move: tuple[float, float, float] = (0.2, -0.1, 0.15)
) -> tuple[Pair, Tensor]:
    """A tilted plane seen by two cameras, and its homography K1 (R + t n^T / d) K0^-1."""
    K0, K1, T = intrinsics(70.0), intrinsics(62.0), motion(turn, move)
    normal, distance = torch.nn.functional.normalize(torch.tensor([0.3, -0.2, 1.0]), dim=0), torch.tensor(2.0)
    R, t = T[0, :3, :3], T[0, :3, 3]
    H = K1[0] @ (R + torch.outer(t, normal) / distance) @ torch.linalg.inv(K0[0])
    moved = R @ normal
    depths = depth_of_plane(normal, distance, K0), depth_of_plane(moved, distance + moved @ t, K1)
    return Pair(*depths, K0, K1, T), H.unsqueeze(0)


def occluded_pair() -> Pair:
    """A wall at 4 m and, in view of both cameras, a panel at 2 m; camera 1 stands 0.5 m to the right."""
    K, T = intrinsics(64.0), motion((0.0, 0.0, 0.0), (-0.5, 0.0, 0.0))
    depth0, depth1 = torch.full((1, *SIZE), 4.0), torch.full((1, *SIZE), 4.0)
    depth0[:, 12:36, 28:44] = 2.0
    depth1[:, 12:36, 12:28] = 2.0  # 64 · 0.5 / 2 = 16 pixels to the left; the wall moves by 8
    return Pair(depth0, depth1, K, K, T)


def far_from_homography(pair: Pair, H: Tensor) -> tuple[Tensor, Tensor]:
    found = depth_warp(*pair)
    true = transform_points(H, pixel_grid(*SIZE).reshape(1, -1, 2)).reshape(1, *SIZE, 2)
    return (found.warp - true).norm(dim=-1), found.covisible


def test_a_tilted_plane_moves_by_its_homography() -> None:
    pair, H = plane_pair()
    error, covisible = far_from_homography(pair, H)
    assert error.max() < 1e-3
    true = transform_points(H, pixel_grid(*SIZE).reshape(1, -1, 2)).reshape(1, *SIZE, 2)
    shown = ((true >= 0) & (true <= torch.tensor([SIZE[1] - 1, SIZE[0] - 1]))).all(-1)
    assert torch.equal(covisible, shown)
    assert 0.5 < shown.float().mean() < 1
    assert depth_warp(*pair).known.all()  # what lies outside is surely not seen


@settings(max_examples=30, deadline=None)
@given(
    turn=st.tuples(*[st.floats(-0.2, 0.2)] * 3),
    move=st.tuples(*[st.floats(-0.3, 0.3)] * 3),
)
def test_there_and_back_is_where_it_began(turn: tuple[float, float, float], move: tuple[float, float, float]) -> None:
    pair, H = plane_pair(turn, move)
    error, covisible = far_from_homography(pair, H)
    assert not (error[covisible] > 1e-3).any()
    there, back = depth_warp(*pair), depth_warp(*pair.back)
    again = sample(back.warp.permute(0, 3, 1, 2), there.warp.flatten(1, 2))
    seen = sample(back.covisible.unsqueeze(1).float(), there.warp.flatten(1, 2), padding="zeros").squeeze(-1) > 0.99
    both = seen & there.covisible.flatten(1)
    # bilinear between pixels of a warp that is a homography: hundredths of a pixel
    assert not ((again - pixel_grid(*SIZE).reshape(1, -1, 2)).abs()[both] > 0.05).any()


def test_what_stands_before_something_hides_it() -> None:
    found = depth_warp(*occluded_pair())
    x = pixel_grid(*SIZE)[..., 0]
    on_panel = torch.zeros(SIZE, dtype=torch.bool)
    on_panel[13:35, 29:43] = True
    assert found.covisible[0][on_panel].all()
    assert torch.equal(found.warp[0][on_panel][:, 0], x[on_panel] - 16)
    # the wall at columns 20 to 35 would lie at 12 to 27 of view 1, where the panel is; 28 to 35 are the panel itself
    behind = torch.zeros(SIZE, dtype=torch.bool)
    behind[13:35, 20:27] = True
    assert not found.covisible[0][behind].any()
    assert found.known[0][behind].all()  # surely hidden
    beside = torch.zeros(SIZE, dtype=torch.bool)
    beside[13:35, 9:18] = True
    assert found.covisible[0][beside].all()
    outside = x < 8
    assert not found.covisible[0][outside].any()
    assert found.known[0][outside].all()


def test_the_edge_of_an_object_is_neither_seen_nor_hidden() -> None:
    pair = occluded_pair()
    found = depth_warp(*pair)
    edge = depth_steps(pair.depth0, 0.05)
    assert edge[0, 20, 26:30].tolist() == [False, True, True, False]
    assert not (found.known & edge).any()
    assert not depth_steps(pair.depth0, 1.1).any()


def test_nothing_is_said_where_a_depth_is_missing_or_contradicted() -> None:
    pair = occluded_pair()
    pair.depth0[:, 40:44, 20:24] = 0
    pair.depth1[:, 4:8, 20:24] = 0  # where columns 28 to 31 of view 0 lie
    pair.depth1[:, 4:8, 40:44] = 5.0  # farther than view 0 says
    found = depth_warp(*pair)
    for rows, columns in ((slice(40, 44), slice(20, 24)), (slice(4, 8), slice(28, 32)), (slice(4, 8), slice(48, 52))):
        assert not found.known[0, rows, columns].any()
        assert not found.covisible[0, rows, columns].any()
    assert torch.equal(found.warp[0, 42, 22], torch.tensor([22.0, 42.0]))  # its own place
    assert found.known[0, 39, 22]  # missing neighbours are no step
    assert found.warp[0, 40, 20].tolist() == pytest.approx([12.0, 40.0])  # what is read beside the known continues it


@pytest.mark.parametrize(("difference", "agrees"), [(0.04, True), (0.06, False)])
def test_the_tolerance_is_relative(difference: float, agrees: bool) -> None:
    depth, T = torch.full((1, *SIZE), 10.0), torch.eye(4).unsqueeze(0)
    K = intrinsics(50.0)
    for sign in (-1, 1):
        found = depth_warp(depth, depth * (1 + sign * difference), K, K, T)
        # but for the border, which rounding may put outside
        assert bool(found.covisible[:, 1:-1, 1:-1].all()) == agrees
        assert bool(found.known[:, 1:-1, 1:-1].all()) == (agrees or sign < 0)
    assert depth_warp(depth, 1.06 * depth, K, K, T, tolerance=0.1).covisible[:, 1:-1, 1:-1].all()


def test_all_is_finite_and_nothing_behind_the_camera_is_seen() -> None:
    K = intrinsics(50.0)
    turned = motion((0.0, torch.pi, 0.0), (0.0, 0.0, 0.0))
    depth = torch.full((1, *SIZE), 3.0)
    found = depth_warp(depth, depth, K, K, turned)
    assert found.warp.isfinite().all()
    assert not found.covisible.any()
    assert found.known.all()
    sideways = depth_warp(depth, depth, K, K, motion((0.0, torch.pi / 2, 0.0), (0.0, 0.0, 0.0)))
    assert sideways.warp.isfinite().all()
    nothing = depth_warp(torch.zeros_like(depth), depth, K, K, turned)
    assert torch.equal(nothing.warp[0], pixel_grid(*SIZE))
    assert not nothing.known.any()


def test_pairs_of_a_batch_do_not_meet() -> None:
    pairs = plane_pair()[0], occluded_pair()
    together = depth_warp(*(torch.cat(parts) for parts in zip(*pairs, strict=True)))
    for index, pair in enumerate(pairs):
        alone = depth_warp(*pair)
        assert torch.allclose(together.warp[index], alone.warp[0], atol=1e-4)
        assert torch.equal(together.covisible[index], alone.covisible[0])


def test_the_place_knows_the_derivative_of_the_depth() -> None:
    pair, _ = plane_pair()
    depth = pair.depth0.double().requires_grad_()
    others = [part.double() for part in pair[1:]]
    assert torch.autograd.gradcheck(lambda d: depth_warp(d[:, 20:24, 20:24], *others).warp, depth, fast_mode=True)


@pytest.mark.parametrize("seed", range(2))
def test_it_agrees_with_the_scenes_that_photos_become(seed: int) -> None:
    """The same truth on another way: the scenes in depth are made from inverse depth in the photo's own frame."""
    size, photo = (128, 160), (192, 240)
    generator = Generator().manual_seed(seed)
    options = {"baseline": 0.3, "rotation": 0.3, "zoom": 1.3, "shift": 0.1}
    cameras = random_cameras(3, size, photo, **options, like=torch.zeros(1), generator=generator)
    grey = torch.rand((3, 1, *photo), generator=generator)
    seen0, seen1 = look(layered_scenes(grey, 3, generator=generator), *cameras.views, size)
    found = depth_warp(seen0.depth, seen1.depth, cameras.K0, cameras.K1, cameras.T_0to1)
    both = found.covisible & seen0.covisible
    assert both.float().mean() > 0.3
    assert (found.warp - seen0.warp)[both].norm(dim=-1).max() < 0.05
    # of what one of them calls seen and the other hidden, little is left: pixels at edges in view 1
    disagree = (found.known & ~found.covisible & seen0.covisible) | (found.covisible & ~seen0.covisible)
    assert disagree.float().mean() < 0.02


def test_the_homography_at_infinity_is_where_rotation_alone_would_lead() -> None:
    pair, _ = plane_pair(move=(0.0, 0.0, 0.0))
    H = infinite_homography(pair.K0, pair.K1, pair.T_0to1)
    error, _ = far_from_homography(pair, H)
    assert error.max() < 1e-3
    assert H[0, 2, 2] == 1


def test_gradcheck_of_the_homography_at_infinity() -> None:
    pair, _ = plane_pair()
    parts = [part.double()[:1].requires_grad_() for part in (pair.K0, pair.K1, pair.T_0to1)]
    assert torch.autograd.gradcheck(infinite_homography, parts)
