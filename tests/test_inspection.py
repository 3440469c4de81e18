"""`tiepoint inspect` through the command line: which pairs, in which order, drawn where."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest

from tiepoint.cli import main
from tiepoint.images import read_image

OTHER = "<script>alert(1)</script>"


def run(capsys: pytest.CaptureFixture[str], *args: object) -> tuple[int, str, str]:
    code = main(["inspect", *map(str, args)])
    captured = capsys.readouterr()
    return code, captured.out, captured.err


def listed(out: str) -> list[str]:
    """The pairs in the order of the list."""
    return [line.rsplit("  ", 1)[1] for line in out.splitlines() if line[:4].strip().isdigit()]


def files(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_the_worst_pairs_come_first_and_failures_before_all(
    run_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    code, out, _ = run(capsys, run_folder, "-o", tmp_path / "out")
    assert code == 0
    assert listed(out) == ["tree & <b>bush</b>/1-2", "tree & <b>bush</b>/1-3", "wall/1-3", "wall/1-2"]
    assert "no model, 20 of 30" in out
    assert "8.00 px, 20 of 30" in out
    assert out.endswith(f"4 pictures in {tmp_path / 'out'}\n")
    assert max(map(len, out.splitlines()[:-1])) <= 100
    assert files(tmp_path / "out") == [
        "walls-01-tree-b-bush-b-1-2.png",
        "walls-02-tree-b-bush-b-1-3.png",
        "walls-03-wall-1-3.png",
        "walls-04-wall-1-2.png",
    ]


def test_the_best_pairs_of_a_method(run_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    args = (run_folder / "results.json", "--set", "walls", "--method", OTHER, "--best", 2, "-o", tmp_path)
    code, out, _ = run(capsys, *args)
    assert code == 0
    assert listed(out) == ["tree & <b>bush</b>/1-2", "wall/1-2"]
    assert len(files(tmp_path)) == 2


def test_pairs_lost_against_another_method(
    run_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    # sift 0.5, 2, none, 8 against 1.5, 80, 1, 9 px: it loses one pair only
    code, out, _ = run(capsys, run_folder, "--against", OTHER, "--worst", 3, "-o", tmp_path)
    assert code == 0
    assert listed(out) == ["tree & <b>bush</b>/1-2"]
    picture = read_image(tmp_path / "walls-01-tree-b-bush-b-1-2.png")
    run(capsys, run_folder, "--worst", 1, "-o", tmp_path / "single")
    single = read_image(tmp_path / "single" / "walls-01-tree-b-bush-b-1-2.png")
    assert picture.shape[0] == 2 * single.shape[0]
    np.testing.assert_array_equal(picture[: len(single)], single)


def test_pairs_won_are_sorted_by_how_much(run_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    _, out, _ = run(capsys, run_folder, "--against", OTHER, "--best", 10, "-o", tmp_path)
    # by 10 - 2, as 80 px count as the limit of 10, by 1.5 - 0.5 and by 9 - 8
    assert listed(out) == ["wall/1-3", "wall/1-2", "tree & <b>bush</b>/1-3"]


def test_a_method_that_loses_nowhere(run_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    content = json.loads((run_folder / "results.json").read_text())
    for pair in content["sets"][0]["methods"][1]["pairs"]:
        pair["errors"] = [9.0] * 4
    for pair in content["sets"][0]["methods"][0]["pairs"]:
        pair["errors"] = [1.0] * 4
    (tmp_path / "results.json").write_text(json.dumps(content))
    code, out, _ = run(capsys, tmp_path, "--against", OTHER)
    assert code == 0
    assert "sift [3 px] loses to " in out
    assert "on no pair" in out
    assert out.endswith(
        "0 pictures in " + str(tmp_path / "inspect" / "sift-against-script-alert-1-script-worst") + "\n"
    )


def test_the_pictures_go_into_the_run_by_default(
    run_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    copy = tmp_path / "copy"
    shutil.copytree(run_folder, copy)
    assert run(capsys, copy, "--best", 1)[0] == 0
    assert files(copy / "inspect" / "sift-best") == ["walls-01-wall-1-2.png"]


@pytest.mark.parametrize(
    ("args", "told"),
    [
        (["--set", "floors"], "--set: the run has no set 'floors', expected one of walls"),
        (["--method", "orb"], "--method: set walls has no method 'orb', expected one of sift, <script>"),
        (["--against", "orb"], "--against: set walls has no method 'orb', expected one of sift, <script>"),
        (["--against", "sift"], "--against is sift, expected another method than --method"),
        (["--worst", "0"], "--worst is 0, expected 1 or more"),
        (["--best", "-1"], "--best is -1, expected 1 or more"),
        (["--worst", "3", "--best", "3"], "--worst and --best were both given"),
        (["--worst", "many"], "worst"),
        (["-o", "{run}/results.json"], "results.json"),
    ],
)
def test_wrong_options_are_one_sentence(
    args: list[str], told: str, run_folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    before = files(run_folder)
    code, out, err = run(capsys, run_folder, *(arg.format(run=run_folder) for arg in args))
    assert (code, out, err.count("\n")) == (2, "", 1)
    assert told in err
    assert files(run_folder) == before


def test_a_folder_without_a_run_is_one_sentence(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    code, _, err = run(capsys, tmp_path)
    assert (code, err.count("\n")) == (2, 1)
    assert f"{tmp_path / 'results.json'} does not exist, expected the results.json of `tiepoint benchmark`" in err


def test_what_cannot_be_drawn_is_listed_and_named_at_the_end(
    run_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    copy = tmp_path / "copy"
    shutil.copytree(run_folder, copy)
    (copy / "matches" / "1-2.npz").unlink()
    code, out, err = run(capsys, copy)
    assert code == 1
    assert len(listed(out)) == 4
    assert out.endswith(f"3 pictures in {copy / 'inspect' / 'sift-worst'}\n")
    assert "1 of 4 pairs could not be drawn, the first because " in err
    assert "1-2.npz" in err


def test_help_tells_the_options(capsys: pytest.CaptureFixture[str]) -> None:
    code, out, _ = run(capsys, "--help")
    assert code == 0
    assert all(option in out for option in ("--set", "--method", "--against", "--worst", "--best", "-o"))
