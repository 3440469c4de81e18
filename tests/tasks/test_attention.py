import math
from pathlib import Path
from typing import Any

import lightning as L
import pytest
import torch
from loguru import logger
from torch import Tensor
from torch.utils.data import DataLoader

import tiepoint
from tiepoint.checkpoints import Weights, read_weights, write_pt
from tiepoint.data.photos import PhotoPairs
from tiepoint.models.attention import AttentionMatcher
from tiepoint.models.base import spec_of
from tiepoint.models.pyramid import PyramidExtractor
from tiepoint.tasks.attention import AttentionTask

METRICS = {
    *("accuracy", "repeatability", "matches", "homography_auc@1", "homography_auc@3", "homography_auc@5"),
    *("pose_auc@5", "pose_auc@10", "pose_auc@20"),
}
WIDTHS = (8, 8, 16, 16, 16)


def make_data(photos: Path, **kwargs: Any) -> PhotoPairs:
    options: dict[str, Any] = {"size": (64, 64), "batch_size": 2, "num_workers": 0, "held_out_pairs": 6}
    return PhotoPairs(str(photos), **options | kwargs)


def make_task(**kwargs: Any) -> AttentionTask:
    torch.manual_seed(0)
    options: dict[str, Any] = {
        "model": PyramidExtractor(WIDTHS, dim=16),
        "matcher": AttentionMatcher(16, dim=16, layers=2, heads=2, width=8, min_score=0.0),
        "keypoints": 48,
        "max_keypoints": 64,
    }
    return AttentionTask(**options | kwargs)


def trainer(**kwargs: Any) -> L.Trainer:
    options: dict[str, Any] = {
        "accelerator": "cpu",
        "logger": False,
        "enable_checkpointing": False,
        "enable_progress_bar": False,
        "enable_model_summary": False,
        "num_sanity_val_steps": 0,
    }
    return L.Trainer(**options | kwargs)


@pytest.fixture
def batch(photos: Path) -> dict[str, Tensor]:
    """One easy batch of pairs."""
    torch.manual_seed(0)
    data = make_data(photos, photometric=0.2, parallax=0.0, bending=0.0, rotation=10.0, zoom=1.2)
    data.setup()
    served: dict[str, Tensor] = data.on_after_batch_transfer(next(iter(data.train_dataloader())), 0)
    return served


def fit(task: AttentionTask, batches: list[dict[str, Tensor]], **kwargs: Any) -> L.Trainer:
    """One epoch over just these batches."""
    loader: DataLoader[Any] = DataLoader(batches, batch_size=None)  # type: ignore[arg-type]
    runner = trainer(max_epochs=1, limit_val_batches=0, **kwargs)
    runner.fit(task, loader, loader)
    return runner


@pytest.fixture(scope="module")
def features(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A file with an extractor that nobody else has."""
    torch.manual_seed(5)
    path = tmp_path_factory.mktemp("features") / "features.pt"
    write_pt(path, Weights(PyramidExtractor(WIDTHS, dim=24, border=4).eval(), {}))
    return path


def same_state(a: torch.nn.Module, b: torch.nn.Module) -> bool:
    return all(torch.equal(value, b.state_dict()[name]) for name, value in a.state_dict().items())


# every verb


@pytest.mark.parametrize("verb", ["fit", "validate", "test", "predict"])
@pytest.mark.parametrize("precision", ["32-true", "bf16-mixed"])
def test_every_verb_runs(photos: Path, verb: str, precision: str) -> None:
    getattr(trainer(fast_dev_run=True, precision=precision), verb)(make_task(), make_data(photos))


def test_validation_and_test_report_every_metric(photos: Path) -> None:
    task = make_task()
    (metrics,) = trainer().validate(task, make_data(photos), verbose=False)
    assert set(metrics) == {f"val/{name}" for name in METRICS}
    assert all(math.isfinite(value) for value in metrics.values())
    assert 0 < metrics["val/matches"] <= 64
    (metrics,) = trainer().test(task, make_data(photos), verbose=False)
    assert set(metrics) == {f"test/{name}" for name in METRICS} | {"test/ms_per_pair"}
    assert task.timed_pairs == 4  # six pairs in batches of two, the first of which warms up


def test_pairs_that_do_not_differ_are_matched_rightly(photos: Path) -> None:
    still = {"jitter": 0.0, "rotation": 0.0, "zoom": 1.0, "shift": 0.0}
    still |= {"photometric": 0.0, "parallax": 0.0, "bending": 0.0}
    (easy,) = trainer().validate(make_task(), make_data(photos, **still), verbose=False)
    assert easy["val/accuracy"] > 0.95
    assert easy["val/homography_auc@1"] > 0.95


# what learns and what does not


def test_the_matcher_learns_and_the_features_do_not(batch: dict[str, Tensor]) -> None:
    task = make_task(lr=1e-2, warmup_steps=0)
    before = {name: value.detach().clone() for name, value in task.state_dict().items()}
    fit(task, [batch] * 4)
    changed = {name for name, value in task.state_dict().items() if not torch.equal(value, before[name])}
    assert changed == {f"matcher.{name}" for name, _ in task.matcher.named_parameters()}
    assert not task.model.training


def test_the_optimizer_knows_the_matcher_alone(batch: dict[str, Tensor]) -> None:
    runner = fit(make_task(), [batch])
    groups = runner.optimizers[0].param_groups
    held = sum(parameter.numel() for group in groups for parameter in group["params"])
    assert held == sum(parameter.numel() for parameter in make_task().matcher.parameters())


def test_training_lowers_the_loss(batch: dict[str, Tensor]) -> None:
    losses: list[float] = []

    class Record(L.Callback):
        def on_train_batch_end(self, trainer: L.Trainer, *_: Any) -> None:
            losses.append(float(trainer.callback_metrics["train/loss"]))

    fit(make_task(lr=1e-2, warmup_steps=0), [batch] * 60, callbacks=[Record()])
    assert losses[-1] < 0.95 * losses[0]


def test_views_that_do_not_overlap_are_harmless(batch: dict[str, Tensor]) -> None:
    apart = batch | {name: torch.zeros_like(batch[name]) for name in ("covisible0", "covisible1")}
    task = make_task()
    runner = fit(task, [apart] * 2)
    assert runner.callback_metrics["train/match"] == 0
    assert runner.callback_metrics["train/unmatchable"] > 0
    assert all(value.isfinite().all() for value in task.parameters())


# where the features come from


def test_features_come_out_of_a_file(features: Path) -> None:
    task = AttentionTask(features)
    assert task.model.init_args["border"] == 4
    assert same_state(task.model, read_weights(features).extractor)
    assert task.matcher.inputs == 24


def test_untrained_features_are_said_to_be_so(features: Path, batch: dict[str, Tensor]) -> None:
    said: list[str] = []
    handle = logger.add(lambda message: said.append(message.record["message"]), level="WARNING")
    try:
        fit(make_task(), [batch])
        assert any("--model.features" in line for line in said)
        said.clear()
        fit(AttentionTask(features, matcher=AttentionMatcher(24, dim=24, layers=1, heads=1, width=8)), [batch])
        assert said == []
    finally:
        logger.remove(handle)


@pytest.mark.parametrize("name", ["nowhere.ckpt", "text.pt"])
def test_a_file_that_holds_no_features_is_named(name: str, tmp_path: Path) -> None:
    (tmp_path / "text.pt").write_text("no network")
    with pytest.raises(tiepoint.InputError, match=name):
        AttentionTask(tmp_path / name)


def test_a_matcher_of_other_descriptors_is_refused(features: Path) -> None:
    with pytest.raises(tiepoint.InputError, match="of length 16, the features have 24"):
        AttentionTask(features, matcher=AttentionMatcher(16, dim=16))


# checkpoints


@pytest.fixture
def checkpoint(features: Path, batch: dict[str, Tensor], tmp_path: Path) -> tuple[Path, AttentionTask]:
    copied = tmp_path / "features.pt"
    copied.write_bytes(features.read_bytes())
    torch.manual_seed(0)
    task = AttentionTask(copied, matcher=AttentionMatcher(24, dim=32, layers=1, heads=1, width=8), lr=3e-4)
    fit(task, [batch] * 2).save_checkpoint(tmp_path / "task.ckpt")
    copied.unlink()
    return tmp_path / "task.ckpt", task


def test_a_checkpoint_brings_back_the_task_without_the_file_of_its_features(
    checkpoint: tuple[Path, AttentionTask],
) -> None:
    path, task = checkpoint
    loaded = AttentionTask.load_from_checkpoint(path)
    assert same_state(task, loaded)
    assert loaded.lr == 3e-4
    assert spec_of(loaded.matcher) == spec_of(task.matcher)
    assert spec_of(loaded.model) == spec_of(task.model)
    assert not loaded.untrained


def test_a_checkpoint_is_plain_data(checkpoint: tuple[Path, AttentionTask]) -> None:
    hparams = torch.load(checkpoint[0], weights_only=True)["hyper_parameters"]
    assert hparams["model"]["init_args"]["border"] == 4
    assert hparams["matcher"]["class_path"] == "tiepoint.models.attention.AttentionMatcher"
    assert hparams["matcher"]["init_args"]["dim"] == 32
    assert hparams["features"] is None


def test_a_checkpoint_holds_both_networks(checkpoint: tuple[Path, AttentionTask]) -> None:
    path, task = checkpoint
    weights = read_weights(path)
    assert weights.matcher is not None
    assert same_state(task.matcher, weights.matcher)
    assert same_state(task.model, weights.extractor)
    assert not weights.matcher.training
    assert weights.metadata["steps"] == 2


def test_its_features_are_those_of_another_training(checkpoint: tuple[Path, AttentionTask]) -> None:
    path, task = checkpoint
    assert same_state(AttentionTask(path).model, task.model)


def test_the_default_task_has_the_default_networks() -> None:
    task = AttentionTask()
    assert spec_of(task.model) == spec_of(PyramidExtractor())
    assert spec_of(task.matcher) == spec_of(AttentionMatcher())
