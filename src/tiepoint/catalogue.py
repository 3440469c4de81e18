"""`tiepoint models`: what can be loaded by name."""

import sys
from pathlib import Path

from tiepoint.runtime import embedded_models


def models() -> None:
    """List what `tiepoint.load` and `--model` take by name, with size, licence and figures."""
    rows: list[tuple[str, ...]] = [("name", "size", "licence", "pose AUC@5", "homography AUC@5", "what it is")]
    rows.append(("sift", "–", "Apache-2.0", "–", "–", "OpenCV's RootSIFT with mutual nearest neighbours"))
    for name, path in embedded_models().items():
        card = read_card(path.with_suffix(".md"))
        told = (card.get(key, "?") for key in ("licence", "pose_auc_5", "homography_auc_5", "summary"))
        rows.append((name, f"{path.stat().st_size / 1e6:.1f} MB", *told))
    widths = [max(len(cell) for cell in column) for column in zip(*rows, strict=True)]
    for row in rows:
        cells = (cell.ljust(width) for cell, width in zip(row, widths, strict=True))
        sys.stdout.write("  ".join(cells).rstrip() + "\n")
    sys.stdout.write(
        "AUC in percent, measured as docs/measuring.md tells. "
        "Any .onnx, .ckpt or .pt file that tiepoint has written loads by its path.\n"
    )


def read_card(path: Path) -> dict[str, str]:
    """The front matter of a model card: `key: value` lines between two lines of three dashes."""
    if not path.is_file():
        return {}
    lines = path.read_text(encoding="utf-8").splitlines()
    if not lines or lines[0] != "---" or "---" not in lines[1:]:
        return {}
    pairs = (line.partition(":") for line in lines[1 : lines.index("---", 1)])
    return {key.strip(): value.strip() for key, _, value in pairs}
