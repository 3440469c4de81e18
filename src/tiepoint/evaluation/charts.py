"""Charts as inline SVG: lines and dots over two axes. They need no script, no style sheet and no network.

All that is not a series takes the colour of the text around it, so a chart works on light and dark paper. The series
have Okabe and Ito's colours ("Color Universal Design", 2008, without the yellow, which white paper swallows), and
shapes and dashes beside them, so that nobody depends on the colours.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple
from xml.etree.ElementTree import Element

from tiepoint.evaluation.markup import node
from tiepoint.evaluation.standing import shown
from tiepoint.types import Float64

COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "currentColor")
DASHES = ("none", "7 4", "2 3")
SHAPES = 4

# small, so that the letters stay readable when a telephone shows the chart at its own width
WIDTH, HEIGHT = 420.0, 280.0
LEFT, RIGHT, TOP, BOTTOM = 48.0, 14.0, 12.0, 44.0
LETTER = 6.6  # average width of a letter of 12 px, to keep names apart
DOT = 4.5


class Mark(NamedTuple):
    """A dot.

    Attributes:
        x: where, in the units of the axes.
        y: likewise.
        title: what it tells when the pointer rests on it.
    """

    x: float
    y: float
    title: str


@dataclass(frozen=True, slots=True, eq=False)
class Series:
    """What one method contributes to a chart.

    Attributes:
        name: of the method.
        marks: its dots.
        line: (M, 2) corners of its line; None for none.
    """

    name: str
    marks: Sequence[Mark]
    line: Float64 | None = None


@dataclass(frozen=True, slots=True)
class Axis:
    """One axis.

    Attributes:
        title: what it measures, with the unit.
        low: its beginning.
        high: its end, larger than the beginning.
        log: whether equal steps are equal ratios; the beginning is then positive.
    """

    title: str
    low: float
    high: float
    log: bool = False

    def share(self, value: float) -> float:
        """Where a value lies, from 0 at the beginning to 1 at the end."""
        if self.log:
            return math.log(value / self.low) / math.log(self.high / self.low)
        return (value - self.low) / (self.high - self.low)

    def ticks(self) -> list[float]:
        """Round values within the axis, about five."""
        steps = self._decades() if self.log else self._multiples()
        slack = 1e-9 * (self.high - self.low)
        return [step for step in steps if self.low - slack <= step <= self.high + slack]

    def _multiples(self) -> list[float]:
        rough = (self.high - self.low) / 5
        size = 10.0 ** math.floor(math.log10(rough))
        step = next(size * factor for factor in (1, 2, 2.5, 5, 10) if size * factor >= rough * (1 - 1e-9))
        first = math.ceil(self.low / step - 1e-9)
        return [step * index for index in range(first, first + 7)]

    def _decades(self) -> list[float]:
        powers = range(math.floor(math.log10(self.low)), math.ceil(math.log10(self.high)) + 1)
        # over many decades the steps between them would run into each other
        factors = (1, 2, 5) if len(powers) <= 4 else (1,)
        return [factor * 10.0**power for power in powers for factor in factors]


def log_axis(title: str, values: Sequence[float]) -> Axis:
    """A logarithmic axis with some room around positive values, at least a factor of ten long."""
    low, high = min(values), max(values)
    room = max(1.35, math.sqrt(max(1.0, 10 * low / high)))
    return Axis(title, low / room, high * room, log=True)


def chart(series: Sequence[Series], x: Axis, y: Axis, *, label: str, named: bool = False) -> Element:
    """Draw lines and dots.

    Args:
        series: what is drawn, each in its own colour and shape, in order.
        x: the horizontal axis.
        y: the vertical axis.
        label: what the chart shows, for those who cannot see it.
        named: write the series' names beside their first dots, where there is room.

    Returns:
        An svg element.
    """
    drawn = [_series(one, index, x, y) for index, one in enumerate(series)]
    names = _names([(one.name, _place(one.marks[0], x, y)) for one in series if one.marks]) if named else []
    box = f"0 0 {WIDTH:g} {HEIGHT:g}"
    return node(
        "svg", *_axes(x, y), *drawn, *names, viewBox=box, role="img", aria_label=label, class_="chart",
        font_size=12, font_family="system-ui, sans-serif",
    )  # fmt: skip


def legend(names: Sequence[str]) -> Element:
    """The series' names with their colours and shapes, as a list that wraps."""
    return node("ul", *(_entry(name, index) for index, name in enumerate(names)), class_="legend")


def _entry(name: str, index: int) -> Element:
    line = node("line", x1=0, y1=8, x2=28, y2=8, stroke_width=2, stroke="currentColor", stroke_dasharray=_dash(index))
    swatch = node("svg", line, _shape(index, 14, 8), width=28, height=16, color=_colour(index), aria_hidden="true")
    return node("li", swatch, " ", shown(name))


def _axes(x: Axis, y: Axis) -> list[Element]:
    right, bottom = WIDTH - RIGHT, HEIGHT - BOTTOM
    faint: dict[str, str | float] = {"stroke": "currentColor", "stroke_opacity": 0.18}
    drawn = []
    for value in x.ticks():
        at = _across(value, x)
        drawn.append(node("line", x1=at, y1=TOP, x2=at, y2=bottom, **faint))
        drawn.append(_text(f"{value:g}", at, bottom + 16, "middle"))
    for value in y.ticks():
        at = _down(value, y)
        drawn.append(node("line", x1=LEFT, y1=at, x2=right, y2=at, **faint))
        drawn.append(_text(f"{value:g}", LEFT - 6, at + 4, "end"))
    drawn.append(_text(x.title, (LEFT + right) / 2, HEIGHT - 8, "middle"))
    middle = (TOP + bottom) / 2
    upright = _text(y.title, 13, middle, "middle")
    upright.set("transform", f"rotate(-90 13 {middle:g})")
    return [*drawn, upright]


def _series(one: Series, index: int, x: Axis, y: Axis) -> Element:
    group = node("g", node("title", shown(one.name)), color=_colour(index), class_="series")
    if one.line is not None:
        points = " ".join(f"{_across(a, x):.1f},{_down(b, y):.1f}" for a, b in one.line.tolist())
        line = node("polyline", points=points, fill="none", stroke="currentColor", stroke_dasharray=_dash(index))
        line.attrib.update({"stroke-width": "2", "stroke-linejoin": "round"})
        group.append(line)
    for mark in one.marks:
        dot = _shape(index, *_place(mark, x, y))
        dot.append(node("title", shown(mark.title)))
        group.append(dot)
    return group


def _shape(index: int, x: float, y: float) -> Element:
    """A circle, a square, a triangle or a diamond."""
    r = DOT
    match index % SHAPES:
        case 0:
            return node("circle", cx=x, cy=y, r=r, fill="currentColor")
        case 1:
            corners = [(-r, -r), (r, -r), (r, r), (-r, r)]
        case 2:
            corners = [(0, -1.3 * r), (1.2 * r, 0.9 * r), (-1.2 * r, 0.9 * r)]
        case _:
            corners = [(0, -1.4 * r), (1.4 * r, 0), (0, 1.4 * r), (-1.4 * r, 0)]
    return node("polygon", points=" ".join(f"{x + a:.1f},{y + b:.1f}" for a, b in corners), fill="currentColor")


def _names(dots: Sequence[tuple[str, tuple[float, float]]]) -> list[Element]:
    """Names beside their dots; one for which there is no room is left to the legend."""
    taken = [(x - DOT, y - DOT, x + DOT, y + DOT) for _, (x, y) in dots]
    drawn = []
    for name, (x, y) in dots:
        words = shown(name, 24)
        wide = LETTER * len(words)
        for left, middle in ((x + 9, y), (x - 9 - wide, y), (x - wide / 2, y - 15), (x - wide / 2, y + 15)):
            box = (left, middle - 7, left + wide, middle + 7)
            if _inside(box) and not any(_overlap(box, other) for other in taken):
                taken.append(box)
                drawn.append(_text(words, left, middle + 4, "start"))
                break
    return drawn


def _inside(box: tuple[float, ...]) -> bool:
    return box[0] >= LEFT and box[1] >= TOP and box[2] <= WIDTH - RIGHT and box[3] <= HEIGHT - BOTTOM


def _overlap(a: tuple[float, ...], b: tuple[float, ...]) -> bool:
    return a[0] < b[2] and b[0] < a[2] and a[1] < b[3] and b[1] < a[3]


def _text(words: str, x: float, y: float, anchor: str) -> Element:
    return node("text", words, x=x, y=y, text_anchor=anchor, fill="currentColor")


def _place(mark: Mark, x: Axis, y: Axis) -> tuple[float, float]:
    return _across(mark.x, x), _down(mark.y, y)


def _across(value: float, x: Axis) -> float:
    return LEFT + x.share(value) * (WIDTH - LEFT - RIGHT)


def _down(value: float, y: Axis) -> float:
    return HEIGHT - BOTTOM - y.share(value) * (HEIGHT - TOP - BOTTOM)


def _colour(index: int) -> str:
    return COLOURS[index % len(COLOURS)]


def _dash(index: int) -> str:
    return DASHES[index // len(COLOURS) % len(DASHES)]
