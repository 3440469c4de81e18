import pytest
import torch
from kornia.geometry.linalg import transform_points
from torch import Generator, Tensor

from tiepoint.ops.pairs import photo_pairs
from tiepoint.ops.photometric import PhotometricChanges
from tiepoint.ops.sampling import pixel_grid, warp_image

SIZE, PHOTO = (256, 320), (320, 400)
LUMA = torch.tensor((0.299, 0.587, 0.114)).reshape(1, 3, 1, 1)


def generator(seed: int = 0) -> Generator:
    return Generator().manual_seed(seed)


def smooth_photos(batch: int, size: tuple[int, int] = PHOTO) -> Tensor:
    """Sums of slow waves in each channel: interpolation hardly changes them, and any shift does."""
    grid = pixel_grid(*size)
    drawn = torch.rand((batch, 3, 6, 3), generator=generator(5))
    wave = 0.12 * (2 * drawn[..., :2] - 1) @ grid.reshape(-1, 2).T + 6.28 * drawn[..., 2:]
    return (0.5 + wave.sin().mean(2) * 0.5).reshape(batch, 3, *size)


def make(batch: int = 3, seed: int = 0, **options: float) -> dict[str, Tensor]:
    return photo_pairs(smooth_photos(batch), SIZE, generator=generator(seed), **options)


PLANES = {"parallax": 0.0, "bending": 0.0}
KINDS = {"planes": PLANES, "bent": {"parallax": 0.0, "bending": 1.0}, "depth": {"parallax": 1.0, "bending": 0.0}}
STILL = {"jitter": 0.0, "rotation": 0.0, "zoom": 1.0, "shift": 0.0, **PLANES}


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(("this", "other"), [(0, 1), (1, 0)])
def test_each_view_seen_through_the_warp_is_the_other(kind: str, this: int, other: int) -> None:
    pair = make(photometric=0.0, zoom=1.0, **KINDS[kind])
    seen = warp_image(pair[f"image{other}"], pair[f"warp_{this}to{other}"])
    covisible = pair[f"covisible{this}"].unsqueeze(1)
    assert covisible.float().mean() > 0.3
    off = (seen - pair[f"image{this}"]).abs()[covisible]
    # at silhouettes a pixel mixes two layers
    assert off.quantile(0.98) < 0.02
    assert off.mean() < 0.003
    # and it is the warp that brings them together
    unwarped = (pair["image0"] - pair["image1"]).abs()[covisible]
    assert unwarped.mean() > 0.02


@pytest.mark.parametrize("share", [0.0, 0.5, 1.0])
def test_shapes_and_types(share: float) -> None:
    pair = make(batch=2, parallax=share)
    assert {name: tuple(value.shape) for name, value in pair.items()} == {
        "image0": (2, 1, *SIZE),
        "image1": (2, 1, *SIZE),
        "clean0": (2, 1, *SIZE),
        "clean1": (2, 1, *SIZE),
        "warp_0to1": (2, *SIZE, 2),
        "warp_1to0": (2, *SIZE, 2),
        "covisible0": (2, *SIZE),
        "covisible1": (2, *SIZE),
        "depth0": (2, *SIZE),
        "depth1": (2, *SIZE),
        "H_0to1": (2, 3, 3),
        "K0": (2, 3, 3),
        "K1": (2, 3, 3),
        "T_0to1": (2, 4, 4),
        "planar": (2,),
        "posed": (2,),
    }
    booleans = {name for name, value in pair.items() if value.dtype == torch.bool}
    assert booleans == {"covisible0", "covisible1", "planar", "posed"}
    assert all(value.isfinite().all() for value in pair.values())
    assert all(0 <= pair[f"image{i}"].min() <= pair[f"image{i}"].max() <= 1 for i in (0, 1))


def test_depth_and_pose_are_known_where_the_pair_is_posed() -> None:
    pair = make(batch=8, parallax=0.5)
    posed = pair["posed"]
    assert posed.sum() == 4
    assert (pair["depth0"][posed].flatten(1).amax(1) > 0).all()
    assert (pair["T_0to1"][posed][:, :3, 3].norm(dim=1) > 0.01).all()
    assert (pair["K0"][posed][:, 0, 0] > 100).all()
    assert (pair["depth0"][~posed] == 0).all()
    assert torch.equal(pair["T_0to1"][~posed], torch.eye(4).expand(4, 4, 4))
    assert not (pair["planar"] & posed).any()


def test_holes_are_filled_from_another_photo() -> None:
    """One photo black, one white: where the black one ends the white one shows, and nothing of that matches."""
    photos = torch.stack((torch.zeros(3, *PHOTO), torch.ones(3, *PHOTO)))
    options = {**STILL, "zoom": 1.8, "photometric": 0.0}
    filled = 0
    for seed in range(8):
        pair = photo_pairs(photos, SIZE, generator=generator(seed), **options)
        strange = (pair["image0"][0, 0] > 0.5) | (pair["image0"][1, 0] < 0.5)
        filled += int(strange.sum())
        for index, image in enumerate(pair["image0"][:, 0]):
            other = (image - index).abs() > 0.5
            assert not (other & pair["covisible0"][index]).any()
    assert filled > 10_000


def test_pairs_repeat_with_their_generator() -> None:
    first, again, other = make(seed=1), make(seed=1), make(seed=2)
    assert all(torch.equal(first[name], again[name]) for name in first)
    assert not torch.equal(first["image0"], other["image0"])


def test_the_homography_of_planar_pairs_is_their_warp() -> None:
    pair = make(**PLANES)
    assert pair["planar"].all()
    grid = pixel_grid(*SIZE).reshape(1, -1, 2).expand(3, -1, -1)
    exact = transform_points(pair["H_0to1"], grid).reshape(3, *SIZE, 2)
    assert (exact - pair["warp_0to1"]).norm(dim=-1)[pair["covisible0"]].max() < 0.05
    assert torch.equal(pair["H_0to1"][:, 2, 2], torch.ones(3))


def test_pairs_with_parallax_are_not_planar() -> None:
    pair = make(parallax=1.0)
    assert not pair["planar"].any()
    grid = pixel_grid(*SIZE).reshape(1, -1, 2).expand(3, -1, -1)
    plane = transform_points(pair["H_0to1"], grid).reshape(3, *SIZE, 2)
    assert ((plane - pair["warp_0to1"]).norm(dim=-1).flatten(1).amax(1) > 0.5).all()


def test_parallax_and_bending_are_the_shares_of_pairs_that_are_not_planar() -> None:
    photos = torch.zeros(40, 3, 48, 48)
    pair = photo_pairs(photos, (32, 32), parallax=0.25, bending=0.3, photometric=0.0, generator=generator())
    assert pair["posed"].sum() in (10, 11)
    assert 0.25 < pair["planar"].float().mean() < 0.65


def test_without_difficulty_both_views_are_the_centre_of_the_photo() -> None:
    photos = smooth_photos(2)
    pair = photo_pairs(photos, SIZE, difficulty=0.0, generator=generator())
    centre = (photos * LUMA).sum(1, keepdim=True)[..., 32:-32, 40:-40]
    assert torch.allclose(pair["image0"], centre, atol=1e-3)
    assert torch.allclose(pair["image1"], centre, atol=1e-3)
    assert torch.allclose(pair["warp_0to1"], pixel_grid(*SIZE).expand(2, -1, -1, -1), atol=1e-3)
    assert pair["planar"].all()


def test_difficulty_moves_the_views_farther_apart() -> None:
    moved = [
        (make(8, difficulty=difficulty, **PLANES)["warp_0to1"] - pixel_grid(*SIZE)).norm(dim=-1).mean()
        for difficulty in (0.2, 0.6, 1.0)
    ]
    assert moved[0] < moved[1] < moved[2]


def test_each_strength_alone_moves_the_views() -> None:
    alone = {"jitter": 0.1, "rotation": 10.0, "zoom": 1.3, "shift": 0.1, "bending": 1.0, "parallax": 1.0}
    for name, value in alone.items():
        pair = make(1, photometric=0.0, **STILL | {name: value})
        assert (pair["warp_0to1"] - pixel_grid(*SIZE)).norm(dim=-1).max() > 0.5, name


@pytest.mark.parametrize("parallax", [0.0, 1.0])
def test_rotation_is_the_largest_of_each_view(parallax: float) -> None:
    pair = make(64, photometric=0.0, **STILL | {"rotation": 90.0, "parallax": parallax, "baseline": 0.0})
    right = pair["warp_0to1"][:, 128, 161] - pair["warp_0to1"][:, 128, 160]
    angle = torch.rad2deg(torch.atan2(right[:, 1], right[:, 0])).abs()
    assert 120 < angle.max() <= 180
    assert (angle < 45).any()


def test_the_clean_views_are_those_before_the_photometric_change() -> None:
    pair = make(photometric=0.0)
    assert torch.equal(pair["clean0"], pair["image0"])
    assert torch.equal(pair["clean1"], pair["image1"])
    grey = smooth_photos(3)[:, :1].expand(-1, 3, -1, -1)
    changed = photo_pairs(grey, SIZE, generator=generator(), **PLANES)
    seen = changed["covisible0"].unsqueeze(1)

    def apart(name: str) -> Tensor:
        difference = warp_image(changed[f"{name}1"], changed["warp_0to1"]) - changed[f"{name}0"]
        return (difference.abs() * seen).sum() / seen.sum()

    assert apart("clean") < 0.02
    assert apart("image") > 0.05


def test_photometric_change_differs_between_the_views_and_is_the_one_asked_for() -> None:
    pair = make(4, **STILL)
    assert ((pair["image0"] - pair["image1"]).abs().mean((1, 2, 3)) > 0.005).all()
    never = PhotometricChanges(**dict.fromkeys(vars(PhotometricChanges()), 0.0))
    grey = photo_pairs(smooth_photos(4)[:, :1].expand(-1, 3, -1, -1), SIZE, changes=never, **STILL)
    assert torch.allclose(grey["image0"], grey["image1"], atol=1e-4)
