"""Reading pickled arrays without running what a pickle says."""

import io
import os
import pickle
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tiepoint.errors import InputError
from tiepoint.evaluation.npz import read_npz

Arrays = dict[str, np.ndarray[Any, Any]]


def pair_infos() -> np.ndarray[Any, Any]:
    """As LoFTR writes them: numbers of two images, their overlap, and where the central matches are."""
    infos = np.empty(2, dtype=object)
    infos[0] = (np.array([0, 1]), np.float64(0.25), np.arange(4, dtype=np.int32).reshape(2, 2))
    infos[1] = ((1, 0), 0.5, None)
    return infos


def paths() -> np.ndarray[Any, Any]:
    return np.array(["images/ä.jpg", None, "images/b.jpg"], dtype=object)


def rewritten(path: Path, name: str, load: bytes) -> None:
    """Puts a pickle of one's own behind the header of an object array."""
    header = io.BytesIO()
    np.lib.format.write_array_header_1_0(header, {"descr": "|O", "fortran_order": False, "shape": (1,)})
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr(f"{name}.npy", header.getvalue() + load)


def test_plain_arrays_are_as_numpy_reads_them(tmp_path: Path) -> None:
    arrays: Arrays = {
        "floats": np.asfortranarray(np.arange(6.0).reshape(2, 3)),
        "big": np.arange(3, dtype=">i2"),
        "texts": np.array(["a", "bcd"]),
        "empty": np.empty((0, 4)),
        "scalar": np.array(3),
    }
    for save in (np.savez, np.savez_compressed):
        save(tmp_path / "a.npz", **arrays)
        found = read_npz(tmp_path / "a.npz")
        assert list(found) == list(arrays)
        for name, array in arrays.items():
            np.testing.assert_array_equal(found[name], array)
            assert found[name].dtype == array.dtype


def test_object_arrays_come_with_their_contents(tmp_path: Path) -> None:
    np.savez(
        tmp_path / "a.npz", infos=pair_infos(), paths=paths(), grid=np.array([[1, None], ["x", 2.5]], dtype=object)
    )
    found = read_npz(tmp_path / "a.npz")
    assert found["infos"].shape == (2,)
    first, second = found["infos"]
    np.testing.assert_array_equal(first[0], [0, 1])
    assert first[1] == 0.25
    np.testing.assert_array_equal(first[2], [[0, 1], [2, 3]])
    assert second == ((1, 0), 0.5, None)
    assert found["paths"].tolist() == ["images/ä.jpg", None, "images/b.jpg"]
    assert found["grid"].tolist() == [[1, None], ["x", 2.5]]


def test_tuples_of_one_length_stay_tuples(tmp_path: Path) -> None:
    infos = np.empty(2, dtype=object)
    infos[0], infos[1] = (1, 2), (3, 4)
    np.savez(tmp_path / "a.npz", infos=infos)
    assert read_npz(tmp_path / "a.npz")["infos"].tolist() == [(1, 2), (3, 4)]


@pytest.mark.parametrize("protocol", range(2, 5))
def test_every_protocol_that_numpy_has_written_is_read(tmp_path: Path, protocol: int) -> None:
    infos = np.empty(1, dtype=object)
    infos[0] = [np.array([1.5, 2.5], dtype=">f4"), np.int16(7), {"k": b"\x00\xff"}, np.array(["u"])]
    written = pickle.dumps(infos, protocol=protocol)
    for content in (written, written.replace(b"numpy._core", b"numpy.core")):
        if protocol == 4 and content != written:
            continue  # this protocol counts the letters of its names
        rewritten(tmp_path / "a.npz", "infos", content)
        (found,) = read_npz(tmp_path / "a.npz")["infos"]
        np.testing.assert_array_equal(found[0], [1.5, 2.5])
        assert (found[1], found[2], found[3].tolist()) == (7, {"k": b"\x00\xff"}, ["u"])


class Harmful:
    """Runs a function of its choice when it is unpickled."""

    def __init__(self, function: Any, *arguments: Any) -> None:
        self.call = (function, arguments)

    def __reduce__(self) -> Any:
        return self.call


@pytest.mark.parametrize(
    ("function", "name"),
    [(os.system, "system"), (eval, "eval"), (getattr, "getattr"), (np.fromfile, "fromfile"), (np.load, "load")],
)
def test_a_pickle_that_would_run_code_is_refused_and_not_run(tmp_path: Path, function: Any, name: str) -> None:
    trace = tmp_path / "trace"
    infos = np.empty(1, dtype=object)
    infos[0] = Harmful(function, f"touch {trace}" if function is os.system else str(trace))
    np.savez(tmp_path / "a.npz", infos=infos)
    with pytest.raises(InputError, match=rf"a\.npz is refused: it asks to run [\w.]*{name}, expected arrays"):
        read_npz(tmp_path / "a.npz")
    assert not trace.exists()


def test_a_pickle_cannot_turn_the_reader_itself(tmp_path: Path) -> None:
    """A state that is set on what the pickle may name must not outlive the file."""
    evil = (
        b"\x80\x02c_codecs\nencode\n"
        b"}X\x0c\x00\x00\x00__defaults__(X\x01\x00\x00\x00aX\x01\x00\x00\x00btsb0cnumpy\ndtype\nX\x02\x00\x00\x00V8\x85R."
    )
    rewritten(tmp_path / "evil.npz", "infos", evil)
    with pytest.raises(InputError, match=r"evil\.npz is (refused|damaged)"):
        read_npz(tmp_path / "evil.npz")
    np.savez(tmp_path / "good.npz", infos=pair_infos())
    assert len(read_npz(tmp_path / "good.npz")["infos"]) == 2


def test_records_and_other_strange_types_are_refused(tmp_path: Path) -> None:
    infos = np.empty(1, dtype=object)
    infos[0] = np.zeros(2, dtype=[("a", "f4"), ("b", "O")])
    np.savez(tmp_path / "a.npz", infos=infos)
    with pytest.raises(InputError, match=r"a\.npz is refused: it holds an array of 'V12'"):
        read_npz(tmp_path / "a.npz")


@pytest.mark.parametrize(
    "load",
    [
        b"\x80\x02Nr\xff\xff\xff\x7f.",  # the two thousand millionth place of the memo
        b"\x80\x05\x96\xff\xff\xff\xff\xff\x00\x00\x00.",  # a byte array of a terabyte
        b"\x80\x02\x82\x01.",  # an extension of somebody's
    ],
)
def test_a_pickle_cannot_ask_for_memory_or_extensions(tmp_path: Path, load: bytes) -> None:
    rewritten(tmp_path / "a.npz", "infos", load)
    with pytest.raises(InputError, match=r"a\.npz is (refused|damaged)"):
        read_npz(tmp_path / "a.npz")


def test_a_list_that_holds_itself_a_million_times_ends(tmp_path: Path) -> None:
    nested: Any = []
    for _ in range(40):
        nested = [nested, nested]
    infos = np.empty(1, dtype=object)
    infos[0] = nested
    np.savez(tmp_path / "a.npz", infos=infos)
    assert len(read_npz(tmp_path / "a.npz")["infos"][0]) == 2
    infos[0] = nested = []
    nested.append(nested)
    np.savez(tmp_path / "b.npz", infos=infos)
    with pytest.raises(InputError, match=r"b\.npz is damaged"):
        read_npz(tmp_path / "b.npz")


def test_an_archive_that_unpacks_to_an_absurd_size_is_refused(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "a.npz", "w", zipfile.ZIP_DEFLATED) as archive:
        for number in range(3):
            archive.writestr(f"{number}.npy", b"\0")
        for info in archive.infolist():
            info.file_size = 1 << 29
    with pytest.raises(InputError, match=r"a\.npz is damaged or no \.npz file: it unpacks to 1610612736 bytes"):
        read_npz(tmp_path / "a.npz")


def test_other_files(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"a\.npz cannot be read: No such file"):
        read_npz(tmp_path / "a.npz")
    (tmp_path / "a.npz").write_text("text")
    with pytest.raises(InputError, match=r"a\.npz is damaged or no \.npz file"):
        read_npz(tmp_path / "a.npz")
    with zipfile.ZipFile(tmp_path / "a.npz", "w") as archive:
        archive.writestr("readme.txt", "no array")
    with pytest.raises(InputError, match=r"a\.npz is damaged or no \.npz file"):
        read_npz(tmp_path / "a.npz")


@pytest.fixture(scope="module")
def workshop(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("workshop")


def check_damaged(path: Path) -> None:
    sentence = f"{path}"
    try:
        assert all(isinstance(array, np.ndarray) for array in read_npz(path).values())
    except InputError as error:
        sentence = str(error)
    assert sentence.startswith(str(path))


@settings(max_examples=300, deadline=None)
@given(edits=st.lists(st.tuples(st.floats(0, 1), st.integers(0, 255)), min_size=1, max_size=4))
def test_no_damage_to_a_pickle_is_a_traceback(workshop: Path, edits: list[tuple[float, int]]) -> None:
    content = bytearray(pickle.dumps(pair_infos(), protocol=3))
    for place, value in edits:
        content[int(place * (len(content) - 1))] = value
    rewritten(workshop / "a.npz", "infos", bytes(content))
    check_damaged(workshop / "a.npz")


@settings(max_examples=200, deadline=None)
@given(edits=st.lists(st.tuples(st.floats(0, 1), st.integers(0, 255)), min_size=1, max_size=4))
def test_no_damage_to_an_archive_is_a_traceback(workshop: Path, edits: list[tuple[float, int]]) -> None:
    whole = io.BytesIO()
    np.savez(whole, infos=pair_infos(), poses=np.eye(4))
    content = bytearray(whole.getvalue())
    for place, value in edits:
        content[int(place * (len(content) - 1))] = value
    (workshop / "b.npz").write_bytes(content)
    check_damaged(workshop / "b.npz")
