"""Public benchmarks for `tiepoint test`: the pairs, protocols and figures of `tiepoint benchmark`."""

from pathlib import Path
from typing import Any, Literal

import lightning as L
import torch
from loguru import logger
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from tiepoint.errors import InputError
from tiepoint.evaluation.benchmarks import benchmark
from tiepoint.evaluation.download import prepare
from tiepoint.evaluation.matching import read_views
from tiepoint.evaluation.sets import BenchmarkSet, read_set, sets_in
from tiepoint.images import UInt8


class ProtocolViews(Dataset[dict[str, Any]]):
    """The images of a benchmark's pairs as its protocol resizes them.

    An item holds `image0` and `image1`, (3, H, W) float in [0, 1]; `scale0` and `scale1`, (2,) float64, which take
    pixels back: x_file = (x + ½)·scale - ½; `pair`, the index of the pair in its set; and `read_seconds`.
    """

    def __init__(self, found: BenchmarkSet) -> None:
        self.found = found

    def __len__(self) -> int:
        return len(self.found.pairs)

    def __getitem__(self, index: int) -> dict[str, Any]:
        views = read_views(self.found.pairs[index], self.found.protocol)
        return {
            "image0": _to_tensor(views.image0),
            "image1": _to_tensor(views.image1),
            "scale0": torch.tensor(views.scale0, dtype=torch.float64),
            "scale1": torch.tensor(views.scale1, dtype=torch.float64),
            "pair": index,
            "read_seconds": views.seconds,
        }


def _to_tensor(image: UInt8) -> Tensor:
    return torch.from_numpy(image.copy()).permute(2, 0, 1).float() / 255


class BenchmarkPairs(L.LightningDataModule):
    """Public benchmarks, for `tiepoint test`; nothing is trained on them.

    Each set has a loader of its own, whose batches hold one pair. What is known of the pairs stays in `sets`.

    Args:
        folder: the folder that holds the benchmarks' folders.
        sets: which of them; all that are there if None.
        protocol: the convention by which they are measured; its number of keypoints overrules the task's.
        num_workers: processes that decode.
        strict: whether a pair that cannot be used ends the run, or is left out with a line that says why.
        download: fetch the public data of `sets` that are not there.
    """

    def __init__(
        self,
        folder: str | Path,
        sets: list[str] | None = None,
        protocol: Literal["tiepoint", "loftr", "xfeat", "glue-factory"] = "tiepoint",
        num_workers: int = 0,
        strict: bool = False,
        download: bool = False,
    ) -> None:
        super().__init__()
        self.save_hyperparameters()
        self.folder, self.wanted, self.protocol = Path(folder), sets, protocol
        self.num_workers, self.strict, self.download = num_workers, strict, download
        self.sets: list[BenchmarkSet] = []

    def prepare_data(self) -> None:
        """Fetch what is public, named in `sets` and not there."""
        if self.download:
            for name in self.wanted or ():
                prepare(benchmark(name), self.folder)

    def setup(self, stage: str | None = None) -> None:
        """Read the lists of pairs."""
        if self.sets:
            return
        there = sets_in(self.folder)
        missing = [name for name in self.wanted or [] if name not in there]
        if missing:
            raise InputError(f"--data.folder {self.folder} has no set {missing[0]}, expected {', '.join(there)}")
        for name in self.wanted or there:
            found = read_set(name, there[name], protocol=self.protocol, strict=self.strict)
            for sentence in found.left_out:
                logger.warning("left out: {}", sentence)
            self.sets.append(found)

    def test_dataloader(self) -> list[DataLoader[dict[str, Any]]]:
        """One loader a set."""
        return [DataLoader(ProtocolViews(found), batch_size=1, num_workers=self.num_workers) for found in self.sets]
