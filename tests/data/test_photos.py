from pathlib import Path
from types import SimpleNamespace
from typing import Any

import lightning as L
import numpy as np
import pytest
import torch
from loguru import logger
from PIL import Image
from torch import Tensor
from torch.utils.data import default_collate

from tiepoint.data.index import index_photos
from tiepoint.data.order import Draw
from tiepoint.data.photos import ConsecutivePhotos, PhotoCrops, PhotoPairs
from tiepoint.errors import InputError
from tiepoint.models.pyramid import PyramidExtractor
from tiepoint.ops.photometric import PhotometricChanges
from tiepoint.tasks.matching import MatchingTask

SIZE = (64, 64)
PAIR = {
    *("image0", "image1", "clean0", "clean1", "warp_0to1", "warp_1to0", "covisible0", "covisible1", "depth0", "depth1"),
    *("H_0to1", "K0", "K1", "T_0to1", "planar", "posed"),
}


def make(photos: Path, **kwargs: Any) -> PhotoPairs:
    options: dict[str, Any] = {"size": SIZE, "batch_size": 2, "num_workers": 0, "held_out_pairs": 5}
    return PhotoPairs(str(photos), **options | kwargs)


def ready(photos: Path, **kwargs: Any) -> PhotoPairs:
    data = make(photos, **kwargs)
    data.prepare_data()
    data.setup()
    return data


def served(data: PhotoPairs, loader: Any) -> list[dict[str, Tensor]]:
    """The batches as a task gets them."""
    return [data.on_after_batch_transfer(batch, 0) for batch in loader]


def joined(batches: list[dict[str, Tensor]]) -> dict[str, Tensor]:
    return {name: torch.cat([batch[name] for batch in batches]) for name in batches[0]}


# crops and pairs of photos


def test_random_crops_differ_and_fixed_ones_do_not(photos: Path) -> None:
    found = index_photos([photos])
    random = PhotoCrops(found, (48, 80))
    assert len(random) == 8
    first, second = random[Draw(3, seed=0)], random[Draw(3, seed=1)]
    assert torch.equal(first["photo"], random[Draw(3, seed=0)]["photo"])
    assert set(first) == {"photo"}
    assert first["photo"].shape == (3, 48, 80)
    assert first["photo"].dtype == torch.uint8
    assert not torch.equal(first["photo"], second["photo"])
    fixed = PhotoCrops(found, (48, 80), held_out=20)
    assert len(fixed) == 20
    assert torch.equal(fixed[3]["photo"], fixed[3]["photo"])
    assert torch.equal(fixed[3]["photo"], fixed[11]["photo"])  # the same photo again, with another seed
    assert int(fixed[3]["seed"]) != int(fixed[11]["seed"])


def test_a_fixed_crop_is_the_largest_central_window(tmp_path: Path) -> None:
    x = np.linspace(0, 255, 200).astype(np.uint8)
    Image.fromarray(np.repeat(np.tile(x, (100, 1))[..., None], 3, axis=2)).save(tmp_path / "ramp.png")
    crop = PhotoCrops(index_photos([tmp_path]), (50, 50), held_out=1)[0]["photo"].float()
    # 100×100 of 200×100, from column 50 to column 149
    assert crop[0, 20, 0].item() == pytest.approx(255 * 50.5 / 199, abs=2)
    assert crop[0, 20, -1].item() == pytest.approx(255 * 148.5 / 199, abs=2)


def test_random_crops_keep_the_aspect_and_flip_half_of_the_time(tmp_path: Path) -> None:
    x = np.linspace(0, 255, 200).astype(np.uint8)
    Image.fromarray(np.repeat(np.tile(x, (100, 1))[..., None], 3, axis=2)).save(tmp_path / "ramp.png")
    crops = PhotoCrops(index_photos([tmp_path]), (50, 50))
    slopes = torch.stack([crops[Draw(0, seed)]["photo"][0, 25].float().diff()[5:-5].mean() for seed in range(60)])
    assert 15 <= (slopes < 0).sum() <= 45
    # a step of the crop is 1.5 to 2 pixels of the photo
    steps = slopes.abs() * 199 / 255
    assert 1.45 < steps.min() < 1.6
    assert 1.8 < steps.max() < 2.05


def test_consecutive_photos_know_their_scale(photos: Path) -> None:
    pairs = ConsecutivePhotos(index_photos([photos]), long_side=80)
    assert len(pairs) == 7
    paths = sorted(str(path.resolve()) for path in photos.iterdir())
    for index in (0, 6):
        item = pairs[index]
        assert set(item) == {f"{name}{side}" for name in ("image", "scale", "path") for side in (0, 1)}
        assert [item["path0"], item["path1"]] == paths[index : index + 2]
        for side in (0, 1):
            assert item[f"image{side}"].shape == (3, 60, 80)
            assert 0 <= item[f"image{side}"].min() < item[f"image{side}"].max() <= 1
            assert item[f"scale{side}"].tolist() == [2.0, 2.0]
    original = ConsecutivePhotos(index_photos([photos]))[0]
    assert original["image0"].shape == (3, 120, 160)
    assert original["scale0"].tolist() == [1.0, 1.0]


def test_the_scale_takes_the_last_pixel_to_the_last_pixel(tmp_path: Path) -> None:
    for name in ("a", "b"):
        pixels = np.random.default_rng(ord(name)).integers(0, 256, (70, 131, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(tmp_path / f"{name}.png")
    item = ConsecutivePhotos(index_photos([tmp_path]), long_side=50)[0]
    height, width = item["image1"].shape[-2:]
    edge = torch.tensor([width - 0.5, height - 0.5])
    assert ((edge + 0.5) * item["scale1"] - 0.5).tolist() == pytest.approx([130.5, 69.5])


def test_one_photo_has_no_next_one(tmp_path: Path, photos: Path) -> None:
    assert len(ConsecutivePhotos(index_photos([photos])[:1])) == 0


# the module without a Trainer


def test_training_batches_hold_pairs(photos: Path) -> None:
    data = ready(photos)
    batches = served(data, data.train_dataloader())
    assert len(batches) == len(data.splits["train"]) // 2
    for batch in batches:
        assert set(batch) == PAIR
        assert batch["image0"].shape == batch["image1"].shape == (2, 1, *SIZE)
        assert batch["warp_0to1"].shape == (2, *SIZE, 2)
        assert all(value.isfinite().all() for value in batch.values())


def test_training_pairs_differ_from_epoch_to_epoch(photos: Path) -> None:
    data = ready(photos)
    first, second = (joined(served(data, data.train_dataloader())) for _ in range(2))
    assert not torch.equal(first["image0"], second["image0"])


@pytest.mark.parametrize(("batch_size", "epoch_pairs", "batches"), [(2, 20, 10), (3, 20, 6), (50, None, 1)])
def test_an_epoch_has_as_many_pairs_as_asked_for_and_one_batch_at_least(
    photos: Path, batch_size: int, epoch_pairs: int | None, batches: int
) -> None:
    data = ready(photos, batch_size=batch_size, epoch_pairs=epoch_pairs)
    found = list(data.train_dataloader())
    assert [len(batch["photo"]) for batch in found] == [batch_size] * batches


@pytest.mark.parametrize("loader", ["val_dataloader", "test_dataloader"])
def test_held_out_batches_hold_as_many_pairs_as_asked_for(photos: Path, loader: str) -> None:
    data = ready(photos, parallax=0.4, bending=0.2)
    batches = served(data, getattr(data, loader)())
    assert [len(batch["image0"]) for batch in batches] == [2, 2, 1]
    pairs = joined(batches)
    assert set(pairs) == PAIR
    assert pairs["image0"].shape == (5, 1, *SIZE)
    assert 0 < pairs["posed"].sum() < 5
    assert pairs["covisible0"].flatten(1).any(1).all()


def test_training_pairs_are_of_the_kind_that_is_asked_for(photos: Path) -> None:
    for parallax, bending, planar in ((0.0, 0.0, True), (1.0, 0.0, False), (0.0, 1.0, False)):
        data = ready(photos, parallax=parallax, bending=bending)
        flags = joined(served(data, data.train_dataloader()))["planar"]
        assert torch.equal(flags, torch.full_like(flags, planar))


@pytest.mark.parametrize("batch_size", [1, 3, 5])
def test_validation_pairs_are_the_same_in_every_run(photos: Path, batch_size: int) -> None:
    torch.manual_seed(1)
    first = ready(photos)
    once = joined(served(first, first.val_dataloader()))
    torch.manual_seed(2)
    second = ready(photos, batch_size=batch_size)
    served(second, second.train_dataloader())  # what happened before does not matter
    again = joined(served(second, second.val_dataloader()))
    for name, value in once.items():
        assert torch.allclose(value.float(), again[name].float(), atol=1e-6), name


def test_making_validation_pairs_leaves_the_global_randomness_alone(photos: Path) -> None:
    data = ready(photos)
    batch = next(iter(data.val_dataloader()))
    torch.manual_seed(0)
    expected = torch.rand(3)
    torch.manual_seed(0)
    data.on_after_batch_transfer(batch, 0)
    assert torch.equal(torch.rand(3), expected)


def test_held_out_pairs_of_one_photo_differ(photos: Path) -> None:
    data = ready(photos, held_out_pairs=20)
    assert len(data.splits["val"]) < 20
    homographies = joined(served(data, data.val_dataloader()))["H_0to1"].flatten(1)
    assert torch.pdist(homographies).min() > 1e-3


def test_validation_and_test_show_other_photos_than_training(photos: Path) -> None:
    data = ready(photos, held_out=0.2)
    shown = [
        {photo.path for photo in loader.dataset.photos}
        for loader in (data.train_dataloader(), data.val_dataloader(), data.test_dataloader())
    ]
    assert all(shown)
    assert sum(map(len, shown)) == len(set.union(*shown)) == 8


def test_prediction_takes_all_photos_as_they_are(photos: Path) -> None:
    data = ready(photos)
    batches = served(data, data.predict_dataloader())
    assert len(batches) == 7
    for batch in batches:
        assert batch["image0"].shape == (1, 3, 120, 160)
        assert batch["scale1"].tolist() == [[1.0, 1.0]]
    visited = [batch["path0"][0] for batch in batches] + batches[-1]["path1"]
    assert visited == sorted(str(path.resolve()) for path in photos.iterdir())


def test_the_strengths_reach_the_pairs(photos: Path) -> None:
    still = {
        "jitter": 0.0,
        "rotation": 0.0,
        "zoom": 1.0,
        "shift": 0.0,
        "photometric": 0.0,
        "parallax": 0.0,
        "bending": 0.0,
    }
    data = ready(photos, **still)
    pairs = joined(served(data, data.val_dataloader()))
    assert torch.allclose(pairs["image0"], pairs["image1"], atol=1e-5)
    for name, value in {
        "jitter": 0.1,
        "rotation": 9.0,
        "zoom": 1.4,
        "shift": 0.1,
        "photometric": 1.0,
        "bending": 1.0,
        "parallax": 1.0,
    }.items():
        data = ready(photos, **still | {name: value})
        pairs = joined(served(data, data.val_dataloader()))
        assert not torch.allclose(pairs["image0"], pairs["image1"], atol=1e-2), name


def test_one_folder_or_several(photos: Path, tmp_path: Path) -> None:
    Image.effect_noise((80, 80), 60).convert("RGB").save(tmp_path / "another.png")
    data = PhotoPairs([str(photos), str(tmp_path)], size=SIZE, num_workers=0)
    data.setup()
    assert sum(len(split) for split in data.splits.values()) == 9
    assert data.data_hash != ready(photos).data_hash


def test_a_run_that_goes_on_with_other_photos_is_warned(photos: Path, tmp_path: Path) -> None:
    warned: list[str] = []
    Image.effect_noise((80, 80), 60).convert("RGB").save(tmp_path / "another.png")
    state = ready(photos).state_dict()
    others = PhotoPairs([str(photos), str(tmp_path)], size=SIZE, num_workers=0)
    others.setup()
    sink = logger.add(lambda message: warned.append(message.record["message"]), level="WARNING")
    ready(photos, batch_size=3).load_state_dict(state)
    assert warned == []
    others.load_state_dict(state)
    logger.remove(sink)
    assert len(warned) == 1
    assert "photos differ" in warned[0]


def test_a_missing_folder_ends_before_training(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="missing does not exist"):
        make(tmp_path / "missing").prepare_data()


def test_the_difficulty_is_full_without_a_trainer(photos: Path) -> None:
    still = {"jitter": 0.0, "rotation": 0.0, "zoom": 1.0, "photometric": 0.0, "parallax": 0.0, "bending": 0.0}
    data = ready(photos, shift=0.2, **still)
    batches = [batch for _ in range(12) for batch in served(data, data.train_dataloader())]
    moved = joined(batches)["H_0to1"][:, :2, 2].abs()
    # two views, each shifted by up to 0.2 · 64 px
    assert 16 < moved.max() < 25.7


# the module inside a Trainer


class Listener(L.LightningModule):
    """A task that learns nothing and remembers what it was given."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = torch.nn.Parameter(torch.zeros(1))
        self.seen: dict[str, list[dict[str, Any]]] = {"train": [], "val": [], "test": [], "predict": []}

    def training_step(self, batch: dict[str, Any], batch_idx: int) -> Tensor:
        self.seen["train"].append(batch)
        return self.weight.sum()

    def validation_step(self, batch: dict[str, Any], batch_idx: int) -> None:
        self.seen["val"].append(batch)

    def test_step(self, batch: dict[str, Any], batch_idx: int) -> None:
        self.seen["test"].append(batch)

    def predict_step(self, batch: dict[str, Any], batch_idx: int) -> Tensor:
        self.seen["predict"].append(batch)
        return self.weight

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.SGD(self.parameters(), lr=0.0)


def trainer(**kwargs: Any) -> L.Trainer:
    quiet = {"logger": False, "enable_checkpointing": False, "enable_progress_bar": False}
    return L.Trainer(accelerator="cpu", enable_model_summary=False, log_every_n_steps=1, **quiet | kwargs)


def test_every_stage_of_a_trainer_gets_its_batches(photos: Path) -> None:
    listener, data = Listener(), make(photos)
    runner = trainer(max_epochs=2, num_sanity_val_steps=0)
    runner.fit(listener, data)
    runner.validate(listener, data, verbose=False)
    runner.test(listener, data, verbose=False)
    counts = {stage: len(batches) for stage, batches in listener.seen.items()}
    assert counts == {"train": 6, "val": 9, "test": 3, "predict": 0}
    for stage in ("train", "val", "test"):
        assert all(set(batch) == PAIR for batch in listener.seen[stage])
    # every epoch is validated on the same pairs, which are those of a module without a Trainer
    alone = ready(photos)
    expected = joined(served(alone, alone.val_dataloader()))
    for epoch in range(3):
        found = joined(listener.seen["val"][3 * epoch : 3 * epoch + 3])
        assert torch.allclose(found["image1"], expected["image1"], atol=1e-6)


def test_prediction_with_a_trainer_gets_every_pair(photos: Path) -> None:
    listener = Listener()
    trainer().predict(listener, make(photos))
    assert len(listener.seen["predict"]) == 7
    assert "scale0" in listener.seen["predict"][0]


def test_randomness_differs_from_batch_to_batch_and_process_to_process_and_repeats(photos: Path) -> None:
    photo = PhotoCrops(index_photos([photos]), (80, 80))[0]["photo"]

    def made(seed: int, rank: int, batch: int) -> Tensor:
        torch.manual_seed(seed)
        data = ready(photos)
        torch.rand(batch + rank)  # what else is drawn does not matter
        progress = SimpleNamespace(total=SimpleNamespace(processed=batch), current=SimpleNamespace(processed=0))
        data.trainer = SimpleNamespace(  # type: ignore[assignment]
            global_rank=rank,
            world_size=2,
            overfit_batches=0,
            global_step=0,
            estimated_stepping_batches=0,
            fit_loop=SimpleNamespace(epoch_loop=SimpleNamespace(batch_progress=progress)),
        )
        warp: Tensor = data.on_after_batch_transfer({"photo": torch.stack([photo] * 2)}, 0)["warp_0to1"]
        return warp

    first = made(0, 0, 0)
    assert torch.equal(made(0, 0, 0), first)
    for other in ((1, 0, 0), (0, 1, 0), (0, 0, 1)):
        assert not torch.allclose(made(*other), first), other


@pytest.mark.parametrize("ease", [0.5, 0.0])
def test_the_difficulty_rises_over_the_training(photos: Path, ease: float) -> None:
    still = {"jitter": 0.0, "rotation": 0.0, "zoom": 1.0, "photometric": 0.0, "parallax": 0.0, "bending": 0.0}
    data, listener = make(photos, ease=ease, shift=0.2, batch_size=20, epoch_pairs=20, **still), Listener()
    torch.manual_seed(0)
    trainer(max_steps=20, max_epochs=-1, limit_val_batches=0).fit(listener, data)
    moved = torch.stack([batch["H_0to1"][:, :2, 2].abs().amax() for batch in listener.seen["train"]])
    assert len(moved) == 20
    full = 2 * 0.2 * 64
    # the largest of forty draws nearly reaches the bound, which rises from 0.3 to 1 in the first half
    if ease:
        bound = full * torch.tensor([min(1.0, 0.3 + 0.7 * step / 10) for step in range(20)])
    else:
        bound = torch.full((20,), full)
    assert (moved <= bound + 1e-2).all()
    assert (moved > 0.55 * bound).all()


def test_workers_serve_the_same_validation_pairs(photos: Path) -> None:
    alone, helped = ready(photos), ready(photos, num_workers=1)
    one, other = (joined(served(data, data.val_dataloader())) for data in (alone, helped))
    assert torch.equal(one["image0"], other["image0"])


def test_pairs_collate_as_they_are(photos: Path) -> None:
    """A batch of one pair each, put together, is a batch: nothing in it is ragged."""
    data = ready(photos, batch_size=1)
    batches = served(data, data.val_dataloader())
    assert default_collate(batches)["image0"].shape == (5, 1, 1, *SIZE)


def test_a_checkpoint_with_changes_of_ones_own_is_plain_data_and_makes_the_same_module(
    photos: Path, tmp_path: Path
) -> None:
    data = PhotoPairs(photos, size=(64, 64), batch_size=2, num_workers=0, changes=PhotometricChanges(jpeg=0.0))
    task = MatchingTask(PyramidExtractor(dim=32))
    quiet: dict[str, Any] = {"logger": False, "enable_progress_bar": False, "enable_model_summary": False}
    trainer = L.Trainer(max_steps=1, enable_checkpointing=False, accelerator="cpu", limit_val_batches=0, **quiet)
    trainer.fit(task, data)
    trainer.save_checkpoint(tmp_path / "mine.ckpt")
    assert torch.load(tmp_path / "mine.ckpt", weights_only=True)["global_step"] == 1
    again = PhotoPairs.load_from_checkpoint(tmp_path / "mine.ckpt")
    assert again.make_pairs.keywords["changes"] == PhotometricChanges(jpeg=0.0)
