"""Public benchmarks as a LightningDataModule; what they measure is tested through the command line."""

from pathlib import Path

import pytest
import torch

from tiepoint.data.benchmarks import BenchmarkPairs
from tiepoint.errors import InputError


def test_an_item_is_a_pair_as_the_protocol_resizes_it(pair_sets: Path) -> None:
    data = BenchmarkPairs(pair_sets, sets=["homography"], protocol="loftr")
    data.setup("test")
    (found,) = data.sets
    (loader,) = data.test_dataloader()
    batches = list(loader)
    assert [int(batch["pair"]) for batch in batches] == list(range(len(found.pairs)))
    assert found.protocol.short_side == 480
    for batch in batches:
        for side in (0, 1):
            image, scale = batch[f"image{side}"], batch[f"scale{side}"]
            assert image.shape[:2] == (1, 3)
            assert min(image.shape[2:]) == 480
            assert image.dtype == torch.float32
            assert 0 <= image.min() < image.max() <= 1
            # the images are 240×180
            assert torch.allclose(
                scale * torch.tensor([image.shape[3], image.shape[2]]), torch.tensor([240.0, 180.0]).double()
            )


def test_sets_are_all_that_are_there_or_those_asked_for(pair_sets: Path) -> None:
    everything, one = BenchmarkPairs(pair_sets), BenchmarkPairs(pair_sets, sets=["pose"])
    for data in (everything, one):
        data.setup()
    assert [found.name for found in everything.sets] == ["hard", "homography", "pose"]
    assert [found.name for found in one.sets] == ["pose"]
    with pytest.raises(InputError, match="has no set multimodal, expected hard, homography, pose"):
        BenchmarkPairs(pair_sets, sets=["multimodal"]).setup()


def test_only_what_is_named_and_public_is_fetched(tmp_path: Path) -> None:
    BenchmarkPairs(tmp_path, sets=["pose"]).prepare_data()
    BenchmarkPairs(tmp_path, download=True).prepare_data()
    with pytest.raises(InputError, match="placed there by hand"):
        BenchmarkPairs(tmp_path, sets=["pose"], download=True).prepare_data()
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("strict", [False, True])
def test_an_unusable_pair_is_left_out_or_ends_the_run(strict: bool, pair_sets: Path, tmp_path: Path) -> None:
    sequence = next((pair_sets / "homography").iterdir())
    copy = tmp_path / "homography" / sequence.name
    copy.mkdir(parents=True)
    for path in sequence.iterdir():
        (copy / path.name).write_bytes(path.read_bytes())
    (copy / "H_1_2").write_text("1 0 0\n0 1 0\n0 0 0\n")
    data = BenchmarkPairs(tmp_path, strict=strict)
    if strict:
        with pytest.raises(InputError, match="H_1_2"):
            data.setup()
        return
    data.setup()
    assert len(data.sets[0].pairs) == 1
    assert "H_1_2" in data.sets[0].left_out[0]
