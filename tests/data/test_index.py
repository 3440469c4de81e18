import errno
import json
import os
import shutil
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from loguru import logger
from PIL import Image

from tiepoint.data import index
from tiepoint.data.index import Photo, cache_folder, data_hash, index_photos, split_photos
from tiepoint.errors import InputError


@pytest.fixture(autouse=True)
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = tmp_path / "cache"
    monkeypatch.setenv("TIEPOINT_CACHE", str(folder))
    return folder


@pytest.fixture
def warned() -> Iterator[list[str]]:
    """The warnings that were logged."""
    messages: list[str] = []
    sink = logger.add(lambda message: messages.append(message.record["message"]), level="WARNING")
    yield messages
    logger.remove(sink)


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """A folder with two photos, one of them in a subfolder."""
    folder = tmp_path / "root"
    make_photo(folder / "a.jpg", seed=0)
    make_photo(folder / "deep" / "er" / "b.png", seed=1)
    return folder


def make_photo(path: Path, *, seed: int = 0, size: tuple[int, int] = (64, 80)) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.random.default_rng(seed).integers(0, 256, (*size, 3), dtype=np.uint8)).save(path)
    return path


def names(photos: list[Photo]) -> set[str]:
    return {Path(photo.path).name for photo in photos}


def refuse(path: object) -> tuple[int, int]:
    raise AssertionError(f"{path} was verified")


# what is found


def test_photos_are_found_in_subfolders_with_their_sizes(root: Path) -> None:
    make_photo(root / "wide.JPEG", seed=2, size=(64, 200))
    photos = index_photos([root])
    assert names(photos) == {"a.jpg", "b.png", "wide.JPEG"}
    assert all(Path(photo.path).is_absolute() for photo in photos)
    assert {(photo.height, photo.width) for photo in photos} == {(64, 80), (64, 200)}
    assert [photo.sha256 for photo in photos] == sorted(photo.sha256 for photo in photos)
    assert not any(photo.fault for photo in photos)


def test_the_size_is_that_of_the_upright_photo(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    path = make_photo(tmp_path / "root" / "turned.jpg")
    Image.open(path).save(path, exif=exif)
    assert [(photo.height, photo.width) for photo in index_photos([path.parent])] == [(80, 64)]


def test_several_folders_are_one_set(root: Path, tmp_path: Path) -> None:
    make_photo(tmp_path / "second" / "c.jpg", seed=5)
    assert names(index_photos([root, str(tmp_path / "second")])) == {"a.jpg", "b.png", "c.jpg"}


def test_faulty_files_are_left_out_with_one_warning_each(root: Path, warned: list[str]) -> None:
    (root / "text.jpg").write_text("this is no image")
    (root / "empty.png").touch()
    whole = (root / "a.jpg").read_bytes()
    (root / "cut.jpg").write_bytes(whole[: len(whole) // 2])
    make_photo(root / "tiny.png", seed=3, size=(63, 500))
    assert names(index_photos([root])) == {"a.jpg", "b.png"}
    assert len(warned) == 4
    for name in ("text.jpg", "empty.png", "cut.jpg", "tiny.png"):
        assert sum(str(root / name) in message for message in warned) == 1, (name, warned)
    assert any("500×63" in message and "64" in message for message in warned)


def test_the_warnings_come_again_in_the_next_run(root: Path, warned: list[str]) -> None:
    (root / "text.jpg").write_text("this is no image")
    index_photos([root])
    index_photos([root])
    assert len(warned) == 2
    assert warned[0] == warned[1]


def test_hidden_files_and_folders_and_other_files_are_passed_over(root: Path, warned: list[str]) -> None:
    make_photo(root / ".thumbnail.jpg", seed=7)
    make_photo(root / ".trash" / "old.jpg", seed=8)
    (root / "notes.txt").write_text("notes")
    (root / "no_ending").write_bytes((root / "a.jpg").read_bytes())
    assert names(index_photos([root])) == {"a.jpg", "b.png"}
    assert warned == []


def test_a_root_may_itself_be_hidden(tmp_path: Path) -> None:
    make_photo(tmp_path / ".photos" / "a.jpg")
    assert names(index_photos([tmp_path / ".photos"])) == {"a.jpg"}


def test_duplicates_count_once(root: Path, warned: list[str]) -> None:
    shutil.copy(root / "a.jpg", root / "copy.jpg")
    shutil.copy(root / "a.jpg", root / "deep" / "copy.jpg")
    photos = index_photos([root])
    assert len(photos) == 2
    assert len({photo.sha256 for photo in photos}) == 2
    assert warned == []


def test_the_same_folder_twice_is_that_folder(root: Path) -> None:
    assert index_photos([root, root]) == index_photos([root])


def test_linked_folders_are_followed(root: Path, tmp_path: Path) -> None:
    make_photo(tmp_path / "elsewhere" / "c.jpg", seed=5)
    (root / "link").symlink_to(tmp_path / "elsewhere", target_is_directory=True)
    assert names(index_photos([root])) == {"a.jpg", "b.png", "c.jpg"}


def test_a_link_to_nowhere_is_left_out_with_a_warning(root: Path, warned: list[str]) -> None:
    (root / "gone.jpg").symlink_to(root / "nowhere.jpg")
    assert names(index_photos([root])) == {"a.jpg", "b.png"}
    assert len(warned) == 1
    assert "gone.jpg" in warned[0]


def test_a_fault_in_a_folder_given_twice_is_warned_of_once(root: Path, warned: list[str]) -> None:
    (root / "deep" / "text.jpg").write_text("this is no image")
    index_photos([root, root / "deep"])
    assert len(warned) == 1


# what is refused


def test_a_missing_folder_is_named(root: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"data\.folders: .*missing does not exist, expected a folder"):
        index_photos([root, tmp_path / "missing"])


def test_a_file_is_no_folder(root: Path) -> None:
    with pytest.raises(InputError, match=r"data\.folders: .*a\.jpg is a file, expected a folder"):
        index_photos([root / "a.jpg"])


def test_no_folder_is_refused() -> None:
    with pytest.raises(InputError, match=r"data\.folders"):
        index_photos([])


def test_a_folder_without_a_usable_photo_is_named_and_counted(tmp_path: Path, warned: list[str]) -> None:
    folder = tmp_path / "root"
    folder.mkdir()
    with pytest.raises(InputError, match=rf"no usable photo in {folder}: found 0 image files"):
        index_photos([folder])
    (folder / "text.jpg").write_text("text")
    with pytest.raises(InputError, match="found 1 image files"):
        index_photos([folder])
    assert len(warned) == 1


# what is remembered


def test_the_second_run_verifies_nothing(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (root / "text.jpg").write_text("text")
    first = index_photos([root])
    monkeypatch.setattr(index, "verify_image", refuse)
    assert index_photos([root]) == first
    assert index_photos([os.path.relpath(root)]) == first


def test_a_changed_file_is_verified_again(root: Path) -> None:
    before = index_photos([root])
    make_photo(root / "a.jpg", seed=9, size=(96, 70))
    after = index_photos([root])
    assert {photo.sha256 for photo in before} != {photo.sha256 for photo in after}
    assert (96, 70) in {(photo.height, photo.width) for photo in after}


def test_a_file_of_the_same_size_but_another_time_is_verified_again(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    index_photos([root])
    stat = (root / "a.jpg").stat()
    os.utime(root / "a.jpg", ns=(stat.st_atime_ns, stat.st_mtime_ns + 10))
    monkeypatch.setattr(index, "verify_image", refuse)
    with pytest.raises(AssertionError, match=r"a\.jpg"):
        index_photos([root])


def test_only_new_files_are_verified_and_lost_ones_forgotten(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    index_photos([root])
    verified: list[str] = []
    real = index.verify_image

    def watch(path: Path) -> tuple[int, int]:
        verified.append(path.name)
        return real(path)

    monkeypatch.setattr(index, "verify_image", watch)
    make_photo(root / "c.jpg", seed=4)
    (root / "a.jpg").unlink()
    assert names(index_photos([root])) == {"b.png", "c.jpg"}
    assert verified == ["c.jpg"]


def test_the_index_lies_in_the_cache_folder_only(root: Path, own_cache: Path) -> None:
    before = sorted(root.rglob("*"))
    index_photos([root])
    assert cache_folder() == own_cache
    assert [path.suffix for path in own_cache.iterdir()] == [".json"]
    assert sorted(root.rglob("*")) == before


def test_without_the_variable_the_cache_is_the_users(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.delenv("TIEPOINT_CACHE")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "xdg"))
    assert cache_folder() == tmp_path / "xdg" / "tiepoint"
    monkeypatch.delenv("XDG_CACHE_HOME")
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    assert cache_folder() == tmp_path / "home" / ".cache" / "tiepoint"


@pytest.mark.parametrize("content", ["", "{", "null", "[1, 2]", '{"path": 1}', '[{"path": "a"}]', "\udcff"])
def test_a_corrupt_index_is_made_anew(root: Path, own_cache: Path, warned: list[str], content: str) -> None:
    first = index_photos([root])
    (file,) = own_cache.iterdir()
    file.write_bytes(content.encode("utf-8", "surrogateescape"))
    assert index_photos([root]) == first
    assert len(warned) == 1
    assert str(file) in warned[0]
    assert len(json.loads(file.read_text())) == 2


def test_an_unwritable_index_is_survived(
    root: Path, own_cache: Path, warned: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    own_cache.write_text("a file where the folder should be")
    assert names(index_photos([root])) == {"a.jpg", "b.png"}
    assert any("index not kept" in message for message in warned)
    assert own_cache.read_text() == "a file where the folder should be"


def test_a_full_disk_is_survived(root: Path, warned: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object, **__: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(Path, "write_text", full)
    assert names(index_photos([root])) == {"a.jpg", "b.png"}
    assert any("index not kept" in message for message in warned)


# how it is split


def fake(*places: float) -> list[Photo]:
    """Photos whose hashes lie at these places of [0, 1)."""
    hashes = sorted(f"{int(place * 2**32):08x}{'0' * 56}" for place in places)
    return [Photo(f"/{hash_}.jpg", 1, 1, hash_, 64, 64) for hash_ in hashes]


def hashes(splits: dict[str, list[Photo]]) -> dict[str, set[str]]:
    return {name: {photo.sha256 for photo in photos} for name, photos in splits.items()}


def test_the_split_follows_the_content() -> None:
    photos = fake(0.01, 0.09, 0.11, 0.19, 0.21, 0.5, 0.99)
    splits = split_photos(photos, held_out=0.1)
    assert splits == {"val": photos[:2], "test": photos[2:4], "train": photos[4:]}


def test_every_photo_is_in_one_split() -> None:
    photos = fake(*np.random.default_rng(0).random(500))
    splits = split_photos(photos, held_out=0.1)
    assert sum(len(split) for split in splits.values()) == 500
    assert set.union(*hashes(splits).values()) == {photo.sha256 for photo in photos}
    assert len(splits["val"]) / 500 == pytest.approx(0.1, abs=0.04)
    assert len(splits["test"]) / 500 == pytest.approx(0.1, abs=0.04)


def test_names_folders_and_order_do_not_change_the_split(tmp_path: Path) -> None:
    for seed in range(12):
        make_photo(tmp_path / "first" / f"{seed:02}.jpg", seed=seed)
        old, new = tmp_path / "first" / f"{seed:02}.jpg", tmp_path / "second" / f"{seed % 3}" / f"{99 - seed}.jpeg"
        new.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(old, new)
    first, second = (index_photos([tmp_path / name]) for name in ("first", "second"))
    assert {photo.path for photo in first}.isdisjoint(photo.path for photo in second)
    assert hashes(split_photos(first, held_out=0.3)) == hashes(split_photos(second, held_out=0.3))
    assert data_hash(first) == data_hash(second) == data_hash(first[::-1])


def test_more_photos_leave_the_others_where_they_are() -> None:
    few = fake(0.05, 0.15, 0.5, 0.8)
    many = split_photos(fake(0.05, 0.15, 0.5, 0.8, 0.02, 0.13, 0.6), held_out=0.1)
    for name, photos in hashes(split_photos(few, held_out=0.1)).items():
        assert photos <= hashes(many)[name]


@pytest.mark.parametrize("count", [3, 4, 9, 30])
def test_no_split_is_empty_and_none_overlap(count: int) -> None:
    photos = fake(*(0.5 + place / 100 for place in range(count)))
    splits = split_photos(photos, held_out=0.05)
    assert all(splits.values())
    assert sum(len(split) for split in splits.values()) == count
    assert len(splits["train"]) >= len(splits["val"]) == len(splits["test"])
    assert len(set.union(*hashes(splits).values())) == count


@pytest.mark.parametrize("count", [1, 2])
def test_too_few_photos_are_shared_with_a_warning(count: int, warned: list[str]) -> None:
    photos = fake(*(0.5, 0.7)[:count])
    assert split_photos(photos, held_out=0.05) == {"train": photos, "val": photos, "test": photos}
    assert len(warned) == 1
    assert str(count) in warned[0]


def test_the_data_hash_tells_sets_apart() -> None:
    assert data_hash(fake(0.1, 0.2)) != data_hash(fake(0.1, 0.3))
    assert len(data_hash(fake(0.1))) == 16


def test_links_that_lead_back_end(tmp_path: Path) -> None:
    for name in "ab":
        (tmp_path / name).mkdir()
        (tmp_path / name / "up").symlink_to("..")
    Image.fromarray(np.random.default_rng(0).integers(0, 255, (80, 90, 3), np.uint8)).save(tmp_path / "a" / "x.png")
    assert len(index_photos([tmp_path])) == 1
