"""Weights from one file format to another, each conversion checked against its original."""

import json
import sys
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any, Literal

from loguru import logger

from tiepoint import __version__
from tiepoint.catalogue import read_card
from tiepoint.checkpoints import Shape, Weights, read_weights, sha256, write_pt, write_safetensors
from tiepoint.errors import InputError, WorkError
from tiepoint.files import atomic_path, check_writable
from tiepoint.graphs import read_proto, write_onnx
from tiepoint.parity import Parity, Runner, compare, onnx_runner, torch_runner

ENDINGS = (".ckpt", ".pt", ".safetensors", ".onnx")


def convert(
    source: Path,
    target: Path,
    *,
    shape: Shape = "pair",
    card: Path | None = None,
    report: Path | None = None,
    allow: Sequence[str] = (),
    bound: float = 0.01,
    share: float = 0.99,
    limit: float = 0.01,
) -> list[Parity]:
    """Write networks in another format, and prove that they give the same answer.

    Args:
        source: a .ckpt, .pt, .safetensors or .onnx file.
        target: likewise; the ending decides. A .ckpt is what a training can begin with.
        shape: of an ONNX graph: two images to matches, one image to features, or features of two images to matches.
        card: a model card, whose licence, command and figures go into the file.
        report: a JSON file for the differences; it is written where they are too large, too.
        allow: packages beside tiepoint and kornia whose classes may be imported.
        bound: largest difference of a keypoint that counts as the same, pixels.
        share: least share of keypoints and of matches that must be the same.
        limit: largest difference of a score, or of a number of a descriptor, where keypoint or match are the same.

    Returns:
        One row of the parity report for each pair of test images.

    Raises:
        InputError: a file or ending is wrong.
        WorkError: the copy differs by more than allowed; no file is left then.
    """
    _check_names(source, target, shape, report)
    weights = read_weights(source, allow=allow)
    if card is not None:
        weights.metadata.update(_of_card(card))
    original = _original(source, weights)
    with atomic_path(target) as temporary:
        if target.suffix == ".onnx":
            origin = {"source": source.name, "source_sha256": sha256(source)}
            write_onnx(temporary, weights, shape=shape, source=origin)
            copy = onnx_runner(temporary, shape=shape, features=torch_runner(weights))
        else:
            _write_torch(temporary, weights, allow)
            copy = torch_runner(read_weights(temporary, allow=allow))
        rows = []
        for row in compare(original, copy, bound=bound):
            logger.info("{}", _line(row))
            rows.append(row)
        fault = _fault(rows, source, share=share, limit=limit)
        if report is not None:
            bounds = {"bound_px": bound, "share": share, "limit": limit}
            _write_report(report, rows, source, target, bounds=bounds, fault=fault)
        if fault:
            raise WorkError(f"{target} was not written: {fault}")
    return rows


def _check_names(source: Path, target: Path, shape: Shape, report: Path | None) -> None:
    """Refuses before any work what cannot become anything."""
    if source.suffix not in ENDINGS or target.suffix not in ENDINGS:
        raise InputError(
            f"cannot convert {source.suffix or source.name!r} to {target.suffix or target.name!r}: "
            f"expected {', '.join(ENDINGS)}"
        )
    if source.suffix == target.suffix == ".ckpt":
        raise InputError(f"cannot convert .ckpt to .ckpt: copy {source}, which goes on where it stopped")
    if shape != "pair" and target.suffix != ".onnx":
        raise InputError(f"--shape is {shape}, which only an ONNX graph has, found the target {target}")
    for path in (target, report):
        if path is not None:
            check_writable(path)
            if path.exists() and source.exists() and path.samefile(source):
                raise InputError(f"{path} is the source itself")
    if report is not None and report.absolute() == target.absolute():
        raise InputError(f"--report: {report} is the target itself")


def _of_card(card: Path) -> dict[str, Any]:
    """Licence, command and figures out of the front matter of a model card."""
    told = read_card(card)
    if "licence" not in told:
        raise InputError(f"--card: {card} states no licence, expected a model card that begins with its front matter")
    found: dict[str, Any] = {name: told[name] for name in ("licence", "command") if name in told}
    figures = {}
    for name, value in told.items():
        try:
            figures[name] = float(value)
        except ValueError:  # no figure
            continue
    return found | ({"figures": figures} if figures else {})


def _original(source: Path, weights: Weights) -> Runner:
    """What the copy must be equal to: an ONNX graph as it stands in the file, everything else in torch."""
    runner = torch_runner(weights)
    if source.suffix != ".onnx":
        return runner
    shapes: dict[str | None, Shape] = {"extractor": "extractor"}
    told = {entry.key: entry.value for entry in read_proto(source).metadata_props}
    return onnx_runner(source, shape=shapes.get(told.get("shape"), "pair"), features=runner)


def _write_torch(path: Path, weights: Weights, allow: Sequence[str]) -> None:
    if path.suffix == ".ckpt":
        from tiepoint.warmstart import write_ckpt  # here: nothing else waits for Lightning

        write_ckpt(path, weights, allow=allow)
    else:
        (write_pt if path.suffix == ".pt" else write_safetensors)(path, weights)


def _line(row: Parity) -> str:
    """A row of the report as text."""
    same, largest = [f"{row.same_keypoints:.2%} of keypoints"], [f"{row.largest_px:.1e} px"]
    if row.same_matches is not None:
        same.append(f"{row.same_matches:.2%} of {row.matches} matches")
    for name in ("score", "descriptor", "match_score"):
        value = getattr(row, f"largest_{name}")
        largest += [] if value is None else [f"{value:.1e} in {name.replace('_', ' ')}"]
    return f"{row.name}: {' and '.join(same)} the same; largest difference {', '.join(largest)}"


def _fault(rows: Sequence[Parity], source: Path, *, share: float, limit: float) -> str | None:
    """What is wrong with the copy; not-a-number is always wrong."""
    worst = min(rows, key=lambda row: row.same)
    if not worst.same >= share:
        matches = "" if worst.same_matches is None else f" and {worst.same_matches:.2%} of the matches"
        return (
            f"on {worst.name} only {worst.same_keypoints:.2%} of the keypoints{matches} equal those of {source}, "
            f"expected {share:.0%}"
        )
    farthest = max(rows, key=lambda row: row.largest)
    if not farthest.largest <= limit:
        return f"on {farthest.name} scores or descriptors differ by {farthest.largest:.1e}, expected at most {limit:g}"
    if not any(row.matches for row in rows) and not all(row.matches is None for row in rows):
        return f"{source} finds no match on any test pair, is it trained?"
    return None


def _write_report(
    path: Path, rows: Sequence[Parity], source: Path, target: Path, *, bounds: dict[str, float], fault: str | None
) -> None:
    content = {
        "tiepoint": __version__,
        "source": str(source),
        "source_sha256": sha256(source),
        "target": str(target),
        "passed": fault is None,
        "fault": fault,
        **bounds,
        "pairs": [asdict(row) for row in rows],
    }
    with atomic_path(path) as temporary:
        temporary.write_text(json.dumps(content, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")


def convert_file(
    source: str,
    target: str,
    shape: Literal["pair", "extractor", "matcher"] = "pair",
    report: str | None = None,
    card: str | None = None,
    allow: str | list[str] | None = None,
) -> None:
    """Write weights in another format and check that they give the same answer.

    Args:
        source: a .ckpt, .pt, .safetensors or .onnx file.
        target: likewise; the ending decides. A .ckpt is what `tiepoint fit --ckpt_path` can begin with.
        shape: of an ONNX graph: two images to matches, one image to features (extractor), or features to matches.
        report: a JSON file for the differences on all the test pairs.
        card: a model card (Markdown with front matter), whose licence, command and figures go into the file.
        allow: PACKAGE or [PACKAGE, PACKAGE]: whose networks and tasks may be imported, beside tiepoint's.
    """
    from tiepoint.sweep_export import convert_sweep, is_sweep  # here: nothing else waits for the sweep

    if is_sweep(Path(source)):
        share = convert_sweep(Path(source), Path(target))
        written = Path(target).stat().st_size / 1e6
        sys.stdout.write(f"{target}: {written:.2f} MB; at least {share:.2%} of the pixels equal those of {source}\n")
        return
    rows = convert(
        Path(source),
        Path(target),
        shape=shape,
        report=None if report is None else Path(report),
        card=None if card is None else Path(card),
        allow=[allow] if isinstance(allow, str) else allow or (),
    )
    size = Path(target).stat().st_size / 1e6
    same = f"{min(row.same_keypoints for row in rows):.2%} of the keypoints"
    matches = [row.same_matches for row in rows if row.same_matches is not None]
    same += f" and {min(matches):.2%} of the matches" if matches else ""
    sys.stdout.write(f"{target}: {size:.2f} MB; on {len(rows)} pairs at least {same} equal those of {source}\n")
    if target.endswith(".ckpt"):
        sys.stdout.write(f"it is a warm start: `tiepoint fit --ckpt_path {target}` begins at step 0 with its weights\n")
