"""Pairs across sensors and days, with a homography: near infrared, remote sensing, retinas. HPatches layout."""

from pathlib import Path

from tiepoint.evaluation.pairs import Benchmark, PairList
from tiepoint.evaluation.sequences import read_homographies


def read(folder: Path, strict: bool = False) -> PairList:
    """Reads `H_1_2` of every pair's folder; see `read_homographies`."""
    return read_homographies(folder, strict=strict)


BENCHMARK = Benchmark(
    title="multimodal pairs, homographies",
    truth="homography",
    limits=(1, 3, 5, 10),
    folder="multimodal",
    licence="research use; terms of the authors of the originals, listed at the source",
    source="Jiang et al., A review of multimodal image matching, Information Fusion 2021; "
    "https://github.com/StaRainJ/Multi-modality-image-matching-database-metrics-methods",
    read=read,
)
