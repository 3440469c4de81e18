"""Any list of image pairs with known cameras: SuperGlue's 38 fields a line, or `pairs.json`."""

from pathlib import Path

from tiepoint.errors import InputError
from tiepoint.evaluation.pairlists import read_pair_list
from tiepoint.evaluation.pairs import Benchmark, PairList

LISTS = ("pairs_superglue.txt", "pairs.json", "pairs_calibrated.txt")


def read(folder: Path, strict: bool = False) -> PairList:
    """Reads a folder's list of pairs, or the list itself; see `read_pair_list`.

    Its image paths start from the list's folder or from that folder's parent.

    Raises:
        InputError: as `read_pair_list`, or the folder holds no list.
    """
    path = folder
    if folder.is_dir():
        path = next((folder / name for name in LISTS if (folder / name).is_file()), folder)
    if not path.exists():
        raise InputError(f"{folder} does not exist, expected a folder with {' or '.join(LISTS)}, or such a list")
    if path.is_dir():
        raise InputError(f"{folder} holds no list of pairs, expected {' or '.join(LISTS)} in it, or the list itself")
    return read_pair_list(path, bases=(path.parent, path.absolute().parent.parent), strict=strict)


BENCHMARK = Benchmark(
    title="relative pose",
    truth="pose",
    limits=(5, 10, 20),
    folder="pose",
    licence="that of the images in the folder; Strecha: research; ScanNet: its terms of use, non-commercial; "
    "TUM RGB-D: CC BY 4.0",
    source="Strecha et al., CVPR 2008; Dai et al., ScanNet, CVPR 2017; Sturm et al., TUM RGB-D, IROS 2012; "
    "Wang et al., Pi3, 2025; list as in Sarlin et al., SuperGlue, CVPR 2020",
    read=read,
)
