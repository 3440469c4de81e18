"""`tiepoint benchmark`: its files, its table, how it goes on after a kill, what it says to nonsense."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from glob import glob
from pathlib import Path
from typing import Any

import pytest

from tiepoint.cli import main
from tiepoint.evaluation.cache import read_cached
from tiepoint.evaluation.protocol import PROTOCOLS
from tiepoint.evaluation.results_io import read_results
from tiepoint.runtime.matcher import Matcher
from tiepoint.runtime.orb import Orb

FAST = ["--threads", "1", "--workers", "1", "--repeats", "0", "--thresholds", "3"]
PATIENCE = 300  # seconds, on a machine that does much else


@pytest.fixture
def sets(pair_sets: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Benchmarks that a test may change, under `data` in the current folder."""
    shutil.copytree(pair_sets, tmp_path / "data")
    monkeypatch.chdir(tmp_path)
    return tmp_path / "data"


def run(capsys: pytest.CaptureFixture[str], *args: str) -> tuple[int, str, str]:
    code = main(["benchmark", *args])
    captured = capsys.readouterr()
    return code, captured.out, captured.err


def stripped(value: Any) -> Any:
    """The content of results.json without what may differ from run to run."""
    if isinstance(value, dict):
        return {key: stripped(item) for key, item in value.items() if key not in ("seconds", "timing")}
    return [stripped(item) for item in value] if isinstance(value, list) else value


def test_writes_results_and_reports_and_prints_the_table(sets: Path, capsys: pytest.CaptureFixture[str]) -> None:
    code, out, err = run(capsys, "orb", "sift", "--data", "data", "-o", "out", *FAST[:-4], "--repeats", "1")
    assert code == 0
    assert all(len(line) <= 100 for line in out.splitlines())
    assert all(word in out for word in ("hard", "homography", "pose", "orb", "sift", "AUC@5", "Protocol tiepoint"))
    assert "multimodal" in err  # is not there
    assert {path.name for path in Path("out").iterdir()} == {"matches", "results.json", "report.md", "report.html"}
    results = read_results("out")
    assert results.command == "tiepoint benchmark orb sift --data data --output out --threads 1 --workers 1 --repeats 1"
    assert [found.name for found in results.sets] == ["hard", "homography", "pose"]
    assert [told.method for told in results.timing] == ["orb", "sift"]
    assert results.environment["threads"] == 1
    assert results.protocol["thresholds"] == [0.5, 1.0, 2.0, 3.0]


def test_two_runs_differ_in_times_alone(sets: Path, capsys: pytest.CaptureFixture[str]) -> None:
    contents = []
    for _ in range(2):
        shutil.rmtree("out", ignore_errors=True)
        assert run(capsys, "orb", "--data", "data", "-o", "out", *FAST[:-4], "--repeats", "1")[0] == 0
        contents.append(json.loads(Path("out/results.json").read_text()))
    assert stripped(contents[0]) == stripped(contents[1])
    # the comparison is not of nothing: the two did take their own times
    assert contents[0] != contents[1]


def test_options_change_the_protocol_and_reuse_the_matches(
    sets: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    common = ["orb", "--data", "homography=data/homography", "-o", "out", *FAST[:-2]]
    assert run(capsys, *common)[0] == 0

    def never(*_: object) -> None:
        raise AssertionError("matched again")

    monkeypatch.setattr(Orb, "match", never)
    options = ["--estimator", "opencv-ransac", "--thresholds", "1,5", "--seed", "4"]
    assert run(capsys, *common, *options)[0] == 0
    protocol = read_results("out").sets[0].protocol
    assert (protocol["estimator"], protocol["thresholds"], protocol["seed"]) == ("opencv-ransac", [1.0, 5.0], 4)
    code, _, err = run(capsys, *common, "--max_keypoints", "99")
    assert code == 1
    assert "orb failed on painting0/1-2: AssertionError: matched again" in err


def test_a_killed_run_goes_on_where_it_was(
    sets: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    many(sets / "homography", 20)
    args = ["orb", "sift", "--data", "data", "--sets", "homography", "-o", "out", *FAST]
    with started(args) as process:
        wait_for_matches(process, 3)
        process.send_signal(signal.SIGKILL)
        assert process.wait(PATIENCE) == -signal.SIGKILL
    kept = matches()
    assert 3 <= len(kept) < 80
    for path in kept:
        read_cached(path)
    before = {path: path.stat().st_mtime_ns for path in kept}
    calls = count_calls(monkeypatch)
    assert run(capsys, *args)[0] == 0
    assert {path: path.stat().st_mtime_ns for path in kept} == before
    assert len(matches()) == 80
    # what ORB had not matched yet, and one call to warm up
    assert len(calls) == 40 - sum("orb-" in str(path) for path in kept) + 1


def test_an_interrupted_run_says_so_in_one_line_and_keeps_what_it_has(
    sets: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    many(sets / "homography", 80)
    with started(["orb", "sift", "--data", "data", "--sets", "homography", "-o", "out", *FAST]) as process:
        wait_for_matches(process, 3)
        process.send_signal(signal.SIGINT)
        _, err = process.communicate(timeout=PATIENCE)
    assert process.returncode == 130
    assert err.splitlines()[-1] == "tiepoint: interrupted"
    assert "Traceback" not in err
    assert not Path("out/results.json").exists()
    assert list(Path("out").rglob(".tiepoint-*")) == []
    for path in matches():
        read_cached(path)


def test_what_cannot_be_used_is_left_out_counted_and_ends_with_one(
    sets: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    broken = sets / "homography" / "painting0" / "2.png"
    broken.write_bytes(broken.read_bytes()[:2000])
    (sets / "pose" / "view1.png").unlink()
    code, out, err = run(capsys, "orb", "--data", "data", "-o", "out", *FAST)
    assert code == 1
    assert "2 pairs were left out" in err.splitlines()[-1]
    assert "report.md lists them" in err.splitlines()[-1]
    assert "3 pairs, 1 left out" in " ".join(out.split())
    left_out = {found.name: found.left_out for found in read_results("out").sets}
    assert "view1.png" in left_out["pose"][0]
    assert "2.png is damaged" in left_out["homography"][0]
    assert "view1.png" in Path("out/report.md").read_text()
    code, out, err = run(capsys, "orb", "--data", "data", "-o", "strict", *FAST, "--strict")
    assert (code, out) == (2, "")
    assert "view1.png" in err.splitlines()[-1]


def test_a_public_set_is_fetched_where_that_is_asked_for(
    sets: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def prepare(_: object, root: Path) -> Path:
        return Path(shutil.copytree(sets / "homography", root / "hpatches"))

    args = ["orb", "--data", "data", "--sets", "hpatches", "-o", "out", *FAST]
    code, _, err = run(capsys, *args)
    assert code == 2
    assert "data/hpatches does not exist" in err
    monkeypatch.setattr("tiepoint.evaluation.download.prepare", prepare)
    assert run(capsys, *args, "--download")[0] == 0
    assert read_results("out").sets[0].name == "hpatches"


@pytest.mark.parametrize(
    ("args", "named"),
    [
        ([], "data"),
        (["--data", "nowhere"], "nowhere"),
        (["--data", "data/pose/view.png"], "view.png"),
        (["--data", "data/pose"], "data/pose"),
        (["--data", "pose=nowhere"], "nowhere"),
        (["--data", "data,data/pose"], "data/pose"),
        (["--data", "data,"], "--data"),
        (["--data", "data", "--sets", "pose,posse"], "posse"),
        (["--data", "data", "--sets", "hpatches"], "hpatches"),
        (["--data", "pose=data/pose", "--sets", "hard"], "hard"),
        (["--data", "homography=data/pose"], "data/pose"),
        (["sfit", "--data", "data"], "sfit"),
        (["sift", "sift", "--data", "data"], "sift"),
        (["data/pose/view.png", "--data", "data"], "view.png"),
        (["--data", "data", "--protocol", "lofter"], "lofter"),
        (["--data", "data", "--estimator", "lmeds"], "lmeds"),
        (["--data", "data", "--thresholds", "1,many"], "1,many"),
        (["--data", "data", "--thresholds", "1,-1"], "-1"),
        (["--data", "data", "--max_keypoints", "0"], "max_keypoints"),
        (["--data", "data", "--long_side", "5"], "long_side"),
        (["--data", "data", "--seed", "-1"], "seed"),
        (["--data", "data", "--threads", "0"], "--threads"),
        (["--data", "data", "--workers", "0"], "--workers"),
        (["--data", "data", "--repeats", "-1"], "--repeats"),
        (["--data", "data", "--weights", "xfeat=weights.pt"], "xfeat"),
        (["xfeat", "--data", "data", "--weights", "xfeat=missing.pt"], "missing.pt"),
        (["xfeat", "--data", "data", "--weights", "weights.pt"], "METHOD=FILE"),
        (["sift", "--data", "data", "--weights", "sift=data/pose/view.png"], "sift"),
        (["--data", "data", "-o", "data/pose/view.png"], "view.png"),
        (["--data", "data", "--threds", "1"], "--threds"),
    ],
)
def test_wrong_input_is_one_line_and_leaves_nothing(
    args: list[str], named: str, sets: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    before = sorted(Path().rglob("*"))
    code, out, err = run(capsys, *args)
    assert (code, out, err.count("\n")) == (2, "", 1)
    assert named in err
    assert "Traceback" not in err
    assert sorted(Path().rglob("*")) == before


def test_weights_go_to_their_methods_and_may_be_shared(
    sets: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("a.pth", "b.pth", "both.whl"):
        Path(name).write_bytes(name.encode())
    asked: list[tuple[str, list[str] | None]] = []

    def recorded(name: str, *, max_keypoints: int, weights: list[str] | None, **_: object) -> Matcher:
        asked.append((name, weights))
        return Matcher(Orb(max_keypoints), name=name)

    monkeypatch.setattr("tiepoint.evaluation.methods.load", recorded)
    methods = ["aliked-n16+lightglue", "disk+lightglue", "orb"]
    weights = "aliked-n16+lightglue=a.pth,both.whl,disk+lightglue=b.pth,both.whl"
    assert run(capsys, *methods, "--data", "data", "--sets", "hard", "-o", "out", "--weights", weights, *FAST)[0] == 0
    assert asked == [(methods[0], ["a.pth", "both.whl"]), (methods[1], ["b.pth", "both.whl"]), ("orb", None)]
    # a method with other weights has to be loaded to be known
    Path("both.whl").write_bytes(b"other")
    assert run(capsys, *methods, "--data", "data", "--sets", "hard", "-o", "out", "--weights", weights, *FAST)[0] == 0
    assert [name for name, _ in asked[3:]] == methods[:2]


def test_help_names_every_protocol_and_the_forms_of_lists(capsys: pytest.CaptureFixture[str]) -> None:
    code, out, _ = run(capsys, "--help")
    assert code == 0
    assert all(name in out for name in PROTOCOLS)
    assert "METHOD=FILE" in out
    assert "default sift orb" in " ".join(out.split())


def test_measures_without_torch(sets: Path) -> None:
    code = (
        "import sys; from tiepoint.cli import main\n"
        f"assert main(['benchmark', '--data', 'data', '--sets', 'pose', '-o', 'out', *{FAST}]) == 0\n"
        "assert not {'torch', 'lightning', 'kornia', 'matplotlib'} & set(sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=PATIENCE)
    assert done.returncode == 0, done.stderr
    assert [method.name for method in read_results("out").sets[0].methods] == ["default", "sift", "orb"]


def many(folder: Path, count: int) -> None:
    """Copies of a sequence, so that a run takes long enough to be stopped."""
    for index in range(2, count):
        shutil.copytree(folder / "painting0", folder / f"painting{index}")


def started(args: list[str]) -> subprocess.Popen[str]:
    """`tiepoint benchmark` in a process of its own."""
    command = [sys.executable, "-m", "tiepoint", "benchmark", *args]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=os.environ)


def matches() -> list[Path]:
    # glob, unlike Path.rglob, takes no offence at what is made or renamed meanwhile; it leaves hidden files out
    return [Path(name) for name in glob("out/matches/**/*.npz", recursive=True)]


def wait_for_matches(process: subprocess.Popen[str], count: int) -> None:
    end = time.monotonic() + PATIENCE
    while len(matches()) < count:
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < end
        time.sleep(0.01)


def count_calls(monkeypatch: pytest.MonkeyPatch) -> list[None]:
    """One entry for every call of ORB from now on."""
    calls: list[None] = []
    whole = Orb.match

    def counted(self: Orb, *images: Any) -> Any:
        calls.append(None)
        return whole(self, *images)

    monkeypatch.setattr(Orb, "match", counted)
    return calls
