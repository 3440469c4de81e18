"""results.json: number for number there and back, and one sentence for whatever is something else."""

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tiepoint.errors import InputError
from tiepoint.evaluation.results import PairResult, Results
from tiepoint.evaluation.results_io import read_results, write_results


def with_pair(results: Results, change: Callable[[PairResult], PairResult]) -> Results:
    """The same run, its very first pair changed."""
    found = results.sets[0]
    method = found.methods[0]
    pairs = [change(method.pairs[0]), *method.pairs[1:]]
    return replace(results, sets=[replace(found, methods=[replace(method, pairs=pairs), *found.methods[1:]])])


def test_reads_a_folder_and_its_file_alike(run_folder: Path) -> None:
    assert read_results(run_folder) == read_results(run_folder / "results.json")
    pair = read_results(run_folder).sets[0].methods[0].pairs[0]
    assert isinstance(pair.size0, tuple)
    assert pair.keypoints == (99, 98)


errors = st.lists(st.none() | st.floats(0, 1e6), min_size=4, max_size=4)


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(errors=errors, name=st.text(), precision=st.none() | st.floats(0, 1))
def test_round_trip(
    errors: list[float | None], name: str, precision: float | None, run_folder: Path, tmp_path: Path
) -> None:
    results = read_results(run_folder)
    changed = with_pair(results, lambda pair: replace(pair, errors=errors, path0=name, precision=precision))
    write_results(changed, tmp_path / "results.json")
    assert read_results(tmp_path) == changed


def test_a_missing_error_is_null_and_never_infinity(run_folder: Path, tmp_path: Path) -> None:
    infinite = [float("inf"), float("nan"), 1.0, 2.0]
    write_results(with_pair(read_results(run_folder), lambda pair: replace(pair, errors=infinite)), tmp_path / "r.json")
    text = (tmp_path / "r.json").read_text()
    assert "Infinity" not in text
    assert "NaN" not in text
    assert read_results(tmp_path / "r.json").sets[0].methods[0].pairs[0].errors == [None, None, 1.0, 2.0]


def test_a_number_that_must_be_there_is_never_nan(run_folder: Path, tmp_path: Path) -> None:
    broken = with_pair(read_results(run_folder), lambda pair: replace(pair, seconds={"match": float("nan")}))
    with pytest.raises(ValueError, match=r"sets\[0\].methods\[0\].pairs\[0\].seconds.match is null, expected a number"):
        write_results(broken, tmp_path / "results.json")
    assert not (tmp_path / "results.json").exists()


def drop(content: Any, *keys: Any) -> None:
    for key in keys[:-1]:
        content = content[key]
    del content[keys[-1]]


def put(content: Any, *keys: Any) -> None:
    for key in keys[:-2]:
        content = content[key]
    content[keys[-2]] = keys[-1]


@pytest.mark.parametrize(
    ("change", "told"),
    [
        (lambda c: drop(c, "sets"), "has no 'sets'"),
        (lambda c: drop(c, "sets", 0, "methods", 1, "failures"), "sets[0].methods[1] has no 'failures'"),
        (lambda c: put(c, "sets", {}), "results.sets is {}, expected a list"),
        (lambda c: put(c, "sets", 0, "limits", [0.0]), "limits are [0.0], expected positive numbers"),
        (lambda c: put(c, "sets", 0, "methods", 0, "failures", 1.5), "failures is 1.5, expected a whole number"),
        (lambda c: put(c, "sets", 0, "methods", 0, "failures", True), "failures is true, expected a whole number"),
        (lambda c: put(c, "sets", 0, "methods", 0, "name", None), "name is null, expected text"),
        (lambda c: put(c, "sets", 0, "methods", 0, "threshold", 7.0), "threshold is 7, expected one of [0.5,"),
        (lambda c: put(c, "sets", 0, "methods", 0, "pairs", 0, "size0", [1, 2, 3]), "size0 has 3 values, expected 2"),
        (lambda c: put(c, "sets", 0, "methods", 0, "pairs", 0, "errors", []), "not one error and inlier count"),
        (lambda c: put(c, "sets", 0, "methods", 1, "pairs", 0, "name", "x"), "the pairs differ from those of sift"),
        (lambda c: put(c, "protocol", {}), "the protocol's thresholds are null"),
    ],
)
def test_a_broken_file_is_one_sentence(change: Any, told: str, run_folder: Path, tmp_path: Path) -> None:
    content = json.loads((run_folder / "results.json").read_text())
    change(content)
    path = tmp_path / "results.json"
    path.write_text(json.dumps(content))
    with pytest.raises(InputError) as caught:
        read_results(path)
    assert str(caught.value).startswith(f"{path} is not the results.json of `tiepoint benchmark`: ")
    assert told in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("content", "told"),
    [(b"", "Expecting value"), (b"[1, 2]", "is [1, 2], expected an object"), (b"\xff\xfe\x00", "decode"),
     (b'{"a": NaN}', "holds NaN"), (b"[" * 100_000, "")],
)  # fmt: skip
def test_a_foreign_file_is_one_sentence(content: bytes, told: str, tmp_path: Path) -> None:
    path = tmp_path / "other.json"
    path.write_bytes(content)
    with pytest.raises(InputError, match=r"other\.json is not the results\.json of `tiepoint benchmark`") as caught:
        read_results(path)
    assert told in str(caught.value)


def test_no_file_at_all_is_one_sentence(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"results\.json does not exist, expected the results\.json of"):
        read_results(tmp_path)


def test_fields_of_a_later_version_are_passed_over(run_folder: Path, tmp_path: Path) -> None:
    content = json.loads((run_folder / "results.json").read_text()) | {"weather": "fine"}
    (tmp_path / "results.json").write_text(json.dumps(content))
    assert read_results(tmp_path) == read_results(run_folder)
