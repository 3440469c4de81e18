"""Downloads from a server on this machine that fails in the ways that servers fail."""

import hashlib
import io
import re
import shutil
import sys
import tarfile
import threading
import time
import zipfile
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass, field, replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import numpy as np
import pytest

from tiepoint.errors import InputError, WorkError
from tiepoint.evaluation.benchmarks import available, benchmark
from tiepoint.evaluation.download import fetch, prepare
from tiepoint.evaluation.pairs import Archive, Benchmark

CONTENT = np.random.default_rng(0).bytes(1_000_000)
SHA256 = hashlib.sha256(CONTENT).hexdigest()


@dataclass
class Site:
    """A server with one file, and what it does wrong."""

    content: bytes = CONTENT
    tag: str | None = '"first"'  # what it calls this version of the file
    ranges: bool = True  # whether it can send the rest of a file
    breaks: list[int] = field(default_factory=list)  # after how many bytes the next answers break off
    statuses: list[int] = field(default_factory=list)  # what the next answers are instead
    stall: float = 0.0  # seconds before the first byte, once
    lengths: bool = True  # whether it says how long the answer is
    shift: int = 0  # by how much a rest begins too late
    asked: list[str] = field(default_factory=list)  # the ranges asked for
    url: str = ""


def handler(site: Site) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        def log_message(self, format: str, *args: object) -> None:
            pass

        def do_GET(self) -> None:
            site.asked.append(self.headers.get("Range", ""))
            if site.statuses:
                self.send_error(site.statuses.pop(0))
                return
            start = self.start()
            if start >= len(site.content) > 0:
                self.send_error(416)
                return
            body = site.content[start:]
            self.send_response(206 if start else 200)
            if start:
                first, last = start + site.shift, len(site.content) - 1
                self.send_header("Content-Range", f"bytes {first}-{last}/{len(site.content)}")
            if site.lengths:
                self.send_header("Content-Length", str(len(body)))
            if site.tag:
                self.send_header("ETag", site.tag)
            self.end_headers()
            stall, site.stall = site.stall, 0.0
            time.sleep(stall)
            with suppress(OSError):  # whoever asked may have left
                self.wfile.write(body[: site.breaks.pop(0)] if site.breaks else body)

        def start(self) -> int:
            asked = re.fullmatch(r"bytes=(\d+)-", self.headers.get("Range", ""))
            same = self.headers.get("If-Range", site.tag) == site.tag
            return int(asked[1]) if asked and site.ranges and same else 0

    return Handler


@pytest.fixture
def site(monkeypatch: pytest.MonkeyPatch) -> Iterator[Site]:
    monkeypatch.setenv("no_proxy", "*")
    monkeypatch.setattr("tiepoint.evaluation.download.PAUSE", 0.0)
    site = Site()
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler(site))
    server.daemon_threads = False
    site.url = f"http://127.0.0.1:{server.server_port}/sets/data.bin?version=1"
    thread = threading.Thread(target=server.serve_forever, args=(0.01,))
    thread.start()
    yield site
    server.shutdown()
    server.server_close()
    thread.join()


def names(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir()}


def test_a_whole_file_arrives_once(site: Site, tmp_path: Path) -> None:
    archive = Archive(site.url, sha256=SHA256, md5=hashlib.md5(CONTENT).hexdigest(), size=len(CONTENT))
    for _ in range(2):
        path = fetch(archive, tmp_path / "new")
        assert path == tmp_path / "new" / "data.bin"
        assert path.read_bytes() == CONTENT
    assert site.asked == [""]
    assert names(path.parent) == {"data.bin"}


def test_a_terminal_sees_a_bar_with_sizes(site: Site, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class Terminal(io.StringIO):
        def isatty(self) -> bool:
            return True

    monkeypatch.setattr(sys, "stderr", Terminal())
    fetch(Archive(site.url), tmp_path)
    assert re.search(r"data\.bin: .*/1\.00M", sys.stderr.getvalue())  # type: ignore[attr-defined]


def test_a_broken_transfer_goes_on_where_it_broke(site: Site, tmp_path: Path) -> None:
    site.breaks = [400_000, 300_000]
    assert fetch(Archive(site.url), tmp_path).read_bytes() == CONTENT
    assert site.asked == ["", "bytes=400000-", "bytes=700000-"]
    assert names(tmp_path) == {"data.bin", "data.bin.sha256"}


def test_a_later_run_goes_on_where_an_earlier_one_gave_up(site: Site, tmp_path: Path) -> None:
    site.breaks = [100_000, 100_000, 100_000, 100_000]
    gave_up = (
        r"data.bin\?version=1 could not be downloaded \(4 attempts\): the transfer broke off after 400000 of 1000000 "
    )
    with pytest.raises(WorkError, match=gave_up + "bytes; 400000 bytes are kept"):
        fetch(Archive(site.url), tmp_path)
    assert not (tmp_path / "data.bin").exists()
    assert fetch(Archive(site.url), tmp_path).read_bytes() == CONTENT
    assert site.asked[-1] == "bytes=400000-"
    assert "data.bin.part" not in names(tmp_path)


def test_a_file_that_has_changed_meanwhile_is_begun_anew(site: Site, tmp_path: Path) -> None:
    site.breaks = [400_000] * 4
    site.content = b"\0" * 2_000_000
    with pytest.raises(WorkError, match="4 attempts"):
        fetch(Archive(site.url), tmp_path)
    site.content, site.tag = CONTENT, '"second"'
    assert fetch(Archive(site.url), tmp_path).read_bytes() == CONTENT
    assert (tmp_path / "data.bin.sha256").read_text() == f"{SHA256}  data.bin\n"


def test_a_server_that_names_no_version_is_resumed_only_under_a_checksum(site: Site, tmp_path: Path) -> None:
    site.tag, site.breaks = None, [400_000]
    fetch(Archive(site.url), tmp_path / "a")
    assert site.asked == ["", ""]
    site.breaks = [400_000]
    fetch(Archive(site.url, sha256=SHA256), tmp_path / "b")
    assert site.asked == ["", "", "", "bytes=400000-"]


@pytest.mark.parametrize("fault", ["ranges", "shift", "longer", "length"])
def test_a_server_that_cannot_send_the_rest(site: Site, tmp_path: Path, fault: str) -> None:
    site.breaks = [400_000]
    site.ranges = fault != "ranges"
    site.shift = 5 if fault == "shift" else 0
    site.lengths = fault != "length"
    if fault == "longer":
        (tmp_path / "data.bin.part").write_bytes(CONTENT + b"more")
        site.breaks = []
    archive = Archive(site.url, sha256=SHA256)
    if fault == "shift":
        with pytest.raises(WorkError, match=r"the server sent bytes 400005-999999/1000000, expected bytes from 400000"):
            fetch(archive, tmp_path)
    elif fault == "length":
        # nobody can tell that it is short but by its checksum
        with pytest.raises(WorkError, match="SHA-256"):
            fetch(archive, tmp_path)
    else:
        assert fetch(archive, tmp_path).read_bytes() == CONTENT


def test_a_wrong_checksum_keeps_nothing(site: Site, tmp_path: Path) -> None:
    for archive, found, expected in (
        (Archive(site.url, sha256="0" * 64), f"SHA-256 {SHA256}", "0" * 64),
        (Archive(site.url, md5="1" * 32), f"MD5 {hashlib.md5(CONTENT).hexdigest()}", "1" * 32),
        (Archive(site.url, size=7), "size in bytes 1000000", "7"),
    ):
        with pytest.raises(WorkError, match=rf"has the {found}, expected {expected}: the download was not kept"):
            fetch(archive, tmp_path)
        assert names(tmp_path) == set()


def test_later_downloads_are_held_to_the_first(site: Site, tmp_path: Path) -> None:
    fetch(Archive(site.url), tmp_path).unlink()
    site.content = CONTENT[::-1]
    with pytest.raises(WorkError, match=rf"expected {SHA256} as at the first download \(.*data.bin.sha256\)"):
        fetch(Archive(site.url), tmp_path)
    assert names(tmp_path) == {"data.bin.sha256"}


@pytest.mark.parametrize(("status", "asked"), [(404, 1), (403, 1), (503, 2), (429, 2)])
def test_refusals_are_final_and_troubles_are_not(site: Site, tmp_path: Path, status: int, asked: int) -> None:
    site.statuses = [status]
    if asked == 1:
        with pytest.raises(WorkError, match=rf"data.bin\?version=1 answered {status} .*, expected the file"):
            fetch(Archive(site.url), tmp_path)
    else:
        assert fetch(Archive(site.url), tmp_path).read_bytes() == CONTENT
    assert len(site.asked) == asked


def test_a_silent_server_is_asked_again(site: Site, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tiepoint.evaluation.download.TIMEOUT", 0.2)
    site.stall = 0.6
    assert fetch(Archive(site.url), tmp_path).read_bytes() == CONTENT
    assert len(site.asked) == 2


def test_offline(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("no_proxy", "*")
    monkeypatch.setattr("tiepoint.evaluation.download.PAUSE", 0.0)
    with pytest.raises(
        WorkError, match=r"http://127.0.0.1:9/data.bin could not be downloaded .*: no connection to the "
    ):
        fetch(Archive("http://127.0.0.1:9/data.bin"), tmp_path)


@pytest.mark.parametrize("url", ["file:///etc/passwd", "ftp://host/data.bin", "https://host/", "data.bin"])
def test_addresses_that_are_none_of_http(tmp_path: Path, url: str) -> None:
    with pytest.raises(InputError, match=f"^{re.escape(url)} is no address of a file to download"):
        fetch(Archive(url), tmp_path)


def test_a_folder_that_cannot_be_written_to(site: Site, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(InputError, match=r"file/data.bin cannot be written"):
        fetch(Archive(site.url), tmp_path / "file")
    assert site.asked == []


def test_a_full_disk_is_named_and_not_taken_for_the_server_s_fault(site: Site, tmp_path: Path) -> None:
    resource = pytest.importorskip("resource", reason="this system cannot limit the size of files")
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (500_000, before[1]))
    try:
        with pytest.raises(WorkError, match=r"data.bin could not be written: File too large"):
            fetch(Archive(site.url), tmp_path)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert len(site.asked) == 1
    assert fetch(Archive(site.url), tmp_path).read_bytes() == CONTENT


def packed(files: dict[str, bytes], kind: str) -> bytes:
    buffer = io.BytesIO()
    if kind == "zip":
        with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
            for name, content in files.items():
                archive.writestr(name, content)
    else:
        with tarfile.open(fileobj=buffer, mode="w:gz") as archive:
            for name, content in files.items():
                info = tarfile.TarInfo(name)
                info.size = len(content)
                archive.addfile(info, io.BytesIO(content))
    return buffer.getvalue()


def sequence() -> dict[str, bytes]:
    image = b"P5 16 8 255\n" + bytes(128)
    return {"v_a/1.pgm": image, "v_a/2.pgm": image, "v_a/H_1_2": b"1 0 0\n0 1 0\n0 0 1\n"}


@pytest.fixture
def planar(site: Site) -> Benchmark:
    return replace(benchmark("homography"), archives=(Archive(site.url),), folder="planar")


@pytest.mark.parametrize("kind", ["zip", "tar"])
@pytest.mark.parametrize("wrapper", ["", "release/"])
def test_absent_data_are_downloaded_once_and_are_readable(
    site: Site, planar: Benchmark, tmp_path: Path, kind: str, wrapper: str
) -> None:
    files = sequence() | {"i_b/" + name.partition("/")[2]: content for name, content in sequence().items()}
    site.content = packed({f"{wrapper}{name}": content for name, content in files.items()}, kind)
    for _ in range(2):
        folder = prepare(planar, tmp_path / "sets")
    assert folder == tmp_path / "sets" / "planar"
    assert [pair.name for pair in planar.read(folder, True).pairs] == ["i_b/1-2", "v_a/1-2"]
    assert names(tmp_path / "sets") == {"planar", "downloads"}
    assert names(tmp_path / "sets" / "downloads") == {"data.bin.sha256"}
    assert site.asked == [""]
    shutil.rmtree(folder)
    site.content = packed(sequence(), "tar")
    with pytest.raises(WorkError, match="as at the first download"):
        prepare(planar, tmp_path / "sets")


def test_data_that_are_there_are_left_alone(site: Site, planar: Benchmark, tmp_path: Path) -> None:
    (tmp_path / "planar").mkdir()
    assert prepare(planar, tmp_path) == tmp_path / "planar"
    assert site.asked == []


def test_an_apology_instead_of_an_archive_leaves_nothing_behind(site: Site, planar: Benchmark, tmp_path: Path) -> None:
    site.content = b"<html>We are sorry</html>"
    with pytest.raises(WorkError, match=r"data.bin is neither a .zip nor a .tar archive"):
        prepare(planar, tmp_path)
    assert names(tmp_path) == {"downloads"}
    assert names(tmp_path / "downloads") == set()
    site.content, site.tag = packed(sequence(), "zip"), '"second"'
    assert len(planar.read(prepare(planar, tmp_path), True).pairs) == 1


def test_data_to_be_placed_by_hand_name_page_and_licence(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"scannet1500 does not exist, .*by hand: .*LoFTR \(licence: ScanNet terms"):
        prepare(benchmark("scannet1500"), tmp_path)


@pytest.mark.parametrize("name", [name for name in available() if benchmark(name).archives])
def test_the_addresses_of_public_data_are_complete(name: str) -> None:
    for archive in benchmark(name).archives:
        assert re.fullmatch(r"https?://[\w.-]+/[\w./-]+\.zip", archive.url)
        assert archive.sha256 is None or re.fullmatch(r"[0-9a-f]{64}", archive.sha256)
        assert archive.md5 is None or re.fullmatch(r"[0-9a-f]{32}", archive.md5)
