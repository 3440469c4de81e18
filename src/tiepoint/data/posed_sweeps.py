"""Training pairs for depth, of real photographs with cameras and poses, measured depth maps or none."""

from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from tiepoint.data.base import expect
from tiepoint.data.posed import PosedPairs
from tiepoint.data.scenes import Scene
from tiepoint.ops.depth import depth_warp
from tiepoint.ops.stereo import lit_apart
from tiepoint.ops.sweeps import posed_sweep


class PosedSweeps(PosedPairs):
    """The data sets of `PosedPairs`, as pairs of a plane sweep.

    A pair of a `pairs.json` may have `"inverse_depths": [least, greatest]`, in 1 / unit of its translation, instead of
    depth maps: it is learned from as far as both views show the same.

    Args:
        folder: of the data set.
        size: (height, width) of the views, multiples of 32.
        batch_size: pairs a step.
        epoch_pairs: pairs an epoch, as many from every scene; 100 from each if None, at most as many as there are.
        overlap: smallest and largest share that the views of a pair have in common, where the data set states one.
        held_out: share of the scenes kept for validation, and as much again for test; of the pairs, where there are
            fewer than three scenes.
        held_out_pairs: validation pairs at most, and as many test pairs; the same in every run.
        num_workers: processes that decode; one less than the cores, at most 4, if None.
        tolerance: largest relative difference of the depths of both views at one place; what differs more is hidden.
        planes: how many are swept, a multiple of 4.
        photometric: strength of the differences in light, focus and noise that training pairs get, 0 to 1.
    """

    def __init__(
        self,
        folder: str | Path,
        size: tuple[int, int] = (160, 224),
        batch_size: int = 4,
        epoch_pairs: int | None = None,
        overlap: tuple[float, float] = (0.3, 1.0),
        held_out: float = 0.05,
        held_out_pairs: int = 32,
        num_workers: int | None = None,
        tolerance: float = 0.05,
        planes: int = 24,
        photometric: float = 1.0,
    ) -> None:
        super().__init__(
            folder,
            size,
            batch_size,
            epoch_pairs,
            overlap,
            held_out,
            held_out_pairs,
            num_workers,
            tolerance,
            photometric=photometric,
        )
        expect("planes", planes, planes >= 4 and planes % 4 == 0, "a multiple of 4")
        self.save_hyperparameters()
        self.planes = planes

    def usable(self, scenes: list[Scene]) -> list[Scene]:
        """All of them: a layout that knows neither depth nor its range has left the pair out."""
        return scenes

    def on_after_batch_transfer(self, batch: dict[str, Any], dataloader_idx: int) -> dict[str, Tensor]:
        """Find out what is hidden, and change the light of training pairs, on the device that they are on."""
        if "photo0" not in batch:
            return batch
        cameras = {name: batch[name] for name in ("depth0", "K0", "K1", "T_0to1")}
        depth0, K0, K1, T = cameras.values()
        warp = depth_warp(depth0, batch["depth1"], K0, K1, T, tolerance=self.tolerance)
        images = torch.cat((batch["photo0"], batch["photo1"])).float() / 255
        generator = None if "held_out" in batch else self.generator(T.device)
        if "held_out" not in batch:
            images = lit_apart(images, self.photometric, generator=generator)
        image0, image1 = images.chunk(2)
        # where the depth is not known, nobody knows whether view 1 shows the place
        pair = {"image0": image0, "image1": image1, "visible0": warp.covisible | (depth0 <= 0), **cameras}
        return posed_sweep(pair, planes=self.planes, limits=batch["inverse_depths"], generator=generator)
