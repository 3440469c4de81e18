"""A run: its figures, what it matches anew and what it does not, what it leaves out, how it spreads its work."""

import os
import shutil
from collections.abc import Mapping
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from tiepoint.errors import InputError, WorkError
from tiepoint.evaluation.engine import Plan, run
from tiepoint.evaluation.results import PairResult, Results
from tiepoint.images import UInt8
from tiepoint.runtime import load
from tiepoint.runtime.matcher import Found, Matcher

SETS = ("hard", "homography", "pose")


class Grid:
    """A matcher that takes every place for the same place in the other image, and counts its calls."""

    facts: Mapping[str, str] = {"weights": "none"}
    calls = 0

    def match(self, image0: UInt8, image1: UInt8) -> Found:
        """See `Backend.match`."""
        type(self).calls += 1
        points = np.stack(np.meshgrid(np.arange(5.0, 150, 20), np.arange(5.0, 130, 20)), -1).reshape(-1, 2)
        points = points.astype(np.float32)
        return Found(points, points, np.ones(len(points), np.float32), points, points)


@pytest.fixture
def loads(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The names of the methods loaded so far; the methods grid and other-grid are counted fakes."""
    names: list[str] = []

    def counted(name: str, *, max_keypoints: int, backend: str, device: str, weights: list[str] | None) -> Matcher:
        names.append(name)
        if "grid" in name:
            return Matcher(Grid(), name=f"{name}-{max_keypoints}")
        return load(name, max_keypoints=max_keypoints, device="cpu", weights=weights)

    monkeypatch.setattr("tiepoint.evaluation.methods.load", counted)
    monkeypatch.setattr(Grid, "calls", 0)
    return names


@pytest.fixture
def sets(pair_sets: Path, tmp_path: Path) -> dict[str, Path]:
    """Benchmarks that a test may change."""
    shutil.copytree(pair_sets, tmp_path / "sets")
    return {name: tmp_path / "sets" / name for name in SETS}


def plan(sets: dict[str, Path], *methods: str, output: Path, **options: Any) -> Plan:
    """A plan whose estimator gives up soon: most of what it is given here is no geometry."""
    changes = {"max_iterations": 200, **options.pop("changes", {})}
    return Plan(sets, dict.fromkeys(methods, ()), output, changes=changes, threads=1, **options)


def without_times(results: Results) -> Any:
    def stripped(value: Any) -> Any:
        if isinstance(value, dict):
            return {key: stripped(item) for key, item in value.items() if key not in ("seconds", "timing")}
        return [stripped(item) for item in value] if isinstance(value, list | tuple) else value

    return stripped(asdict(results))


def all_pairs(results: Results) -> list[PairResult]:
    return [pair for found in results.sets for method in found.methods for pair in method.pairs]


def test_sift_solves_planes_that_the_grid_does_not(sets: dict[str, Path], loads: list[str], tmp_path: Path) -> None:
    results = run(plan(sets, "sift", "grid", output=tmp_path / "out"))
    hard, homography, pose = results.sets
    sift, grid = homography.methods
    assert sift.figures["AUC@5"] > 80 > 5 > grid.figures["AUC@5"]
    assert (sift.precision or 0) > 90
    assert len(sift.pairs) == 4
    assert sift.pairs[0].name == "painting0/1-2"
    # the grid finds the identity, whose error is known: that of the four corners
    H = np.loadtxt(sets["homography"] / "painting0" / "H_1_2")
    corners = np.array([[0, 0, 1], [239, 0, 1], [0, 179, 1], [239, 179, 1]]) @ H.T
    moved = corners[:, :2] / corners[:, 2:] - [[0, 0], [239, 0], [0, 179], [239, 179]]
    assert grid.pairs[0].errors == pytest.approx([np.linalg.norm(moved, axis=1).mean()] * 4, rel=1e-4)
    assert grid.pairs[0].keypoints == (56, 56)
    assert (grid.pairs[0].size0, grid.pairs[0].matches) == ((180, 240), 56)
    assert hard.methods[0].figures["within@5"] > 80
    assert (hard.unit, homography.unit, pose.unit) == ("px", "px", "degrees")
    assert [len(found.methods[0].pairs) for found in results.sets] == [2, 4, 3]
    assert pose.methods[0].pairs[0].name == "view.png view0.png"
    comparison = homography.comparisons[0]
    assert (comparison.method, comparison.reference, comparison.certain) == ("grid", "sift", True)
    assert comparison.difference == pytest.approx(grid.figures["AUC@5"] - sift.figures["AUC@5"])
    assert set(sift.seconds) == {"read", "extract", "match", "estimate"}
    assert all((tmp_path / "out" / pair.matches_file).is_file() for pair in all_pairs(results))


def test_what_is_matched_is_neither_matched_nor_loaded_again(
    sets: dict[str, Path], loads: list[str], tmp_path: Path
) -> None:
    given = plan(sets, "grid", output=tmp_path / "out")
    first = run(given)
    assert (loads, Grid.calls) == (["grid"], 9 + 1)  # and one to warm up
    assert without_times(run(given)) == without_times(first)
    for changes in (
        {"estimator": "opencv-magsac"},
        {"thresholds": (1.0, 4.0)},
        {"seed": 3},
    ):
        swept = run(plan(sets, "grid", output=tmp_path / "out", changes=changes))
        assert swept.protocol["thresholds"] == list(changes.get("thresholds", (0.5, 1.0, 2.0, 3.0)))
    assert (loads, Grid.calls) == (["grid"], 9 + 1)
    both = run(plan(sets, "grid", "other-grid", output=tmp_path / "out"))
    assert (loads, Grid.calls) == (["grid", "other-grid"], 2 * (9 + 1))
    assert without_times(both)["sets"][0]["methods"][0] == without_times(first)["sets"][0]["methods"][0]
    run(plan(sets, "grid", output=tmp_path / "out", changes={"long_side": 128}))
    assert Grid.calls == 3 * (9 + 1)


def test_an_image_that_changes_is_matched_again_and_no_other(
    sets: dict[str, Path], loads: list[str], tmp_path: Path
) -> None:
    given = plan(sets, "grid", output=tmp_path / "out")
    run(given)
    path = sets["homography"] / "painting1" / "3.png"
    with Image.open(path) as image:
        image.transpose(Image.Transpose.FLIP_LEFT_RIGHT).save(path)
    run(given)
    assert Grid.calls == 10 + 1 + 1
    damaged = next((tmp_path / "out" / "matches" / "pose").rglob("*.npz"))
    damaged.write_bytes(damaged.read_bytes()[:100])
    os.utime(path)
    run(given)
    assert Grid.calls == 10 + 2 + 2


@pytest.mark.parametrize("content", [b"", b"no image"])
def test_a_broken_image_leaves_its_pairs_out_for_all_methods(
    content: bytes, sets: dict[str, Path], loads: list[str], tmp_path: Path
) -> None:
    given = plan(sets, "grid", "other-grid", output=tmp_path / "out")
    run(given)
    # the header is right, so that the reader of the set takes it
    path = sets["homography"] / "painting0" / "3.png"
    path.write_bytes(path.read_bytes()[:2000] if content == b"" else path.read_bytes()[:500] + content)
    found = run(given).sets[1]
    assert len(found.left_out) == 1
    assert "painting0/1-3" in found.left_out[0]
    assert "3.png is damaged" in found.left_out[0]
    assert [len(method.pairs) for method in found.methods] == [3, 3]
    with pytest.raises(InputError, match=r"3\.png is damaged"):
        run(replace(given, strict=True))


def test_a_set_without_usable_pairs_is_told_without_figures(
    sets: dict[str, Path], loads: list[str], tmp_path: Path
) -> None:
    view = sets["pose"] / "view.png"
    view.write_bytes(view.read_bytes()[:2000])
    results = run(plan({"pose": sets["pose"]}, "grid", output=tmp_path / "out", repeats=1))
    assert (len(results.sets[0].left_out), results.sets[0].methods, results.timing) == (3, [], [])


def test_an_image_too_small_once_resized_is_left_out(sets: dict[str, Path], loads: list[str], tmp_path: Path) -> None:
    folder = sets["homography"] / "painting0"
    Image.new("RGB", (1200, 12)).save(folder / "2.png")
    found = run(plan(sets, "grid", output=tmp_path / "out", changes={"long_side": 120})).sets[1]
    assert "120×1 px once resized" in found.left_out[0]


def test_a_method_that_fails_is_named_and_what_was_matched_is_kept(
    sets: dict[str, Path], loads: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    given = plan({"homography": sets["homography"]}, "grid", output=tmp_path / "out")
    whole = Grid.match

    def failing(self: Grid, image0: UInt8, image1: UInt8) -> Found:
        if Grid.calls == 3:
            raise FloatingPointError("overflow in a layer")
        return whole(self, image0, image1)

    monkeypatch.setattr(Grid, "match", failing)
    with pytest.raises(WorkError, match=r"grid failed on painting1/1-2: FloatingPointError: overflow"):
        run(given)
    monkeypatch.setattr(Grid, "match", whole)
    run(given)
    assert Grid.calls == 3 + 1 + 2


def test_processes_find_what_one_process_finds(
    sets: dict[str, Path], loads: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tiepoint.evaluation.workers.LEAST_TASKS", 1)
    given = plan(sets, "sift", output=tmp_path / "out")
    alone = run(given)
    assert without_times(run(replace(given, workers=2))) == without_times(alone)


def test_a_convention_may_treat_sets_differently(sets: dict[str, Path], loads: list[str], tmp_path: Path) -> None:
    results = run(plan(sets, "grid", output=tmp_path / "out", protocol="loftr"))
    _, homography, pose = results.sets
    assert (homography.protocol["thresholds"], pose.protocol["thresholds"]) == ([3.0], [0.5])
    assert homography.methods[0].pairs[0].size0 == (480, 640)
    assert pose.methods[0].pairs[0].size0 == (624, 840)
    assert (homography.methods[0].threshold, pose.methods[0].threshold) == (3.0, 0.5)
    # glue-factory takes fewer keypoints on homographies: the method is loaded in both ways
    loads.clear()
    run(plan(sets, "grid", output=tmp_path / "out", protocol="glue-factory"))
    assert loads == ["grid", "grid"]
