import pytest
import torch
from kornia.geometry.linalg import transform_points
from torch import Generator, Tensor

from tiepoint.ops.sampling import pixel_grid, warp_image
from tiepoint.ops.scenes import STRIDE, Cameras, Scene, Seen, View, layered_scenes, look, planar_scenes, random_cameras

SIZE, PHOTO = (128, 160), (192, 240)


def generator(seed: int = 0) -> Generator:
    return Generator().manual_seed(seed)


def photos(batch: int = 4) -> Tensor:
    grid = pixel_grid(*PHOTO)
    drawn = torch.rand((batch, 1, 6, 3), generator=generator(5))
    wave = 0.12 * (2 * drawn[..., :2] - 1) @ grid.reshape(-1, 2).T + 6.28 * drawn[..., 2:]
    return (0.5 + wave.sin().mean(2) * 0.5).reshape(batch, 1, *PHOTO)


def cameras(batch: int = 4, seed: int = 0, **options: float) -> Cameras:
    chosen = {"baseline": 0.3, "rotation": 0.3, "zoom": 1.3, "shift": 0.1} | options
    return random_cameras(batch, SIZE, PHOTO, **chosen, like=torch.zeros(1), generator=generator(seed))


def scene(batch: int = 4, layers: int = 3, seed: int = 1) -> Scene:
    return layered_scenes(photos(batch), layers, generator=generator(seed))


def seen(batch: int = 4, seed: int = 0, **options: float) -> tuple[Cameras, Seen, Seen]:
    pair = cameras(batch, seed, **options)
    return pair, *look(scene(batch), *pair.views, SIZE)


def wall(inverse_depth: float, mask: Tensor | None = None) -> Scene:
    """A background at depth 1 and, where there is a mask, a flat layer in front of it."""
    depth = torch.ones(1, 2, PHOTO[0] // STRIDE, PHOTO[1] // STRIDE)
    depth[:, 1] = inverse_depth
    masks = torch.zeros(1, 2, PHOTO[0] // 2, PHOTO[1] // 2)
    masks[:, 0] = 1
    if mask is not None:
        masks[:, 1] = mask.float()
    return Scene(depth, masks)


def sideways(distance: float, focal: float = 200.0) -> tuple[View, View]:
    """Two cameras that look at the photo head-on, `distance` apart along x."""
    centre = torch.tensor([[(SIZE[1] - 1) / 2, (SIZE[0] - 1) / 2], [(PHOTO[1] - 1) / 2, (PHOTO[0] - 1) / 2]])
    A = torch.eye(3)
    A[:2, 2] = centre[1] - centre[0]
    flat = torch.zeros(1, 2, PHOTO[0] // STRIDE, PHOTO[1] // STRIDE)
    epipoles = [torch.tensor([[focal * x, 0.0, 0.0]]) for x in (-distance / 2, distance / 2)]
    view0, view1 = (View(A.unsqueeze(0), e, flat) for e in epipoles)
    return view0, view1


@pytest.mark.parametrize("seed", range(3))
def test_correspondence_is_that_of_depth_intrinsics_and_motion(seed: int) -> None:
    pair, view0, view1 = seen(seed=seed)
    pixels = torch.cat((pixel_grid(*SIZE), torch.ones(*SIZE, 1)), dim=-1).reshape(1, -1, 3)
    for this, T, K, other_K in (
        (view0, pair.T_0to1, pair.K0, pair.K1),
        (view1, torch.linalg.inv(pair.T_0to1), pair.K1, pair.K0),
    ):
        points = (pixels @ torch.linalg.inv(K).transpose(1, 2)) * this.depth.reshape(4, -1, 1)
        there = (points @ T[:, :3, :3].transpose(1, 2) + T[:, :3, 3].unsqueeze(1)) @ other_K.transpose(1, 2)
        expected = (there[..., :2] / there[..., 2:]).reshape(4, *SIZE, 2)
        off = (expected - this.warp).norm(dim=-1)[this.covisible]
        assert this.covisible.float().mean() > 0.3
        assert off.median() < 0.01
        assert off.quantile(0.999) < 0.5


def test_what_both_views_show_is_the_same_place_of_the_photo() -> None:
    _, view0, view1 = seen()
    for this, other in ((view0, view1), (view1, view0)):
        there = warp_image(other.source.permute(0, 3, 1, 2), this.warp, padding="border").permute(0, 2, 3, 1)
        off = (there - this.source).norm(dim=-1)[this.covisible]
        # at the silhouettes a pixel of the other view is mixed of two layers
        assert off.median() < 0.02
        assert (off > 1).float().mean() < 0.05


def test_there_and_back_ends_where_it_began() -> None:
    _, view0, view1 = seen()
    back = warp_image(view1.warp.permute(0, 3, 1, 2), view0.warp, padding="border").permute(0, 2, 3, 1)
    off = (back - pixel_grid(*SIZE)).norm(dim=-1)[view0.covisible]
    assert off.median() < 0.02
    assert (off > 1).float().mean() < 0.05


def test_cameras_are_rigid_and_as_far_apart_as_asked_for() -> None:
    pair = cameras(200, baseline=0.3)
    R, t = pair.T_0to1[:, :3, :3], pair.T_0to1[:, :3, 3]
    assert torch.allclose(R @ R.transpose(1, 2), torch.eye(3).expand(200, 3, 3), atol=1e-5)
    assert torch.allclose(torch.linalg.det(R), torch.ones(200), atol=1e-5)
    assert 0.28 < t.norm(dim=1).max() <= 0.3001
    assert t.norm(dim=1).min() > 0.15 * 0.3 - 1e-4


def test_cameras_look_at_the_middle_of_the_photo() -> None:
    pair = cameras(50, shift=0.0)
    for view, K in zip(pair.views, (pair.K0, pair.K1), strict=True):
        # the middle of the photo, at depth 1, is p = middle with w = 1: q = (p - e) / (1 - e_z)
        middle = torch.tensor([(PHOTO[1] - 1) / 2, (PHOTO[0] - 1) / 2])
        q = (middle - view.epipole[:, :2]) / (1 - view.epipole[:, 2:])
        pixel = transform_points(torch.linalg.inv(view.at_infinity), q.unsqueeze(1)).squeeze(1)
        assert (pixel - K[:, :2, 2]).norm(dim=1).max() < 0.05


def test_without_strength_both_cameras_stand_where_the_photo_was_taken() -> None:
    pair, view0, view1 = seen(baseline=0.0, rotation=0.0, zoom=1.0, shift=0.0)
    offset = torch.tensor([(PHOTO[1] - SIZE[1]) / 2, (PHOTO[0] - SIZE[0]) / 2])
    assert torch.allclose(view0.source, (pixel_grid(*SIZE) + offset).expand(4, -1, -1, -1), atol=0.01)
    assert torch.allclose(view0.warp, pixel_grid(*SIZE).expand(4, -1, -1, -1), atol=0.01)
    assert not view0.hole.any()
    assert view0.covisible.float().mean() > 0.97  # layers touch the grid of pixels at their outlines
    assert torch.allclose(pair.T_0to1, torch.eye(4).expand(4, 4, 4), atol=1e-5)
    assert view1.depth.min() > 0


def test_a_layer_in_front_hides_what_is_behind_and_moves_by_its_own_parallax() -> None:
    """Disparity is focal · distance · inverse depth: 6 px for the wall, 12 px for the layer in front."""
    mask = torch.zeros(PHOTO[0] // 2, PHOTO[1] // 2, dtype=torch.bool)
    mask[:, 50:70] = True  # columns 100 to 140 of the photo, 60 to 100 of a view before parallax
    view0, view1 = look(wall(2.0, mask), *sideways(0.03), SIZE)
    disparity = (pixel_grid(*SIZE) - view0.warp[0])[..., 0]
    row = disparity[SIZE[0] // 2]
    front = view0.depth[0, SIZE[0] // 2] < 0.75
    assert 38 <= front.sum() <= 42
    assert torch.allclose(row[front], torch.tensor(12.0), atol=0.02)
    assert torch.allclose(row[~front & ~view0.hole[0, SIZE[0] // 2]], torch.tensor(6.0), atol=0.02)
    # beside the layer, 6 px of the wall are hidden in the other view, and as many are seen that the photo does not know
    hidden = ~front & ~view0.covisible[0, SIZE[0] // 2]
    inner = torch.zeros_like(hidden)
    inner[20:140] = True
    assert 4 <= (hidden & inner).sum() <= 16
    assert view0.covisible[0, :, 20:40].all()
    assert view1.depth.unique().numel() >= 2


def test_only_what_lies_behind_a_wall_is_a_hole_or_outside() -> None:
    view0, _ = look(wall(1.0), *sideways(0.0), SIZE)
    assert not view0.hole.any()
    far = View(*sideways(0.0)[0])
    A = far.at_infinity.clone()
    A[:, 0, 2] += 200  # looks past the photo's right edge
    view0, view1 = look(wall(1.0), far._replace(at_infinity=A), far, SIZE)
    # the view's columns are the photo's from 240 on: none of them is there
    assert view0.hole.all()
    assert not view0.covisible.any()
    assert not view1.covisible.any()
    assert (view0.depth[view0.hole] == 0).all()


def test_a_plane_has_no_depth_and_follows_its_homography() -> None:
    flat = torch.zeros(1, 2, PHOTO[0] // STRIDE, PHOTO[1] // STRIDE)
    A0 = torch.tensor([[[1.1, 0.1, 30.0], [-0.05, 1.0, 25.0], [2e-4, -1e-4, 1.0]]])
    A1 = torch.tensor([[[0.9, -0.1, 45.0], [0.05, 1.1, 20.0], [-1e-4, 2e-4, 1.0]]])
    none = torch.zeros(1, 3)
    view0, view1 = look(planar_scenes(photos(1)), View(A0, none, flat), View(A1, none, flat), SIZE)
    grid = pixel_grid(*SIZE).reshape(1, -1, 2)
    expected = transform_points(torch.linalg.inv(A1.double()) @ A0.double(), grid.double()).reshape(1, *SIZE, 2)
    assert (view0.warp - expected).norm(dim=-1)[view0.covisible].max() < 0.02
    assert (view0.depth == 0).all()
    assert (view1.depth == 0).all()


def test_bending_moves_what_view_1_sees() -> None:
    view0, view1 = sideways(0.0)
    bent = view1.bending.clone()
    bent[:, 0] = 7.0
    first, second = look(planar_scenes(photos(1)), view0, view1._replace(bending=bent), SIZE)
    # view 1 reads the photo 7 px to the right: what view 0 has at x, it has at x - 7
    assert torch.allclose(first.warp[0], pixel_grid(*SIZE) - torch.tensor([7.0, 0.0]), atol=0.01)
    assert torch.allclose(second.warp[0], pixel_grid(*SIZE) + torch.tensor([7.0, 0.0]), atol=0.01)


def test_layers_stand_one_in_front_of_the_other_along_the_edges_of_the_photo() -> None:
    grey = torch.zeros(1, 1, *PHOTO)
    grey[..., 120:] = 1.0
    crossed = 0.0
    for seed in range(30):
        found = layered_scenes(grey, 2, generator=generator(seed))
        assert found.masks[:, 0].eq(1).all()
        assert (found.inverse_depth > 0).all()
        outline = (found.masks[0, 1] > 0.5).float().diff(dim=1).abs()
        crossed += (outline[:, 58:62].sum() / outline.sum().clamp_min(1)).item() / 30
    # four of 119 columns would hold 3 % of the outlines by chance
    assert crossed > 0.15
    many = layered_scenes(photos(64), 3, generator=generator())
    share = many.masks[:, 1:].mean((2, 3))
    assert 0.05 < share.min() < share.max() < 0.7
    assert (many.inverse_depth[:, 1:].mean((2, 3)) > many.inverse_depth[:, :-1].mean((2, 3))).float().mean() > 0.95


def test_scenes_repeat_with_their_generator_and_need_no_photo_at_all() -> None:
    assert all(torch.equal(a, b) for a, b in zip(scene(), scene(), strict=True))
    assert not torch.equal(scene(seed=1).masks, scene(seed=2).masks)
    none = layered_scenes(photos(0), 3, generator=generator())
    assert none.masks.shape[0] == 0
    view0, _ = look(none, *cameras(0).views, SIZE)
    assert view0.warp.shape == (0, *SIZE, 2)
