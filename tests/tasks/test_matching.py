import math
import shutil
from itertools import pairwise
from pathlib import Path
from typing import Any

import lightning as L
import pytest
import torch
from torch import Tensor
from torch.utils.data import DataLoader

from tiepoint.data.photos import ConsecutivePhotos, PhotoPairs
from tiepoint.models.base import spec_of
from tiepoint.models.pyramid import PyramidExtractor
from tiepoint.tasks.matching import MatchingTask

METRICS = {
    *("accuracy", "repeatability", "matches", "homography_auc@1", "homography_auc@3", "homography_auc@5"),
    *("pose_auc@5", "pose_auc@10", "pose_auc@20"),
}


def make_data(photos: Path, **kwargs: Any) -> PhotoPairs:
    options: dict[str, Any] = {"size": (64, 64), "batch_size": 2, "num_workers": 0, "held_out_pairs": 6}
    return PhotoPairs(str(photos), **options | kwargs)


def make_task(**kwargs: Any) -> MatchingTask:
    torch.manual_seed(0)
    return MatchingTask(PyramidExtractor(dim=32), **{"detections": 32, "max_keypoints": 64} | kwargs)


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
    data = make_data(photos, photometric=0.2, parallax=0.0, bending=0.0)
    data.setup()
    served: dict[str, Tensor] = data.on_after_batch_transfer(next(iter(data.train_dataloader())), 0)
    return served


def fit(task: MatchingTask, batches: list[dict[str, Tensor]], *callbacks: L.Callback) -> None:
    """One epoch over just these batches."""
    loader: DataLoader[Any] = DataLoader(batches, batch_size=None)  # type: ignore[arg-type]
    trainer(max_epochs=1, limit_val_batches=0, callbacks=list(callbacks)).fit(task, loader, loader)


class Record(L.Callback):
    """What the task logs, and the learning rate, at every step."""

    def __init__(self) -> None:
        self.logged: list[dict[str, float]] = []
        self.rates: list[float] = []

    def on_train_batch_start(self, trainer: L.Trainer, *_: Any) -> None:
        self.rates.append(trainer.optimizers[0].param_groups[0]["lr"])

    def on_train_batch_end(self, trainer: L.Trainer, *_: Any) -> None:
        self.logged.append({name: float(value) for name, value in trainer.callback_metrics.items()})


# every verb


@pytest.mark.parametrize("verb", ["fit", "validate", "test"])
def test_every_verb_runs(photos: Path, verb: str) -> None:
    getattr(trainer(fast_dev_run=True), verb)(make_task(), make_data(photos))


def test_prediction_runs(photos: Path) -> None:
    trainer(fast_dev_run=True).predict(make_task(), make_data(photos))


def test_validation_reports_every_metric(photos: Path) -> None:
    (metrics,) = trainer().validate(make_task(), make_data(photos), verbose=False)
    assert set(metrics) == {f"val/{name}" for name in METRICS}
    assert all(math.isfinite(value) for value in metrics.values())
    assert all(0 <= value <= 1 for name, value in metrics.items() if name != "val/matches")
    assert 0 < metrics["val/matches"] <= 64


def test_validation_does_not_change_with_the_batch_size(photos: Path) -> None:
    task = make_task()
    reports = [trainer().validate(task, make_data(photos, batch_size=size), verbose=False)[0] for size in (1, 4, 6)]
    for report in reports[1:]:
        # another batch size is another order of summation, which may turn a near tie of an untrained network
        assert report == pytest.approx(reports[0], abs=1e-3, rel=0.03)


def test_easy_pairs_are_matched_well_and_hard_ones_worse(photos: Path) -> None:
    still = {
        "jitter": 0.0,
        "rotation": 0.0,
        "zoom": 1.0,
        "shift": 0.0,
        "photometric": 0.0,
        "parallax": 0.0,
        "bending": 0.0,
    }
    task = make_task()
    (easy,) = trainer().validate(task, make_data(photos, **still), verbose=False)
    assert easy["val/accuracy"] == pytest.approx(1, abs=1e-3)
    assert easy["val/repeatability"] == pytest.approx(1, abs=1e-3)
    assert easy["val/homography_auc@1"] > 0.95
    (hard,) = trainer().validate(task, make_data(photos, rotation=40.0), verbose=False)
    assert hard["val/accuracy"] < 0.7
    assert hard["val/homography_auc@1"] < 0.3


def test_the_motion_of_pairs_in_depth_teaches_the_descriptors(photos: Path) -> None:
    described = []
    for weight in (0.0, 1.0):
        record, task = Record(), make_task(pose_weight=weight, pose_share=0.5, detections=64)
        data = make_data(photos, parallax=1.0, bending=0.0, size=(96, 96))
        torch.manual_seed(1)
        trainer(max_steps=4, callbacks=[record]).fit(task, data)
        described.append(torch.cat([p.flatten() for p in task.model.parameters()]))
    terms = [{name for name in logged if name in ("train/pose", "train/motion")} for logged in record.logged]
    assert terms == [set(), set(), {"train/pose", "train/motion"}, {"train/pose", "train/motion"}]
    assert all(0 <= logged["train/pose"] <= 4.72 for logged in record.logged[2:])
    assert described[1].isfinite().all()
    assert not torch.equal(*described)


def test_testing_times_all_batches_but_the_first(photos: Path) -> None:
    task, runner = make_task(), trainer()
    (metrics,) = runner.test(task, make_data(photos), verbose=False)
    assert set(metrics) == {f"test/{name}" for name in METRICS} | {"test/ms_per_pair"}
    assert task.total_ms > 0
    assert task.timed_pairs == 4  # six pairs in batches of two
    assert metrics["test/ms_per_pair"] == pytest.approx(task.total_ms / 4, rel=1e-4)
    runner.test(task, make_data(photos), verbose=False)
    assert task.timed_pairs == 4  # each run starts the clock anew


def test_a_single_batch_is_all_warm_up(photos: Path) -> None:
    task = make_task()
    (metrics,) = trainer().test(task, make_data(photos, batch_size=6), verbose=False)
    assert task.total_ms == 0
    assert "test/ms_per_pair" not in metrics


def test_predictions_refer_to_the_files(photos: Path) -> None:
    task, data = make_task(), make_data(photos)
    data.setup()
    found = [photo for split in data.splits.values() for photo in split]
    full = ConsecutivePhotos(found)
    half = ConsecutivePhotos(found, long_side=80)
    (predicted,) = trainer(limit_predict_batches=1).predict(task, DataLoader(half, batch_size=1)) or []
    assert predicted["path0"] == [full[0]["path0"]]
    assert predicted["path1"] == [full[0]["path1"]]
    assert predicted["matches0"].shape == predicted["similarities"].shape == (1, 64)
    with torch.inference_mode():
        output = task.eval()(half[0]["image0"].unsqueeze(0), half[0]["image1"].unsqueeze(0))
    for side, features in enumerate((output.keypoints0, output.keypoints1)):
        expected = 2 * features.keypoints + 0.5
        assert torch.allclose(predicted[f"keypoints{side}"], expected, atol=1e-3)
        assert torch.equal(predicted[f"mask{side}"], features.mask)
        seen = predicted[f"keypoints{side}"][predicted[f"mask{side}"]]
        assert 80 < seen[:, 0].max() <= 159
    assert torch.equal(predicted["matches0"], output.matches0)


# learning


def test_the_loss_falls_on_one_batch(batch: dict[str, Tensor]) -> None:
    record = Record()
    task = make_task(lr=5e-3, warmup_steps=3, corners_share=100.0)
    fit(task, [batch] * 30, record)
    losses = [logged["train/loss"] for logged in record.logged]
    assert len(losses) == 30
    assert sum(losses[-5:]) < 0.7 * sum(losses[:5])
    matched = [logged["train/matched"] for logged in record.logged]
    assert sum(matched[-5:]) > sum(matched[:5])


def test_the_terms_add_up_to_the_loss_and_change_from_corners_to_repeatability(batch: dict[str, Tensor]) -> None:
    record = Record()
    fit(make_task(corners_share=0.8, corners_floor=0.0), [batch] * 10, record)
    terms = [
        {name for name in logged if name.removeprefix("train/") not in ("loss", "matched", "scale")}
        for logged in record.logged
    ]
    first = {"train/descriptor", "train/reliability", "train/precision", "train/corners"}
    assert terms[0] == first
    assert terms[6] == first | {"train/repeatability"}
    assert record.logged[0]["train/loss"] == pytest.approx(sum(record.logged[0][name] for name in first), rel=1e-4)
    assert record.logged[0]["train/scale"] == pytest.approx(20, rel=0.01)


@pytest.mark.parametrize("floor", [0.0, 0.25])
def test_of_the_corners_only_their_floor_remains(batch: dict[str, Tensor], floor: float) -> None:
    record = Record()
    weights = {"corners_weight": 1.0, "lr": 0.0}
    fit(make_task(corners_share=0.5, corners_floor=floor, **weights), [batch] * 8, record)
    at_first, at_last = (record.logged[step].get("train/corners", 0.0) for step in (0, 7))
    if floor:
        # with a rate of 0 nothing is learned: what changes is the weight alone
        assert at_last == pytest.approx(floor * at_first, rel=0.05)
    else:
        # a term without weight is not computed: what is logged is that of its last step
        assert at_last < at_first
    assert record.logged[7]["train/loss"] == pytest.approx(
        record.logged[7]["train/descriptor"]
        + record.logged[7]["train/reliability"]
        + record.logged[7]["train/precision"]
        + record.logged[7]["train/repeatability"]
        + (at_last if floor else 0.0),
        rel=1e-4,
    )


def test_the_keypoints_of_both_views_learn_to_agree(batch: dict[str, Tensor]) -> None:
    """Of the same steps with and without the loss, those with it bring the keypoints nearer to each other."""
    apart = []
    for weight in (1.0, 1e-6):
        record = Record()
        torch.manual_seed(0)
        task = make_task(lr=5e-3, warmup_steps=3, corners_share=100.0, precision_share=0.0, precision_weight=weight)
        fit(task, [batch] * 60, record)
        apart.append(sum(logged["train/precision"] / weight for logged in record.logged[-5:]) / 5)
    assert apart[0] < 0.8 * apart[1]


def test_the_weight_of_precision_rises(batch: dict[str, Tensor]) -> None:
    record = Record()
    fit(make_task(precision_share=0.5, lr=0.0), [batch] * 8, record)
    weighted = [logged["train/precision"] for logged in record.logged]
    # with a rate of 0 nothing is learned: what changes is the weight alone
    assert weighted[0] == 0
    assert weighted[2] == pytest.approx(weighted[4] / 2, rel=0.2)
    assert weighted[4:] == pytest.approx(weighted[4:5] * 4, rel=0.2)


@pytest.mark.parametrize("corners_share", [0.0, 100.0])
def test_every_parameter_learns(batch: dict[str, Tensor], corners_share: float) -> None:
    task = make_task(corners_share=corners_share, lr=1e-2, warmup_steps=0)
    before = {name: value.detach().clone() for name, value in task.named_parameters()}
    fit(task, [batch] * 4)
    assert [name for name, value in task.named_parameters() if torch.equal(value, before[name])] == []


def test_a_pair_whose_views_do_not_overlap_is_harmless(batch: dict[str, Tensor]) -> None:
    """The other pairs of its batch are learned from, and nothing becomes NaN."""
    apart = batch | {name: batch[name].clone() for name in ("covisible0", "covisible1")}
    apart["covisible0"][0] = apart["covisible1"][0] = False
    record, task = Record(), make_task(corners_share=0.0)
    fit(task, [apart] * 2, record)
    assert all(math.isfinite(value) for logged in record.logged for value in logged.values())
    assert all(value.isfinite().all() for value in task.parameters())


def test_a_batch_of_views_that_do_not_overlap_at_all_is_harmless(batch: dict[str, Tensor]) -> None:
    apart = batch | {name: torch.zeros_like(batch[name]) for name in ("covisible0", "covisible1")}
    record, task = Record(), make_task()
    fit(task, [apart] * 2, record)
    assert record.logged[0]["train/descriptor"] == 0
    assert all(value.isfinite().all() for value in task.parameters())


def test_a_loss_that_is_not_finite_stops_before_it_reaches_the_weights(batch: dict[str, Tensor]) -> None:
    torch.manual_seed(0)
    task, kept = Exploding(PyramidExtractor(dim=32), detections=32), Keep()
    with pytest.raises(FloatingPointError, match=r"loss is nan at step 2 \(epoch 0, batch 2\)"):
        fit(task, [batch] * 4, kept)
    assert len(kept.weights) == 3
    now = dict(task.named_parameters())
    assert all(torch.equal(now[name], value) for name, value in kept.weights[-1].items())
    assert any(not torch.equal(now[name], value) for name, value in kept.weights[0].items())


class Exploding(MatchingTask):
    """A task whose loss is NaN from the third batch on."""

    def training_step(self, batch: dict[str, Any], batch_idx: int) -> Tensor:
        return super().training_step(batch, batch_idx) * (1.0 if batch_idx < 2 else math.nan)


class Keep(L.Callback):
    """The weights before every step."""

    def __init__(self) -> None:
        self.weights: list[dict[str, Tensor]] = []

    def on_train_batch_start(self, trainer: L.Trainer, pl_module: L.LightningModule, *_: Any) -> None:
        self.weights.append({name: value.detach().clone() for name, value in pl_module.named_parameters()})


def rates_of(batch: dict[str, Tensor], steps: int, **kwargs: Any) -> list[float]:
    record = Record()
    # learning itself is of no interest: small and quick
    task = MatchingTask(PyramidExtractor((8, 8, 8, 8, 8), dim=8), detections=8, random_points=8, **kwargs)
    fit(task, [batch] * steps, record)
    return record.rates


def test_the_rate_rises_linearly_and_falls_as_a_cosine(batch: dict[str, Tensor]) -> None:
    rates = rates_of(batch, 40, lr=0.1, warmup_steps=4)
    cosine = [0.01 + 0.99 * (1 + math.cos(math.pi * step / 40)) / 2 for step in range(40)]
    rise = [min(1, (step + 1) / 4) for step in range(40)]
    assert rates == pytest.approx([0.1 * r * c for r, c in zip(rise, cosine, strict=True)], rel=1e-5)
    assert all(later > earlier for earlier, later in pairwise(rates[:4]))
    assert all(later < earlier for earlier, later in pairwise(rates[4:]))
    assert rates[-1] < 0.02 * 0.1


def test_a_short_training_is_not_all_warm_up(batch: dict[str, Tensor]) -> None:
    rates = rates_of(batch, 12, lr=0.1, warmup_steps=1000)
    assert max(rates) > 0.08
    assert rates.index(max(rates)) == 2


def test_without_warm_up_the_first_step_has_the_full_rate(batch: dict[str, Tensor]) -> None:
    assert rates_of(batch, 2, lr=0.1, warmup_steps=0)[0] == pytest.approx(0.1)


def test_biases_and_norms_are_not_decayed() -> None:
    task = make_task(weight_decay=0.3)
    task.trainer = trainer(max_steps=1, max_epochs=-1)
    task.trainer.strategy.connect(task)
    task.trainer.fit_loop.max_batches = 1
    groups = {0.3: 0, 0.0: 0}
    for group in _optimizer(task).param_groups:
        groups[group["weight_decay"]] += len(group["params"])
        assert all((value.ndim > 1) == (group["weight_decay"] > 0) for value in group["params"])
    assert sum(groups.values()) == len(list(task.parameters()))


def _optimizer(task: MatchingTask) -> torch.optim.Optimizer:
    configured: Any = task.configure_optimizers()
    return configured["optimizer"]  # type: ignore[no-any-return]


# hyperparameters


@pytest.fixture
def checkpoint(tmp_path: Path, photos: Path) -> tuple[Path, MatchingTask]:
    task = MatchingTask(PyramidExtractor(dim=32), lr=1e-3)
    runner = trainer(max_epochs=1, limit_val_batches=0)
    runner.fit(task, make_data(photos))
    runner.save_checkpoint(tmp_path / "task.ckpt")
    return tmp_path / "task.ckpt", task


def test_a_checkpoint_brings_back_the_task(checkpoint: tuple[Path, MatchingTask]) -> None:
    path, task = checkpoint
    loaded = MatchingTask.load_from_checkpoint(path)
    assert loaded.lr == 1e-3
    assert isinstance(loaded.model, PyramidExtractor)
    before, after = task.model.init_args, loaded.model.init_args
    # the parser makes a list of a tuple
    assert after | {"widths": tuple(after["widths"])} == before
    assert after["dim"] == 32
    state = loaded.state_dict()
    assert set(state) == set(task.state_dict())
    assert all(torch.equal(value, state[name]) for name, value in task.state_dict().items())


def test_a_checkpoint_is_plain_data(checkpoint: tuple[Path, MatchingTask]) -> None:
    content = torch.load(checkpoint[0], weights_only=True)
    hparams = content["hyper_parameters"]
    assert hparams["lr"] == 1e-3
    assert hparams["model"]["class_path"] == "tiepoint.models.pyramid.PyramidExtractor"
    assert hparams["model"]["init_args"]["dim"] == 32


def test_a_loaded_task_can_be_saved_and_loaded_again(checkpoint: tuple[Path, MatchingTask], tmp_path: Path) -> None:
    loaded = MatchingTask.load_from_checkpoint(checkpoint[0])
    runner = trainer(max_epochs=1)
    runner.strategy.connect(loaded)
    runner.save_checkpoint(tmp_path / "again.ckpt", weights_only=True)
    again = MatchingTask.load_from_checkpoint(tmp_path / "again.ckpt")
    assert again.lr == 1e-3
    assert all(torch.equal(value, again.state_dict()[name]) for name, value in loaded.state_dict().items())


def test_what_is_said_on_loading_wins(checkpoint: tuple[Path, MatchingTask]) -> None:
    loaded = MatchingTask.load_from_checkpoint(checkpoint[0], lr=5e-4, max_keypoints=99)
    assert (loaded.lr, loaded.max_keypoints) == (5e-4, 99)
    assert loaded.model.init_args["dim"] == 32


def test_a_training_can_be_resumed(checkpoint: tuple[Path, MatchingTask], photos: Path) -> None:
    loaded = MatchingTask.load_from_checkpoint(checkpoint[0])
    record, runner = Record(), trainer(max_epochs=2, limit_val_batches=0)
    runner.callbacks.append(record)  # type: ignore[attr-defined]
    runner.fit(loaded, make_data(photos), ckpt_path=str(checkpoint[0]), weights_only=True)
    assert runner.global_step == 6
    assert len(record.rates) == 3


def test_the_default_task_has_the_default_model() -> None:
    assert spec_of(MatchingTask().model) == spec_of(PyramidExtractor())


@pytest.mark.slow  # the compiler takes a minute
@pytest.mark.filterwarnings("ignore:`torch.jit:DeprecationWarning")  # of torch's own, within the compiler
@pytest.mark.skipif(shutil.which("g++") is None, reason="torch.compile needs a C++ compiler on a CPU")
def test_a_compiled_network_learns_the_same(batch: dict[str, Tensor]) -> None:
    records = [Record(), Record()]
    for compiled, record in zip((False, True), records, strict=True):
        torch.manual_seed(1)
        fit(make_task(compiled=compiled), [batch] * 2, record)
    plain, fused = ([each["train/loss"] for each in record.logged] for record in records)
    assert fused == pytest.approx(plain, rel=1e-3)
