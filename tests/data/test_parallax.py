"""Pairs of any motion from folders of photos, as pairs of a sweep."""

from pathlib import Path
from typing import Any

import pytest
import torch

from tiepoint.data.mixed import MixedPairs
from tiepoint.data.parallax import ParallaxPairs
from tiepoint.data.stereo import StereoPairs
from tiepoint.errors import InputError
from tiepoint.ops.sampling import warp_image
from tiepoint.ops.sweeps import seen_places

OPTIONS: dict[str, Any] = {"size": (64, 96), "batch_size": 2, "num_workers": 0, "held_out_pairs": 2, "planes": 8}
SWEEP = {"image0", "image1", "inverse_depth0", "visible0", "at_infinity", "epipole", "planes"}


def ready(data: Any) -> Any:
    torch.manual_seed(0)
    data.prepare_data()
    data.setup()
    return data


def test_pairs_of_a_folder_fit_each_other(photos: Path) -> None:
    data = ready(ParallaxPairs(str(photos), photometric=0.0, **OPTIONS))
    batch = data.on_after_batch_transfer(next(iter(data.train_dataloader())), 0)
    assert set(batch) == SWEEP | {"known0"}
    assert batch["image0"].shape == (2, 3, 64, 96)
    places, _ = seen_places(batch["at_infinity"], batch["epipole"], batch["inverse_depth0"])
    off = (warp_image(batch["image1"], places) - batch["image0"]).abs().mean(1)
    unmoved = (batch["image1"] - batch["image0"]).abs().mean(1)
    assert off[batch["visible0"]].mean() < 0.5 * unmoved[batch["visible0"]].mean()
    assert (batch["inverse_depth0"][batch["known0"]] > 0).all()
    assert not (batch["visible0"] & ~batch["known0"]).any()


def test_held_out_pairs_are_the_same_in_every_run(photos: Path) -> None:
    first, second = (
        [data.on_after_batch_transfer(batch, 0) for batch in data.val_dataloader()]
        for data in (ready(ParallaxPairs(str(photos), **OPTIONS)) for _ in range(2))
    )
    for one, other in zip(first, second, strict=True):
        assert all(torch.equal(one[name], other[name]) for name in one)


def test_rectified_and_turned_pairs_mix(photos: Path) -> None:
    sources: list[Any] = [StereoPairs(str(photos), **OPTIONS), ParallaxPairs(str(photos), **OPTIONS)]
    data = ready(MixedPairs(sources, epoch_steps=8, num_workers=0))
    seen = {}
    for batch in data.train_dataloader():
        made = data.on_after_batch_transfer(batch, 0)
        assert set(made) >= SWEEP
        seen[made["source"]] = bool((made["at_infinity"] == torch.eye(3)).all())
    assert seen == {"StereoPairs": True, "ParallaxPairs": False}


@pytest.mark.parametrize(
    ("option", "value", "named"),
    [("planes", 6, "multiple of 4"), ("apart", 0.0, "two places"), ("focal", 0.5, "1 or more")],
)
def test_a_wrong_option_is_one_sentence(photos: Path, option: str, value: float, named: str) -> None:
    with pytest.raises(InputError, match=rf"data\.{option} is {value}.*{named}"):
        ParallaxPairs(str(photos), **OPTIONS | {option: value})
