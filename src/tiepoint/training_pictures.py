"""Pictures while a network is trained: what it learns from, and what it finds in held-out images."""

from typing import Any

import lightning as L
import numpy as np
import numpy.typing as npt
from lightning.pytorch.callbacks import Callback
from torch import Tensor

from tiepoint.callbacks import run_folder
from tiepoint.draw import PAPER, draw_matches, draw_side_by_side, draw_training_pairs, write_picture
from tiepoint.loggers import log_image
from tiepoint.tasks.base import BaseTask
from tiepoint.types import Matches

UInt8 = npt.NDArray[np.uint8]
_DRAWN = {"image0", "image1", "covisible0", "covisible1", "depth0"}  # of a batch of training pairs


def _write(trainer: L.Trainer, name: str, picture: UInt8) -> None:
    """To the run's folder, and to every logger that takes images."""
    folder, step = run_folder(trainer), trainer.global_step
    assert folder is not None
    write_picture(folder / name / f"{step:06d}.png", picture)
    for each in trainer.loggers:
        log_image(each, name, picture, step=step)


class _BatchPictures(Callback):
    """Draws batches of the training.

    Args:
        every: steps from one picture to the next; 0 for the first step alone.
        rows: rows a picture.
    """

    def __init__(self, every: int, rows: int) -> None:
        self.every, self.rows = every, rows
        self._drawn = -1  # a step of accumulated gradients has several batches

    def due(self, trainer: L.Trainer) -> bool:
        """Whether this batch is to be drawn, for which there must be a folder."""
        step = trainer.global_step
        due = step % self.every == 0 if self.every else self._drawn < 0
        if not due or step == self._drawn or run_folder(trainer) is None or not trainer.is_global_zero:
            return False
        self._drawn = step
        return True


class PairPictures(_BatchPictures):
    """Draws what the network learns from: `pairs/STEP.png` in the run's folder, and to every logger that takes images.

    Args:
        every: steps from one picture to the next; 0 for the first step alone.
        rows: pairs a picture.
    """

    def __init__(self, every: int = 1000, rows: int = 8) -> None:
        super().__init__(every, rows)

    def on_train_batch_start(
        self, trainer: L.Trainer, pl_module: L.LightningModule, batch: Any, batch_idx: int
    ) -> None:
        """Draw the first batch and every so many steps the one that comes."""
        if not isinstance(batch, dict) or not _DRAWN.issubset(batch) or not self.due(trainer):
            return
        arrays = {name: batch[name][: self.rows].float().cpu().numpy() for name in _DRAWN}
        picture = draw_training_pairs(arrays | {name: arrays[name] > 0 for name in _DRAWN if "cov" in name})
        _write(trainer, "pairs", picture)


class MatchPictures(Callback):
    """Draws the matches of held-out pairs: `matches/STEP.png` in the run's folder, and to every logger with images.

    Right ones are green and wrong ones red; those of which nothing is known are left out. They are always the same
    pairs, so that the pictures of a training can be leafed through.

    Args:
        pairs: how many.
    """

    def __init__(self, pairs: int = 6) -> None:
        self.pairs = pairs

    def on_validation_batch_end(
        self,
        trainer: L.Trainer,
        pl_module: L.LightningModule,
        outputs: Any,
        batch: Any,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        """Draw the first batch."""
        here = trainer.is_global_zero and run_folder(trainer) is not None and not trainer.sanity_checking
        if batch_idx or dataloader_idx or not here or not isinstance(outputs, dict) or "judged" not in outputs:
            return
        drawn = [self._draw(outputs, batch, index) for index in range(min(self.pairs, len(batch["image0"])))]
        _write(trainer, "matches", draw_side_by_side(drawn))

    @staticmethod
    def _draw(outputs: dict[str, Any], batch: dict[str, Tensor], index: int) -> npt.NDArray[np.uint8]:
        output, judged = outputs["output"], outputs["judged"][index]
        image0, image1 = (_pixels(batch[name][index]) for name in ("image0", "image1"))
        shown = judged.nonzero().squeeze(1)
        shown = shown[output.similarities[index][shown].argsort(descending=True)]
        points0 = output.keypoints0.keypoints[index][shown]
        points1 = output.keypoints1.keypoints[index][output.matches0[index][shown]]
        scores = output.similarities[index][shown].clamp(0, 1)
        found0, found1, probable = (each.float().cpu().numpy() for each in (points0, points1, scores))
        matches = Matches(found0, found1, probable, image0.shape[:2], image1.shape[:2])
        right = outputs["right"][index][shown].cpu().numpy()
        return draw_matches(image0, image1, matches, inliers=right, max_lines=150)


class MapPictures(_BatchPictures):
    """Draws what networks of maps learn from and find: `batches/STEP.png` and `maps/STEP.png`, and to every logger.

    A row holds an image and its maps side by side, as `BaseTask.batch_maps` and the `maps` that a task's
    `validation_step` returns name them.

    Args:
        every: steps from one picture of a training batch to the next; 0 for the first step alone.
        rows: images a picture.
    """

    def __init__(self, every: int = 1000, rows: int = 6) -> None:
        super().__init__(every, rows)
        self._held_out: list[UInt8] = []

    def on_train_batch_start(
        self, trainer: L.Trainer, pl_module: L.LightningModule, batch: Any, batch_idx: int
    ) -> None:
        """Draw the first batch and every so many steps the one that comes."""
        # the maps of a batch take sums over whole images: only those that are drawn are made
        if not isinstance(pl_module, BaseTask) or not self.due(trainer):
            return
        maps = pl_module.batch_maps(batch)
        if maps:
            _write(trainer, "batches", _stacked(_rows(maps)[: self.rows]))

    def on_validation_batch_end(
        self,
        trainer: L.Trainer,
        pl_module: L.LightningModule,
        outputs: Any,
        batch: Any,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        """Keep the first images."""
        wanted = self.rows - len(self._held_out)
        if wanted > 0 and trainer.is_global_zero and isinstance(outputs, dict) and "maps" in outputs:
            self._held_out += _rows({name: maps[:wanted] for name, maps in outputs["maps"].items()})

    def on_validation_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Draw them."""
        rows, self._held_out = self._held_out, []
        if rows and run_folder(trainer) is not None and not trainer.sanity_checking:
            _write(trainer, "maps", _stacked(rows))


def _rows(maps: dict[str, Tensor]) -> list[UInt8]:
    """(H, W·N, 3) of each image of a batch, from N maps (B, 1 or 3, H, W) in [0, 1]."""
    return [np.concatenate([_pixels(each) for each in row], axis=1) for row in zip(*maps.values(), strict=True)]


def _stacked(rows: list[UInt8]) -> UInt8:
    """One below the other, dark where one is narrower than the widest."""
    width = max(row.shape[1] for row in rows)
    return np.concatenate(
        [np.concatenate([row, np.full((len(row), width - row.shape[1], 3), PAPER, np.uint8)], axis=1) for row in rows]
    )


def _pixels(image: Tensor) -> UInt8:
    """(1 or 3, H, W) in [0, 1] as (H, W, 3)."""
    whole: UInt8 = (255 * image.float().clamp(0, 1)).round().byte().cpu().numpy()
    return np.broadcast_to(whole.transpose(1, 2, 0), (*whole.shape[1:], 3))
