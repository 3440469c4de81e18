"""Times: who is timed when, what is summed up, what is remembered, and how much memory a method takes."""

import json
from pathlib import Path

import cv2
import numpy as np
import pytest
from PIL import Image

from tiepoint.evaluation.engine import Plan, run
from tiepoint.evaluation.methods import Method, Recipe
from tiepoint.evaluation.pairs import HomographyPair
from tiepoint.evaluation.protocol import Protocol
from tiepoint.evaluation.timing import PAIRS, Case, peak_memory, summarise_times, time_rounds
from tiepoint.evaluation.workers import Task


def task(path: Path) -> Task:
    """A pair of one image with itself."""
    pair = HomographyPair(path.stem, path, path, np.eye(3))
    return Task(pair, path.with_suffix(".npz"), path.parent, Protocol(), (5.0,))


def test_methods_take_turns_and_the_first_round_does_not_count(tmp_path: Path) -> None:
    methods = [Method(Recipe(name, (), 100, "cpu"), {}, threads=1) for name in ("sift", "orb")]
    cases = [Case(methods, [task(tmp_path / f"{index}.png")] * 2) for index in range(3)]
    turns: list[tuple[str, str]] = []

    def take(method: Method, one: Task) -> dict[str, float]:
        turns.append((method.name, one.pair.name))
        warming_up = len(turns) <= 6
        return {"match": 1000.0 if warming_up else float(len(turns))}

    rounds = time_rounds(cases, 2, "test", take)
    assert turns == [(name, str(index)) for _ in range(3) for index in range(3) for name in ("sift", "orb")]
    # sift: turns 7, 9, 11 and then 13, 15, 17
    assert rounds == {"sift": [{"match": 9.0}, {"match": 15.0}], "orb": [{"match": 10.0}, {"match": 16.0}]}


def test_median_and_quartiles_over_the_repeats_stage_by_stage() -> None:
    rounds = [{"total": value, "read": 2 * value, "match": 7.0} for value in (5.0, 1.0, 2.0, 4.0, 3.0)]
    told = summarise_times("sift", rounds, pairs=4, memory=None)
    assert (told.method, told.pairs, told.repeats, told.peak_memory) == ("sift", 4, 5, None)
    assert told.median == {"read": 6.0, "match": 7.0, "total": 3.0}
    assert told.low == {"read": 4.0, "match": 7.0, "total": 2.0}
    assert told.high == {"read": 8.0, "match": 7.0, "total": 4.0}


def test_a_run_times_a_few_pairs_and_remembers_how_long_matching_took(
    pair_sets: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sets = {name: pair_sets / name for name in ("hard", "homography")}
    plan = Plan(sets, {"orb": (), "sift": ()}, tmp_path, changes={"thresholds": (3.0,)}, threads=1, repeats=2)
    first = run(plan).timing
    assert [(told.method, told.pairs, told.repeats) for told in first] == [("orb", PAIRS, 2), ("sift", PAIRS, 2)]
    for told in first:
        assert set(told.median) == {"read", "extract", "match", "estimate", "total"}
        assert told.median["total"] == pytest.approx(told.median["extract"] + told.median["match"], rel=0.5)
        assert all(0 < told.low[stage] <= told.median[stage] <= told.high[stage] for stage in told.median)

    def never(*_: object, **__: object) -> None:
        raise AssertionError("a method was loaded")

    monkeypatch.setattr("tiepoint.evaluation.methods.load", never)
    again = run(plan).timing
    for old, new in zip(first, again, strict=True):
        assert new.median | {"estimate": 0} == old.median | {"estimate": 0}
        assert new.peak_memory == old.peak_memory
    notes = tmp_path / "matches" / "timing.json"
    notes.write_text(json.dumps({"key": "of another run"}))
    with pytest.raises(AssertionError, match="a method was loaded"):
        run(plan)


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="this system does not tell the peak of memory")
def test_memory_grows_with_the_image_and_is_not_that_of_this_process(tmp_path: Path) -> None:
    ballast = np.ones(100_000_000, np.uint8)  # in this process; another must not see it
    noise = np.random.default_rng(0).integers(0, 255, (1000, 1000, 3), np.uint8)
    for side in (100, 1000):
        Image.fromarray(cv2.resize(noise, (side, side))).save(tmp_path / f"{side}.png")
    small, large = (
        peak_memory(Recipe("sift", (), 200, "cpu"), task(tmp_path / f"{n}.png"), threads=1) for n in (100, 1000)
    )
    assert small is not None
    assert large is not None
    # SIFT doubles the image: 2000×2000 float32 in six scales at least
    assert 0 < small < 30e6 < 96e6 < large < 500e6
    assert ballast.all()
