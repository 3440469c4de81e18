import errno
import os
import re
import stat
from contextlib import suppress
from pathlib import Path

import pytest

from tiepoint.errors import InputError, WorkError
from tiepoint.files import atomic_path, check_writable


def test_the_file_appears_only_at_the_end(tmp_path: Path) -> None:
    target = tmp_path / "result.npz"
    with atomic_path(target) as temporary:
        temporary.write_text("new")
        assert not target.exists()
    assert target.read_text() == "new"
    assert list(tmp_path.iterdir()) == [target]


def test_the_temporary_file_is_a_hidden_neighbour_with_the_same_suffix(tmp_path: Path) -> None:
    with atomic_path(tmp_path / "result.tar.gz") as temporary:
        temporary.touch()
        assert temporary.parent == tmp_path.resolve()
        assert temporary.suffix == ".gz"
        assert temporary.name.startswith(".")


def test_a_failure_keeps_the_old_file_and_leaves_nothing_behind(tmp_path: Path) -> None:
    target = tmp_path / "result.json"
    target.write_text("old")
    with suppress(RuntimeError), atomic_path(target) as temporary:
        temporary.write_text("ne")
        raise RuntimeError("half way")
    assert target.read_text() == "old"
    assert list(tmp_path.iterdir()) == [target]


def test_an_existing_file_is_replaced_and_parents_are_created(tmp_path: Path) -> None:
    target = tmp_path / "a" / "b" / "result"
    for text in ("first", "second"):
        with atomic_path(str(target)) as temporary:
            temporary.write_text(text)
    assert target.read_text() == "second"


def test_a_link_is_followed(tmp_path: Path) -> None:
    real, link = tmp_path / "real.txt", tmp_path / "link.txt"
    real.write_text("old")
    link.symlink_to(real)
    with atomic_path(link) as temporary:
        temporary.write_text("new")
    assert link.is_symlink()
    assert real.read_text() == "new"


def test_the_file_has_the_permissions_of_an_ordinary_one(tmp_path: Path) -> None:
    (tmp_path / "ordinary").touch()
    with atomic_path(tmp_path / "atomic") as temporary:
        temporary.touch()
    modes = {stat.S_IMODE((tmp_path / name).stat().st_mode) for name in ("ordinary", "atomic")}
    assert len(modes) == 1


def test_a_full_disk_is_failed_work(tmp_path: Path) -> None:
    with (
        pytest.raises(WorkError, match=r"result\.npz could not be written"),
        atomic_path(tmp_path / "result.npz"),
    ):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def test_an_unrelated_error_of_the_system_passes_through(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError), atomic_path(tmp_path / "result.npz"):
        (tmp_path / "missing").read_text()


def test_check_writable_leaves_the_target_alone(tmp_path: Path) -> None:
    target = tmp_path / "new" / "result.npz"
    check_writable(target)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("name", ["", "folder", "missing/", "file/result.npz", "n" * 300, "nul\0byte"])
def test_a_target_that_cannot_be_written_is_an_input_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "folder").mkdir()
    (tmp_path / "file").touch()
    with pytest.raises(InputError, match=re.escape(name) if name else "empty"):
        check_writable(name)
    with pytest.raises(InputError), atomic_path(name):
        pytest.fail("the block must not run")


def test_a_device_is_not_replaced() -> None:
    with pytest.raises(InputError, match="not an ordinary file"):
        check_writable(os.devnull)


@pytest.mark.skipif(getattr(os, "geteuid", int)() == 0, reason="root may write anywhere")
def test_a_folder_without_permission_is_an_input_error(tmp_path: Path) -> None:
    tmp_path.chmod(0o500)
    with pytest.raises(InputError, match="ermission"):
        check_writable(tmp_path / "result.npz")


def test_a_folder_that_refuses_is_an_input_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))

    monkeypatch.setattr(Path, "touch", refuse)
    with pytest.raises(InputError, match="ermission"):
        check_writable(tmp_path / "result.npz")
