"""Rectified pairs of real cameras: layouts, windows, and what cannot be used."""

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import torch
from loguru import logger
from PIL import Image

from tiepoint.data.depths import read_depth
from tiepoint.data.measured_stereo import MeasuredStereo, StereoViews, stereo_scenes
from tiepoint.errors import InputError
from tiepoint.ops.sampling import pixel_grid, warp_image

REAL = Path(os.environ.get("TIEPOINT_DATA", Path(__file__).parents[3] / "shared" / "data")) / "stereo"
OPTIONS: dict[str, Any] = {"size": (64, 96), "batch_size": 2, "num_workers": 0, "planes": 8, "largest": 28.0}


def wall(seed: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """A slanted wall, 120×200 px, with d = 10 + x / 50 + y / 25 and a hole of 20×30 px in the disparity."""
    rng = np.random.default_rng(seed)
    right = cv2.resize(rng.uniform(0, 255, (30, 50, 3)), (200, 120), interpolation=cv2.INTER_CUBIC).clip(0, 255)
    y, x = np.mgrid[:120, :200].astype(np.float32)
    d = 10 + x / 50 + y / 25
    left = cv2.remap(right, x - d, y, cv2.INTER_CUBIC, borderMode=cv2.BORDER_REFLECT).clip(0, 255)
    d[50:70, 90:120] = 0
    return left.astype(np.uint8), right.astype(np.uint8), d


def write_pfm(path: Path, values: np.ndarray, order: str, scale: str) -> None:
    values = np.where(values > 0, values, np.inf)[::-1]
    path.write_bytes(f"Pf\n{values.shape[1]} {values.shape[0]}\n{scale}\n".encode() + values.astype(order).tobytes())


def write_png(path: Path, values: np.ndarray) -> None:
    Image.fromarray((256 * values).round().astype(np.uint16)).save(path)


Write = Callable[[Path, np.ndarray], None]
LAYOUTS: dict[str, tuple[tuple[str, str], str, Write]] = {
    "own": (("left.png", "right.png"), "disp_left.png", write_png),
    "Adirondack": (("im0.png", "im1.png"), "disp0.pfm", lambda path, d: write_pfm(path, d, "<f4", "-0.003922")),
    "delivery": (("im0.png", "im1.png"), "disp0GT.pfm", lambda path, d: write_pfm(path, d, ">f4", "1")),
    "Art": (("view1.png", "view5.png"), "disp1.npy", lambda path, d: np.save(path, d)),
    "street": (("left.jpg", "right.jpg"), "", lambda path, d: None),
    "Motorcycle-perfect": (("im0.png", "im1.png"), "disp0.pfm", lambda path, d: write_pfm(path, d, "<f4", "-1.0")),
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("stereo")
    for seed, (name, (images, disparity, write)) in enumerate(LAYOUTS.items()):
        place = root / ("deeper" if seed % 2 else ".") / name
        place.mkdir(parents=True)
        *views, d = wall(seed)
        for file, view in zip(images, views, strict=True):
            Image.fromarray(view).save(place / file, quality=97)
        write(place / disparity, d)
    return root


def ready(folder: Path, **options: Any) -> MeasuredStereo:
    torch.manual_seed(0)
    data = MeasuredStereo(folder, **OPTIONS | options)
    data.setup()
    return data


def test_scenes_are_found_in_all_layouts_and_those_for_measuring_left_out(folder: Path) -> None:
    lines: list[str] = []
    sink = logger.add(lambda message: lines.append(message.record["message"]), level="WARNING")
    try:
        scenes = {scene.name: scene for scene in stereo_scenes(folder)}
    finally:
        logger.remove(sink)
    assert set(scenes) == set(LAYOUTS) - {"Motorcycle-perfect"}
    assert lines == ["left out: 1 of 6 scenes, which are for measuring"]
    assert scenes["street"].disparity == ""
    *_, true = wall(0)
    for seed, name in enumerate(LAYOUTS):
        if name in scenes and scenes[name].disparity:
            found = read_depth(scenes[name].disparity, 1 / 256, kind="disparity map")
            assert np.allclose(found, wall(seed)[2], atol=1 / 256), name
            assert ((found == 0) == (true == 0)).all(), name


@pytest.mark.parametrize("held_out", [True, False])
def test_windows_of_both_images_fit_by_the_disparity(folder: Path, held_out: bool) -> None:
    scenes = [scene for scene in stereo_scenes(folder) if scene.disparity]
    # a sweep of 12 pixels shrinks images whose disparities reach 19
    for largest in (28.0, 12.0):
        for item in StereoViews(scenes, (64, 96), largest=largest, scale=256.0, held_out=held_out):
            d = item["disparity"]
            assert d.shape == (64, 96)
            assert 0.5 * largest / 2 < d.max() <= largest + 1e-3
            shift = torch.stack((d, torch.zeros_like(d)), -1)
            warped = warp_image(item["photo1"][None].float(), (pixel_grid(64, 96) - shift)[None])[0]
            known = (d > 0) & (pixel_grid(64, 96)[..., 0] > d)
            off, unmoved = (
                (each - item["photo0"].float()).abs().mean(0)[known] for each in (warped, item["photo1"].float())
            )
            assert off.median() < 0.25 * unmoved.median()


def test_batches_are_pairs_of_a_sweep_and_what_is_unknown_is_told(folder: Path) -> None:
    data = ready(folder, photometric=0.0)
    for batch in data.train_dataloader():
        made = data.on_after_batch_transfer(batch, 0)
        w, known, visible = (made[name] for name in ("inverse_depth0", "known0", "visible0"))
        height, width = w.shape[1:]
        place = pixel_grid(height, width) + w.unsqueeze(-1) * made["epipole"][:, None, None, :2]
        off = (warp_image(made["image1"], place) - made["image0"]).abs().mean(1)
        assert off[known & visible].median() < 0.03
        assert visible[~known].all()
        outside = (place < 0).any(-1) | (place > torch.tensor([width - 1, height - 1])).any(-1)
        assert not (visible & known & outside).any()
        assert (w[~known] == 0).all()
        assert torch.allclose(made["planes"].diff(dim=1), torch.tensor(32 / 7), atol=1e-4)


def test_held_out_pairs_are_neither_turned_nor_random(folder: Path) -> None:
    data = ready(folder)
    first, second = ([data.on_after_batch_transfer(each, 0) for each in data.val_dataloader()] for _ in range(2))
    for one, other in zip(first, second, strict=True):
        assert all(torch.equal(one[name], other[name]) for name in one)
        assert (one["epipole"] == torch.tensor([-1.0, 0, 0])).all()
        assert (one["planes"][:, 0] == 0).all()


@pytest.mark.parametrize(
    ("change", "named"),
    [
        (lambda place: (place / "left.png").unlink(), "holds no stereo scene, expected a folder with images left and"),
        (lambda place: Image.new("RGB", (90, 70)).save(place / "right.png"), "right.png 90×70, expected one size"),
        (lambda place: write_png(place / "disp_left.png", np.ones((9, 8))), "disp_left.png has 8×9 px, expected the"),
        (lambda place: Image.new("L", (9, 9)).save(place / "disp_left.png"), "disp_left.png is no disparity map.*16 b"),
        (lambda place: (place / "disp_left.pfm").write_bytes(b"PF\n9 9\n1\n"), "is no disparity map.* one channel"),
        (lambda place: (place / "disp_left.pfm").write_bytes(b"Pf\n9 9\n1\nabc"), "disp_left.pfm is no disparity map"),
    ],
)
def test_what_cannot_be_used_is_one_sentence(change: Callable[[Path], Any], named: str, tmp_path: Path) -> None:
    left, right, d = wall(0)
    place = tmp_path / "one"
    place.mkdir()
    Image.fromarray(left).save(place / "left.png")
    Image.fromarray(right).save(place / "right.png")
    write_png(place / "disp_left.png", d)
    change(place)
    with pytest.raises(InputError, match=named) as raised:
        ready(tmp_path)
    assert "\n" not in str(raised.value)


def test_a_folder_of_benchmark_scenes_alone_is_refused(folder: Path, tmp_path: Path) -> None:
    (tmp_path / "Cones").symlink_to(folder / "own")
    with pytest.raises(InputError, match="does not exist"):
        ready(tmp_path / "none")
    with pytest.raises(InputError, match=r"besides those for measuring \(aloe, cloth3, cones, motorcycle\)"):
        ready(folder / "deeper" / "Motorcycle-perfect")
    assert ready(folder / "deeper" / "Motorcycle-perfect", leave_out=[]).splits["train"]


@pytest.mark.skipif(not REAL.is_dir(), reason="the public stereo pairs are not there")
def test_the_public_scenes_fit_their_disparities_and_are_never_trained_on() -> None:
    with pytest.raises(InputError, match="besides those for measuring"):
        stereo_scenes(REAL)
    scenes = stereo_scenes(REAL, leave_out=[])
    assert [scene.name for scene in scenes] == ["aloe", "cloth3", "cones", "motorcycle"]
    for item in StereoViews(scenes, (160, 288), largest=88.0, scale=256.0, held_out=True):
        d, image0 = item["disparity"], item["photo0"].float()
        shift = torch.stack((d, torch.zeros_like(d)), -1)
        warped = warp_image(item["photo1"][None].float(), (pixel_grid(160, 288) - shift)[None])[0]
        known = d > 0
        assert known.float().mean() > 0.7
        assert (warped - image0).abs().mean(0)[known].median() < 10
