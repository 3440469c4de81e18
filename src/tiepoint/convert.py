"""Weights from one file format to another, each conversion checked against its original."""

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

from tiepoint.catalogue import read_card
from tiepoint.checkpoints import Shape, read_weights
from tiepoint.conversion.calibration import CalibrationPhotos, calibration_photos
from tiepoint.conversion.copies import MatchingCopy, copy_of_one_graph, copy_of_others
from tiepoint.conversion.report import Bounds, Conversion, lines, write_report
from tiepoint.conversion.smaller import Precision
from tiepoint.errors import InputError, WorkError
from tiepoint.files import atomic_path, check_writable
from tiepoint.models.base import Extractor, Network
from tiepoint.models.image import ImageNetwork
from tiepoint.models.sweep import PlaneSweep

ENDINGS = (".ckpt", ".pt", ".safetensors", ".onnx")


def convert(
    source: Path,
    target: Path,
    *,
    shape: Shape = "pair",
    card: Path | None = None,
    report: Path | None = None,
    allow: Sequence[str] = (),
    precision: Precision = "fp32",
    calibrate: Path | None = None,
    bounds: Bounds | None = None,
) -> Conversion:
    """Write networks in another format, and prove that they give the same answer.

    Args:
        source: a .ckpt, .pt, .safetensors or .onnx file.
        target: likewise; the ending decides. A .ckpt is what a training can begin with.
        shape: of an ONNX graph of networks that match: two images to matches, one image to features, or features of
            two images to matches. Networks of single images, and sweeps, have one shape alone.
        card: a model card, whose licence, command and figures go into the file.
        report: a JSON file for the differences; it is written where they are too large, too.
        allow: packages beside tiepoint and kornia whose classes may be imported.
        precision: of the convolutions of an ONNX graph.
        calibrate: a folder of photographs, on which int8 is calibrated, and either smaller form measured.
        bounds: what the copy may differ by.

    Returns:
        The parity, and the accuracy before and after.

    Raises:
        InputError: a file or ending is wrong.
        WorkError: the copy differs by more than allowed; no file is left then.
    """
    bounds = bounds or Bounds()
    _check_names(source, target, shape, report)
    _check_precision(target, shape, precision, calibrate)
    weights = read_weights(source, allow=allow)
    if card is not None:
        weights.metadata.update(_of_card(card))
    photos = calibration_photos(calibrate) if calibrate is not None else CalibrationPhotos([], [])
    with atomic_path(target) as temporary:
        if isinstance(weights.model, Extractor):
            found = MatchingCopy(source, temporary, weights, shape, allow).make(precision, photos, bounds)
        elif isinstance(weights.model, ImageNetwork | PlaneSweep):
            _check_plain(source, weights.model, shape, precision)
            found = copy_of_one_graph(source, temporary, weights, allow, bounds)
        else:
            found = copy_of_others(source, temporary, weights, allow)
        if report is not None:
            write_report(report, found, source=source, target=target, bounds=bounds)
        if found.fault:
            raise WorkError(f"{target} was not written: {found.fault}")
    return found


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


def _check_plain(source: Path, model: Network, shape: Shape, precision: Precision) -> None:
    """Refuses what only a network that matches can become."""
    for option, value, usual in (("--shape", shape, "pair"), ("--precision", precision, "fp32")):
        if value != usual:
            raise InputError(
                f"{option} is {value}, which is for networks that match: {source} holds {type(model).__name__}, which "
                "has one form of graph alone"
            )


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


def _check_precision(target: Path, shape: Shape, precision: Precision, calibrate: Path | None) -> None:
    if precision == "fp32":
        if calibrate is not None:
            raise InputError("--calibrate is for --precision int8 or fp16, found fp32")
        return
    if target.suffix != ".onnx":
        raise InputError(f"--precision is {precision}, which only an ONNX graph has, found the target {target}")
    if shape == "matcher":
        raise InputError(f"--precision is {precision}, which is for convolutions: a matcher alone has none")
    if precision == "int8" and calibrate is None:
        raise InputError("--precision is int8, expected --calibrate FOLDER with photographs to calibrate on")


def convert_file(
    source: str,
    target: str,
    shape: Literal["pair", "extractor", "matcher"] = "pair",
    report: str | None = None,
    card: str | None = None,
    allow: str | list[str] | None = None,
    precision: Literal["fp32", "fp16", "int8"] = "fp32",
    calibrate: str | None = None,
    tolerance: float = Bounds.tolerance,
    as_: str | None = None,
) -> None:
    """Write weights in another format and check that they give the same answer.

    Args:
        source: a .ckpt, .pt, .safetensors or .onnx file.
        target: likewise; the ending decides. A .ckpt is what `tiepoint fit --ckpt_path` can begin with.
        shape: of an ONNX graph: two images to matches, one image to features (extractor), or features to matches.
        report: a JSON file for the differences on all the test pairs, and the accuracy before and after.
        card: a model card (Markdown with front matter), whose licence, command and figures go into the file.
        allow: PACKAGE or [PACKAGE, PACKAGE]: whose networks and tasks may be imported, beside tiepoint's; with --as,
            whose classes a pickle may name without being refused.
        precision: of the convolutions of an ONNX graph: fp16 halves the file, int8 makes it a third, and faster.
        calibrate: a folder of your photographs: int8 is calibrated on some, and either form measured on others.
        tolerance: by how many points the AUC may fall on the check set, and on those photographs.
        as_: the class of kornia that weights of others are for, such as kornia.feature.LoFTR.
    """
    packages = [allow] if isinstance(allow, str) else allow or ()
    files = Path(source), Path(target), None if report is None else Path(report)
    if as_ is not None:
        _adopt(*files, as_, packages, plain=(shape, precision, card, calibrate) == ("pair", "fp32", None, None))
        return
    found = convert(
        files[0],
        files[1],
        shape=shape,
        report=files[2],
        card=None if card is None else Path(card),
        allow=packages,
        precision=precision,
        calibrate=None if calibrate is None else Path(calibrate),
        bounds=Bounds(tolerance=tolerance),
    )
    size = files[1].stat().st_size / 1e6
    sys.stdout.write(f"{target}: {size:.2f} MB; {'; '.join(lines(found, files[0]))}\n")
    if target.endswith(".ckpt"):
        sys.stdout.write(f"it is a warm start: `tiepoint fit --ckpt_path {target}` begins at step 0 with its weights\n")


def _adopt(
    source: Path, target: Path, report: Path | None, class_path: str, allow: Sequence[str], *, plain: bool
) -> None:
    from tiepoint.conversion.adoption import adopt  # here: nothing else waits for kornia

    if not plain:
        raise InputError(
            "--as goes with --report and --allow alone: weights of others are neither exported nor reduced"
        )
    found = adopt(source, target, class_path=class_path, report=report, allow=allow)
    size = target.stat().st_size / 1e6
    told = [f"{target}: {size:.2f} MB", f"{class_path}: {found.fit.summary()}"]
    if found.accuracy is not None:
        auc = ", ".join(f"{figure:.1f} at {limit} px" for limit, figure in found.accuracy.auc.items())
        told.append(f"AUC on {found.accuracy.pairs} pairs of the check set {auc}")
    sys.stdout.write(f"{'; '.join(told)}\n")
    names = ", ".join(found.matchers)
    if names:
        sys.stdout.write(f"`tiepoint match --model NAME --weights {target}` takes it, for {names}\n")
