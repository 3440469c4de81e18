"""Archives that mean well, and those that do not."""

import io
import stat
import tarfile
import zipfile
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tiepoint.errors import WorkError
from tiepoint.evaluation.unpack import RefusedArchiveError, unpack

FILES = {"a/b/one.txt": b"1" * 3000, "two.txt": b"", "a/three.bin": bytes(range(256)) * 40}


def zipped(path: Path, files: dict[str, bytes], *, mode: int = 0) -> Path:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in files.items():
            info = zipfile.ZipInfo(name)
            info.external_attr, info.compress_type = mode << 16, zipfile.ZIP_DEFLATED
            archive.writestr(info, content)
    return path


def tarred(path: Path, files: dict[str, bytes], *, kind: bytes = tarfile.REGTYPE, mode: str = "w:gz") -> Path:
    with tarfile.open(path, mode) as archive:  # type: ignore[call-overload]
        for name, content in files.items():
            info = tarfile.TarInfo(name)
            info.type, info.size, info.linkname = kind, len(content), "../outside" if kind != tarfile.REGTYPE else ""
            archive.addfile(info, io.BytesIO(content))
    return path


def content(folder: Path) -> dict[str, bytes]:
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.mark.parametrize("mode", ["zip", "w", "w:gz", "w:bz2", "w:xz"])
def test_every_kind_unpacks_to_the_same(tmp_path: Path, mode: str) -> None:
    path = tmp_path / "archive"
    archive = zipped(path, FILES) if mode == "zip" else tarred(path, FILES, mode=mode)
    unpack(archive, tmp_path / "new" / "folder")
    assert content(tmp_path / "new" / "folder") == FILES


@pytest.mark.parametrize("name", ["../outside", "a/../../outside", "/outside", "C:/outside", "a\\..\\..\\outside", "."])
@pytest.mark.parametrize("make", [zipped, tarred])
def test_no_path_leaves_the_folder(tmp_path: Path, name: str, make: type) -> None:
    archive = make(tmp_path / "archive", {"good": b"1", name: b"2"})
    with pytest.raises(RefusedArchiveError, match=r"archive holds .*, expected a path inside"):
        unpack(archive, tmp_path / "folder")
    assert not (tmp_path / "outside").exists()


@pytest.mark.parametrize("kind", [tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.CHRTYPE, tarfile.FIFOTYPE])
def test_links_and_devices_are_refused(tmp_path: Path, kind: bytes) -> None:
    with pytest.raises(RefusedArchiveError, match="holds link, which is a link or a device, expected files"):
        unpack(tarred(tmp_path / "archive", {"link": b""}, kind=kind), tmp_path / "folder")
    mode = stat.S_IFLNK | 0o777
    with pytest.raises(RefusedArchiveError, match="holds link, which is a link or a device, expected files"):
        unpack(zipped(tmp_path / "archive", {"link": b"../outside"}, mode=mode), tmp_path / "folder")


def test_a_bomb_is_refused_before_anything_is_written(tmp_path: Path) -> None:
    archive = zipped(tmp_path / "archive", {"bomb": bytes(100_000_000)})
    with pytest.raises(RefusedArchiveError, match=r"archive of \d+ bytes would unpack to 100000000"):
        unpack(archive, tmp_path / "folder")
    assert not (tmp_path / "folder").exists()


def test_a_disk_with_too_little_left_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("shutil.disk_usage", lambda _: type("Usage", (), {"free": 1000}))
    with pytest.raises(WorkError, match=r"unpacks to 13240 bytes, but only 1000 are free") as caught:
        unpack(zipped(tmp_path / "archive", FILES), tmp_path / "folder")
    assert not isinstance(caught.value, RefusedArchiveError)  # what was downloaded is worth keeping


def test_a_name_that_comes_twice_is_refused(tmp_path: Path) -> None:
    with tarfile.open(tmp_path / "archive", "w") as archive:
        for _ in range(2):
            archive.addfile(tarfile.TarInfo("a"))
    with pytest.raises(WorkError, match="archive could not be unpacked: File exists"):
        unpack(tmp_path / "archive", tmp_path / "folder")


@pytest.fixture(scope="module")
def workshop(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("workshop")
    zipped(folder / "zip", FILES)
    tarred(folder / "tar", FILES)
    return folder


@settings(max_examples=100, deadline=None)
@given(
    kind=st.sampled_from(["zip", "tar"]),
    edits=st.lists(st.tuples(st.floats(0, 1), st.integers(0, 255)), min_size=1, max_size=3),
    keep=st.floats(0.5, 1),
)
def test_no_damage_is_a_traceback(
    workshop: Path,
    tmp_path_factory: pytest.TempPathFactory,
    kind: str,
    edits: list[tuple[float, int]],
    keep: float,
) -> None:
    damaged = bytearray((workshop / kind).read_bytes())
    for place, value in edits:
        damaged[int(place * (len(damaged) - 1))] = value
    folder = tmp_path_factory.mktemp("damaged")
    (folder / "archive").write_bytes(damaged[: int(keep * len(damaged))])
    sentence = str(folder / "archive")
    try:
        unpack(folder / "archive", folder / "content")
    except WorkError as error:
        sentence = str(error)
    assert sentence.startswith(str(folder / "archive"))
    assert all(path.is_relative_to(folder / "content") for path in folder.rglob("*") if path.name != "archive")
