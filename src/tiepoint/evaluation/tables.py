"""The tables of a report: filled once as words, then laid out for a terminal or as Markdown."""

import html
import re
import textwrap
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from tiepoint.evaluation.results import STAGES, Comparison, SetResult, Timing
from tiepoint.evaluation.standing import (
    against_first,
    main_figure,
    pairs_text,
    quantity,
    seconds_a_pair,
    seconds_text,
    shown,
)

WIDTH = 100
NARROWEST = 10  # columns that a name keeps
NOTE = (
    "Figures in percent. Each method stands at its best inlier threshold, which is printed in px. Matches, inliers and "
    "s/pair (image arrays in to matches out) are medians over the pairs; fail counts the pairs without a model. A "
    "difference from the first method has its 95 % interval beside it (paired bootstrap over the pairs); ~ marks a "
    "difference inside its noise."
)


class Cell(NamedTuple):
    """A place in a table.

    Attributes:
        text: what stands there.
        best: whether it is the best of its column.
        noise: whether it is a difference inside its noise.
    """

    text: str
    best: bool = False
    noise: bool = False


@dataclass(frozen=True, slots=True)
class Table:
    """A table whose first column holds names, and whose other columns hold numbers.

    Attributes:
        title: what it is about.
        head: the columns' names.
        rows: each as long as the head.
    """

    title: str
    head: list[str]
    rows: list[list[Cell]]


def set_table(found: SetResult, *, full: bool) -> Table:
    """One benchmark's methods, a row each.

    Args:
        found: the benchmark.
        full: all that was measured; otherwise what fits into 100 columns.
    """
    methods, main = found.methods, main_figure(found)
    title = f"{shown(found.name)}: {shown(found.title)}; {pairs_text(found)}; {quantity(found)}"
    difference = {}
    if found.comparisons:
        difference["difference"] = [_difference(against_first(found, method)) for method in methods]
        title += f"; difference in {main} from {shown(methods[0].name, 40)}"
    columns = {"method": [Cell(shown(method.name)) for method in methods]}
    columns |= {head: _ranked([method.figures.get(name) for method in methods]) for head, name in _heads(found, full)}
    # what decides stands where no one has to scroll to it
    columns |= difference if full else {}
    columns["[px]"] = [Cell(f"[{method.threshold:g}]") for method in methods]
    columns["matches"] = [Cell(f"{method.matches:.0f}") for method in methods]
    columns["inliers"] = [Cell(f"{method.inliers:.0f}") for method in methods]
    columns["fail"] = [Cell(str(method.failures)) for method in methods]
    if full:
        columns["precision"] = _ranked([method.precision for method in methods])
        columns["repeatability"] = _ranked([method.repeatability for method in methods])
    columns["s/pair"] = [Cell(seconds_text(seconds_a_pair(method))) for method in methods]
    return _table(title, columns if full else columns | difference)


def time_table(timing: Sequence[Timing]) -> Table:
    """The methods' times by stage, a row each."""
    stages = [stage for stage in STAGES if any(stage in told.median for told in timing)]
    columns = {"method": [Cell(shown(told.method)) for told in timing]}
    columns |= {stage: [Cell(seconds_text(told.median.get(stage))) for told in timing] for stage in stages}
    columns["25-75 %"] = [Cell(_spread(told)) for told in timing]
    columns["MB"] = [Cell("–" if told.peak_memory is None else f"{told.peak_memory / 1e6:.0f}") for told in timing]
    columns["runs"] = [Cell(f"{told.pairs}×{told.repeats}") for told in timing]
    title = (
        "Time: seconds a pair, medians, methods in turn on the same pairs, warm-up excluded; total is image arrays in "
        "to matches out, with its quartiles; MB is the peak of memory; runs are pairs × repeats"
    )
    return _table(title, columns)


def text(table: Table) -> str:
    """A table for a terminal: at most 100 columns, long names shortened."""
    columns = [_padded(head, [row[index] for row in table.rows]) for index, head in enumerate(table.head)]
    widths = [max(map(len, column)) for column in columns]
    # long names are worth narrower gaps before they are worth being cut
    gap = "  " if sum(widths) + 2 * len(widths[1:]) <= WIDTH else " "
    room = WIDTH - sum(width + len(gap) for width in widths[1:])
    widths[0] = min(widths[0], max(room, NARROWEST))
    lines = textwrap.wrap(f"{table.title}.", WIDTH)
    for name, *numbers in zip(*columns, strict=True):
        cells = (number.rjust(width) for number, width in zip(numbers, widths[1:], strict=True))
        lines.append(gap.join([shown(name, widths[0]).ljust(widths[0]), *cells]).rstrip())
    return "\n".join(lines)


def markdown(table: Table) -> str:
    """A table as Markdown, without its title; the best of a column is bold."""
    rows = [table.head, ["---"] + ["---:"] * (len(table.head) - 1)]
    rows += [
        [f"**{escaped(cell.text)}**" if cell.best else escaped(marked(cell)) for cell in row] for row in table.rows
    ]
    return "\n".join(f"| {' | '.join(row)} |" for row in rows)


def marked(cell: Cell) -> str:
    """What stands in a cell, with the mark of noise."""
    return f"{cell.text} ~" if cell.noise else cell.text


def escaped(words: str) -> str:
    """Text that Markdown shows as it is."""
    return re.sub(r"([\\`*_|\[\]])", r"\\\1", html.escape(words, quote=False))


def _table(title: str, columns: dict[str, list[Cell]]) -> Table:
    """Columns without a single value are left out."""
    filled = {
        head: cells
        for head, cells in columns.items()
        if head == "method" or any(cell.text not in ("", "–") for cell in cells)
    }
    return Table(title, list(filled), [list(row) for row in zip(*filled.values(), strict=True)])


def _padded(head: str, cells: Sequence[Cell]) -> list[str]:
    """A column's words; where one bears the mark of noise, the others have a blank in its place."""
    blank = "  " if any(cell.noise for cell in cells) else ""
    return [head + blank, *(marked(cell) if cell.noise else cell.text + blank for cell in cells)]


def _heads(found: SetResult, full: bool) -> list[tuple[str, str]]:
    """Pairs of a column's head and its figure; in the narrow table only those of the main figure's kind."""
    names = list(dict.fromkeys(name for method in found.methods for name in method.figures))
    if full:
        return [(name, name) for name in names]
    kind = (main_figure(found) or "").partition("@")[0]
    chosen = [name for name in names if name.partition("@")[0] == kind]
    # the kind is said once: AUC@3, @5, @10
    return [(name if name == chosen[0] else name.removeprefix(kind), name) for name in chosen]


def _ranked(values: Iterable[float | None]) -> list[Cell]:
    """Numbers with one decimal, of which the largest is the best if there is another."""
    texts = ["–" if value is None else f"{value:.1f}" for value in values]
    told = [float(each) for each in texts if each != "–"]
    most = max(told, default=0.0)
    return [Cell(each, best=len(told) > 1 and each != "–" and float(each) == most) for each in texts]


def _difference(told: Comparison | None) -> Cell:
    if told is None:
        return Cell("")
    words = f"{told.difference:+.1f} ({told.low:+.1f}…{told.high:+.1f})"
    return Cell(words, noise=not told.certain)


def _spread(told: Timing) -> str:
    if "total" not in told.low or "total" not in told.high:
        return "–"
    return f"{seconds_text(told.low['total'])}-{seconds_text(told.high['total'])}"
