"""A minute of training teaches something that can be measured."""

from pathlib import Path

import pytest
import skimage
import torch
from PIL import Image
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from tiepoint.cli import main

RECIPES = Path(__file__).parents[1] / "recipes"
pytestmark = [
    pytest.mark.slow,
    pytest.mark.filterwarnings("ignore::lightning.pytorch.utilities.warnings.PossibleUserWarning"),
    pytest.mark.filterwarnings("ignore:You requested to overfit"),
]


def test_a_batch_is_learned_by_heart(photos: Path, tmp_path: Path) -> None:
    where = ["--data.folders", str(photos), "--trainer.logger.save_dir", str(tmp_path), "--trainer.logger.version", "v"]
    assert main(["fit", "--config", str(RECIPES / "overfit.yaml"), *where, "--trainer.accelerator", "cpu"]) == 0
    events = EventAccumulator(str(tmp_path / "v")).Reload()
    matched = [each.value for each in events.Scalars("train/matched")]
    assert matched[0] < 0.6
    assert matched[-1] > 0.98


def test_held_out_accuracy_rises(tmp_path: Path) -> None:
    (tmp_path / "photos").mkdir()
    for name in ("astronaut", "brick", "chelsea", "coffee", "coins", "grass", "gravel", "rocket"):
        photo = getattr(skimage.data, name)()
        Image.fromarray(photo).convert("RGB").save(tmp_path / "photos" / f"{name}.png")
    args = ["--data.folders", str(tmp_path / "photos"), "--trainer.logger.save_dir", str(tmp_path)]
    options = ["--trainer.max_steps", "160", "--trainer.max_time", "null", "--trainer.accelerator", "cpu"]
    checks = ["--trainer.val_check_interval", "20", "--checkpoint.save_top_k", "-1", "--trainer.logger.version", "v"]
    assert main(["fit", "--config", str(RECIPES / "demo.yaml"), *args, *options, *checks]) == 0
    scores = {}
    for path in (tmp_path / "v").glob("best-*.ckpt"):
        content = torch.load(path, weights_only=True)
        callback = next(state for name, state in content["callbacks"].items() if "RunCheckpoint" in name)
        scores[content["global_step"]] = float(callback["current_score"])
    assert len(scores) == 8
    assert scores[160] > 0.12
    assert scores[160] > 2 * scores[20]
