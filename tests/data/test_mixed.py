from collections import Counter
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
import yaml

from tiepoint.cli import main
from tiepoint.data.mixed import MixedPairs
from tiepoint.data.photos import PhotoPairs
from tiepoint.data.posed import PosedPairs
from tiepoint.errors import InputError

pytestmark = [
    pytest.mark.filterwarnings("ignore::lightning.pytorch.utilities.warnings.PossibleUserWarning"),
    pytest.mark.filterwarnings("ignore:The dirpath has changed"),
]


def sources(photos: Path, posed: Path) -> list[Any]:
    options: dict[str, Any] = {"num_workers": 0, "held_out_pairs": 3}
    return [
        PhotoPairs(str(photos), size=(64, 64), batch_size=3, epoch_pairs=9, **options),
        PosedPairs(posed, size=(64, 96), batch_size=2, epoch_pairs=10, **options),
    ]


def ready(photos: Path, posed: Path, **kwargs: Any) -> MixedPairs:
    torch.manual_seed(0)
    data = MixedPairs(sources(photos, posed), num_workers=0, **kwargs)
    data.prepare_data()
    data.setup()
    return data


def progress(batch: int, *, rank: int = 0, world: int = 1) -> Any:
    counts = SimpleNamespace(total=SimpleNamespace(processed=batch), current=SimpleNamespace(processed=0))
    loop = SimpleNamespace(epoch_loop=SimpleNamespace(batch_progress=counts))
    return SimpleNamespace(
        global_step=batch, global_rank=rank, world_size=world, fit_loop=loop, estimated_stepping_batches=100
    )


def test_each_batch_comes_from_one_source_as_that_source_would_make_it(photos: Path, posed: Path) -> None:
    data = ready(photos, posed)
    shapes = {"PhotoPairs": (3, 1, 64, 64), "PosedPairs": (2, 1, 64, 96)}
    batches = [data.on_after_batch_transfer(batch, 0) for batch in data.train_dataloader()]
    assert len(batches) == 3 + 5  # the epochs of both sources together
    assert {batch["source"] for batch in batches} == set(shapes)
    for batch in batches:
        assert batch["image0"].shape == shapes[batch["source"]]
        assert ("known0" in batch) == (batch["source"] == "PosedPairs")


def test_sources_are_drawn_by_weight(photos: Path, posed: Path) -> None:
    data = ready(photos, posed, weights=[1, 3], epoch_steps=400)
    drawn = Counter(draw.source for draw in data.train_dataloader().sampler)
    assert sum(drawn.values()) == 400
    assert 270 < drawn[1] < 330
    never = ready(photos, posed, weights=[1, 0], epoch_steps=40)
    assert {draw.source for draw in never.train_dataloader().sampler} == {0}


def test_what_is_drawn_follows_from_the_step(photos: Path, posed: Path) -> None:
    data = ready(photos, posed, epoch_steps=12)
    whole = list(data.train_dataloader().sampler)
    data.trainer = progress(7)
    data.setup()
    rest = list(data.train_dataloader().sampler)
    assert rest[:5] == whole[7:]
    assert len(rest) == 12


def test_processes_draw_from_the_same_source_and_nothing_twice(photos: Path, posed: Path) -> None:
    drawn = []
    for rank in range(2):
        data = ready(photos, posed, epoch_steps=6)
        data.trainer = progress(0, rank=rank, world=2)
        data.setup()
        drawn.append(list(data.train_dataloader().sampler))
    assert [draw.source for draw in drawn[0]] == [draw.source for draw in drawn[1]]
    own = [(draw.source, sample.seed) for each in drawn for draw in each for sample in draw.samples]
    assert len(own) == len(set(own))


def test_held_out_pairs_are_those_of_all_sources(photos: Path, posed: Path) -> None:
    data = ready(photos, posed)
    for loader in (data.val_dataloader, data.test_dataloader):
        batches = [data.on_after_batch_transfer(batch, 0) for batch in loader()]
        assert [(batch["source"], len(batch["image0"])) for batch in batches] == [
            *(("PhotoPairs", 3), ("PosedPairs", 2), ("PosedPairs", 1))
        ]
    (_, own, _), alone = batches, sources(photos, posed)[1]
    alone.setup()
    first = alone.on_after_batch_transfer(next(iter(alone.test_dataloader())), 0)
    assert torch.equal(own["image0"], first["image0"])


def test_a_checkpoint_remembers_every_source(photos: Path, posed: Path) -> None:
    data = ready(photos, posed)
    state = data.state_dict()
    torch.manual_seed(5)
    other = MixedPairs(sources(photos, posed), num_workers=0)
    other.prepare_data()
    other.setup()
    draws = [list(each.train_dataloader().sampler) for each in (data, other)]
    assert draws[0] != draws[1]
    other.load_state_dict(state)
    assert list(other.train_dataloader().sampler) == draws[0]


def test_sources_of_a_kind_are_numbered(posed: Path) -> None:
    assert MixedPairs([PosedPairs(posed), PosedPairs(posed)]).names == ["PosedPairs1", "PosedPairs2"]


@pytest.mark.parametrize("weights", [[1.0], [1.0, -1.0], [0.0, 0.0], []])
def test_weights_that_do_not_fit_are_told(photos: Path, posed: Path, weights: list[float]) -> None:
    with pytest.raises(InputError, match=r"data.weights is .*, expected 2 numbers"):
        MixedPairs(sources(photos, posed), weights=weights)


def test_a_mix_of_nothing_or_of_mixes_is_refused(photos: Path, posed: Path) -> None:
    with pytest.raises(InputError, match="expected one source or more"):
        MixedPairs([])
    with pytest.raises(InputError, match="not mixed themselves"):
        MixedPairs([MixedPairs(sources(photos, posed))])


@pytest.fixture
def recipe(photos: Path, posed: Path, tmp_path: Path) -> Path:
    """That of docs/posed.md, small."""
    options = {"size": [64, 64], "batch_size": 2, "held_out_pairs": 2}
    content = {
        "trainer": {"max_steps": 4, "num_sanity_val_steps": 0, "val_check_interval": 2, "accelerator": "cpu"}
        | {"check_val_every_n_epoch": None},
        "model": {"class_path": "MatchingTask", "init_args": {"detections": 20, "max_keypoints": 32}},
        "data": {
            "class_path": "tiepoint.data.mixed.MixedPairs",
            "init_args": {
                "weights": [0.5, 0.5],
                "num_workers": 0,
                "sources": [
                    {"class_path": "PhotoPairs", "init_args": {"folders": str(photos), **options}},
                    {"class_path": "PosedPairs", "init_args": {"folder": str(posed), **options}},
                ],
            },
        },
    }
    path = tmp_path / "mixed.yaml"
    path.write_text(yaml.safe_dump(content))
    return path


def test_a_recipe_mixes_and_measures_every_source(recipe: Path, tmp_path: Path) -> None:
    where = ["--trainer.logger.save_dir", str(tmp_path / "runs"), "--trainer.logger.version", "mine"]
    assert main(["fit", "--config", str(recipe), *where]) == 0
    folder = tmp_path / "runs" / "mine"
    log = (folder / "run.log").read_text()
    for figure in (": accuracy 0.", "accuracy/PhotoPairs", "accuracy/PosedPairs"):
        assert log.count(figure) == 2
    again = ["--trainer.logger.save_dir", str(tmp_path / "runs"), "--trainer.logger.version", "test"]
    assert main(["test", "--config", str(recipe), "--ckpt_path", str(folder / "last.ckpt"), *again]) == 0
    assert "accuracy/PosedPairs" in (tmp_path / "runs" / "test" / "run.log").read_text()
    # the run's own record is enough to go on
    on = ["--ckpt_path", "last", "--trainer.max_steps", "6"]
    assert main(["fit", "--config", str(folder / "config.yaml"), *on]) == 0
    assert torch.load(folder / "last.ckpt", weights_only=True)["global_step"] == 6
    # and one of its sources alone measures it
    photos = yaml.safe_load(recipe.read_text())["data"]["init_args"]["sources"][0]["init_args"]["folders"]
    alone = ["--data", "PhotoPairs", "--data.folders", photos, "--data.num_workers", "0"]
    assert main(["validate", "--ckpt_path", str(folder / "last.ckpt"), *alone, "--trainer.logger", "false"]) == 0


@pytest.mark.filterwarnings("ignore:You requested to overfit")
def test_it_overfits_to_a_batch(recipe: Path, tmp_path: Path) -> None:
    options = [
        "--trainer.overfit_batches",
        "2",
        "--trainer.logger",
        "false",
        "--trainer.default_root_dir",
        str(tmp_path),
    ]
    assert main(["fit", "--config", str(recipe), *options, "--trainer.val_check_interval", "1"]) == 0


def test_a_faulty_source_is_one_line(recipe: Path, capsys: pytest.CaptureFixture[str]) -> None:
    content = yaml.safe_load(recipe.read_text())
    content["data"]["init_args"]["sources"][1]["init_args"]["folder"] = "nowhere"
    recipe.write_text(yaml.safe_dump(content))
    assert main(["fit", "--config", str(recipe), "--trainer.logger", "false"]) == 2
    assert "nowhere does not exist" in capsys.readouterr().err.splitlines()[-1]
