"""Comma-separated values (.csv): one match a line, best first, for spreadsheets and everything else.

The columns are x0, y0 (pixels of image 0), x1, y1 (of image 1) and score, named in the first line. Sizes, geometry and
metadata have no place in a table: the format is written, not read.
"""

import os

import numpy as np

from tiepoint.files import atomic_path
from tiepoint.formats import Metadata
from tiepoint.types import Matches, TwoViewGeometry

COLUMNS = ("x0", "y0", "x1", "y1", "score")


def write(
    path: str | os.PathLike[str],
    matches: Matches,
    geometry: TwoViewGeometry | None = None,
    *,
    metadata: Metadata | None = None,
) -> None:
    """Writes the table, in the shortest numbers that are still exact in float32; see `formats.write_matches`."""
    table = np.hstack((matches.keypoints0, matches.keypoints1, matches.scores[:, None]))
    lines = [",".join(COLUMNS), *(",".join(row) for row in table.astype(str).tolist())]
    with atomic_path(path) as temporary:
        temporary.write_text("\n".join(lines) + "\n", encoding="utf-8", newline="\n")
