"""Any folder of image sequences in the HPatches layout: `1.* ... n.*`, and `H_1_k` from image 1 to image k.

All its sequences count; `hpatches` is the published set without the eight that are usually left out.
"""

from pathlib import Path

from tiepoint.evaluation.pairs import Benchmark, PairList
from tiepoint.evaluation.sequences import read_homographies


def read(folder: Path, strict: bool = False) -> PairList:
    """Reads every `H_1_k` of every sequence; see `read_homographies`."""
    return read_homographies(folder, strict=strict)


BENCHMARK = Benchmark(
    title="planar scenes, homographies",
    truth="homography",
    limits=(1, 3, 5, 10),
    folder="homography",
    licence="that of the images in the folder; VGG affine, CMP homogr and EVD: research use; AKAZE iguazu: BSD",
    source="Mikolajczyk et al., IJCV 2005 (VGG affine); Lebeda et al., BMVC 2012 (CMP homogr); "
    "Mishkin et al., CVIU 2015 (EVD); Alcantarilla et al., BMVC 2013 (AKAZE)",
    read=read,
)
