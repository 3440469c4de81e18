"""Posed photographs as pairs of a sweep, with depth maps and without."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from tiepoint.data.posed import PosedPairs
from tiepoint.data.posed_sweeps import PosedSweeps
from tiepoint.errors import InputError
from tiepoint.ops.sampling import warp_image
from tiepoint.ops.sweeps import seen_places

OPTIONS: dict[str, Any] = {"size": (64, 96), "batch_size": 2, "num_workers": 0, "held_out_pairs": 4, "planes": 8}


def ready(folder: Path, **options: Any) -> PosedSweeps:
    torch.manual_seed(0)
    data = PosedSweeps(folder, **OPTIONS | {"overlap": (0.0, 1.0)} | options)
    data.setup()
    return data


def changed(posed: Path, folder: Path, change: Callable[[int, dict[str, Any]], None]) -> Path:
    shutil.copytree(posed, folder)
    listed = json.loads((folder / "pairs.json").read_text())
    for number, entry in enumerate(listed["pairs"]):
        change(number, entry)
    (folder / "pairs.json").write_text(json.dumps(listed))
    return folder


def test_measured_depth_makes_both_views_fit(posed: Path) -> None:
    data = ready(posed, photometric=0.0)
    for batch in data.train_dataloader():
        made = data.on_after_batch_transfer(batch, 0)
        assert made["image0"].shape == (2, 3, 64, 96)
        places, _ = seen_places(made["at_infinity"], made["epipole"], made["inverse_depth0"])
        off = (warp_image(made["image1"], places) - made["image0"]).abs().mean(1)
        assert off[made["visible0"] & made["known0"]].mean() < 0.02
        w, planes = made["inverse_depth0"][made["known0"]], made["planes"]
        assert planes[:, 0].max() < w.median() < planes[:, -1].min()


def test_held_out_pairs_are_as_they_are(posed: Path) -> None:
    data = ready(posed)
    for batch in data.val_dataloader():
        made = data.on_after_batch_transfer(dict(batch), 0)
        assert torch.equal(made["image0"], batch["photo0"].float() / 255)
        again = data.on_after_batch_transfer(dict(batch), 0)
        assert torch.equal(made["planes"], again["planes"])


def test_pairs_without_depth_are_swept_over_the_range_that_is_told(posed: Path, tmp_path: Path) -> None:
    def change(number: int, entry: dict[str, Any]) -> None:
        if number % 2:
            del entry["depth0"], entry["depth1"]
            entry["inverse_depths"] = [0.2, 0.6]

    folder = changed(posed, tmp_path / "half", change)
    data = ready(folder, batch_size=30)
    (batch,) = data.train_dataloader()
    made = data.on_after_batch_transfer(batch, 0)
    without = ~made["known0"].flatten(1).any(1)
    assert 0 < without.sum() < len(without)
    assert torch.allclose(made["planes"][without, 0], torch.tensor(0.2))
    assert (made["planes"][without, -1] > 0.599).all()
    assert made["visible0"][without].all()
    # a task that matches takes those with depth alone
    posed_pairs = PosedPairs(folder, size=(64, 96), overlap=(0.0, 1.0), num_workers=0)
    posed_pairs.setup()
    assert sum(len(scene) for scenes in posed_pairs.splits.values() for scene in scenes) == 15


@pytest.mark.parametrize("told", [[0.6, 0.2], [0.1], "near", [-1, 2], [0.1, "x"]])
def test_a_range_that_is_none_is_one_sentence(posed: Path, tmp_path: Path, told: object) -> None:
    folder = changed(posed, tmp_path / "bad", lambda number, entry: entry.update(inverse_depths=told))
    with pytest.raises(InputError, match=r"inverse_depths is .*, expected") as raised:
        ready(folder)
    assert "\n" not in str(raised.value)


def test_ranges_alone_are_no_depth_for_a_task_that_matches(posed: Path, tmp_path: Path) -> None:
    def change(number: int, entry: dict[str, Any]) -> None:
        del entry["depth0"], entry["depth1"]
        entry["inverse_depths"] = [0.2, 0.6]

    folder = changed(posed, tmp_path / "none", change)
    with pytest.raises(InputError, match="none of 30 pairs has depth maps"):
        PosedPairs(folder, size=(64, 96), num_workers=0).setup()
    assert sum(map(len, ready(folder).splits["train"])) > 0
