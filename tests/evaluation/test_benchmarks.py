"""The readers of sequences and of pair lists, through the benchmarks that offer them."""

import json
import os
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from loguru import logger
from PIL import Image

from tiepoint.errors import InputError
from tiepoint.evaluation.benchmarks import available, benchmark
from tiepoint.evaluation.pairs import HomographyPair, PairList, PointPair, PosePair

K = "50 0 32 0 55 24 0 0 1"
T = "0 0 1 0.5 0 1 0 -1 -1 0 0 2 0 0 0 1"
R_AND_T = "0 0 1 0 1 0 -1 0 0 0.5 -1 2"
LINE = f"a.png b.png 0 0 {K} {K} {T}"
DATA = Path(os.environ.get("TIEPOINT_DATA", Path(__file__).parents[3] / "shared" / "data"))


def picture(path: Path, width: int = 64, height: int = 48) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("L", (width, height)).save(path)


def read(name: str, folder: Path, *, strict: bool = True) -> PairList:
    return benchmark(name).read(folder, strict)


@pytest.fixture
def sequences(tmp_path: Path) -> Path:
    for name, count in (("v_two", 2), ("i_many", 11)):
        for k in range(1, count + 1):
            picture(tmp_path / name / f"{k}.ppm")
        for k in range(2, count + 1):
            (tmp_path / name / f"H_1_{k}").write_text(f"1 0 {k}\n0 1 0.5\n\n0 0 1e0\n")
        (tmp_path / name / "corrs_1_2.txt").write_text("1 2 3 4\n5 6 7.5 8\n")
    return tmp_path


@pytest.fixture
def images(tmp_path: Path) -> Path:
    for name in ("a.png", "b.png"):
        picture(tmp_path / name)
    return tmp_path


def entry(**changes: Any) -> dict[str, Any]:
    intrinsics = np.reshape(K.split(), (3, 3)).astype(float).tolist()
    pose = np.reshape(T.split(), (4, 4)).astype(float).tolist()
    base = {"image0": "a.png", "image1": "b.png", "K0": intrinsics, "K1": intrinsics, "T_0to1": pose}
    return {key: value for key, value in (base | changes).items() if value is not None}


def pairs_json(*entries: object) -> str:
    return json.dumps({"pairs": entries})


@pytest.mark.parametrize("name", available())
def test_every_benchmark_states_terms_and_refuses_a_wrong_folder(name: str, tmp_path: Path) -> None:
    found = benchmark(name)
    assert found.licence
    assert found.source
    assert len(found.limits) >= 3
    (tmp_path / "other" / "deeper").mkdir(parents=True)
    for strict in (True, False):
        for folder in (tmp_path, tmp_path / "nowhere"):
            with pytest.raises(InputError, match=rf"^{re.escape(str(folder))}.*expected") as caught:
                found.read(folder, strict)
            assert "\n" not in str(caught.value)


def test_an_unknown_benchmark_is_answered_by_the_known_ones() -> None:
    with pytest.raises(InputError, match=r"no benchmark 'oxford', expected one of .*hard, homography, hpatches"):
        benchmark("oxford")


def test_homographies_come_by_sequence_and_number(sequences: Path) -> None:
    pairs = read("homography", sequences).pairs
    assert [pair.name for pair in pairs] == [*(f"i_many/1-{k}" for k in range(2, 12)), "v_two/1-2"]
    ninth = pairs[8]
    assert isinstance(ninth, HomographyPair)
    assert (ninth.path0, ninth.path1) == (sequences / "i_many" / "1.ppm", sequences / "i_many" / "10.ppm")
    np.testing.assert_array_equal(ninth.H_0to1, [[1, 0, 10], [0, 1, 0.5], [0, 0, 1]])


def test_hpatches_leaves_eight_sequences_to_others(sequences: Path) -> None:
    lines: list[str] = []
    sink = logger.add(lines.append, format="{level} {message}")
    (sequences / "i_many").rename(sequences / "i_dc")
    release = sequences / "hpatches-sequences-release"
    release.mkdir()
    for name in ("i_dc", "v_two"):
        (sequences / name).rename(release / name)
    assert [pair.name for pair in read("hpatches", sequences).pairs] == ["v_two/1-2"]
    assert [pair.name for pair in read("hpatches", release).pairs] == ["v_two/1-2"]
    assert len(read("homography", release).pairs) == 11
    logger.remove(sink)
    assert len(lines) == 2
    assert re.match(r"WARNING .* holds 1 pairs, published were 540", lines[0])


def test_marked_points(sequences: Path) -> None:
    pairs = read("hard", sequences).pairs
    assert [pair.name for pair in pairs] == ["i_many/1-2", "v_two/1-2"]
    assert isinstance(pairs[1], PointPair)
    np.testing.assert_array_equal(pairs[1].points0, [[1, 2], [5, 6]])
    np.testing.assert_array_equal(pairs[1].points1, [[3, 4], [7.5, 8]])


def test_marked_points_in_the_published_layout(tmp_path: Path) -> None:
    for pair in ("WGABS/kremlin", "WLABS/petrzin"):
        picture(tmp_path / pair / "01.png")
        picture(tmp_path / pair / "02.png")
        (tmp_path / pair / "corrs.txt").write_text("1 2 3 4\n")
        (tmp_path / pair / "crossval_errors.txt").write_text("0.5\n")
    (found,) = read("hard", tmp_path).pairs  # petrzin is for validation
    assert (found.name, found.path1) == ("WGABS/kremlin/1-2", tmp_path / "WGABS" / "kremlin" / "02.png")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("1 0 0\n0 1\n0 0 1", r"H_1_2:2 has 2 fields, expected 3"),
        ("1 0 0\n0 1 0\n0 x 1", r"H_1_2:3 is malformed: .*'x'"),
        ("1 0 0\n0 nan 0\n0 0 1", r"H_1_2:2 holds a number that is not finite"),
        ("1 0 0\n0 1 0", r"H_1_2 has 2 lines of numbers, expected 3"),
        ("1 0 0\n0 0 0\n0 0 1", r"H_1_2 is singular \(its determinant is 0\)"),
        ("1e300 2e300 0\n1e300 2e300 0\n0 0 1", r"H_1_2 is singular"),
        ("\n", r"H_1_2 is empty"),
        (b"\xff\xd8\xff", r"H_1_2 is not a text file"),
    ],
)
def test_a_malformed_homography_is_named_or_left_out(sequences: Path, content: str | bytes, message: str) -> None:
    (sequences / "v_two" / "H_1_2").write_bytes(content if isinstance(content, bytes) else content.encode())
    with pytest.raises(InputError, match=message):
        read("homography", sequences)
    found = read("homography", sequences, strict=False)
    assert len(found.pairs) == 10
    (sentence,) = found.left_out
    assert re.search(message, sentence)


def test_a_tiny_but_invertible_homography_is_none_of_them(sequences: Path) -> None:
    (sequences / "v_two" / "H_1_2").write_text("1e-9 0 0\n0 1e-9 0\n0 0 1e-9\n")
    assert read("homography", sequences).left_out == []


def test_missing_and_broken_images_of_a_sequence(sequences: Path) -> None:
    (sequences / "i_many" / "4.ppm").unlink()
    (sequences / "i_many" / "5.ppm").write_text("no picture")
    picture(sequences / "i_many" / "6.png")
    found = read("homography", sequences, strict=False)
    assert len(found.pairs) == 8
    assert re.search(r"i_many holds 0 files 4\.\*, expected exactly one image", found.left_out[0])
    assert re.search(r"5\.ppm is not an image", found.left_out[1])
    assert re.search(r"i_many holds 2 files 6\.\*", found.left_out[2])


def test_a_sequence_without_homography_is_left_out(sequences: Path) -> None:
    (sequences / "v_two" / "H_1_2").unlink()
    assert re.search("v_two holds no homography", read("homography", sequences, strict=False).left_out[0])


def test_malformed_missing_and_misplaced_points(sequences: Path) -> None:
    path = sequences / "v_two" / "corrs_1_2.txt"
    for content, message in (
        ("1 2 3 4\n1 2 3\n", r"corrs_1_2.txt:2 has 3 fields, expected 4"),
        ("1 2 3 4\n1 2 60 70\n", r"corrs_1_2.txt marks \(60, 70\), but .*2.ppm is 64×48 px"),
    ):
        path.write_text(content)
        with pytest.raises(InputError, match=message):
            read("hard", sequences)
        assert re.search(message, read("hard", sequences, strict=False).left_out[0])
    path.unlink()
    with pytest.raises(InputError, match=r"corrs_1_2.txt cannot be read: No such file"):
        read("hard", sequences)


def test_a_set_of_which_nothing_is_usable_is_no_set(sequences: Path) -> None:
    for path in sequences.glob("*/1.ppm"):
        path.unlink()
    with pytest.raises(InputError, match=r"holds no usable pair, the first of 11: .*i_many holds 0 files 1\.\*"):
        read("homography", sequences, strict=False)


def test_the_pair_lists_of_superglue_gluefactory_and_json_agree(images: Path) -> None:
    texts = {
        "superglue.txt": f"# a comment\n{LINE}\r\n\n{LINE}\n",
        "scannet.txt": f"\ufeff{LINE}\na.png b.png {K} {K} {T}",
        "megadepth.txt": f"{LINE}\na.png b.png {K} {K} {R_AND_T}",
        "list.json": pairs_json(entry(), entry(size0=[48, 64])),
    }
    for name, text in texts.items():
        (images / name).write_bytes(text.encode())
        found = read("pose", images / name)
        assert found.left_out == []
        assert len(found.pairs) == 2
        for pair in found.pairs:
            assert isinstance(pair, PosePair)
            assert (pair.name, pair.path0, pair.path1) == ("a.png b.png", images / "a.png", images / "b.png")
            np.testing.assert_array_equal(pair.K0, [[50, 0, 32], [0, 55, 24], [0, 0, 1]])
            np.testing.assert_array_equal(pair.K1, pair.K0)
            np.testing.assert_array_equal(pair.T_0to1, np.reshape(T.split(), (4, 4)).astype(float))


@pytest.mark.parametrize("name", ["pairs_superglue.txt", "pairs.json", "pairs_calibrated.txt"])
def test_a_folder_s_list_may_write_paths_from_the_folder_or_its_parent(
    images: Path, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    picture(images / "lists" / "b.png")
    (images / "lists" / name).write_text(pairs_json(entry()) if name.endswith("json") else LINE)
    (pair,) = read("pose", images / "lists").pairs
    assert (pair.path0, pair.path1) == (images / "a.png", images / "lists" / "b.png")
    monkeypatch.chdir(images / "lists")
    (pair,) = read("pose", Path(name)).pairs
    assert (pair.path0, pair.path1) == (images / "a.png", Path("b.png"))


@pytest.mark.parametrize(
    ("line", "message"),
    [
        (LINE.rsplit(" ", 1)[0], r"list.txt:2 has 37 fields, expected 38 \(image0 image1 rot0 rot1 K0\(9\)"),
        (LINE.replace("55", "one", 1), r"list.txt:2 is malformed: .*'one'"),
        (LINE.replace("55", "inf", 1), r"list.txt:2 holds a number that is not finite"),
        (LINE.replace("png 0 0", "png 0 1"), r"list.txt:2 turns its images by 0 and 1 quarters"),
        (LINE.replace("55", "-55", 1), r"list.txt:2, K0 is \[\[.* expected \[\[fx, skew, cx\]"),
        (LINE.replace(K, K.replace("50", "0"), 1), r"list.txt:2, K0 is singular: \[\[0"),
        (
            LINE.replace("32", "70", 1),
            r"list.txt:2, K0 puts the principal point at \(70, 24\), but .*a.png is 64×48 px",
        ),
        (LINE.replace("32 0 55 24", "16 0 55 12", 1), r"K0 puts the principal point at \(16, 12\)"),
        (LINE.replace(T, "2" + T[1:]), r"list.txt:2, T_0to1 is not rigid"),
        (LINE.replace(T, "1e300" + T[1:]), r"list.txt:2, T_0to1 is not rigid"),
        (LINE.replace(T, T[:-1] + "2"), r"list.txt:2, T_0to1 is not rigid"),
        (LINE.replace(T, "0 0 1 0 0 1 0 0 1 0 0 0 0 0 0 1"), r"list.txt:2, T_0to1 is not rigid"),  # a reflection
        (LINE.replace("b.png", "c.png"), r"list.txt:2 names the image .*c.png, which does not exist"),
        (LINE.replace("b.png", "list.txt"), r"list.txt is not an image"),
        (LINE.replace("b.png", "c" * 5000), r"list.txt:2 names the image .*ccc, which does not exist"),
    ],
)
def test_a_malformed_line_is_named_or_left_out(images: Path, line: str, message: str) -> None:
    (images / "list.txt").write_text(f"{LINE}\n{line}\n{LINE}\n")
    with pytest.raises(InputError, match=message):
        read("pose", images / "list.txt")
    found = read("pose", images / "list.txt", strict=False)
    assert len(found.pairs) == 2
    (sentence,) = found.left_out
    assert re.search(message, sentence)


def test_a_camera_may_look_beside_the_middle_and_have_skew(images: Path) -> None:
    (images / "list.txt").write_text(LINE.replace(K, "50 0.5 12 0 55 30 0 0 1"))
    (pair,) = read("pose", images / "list.txt").pairs
    assert isinstance(pair, PosePair)
    assert pair.K1[0, 1] == 0.5


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"K1": None}, r"list.json, pair 2 lacks K1"),
        ({"K0": [[1, 2], [3]]}, r"pair 2, K0 is no matrix of numbers, expected 3 x 3"),
        ({"K0": [[10**400] * 3] * 3}, r"pair 2, K0 is no matrix of numbers"),
        ({"T_0to1": [1, 2]}, r"pair 2, T_0to1 has shape \(2,\), expected 4 x 4"),
        ({"T_0to1": np.full((4, 4), np.nan).tolist()}, r"pair 2, T_0to1 holds a number that is not finite"),
        ({"image1": "c.png"}, r"pair 2 names the image .*c.png"),
        ({"image1": "\ud800"}, r"pair 2 names the image .*\\ud800, which does not exist"),
        ({"image1": 7}, r"pair 2 names the images 'a.png' and 7, expected two paths"),
        (
            {"size1": [480, 640]},
            r"pair 2, size1 is \[480, 640\], but .*b.png is \[48, 64\]: expected \[height, width\]",
        ),
    ],
)
def test_a_malformed_entry_is_named_or_left_out(images: Path, changes: dict[str, Any], message: str) -> None:
    (images / "list.json").write_text(pairs_json(entry(), entry(**changes)))
    with pytest.raises(InputError, match=message):
        read("pose", images / "list.json")
    (sentence,) = read("pose", images / "list.json", strict=False).left_out
    assert re.search(message, sentence)
    sentence.encode("utf-8")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ('{"pairs": [\n{]}', r"list.json:2 is not JSON"),
        ("[" * 100_000, r"list.json cannot be read as JSON"),
        ("9" * 5000, r"list.json cannot be read as JSON"),
        ("[]", r'list.json holds no list "pairs"'),
        ('{"pairs": []}', r"list.json holds no usable pair, expected some"),
        (pairs_json(3), r"list.json holds no usable pair, the first of 1: .*pair 1 lacks image0, image1"),
    ],
)
def test_a_list_that_cannot_be_read_at_all_is_never_left_out(images: Path, content: str, message: str) -> None:
    (images / "list.json").write_text(content)
    with pytest.raises(InputError, match=message):
        read("pose", images / "list.json", strict=False)


def test_an_empty_list_and_a_file_that_is_no_text(images: Path) -> None:
    (images / "list.txt").write_text("\n# nothing\n")
    with pytest.raises(InputError, match=r"list.txt holds no usable pair, expected some"):
        read("pose", images / "list.txt", strict=False)
    with pytest.raises(InputError, match=r"a.png is not a text file"):
        read("pose", images / "a.png", strict=False)


def damaged(text: str) -> st.SearchStrategy[str]:
    """Strategy: the text with up to four stretches replaced by something else."""
    scraps = st.sampled_from(["nan", "-inf", "1e999", "0", " ", "\n", "..", "{", "]", "null", '"', "9" * 400, "true"])
    edit = st.tuples(st.integers(0, len(text)), st.integers(0, 40), scraps | st.text(max_size=6))

    def apply(edits: list[tuple[int, int, str]]) -> str:
        result = text
        for start, length, scrap in edits:
            result = result[:start] + scrap + result[start + length :]
        return result

    return st.lists(edit, min_size=1, max_size=4).map(apply)


@pytest.fixture(scope="module")
def workshop(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder in which one file after the other is damaged."""
    folder = tmp_path_factory.mktemp("workshop")
    for path in (folder / "a.png", folder / "b.png", folder / "set" / "s" / "1.png", folder / "set" / "s" / "2.png"):
        picture(path)
    for path in (folder / "set" / "s" / "H_1_2", folder / "set" / "s" / "corrs_1_2.txt"):
        path.touch()
    return folder


def check_damaged(name: str, source: Path, file: Path, text: str) -> None:
    """Whatever the file holds, the answer is pairs with finite truth, or one sentence."""
    file.write_text(text, encoding="utf-8", errors="surrogatepass")
    for strict in (True, False):
        sentences, pairs = [], []
        try:
            pairs, sentences = read(name, source, strict=strict)
            assert pairs
        except InputError as error:
            sentences = [str(error)]
        assert all(sentence.startswith(str(source)) for sentence in sentences)
        assert not (strict and pairs and sentences)
        for pair in pairs:
            truth = [value for key in pair.__slots__ if isinstance(value := getattr(pair, key), np.ndarray)]
            assert truth
            assert all(np.isfinite(value).all() for value in truth)


@settings(max_examples=150, deadline=None)
@given(text=damaged(f"{LINE}\na.png b.png {K} {K} {R_AND_T}\n"))
def test_no_damage_to_a_text_list_is_a_traceback(workshop: Path, text: str) -> None:
    check_damaged("pose", workshop / "list.txt", workshop / "list.txt", text)


@settings(max_examples=150, deadline=None)
@given(text=damaged(pairs_json(entry(), entry(size1=[48, 64]))))
def test_no_damage_to_a_json_list_is_a_traceback(workshop: Path, text: str) -> None:
    check_damaged("pose", workshop / "list.json", workshop / "list.json", text)


@settings(max_examples=100, deadline=None)
@given(text=damaged("1 0 3\n0 1.5 2\n1e-5 0 1\n"))
def test_no_damage_to_a_homography_is_a_traceback(workshop: Path, text: str) -> None:
    check_damaged("homography", workshop / "set", workshop / "set" / "s" / "H_1_2", text)


@settings(max_examples=100, deadline=None)
@given(text=damaged("1 2 3 4\n10 20 30 40.5\n"))
def test_no_damage_to_marked_points_is_a_traceback(workshop: Path, text: str) -> None:
    check_damaged("hard", workshop / "set", workshop / "set" / "s" / "corrs_1_2.txt", text)


@pytest.mark.skipif(not DATA.is_dir(), reason=f"the benchmark pairs are not in {DATA} (set TIEPOINT_DATA)")
@pytest.mark.parametrize(("name", "count"), [("pose", 83), ("homography", 21), ("hard", 8), ("multimodal", 24)])
def test_the_shared_sets_are_complete(name: str, count: int) -> None:
    found = benchmark(name)
    assert len(found.read(DATA / found.folder, True).pairs) == count
