"""fit, validate, test and predict through the command line, on a handful of small photographs."""

import inspect
import os
import re
import shutil
import signal
import subprocess
import sys
from dataclasses import asdict
from pathlib import Path

import lightning as L
import pytest
import torch
import yaml
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

import tiepoint
from tiepoint.checkpoints import read_weights
from tiepoint.cli import main
from tiepoint.data.noisy import NoisyPhotos
from tiepoint.evaluation.results_io import read_results
from tiepoint.resume import newest_checkpoint
from tiepoint.tasks.denoise import DenoiseTask
from tiepoint.tasks.matching import MatchingTask

pytestmark = [
    # Lightning's advice to the user of a real run: log more often, limit the epochs
    pytest.mark.filterwarnings("ignore::lightning.pytorch.utilities.warnings.PossibleUserWarning"),
    pytest.mark.filterwarnings("ignore:The dirpath has changed"),
    pytest.mark.filterwarnings("ignore:You're resuming from a checkpoint that ended before the epoch ended"),
]
RECIPES = sorted((Path(__file__).parents[1] / "recipes").glob("*.yaml"))
SMALL_DATA = [
    *("--data.size", "[64, 64]", "--data.batch_size", "2", "--data.held_out_pairs", "4", "--data.num_workers", "0"),
    *("--trainer.accelerator", "cpu", "--trainer.precision", "32-true"),
]
ANY = [*SMALL_DATA, "--model.max_keypoints", "64"]  # of the tasks that match
IMAGES = ["--data.batch_size", "2", "--data.num_workers", "0", "--trainer.accelerator", "cpu"]
OPTIONS = {
    "StereoPairs": SMALL_DATA,
    "EdgeMaps": [*IMAGES, "--data.size", "[64, 64]"],
    "NoisyPhotos": [*IMAGES, "--data.size", "32", "--data.held_out_crops", "2"],
}
SMALL = [*ANY, "--model.detections", "20", "--model.random_points", "10"]  # of the task that trains features


def fit(photos: Path, runs: Path, *extra: str) -> int:
    recipe = str(next(path for path in RECIPES if path.stem == "photos"))
    return main(
        [
            *("fit", "--config", recipe, "--data.folders", str(photos), *SMALL),
            *("--trainer.logger.save_dir", str(runs), "--trainer.logger.version", "mine"),
            *("--trainer.max_steps", "6", "--trainer.val_check_interval", "3", *extra),
        ]
    )


@pytest.fixture(scope="module")
def run(photos: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    runs = tmp_path_factory.mktemp("runs")
    assert fit(photos, runs) == 0
    return runs / "mine"


def test_a_run_keeps_its_config_checkpoints_and_logs(run: Path) -> None:
    names = {path.name for path in run.iterdir()}
    assert {"config.yaml", "last.ckpt", "run.log", "hparams.yaml"} <= names
    assert any(name.startswith("best-") for name in names)
    assert any(name.startswith("events.out.tfevents") for name in names)
    assert [path.name for path in (run / "pairs").iterdir()] == ["000000.png"]  # what it learned from, step 0
    assert sorted(path.name for path in (run / "matches").iterdir()) == ["000003.png", "000006.png"]
    log = (run / "run.log").read_text()
    assert "step 3: accuracy" in log
    assert "step 6: accuracy" in log


def test_hyperparameters_are_in_the_checkpoint_and_in_the_logger(run: Path) -> None:
    content = torch.load(run / "last.ckpt", weights_only=True)
    assert content["hyper_parameters"]["detections"] == 20
    assert content["hyper_parameters"]["model"]["class_path"] == "tiepoint.models.pyramid.PyramidExtractor"
    assert yaml.safe_load((run / "hparams.yaml").read_text())["detections"] == 20


def test_a_task_built_by_the_cli_loads_in_python(run: Path) -> None:
    task = MatchingTask.load_from_checkpoint(run / "last.ckpt")
    assert task.detections == 20
    state = torch.load(run / "last.ckpt", weights_only=True)["state_dict"]
    assert all(torch.equal(value, task.state_dict()[name]) for name, value in state.items())


def test_the_checkpoint_is_a_matcher(run: Path) -> None:
    matcher = tiepoint.load(run / "last.ckpt", max_keypoints=128)
    from skimage import data

    assert len(matcher(data.camera(), data.camera())) > 20


def test_resuming_goes_on_where_it_stopped(run: Path, photos: Path, tmp_path: Path) -> None:
    before = torch.load(run / "last.ckpt", weights_only=True)
    assert before["global_step"] == 6
    code = main(
        [
            *("fit", "--config", str(run / "config.yaml"), "--ckpt_path", str(run / "last.ckpt")),
            *("--trainer.max_steps", "8", "--trainer.logger.save_dir", str(tmp_path)),
            *("--model.lr", "0.0005", "--trainer.val_check_interval", "1"),
        ]
    )
    assert code == 0
    after = torch.load(tmp_path / "mine" / "last.ckpt", weights_only=True)
    assert after["global_step"] == 8
    assert after["lr_schedulers"][0]["last_epoch"] == 8
    # the command line wins over what the checkpoint remembers, in the record and in what the optimizer does
    assert after["hyper_parameters"]["lr"] == 0.0005
    assert after["optimizer_states"][0]["param_groups"][0]["lr"] <= 0.0005


def test_resuming_in_the_runs_own_folder_goes_on_there(run: Path, tmp_path: Path) -> None:
    own = shutil.copytree(run, tmp_path / "mine")
    where = ["--trainer.logger.save_dir", str(tmp_path), "--ckpt_path", str(own / "last.ckpt")]
    assert main(["fit", "--config", str(own / "config.yaml"), *where, "--trainer.max_steps", "7"]) == 0
    assert torch.load(own / "last.ckpt", weights_only=True)["global_step"] == 7
    assert (own / "run.log").read_text().count("run: ") == 2


def test_without_a_logger_the_current_folder_keeps_what_is_in_it(
    photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "config.yaml").write_text("mine: 1\n")
    recipe = str(next(path for path in RECIPES if path.stem == "photos"))
    bare = ["--trainer.logger", "false", "--trainer.max_steps", "2", "--trainer.val_check_interval", "2"]
    command = ["fit", "--config", recipe, "--data.folders", str(photos), *SMALL, *bare]
    assert main(command) == 0
    assert (tmp_path / "config.yaml").read_text() == "mine: 1\n"
    assert {path.name for path in tmp_path.iterdir()} == {"config.yaml", "checkpoints"}
    assert torch.load(tmp_path / "checkpoints" / "last.ckpt", weights_only=True)["global_step"] == 2
    assert main(command) == 2
    assert "holds a run already" in capsys.readouterr().err


@pytest.mark.parametrize("verb", ["validate", "test"])
def test_measures_a_checkpoint_without_a_recipe(verb: str, run: Path, photos: Path, tmp_path: Path) -> None:
    args = ["--ckpt_path", str(run / "last.ckpt"), "--data.folders", str(photos), *SMALL]
    assert main([verb, *args, "--trainer.logger.save_dir", str(tmp_path), "--trainer.logger.version", "v"]) == 0
    log = (tmp_path / "v" / "run.log").read_text()
    assert "accuracy" in log
    assert ("ms_per_pair" in log) == (verb == "test")


def test_an_option_wins_over_the_checkpoint_and_the_checkpoint_over_the_default(
    run: Path, photos: Path, tmp_path: Path
) -> None:
    args = ["--ckpt_path", str(run / "last.ckpt"), "--data.folders", str(photos), "--data.num_workers", "0"]
    options = ["--model.max_keypoints", "32", "--trainer.accelerator", "cpu", "--trainer.limit_test_batches", "1"]
    where = ["--trainer.logger.save_dir", str(tmp_path), "--trainer.logger.version", "v"]
    assert main(["test", *args, *options, *where]) == 0
    hparams = yaml.safe_load((tmp_path / "v" / "hparams.yaml").read_text())
    assert hparams["max_keypoints"] == 32
    assert hparams["detections"] == 20
    assert hparams["reliability_weight"] == 0.5
    # the pairs too are those of the training, where nothing else is said
    assert list(hparams["size"]) == [64, 64]
    assert hparams["held_out_pairs"] == 4


def test_predict_writes_the_matches_of_neighbouring_photos(run: Path, photos: Path, tmp_path: Path) -> None:
    args = ["--ckpt_path", str(run / "last.ckpt"), "--data.folders", str(photos), *SMALL]
    where = ["--trainer.logger.save_dir", str(tmp_path), "--trainer.logger.version", "v"]
    assert main(["predict", *args, *where]) == 0
    files = sorted(path.name for path in (tmp_path / "v" / "predictions").iterdir())
    assert files[0] == "00000-photo0-photo1.npz"
    assert len(files) == 7
    from tiepoint.formats import read_matches

    assert read_matches(tmp_path / "v" / "predictions" / files[0]).size0 == (120, 160)


def test_a_run_is_never_overwritten_by_another(run: Path, photos: Path, capsys: pytest.CaptureFixture[str]) -> None:
    before = {path: path.stat().st_mtime_ns for path in run.iterdir()}
    assert fit(photos, run.parent) == 2
    assert "holds a run already" in capsys.readouterr().err
    assert before.items() <= {path: path.stat().st_mtime_ns for path in run.iterdir()}.items()


def test_measuring_a_run_in_its_own_folder_leaves_its_config(run: Path, photos: Path) -> None:
    before = (run / "config.yaml").read_bytes()
    args = ["--ckpt_path", str(run / "last.ckpt"), "--data.folders", str(photos), *SMALL]
    where = ["--trainer.logger.save_dir", str(run.parent), "--trainer.logger.version", "mine"]
    assert main(["validate", *args, *where]) == 0
    assert (run / "config.yaml").read_bytes() == before


@pytest.mark.parametrize("verb", ["validate", "test", "predict"])
@pytest.mark.parametrize("ckpt_path", [None, "best"])
def test_nothing_is_measured_without_weights(
    verb: str, ckpt_path: str | None, photos: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    given = ["--ckpt_path", ckpt_path] if ckpt_path else []
    assert main([verb, "--data.folders", str(photos), *given]) == 2
    assert "--ckpt_path" in capsys.readouterr().err


def test_a_short_run_is_not_the_average_of_its_random_start(run: Path) -> None:
    content = torch.load(run / "last.ckpt", weights_only=True)
    L.seed_everything(0)
    start = MatchingTask().state_dict()
    averaged, trained = content["state_dict"], content["current_model_state"]
    name = "model.fuse.1.weight"
    assert not torch.equal(averaged[name], start[name])
    assert not torch.equal(averaged[name], trained[name])
    assert (averaged[name] - trained[name]).norm() < (start[name] - trained[name]).norm()


INTERRUPTIBLE = """
import signal, sys
signal.signal(signal.SIGINT, signal.default_int_handler)
from tiepoint.cli import main
sys.exit(main(sys.argv[1:]))
"""


def test_an_interrupt_keeps_what_was_learned(photos: Path, tmp_path: Path) -> None:
    recipe = str(next(path for path in RECIPES if path.stem == "photos"))
    where = ["--trainer.logger.save_dir", str(tmp_path), "--trainer.logger.version", "mine"]
    checks = ["--trainer.val_check_interval", "2", "--trainer.max_steps", "100000", "--trainer.limit_val_batches", "1"]
    command = ["fit", "--config", recipe, "--data.folders", str(photos), *SMALL, *where, *checks]
    # a shell's background job, as a test run may be one, starts with interrupts ignored and hands that on
    start = [sys.executable, "-c", INTERRUPTIBLE, *command]
    lines = []
    with subprocess.Popen(start, stderr=subprocess.PIPE, text=True, start_new_session=True) as process:
        try:
            assert process.stderr is not None
            for line in process.stderr:
                lines.append(line)
                if "step 4:" in line:
                    process.send_signal(signal.SIGINT)
                    break
            _, rest = process.communicate(timeout=120)
        finally:
            process.kill()
    assert process.returncode == 130, "".join(lines) + rest
    assert rest.splitlines()[-1] == "tiepoint: interrupted"
    assert torch.load(tmp_path / "mine" / "last.ckpt", weights_only=True)["global_step"] >= 3


@pytest.mark.filterwarnings("ignore:You requested to overfit")  # and shuffling, which is turned off as it should
@pytest.mark.parametrize("recipe", RECIPES, ids=lambda path: path.stem)
def test_every_recipe_runs_a_step(
    recipe: Path, photos: Path, posed: Path, drawn: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.chdir(tmp_path)
    kind = yaml.safe_load(recipe.read_text())["data"]["class_path"].rpartition(".")[2]
    own = {"PosedPairs": ["--data.folder", str(posed)], "EdgeMaps": ["--data.folder", str(drawn)]}
    where, options = own.get(kind, ["--data.folders", str(photos)]), OPTIONS.get(kind, ANY)
    if kind == "MixedPairs":  # the folders and sizes stand in the recipe
        where, options = ["--data.num_workers", "0"], SMALL_DATA[-4:]
        (tmp_path / "photos").symlink_to(photos)
        (tmp_path / "posed").symlink_to(posed)
        (tmp_path / "stereo").mkdir()
        for side in ("left", "right"):
            shutil.copy(posed / "a0.png", tmp_path / "stereo" / f"{side}.png")
    assert main(["fit", "--config", str(recipe), *where, "--trainer.fast_dev_run", "true", *options]) == 0


def test_a_matcher_by_attention_is_trained_on_a_run(run: Path, photos: Path, tmp_path: Path) -> None:
    recipe = str(next(path for path in RECIPES if path.stem == "attention"))
    small = ["--model.matcher", "AttentionMatcher", "--model.matcher.dim", "64", "--model.matcher.layers", "1"]
    where = ["--trainer.logger.save_dir", str(tmp_path), "--trainer.logger.version", "attentive"]
    steps = ["--trainer.max_steps", "2", "--trainer.val_check_interval", "2", "--model.keypoints", "48"]
    features = ["--model.features", str(run / "last.ckpt")]
    command = ["fit", "--config", recipe, "--data.folders", str(photos), *ANY, *small, *where]
    assert main([*command, *steps, *features]) == 0
    checkpoint = tmp_path / "attentive" / "last.ckpt"
    state, before = (torch.load(path, weights_only=True)["state_dict"] for path in (checkpoint, run / "last.ckpt"))
    # the features are those of the run, to the last digit
    assert all(torch.equal(state[name], value) for name, value in before.items() if name.startswith("model."))
    measured = ["--ckpt_path", str(checkpoint), "--data.folders", str(photos), "--data.num_workers", "0"]
    again = ["--trainer.logger.save_dir", str(tmp_path), "--trainer.logger.version", "measured"]
    assert main(["validate", *measured, *again, "--trainer.accelerator", "cpu"]) == 0
    assert "accuracy" in (tmp_path / "measured" / "run.log").read_text()
    assert read_weights(checkpoint).matcher is not None


def test_print_config_prints_a_recipe(photos: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["fit", "--data.folders", str(photos), "--print_config"]) == 0
    config = yaml.safe_load(capsys.readouterr().out)
    assert config["model"]["class_path"] == "tiepoint.tasks.matching.MatchingTask"


def test_classes_that_a_recipe_names_keep_their_own_defaults(
    photos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    recipe = tmp_path / "recipe.yaml"
    recipe.write_text("model:\n  class_path: DenoiseTask\ndata:\n  class_path: NoisyPhotos\n")
    assert main(["fit", "--config", str(recipe), "--data.folders", str(photos), "--print_config"]) == 0
    config = yaml.safe_load(capsys.readouterr().out)
    for part, kind in (("model", DenoiseTask), ("data", NoisyPhotos)):
        own = inspect.signature(kind).parameters
        given = config[part]["init_args"]
        assert {name: given[name] for name in own if name != "folders"} == {
            name: each.default for name, each in own.items() if name != "folders"
        }


@pytest.mark.parametrize(
    ("args", "named"),
    [
        (["--config", "nowhere.yaml"], "nowhere.yaml"),
        (["--data.folders", "nowhere"], "nowhere"),
        (["--data.folderz", "x"], "'folderz' is not accepted; the nearest is folders"),
        (["--modle.lr", "1"], "--modle.lr"),
        (["--trainer.max_stepz", "1"], "--trainer.max_stepz 1; the nearest is --trainer.max_steps"),
        (["--checkpoint.save_topk=3"], "the nearest is --checkpoint.save_top_k"),
        (["--model", "Matching"], "there is no class Matching; the nearest is MatchingTask"),
        (["--model", "tiepoint.tasks.matching.MatchTask"], "MatchTask'); the nearest is MatchingTask"),
        (["--model.model", "PyramidExtractr"], "model: there is no class PyramidExtractr; the nearest is PyramidEx"),
        (["--trainer.callbacks+=EarlyStoping"], "there is no class EarlyStoping; the nearest is EarlyStopping"),
        (["--config", "{misspelt}"], "'trainer.max_stepz'; the nearest is trainer.max_steps"),
        (["--data.folders", "{photos}", "--model.lr", "fast"], "fast"),
        (["--data.folders", "{photos}", "--ckpt_path", "nowhere.ckpt"], "nowhere.ckpt"),
        (["--data.folders", "{photos}", "--ckpt_path", "{photos}/photo0.jpg"], "photo0.jpg"),
        (["--data.folders", "{photos}", "--data.batch_size", "0"], "batch_size"),
        (["--data.folders", "{photos}", "--data.size", "[100, 64]"], "multiples of 32"),
        (["--data.folders", "{photos}", "--trainer.accelerator", "abacus"], "abacus"),
        (["--data.folders", "{photos}", "--trainer.logger.save_dir", "{photos}/photo0.jpg"], "photo0.jpg"),
        (["--data", "Nothing", "--data.folders", "x"], "Nothing"),
        ([], "folders"),
    ],
)
def test_wrong_options_are_one_line(
    args: list[str],
    named: str,
    photos: Path,
    tmp_path: Path,
    tmp_path_factory: pytest.TempPathFactory,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    misspelt = tmp_path_factory.mktemp("recipe") / "misspelt.yaml"
    misspelt.write_text("trainer:\n  max_stepz: 3\n")
    monkeypatch.chdir(tmp_path)
    code = main(["fit", *(arg.replace("{photos}", str(photos)).replace("{misspelt}", str(misspelt)) for arg in args)])
    lines = [line for line in capsys.readouterr().err.splitlines() if "photos usable" not in line]
    assert code == 2
    assert len(lines) == 1
    assert lines[0].startswith("tiepoint: ")
    assert named in lines[0]
    assert not list(tmp_path.iterdir())


def test_a_folder_without_usable_photos_says_where_it_looked(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "text.jpg").write_text("no image")
    assert main(["fit", "--data.folders", str(tmp_path)]) == 2
    assert f"no usable photo in {tmp_path}" in capsys.readouterr().err


def stripped(value: object, *, rel: float | None = None) -> object:
    """Without what the clock decides, and without where the matches lie; floats to be met within `rel`, if given."""
    if isinstance(value, dict):
        left = {key: item for key, item in value.items() if key not in ("seconds", "matches_file", "name")}
        return {key: stripped(item, rel=rel) for key, item in left.items()}
    if isinstance(value, list):
        return [stripped(item, rel=rel) for item in value]
    return pytest.approx(value, rel=rel) if rel and isinstance(value, float) else value


def test_a_test_on_benchmarks_gives_the_figures_of_tiepoint_benchmark(
    run: Path, pair_sets: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    # the benchmark fuses the network first, which rounds otherwise: a match more or less, and another model by RANSAC
    monkeypatch.setattr("tiepoint.runtime.eager.deployed", lambda network: network)
    checkpoint = str(run / "last.ckpt")
    where = ["--trainer.logger.save_dir", str(tmp_path), "--trainer.logger.version", "measured"]
    data = ["--data", "BenchmarkPairs", "--data.folder", str(pair_sets)]
    assert main(["test", "--ckpt_path", checkpoint, *data, *where, "--trainer.accelerator", "cpu"]) == 0
    counts = ["--threads", str(torch.get_num_threads()), "--workers", "1", "--repeats", "0"]
    command = ["benchmark", checkpoint, "--data", str(pair_sets), "-o", str(tmp_path / "run"), "--device", "cpu"]
    assert main([*command, *counts]) == 0
    capsys.readouterr()
    ours, theirs = read_results(tmp_path / "measured"), read_results(tmp_path / "run")
    assert [found.name for found in ours.sets] == ["hard", "homography", "pose"]
    # the last digits of float32 are not the same in both: sums may be divided among threads differently
    assert stripped(asdict(ours)["sets"]) == stripped(asdict(theirs)["sets"], rel=1e-5)
    events = EventAccumulator(str(tmp_path / "measured"))
    events.Reload()
    figure = theirs.sets[1].methods[0].figures["MHA@10"]
    assert events.Scalars("test/homography/MHA@10")[0].value == pytest.approx(figure)
    assert any(tag.startswith("pose/") for tag in events.Tags()["images"])
    assert main(["inspect", str(tmp_path / "measured"), "--set", "hard"]) == 0
    assert (tmp_path / "measured" / "report.html").stat().st_size > 1000


def test_a_folder_without_benchmarks_is_named(run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    data = ["--data", "BenchmarkPairs", "--data.folder", str(tmp_path)]
    assert main(["test", "--ckpt_path", str(run / "last.ckpt"), *data, "--trainer.logger", "false"]) == 2
    assert f"{tmp_path} holds no benchmark" in capsys.readouterr().err


# what goes wrong on the way


def test_a_monitor_that_is_not_measured_costs_the_best_checkpoint_alone(
    photos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert fit(photos, tmp_path, "--checkpoint.monitor", "val/acc") == 0
    said = [line for line in capsys.readouterr().err.splitlines() if "--checkpoint.monitor is val/acc" in line]
    assert len(said) == 1
    assert "val/accuracy" in said[0]
    assert [path.name for path in sorted((tmp_path / "mine").glob("*.ckpt"))] == ["last.ckpt", "previous.ckpt"]


def test_a_batch_larger_than_the_photos_is_told(
    photos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert fit(photos, tmp_path, "--data.batch_size", "8", "--trainer.max_steps", "1") == 0
    assert "data.batch_size is 8 and 6 photos train: they repeat" in capsys.readouterr().err


def test_a_full_disk_ends_the_training_with_a_line_and_leaves_what_was_there(photos: Path, tmp_path: Path) -> None:
    assert fit(photos, tmp_path, "--trainer.max_steps", "2", "--trainer.val_check_interval", "2") == 0
    before = (tmp_path / "mine" / "last.ckpt").read_bytes()
    recipe = next(path for path in RECIPES if path.stem == "photos")
    kilobytes = len(before) // 2048
    done = subprocess.run(
        [
            *("bash", "-c", f'ulimit -f {kilobytes}; exec "$@"', "bash", sys.executable, "-m", "tiepoint", "fit"),
            *("--config", str(recipe), "--data.folders", str(photos), *SMALL, "--ckpt_path", "last"),
            *("--trainer.logger.save_dir", str(tmp_path), "--trainer.logger.version", "mine"),
            *("--trainer.max_steps", "4", "--trainer.val_check_interval", "2"),
        ],
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 1
    assert re.search(r"tiepoint: \S+\.ckpt could not be written: File too large$", done.stderr.strip())
    assert (tmp_path / "mine" / "last.ckpt").read_bytes() == before
    assert not [path for path in (tmp_path / "mine").iterdir() if path.name.startswith(".")]


DYING = """
import itertools, os, signal
from tiepoint.data import photos

count = itertools.count()


class Crops(photos.PhotoCrops):
    def __getitem__(self, which):
        if self.held_out is None and next(count) == 10:
            os.kill(os.getpid(), signal.SIGKILL)
        return super().__getitem__(which)


class Dying(photos.PhotoPairs):
    def train_dataloader(self):
        photos.PhotoCrops = Crops
        return super().train_dataloader()
"""


def test_a_reading_process_that_dies_is_told_and_the_training_can_go_on(photos: Path, tmp_path: Path) -> None:
    (tmp_path / "dying.py").write_text(DYING)
    recipe = next(path for path in RECIPES if path.stem == "photos")
    done = subprocess.run(
        [
            *(sys.executable, "-m", "tiepoint", "fit", "--config", str(recipe), "--data", "dying.Dying"),
            *("--data.folders", str(photos), *SMALL, "--data.num_workers", "1", "--trainer.max_steps", "100"),
            *("--trainer.val_check_interval", "3", "--checkpoint.every_n_train_steps", "1"),
            *("--trainer.logger.save_dir", str(tmp_path), "--trainer.logger.version", "mine"),
        ],
        env=os.environ | {"PYTHONPATH": str(tmp_path)},
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 1
    assert "tiepoint: a process that reads the data has ended (DataLoader worker" in done.stderr.splitlines()[-1]
    assert not (tmp_path / "mine" / "crash").exists()
    assert newest_checkpoint(tmp_path / "mine").name == "last.ckpt"
