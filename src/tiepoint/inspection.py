"""`tiepoint inspect`: the pairs on which a method failed, or won or lost against another, drawn with their matches."""

import re
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
from PIL import Image, ImageDraw, ImageFont
from tqdm import tqdm

from tiepoint.draw import CAPTION_HEIGHT, INK, MARGIN, PAPER, write_picture
from tiepoint.errors import InputError, WorkError
from tiepoint.evaluation.pictures import describe, draw_pair
from tiepoint.evaluation.results import MethodResult, Results, SetResult
from tiepoint.evaluation.results_io import read_results
from tiepoint.evaluation.standing import best_errors, best_index, error_text, pairs_text, quantity, shown
from tiepoint.files import check_writable
from tiepoint.images import UInt8
from tiepoint.types import Float64

End = Literal["worst", "best"]


def inspect(
    run: str,
    set: str | None = None,
    method: str | None = None,
    against: str | None = None,
    worst: int | None = None,
    best: int | None = None,
    output: str | None = None,
) -> None:
    """Draw the pairs on which a method failed, or won or lost against another.

    Args:
        run: the folder that `tiepoint benchmark` wrote, or its results.json.
        set: one of its sets; all if not given.
        method: one of its methods; the first if not given.
        against: another method; pairs are then sorted by the difference of the errors, of which those beyond the
            set's largest limit count as that limit, and only pairs lost (or won) are drawn.
        worst: how many pairs from the worst on; 10 if neither this nor --best is given.
        best: how many pairs from the best on.
        output: (-o) the folder for the pictures; RUN/inspect/METHOD[-against-OTHER]-worst (or -best) if not given.
    """
    end, count = _wanted(worst, best)
    results = read_results(run)
    home = Path(run) if Path(run).is_dir() else Path(run).parent
    rankings = [_ranking(results, found, (method, against), end=end, count=count) for found in _sets(results, set)]
    folder = Path(output) if output is not None else home / "inspect" / _folder_name(rankings[0], end)
    check_writable(folder / "picture.png")
    drawn = [_draw(results, ranking, home=home, folder=folder) for ranking in rankings]
    for ranking in rankings:
        sys.stdout.write("\n".join(_listing(results, ranking, end)) + "\n\n")
    missed = [reason for reasons in drawn for reason in reasons if reason]
    total = sum(len(ranking.indices) for ranking in rankings)
    count_drawn = total - len(missed)
    sys.stdout.write(f"{count_drawn} picture{'' if count_drawn == 1 else 's'} in {folder}\n")
    if missed:
        raise WorkError(f"{len(missed)} of {total} pairs could not be drawn, the first because {missed[0]}")


@dataclass(frozen=True, slots=True, eq=False)
class _Ranking:
    """Pairs of a set in the order in which they are shown; the rival is None where there is none."""

    found: SetResult
    method: MethodResult
    rival: MethodResult | None
    indices: list[int]

    @property
    def methods(self) -> list[MethodResult]:
        return [self.method] if self.rival is None else [self.method, self.rival]

    def file(self, place: int) -> str:
        name = self.method.pairs[self.indices[place]].name
        return f"{_safe(self.found.name)}-{place + 1:02d}-{_safe(name)}.png"


def _wanted(worst: int | None, best: int | None) -> tuple[End, int]:
    if worst is not None and best is not None:
        raise InputError("--worst and --best were both given, expected one of them")
    end: End = "worst" if best is None else "best"
    count = best if best is not None else 10 if worst is None else worst
    if count < 1:
        raise InputError(f"--{end} is {count}, expected 1 or more")
    return end, count


def _sets(results: Results, name: str | None) -> list[SetResult]:
    sets = [found for found in results.sets if name in (None, found.name)]
    if not sets:
        there = ", ".join(shown(found.name) for found in results.sets) or "no sets at all"
        raise InputError(f"--set: the run has no set {name!r}, expected one of {there}")
    return sets


def _method(found: SetResult, name: str | None, option: str) -> MethodResult:
    chosen = next((method for method in found.methods if name in (None, method.name)), None)
    if chosen is None:
        there = ", ".join(shown(method.name) for method in found.methods) or "no methods at all"
        raise InputError(f"--{option}: set {found.name} has no method {name!r}, expected one of {there}")
    return chosen


def _ranking(
    results: Results, found: SetResult, names: tuple[str | None, str | None], *, end: End, count: int
) -> _Ranking:
    """The pairs to show, worst or best first."""
    method = _method(found, names[0], "method")
    errors = best_errors(results, found, method)
    if names[1] is None:
        return _Ranking(found, method, None, _ordered(errors, end)[:count])
    rival = _method(found, names[1], "against")
    if rival.name == method.name:
        raise InputError(f"--against is {rival.name}, expected another method than --method")
    lost = _lost(errors, best_errors(results, found, rival), max(found.limits))
    order = [index for index in _ordered(lost, end) if (lost[index] > 0 if end == "worst" else lost[index] < 0)]
    return _Ranking(found, method, rival, order[:count])


def _ordered(values: Float64, end: End) -> list[int]:
    """From the largest value on for the worst, from the smallest for the best; equals in the set's own order."""
    order: list[int] = np.argsort(-values if end == "worst" else values, kind="stable").tolist()
    return order


def _lost(errors: Float64, others: Float64, limit: float) -> Float64:
    """By how much each pair's error is larger than the other method's."""
    # beyond the largest limit a pair counts as failed, as it does in the AUC: 300 px are no better than 4000
    return np.asarray(errors.clip(max=limit) - others.clip(max=limit))


def _draw(results: Results, ranking: _Ranking, *, home: Path, folder: Path) -> list[str]:
    """Write the pictures; for every pair why it could not be drawn, or an empty string."""
    reasons = []
    for place in tqdm(range(len(ranking.indices)), desc=shown(ranking.found.name), unit="pair"):
        try:
            picture = _picture(results, ranking, place, home)
        except InputError as error:
            reasons.append(str(error))
            continue
        write_picture(folder / ranking.file(place), picture)
        reasons.append("")
    return reasons


def _picture(results: Results, ranking: _Ranking, place: int, home: Path) -> UInt8:
    """One method's matches, and those of the other below them; each under a line that says what is seen."""
    found, parts = ranking.found, []
    for method in ranking.methods:
        pair = method.pairs[ranking.indices[place]]
        drawn = draw_pair(results, found, method, pair=pair, folder=home)
        words = (
            f"{place + 1}.  {found.name}  {pair.name}   {method.name}: {describe(results, found, method, pair=pair)}"
        )
        parts += [_headline(shown(words), drawn.shape[1]), drawn]
    width = max(part.shape[1] for part in parts)
    return np.concatenate([_widened(part, width) for part in parts])


def _headline(words: str, width: int) -> UInt8:
    """A strip with one line of text, in smaller letters where it would not fit."""
    strip = Image.new("RGB", (width, CAPTION_HEIGHT), PAPER)
    pen = ImageDraw.Draw(strip)
    length = pen.textlength(words, font=ImageFont.load_default(size=20))
    font = ImageFont.load_default(size=max(9, min(20, 20 * (width - 2 * MARGIN) / max(length, 1))))
    pen.text((MARGIN, CAPTION_HEIGHT / 2), words, fill=INK, font=font, anchor="lm")
    return np.asarray(strip)


def _widened(picture: UInt8, width: int) -> UInt8:
    wide = np.full((picture.shape[0], width, 3), PAPER, dtype=np.uint8)
    left = (width - picture.shape[1]) // 2
    wide[:, left : left + picture.shape[1]] = picture
    return wide


def _listing(results: Results, ranking: _Ranking, end: End) -> list[str]:
    """A line a pair, under one that says what they are."""
    found, methods = ranking.found, ranking.methods
    heads = [f"{shown(found.name)}: {pairs_text(found)}, the {end} first; {quantity(found)}, inliers of matches"]
    longest = 50 // len(methods) - 7
    names = [f"{shown(method.name, longest)} [{method.threshold:g} px]" for method in methods]
    if not ranking.indices:
        verdict = {"worst": "loses to", "best": "beats"}[end]
        return [*heads, f"{names[0]} {verdict} {names[-1]} on no pair" if ranking.rival else "no pair"]
    widths = [max(len(name), 27) for name in names]
    heads.append(
        " rank " + "  ".join([*(name.ljust(width) for name, width in zip(names, widths, strict=True)), "pair"])
    )
    room = 100 - 6 - sum(width + 2 for width in widths)
    for place, index in enumerate(ranking.indices):
        cells = [_cell(results, found, method, index) for method in methods]
        told = "  ".join(cell.ljust(width) for cell, width in zip(cells, widths, strict=True))
        heads.append(f"{place + 1:>4}  {told}  {shown(methods[0].pairs[index].name, max(room, 20))}")
    return heads


def _cell(results: Results, found: SetResult, method: MethodResult, index: int) -> str:
    pair, at = method.pairs[index], best_index(results, found, method)
    return f"{error_text(pair.errors[at], found.unit)}, {pair.inliers[at]} of {pair.matches}"


def _folder_name(ranking: _Ranking, end: End) -> str:
    return "-against-".join(_safe(method.name) for method in ranking.methods) + f"-{end}"


def _safe(name: str) -> str:
    """Something of a name that every file system takes."""
    return re.sub(r"[^A-Za-z0-9._-]+", "-", name)[-60:].strip("-.") or "pair"
