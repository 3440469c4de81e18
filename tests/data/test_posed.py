import json
import os
import pickle
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from loguru import logger
from PIL import Image
from torch import Tensor
from torch.utils.data import default_collate

from tiepoint.cli import main
from tiepoint.data.depths import read_depth
from tiepoint.data.layouts import layouts, read_scenes
from tiepoint.data.order import Draw
from tiepoint.data.posed import PosedPairs, PosedViews, read_view
from tiepoint.data.scenes import balanced, split_scenes
from tiepoint.errors import InputError
from tiepoint.ops.sampling import warp_image
from tiepoint.ops.supervision import warp_points

SIZE = (64, 96)
PAIR = {
    *("image0", "image1", "clean0", "clean1", "warp_0to1", "warp_1to0", "covisible0", "covisible1", "depth0", "depth1"),
    *("H_0to1", "K0", "K1", "T_0to1", "planar", "posed", "known0", "known1", "scene"),
}
REAL = Path(os.environ.get("TIEPOINT_DATA", Path(__file__).parents[3] / "shared" / "data")) / "pose"
pytestmark = [
    pytest.mark.filterwarnings("ignore::lightning.pytorch.utilities.warnings.PossibleUserWarning"),
    pytest.mark.filterwarnings("ignore:The dirpath has changed"),
]


def make(folder: Path, **kwargs: Any) -> PosedPairs:
    options: dict[str, Any] = {"size": SIZE, "batch_size": 2, "num_workers": 0, "held_out_pairs": 5}
    return PosedPairs(folder, **options | kwargs)


def ready(folder: Path, **kwargs: Any) -> PosedPairs:
    data = make(folder, **kwargs)
    data.setup()
    return data


def served(data: PosedPairs, loader: Any) -> dict[str, Tensor]:
    """All batches as a task gets them, joined."""
    batches = [data.on_after_batch_transfer(batch, 0) for batch in loader]
    return {name: torch.cat([batch[name] for batch in batches]) for name in batches[0]}


def said(act: Callable[[], object], level: str = "INFO") -> list[str]:
    lines: list[str] = []
    sink = logger.add(lambda message: lines.append(message.record["message"]), level=level)
    try:
        act()
    finally:
        logger.remove(sink)
    return lines


@pytest.fixture(scope="module")
def colmap(write_colmap: Callable[..., Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three workspaces, in all formats."""
    folder = tmp_path_factory.mktemp("colmap")
    write_colmap(folder / "a", 0)
    write_colmap(folder / "b", 1, binary=True, depths="bin")
    write_colmap(folder / "c", 2, binary=True, depths="png")
    return folder


# layouts


@pytest.mark.parametrize(
    ("layout", "scenes", "pairs"),
    [
        ("posed", ["a", "b", "c"], [10, 10, 10]),
        ("megadepth", ["0001", "0002", "0005"], [10, 10, 10]),
        ("scannet", ["scene0000", "scene0001", "scene0002"], [10, 10, 10]),
        ("colmap", ["a/sparse", "b/sparse/0", "c/sparse/0"], [10, 10, 10]),
    ],
)
def test_the_layout_of_a_folder_is_recognised_and_its_pairs_fit_each_other(
    layout: str, scenes: list[str], pairs: list[int], request: pytest.FixtureRequest
) -> None:
    """Pixels of both views at the same place look alike: depth, intrinsics, pose and crop are all right."""
    folder = request.getfixturevalue(layout)
    found = read_scenes(folder)
    assert [scene.name for scene in found] == scenes
    assert [len(scene) for scene in found] == pairs
    data = ready(folder, overlap=(0.0, 1.0))
    # as a worker gets them that is not forked
    views = pickle.loads(pickle.dumps(PosedViews(found, SIZE, held_out=True)))
    batch = data.on_after_batch_transfer(default_collate([views[index] for index in range(0, 30, 3)]), 0)
    assert set(batch) == PAIR
    for here, there in (("0", "1"), ("1", "0")):
        seen = batch[f"covisible{here}"]
        assert (seen.flatten(1).float().mean(1) > 0.3).all()
        warped = warp_image(batch[f"image{there}"], batch[f"warp_{here}to{there}"]).squeeze(1)
        difference = (warped - batch[f"image{here}"].squeeze(1)).abs()
        right = difference[seen].mean()
        shifted = warp_image(batch[f"image{there}"], batch[f"warp_{here}to{there}"] + 1.0).squeeze(1)
        assert right < 0.02
        assert right < 0.5 * (shifted - batch[f"image{here}"].squeeze(1)).abs()[seen].mean()


def test_every_layout_tells_the_same_of_the_same_views(
    posed: Path, megadepth: Path, colmap: Path, posed_scenes: list[list[Any]]
) -> None:
    true = posed_scenes[0]
    for folder in (posed, megadepth, colmap):
        scene = read_scenes(folder)[0]
        names = [int(Path(path).stem.removeprefix("a")) for path in scene.images]
        for pair, (first, second) in enumerate(scene.pairs):
            i, j = names[first], names[second]
            assert np.allclose(scene.relative_pose(pair), true[j].T @ np.linalg.inv(true[i].T), atol=1e-6)
            assert np.allclose(scene.K[first], true[i].K, atol=1e-9)
            depth = read_depth(scene.depths[second], float(scene.depth_scales[second]))
            assert np.allclose(depth, true[j].depth, atol=6e-4)


def test_a_folder_without_a_layout_says_what_was_looked_for(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="has no layout that is known") as error:
        read_scenes(tmp_path)
    for expected in ("pairs.json", "sparse/cameras.bin", "scene_info", "scene_data/train"):
        assert expected in str(error.value)
    with pytest.raises(InputError, match="nowhere does not exist"):
        read_scenes(tmp_path / "nowhere")
    assert len(layouts()) == 4


def test_megadepth_leaves_out_what_the_benchmark_measures_on_and_what_no_list_names(
    megadepth: Path, tmp_path: Path
) -> None:
    assert any("scene 0015, which MegaDepth-1500" in line for line in said(lambda: read_scenes(megadepth)))
    # LoFTR's own tree: index/ beside train/
    shutil.copytree(megadepth / "scene_info_0.1_0.7", tmp_path / "index" / "scene_info_0.1_0.7")
    for name in ("Undistorted_SfM", "phoenix"):
        (tmp_path / "train").mkdir(exist_ok=True)
        (tmp_path / "train" / name).symlink_to(megadepth / name)
    (tmp_path / "index" / "trainvaltest_list").mkdir()
    (tmp_path / "index" / "trainvaltest_list" / "train_list.txt").write_text("0001_0.0_0.1\n0002_0.1_0.2\n")
    found = read_scenes(tmp_path)
    assert [(scene.name, len(scene)) for scene in found] == [("0001", 5), ("0002", 5)]
    assert PosedViews(found, SIZE)[0]["photo0"].shape == (3, *SIZE)


def changed_index(megadepth: Path, folder: Path, **changes: Any) -> Path:
    """The first index alone, with other arrays, beside the same files."""
    (folder / "scene_info").mkdir(parents=True)
    for name in ("Undistorted_SfM", "phoenix"):
        (folder / name).symlink_to(megadepth / name)
    source = next(iter(sorted(megadepth.glob("scene_info*/0001*.npz"))))
    with np.load(source, allow_pickle=True) as index:
        arrays = {name: index[name] for name in index.files} | changes
    np.savez(
        folder / "scene_info" / source.name, **{name: value for name, value in arrays.items() if value is not None}
    )
    return folder


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        ({"poses": None}, "lacks poses, expected image_paths"),
        ({"poses": np.ones((6, 16))}, "poses is not rigid"),
        ({"intrinsics": np.zeros((6, 3, 3))}, "intrinsics is singular"),
        ({"intrinsics": np.zeros((6, 4))}, "intrinsics has shape"),
        ({"pair_infos": np.array([((0, 9), 0.5, 0)], dtype=object)}, "none of its 6"),
        ({"pair_infos": np.array([1.0])}, "malformed pair_infos"),
        ({"depth_paths": np.array([None] * 6)}, "holds no pair with depth in 1 indices"),
    ],
)
def test_a_faulty_index_is_named(megadepth: Path, tmp_path: Path, changes: dict[str, Any], named: str) -> None:
    with pytest.raises(InputError, match=named):
        read_scenes(changed_index(megadepth, tmp_path / "set", **changes))


def test_a_faulty_scan_is_named(scannet: Path, tmp_path: Path) -> None:
    folder = shutil.copytree(scannet, tmp_path / "set")
    pose = folder / "scans" / "scene0001_00" / "pose" / "10.txt"
    pose.write_text("-inf " * 16)
    scenes = read_scenes(folder)
    with pytest.raises(InputError, match=r"10\.txt"):
        [scenes[1].relative_pose(pair) for pair in range(10)]
    np.savez(folder / "scannet_indices" / "intrinsics.npz", scene0000_00=np.eye(3))
    with pytest.raises(InputError, match=r"intrinsics\.npz, scene0000_01 is missing"):
        read_scenes(folder)
    np.savez(folder / "scannet_indices" / "scene_data" / "train" / "scene0000_00.npz", name=np.zeros((3, 3)))
    with pytest.raises(InputError, match="no array name of M x 4 whole numbers"):
        read_scenes(folder)


def test_pairs_without_depth_are_counted_and_left_out(posed: Path, tmp_path: Path) -> None:
    listed = json.loads((posed / "pairs.json").read_text())
    for entry in listed["pairs"][:7]:
        del entry["depth1"]
    shutil.copytree(posed, tmp_path / "set")
    (tmp_path / "set" / "pairs.json").write_text(json.dumps(listed))
    lines = said(lambda: read_scenes(tmp_path / "set"))
    assert any("left out: 7 of 30 pairs" in line for line in lines)
    for entry in listed["pairs"]:
        entry.pop("depth0")
    (tmp_path / "set" / "pairs.json").write_text(json.dumps(listed))
    with pytest.raises(InputError, match="30 pairs, all of them without depth0 and depth1"):
        read_scenes(tmp_path / "set")


def test_images_of_a_reconstruction_without_depth_are_left_out(
    write_colmap: Callable[..., Path], tmp_path: Path
) -> None:
    folder = write_colmap(tmp_path / "one")
    (folder / "depths" / "2.npy").unlink()
    lines = said(lambda: read_scenes(folder))
    assert any("left out: 1 of 5 images" in line for line in lines)
    (scene,) = read_scenes(folder)
    assert len(scene) == 6
    shutil.rmtree(folder / "depths")
    with pytest.raises(InputError, match="0 images with depth"):
        read_scenes(folder)


def test_the_overlap_of_a_reconstruction_is_the_share_of_common_points(
    write_colmap: Callable[..., Path], tmp_path: Path
) -> None:
    from tiepoint.data.layouts.colmap import common_points

    (scene,) = read_scenes(write_colmap(tmp_path / "one"))
    assert (scene.overlap > 0.3).all()
    assert (scene.overlap <= 1).all()
    points = [np.arange(100), np.arange(60, 160), np.arange(80, 120), np.array([5, 5, -0])]
    pairs, overlap = common_points(points)
    assert pairs.tolist() == [[0, 1], [1, 2]]  # images 0 and 2 share 20 points
    assert overlap.tolist() == [0.4, 1.0]


def test_a_camera_with_distortion_is_refused(write_colmap: Callable[..., Path], tmp_path: Path) -> None:
    cameras = write_colmap(tmp_path / "one") / "sparse" / "cameras.txt"
    cameras.write_text(cameras.read_text().replace("PINHOLE", "OPENCV", 1))
    with pytest.raises(InputError, match=r"cameras.txt: camera 1 is OPENCV, expected SIMPLE_PINHOLE or PINHOLE"):
        read_scenes(tmp_path / "one")


@pytest.mark.parametrize("keep", [0, 5, 100, 900])
def test_a_damaged_model_is_an_input_error(write_colmap: Callable[..., Path], tmp_path: Path, keep: int) -> None:
    for name in ("cameras.bin", "images.bin"):
        path = write_colmap(tmp_path / name, binary=True) / "sparse" / "0" / name
        path.write_bytes(path.read_bytes()[: min(keep, path.stat().st_size - 3)])
        with pytest.raises(InputError, match="is no COLMAP model or damaged"):
            read_scenes(tmp_path / name)


# depth maps


def test_depth_is_read_in_every_format(tmp_path: Path) -> None:
    depth = np.array([[0.5, 2.0, 0.0], [7.5, 1.25, 60.0]], np.float32)
    Image.fromarray((1000 * depth).astype(np.uint16)).save(tmp_path / "a.png")
    np.save(tmp_path / "a.npy", np.where(depth == 0, np.nan, depth))
    (tmp_path / "a.bin").write_bytes(b"3&2&1&" + np.where(depth == 0, -1, depth).astype("<f4").tobytes())
    for name in ("a.png", "a.npy", "a.bin"):
        found = read_depth(str(tmp_path / name), 1e-3)
        assert found.dtype == np.float32
        assert np.allclose(found, depth)


@pytest.mark.parametrize("name", ["a.png", "a.npy", "a.h5", "a.bin"])
def test_what_is_no_depth_map_is_named(tmp_path: Path, name: str) -> None:
    if name == "a.h5":
        pytest.importorskip("h5py")
    with pytest.raises(InputError, match=rf"the depth map .*{name} does not exist"):
        read_depth(str(tmp_path / name), 1.0)
    (tmp_path / name).write_bytes(b"nothing of the kind")
    with pytest.raises(InputError, match=rf"{name} is no depth map"):
        read_depth(str(tmp_path / name), 1.0)
    Image.new("RGB", (4, 4)).save(tmp_path / "a.png")
    np.save(tmp_path / "b.npy", np.zeros((2, 2, 2)))
    with pytest.raises(InputError, match="its mode is RGB, expected 16 bits"):
        read_depth(str(tmp_path / "a.png"), 1.0)
    with pytest.raises(InputError, match=r"has shape \(2, 2, 2\)"):
        read_depth(str(tmp_path / "b.npy"), 1.0)


def test_without_h5py_the_extra_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "a.h5").write_bytes(b"")
    monkeypatch.setitem(__import__("sys").modules, "h5py", None)
    with pytest.raises(InputError, match=r"a.h5 needs h5py: pip install 'tiepoint\[sfm\]'"):
        read_depth(str(tmp_path / "a.h5"), 1.0)


# views


@pytest.mark.parametrize(("size", "at"), [((64, 96), 0.0), ((64, 96), 1.0), ((96, 64), 0.3), ((192, 256), 0.5)])
def test_a_crop_keeps_the_camera(posed: Path, posed_scenes: list[list[Any]], size: tuple[int, int], at: float) -> None:
    """A place in space is where the cut intrinsics put it: its colour and depth are those of the whole image."""
    scene = read_scenes(posed)[0]
    photo, depth, K = read_view(scene, 0, size, at=at)
    assert photo.shape == (3, *size)
    assert depth.shape == size
    view = posed_scenes[0][0]
    rows, columns = np.mgrid[6 : size[0] - 6 : 5, 6 : size[1] - 6 : 5].reshape(2, -1)
    whole = (view.K @ np.linalg.inv(K) @ np.stack((columns, rows, np.ones_like(rows)))).T[:, :2]
    told = torch.from_numpy(view.image.copy()).permute(2, 0, 1).unsqueeze(0).float()
    expected = warp_image(told, torch.from_numpy(whole).float().reshape(1, 1, -1, 2))[0, :, 0]
    assert (photo[:, rows, columns].float() - expected).abs().mean() < 8  # of 255; shrinking averages
    u, v = whole.round().astype(int).T
    assert np.median(np.abs(depth[rows, columns] / view.depth[v, u] - 1)) < 0.005


def test_training_crops_move_and_held_out_ones_do_not(posed: Path) -> None:
    scenes = read_scenes(posed)
    views = PosedViews(scenes, (64, 64))
    first, second = views[Draw(3, 0)], views[Draw(3, 1)]
    assert torch.equal(views[Draw(3, 0)]["photo0"], first["photo0"])
    assert not torch.equal(first["photo0"], second["photo0"])
    assert not torch.equal(first["K0"], second["K0"])
    assert torch.equal(first["T_0to1"], second["T_0to1"])
    assert first["photo0"].dtype == torch.uint8
    held_out = PosedViews(scenes, (64, 64), held_out=True)
    assert torch.equal(held_out[Draw(3, 0)]["photo0"], held_out[3]["photo0"])


def test_a_depth_map_or_camera_of_another_image_is_refused(posed: Path, tmp_path: Path) -> None:
    folder = shutil.copytree(posed, tmp_path / "set")
    Image.fromarray(np.ones((128, 96), np.uint16)).save(folder / "a0_depth.png")
    with pytest.raises(InputError, match=r"a0_depth.png has 96×128 px, and the image is 128×96"):
        read_view(read_scenes(folder)[0], 0, SIZE, at=0.5)


# splits, order


def test_scenes_are_held_out_as_a_whole(posed: Path, tmp_path: Path) -> None:
    scenes = read_scenes(posed)
    splits = split_scenes(scenes, held_out=0.05)
    assert sorted(scene.name for split in splits.values() for scene in split) == ["a", "b", "c"]
    assert {name: len(split) for name, split in splits.items()} == {"train": 1, "val": 1, "test": 1}
    again = split_scenes(scenes[::-1], held_out=0.05)
    assert [scene.name for scene in again["val"]] == [scene.name for scene in splits["val"]]


def test_of_few_scenes_pairs_are_held_out_with_a_warning(posed: Path) -> None:
    scenes = read_scenes(posed)[:2]
    lines = said(lambda: split_scenes(scenes, held_out=0.1), "WARNING")
    assert lines == ["fewer than 3 scenes: validation and test show what training shows, in other pairs"]
    splits = split_scenes(scenes, held_out=0.1)
    pairs = [scene.images[i] + scene.images[j] for split in splits.values() for scene in split for i, j in scene.pairs]
    assert len(pairs) == len(set(pairs)) == 20
    few = [scenes[0].chosen(np.array([0, 1]))]
    assert any("only 2 pairs" in line for line in said(lambda: split_scenes(few, held_out=0.1), "WARNING"))


def test_held_out_pairs_come_evenly_from_all_scenes(posed: Path) -> None:
    scenes = read_scenes(posed)
    scenes[1] = scenes[1].chosen(np.array([4]))
    assert [len(scene) for scene in balanced(scenes, 7)] == [3, 1, 3]
    assert [len(scene) for scene in balanced(scenes, 100)] == [10, 1, 10]
    assert np.array_equal(balanced(scenes, 7)[0].pairs, balanced(scenes, 7)[0].pairs)


def test_an_epoch_draws_as_many_pairs_from_every_scene(posed: Path) -> None:
    data = ready(posed, epoch_pairs=18, batch_size=3)
    scenes = read_scenes(posed)
    data.splits["train"] = [scenes[0], scenes[1].chosen(np.arange(2)), scenes[2]]
    drawn = [draw.sample for draw in data.train_dataloader().sampler]
    assert len(drawn) == 18
    assert [sum(low <= each < high for each in drawn) for low, high in ((0, 10), (10, 12), (12, 22))] == [6, 6, 6]
    assert len({each for each in drawn if each < 10}) == 6  # none twice, where there are enough
    data.epoch_pairs = None
    assert len(list(data.train_dataloader().sampler)) == 21  # no more than there are


def test_processes_draw_different_pairs(posed: Path) -> None:
    progress = SimpleNamespace(total=SimpleNamespace(processed=0), current=SimpleNamespace(processed=0))
    drawn = []
    for rank in range(2):
        data = ready(posed, epoch_pairs=8)
        loop = SimpleNamespace(epoch_loop=SimpleNamespace(batch_progress=progress))
        data.trainer = SimpleNamespace(world_size=2, global_rank=rank, fit_loop=loop)  # type: ignore[assignment]
        drawn += [draw.sample for draw in data.train_dataloader().sampler]
    assert len(drawn) == len(set(drawn)) == 8


# batches


def test_training_pairs_change_their_light_and_held_out_ones_do_not(posed: Path) -> None:
    torch.manual_seed(0)
    data = ready(posed, epoch_pairs=8)
    trained = served(data, data.train_dataloader())
    assert (trained["image0"] - trained["clean0"]).abs().mean() > 0.03
    plain = served(ready(posed, photometric=0.0, epoch_pairs=8), data.train_dataloader())
    assert torch.equal(plain["image0"], data.on_after_batch_transfer(plain, 0)["image0"])  # made already
    held_out = served(data, data.val_dataloader())
    assert torch.equal(held_out["image0"], held_out["clean0"])
    assert len(held_out["image0"]) == 5
    for name in ("image0", "depth0", "warp_0to1"):
        assert torch.equal(served(data, data.val_dataloader())[name], held_out[name])
    assert held_out["posed"].all()
    assert not held_out["planar"].any()


def test_a_checkpoint_of_other_scenes_is_told(posed: Path) -> None:
    data = ready(posed)
    other = ready(posed, overlap=(0.0, 0.3))
    assert said(lambda: data.load_state_dict(data.state_dict())) == []
    lines = said(lambda: data.load_state_dict(other.state_dict()))
    assert lines == ["the pairs differ from those of the checkpoint: the split may have moved"]


@pytest.mark.skipif(
    not (REAL / "pairs.json").is_file(), reason=f"the posed pairs are not in {REAL} (set TIEPOINT_DATA)"
)
def test_depth_of_real_photographs_leads_to_where_sift_finds_them() -> None:
    import cv2

    scenes = read_scenes(REAL)
    data, views = make(REAL, size=(320, 416)), PosedViews(scenes, (320, 416), held_out=True)
    batch = data.on_after_batch_transfer(default_collate([views[index] for index in range(3)]), 0)
    sift = cv2.SIFT_create()
    for index, (least, covisible) in enumerate(((60, 0.6), (30, 0.45), (10, 0.35))):
        images = [(255 * batch[f"image{side}"][index, 0]).byte().numpy() for side in (0, 1)]
        (points0, found0), (points1, found1) = (sift.detectAndCompute(image, None) for image in images)
        matches = cv2.BFMatcher(crossCheck=True).match(found0, found1)
        here = torch.tensor([points0[match.queryIdx].pt for match in matches])
        there = torch.tensor([points1[match.trainIdx].pt for match in matches])
        pair = slice(index, index + 1)
        moved, seen = warp_points(here.unsqueeze(0), batch["warp_0to1"][pair], batch["covisible0"][pair])
        error = (moved[0] - there).norm(dim=1)[seen[0]]
        assert (error < 1.5).sum() >= least
        assert error[error < 5].median() < 0.5  # the list says 0.5, 0.5 and 0.6 px, of the whole images
        assert batch["covisible0"][index].float().mean() > covisible


# through the command line

QUICK = [
    *("--data.size", "[64, 64]", "--data.batch_size", "2", "--data.held_out_pairs", "2", "--data.num_workers", "0"),
    *("--model.max_keypoints", "32", "--trainer.accelerator", "cpu", "--trainer.precision", "32-true"),
    *("--trainer.max_steps", "2", "--trainer.val_check_interval", "2", "--trainer.logger.version", "mine"),
]
RECIPE = str(Path(__file__).parents[2] / "recipes" / "posed.yaml")


@pytest.mark.parametrize("layout", ["posed", "megadepth", "scannet", "colmap"])
def test_every_layout_trains(layout: str, request: pytest.FixtureRequest, tmp_path: Path) -> None:
    folder = str(request.getfixturevalue(layout))
    where = ["--trainer.logger.save_dir", str(tmp_path), "--data.overlap", "[0.1, 1.0]"]
    small = ["--model.detections", "20", "--model.random_points", "10"]
    assert main(["fit", "--config", RECIPE, "--data.folder", folder, *QUICK, *where, *small]) == 0
    log = (tmp_path / "mine" / "run.log").read_text()
    assert "step 2: accuracy" in log
    assert "pose_auc@10" in log
    assert (tmp_path / "mine" / "pairs" / "000000.png").is_file()
    checkpoint = ["--ckpt_path", str(tmp_path / "mine" / "last.ckpt")]
    if layout == "posed":
        again = ["--trainer.logger.save_dir", str(tmp_path), "--trainer.logger.version", "t", "--data.num_workers", "0"]
        assert main(["test", *checkpoint, "--data.folder", folder, *again]) == 0
        assert "accuracy" in (tmp_path / "t" / "run.log").read_text()


def test_a_matcher_by_attention_trains_on_them(posed: Path, tmp_path: Path) -> None:
    small = ["--model.matcher", "AttentionMatcher", "--model.matcher.dim", "64", "--model.matcher.layers", "1"]
    task = ["--model", "AttentionTask", *small, "--model.keypoints", "48", "--data", "PosedPairs"]
    where = [
        "--data.folder",
        str(posed),
        "--trainer.logger.save_dir",
        str(tmp_path),
        "--trainer.num_sanity_val_steps=0",
    ]
    assert main(["fit", *task, *where, *QUICK, "--trainer.check_val_every_n_epoch", "null"]) == 0
    assert "step 2: accuracy" in (tmp_path / "mine" / "run.log").read_text()


def broken(posed: Path, folder: Path, change: Callable[[dict[str, Any]], None]) -> Path:
    shutil.copytree(posed, folder)
    listed = json.loads((posed / "pairs.json").read_text())
    for entry in listed["pairs"]:
        change(entry)
    (folder / "pairs.json").write_text(json.dumps(listed))
    return folder


@pytest.mark.parametrize(
    ("change", "named"),
    [
        (lambda e: e.update(depth1="lost.png"), "the depth map {folder}/lost.png does not exist"),
        (lambda e: e.update(image1="lost.png"), "lost.png, which does not exist"),
        (lambda e: e.update(depth0="pairs.json"), "pairs.json ends in '.json', expected one of .png"),
        (lambda e: e["K0"].__setitem__(0, [0.0, 0.0, 0.0]), "K0 is singular"),
        (lambda e: e["T_0to1"].__setitem__(0, [2.0, 0.0, 0.0, 0.0]), "T_0to1 is not rigid"),
        (lambda e: e.update(overlap="much"), "overlap is no number"),
        (lambda e: e.update(overlap=0.85), "none of 30 pairs with overlaps from 0.85 to 0.85"),
    ],
)
def test_bad_data_is_one_line(
    change: Callable[[dict[str, Any]], None],
    named: str,
    posed: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    folder = broken(posed, tmp_path / "set", change)
    assert main(["fit", "--data", "PosedPairs", "--data.folder", str(folder), "--trainer.logger", "false"]) == 2
    last = capsys.readouterr().err.splitlines()[-1]
    assert last.startswith("tiepoint: ")
    assert named.format(folder=folder) in last


def test_an_image_that_a_worker_cannot_read_is_one_line(
    posed: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    folder = shutil.copytree(posed, tmp_path / "set")
    train = ready(folder).splits["train"][0].name
    for view in range(2, 5):  # the first pair, of views 0 and 1, is read before any worker starts
        path = folder / f"{train}{view}.png"
        path.write_bytes(path.read_bytes()[:2000])
    args = ["--data", "PosedPairs", "--data.folder", str(folder), "--trainer.logger", "false", "--data.size=[64,64]"]
    assert main(["fit", *args, "--data.num_workers", "1", "--trainer.accelerator", "cpu"]) == 2
    last = capsys.readouterr().err.splitlines()[-1]
    assert last.startswith("tiepoint: ")
    assert re.search(rf"{train}[234]\.png", last)


@pytest.mark.parametrize(
    ("option", "named"),
    [
        ({"size": (100, 64)}, "multiples of 32"),
        ({"overlap": (0.7, 0.1)}, "the smaller one first"),
        ({"tolerance": 0.0}, "between 0 and 1"),
        ({"held_out": 0.6}, "between 0 and 0.5"),
        ({"batch_size": 0}, "1 or more"),
        ({"held_out_pairs": 0}, "1 or more"),
        ({"epoch_pairs": 0}, "1 or more"),
        ({"photometric": 2.0}, "0 to 1"),
    ],
)
def test_options_out_of_range_are_told(posed: Path, option: dict[str, Any], named: str) -> None:
    with pytest.raises(InputError, match=named):
        make(posed, **option)
