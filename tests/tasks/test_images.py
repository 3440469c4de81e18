"""Tasks of single images, from recipe to graph: fit, validate, test, predict, resume and convert, no special case."""

import shutil
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch

from tiepoint.checkpoints import read_weights
from tiepoint.cli import main
from tiepoint.conversion import check_images
from tiepoint.models.image import ImageNetwork
from tiepoint.runtime.image_graph import ImageGraph

pytestmark = [
    pytest.mark.filterwarnings("ignore::lightning.pytorch.utilities.warnings.PossibleUserWarning"),
    pytest.mark.filterwarnings("ignore:The dirpath has changed"),
    pytest.mark.filterwarnings("ignore:You're resuming from a checkpoint that ended before the epoch ended"),
]
RECIPES = Path(__file__).parents[2] / "recipes"
FIGURES = {"edges": ("val/ods", "test/ods"), "denoise": ("val/psnr", "test/photos/psnr@25")}
NETWORKS = {
    "edges": ["--model.model", "EdgeNetwork", "--model.model.widths", "[8,8]", "--model.model.dim", "8"],
    "denoise": ["--model.model", "DenoiseNetwork", "--model.model.widths", "[8,8]"],
}


@pytest.fixture(scope="module", autouse=True)
def small_sizes() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(check_images, "SIZES", ((97, 131),))
        yield


@pytest.fixture(scope="module", params=sorted(FIGURES))
def kind(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture(scope="module")
def command(kind: str, photos: Path, drawn: Path) -> list[str]:
    """The data of a run, small."""
    where = {
        "edges": ["--data.folder", str(drawn), "--data.size", "[64,64]"],
        "denoise": ["--data.folders", str(photos), "--data.size", "32", "--data.held_out_crops", "2"],
    }[kind]
    return [*where, "--data.batch_size", "2", "--data.num_workers", "0", "--trainer.accelerator", "cpu"]


@pytest.fixture(scope="module")
def run(kind: str, command: list[str], tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp(kind)
    recipe = ["fit", "--config", str(RECIPES / f"{kind}.yaml"), *command, *NETWORKS[kind]]
    steps = ["--trainer.max_steps", "2", "--trainer.val_check_interval", "2", "--trainer.precision", "32-true"]
    assert main([*recipe, *steps, *_where(folder, "run")]) == 0
    return folder / "run"


def _where(folder: Path, name: str) -> list[str]:
    return ["--trainer.logger.save_dir", str(folder), "--trainer.logger.version", name]


def _state(path: Path) -> dict[str, torch.Tensor]:
    state: dict[str, torch.Tensor] = torch.load(path, weights_only=True)["state_dict"]
    return state


def test_a_run_keeps_its_best_by_its_own_figure(kind: str, run: Path) -> None:
    names = {path.name for path in run.iterdir()}
    assert {"last.ckpt", "best-2.ckpt", "config.yaml", "run.log"} <= names
    assert FIGURES[kind][0].partition("/")[2] in (run / "run.log").read_text()


def test_it_goes_on_where_it_stopped(kind: str, run: Path, tmp_path: Path) -> None:
    own = shutil.copytree(run, tmp_path / "run")
    again = ["fit", "--config", str(own / "config.yaml"), "--ckpt_path", str(own / "last.ckpt")]
    assert main([*again, "--trainer.max_steps", "3", *_where(tmp_path, "run")]) == 0
    before, after = (torch.load(path / "last.ckpt", weights_only=True) for path in (run, own))
    assert (before["global_step"], after["global_step"]) == (2, 3)
    assert after["hyper_parameters"]["model"] == before["hyper_parameters"]["model"]


@pytest.mark.parametrize("verb", ["validate", "test"])
def test_it_is_measured(verb: str, kind: str, run: Path, command: list[str], photos: Path, tmp_path: Path) -> None:
    tests = ["--data.tests", f"[{photos}]"] if (kind, verb) == ("denoise", "test") else []
    measured = [verb, "--ckpt_path", str(run / "last.ckpt"), *command, *tests, "--trainer.limit_test_batches", "2"]
    assert main([*measured, *_where(tmp_path, "m")]) == 0
    figure = FIGURES[kind][verb == "test"]
    if kind == "denoise" and verb == "test":
        figure = f"test/{photos.name}/psnr@25"
    assert figure.partition("/")[2] in (tmp_path / "m" / "run.log").read_text()


def test_its_checkpoint_becomes_a_graph(kind: str, run: Path, tmp_path: Path) -> None:
    target = tmp_path / f"{kind}.onnx"
    assert main(["convert", str(run / "last.ckpt"), str(target)]) == 0
    _same_maps(target, read_weights(run / "last.ckpt").image_network)


@pytest.mark.slow
def test_it_converts_all_ways_with_the_same_maps(kind: str, run: Path, tmp_path: Path) -> None:
    ways = (
        ("a.pt", ""),
        ("a.onnx", "a.pt"),
        ("b.onnx", ""),
        ("b.pt", "a.onnx"),
        ("b.ckpt", "b.pt"),
        ("c.ckpt", "b.onnx"),
    )
    for target, source in ways:
        assert main(["convert", str(tmp_path / source if source else run / "last.ckpt"), str(tmp_path / target)]) == 0
    first, last = read_weights(run / "last.ckpt"), read_weights(tmp_path / "c.ckpt")
    assert last.specs() == first.specs()
    for name, value in first.model.state_dict().items():
        assert torch.allclose(value, last.model.state_dict()[name], rtol=1e-4, atol=1e-6), name
    assert last.metadata["task"]["class_path"] == first.metadata["task"]["class_path"]
    for name in ("a.onnx", "b.onnx"):
        _same_maps(tmp_path / name, first.image_network)


def _same_maps(path: Path, model: ImageNetwork) -> None:
    images = np.random.default_rng(0).integers(0, 256, (4, 45, 71, model.CHANNELS), np.uint8)
    with torch.inference_mode():
        expected = model(torch.from_numpy(images).permute(0, 3, 1, 2).float() / 255).permute(0, 2, 3, 1).numpy()
    assert np.abs(ImageGraph(path, output=model.OUTPUT).run(images) - expected).max() < 1e-4


def test_a_warm_start_is_trained_on(kind: str, run: Path, command: list[str], tmp_path: Path) -> None:
    assert main(["convert", str(run / "last.ckpt"), str(tmp_path / "a.pt")]) == 0
    assert main(["convert", str(tmp_path / "a.pt"), str(tmp_path / "warm.ckpt")]) == 0
    recipe = ["fit", "--config", str(RECIPES / f"{kind}.yaml"), *command, "--ckpt_path", str(tmp_path / "warm.ckpt")]
    steps = ["--trainer.max_steps", "1", "--trainer.limit_val_batches", "0", "--trainer.precision", "32-true"]
    assert main([*recipe, *steps, "--model.lr", "1e-9", *_where(tmp_path, "on")]) == 0
    before, after = _state(run / "last.ckpt"), _state(tmp_path / "on" / "last.ckpt")
    learned = [name for name in before if name.endswith(".weight")]
    assert learned
    assert all(torch.allclose(before[name], after[name], atol=1e-6) for name in learned)


def test_its_maps_are_predicted(kind: str, run: Path, command: list[str]) -> None:
    from tiepoint.tasks.denoise import DenoiseTask
    from tiepoint.tasks.edges import EdgeTask

    task = {"edges": EdgeTask, "denoise": DenoiseTask}[kind].load_from_checkpoint(run / "last.ckpt", map_location="cpu")
    assert isinstance(task.model, ImageNetwork)
    image = torch.rand(1, 3, 40, 50)
    with torch.inference_mode():
        found = task.eval().predict_step({"image": image, "noisy": image}, 0)
    maps = found["probability"] if isinstance(found, dict) else found
    assert maps.shape[2:] == image.shape[2:]
