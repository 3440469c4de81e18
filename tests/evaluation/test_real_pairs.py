"""The embedded weights on real pairs with a true homography, through the command line."""

import json
import os
from pathlib import Path

import numpy as np
import pytest

from tiepoint.cli import main
from tiepoint.evaluation.benchmarks import benchmark
from tiepoint.evaluation.metrics import homography_corner_error
from tiepoint.images import verify_image

DATA = Path(os.environ.get("TIEPOINT_DATA", Path(__file__).parents[3] / "shared" / "data")) / "homography"
pytestmark = pytest.mark.skipif(not DATA.is_dir(), reason=f"the benchmark pairs are not in {DATA} (set TIEPOINT_DATA)")


@pytest.mark.parametrize(
    ("sequence", "second"), [("ox_graf", "2"), ("ox_graf", "3"), ("iguazu", "2"), ("hg_adam", "2")]
)
def test_registers_within_five_pixels(
    sequence: str, second: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    pair = next(
        pair
        for pair in benchmark("homography").read(DATA, True).pairs
        if pair.path0.parent.name == sequence and (pair.path0.stem, pair.path1.stem) == ("1", second)
    )
    out = tmp_path / "matches.json"
    assert main(["match", str(pair.path0), str(pair.path1), "--geometry", "homography", "-o", str(out)]) == 0
    capsys.readouterr()
    found = json.loads(out.read_text())["geometry"]["matrix"]
    assert homography_corner_error(np.array(found), pair.H_0to1, verify_image(pair.path0)) < 5
