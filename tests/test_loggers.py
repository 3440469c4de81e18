"""Each logger by its real client, offline; what was written is read back from its own files."""

import csv
import json
import os
import struct
import subprocess
import sys
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from tiepoint.cli import main

pytestmark = pytest.mark.filterwarnings("ignore::lightning.pytorch.utilities.warnings.PossibleUserWarning")


@pytest.fixture
def fit(small_fit: Callable[..., list[str]], tmp_path: Path) -> Callable[..., None]:
    """A training of three steps in a process of its own: the clients leave threads and exit handlers behind."""

    def run(*options: str) -> None:
        steps = ("--trainer.max_steps", "3", "--trainer.val_check_interval", "3")
        run_alone(*small_fit(*steps, *options), folder=tmp_path)

    return run


def run_alone(*args: str, folder: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "tiepoint", *args],
        cwd=folder,
        env=os.environ | {"WANDB_SILENT": "true", "COMET_LOGGING_CONSOLE": "error", "MLFLOW_TRACKING_URI": ""},
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr


def the_only(folder: Path, pattern: str) -> Path:
    found = list(folder.rglob(pattern))
    assert len(found) == 1, f"{pattern}: {sorted(folder.rglob('*'))}"
    return found[0]


def wandb_records(path: Path) -> Iterator[Any]:
    """The records of W&B's own file: LevelDB's log format, blocks of 32 KiB with chunks of a header of 7 bytes."""
    from wandb.proto.wandb_internal_pb2 import Record

    content, at, parts = path.read_bytes(), 7, b""  # behind the file's own header
    while at + 7 <= len(content):
        if 32768 - at % 32768 < 7:  # no room for a header: the block ends with padding
            at += 32768 - at % 32768
            continue
        _, length, kind = struct.unpack("<IHB", content[at : at + 7])
        parts += content[at + 7 : at + 7 + length]
        at += 7 + length
        if kind in (1, 4):  # a whole record, or the last part of one
            record = Record()
            record.ParseFromString(parts)
            yield record
            parts = b""


def test_several_at_once_tensorboard_and_csv(fit: Callable[..., None], tmp_path: Path) -> None:
    loggers = [
        {"class_path": "TensorBoardLogger", "init_args": {"save_dir": "tb", "name": "", "version": "mine"}},
        {"class_path": "CSVLogger", "init_args": {"save_dir": "csv", "name": "", "version": "mine"}},
    ]
    fit("--trainer.logger", json.dumps(loggers))
    header, *rows = (tmp_path / "csv" / "mine" / "metrics.csv").read_text().splitlines()
    assert {"train/loss", "val/accuracy", "step"} <= set(header.split(","))
    assert len(rows) == 4  # three steps and a validation
    assert "detections: 20" in (tmp_path / "csv" / "mine" / "hparams.yaml").read_text()
    # the run's own files lie with the first
    assert {"config.yaml", "last.ckpt", "run.log", "pairs"} <= {path.name for path in (tmp_path / "tb/mine").iterdir()}
    events = EventAccumulator(str(tmp_path / "tb" / "mine")).Reload()
    assert len(events.Scalars("train/loss")) == 3
    assert [each.step for each in events.Images("pairs")] == [0]
    assert [each.step for each in events.Images("matches")] == [3]


def test_a_csv_goes_on_where_the_training_does(small_fit: Callable[..., list[str]], tmp_path: Path) -> None:
    settings = {"save_dir": str(tmp_path), "name": "", "version": "mine", "flush_logs_every_n_steps": 1}
    logger = ("--trainer.logger", json.dumps({"class_path": "CSVLogger", "init_args": settings}))
    steps = ("--trainer.val_check_interval", "2", "--checkpoint.save_top_k", "-1", "--data.epoch_pairs", "12")

    def table() -> list[tuple[int, bool]]:
        """Of each row its step, and whether it is of a step of the training; else it is of a validation."""
        with (tmp_path / "mine" / "metrics.csv").open(newline="") as file:
            return [(int(row["step"]), bool(row["train/loss"])) for row in csv.DictReader(file)]

    assert main(small_fit(*logger, *steps, "--trainer.max_steps", "4")) == 0
    before = table()
    assert sorted(before) == [(0, True), (1, False), (1, True), (2, True), (3, False), (3, True)]
    # from step 2: what was logged of steps 2 and 3 is made again
    again = ("--ckpt_path", str(tmp_path / "mine" / "best-2.ckpt"))
    assert main(small_fit(*logger, *steps, "--trainer.max_steps", "4", *again)) == 0
    assert sorted(table()) == sorted(before)
    # measuring in the folder of the run adds a row
    _, *options = small_fit(*logger, "--ckpt_path", str(tmp_path / "mine" / "last.ckpt"))
    assert main(["validate", *options]) == 0
    assert len(table()) == len(before) + 1
    assert not list((tmp_path / "mine").glob("*.before"))


def test_weights_and_biases(fit: Callable[..., None], tmp_path: Path) -> None:
    pytest.importorskip("wandb")
    logger = {"class_path": "WandbLogger", "init_args": {"offline": True, "save_dir": ".", "project": "mine"}}
    fit("--trainer.logger", json.dumps(logger))
    logged: list[set[str]] = []
    config: set[str] = set()
    for record in wandb_records(the_only(tmp_path / "wandb", "run-*.wandb")):
        logged.append({item.key or "/".join(item.nested_key) for item in record.history.item})
        config |= {item.key or "/".join(item.nested_key) for item in record.config.update}
    names = set().union(*logged)
    assert {"train/loss", "val/accuracy"} <= names
    assert any(name.startswith("pairs") for name in names)
    assert sum("train/loss" in step for step in logged) == 3
    assert "detections" in config
    the_only(tmp_path / "wandb", "pairs_*.png")
    the_only(tmp_path / "wandb", "matches_*.png")
    assert len(list((tmp_path / "mine").glob("*/last.ckpt"))) == 1


@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # of the client's own database
def test_mlflow(fit: Callable[..., None], tmp_path: Path) -> None:
    mlflow = pytest.importorskip("mlflow")
    uri = f"sqlite:///{tmp_path}/mlflow.db"
    settings = {"experiment_name": "mine", "tracking_uri": uri, "artifact_location": str(tmp_path / "art")}
    fit("--trainer.logger", json.dumps({"class_path": "MLFlowLogger", "init_args": settings}))
    client = mlflow.MlflowClient(tracking_uri=uri)
    experiment = client.get_experiment_by_name("mine")
    (run,) = client.search_runs([experiment.experiment_id])
    assert [each.step for each in client.get_metric_history(run.info.run_id, "train/loss")] == [0, 1, 2]
    assert "val/accuracy" in run.data.metrics
    assert run.data.params["detections"] == "20"
    assert [each.path for each in client.list_artifacts(run.info.run_id, "pairs")] == ["pairs/000000.png"]
    assert [each.path for each in client.list_artifacts(run.info.run_id, "matches")] == ["matches/000003.png"]
    assert len(list((tmp_path / "runs").glob("*/*/last.ckpt"))) == 1


def test_comet(fit: Callable[..., None], tmp_path: Path) -> None:
    pytest.importorskip("comet_ml")
    settings = {"online": False, "offline_directory": str(tmp_path / "comet"), "project": "mine"}
    logger = {"class_path": "tiepoint.loggers.CometLogger", "init_args": settings}
    fit("--trainer.logger", json.dumps(logger))
    with zipfile.ZipFile(the_only(tmp_path / "comet", "*.zip")) as archive:
        lines = archive.read("messages.json").decode().splitlines()
    messages = [json.loads(line) for line in lines]
    numbers = [each["payload"]["metric"]["metricName"] for each in messages if each["type"] == "metric_msg"]
    assert numbers.count("train/loss") == 3
    assert "val/accuracy" in numbers
    settings = [each["payload"].get("param", {}) for each in messages]
    assert ("detections", 20) in {(each.get("paramName"), each.get("paramValue")) for each in settings}
    pictures = [each["payload"] for each in messages if each["payload"].get("upload_type") == "visualization"]
    assert [each["additional_params"]["figName"] for each in pictures] == ["pairs", "matches"]


@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # of mlflow's own database
def test_the_report_of_a_benchmark_reaches_all_at_once(
    fit: Callable[..., None], pair_sets: Path, tmp_path: Path
) -> None:
    mlflow = pytest.importorskip("mlflow")
    for client in ("wandb", "comet_ml"):
        pytest.importorskip(client)
    uri = f"sqlite:///{tmp_path}/mlflow.db"
    settings: dict[str, dict[str, Any]] = {
        "TensorBoardLogger": {"save_dir": "tb", "name": "", "version": "mine"},
        "WandbLogger": {"offline": True, "save_dir": "."},
        "MLFlowLogger": {"tracking_uri": uri, "artifact_location": str(tmp_path / "art")},
        "tiepoint.loggers.CometLogger": {"online": False, "offline_directory": str(tmp_path / "comet")},
    }
    loggers = [{"class_path": name, "init_args": arguments} for name, arguments in settings.items()]
    fit("--trainer.logger.save_dir", "runs", "--trainer.logger.version", "mine")
    run_alone(
        *("test", "--ckpt_path", "runs/mine/last.ckpt", "--data", "BenchmarkPairs", "--data.folder", str(pair_sets)),
        *("--data.sets", "[homography]", "--trainer.accelerator", "cpu", "--trainer.logger", json.dumps(loggers)),
        folder=tmp_path,
    )
    written = {"report.html", "report.md", "results.json"}
    events = EventAccumulator(str(tmp_path / "tb" / "mine")).Reload()
    assert any(tag.startswith("report") for tag in events.Tags()["tensors"])
    assert any(tag.startswith("homography/") for tag in events.Tags()["images"])
    saved = the_only(tmp_path / "wandb", "report.md").parent
    assert {path.name for path in saved.iterdir()} >= written
    client = mlflow.MlflowClient(tracking_uri=uri)
    (run,) = client.search_runs([each.experiment_id for each in client.search_experiments()])
    assert {Path(each.path).name for each in client.list_artifacts(run.info.run_id, "report")} == written
    with zipfile.ZipFile(the_only(tmp_path / "comet", "*.zip")) as archive:
        messages = archive.read("messages.json").decode()
    assert all(f"report/{name}" in messages for name in written)


def test_a_logger_whose_service_has_ended_is_told_in_a_line(
    small_fit: Callable[..., list[str]], capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(small_fit("--trainer.logger", "NeptuneLogger")) == 2
    assert "NeptuneLogger, whose service ended in March 2026, expected one of" in capsys.readouterr().err
