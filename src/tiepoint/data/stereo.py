"""Training pairs for depth, made of folders of photos: rectified stereo at known disparity."""

from pathlib import Path
from typing import Any

from torch import Generator, Tensor

from tiepoint.data.base import expect
from tiepoint.data.photos import PhotoPairs
from tiepoint.ops.stereo import stereo_geometry, stereo_pairs


class StereoPairs(PhotoPairs):
    """Folders of your own photos, as pairs of views with known depth.

    Args:
        folders: one folder of photos or several; subfolders are searched too.
        size: (height, width) of the views, multiples of 32.
        batch_size: photos a step, each giving one pair.
        epoch_pairs: pairs an epoch; all training photos once if None.
        held_out: share of the photos kept for validation, and as much again for test.
        held_out_pairs: validation pairs, and as many test pairs; the same in every run.
        num_workers: processes that decode; one less than the cores, at most 4, if None.
        planes: how many are swept, a multiple of 4.
        largest: of all disparities, pixels.
        photometric: strength of the differences between the views in light, focus and noise, 0 to 1.
    """

    def __init__(
        self,
        folders: str | Path | list[str],
        size: tuple[int, int] = (160, 288),
        batch_size: int = 4,
        epoch_pairs: int | None = None,
        held_out: float = 0.05,
        held_out_pairs: int = 32,
        num_workers: int | None = None,
        planes: int = 24,
        largest: float = 88.0,
        photometric: float = 1.0,
    ) -> None:
        super().__init__(
            folders, size, batch_size, epoch_pairs, held_out, held_out_pairs, num_workers, photometric=photometric
        )
        expect("planes", planes, planes >= 4 and planes % 4 == 0, "a multiple of 4")
        expect("largest", largest, largest > 0, "pixels above 0")
        self.save_hyperparameters()
        self.planes, self.largest, self.photometric = planes, largest, photometric
        self.make_pairs: Any = self._make

    def _make(
        self, photos: Tensor, *, difficulty: float | None = None, generator: Generator | None = None
    ) -> dict[str, Tensor]:
        pairs = stereo_pairs(photos, self.size, largest=self.largest, photometric=self.photometric, generator=generator)
        turn = 0.0 if difficulty is None else 0.25  # held-out pairs stay upright
        return stereo_geometry(pairs, planes=self.planes, largest=self.largest + 4, turn=turn, generator=generator)
