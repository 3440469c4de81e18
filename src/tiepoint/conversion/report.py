"""What a conversion has found out: whether the copy may be kept, and the file that tells all figures."""

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from tiepoint import __version__
from tiepoint.checkpoints import sha256
from tiepoint.conversion.check_accuracy import LIMITS, THRESHOLD, Accuracy
from tiepoint.conversion.check_images import LONG_SIDE, bundled_photo
from tiepoint.conversion.map_parity import MapParity
from tiepoint.conversion.parity import KEYPOINTS, Parity
from tiepoint.conversion.sweep_parity import SweepParity
from tiepoint.files import atomic_path

PROTOCOL = (
    f"views by known homographies, long side at most {LONG_SIDE} px, {KEYPOINTS} keypoints, poselib with threshold "
    f"{THRESHOLD:g} px and seed 0, AUC in percent of the mean corner error up to {', '.join(map(str, LIMITS))} px"
)


@dataclass(frozen=True)
class Bounds:
    """What a copy may differ by.

    Attributes:
        bound: largest difference of a keypoint that counts as the same, pixels.
        share: least share of keypoints, of matches and of inverse depths that must be the same.
        limit: largest difference of a score, or of a number of a descriptor, where keypoint or match are the same.
        tolerance: by how many points the AUC may fall.
        map_limit: largest difference of a value of a map of a single image; a fortieth of a grey level of 255.
        planes: largest difference of an inverse depth that counts as the same, in steps of the planes.
    """

    bound: float = 0.01
    share: float = 0.99
    limit: float = 0.01
    tolerance: float = 2.0
    map_limit: float = 1e-4
    planes: float = 0.02


@dataclass(frozen=True)
class Change:
    """The AUC on a set of pairs before and after."""

    before: Accuracy
    after: Accuracy

    @property
    def fall(self) -> float:
        """By how many points it is lower afterwards, up to the largest error; negative where it is higher."""
        return self.before.fall_to(self.after)


@dataclass(frozen=True)
class Reduction:
    """What a smaller form of the graph gains.

    Attributes:
        precision: "fp16" or "int8".
        bytes: of the file, by the precision.
        milliseconds: of a pair of 640×480 px, medians taken in turns, by the precision.
        calibrating: number of photographs that int8 was calibrated on.
    """

    precision: str
    bytes: dict[str, int]
    milliseconds: dict[str, float]
    calibrating: int


@dataclass(frozen=True)
class Conversion:
    """What a conversion has found out.

    Attributes:
        pairs: one row of the parity report for each pair of test images; none for networks that match nothing.
        check: the AUC on the check set and, where it was calibrated on photographs, on those that were held out.
        reduction: of a smaller form; its parity is that of the float32 graph which it was made of.
        fault: why the copy is not kept.
        images: one row for each batch of test images, of networks of single images.
        sweeps: one row for each pair of test images, of plane sweeps.
    """

    pairs: list[Parity] = field(default_factory=list)
    check: dict[str, Change] = field(default_factory=dict)
    reduction: Reduction | None = None
    fault: str | None = None
    images: list[MapParity] = field(default_factory=list)
    sweeps: list[SweepParity] = field(default_factory=list)


def map_fault(rows: Sequence[MapParity], source: Path, bounds: Bounds) -> str | None:
    """What is wrong with the copy of a network of single images; not-a-number is always wrong."""
    wrong = next((row for row in rows if not row.largest <= bounds.map_limit), None)
    if wrong is None:
        return None
    differ = f"the maps differ by {wrong.largest:.1e} from those of {source}"
    return f"on {wrong.name} {differ}, expected at most {bounds.map_limit:g}"


def sweep_fault(rows: Sequence[SweepParity], source: Path, bounds: Bounds) -> str | None:
    """What is wrong with the copy of a plane sweep; not-a-number is never the same."""
    worst = min(rows, key=lambda row: row.same)
    if not worst.same >= bounds.share:
        share = f"only {worst.same:.2%} of the inverse depths equal those of {source}"
        return f"on {worst.name} {share}, expected {bounds.share:.0%}"
    farthest = max(rows, key=lambda row: row.largest_confidence)
    if not farthest.largest_confidence <= bounds.limit:
        differ = f"confidences differ by {farthest.largest_confidence:.1e} from those of {source}"
        return f"on {farthest.name} {differ}, expected at most {bounds.limit:g}"
    return None


def parity_fault(rows: Sequence[Parity], source: Path, bounds: Bounds) -> str | None:
    """What is wrong with the copy; not-a-number is always wrong."""
    worst = min(rows, key=lambda row: row.same)
    if not worst.same >= bounds.share:
        matches = "" if worst.same_matches is None else f" and {worst.same_matches:.2%} of the matches"
        return (
            f"on {worst.name} only {worst.same_keypoints:.2%} of the keypoints{matches} equal those of {source}, "
            f"expected {bounds.share:.0%}"
        )
    farthest = max(rows, key=lambda row: row.largest)
    if not farthest.largest <= bounds.limit:
        differ = f"scores or descriptors differ by {farthest.largest:.1e}"
        return f"on {farthest.name} {differ}, expected at most {bounds.limit:g}"
    if not any(row.matches for row in rows) and not all(row.matches is None for row in rows):
        return f"{source} finds no match on any test pair, is it trained?"
    return None


def accuracy_fault(name: str, change: Change, bounds: Bounds) -> str | None:
    """Whether the AUC has fallen too far."""
    if change.fall <= bounds.tolerance:
        return None
    last = str(LIMITS[-1])
    return (
        f"on the {name} the AUC@{last} falls from {change.before.auc[last]:.1f} to {change.after.auc[last]:.1f}, by "
        f"{change.fall:.1f} points, expected at most {bounds.tolerance:g} (--tolerance)"
    )


def line(row: Parity | MapParity | SweepParity) -> str:
    """A row of the parity report as text."""
    if isinstance(row, MapParity):
        return f"{row.name}: largest difference of the maps {row.largest:.1e}, mean {row.mean:.1e}"
    if isinstance(row, SweepParity):
        return (
            f"{row.name}: {row.same:.2%} of inverse depths the same; largest difference {row.largest:.1e} planes, "
            f"median {row.median:.1e}, {row.largest_confidence:.1e} in confidence"
        )
    same, largest = [f"{row.same_keypoints:.2%} of keypoints"], [f"{row.largest_px:.1e} px"]
    if row.same_matches is not None:
        same.append(f"{row.same_matches:.2%} of {row.matches} matches")
    for name in ("score", "descriptor", "match_score"):
        value = getattr(row, f"largest_{name}")
        largest += [] if value is None else [f"{value:.1e} in {name.replace('_', ' ')}"]
    return f"{row.name}: {' and '.join(same)} the same; largest difference {', '.join(largest)}"


def lines(found: Conversion, source: Path) -> list[str]:
    """What the user wants to know at once."""
    told = []
    if found.pairs:
        same = f"{min(row.same_keypoints for row in found.pairs):.2%} of the keypoints"
        matches = [row.same_matches for row in found.pairs if row.same_matches is not None]
        same += f" and {min(matches):.2%} of the matches" if matches else ""
        form = " in float32" if found.reduction else ""
        told.append(f"on {len(found.pairs)} pairs at least {same} equal those of {source}{form}")
    elif found.images:
        largest = max(row.largest for row in found.images)
        images = f"{len(found.images)} batches of images"
        told.append(f"on {images} the maps differ by at most {largest:.1e} from those of {source}")
    elif found.sweeps:
        share = f"{min(row.same for row in found.sweeps):.2%} of the inverse depths"
        told.append(f"on {len(found.sweeps)} pairs at least {share} equal those of {source}")
    else:
        told.append(f"all weights equal those of {source} to the last bit")
    last = str(LIMITS[-1])
    for name, change in found.check.items():
        figures = f"{change.before.auc[last]:.1f} before, {change.after.auc[last]:.1f} after"
        told.append(f"AUC@{last} on the {name} ({change.before.pairs} pairs): {figures}")
    told += [f"left out: {each}" for each in left_out()]
    if found.reduction:
        (_, size), (precision, smaller) = found.reduction.bytes.items()
        slow, fast = found.reduction.milliseconds.values()
        sizes = f"{smaller / 1e6:.2f} MB for {size / 1e6:.2f} MB"
        told.append(f"{precision} for float32: {sizes}, {fast:.0f} ms for {slow:.0f} ms a pair of 640×480 px")
    return told


def left_out() -> list[str]:
    """What of the test images is not there."""
    return [] if bundled_photo() is not None else ["the photograph of matplotlib, which was installed without it"]


def write_report(path: Path, found: Conversion, *, source: Path, target: Path, bounds: Bounds) -> None:
    """Write all figures as JSON."""
    limits = asdict(bounds)
    content: dict[str, Any] = {
        "tiepoint": __version__,
        "source": str(source),
        "source_sha256": sha256(source),
        "target": str(target),
        "passed": found.fault is None,
        "fault": found.fault,
        "bound_px": limits.pop("bound"),
        **limits,
        "pairs": [asdict(row) for row in found.pairs],
        "images": [asdict(row) for row in found.images],
        "sweeps": [asdict(row) for row in found.sweeps],
        "check_set": {
            "protocol": PROTOCOL,
            "sets": {name: asdict(change) for name, change in found.check.items()},
            "left_out": left_out(),
        },
        "reduction": None if found.reduction is None else asdict(found.reduction),
    }
    with atomic_path(path) as temporary:
        temporary.write_text(json.dumps(content, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
