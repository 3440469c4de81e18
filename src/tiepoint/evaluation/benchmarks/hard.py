"""WxBS: wide baselines in more than one way at once (geometry, light, sensor, season), with points marked by hand."""

from pathlib import Path

from tiepoint.evaluation.pairs import Archive, Benchmark, PairList
from tiepoint.evaluation.sequences import read_points

VALIDATION = ("kyiv_dolltheater2", "petrzin")  # of the published set, by its authors' own benchmark


def read(folder: Path, strict: bool = False) -> PairList:
    """Reads the marked points of every pair but the published validation pairs; see `read_points`."""
    return read_points(folder, strict=strict, skip=VALIDATION)


BENCHMARK = Benchmark(
    title="WxBS, marked points",
    truth="points",
    limits=(3, 5, 10),
    folder="hard",
    licence="research use (Center for Machine Perception, Prague)",
    source="Mishkin et al., WxBS: Wide Baseline Stereo Generalizations, BMVC 2015; "
    "https://github.com/ducha-aiki/wxbs-benchmark",
    read=read,
    archives=(Archive("http://cmp.felk.cvut.cz/wbs/datasets/WxBS_v1.1.zip", md5="66da037e7d20487e86db147307615870"),),
)
