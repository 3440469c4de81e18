"""Cached matches: what comes back, when they are taken for valid, and what a broken file does."""

import json
import os
from contextlib import suppress
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tiepoint.errors import InputError
from tiepoint.evaluation.cache import (
    Cached,
    cache_key,
    cache_path,
    file_identity,
    is_cached,
    read_cached,
    write_cached,
)
from tiepoint.formats import read_matches
from tiepoint.types import Matches


def cached(count: int = 7, *, detector: bool = True, seed: int = 0) -> Cached:
    rng = np.random.default_rng(seed)
    points = rng.uniform(0, 90, (2, count, 2)).astype(np.float32)
    scores = np.sort(rng.uniform(0, 1, count).astype(np.float32))[::-1]
    detected = rng.uniform(0, 90, (2, 11, 2)).astype(np.float32) if detector else (None, None)
    matches = Matches(points[0], points[1], scores, (120, 160), (90, 100))
    return Cached(matches, *detected, (1.5, 1.25), (2.0, 3.0), {"read": 0.1, "match": 0.25})


@pytest.mark.parametrize("detector", [True, False])
@pytest.mark.parametrize("count", [0, 7])
def test_comes_back_exactly(count: int, detector: bool, tmp_path: Path) -> None:
    given = cached(count, detector=detector)
    path = tmp_path / "new" / "pair.npz"
    write_cached(path, given, "key")
    found = read_cached(path)
    for name in ("keypoints0", "keypoints1", "scores"):
        assert np.array_equal(getattr(found.matches, name), getattr(given.matches, name))
    assert (found.matches.size0, found.matches.size1) == ((120, 160), (90, 100))
    assert (found.scale0, found.scale1, dict(found.seconds)) == ((1.5, 1.25), (2.0, 3.0), {"read": 0.1, "match": 0.25})
    for name in ("keypoints0", "keypoints1"):
        assert (getattr(found, name) is None) is not detector
        assert np.array_equal(getattr(found, name), getattr(given, name))
    assert np.array_equal(read_matches(path).keypoints1, given.matches.keypoints1)
    assert [file.name for file in path.parent.iterdir()] == ["pair.npz"]


def test_is_valid_for_its_own_key_alone(tmp_path: Path) -> None:
    path = tmp_path / "pair.npz"
    assert not is_cached(path, "one")
    write_cached(path, cached(), "one")
    assert is_cached(path, "one")
    assert not is_cached(path, "another")
    write_cached(path, cached(), "another")
    assert is_cached(path, "another")


@given(cut=st.integers(0, 2500), flips=st.lists(st.integers(0, 10**6), max_size=3))
@settings(max_examples=60, deadline=None)
def test_a_damaged_file_is_no_cached_pair_or_one_clear_error(
    tmp_path_factory: pytest.TempPathFactory, cut: int, flips: list[int]
) -> None:
    path = tmp_path_factory.mktemp("damaged") / "pair.npz"
    write_cached(path, cached(), "key")
    content = bytearray(path.read_bytes())
    content = content[: max(len(content) - cut, 0)]
    for flip in flips if content else []:
        content[flip % len(content)] ^= 0xFF
    path.write_bytes(content)
    is_cached(path, "key")
    # any other error, or a value that is no Cached, fails the test
    with suppress(InputError):
        assert len(read_cached(path).matches.scores) == len(read_cached(path).matches)


@pytest.mark.parametrize("content", [b"", b"text", b"PK\x05\x06" + bytes(18)])
def test_a_foreign_file_is_none(content: bytes, tmp_path: Path) -> None:
    path = tmp_path / "pair.npz"
    path.write_bytes(content)
    assert not is_cached(path, "key")
    with pytest.raises(InputError, match=r"pair\.npz does not hold"):
        read_cached(path)


def test_the_key_follows_the_content_of_the_images(tmp_path: Path) -> None:
    one, two = tmp_path / "1.png", tmp_path / "2.png"
    one.write_bytes(b"first")
    two.write_bytes(b"second")
    key = cache_key("method", one, two)
    assert key == cache_key("method", one, two)
    assert key != cache_key("method", two, one)
    assert key != cache_key("other", one, two)
    moved = tmp_path / "moved.png"
    one.rename(moved)
    assert key == cache_key("method", moved, two)
    before = file_identity(two)
    two.write_bytes(b"Second")
    os.utime(two, ns=(1, 1))
    assert file_identity(two) != before
    assert json.loads(cache_key("method", moved, two))["image1"] == file_identity(two)
    with pytest.raises(InputError, match=r"1\.png does not exist"):
        cache_key("method", one, two)


NAMES = st.text(min_size=1, max_size=300)


@given(pairs=st.sets(NAMES, min_size=2, max_size=5), method=NAMES)
@settings(max_examples=100, deadline=None)
def test_paths_are_distinct_and_stay_in_their_folder(pairs: set[str], method: str) -> None:
    folder = Path("matches")
    paths = [cache_path(folder, set_name="pose", method=method, identity="x", pair=name) for name in pairs]
    assert len({str(path).lower() for path in paths}) == len(pairs)
    for path in paths:
        assert path.parts[:2] == ("matches", "pose")
        assert len(path.parts) == 4
        assert all(len(part) < 110 and part.isascii() and not part.startswith(".") for part in path.parts)
    name = next(iter(pairs))
    assert cache_path(folder, set_name="pose", method=method, identity="y", pair=name) != cache_path(
        folder, set_name="pose", method=method, identity="x", pair=name
    )
