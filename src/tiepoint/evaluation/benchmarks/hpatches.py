"""HPatches, the full image sequences: 108 of 116, as nearly every paper since D2-Net counts them."""

from pathlib import Path

from tiepoint.evaluation.pairs import Archive, Benchmark, PairList
from tiepoint.evaluation.reading import warn_if_incomplete
from tiepoint.evaluation.sequences import read_homographies

# D2-Net (Dusmanu et al., CVPR 2019) left these out for their size, and others followed
SKIPPED = (
    "i_contruction",
    "i_crownnight",
    "i_dc",
    "i_pencils",
    "i_whitebuilding",
    "v_artisans",
    "v_astronautis",
    "v_talent",
)
RELEASE = "hpatches-sequences-release"


def read(folder: Path, strict: bool = False) -> PairList:
    """Reads the 540 pairs of the published sequences; see `read_homographies`.

    The eight sequences of `SKIPPED` do not count; to count all 116, read the folder as `homography`.
    """
    inner = folder / RELEASE
    found = read_homographies(inner if inner.is_dir() else folder, strict=strict, skip=SKIPPED)
    warn_if_incomplete(found, 540, folder)
    return found


BENCHMARK = Benchmark(
    title="HPatches sequences",
    truth="homography",
    limits=(1, 3, 5, 10),
    folder="hpatches",
    licence="MIT (hpatches-dataset); sequences of earlier datasets under their own terms, see its references.txt",
    source="Balntas et al., HPatches, CVPR 2017; https://github.com/hpatches/hpatches-dataset",
    read=read,
    archives=(Archive(f"https://huggingface.co/datasets/vbalnt/hpatches/resolve/main/{RELEASE}.zip"),),
)
