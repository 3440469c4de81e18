"""MegaDepth-1500 and ScanNet-1500 in their published layouts, made here out of known cameras."""

import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from tiepoint.errors import InputError
from tiepoint.evaluation.benchmarks import benchmark
from tiepoint.evaluation.pairs import PairList, PosePair
from tiepoint.types import Float64

SCENES = ("0022_0.1_0.3", "0015_0.1_0.3", "0015_0.3_0.5", "0022_0.3_0.5", "0022_0.5_0.7")
WORLD = np.random.default_rng(7).uniform((-1, -1, 5), (1, 1, 7), (20, 3))


def read(name: str, folder: Path, *, strict: bool = True) -> PairList:
    return benchmark(name).read(folder, strict)


def picture(path: Path, width: int, height: int) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("L", (width, height)).save(path)


def world_to_camera(angle: float, centre: tuple[float, float, float]) -> Float64:
    """A camera turned about the vertical."""
    T = np.eye(4)
    T[:3, :3] = [[np.cos(angle), 0, np.sin(angle)], [0, 1, 0], [-np.sin(angle), 0, np.cos(angle)]]
    T[:3, 3] = -T[:3, :3] @ centre
    return T


def intrinsics(width: int, height: int) -> Float64:
    return np.array([[0.9 * width, 0, (width - 1) / 2], [0, 0.9 * width, (height - 1) / 2], [0, 0, 1]])


def seen(T: Float64, points: Float64) -> Float64:
    return points @ T[:3, :3].T + T[:3, 3]


def check_pose(pair: PosePair, T0: Float64, T1: Float64) -> None:
    """What camera 0 sees is carried to what camera 1 sees."""
    np.testing.assert_allclose(seen(pair.T_0to1, seen(T0, WORLD)), seen(T1, WORLD), atol=1e-6)


CAMERAS = [world_to_camera(0.2 * k, (0.5 * k, 0.1 * k, -0.3 * k)) for k in range(3)]
SIZES = [(64, 48), (48, 64), (80, 60)]


def megadepth(folder: Path, place: str, **changes: Any) -> Path:
    """Writes LoFTR's five files, each with the pairs (0, 1) and (2, 0), and the images of their scenes."""
    names = [f"Undistorted_SfM/{{}}/images/{k}.jpg" for k in range(3)]
    infos = np.empty(2, dtype=object)
    infos[0] = (np.array([0, 1]), 0.2, np.zeros((1, 2)))
    infos[1] = ((2, 0), 0.2, None)
    (folder / place).mkdir(parents=True, exist_ok=True)
    for name in SCENES:
        scene = name[:4]
        paths = [path.format(scene) for path in names]
        for path, size in zip(paths, SIZES, strict=True):
            picture(folder / path, *size)
        index = {
            "image_paths": np.array([*paths, None], dtype=object),
            "depth_paths": np.array([None] * 4, dtype=object),
            "intrinsics": np.array([*(intrinsics(*size) for size in SIZES), None], dtype=object),
            "poses": np.array([*CAMERAS, None], dtype=object),
            "pair_infos": infos,
        }
        content = {key: value for key, value in (index | changes).items() if value is not None}
        np.savez(folder / place / f"{name}.npz", **content)
    return folder


@pytest.mark.parametrize("place", [".", "index", "index/scene_info_val_1500"])
def test_megadepth_as_loftr_publishes_it(tmp_path: Path, place: str) -> None:
    pairs = read("megadepth1500", megadepth(tmp_path, place)).pairs
    assert len(pairs) == 10
    assert pairs[0].name == "Undistorted_SfM/0022/images/0.jpg Undistorted_SfM/0022/images/1.jpg"
    assert [pair.path0.parents[1].name for pair in pairs[::2]] == [name[:4] for name in SCENES]
    for first, (pair, numbers) in enumerate(zip(pairs, [(0, 1), (2, 0)] * 5, strict=True)):
        assert isinstance(pair, PosePair), first
        check_pose(pair, *(CAMERAS[number] for number in numbers))
        for K, number in zip((pair.K0, pair.K1), numbers, strict=True):
            np.testing.assert_array_equal(K, intrinsics(*SIZES[number]))
        assert pair.path1 == tmp_path / f"Undistorted_SfM/{pair.path0.parents[1].name}/images/{numbers[1]}.jpg"


def test_megadepth_images_may_lie_where_loftr_links_them(tmp_path: Path) -> None:
    megadepth(tmp_path, "index")
    (tmp_path / "test").mkdir()
    (tmp_path / "Undistorted_SfM").rename(tmp_path / "test" / "Undistorted_SfM")
    assert len(read("megadepth1500", tmp_path).pairs) == 10


def numbered(number: Any) -> Any:
    infos = np.empty(2, dtype=object)
    infos[0], infos[1] = ((0, 1), 0.2), number
    return infos


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"pair_infos": numbered(((0, 7), 0.2))}, r"npz, pair 2 names the images 0 and 7, expected two below 4"),
        ({"pair_infos": numbered(((0, -1), 0.2))}, r"npz, pair 2 names the images 0 and -1"),
        ({"pair_infos": numbered(((0, 3), 0.2))}, r"npz, pair 2 names image 3, whose path is None, expected a text"),
        ({"pair_infos": numbered(7)}, r"npz, pair 2 is malformed: .*, expected the numbers of two images"),
        ({"pair_infos": numbered((("a", "b"),))}, r"npz, pair 2 is malformed"),
        ({"poses": np.stack([*CAMERAS[:2], np.ones((4, 4)), np.eye(4)])}, r"pair 2, poses\[2\] is not rigid"),
        ({"poses": np.stack([*CAMERAS[:2], np.eye(4) * np.nan, np.eye(4)])}, r"poses\[2\] holds a number that is not"),
        ({"intrinsics": np.stack([intrinsics(*SIZES[0])] * 2 + [np.eye(3) * 0] * 2)}, r"npz, pair \d, K\d"),
    ],
)
def test_an_unusable_pair_of_megadepth_is_named_or_left_out(
    tmp_path: Path, changes: dict[str, Any], message: str
) -> None:
    megadepth(tmp_path, ".", **changes)
    with pytest.raises(InputError, match=message):
        read("megadepth1500", tmp_path)
    if "intrinsics" not in changes:
        found = read("megadepth1500", tmp_path, strict=False)
        assert (len(found.pairs), len(found.left_out)) == (5, 5)
        assert re.search(message, found.left_out[0])


def test_an_incomplete_index_is_never_left_out(tmp_path: Path) -> None:
    megadepth(tmp_path, "a", poses=None)
    with pytest.raises(InputError, match=r"0022_0.1_0.3.npz lacks poses, expected image_paths, intrinsics"):
        read("megadepth1500", tmp_path, strict=False)
    megadepth(tmp_path / "c", ".", pair_infos=np.array(7))
    with pytest.raises(InputError, match=r"0022_0.1_0.3.npz holds a single value as pair_infos, expected an array"):
        read("megadepth1500", tmp_path / "c", strict=False)
    megadepth(tmp_path / "b", ".")
    (tmp_path / "b" / "0015_0.3_0.5.npz").unlink()
    with pytest.raises(InputError, match=r"0015_0.3_0.5.npz cannot be read: No such file"):
        read("megadepth1500", tmp_path / "b", strict=False)


def scannet(folder: Path, *, size: tuple[int, int] = (1296, 968), scenes: str = ".", relative: bool = False) -> Path:
    """Writes LoFTR's two files with two pairs, and two scenes of ScanNet."""
    name = np.array([[707, 0, 15, 585], [806, 1, 585, 30]], dtype=np.uint16)
    rows = []
    for scene, first, second in (("scene0707_00", 15, 585), ("scene0806_01", 585, 30)):
        for frame, T in ((first, CAMERAS[0]), (second, CAMERAS[1])):
            picture(folder / scenes / scene / "color" / f"{frame}.jpg", *size)
            if not relative:
                (folder / scenes / scene / "pose").mkdir(exist_ok=True)
                np.savetxt(folder / scenes / scene / "pose" / f"{frame}.txt", np.linalg.inv(T))
        rows.append((CAMERAS[1] @ np.linalg.inv(CAMERAS[0]))[:3].ravel())
    np.savez(folder / "test.npz", name=name, **({"rel_pose": np.array(rows)} if relative else {}))
    np.savez(folder / "intrinsics.npz", scene0707_00=intrinsics(640, 480), scene0806_01=intrinsics(640, 480).ravel())
    return folder


@pytest.mark.parametrize("scenes", [".", "scannet_test_1500"])
@pytest.mark.parametrize("size", [(640, 480), (1296, 968)])
@pytest.mark.parametrize("relative", [False, True])
def test_scannet_as_loftr_publishes_it(tmp_path: Path, size: tuple[int, int], scenes: str, *, relative: bool) -> None:
    first, second = read("scannet1500", scannet(tmp_path, size=size, scenes=scenes, relative=relative)).pairs
    assert first.name == "scene0707_00/color/15.jpg scene0707_00/color/585.jpg"
    assert second.path0 == tmp_path / scenes / "scene0806_01" / "color" / "585.jpg"
    for pair in (first, second):
        assert isinstance(pair, PosePair)
        check_pose(pair, CAMERAS[0], CAMERAS[1])
        # the same rays through the pixels of the larger image: centres of pixels stay centres
        small, stored = seen(CAMERAS[0], WORLD) @ intrinsics(640, 480).T, seen(CAMERAS[0], WORLD) @ pair.K0.T
        expected = (small[:, :2] / small[:, 2:] + 0.5) * (size[0] / 640, size[1] / 480) - 0.5
        np.testing.assert_allclose(stored[:, :2] / stored[:, 2:], expected, atol=1e-6)


def test_unusable_pairs_of_scannet_are_named_or_left_out(tmp_path: Path) -> None:
    scannet(tmp_path)
    pose = tmp_path / "scene0806_01" / "pose" / "30.txt"
    for damage, message in (
        (lambda: pose.write_text("-inf " * 4), r"30.txt:1 holds a number that is not finite"),
        (lambda: pose.write_text("1 0 0 0\n" * 4), r"30.txt is not rigid"),
        (pose.unlink, r"30.txt cannot be read: No such file"),
        (lambda: picture(tmp_path / "scene0806_01/color/30.jpg", 500, 500), r"pair 2 has .*30.jpg of 500×500 px"),
        (lambda: (tmp_path / "scene0806_01/color/30.jpg").unlink(), r"pair 2 names the image .*30.jpg"),
    ):
        damage()
        with pytest.raises(InputError, match=message):
            read("scannet1500", tmp_path)
        found = read("scannet1500", tmp_path, strict=False)
        assert len(found.pairs) == 1
        assert re.search(message, found.left_out[0])


@pytest.mark.parametrize(
    ("file", "content", "message"),
    [
        ("test.npz", {"name": np.zeros((3, 2), dtype=int)}, r"test.npz holds names of shape \(3, 2\), expected rows"),
        ("test.npz", {"name": np.zeros((1, 4))}, r"test.npz holds names of shape \(1, 4\)"),
        ("test.npz", {"names": np.zeros((1, 4))}, r"test.npz holds names of shape \(0,\)"),
        (
            "test.npz",
            {"name": np.zeros((2, 4), dtype=int), "rel_pose": np.zeros((1, 12))},
            r"rel_pose of shape \(1, 12\), expected \(2, 12\)",
        ),
        ("intrinsics.npz", {"other": np.eye(3)}, r"pair 1 is of scene0707_00, which intrinsics.npz does not hold"),
        ("intrinsics.npz", {"scene0707_00": np.zeros((3, 3))}, r"pair 1, intrinsics of scene0707_00 is singular"),
        ("intrinsics.npz", {"scene0707_00": np.zeros(5)}, r"pair 1, intrinsics of scene0707_00 has shape \(5,\)"),
    ],
)
def test_malformed_index_files_of_scannet(tmp_path: Path, file: str, content: dict[str, Any], message: str) -> None:
    scannet(tmp_path)
    np.savez(tmp_path / file, **content)
    with pytest.raises(InputError, match=message):
        read("scannet1500", tmp_path, strict=False)


def row(K: Float64, T: Float64, *, rigid: bool) -> str:
    numbers = [*K.ravel(), *K.ravel(), *(T.ravel() if rigid else (*T[:3, :3].ravel(), *T[:3, 3]))]
    return " ".join(f"{number:.17g}" for number in numbers)


def test_both_sets_as_gluefactory_publishes_them(tmp_path: Path) -> None:
    T = CAMERAS[1] @ np.linalg.inv(CAMERAS[0])
    for name, images, rigid in (("megadepth1500", "images", False), ("scannet1500", ".", True)):
        for image in ("0015/a.jpg", "0015/b.jpg"):
            picture(tmp_path / name / images / image, 64, 48)
        (tmp_path / name / "pairs_calibrated.txt").write_text(
            f"0015/a.jpg 0015/b.jpg {row(intrinsics(64, 48), T, rigid=rigid)}\n"
        )
        (pair,) = read(name, tmp_path / name).pairs
        assert isinstance(pair, PosePair)
        assert pair.path1 == tmp_path / name / images / "0015/b.jpg"
        check_pose(pair, CAMERAS[0], CAMERAS[1])


@pytest.fixture(scope="module")
def published(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return scannet(tmp_path_factory.mktemp("published"), size=(128, 96))


@settings(max_examples=60, deadline=None)
@given(text=st.text(alphabet="0123456789.-+einfa \n", max_size=120))
def test_no_pose_file_is_a_traceback(published: Path, text: str) -> None:
    (published / "scene0806_01" / "pose" / "30.txt").write_text(text)
    found = read("scannet1500", published, strict=False)
    assert len(found.pairs) + len(found.left_out) == 2
    assert isinstance(found.pairs[0], PosePair)
