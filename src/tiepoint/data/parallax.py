"""Training pairs for depth, made of folders of photos: scenes in depth, seen by two cameras of any motion."""

from pathlib import Path
from typing import Any

import torch
from torch import Generator, Tensor

from tiepoint.data.base import expect
from tiepoint.data.photos import PhotoPairs
from tiepoint.ops.pairs import photo_pairs
from tiepoint.ops.stereo import lit_apart
from tiepoint.ops.sweeps import posed_sweep


class ParallaxPairs(PhotoPairs):
    """Folders of your own photos, as pairs of views with known depth, intrinsics and motion.

    The scenes are those of `PhotoPairs` with `parallax` 1, but in colour, which a plane sweep sees. Its motions are
    smaller, and their options have names of their own: LightningCLI hands the defaults of one class on to another.

    Args:
        folders: one folder of photos or several; subfolders are searched too.
        size: (height, width) of the views, multiples of 32.
        batch_size: photos a step, each giving one pair.
        epoch_pairs: pairs an epoch; all training photos once if None.
        held_out: share of the photos kept for validation, and as much again for test.
        held_out_pairs: validation pairs, and as many test pairs; the same in every run.
        num_workers: processes that decode; one less than the cores, at most 4, if None.
        planes: how many are swept, a multiple of 4.
        roll: largest rotation of each camera about its axis, degrees.
        focal: largest factor between the focal length of a view and the photo's, so focal² between the views.
        aim: how far from the photo's middle the cameras look at most, as a share of a view's sides.
        apart: largest distance of the two cameras, the background being at distance 1.
        photometric: strength of the differences between the views in light, focus and noise, 0 to 1.
        ease: share of the training over which the difficulty of the pairs rises.
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
        roll: float = 10.0,
        focal: float = 1.15,
        aim: float = 0.1,
        apart: float = 0.3,
        photometric: float = 1.0,
        ease: float = 0.3,
    ) -> None:
        super().__init__(
            folders,
            size,
            batch_size,
            epoch_pairs,
            held_out,
            held_out_pairs,
            num_workers,
            parallax=1.0,
            bending=0.0,
            photometric=photometric,
            ease=ease,
        )
        expect("planes", planes, planes >= 4 and planes % 4 == 0, "a multiple of 4")
        expect("focal", focal, focal >= 1, "1 or more")
        expect("apart", apart, 0 < apart <= 0.5, "above 0, since depth needs two places, and at most 0.5")
        self.save_hyperparameters()
        self.planes, self.photometric = planes, photometric
        self._views: dict[str, Any] = {"rotation": roll, "zoom": focal, "shift": aim, "baseline": apart}
        self.make_pairs: Any = self._make

    def _make(
        self, photos: Tensor, *, difficulty: float = 1.0, generator: Generator | None = None
    ) -> dict[str, Tensor]:
        pairs = photo_pairs(
            photos,
            self.size,
            **self._views,
            parallax=1.0,
            bending=0.0,
            photometric=0.0,
            difficulty=difficulty,
            colour=True,
            generator=generator,
        )
        images = torch.cat((pairs["image0"], pairs["image1"]))
        image0, image1 = lit_apart(images, self.photometric * difficulty, generator=generator).chunk(2)
        # what stands in holes is of another photo, and view 1 does not show it
        seen = {"image0": image0, "image1": image1, "visible0": pairs["covisible0"]}
        return posed_sweep(pairs | seen, planes=self.planes, generator=generator)
