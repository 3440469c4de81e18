import csv
import json
import re
import sys
import types
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

import tiepoint
from tiepoint import formats
from tiepoint.errors import InputError
from tiepoint.types import Matches, TwoViewGeometry

SUFFIXES = formats.available()
COORDINATES = st.floats(-1e6, 1e6, width=32)
SCORES = st.floats(0, 1, width=32)


@st.composite
def some_matches(draw: st.DrawFn) -> Matches:
    n = draw(st.integers(0, 8))
    keypoints = [draw(arrays.arrays(np.float32, (n, 2), elements=COORDINATES)) for _ in range(2)]
    scores = np.sort(draw(arrays.arrays(np.float32, n, elements=SCORES)))[::-1]
    sizes = [draw(st.tuples(st.integers(1, 9999), st.integers(1, 9999))) for _ in range(2)]
    return Matches(keypoints[0], keypoints[1], scores, sizes[0], sizes[1])


def three_matches() -> Matches:
    points = np.array([[0.1, 2], [3, 4.3], [1 / 3, 6]])
    return Matches(points, points + 0.7, [0.9, 0.3, 0.3], (480, 640), (100, 200))


def a_geometry() -> TwoViewGeometry:
    matrix = np.arange(9.0).reshape(3, 3) / 7
    inliers = np.array([True, False, True])
    return TwoViewGeometry("essential", matrix, inliers, rotation=np.eye(3), translation=np.array([0, 0.6, 0.8]))


def assert_equal(a: Matches, b: Matches) -> None:
    for name in ("keypoints0", "keypoints1", "scores"):
        assert getattr(a, name).dtype == getattr(b, name).dtype == np.float32
        assert getattr(a, name).shape == getattr(b, name).shape
        assert (getattr(a, name) == getattr(b, name)).all()
    assert (a.size0, a.size1) == (b.size0, b.size1)


def test_the_formats_are_the_files_of_the_folder() -> None:
    assert {"csv", "json", "npz"} <= set(SUFFIXES)


@pytest.mark.parametrize("suffix", ["json", "npz"])
@given(matches=some_matches())
@settings(deadline=None, max_examples=30)
def test_a_round_trip_is_exact(tmp_path_factory: pytest.TempPathFactory, suffix: str, matches: Matches) -> None:
    path = tmp_path_factory.mktemp("round") / f"matches.{suffix}"
    formats.write_matches(path, matches)
    assert_equal(formats.read_matches(path), matches)


@pytest.mark.parametrize("name", ["matches.json", "MATCHES.NPZ", "deep/er/matches.npz", "a.b.json"])
def test_names_are_kept_as_given(tmp_path: Path, name: str) -> None:
    path = tmp_path / name
    formats.write_matches(str(path), three_matches(), a_geometry(), metadata={"left": Path("a.jpg")})
    assert [each.name for each in path.parent.iterdir()] == [path.name]
    assert_equal(formats.read_matches(str(path)), three_matches())


def test_an_archive_holds_everything_without_pickle(tmp_path: Path) -> None:
    metadata = {"images": ("a.jpg", Path("b.jpg")), "seconds": np.float32(0.5), "lost": float("nan")}
    formats.write_matches(tmp_path / "m.npz", three_matches(), a_geometry(), metadata=metadata)
    with np.load(tmp_path / "m.npz", allow_pickle=False) as archive:
        assert str(archive["kind"]) == "essential"
        assert (archive["matrix"] == a_geometry().matrix).all()
        assert archive["inliers"].tolist() == [True, False, True]
        assert archive["rotation"].shape == (3, 3)
        assert archive["translation"].tolist() == [0, 0.6, 0.8]
        assert archive["size1"].tolist() == [100, 200]
        assert str(archive["tiepoint"]) == tiepoint.__version__
        kept = {"images": ["a.jpg", "b.jpg"], "seconds": 0.5, "lost": None}
        assert json.loads(str(archive["metadata"])) == kept


def test_json_holds_everything_in_plain_lists(tmp_path: Path) -> None:
    metadata = {"nested": [{"infinite": float("inf")}, np.arange(2)], "none": None, 1: True}
    formats.write_matches(tmp_path / "m.json", three_matches(), a_geometry(), metadata=metadata)
    text = (tmp_path / "m.json").read_text()
    content = json.loads(text, parse_constant=pytest.fail)
    assert content["tiepoint"] == tiepoint.__version__
    assert content["size0"] == [480, 640]
    assert content["scores"] == [0.9, 0.3, 0.3]
    assert content["keypoints0"][0] == [0.1, 2.0]
    assert content["geometry"] == {
        "kind": "essential",
        "matrix": a_geometry().matrix.tolist(),
        "inliers": [True, False, True],
        "rotation": np.eye(3).tolist(),
        "translation": [0.0, 0.6, 0.8],
    }
    assert content["metadata"] == {"nested": [{"infinite": None}, [0, 1]], "none": None, "1": True}
    assert " " not in text.strip()


@given(matches=some_matches())
@settings(deadline=None, max_examples=30)
def test_a_table_has_a_line_a_match_in_numbers_that_are_exact(
    tmp_path_factory: pytest.TempPathFactory, matches: Matches
) -> None:
    path = tmp_path_factory.mktemp("table") / "m.csv"
    formats.write_matches(path, matches, metadata={"left out": 1})
    header, *rows = list(csv.reader(path.read_text().splitlines()))
    assert header == ["x0", "y0", "x1", "y1", "score"]
    table = np.array(rows, dtype=np.float64).astype(np.float32).reshape(-1, 5)
    assert (table[:, :2] == matches.keypoints0).all()
    assert (table[:, 2:4] == matches.keypoints1).all()
    assert (table[:, 4] == matches.scores).all()


def test_a_table_says_no_more_than_the_numbers_need(tmp_path: Path) -> None:
    formats.write_matches(tmp_path / "m.csv", three_matches())
    assert (tmp_path / "m.csv").read_bytes().splitlines(keepends=True)[1] == b"0.1,2.0,0.8,2.7,0.9\n"
    with pytest.raises(InputError, match=r"\.csv, that tiepoint cannot read"):
        formats.read_matches(tmp_path / "m.csv")


@pytest.mark.parametrize("suffix", ["json", "npz"])
def test_a_geometry_without_motion_has_no_keys_for_it(tmp_path: Path, suffix: str) -> None:
    geometry = TwoViewGeometry("homography", np.eye(3), np.ones(3, dtype=bool))
    formats.write_matches(tmp_path / f"m.{suffix}", three_matches(), geometry)
    if suffix == "json":
        keys = set(json.loads((tmp_path / "m.json").read_text())["geometry"])
        assert keys == {"kind", "matrix", "inliers"}
    else:
        with np.load(tmp_path / "m.npz") as archive:
            assert {"kind", "matrix", "inliers"} < set(archive)
            assert not {"rotation", "translation"} & set(archive)


def test_the_geometry_of_other_matches_is_refused(tmp_path: Path) -> None:
    other = TwoViewGeometry("homography", np.eye(3), np.ones(2, dtype=bool))
    with pytest.raises(ValueError, match="2 inlier flags for 3 matches"):
        formats.write_matches(tmp_path / "m.json", three_matches(), other)


# failures


@pytest.mark.parametrize("name", ["matches.xyz", "matches", "matches.__init__", ".json", "matches."])
def test_an_unknown_suffix_is_an_input_error_that_lists_the_known(tmp_path: Path, name: str) -> None:
    with pytest.raises(InputError, match=r"expected one of .*\.json.*\.npz"):
        formats.write_matches(tmp_path / name, three_matches())
    with pytest.raises(InputError, match=re.escape(name)):
        formats.read_matches(tmp_path / name)


def test_a_format_that_only_writes_is_not_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(formats, "available", lambda: ["once"])
    monkeypatch.setitem(sys.modules, "tiepoint.formats.once", types.ModuleType("once"))
    with pytest.raises(InputError, match=r"\.once, that tiepoint cannot read"):
        formats.read_matches(tmp_path / "matches.once")


def test_a_missing_package_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def missing(_: str) -> Any:
        raise ModuleNotFoundError("No module named 'h5py'", name="h5py")

    monkeypatch.setattr(formats.importlib, "import_module", missing)
    with pytest.raises(InputError, match="needs the package h5py"):
        formats.read_matches(tmp_path / "matches.json")


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_a_target_that_cannot_be_written_is_an_input_error(tmp_path: Path, suffix: str) -> None:
    (tmp_path / f"m.{suffix}").mkdir()
    with pytest.raises(InputError, match="is a folder"):
        formats.write_matches(tmp_path / f"m.{suffix}", three_matches())


@pytest.mark.parametrize("suffix", ["json", "npz"])
@pytest.mark.parametrize("content", [b"", b"rubbish", b"\xff\xfe\x00", b"PK\x03\x04broken", b"[" * 100_000])
def test_a_broken_file_is_an_input_error(tmp_path: Path, suffix: str, content: bytes) -> None:
    (tmp_path / f"m.{suffix}").write_bytes(content)
    with pytest.raises(InputError, match=rf"m\.{suffix} is not a \.{suffix} file of matches"):
        formats.read_matches(tmp_path / f"m.{suffix}")


@pytest.mark.parametrize("suffix", ["json", "npz"])
def test_a_file_cut_anywhere_is_an_input_error(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"m.{suffix}"
    formats.write_matches(path, three_matches(), a_geometry())
    data = path.read_bytes()
    for length in range(1, len(data) - 1, len(data) // 20):
        path.write_bytes(data[:length])
        with pytest.raises(InputError):
            formats.read_matches(path)


@pytest.mark.parametrize("suffix", ["json", "npz"])
def test_a_missing_file_and_a_folder_are_input_errors(tmp_path: Path, suffix: str) -> None:
    with pytest.raises(InputError, match="does not exist"):
        formats.read_matches(tmp_path / f"missing.{suffix}")
    (tmp_path / f"folder.{suffix}").mkdir()
    with pytest.raises(InputError, match=f"folder.{suffix}"):
        formats.read_matches(tmp_path / f"folder.{suffix}")


@pytest.mark.parametrize(
    ("change", "found"),
    [
        ({"scores": None}, "no 'scores'"),
        ({"scores": [0.1, 0.9, 0.5]}, "must fall"),
        ({"scores": [2, 1, 0]}, "must fall and lie in"),
        ({"scores": {"a": 1}}, "not a .json file"),
        ({"keypoints0": [[1, 2]]}, "keypoints0 has shape"),
        ({"keypoints1": [[1, 2], [3, 4], [5, 1e300]]}, "not finite"),
        ({"keypoints1": [[1, 2], [3, 4], [5, float("nan")]]}, "not finite"),
        ({"keypoints0": [[1, 2], [3]]}, "not a .json file"),
        ({"size0": [1]}, "not a .json file"),
        ({"size0": 7}, "not a .json file"),
        ({"size1": ["a", 2]}, "not a .json file"),
    ],
)
def test_json_with_wrong_values_is_an_input_error(tmp_path: Path, change: dict[str, Any], found: str) -> None:
    formats.write_matches(tmp_path / "m.json", three_matches())
    content = json.loads((tmp_path / "m.json").read_text()) | change
    (tmp_path / "m.json").write_text(json.dumps({k: v for k, v in content.items() if v is not None}))
    with pytest.raises(InputError, match=found):
        formats.read_matches(tmp_path / "m.json")


@pytest.mark.parametrize(
    "change",
    [
        {"scores": None},
        {"scores": np.array([0.1, 0.9, 0.5])},
        {"scores": np.array(["a", "b", "c"])},
        {"scores": np.array([{}, {}, {}], dtype=object)},
        {"keypoints0": np.full((3, 2), np.nan)},
        {"keypoints0": np.full((3, 2), 1e300)},
        {"keypoints0": np.zeros((2, 2))},
        {"size0": np.zeros(3)},
        {"size0": np.zeros((2, 2))},
        {"size1": np.array(5)},
    ],
)
def test_an_archive_with_wrong_arrays_is_an_input_error(tmp_path: Path, change: dict[str, Any]) -> None:
    formats.write_matches(tmp_path / "m.npz", three_matches())
    with np.load(tmp_path / "m.npz") as archive:
        content = {k: v for k, v in ({**archive} | change).items() if v is not None}
    np.savez(tmp_path / "m.npz", **content)
    with pytest.raises(InputError, match=r"m\.npz is not a \.npz file of matches"):
        formats.read_matches(tmp_path / "m.npz")


def test_a_single_array_is_not_an_archive(tmp_path: Path) -> None:
    with (tmp_path / "m.npz").open("wb") as file:
        np.save(file, np.zeros(3))
    with pytest.raises(InputError, match=r"not a \.npz file"):
        formats.read_matches(tmp_path / "m.npz")
