"""What a training draws of networks of maps; pairs and matches are drawn in test_training.py and test_loggers.py."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tiepoint.cli import main

pytestmark = [
    # Lightning's advice to the user of a real run: log more often, limit the epochs
    pytest.mark.filterwarnings("ignore::lightning.pytorch.utilities.warnings.PossibleUserWarning"),
]
COMMON = [
    *("--data.num_workers", "0", "--trainer.accelerator", "cpu", "--trainer.logger.version", "run"),
    *("--trainer.max_steps", "2", "--trainer.val_check_interval", "2", "--trainer.check_val_every_n_epoch", "null"),
]


def _picture(path: Path) -> np.ndarray:
    with Image.open(path) as picture:
        return np.asarray(picture.convert("RGB")).astype(int)


def test_a_denoiser_shows_noisy_found_and_clean_crops(photos: Path, tmp_path: Path) -> None:
    data = ["--data", "NoisyPhotos", "--data.folders", str(photos), "--data.size", "48", "--data.held_out_crops", "3"]
    small = ["--data.batch_size", "1", "--data.windows", "2", "--trainer.logger.save_dir", str(tmp_path)]
    assert main(["fit", "--model", "DenoiseTask", *data, *small, *COMMON]) == 0
    batch = _picture(tmp_path / "run" / "batches" / "000000.png")
    assert batch.shape == (2 * 48, 2 * 48, 3)  # a row a crop: noisy, clean
    held_out = _picture(tmp_path / "run" / "maps" / "000002.png")
    assert held_out.shape == (3 * 96, 3 * 96, 3)
    noisy, found, clean = np.split(held_out, 3, axis=1)
    assert 0 < np.abs(found - noisy).mean() < np.abs(clean - noisy).mean()  # two steps take some of the noise out


def test_a_depth_network_shows_depth_found_and_true(photos: Path, tmp_path: Path) -> None:
    data = ["--data", "StereoPairs", "--data.folders", str(photos), "--data.size", "[64, 96]", "--data.batch_size", "2"]
    small = ["--data.held_out_pairs", "2", "--trainer.logger.save_dir", str(tmp_path)]
    assert main(["fit", "--model", "DepthTask", *data, *small, *COMMON]) == 0
    batch = _picture(tmp_path / "run" / "batches" / "000000.png")
    assert batch.shape == (2 * 64, 3 * 96, 3)
    assert batch[:, 2 * 96 :].std() > 5  # a relief, not a plane
    held_out = _picture(tmp_path / "run" / "maps" / "000002.png")
    assert held_out.shape == (2 * 64, 3 * 96, 3)
    # both have the same depth: the pictures of training and of validation are of one kind
    assert 20 < held_out[:, 2 * 96 :].mean() < 235


def test_edges_of_images_of_several_sizes_stand_one_below_the_other(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    sizes = [(64, 64), (72, 96), (80, 64), (64, 96)]
    for number, (height, width) in enumerate(sizes):
        for folder, channels in (("images", 3), ("edges", 1)):
            (tmp_path / folder).mkdir(exist_ok=True)
            pixels = rng.integers(0, 256, (height, width, channels), dtype=np.uint8).squeeze()
            Image.fromarray(pixels).save(tmp_path / folder / f"{number}.png")
    data = ["--data", "EdgeMaps", "--data.folder", str(tmp_path), "--data.size", "[64, 64]", "--data.batch_size", "2"]
    small = ["--data.held_out", "0.4", "--model.workers", "1", "--trainer.logger.save_dir", str(tmp_path)]
    assert main(["fit", "--model", "EdgeTask", *data, *small, *COMMON, "--trainer.max_epochs", "5"]) == 0
    assert _picture(tmp_path / "run" / "batches" / "000000.png").shape == (2 * 64, 2 * 64, 3)
    held_out = _picture(tmp_path / "run" / "maps" / "000002.png")
    assert held_out.shape[1] in {3 * width for _, width in sizes}
    assert held_out.shape[0] in {a[0] + b[0] for a in sizes for b in sizes}
