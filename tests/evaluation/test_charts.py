"""Charts: what is drawn lies where its numbers say, and stays inside."""

import math
from html.parser import HTMLParser
from xml.etree.ElementTree import Element

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from tiepoint.evaluation.charts import (
    BOTTOM,
    HEIGHT,
    LEFT,
    RIGHT,
    TOP,
    WIDTH,
    Axis,
    Mark,
    Series,
    chart,
    legend,
    log_axis,
)
from tiepoint.evaluation.markup import html, node


def drawn(element: Element, tag: str) -> list[Element]:
    return list(element.iter(tag))


def points(polyline: Element) -> np.ndarray:
    """Where a line runs, in shares of the axes' lengths."""
    xy = np.array([[float(value) for value in point.split(",")] for point in polyline.attrib["points"].split()])
    x = (xy[:, 0] - LEFT) / (WIDTH - LEFT - RIGHT)
    y = (HEIGHT - BOTTOM - xy[:, 1]) / (HEIGHT - TOP - BOTTOM)
    return np.stack([x, y], axis=1)


def test_a_line_runs_where_its_numbers_say() -> None:
    line = np.array([[0.0, 0.0], [5.0, 50.0], [10.0, 100.0]])
    svg = chart([Series("a", [], line)], Axis("x", 0, 10), Axis("y", 0, 200), label="a line")
    np.testing.assert_allclose(points(drawn(svg, "polyline")[0]), [[0, 0], [0.5, 0.25], [1, 0.5]], atol=2e-3)


def test_equal_ratios_are_equal_steps_on_a_logarithmic_axis() -> None:
    line = np.array([[0.01, 0.0], [0.1, 0.0], [1.0, 0.0]])
    svg = chart([Series("a", [], line)], Axis("x", 0.01, 1, log=True), Axis("y", 0, 1), label="a line")
    np.testing.assert_allclose(points(drawn(svg, "polyline")[0])[:, 0], [0, 0.5, 1], atol=2e-3)


@settings(deadline=None)
@given(low=st.floats(-1e6, 1e6), length=st.floats(1e-3, 1e6))
def test_ticks_are_round_and_inside(low: float, length: float) -> None:
    assume(length > 1e-6 * abs(low))
    ticks = Axis("x", low, low + length).ticks()
    assert 2 <= len(ticks) <= 7
    assert all(low - 1e-6 * length <= tick <= low + 1.000001 * length for tick in ticks)
    assert np.allclose(np.diff(ticks), ticks[1] - ticks[0])


@settings(deadline=None)
@given(st.lists(st.floats(1e-6, 1e6), min_size=1, max_size=8))
def test_a_logarithmic_axis_holds_its_values_and_two_ticks(values: list[float]) -> None:
    axis = log_axis("s", values)
    assert axis.low < min(values)
    assert max(values) < axis.high
    assert axis.high / axis.low >= 9.99
    assert 1 <= len(axis.ticks()) <= 14
    assert all(0 <= axis.share(value) <= 1 for value in values)


def test_names_beside_dots_never_overlap_and_stay_inside() -> None:
    rng = np.random.default_rng(0)
    dots = [Mark(x, y, "dot") for x, y in rng.uniform(0, 1, (14, 2)).tolist()] + [Mark(0.5, 0.5, "dot")] * 6
    series = [Series(f"method number {index}", [dot]) for index, dot in enumerate(dots)]
    svg = chart(series, Axis("x", 0, 1), Axis("y", 0, 1), label="dots", named=True)
    names = [text for text in drawn(svg, "text") if (text.text or "").startswith("method")]
    assert 3 <= len(names) < len(dots)
    boxes = [(float(text.attrib["x"]), float(text.attrib["y"]), len(text.text or "")) for text in names]
    for index, (x, y, length) in enumerate(boxes):
        assert LEFT <= x <= WIDTH - RIGHT - 6 * length
        for other_x, other_y, other_length in boxes[:index]:
            assert abs(y - other_y) >= 12 or x + 6 * length <= other_x or other_x + 6 * other_length <= x


def test_every_dot_tells_what_it_is() -> None:
    series = [Series("a", [Mark(0, 0, "a: 1 %"), Mark(1, 1, "a: 2 %")]), Series("b", [Mark(1, 0, "b: 3 %")])]
    svg = chart(series, Axis("x", 0, 1), Axis("y", 0, 1), label="dots")
    assert {"a: 1 %", "a: 2 %", "b: 3 %"} <= {title.text for title in drawn(svg, "title")}
    assert svg.attrib["aria-label"] == "dots"


def test_the_legend_has_the_shapes_and_colours_of_the_chart() -> None:
    names = [f"m{index}" for index in range(9)]
    svg = chart([Series(name, [Mark(0, 0, name)]) for name in names], Axis("x", 0, 1), Axis("y", 0, 1), label="dots")
    groups = [group for group in drawn(svg, "g") if group.get("class") == "series"]
    entries = drawn(legend(names), "li")
    assert [entry[0].tail for entry in entries] == [f" {name}" for name in names]
    looks = []
    for group, entry in zip(groups, entries, strict=True):
        shape = next(child for child in group if child.tag in ("circle", "polygon"))
        assert entry[0].attrib["color"] == group.attrib["color"]
        assert entry[0][1].tag == shape.tag
        corners = len(shape.get("points", "").split())
        looks.append((group.attrib["color"], shape.tag, corners, entry[0][0].attrib["stroke-dasharray"]))
    assert len(set(looks)) == 9


def test_whatever_is_in_a_name_is_text() -> None:
    series = [Series("</svg><b>&", [Mark(0, 0, "<i>")])]
    svg = chart(series, Axis("<u>", 0, 1), Axis("y", 0, 1), label='"><s>', named=True)
    tags: set[str] = set()
    words: list[str] = []
    parser = HTMLParser()
    parser.handle_starttag = lambda tag, _: tags.add(tag)  # type: ignore[method-assign]
    parser.handle_data = words.append  # type: ignore[method-assign]
    parser.feed(html(svg))
    assert tags == {"svg", "line", "text", "g", "title", "circle"}
    assert {"</svg><b>&", "<i>", "<u>"} <= set(words)


@pytest.mark.parametrize("value", [0.0, 1.0, -1.5, 123.456, 100.0])
def test_numbers_in_attributes_keep_two_decimals(value: float) -> None:
    assert math.isclose(float(node("line", x1=value).attrib["x1"]), value, abs_tol=0.005)


def test_text_and_elements_keep_their_order() -> None:
    told = html(node("p", "a", node("b", "c"), "d", None, "e", class_="f", data_x=1))
    assert told == '<p class="f" data-x="1">a<b>c</b>de</p>'
