import os
from pathlib import Path
from typing import Any

import lightning as L
import pytest
import torch
from torch import Tensor
from torch.utils.data import DataLoader

from tiepoint.cli import main
from tiepoint.data.photos import PhotoPairs
from tiepoint.errors import InputError
from tiepoint.models.pyramid import PyramidExtractor
from tiepoint.ops.losses import cell_log_probabilities
from tiepoint.ops.supervision import CELL, corner_response, detector_targets
from tiepoint.runtime.kornia_features import EXTRACTIONS, Features
from tiepoint.tasks.matching import MatchingTask
from tiepoint.tasks.teacher import Teacher

PEERS = Path(os.environ.get("TIEPOINT_PEERS", Path(__file__).parents[3] / "shared" / "peers"))
SIZE = (64, 96)


def squares() -> Tensor:
    """Two images with bright squares."""
    images = torch.full((2, 1, *SIZE), 0.2)
    images[0, :, 20:33, 30:43] = 0.9
    images[1, :, 40:52, 60:72] = 0.8
    return images


def test_the_response_is_one_at_keypoints_and_fades_within_pixels() -> None:
    images = squares()
    response = Teacher("sift").response(images)
    assert response.shape == (2, 1, *SIZE)
    features = EXTRACTIONS["sift"](512).run(images[:1].expand(-1, 3, -1, -1))
    assert isinstance(features, Features)
    points = features.keypoints.round().long()
    assert len(points) > 0
    for x, y in points.tolist():
        assert response[0, 0, y, x] > 0.9
    distance = torch.cdist(torch.cartesian_prod(*map(torch.arange, SIZE)).flip(1).float(), points.float())
    far = (distance.amin(1) > 4.5).reshape(SIZE)
    assert far.any()
    assert (response[0, 0][far] == 0).all()


def test_a_blank_image_has_no_response() -> None:
    assert (Teacher("sift").response(torch.full((1, 1, *SIZE), 0.5)) == 0).all()


@pytest.mark.parametrize("name", ["loftr", "xfeat-star", "alliked-n16"])
def test_what_gives_no_keypoints_is_no_teacher(name: str) -> None:
    with pytest.raises(InputError, match=rf"the teacher is {name}, expected one of xfeat, aliked-t16, "):
        Teacher(name)


@pytest.mark.skipif(not (PEERS / "xfeat.safetensors").is_file(), reason=f"no weights in {PEERS} (set TIEPOINT_PEERS)")
def test_weights_come_from_a_file() -> None:
    teacher = Teacher("xfeat", [str(PEERS / "xfeat.safetensors")], count=20)
    response = teacher.response(torch.rand((1, 1, 128, 160), generator=torch.Generator().manual_seed(0)))
    assert 1 <= (response > 0.9).sum() <= 20


def test_a_wrong_teacher_ends_before_training(photos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    given = ["--data.folders", str(photos), "--trainer.max_steps", "1", "--trainer.logger.save_dir", str(tmp_path)]
    assert main(["fit", *given, "--data.num_workers", "0", "--model.teacher", "aliked"]) == 2
    assert "the teacher is aliked, expected one of" in capsys.readouterr().err.splitlines()[-1]


def test_the_detector_learns_the_teachers_keypoints(photos: Path, tmp_path: Path) -> None:
    torch.manual_seed(0)
    data = PhotoPairs(str(photos), size=SIZE, batch_size=2, num_workers=0, photometric=0.2, parallax=0.0, bending=0.0)
    data.setup()
    batch: dict[str, Tensor] = data.on_after_batch_transfer(next(iter(data.train_dataloader())), 0)
    # of one batch alone keypoints could agree anywhere: their precision is not what is to be learned here
    chosen_losses: dict[str, Any] = {"teacher": "sift", "precision_weight": 0.0}
    task = MatchingTask(PyramidExtractor(dim=32), detections=32, lr=1e-2, warmup_steps=0, **chosen_losses)
    options: dict[str, Any] = {"enable_checkpointing": False, "enable_progress_bar": False, "logger": False}
    runner = L.Trainer(max_epochs=1, accelerator="cpu", enable_model_summary=False, limit_val_batches=0, **options)
    loader: DataLoader[Any] = DataLoader([batch] * 80, batch_size=None)  # type: ignore[arg-type]
    runner.fit(task, loader, loader)

    clean = torch.cat((batch["clean0"], batch["clean1"]))
    with torch.no_grad():
        chosen = cell_log_probabilities(task.model.eval().maps(batch["image0"]).detection)

    def agreement(response: Tensor) -> Tensor:
        """How probable the keypoints of a response are."""
        response0, response1 = response.chunk(2)
        targets, _ = detector_targets(response0, response1, batch)
        probable = chosen.gather(1, targets.unsqueeze(1)).squeeze(1).exp()
        return probable[targets < CELL * CELL].mean()

    # the keypoints of SIFT are elsewhere than the corners that it would have learned without a teacher
    assert agreement(Teacher("sift").response(clean)) > 3 * agreement(corner_response(clean))

    path = tmp_path / "taught.ckpt"
    runner.save_checkpoint(path)
    kept = torch.load(path, weights_only=True)
    assert not any("teacher" in name for name in kept["state_dict"])
    assert MatchingTask.load_from_checkpoint(path).teacher == "sift"
