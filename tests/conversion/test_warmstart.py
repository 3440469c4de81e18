"""Every network and task of the project, found by listing the rooms, goes through the file formats."""

import inspect
import sys
from collections.abc import Callable
from importlib import import_module
from pathlib import Path
from pkgutil import iter_modules
from types import ModuleType
from typing import Any

import lightning as L
import pytest
import torch
from torch import nn

from tiepoint import models, tasks
from tiepoint.checkpoints import WARM_START, Weights, read_weights, write_pt, write_safetensors
from tiepoint.cli import main
from tiepoint.conversion import check_images, copies, sweep_parity
from tiepoint.conversion.graphs import write_onnx
from tiepoint.conversion.report import Bounds
from tiepoint.conversion.warmstart import write_ckpt
from tiepoint.convert import convert
from tiepoint.errors import InputError, WorkError
from tiepoint.models.attention import AttentionMatcher
from tiepoint.models.base import Extractor, Network
from tiepoint.models.blocks import deployed, remainder, unfused
from tiepoint.models.pyramid import PyramidExtractor
from tiepoint.tasks.base import BaseTask


def listed(room: ModuleType, base: type) -> list[Any]:
    """Every class of a room that can be built without arguments; a new file is found by itself."""
    found = []
    for module in iter_modules(room.__path__, f"{room.__name__}."):
        for kind in vars(import_module(module.name)).values():
            own = inspect.isclass(kind) and kind.__module__ == module.name
            if own and issubclass(kind, base) and kind is not base and not inspect.isabstract(kind):
                required = [p for p in inspect.signature(kind).parameters.values() if p.default is p.empty]
                if all(p.kind is p.VAR_KEYWORD for p in required):
                    found.append(kind)
    return [kind for kind in found if kind is not Extractor]


SHIPPED = Path(models.__file__).parents[1] / "weights" / "default.onnx"
NETWORKS, TASKS = listed(models, Network), listed(tasks, BaseTask)


def busy(kind: type[Network], **arguments: Any) -> Network:
    """With statistics and factors of normalisations as after a training."""
    torch.manual_seed(0)
    network = kind(**arguments)
    if isinstance(network, Extractor):
        network.maps(torch.rand(2, 3, 64, 64))
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.uniform_(module.weight, 0.3, 2)
            nn.init.normal_(module.bias)
    if isinstance(network, AttentionMatcher):
        for output in network.outputs:  # one that is sure of itself, or it matches nothing
            nn.init.constant_(output.matchable.bias, 4.0)
            output.project.weight.data *= 3
    return network.eval()


def weights_of(network: Network) -> Weights:
    if isinstance(network, AttentionMatcher):
        # on features of random statistics it finds nothing
        return Weights(read_weights(SHIPPED).extractor, {"steps": 3}, network)
    return Weights(network, {"steps": 3})


def same(a: nn.Module | None, b: nn.Module | None) -> bool:
    ours, theirs = ({} if each is None else each.state_dict() for each in (a, b))
    return ours.keys() == theirs.keys() and all(torch.equal(value, theirs[name]) for name, value in ours.items())


def test_the_rooms_are_not_empty() -> None:
    assert {"PyramidExtractor", "AttentionMatcher", "PlaneSweep"} <= {kind.__name__ for kind in NETWORKS}
    assert {"MatchingTask", "AttentionTask", "DepthTask"} <= {kind.__name__ for kind in TASKS}


@pytest.mark.parametrize("kind", NETWORKS)
def test_every_network_keeps_its_weights_in_every_file_of_torch(kind: type[Network], tmp_path: Path) -> None:
    weights = weights_of(busy(kind))
    write_pt(tmp_path / "a.pt", weights)
    write_safetensors(tmp_path / "a.safetensors", weights)
    write_ckpt(tmp_path / "a.ckpt", weights)
    for path in tmp_path.iterdir():
        back = read_weights(path)
        assert same(back.model, weights.model)
        assert same(back.matcher, weights.matcher)
        assert back.metadata == weights.metadata
        assert back.specs() == weights.specs()


@pytest.mark.parametrize("kind", NETWORKS)
@pytest.mark.parametrize("branches", [False, True])
def test_every_network_comes_back_from_its_fused_form(kind: type[Network], branches: bool) -> None:
    if branches and "branches" not in inspect.signature(kind).parameters:
        pytest.skip("it has no branches")
    arguments = {"branches": True} if branches else {}
    network = busy(kind, **arguments)
    fused = deployed(network).state_dict()
    rest = remainder(network, fused)
    back = unfused(kind(**arguments), fused, rest)
    assert back.keys() == network.state_dict().keys()
    for name, value in network.state_dict().items():
        assert torch.allclose(back[name], value, rtol=1e-5, atol=1e-5 * float(value.abs().max())), name
    # what is kept beside the fused weights is small
    assert sum(v.numel() for v in rest.values()) < 0.2 * sum(v.numel() for v in fused.values())


def test_what_fusing_has_left_out_is_kept_in_full() -> None:
    network = busy(PyramidExtractor)
    fused = deployed(network).state_dict()
    name = "stem.0.0.weight"
    for part in ({key: value for key, value in fused.items() if key != name}, fused | {name: torch.zeros(16, 1, 4, 4)}):
        assert torch.equal(remainder(network, part)[name], network.state_dict()[name])


@pytest.mark.parametrize("kind", TASKS)
def test_every_task_converts_and_comes_back(kind: Callable[[], BaseTask], tmp_path: Path) -> None:
    torch.manual_seed(0)
    task = kind()
    trainer = L.Trainer(accelerator="cpu", logger=False, enable_checkpointing=False, enable_progress_bar=False)
    trainer.strategy.connect(task)
    trainer.save_checkpoint(tmp_path / "task.ckpt", weights_only=True)
    write_pt(tmp_path / "task.pt", read_weights(tmp_path / "task.ckpt"))
    write_ckpt(tmp_path / "warm.ckpt", read_weights(tmp_path / "task.pt"))
    back = type(task).load_from_checkpoint(tmp_path / "warm.ckpt")
    assert same(back, task)
    assert torch.load(tmp_path / "warm.ckpt", weights_only=True)["optimizer_states"] == []


@pytest.mark.slow
@pytest.mark.parametrize("kind", NETWORKS)
@pytest.mark.parametrize("branches", [False, True])
def test_every_network_goes_all_ways(
    kind: type[Network], branches: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(check_images, "SIZES", ((333, 517), (131, 97)))
    monkeypatch.setattr(check_images, "VIEWS", 1)
    monkeypatch.setattr(sweep_parity, "CASES", (((64, 96), 8), ((96, 64), 12)))
    if branches and "branches" not in inspect.signature(kind).parameters:
        pytest.skip("it has no branches")
    weights = weights_of(busy(kind, **({"branches": True} if branches else {})))
    write_pt(tmp_path / "a.pt", weights)
    # descriptors of random statistics are nearly the same: rounding decides who is nearest, so numbers count here
    for source, target in (("a.pt", "b.onnx"), ("b.onnx", "c.pt"), ("c.pt", "d.ckpt"), ("d.ckpt", "e.safetensors")):
        convert(tmp_path / source, tmp_path / target, bounds=Bounds(share=0.5, limit=1e-3, tolerance=100))
    for shape in ("extractor", "matcher") if isinstance(weights.model, Extractor) else ():
        convert(
            tmp_path / "a.pt",
            tmp_path / f"{shape}.onnx",
            shape=shape,
            bounds=Bounds(share=0.5, limit=1e-3, tolerance=100),
        )  # type: ignore[arg-type]
    for name, value in read_weights(tmp_path / "e.safetensors").model.state_dict().items():
        assert torch.allclose(value, weights.model.state_dict()[name], rtol=1e-4, atol=1e-4), name


def test_a_training_begins_with_a_warm_start(
    small_fit: Callable[..., list[str]], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    weights = weights_of(busy(PyramidExtractor, widths=(8, 16, 24, 24, 24), dim=24))
    write_ckpt(tmp_path / "warm.ckpt", weights)
    options = ["--trainer.max_steps", "2", "--trainer.limit_val_batches", "0", "--ckpt_path", f"{tmp_path}/warm.ckpt"]
    options += ["--model.lr", "1e-7", "--trainer.logger.save_dir", str(tmp_path), "--trainer.logger.version", "mine"]
    assert main(small_fit(*options)) == 0
    assert "warm.ckpt is a warm start" in capsys.readouterr().err
    after = torch.load(tmp_path / "mine" / "last.ckpt", weights_only=True)
    assert (after["global_step"], WARM_START in after) == (2, False)
    assert after["tiepoint_command"][0] == "fit"
    trained = read_weights(tmp_path / "mine" / "last.ckpt")
    assert trained.specs() == weights.specs()
    before = dict(weights.extractor.named_parameters())
    for name, value in trained.extractor.named_parameters():
        assert torch.allclose(value, before[name], atol=1e-5), name
    # where a run is already, nothing begins
    assert main(small_fit(*options)) == 2
    assert "holds a run already" in capsys.readouterr().err


def test_what_a_training_tells_names_no_folder(tmp_path: Path) -> None:
    write_ckpt(tmp_path / "a.ckpt", weights_of(busy(PyramidExtractor)))
    content = torch.load(tmp_path / "a.ckpt", weights_only=True)
    del content[WARM_START]
    content["tiepoint_command"] = ["fit", "--config", "/home/me/recipes/a.yaml", "--data.folders=[/data/x, y/z]"]
    content["datamodule_hyper_parameters"] = {"_class_path": "a.B", "folders": "/data", "size": [64, 64]}
    content["callbacks"] = {"c": {"monitor": "val/accuracy", "current_score": torch.tensor(0.5)}}
    torch.save(content, tmp_path / "b.ckpt")
    told = read_weights(tmp_path / "b.ckpt").metadata
    assert told["command"] == "tiepoint fit --config a.yaml '--data.folders=[x, z]'"
    assert told["data"] == {"class_path": "a.B", "init_args": {"size": [64, 64]}}
    assert told["figures"] == {"val/accuracy": 0.5}


@pytest.mark.parametrize("task", [{"class_path": "os.system"}, {"class_path": "tiepoint.tasks.base.nothing"}, {"a": 1}])
def test_a_task_of_something_else_is_refused(task: dict[str, Any], tmp_path: Path) -> None:
    weights = Weights(PyramidExtractor().eval(), {"task": task})
    with pytest.raises(InputError, match="training that the weights come from"):
        write_ckpt(tmp_path / "a.ckpt", weights)


class Smoother(Network):
    """A network that finds no keypoints."""

    def __init__(self, width: int = 3) -> None:
        super().__init__()
        self.layer = nn.Conv2d(1, width, 3)


class ManyTask(BaseTask):
    """A task with networks of its own names, and another class among its arguments."""

    def __init__(
        self,
        model: PyramidExtractor | None = None,
        refiner: Smoother | None = None,
        judge: Smoother | None = None,
        lr: float = 1e-3,
    ) -> None:
        networks = {"refiner": refiner or Smoother(2), "judge": judge or Smoother(5)}
        super().__init__(model or PyramidExtractor(widths=(8, 16, 24, 24, 24), dim=24), lr=lr, **networks)
        self.refiner, self.judge = networks.values()


class SmoothingTask(BaseTask):
    """A task that does not match."""

    def __init__(self, model: Smoother | None = None, lr: float = 1e-3) -> None:
        super().__init__(model or Smoother(), lr=lr)  # type: ignore[arg-type]


@pytest.fixture
def own_tasks(monkeypatch: pytest.MonkeyPatch) -> str:
    """The package from which the tasks above can be imported."""
    module = ModuleType("their_tasks")
    for kind in (Smoother, ManyTask, SmoothingTask):
        setattr(module, kind.__name__, kind)
        monkeypatch.setattr(kind, "__module__", module.__name__)
    monkeypatch.setitem(sys.modules, module.__name__, module)
    return module.__name__


def saved(task: BaseTask, path: Path) -> Path:
    trainer = L.Trainer(accelerator="cpu", logger=False, enable_checkpointing=False, enable_progress_bar=False)
    trainer.strategy.connect(task)
    trainer.save_checkpoint(path, weights_only=True)
    return path


def test_a_task_may_hold_any_number_of_networks(own_tasks: str, tmp_path: Path) -> None:
    torch.manual_seed(0)
    task = ManyTask(lr=5e-4)
    weights = read_weights(saved(task, tmp_path / "a.ckpt"), allow=[own_tasks])
    assert set(weights.others) == {"refiner", "judge"}
    assert weights.metadata["task"]["init_args"]["lr"] == 5e-4
    assert not set(weights.others) & set(weights.metadata["task"]["init_args"])
    write_safetensors(tmp_path / "a.safetensors", weights)
    write_pt(tmp_path / "a.pt", read_weights(tmp_path / "a.safetensors", allow=[own_tasks]))
    write_onnx(tmp_path / "a.onnx", read_weights(tmp_path / "a.pt", allow=[own_tasks]))
    back = read_weights(tmp_path / "a.onnx", allow=[own_tasks])
    assert all(same(back.others[name], getattr(task, name)) for name in ("refiner", "judge"))
    write_ckpt(tmp_path / "warm.ckpt", back, allow=[own_tasks])
    warm = ManyTask.load_from_checkpoint(tmp_path / "warm.ckpt")
    assert same(warm.refiner, task.refiner)
    assert same(warm.judge, task.judge)
    assert warm.lr == 5e-4
    # a stranger's file may not bring them along
    with pytest.raises(InputError, match="--allow"):
        read_weights(tmp_path / "a.pt")


def test_a_task_that_does_not_match_converts_bit_for_bit_or_says_why_not(own_tasks: str, tmp_path: Path) -> None:
    task = SmoothingTask()
    source = saved(task, tmp_path / "a.ckpt")
    assert convert(source, tmp_path / "a.pt", allow=[own_tasks], report=tmp_path / "r.json").pairs == []
    convert(tmp_path / "a.pt", tmp_path / "a.safetensors", allow=[own_tasks])
    convert(tmp_path / "a.safetensors", tmp_path / "warm.ckpt", allow=[own_tasks])
    assert same(SmoothingTask.load_from_checkpoint(tmp_path / "warm.ckpt").model, task.model)
    with pytest.raises(InputError, match=r"a\.pt holds Smoother, which finds no keypoints"):
        convert(tmp_path / "a.pt", tmp_path / "a.onnx", allow=[own_tasks])
    assert not (tmp_path / "a.onnx").exists()


def test_weights_that_are_lost_are_found_out(own_tasks: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source = saved(SmoothingTask(), tmp_path / "a.ckpt")

    def careless(path: Path, weights: Weights) -> None:
        write_pt(path, Weights(Smoother().eval(), weights.metadata))

    monkeypatch.setattr(copies, "write_pt", careless)
    with pytest.raises(WorkError, match=r"layer\.weight of the network model does not come back"):
        convert(source, tmp_path / "a.pt", allow=[own_tasks])


@pytest.mark.parametrize(
    "entries",
    [
        {"datamodule_hyper_parameters": [1, 2]},
        {"callbacks": {"a": {"monitor": ["x"], "current_score": torch.zeros(3)}}},
        {"callbacks": [1], "a": {"monitor": "x", "current_score": torch.zeros(2, 2)}},
    ],
)
def test_what_a_training_tells_need_not_be_what_it_ought_to_be(entries: dict[str, Any], tmp_path: Path) -> None:
    write_ckpt(tmp_path / "a.ckpt", weights_of(busy(PyramidExtractor)))
    content = torch.load(tmp_path / "a.ckpt", weights_only=True)
    del content[WARM_START]
    torch.save(content | entries, tmp_path / "b.ckpt")
    assert read_weights(tmp_path / "b.ckpt").metadata["figures"] == {}
