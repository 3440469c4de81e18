import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tiepoint.errors import InputError
from tiepoint.evaluation.homography import read_homography_pairs, read_point_pairs
from tiepoint.evaluation.pose import read_pose_pairs

K = "100 0 32 0 110 24 0 0 1"
T = "0 0 1 0.5 0 1 0 -1 -1 0 0 2 0 0 0 1"
LINE = f"a.jpg b.jpg 0 0 {K} {K} {T}"


@pytest.fixture
def sequences(tmp_path: Path) -> Path:
    for name, count in (("v_two", 2), ("i_many", 11)):
        folder = tmp_path / name
        folder.mkdir()
        for k in range(1, count + 1):
            (folder / f"{k}.ppm").touch()
        for k in range(2, count + 1):
            (folder / f"H_1_{k}").write_text(f"1 0 {k}\n0 1 0.5\n\n0 0 1e0\n")
        (folder / "corrs_1_2.txt").write_text("1 2 3 4\n5 6 7.5 8\n")
    return tmp_path


@pytest.fixture
def images(tmp_path: Path) -> Path:
    for name in ("a.jpg", "b.jpg"):
        (tmp_path / name).touch()
    return tmp_path


def entry(**changes: Any) -> dict[str, Any]:
    intrinsics = np.reshape(K.split(), (3, 3)).astype(float).tolist()
    pose = np.reshape(T.split(), (4, 4)).astype(float).tolist()
    base = {"image0": "a.jpg", "image1": "b.jpg", "K0": intrinsics, "K1": intrinsics, "T_0to1": pose}
    return {key: value for key, value in (base | changes).items() if value is not None}


def test_homography_pairs_come_by_sequence_and_number(sequences: Path) -> None:
    pairs = read_homography_pairs(sequences)
    assert [pair.name for pair in pairs] == [*(f"i_many/1-{k}" for k in range(2, 12)), "v_two/1-2"]
    assert pairs[8].path0 == sequences / "i_many" / "1.ppm"
    assert pairs[8].path1 == sequences / "i_many" / "10.ppm"
    np.testing.assert_array_equal(pairs[8].H_0to1, [[1, 0, 10], [0, 1, 0.5], [0, 0, 1]])


def test_point_pairs(sequences: Path) -> None:
    pairs = read_point_pairs(sequences)
    assert [pair.name for pair in pairs] == ["i_many/1-2", "v_two/1-2"]
    np.testing.assert_array_equal(pairs[1].points0, [[1, 2], [5, 6]])
    np.testing.assert_array_equal(pairs[1].points1, [[3, 4], [7.5, 8]])


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("1 0 0\n0 1\n0 0 1", r"H_1_2:2 has 2 fields, expected 3"),
        ("1 0 0\n0 1 0\n0 x 1", r"H_1_2:3 is malformed: .*'x'"),
        ("1 0 0\n0 nan 0\n0 0 1", r"H_1_2:2 holds a number that is not finite"),
        ("1 0 0\n0 1 0", r"H_1_2 has 2 lines of numbers, expected 3"),
        ("1 0 0\n0 0 0\n0 0 1", r"H_1_2 is singular"),
        ("\n", r"H_1_2 is empty"),
    ],
)
def test_malformed_homography(sequences: Path, content: str, message: str) -> None:
    (sequences / "v_two" / "H_1_2").write_text(content)
    with pytest.raises(InputError, match=message):
        read_homography_pairs(sequences)


def test_homography_file_that_is_not_text(sequences: Path) -> None:
    (sequences / "v_two" / "H_1_2").write_bytes(b"\xff\xd8\xff")
    with pytest.raises(InputError, match="H_1_2 is not a text file"):
        read_homography_pairs(sequences)


def test_missing_image_of_a_sequence(sequences: Path) -> None:
    (sequences / "i_many" / "4.ppm").unlink()
    with pytest.raises(InputError, match=r"i_many holds 0 files 4\.\*, expected exactly one image"):
        read_homography_pairs(sequences)


def test_sequence_without_homography(sequences: Path) -> None:
    (sequences / "v_two" / "H_1_2").unlink()
    with pytest.raises(InputError, match="v_two holds no homography"):
        read_homography_pairs(sequences)


def test_folder_without_sequences(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="holds no folder"):
        read_homography_pairs(tmp_path)
    with pytest.raises(InputError, match="nowhere is not a folder"):
        read_homography_pairs(tmp_path / "nowhere")


def test_malformed_and_missing_points(sequences: Path) -> None:
    path = sequences / "v_two" / "corrs_1_2.txt"
    path.write_text("1 2 3 4\n1 2 3\n")
    with pytest.raises(InputError, match=r"corrs_1_2.txt:2 has 3 fields, expected 4"):
        read_point_pairs(sequences)
    path.unlink()
    with pytest.raises(InputError, match=r"corrs_1_2.txt cannot be read: No such file"):
        read_point_pairs(sequences)


def test_superglue_list_and_json_agree(images: Path) -> None:
    (images / "pairs.txt").write_text(f"{LINE}\n\n{LINE}\n")
    (images / "pairs.json").write_text(json.dumps({"format": "…", "pairs": [entry(), entry()]}))
    for name in ("pairs.txt", "pairs.json"):
        pairs = read_pose_pairs(images / name)
        assert len(pairs) == 2
        pair = pairs[0]
        assert (pair.name, pair.path0, pair.path1) == ("a.jpg b.jpg", images / "a.jpg", images / "b.jpg")
        np.testing.assert_array_equal(pair.K0, [[100, 0, 32], [0, 110, 24], [0, 0, 1]])
        np.testing.assert_array_equal(pair.K1, pair.K0)
        np.testing.assert_array_equal(pair.T_0to1[:3, 3], [0.5, -1, 2])


def test_paths_start_from_the_root(images: Path) -> None:
    (images / "lists").mkdir()
    (images / "lists" / "pairs.txt").write_text(LINE)
    assert read_pose_pairs(images / "lists" / "pairs.txt", root=images)[0].path0 == images / "a.jpg"


@pytest.mark.parametrize(
    ("line", "message"),
    [
        (LINE.rsplit(" ", 1)[0], r"pairs.txt:2 has 37 fields, expected 38"),
        (LINE.replace("110", "one", 1), r"pairs.txt:2 is malformed: .*'one'"),
        (LINE.replace("110", "inf", 1), r"pairs.txt:2 holds a number that is not finite"),
        (LINE.replace("jpg 0 0", "jpg 0 1"), r"pairs.txt:2 turns an image by 0 and 1 quarters"),
        (LINE.replace("110", "-110", 1), r"pairs.txt:2, K0 is .* expected \[\[fx, 0, cx\]"),
        (LINE.replace(T, "2" + T[1:]), r"pairs.txt:2, T_0to1 is not rigid"),
        (LINE.replace(T, T[:-1] + "2"), r"pairs.txt:2, T_0to1 is not rigid"),
        (LINE.replace("b.jpg", "c.jpg"), r"pairs.txt:2 names the image .*c.jpg, which does not exist"),
    ],
)
def test_malformed_superglue_line(images: Path, line: str, message: str) -> None:
    (images / "pairs.txt").write_text(f"{LINE}\n{line}\n")
    with pytest.raises(InputError, match=message):
        read_pose_pairs(images / "pairs.txt")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ('{"pairs": [\n{]}', r"pairs.json:2 is not JSON"),
        ("[]", r'pairs.json holds no list "pairs"'),
        ('{"pairs": []}', r"pairs.json holds no pair"),
        (json.dumps({"pairs": [entry(), entry(K1=None)]}), r"pairs.json, pair 2 lacks K1"),
        (json.dumps({"pairs": [3]}), r"pairs.json, pair 1 lacks image0, image1"),
        (json.dumps({"pairs": [entry(K0=[[1, 2], [3]])]}), r"pair 1, K0 is no matrix"),
        (json.dumps({"pairs": [entry(T_0to1=[1, 2])]}), r"pair 1, T_0to1 has shape \(2,\), expected 4 x 4"),
        (json.dumps({"pairs": [entry(image1="c.jpg")]}), r"pair 1 names the image .*c.jpg"),
    ],
)
def test_malformed_json(images: Path, content: str, message: str) -> None:
    (images / "pairs.json").write_text(content)
    with pytest.raises(InputError, match=message):
        read_pose_pairs(images / "pairs.json")


def test_missing_list(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"pairs.txt cannot be read: No such file"):
        read_pose_pairs(tmp_path / "pairs.txt")
