"""The printed table, report.md and report.html: complete, honest about noise, safe with any name, self-contained."""

import re
from collections.abc import Iterator
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tiepoint.evaluation.charts import BOTTOM, HEIGHT, LEFT, RIGHT, TOP, WIDTH
from tiepoint.evaluation.metrics import share_within
from tiepoint.evaluation.report import table, write_reports
from tiepoint.evaluation.results import Comparison, Results, SetResult
from tiepoint.evaluation.results_io import read_results
from tiepoint.evaluation.standing import recall

EVIL = "<script>alert(1)</script>"
VOID = {"meta", "img", "br", "hr", "link", "input"}


@pytest.fixture(scope="module")
def results(run_folder: Path) -> Results:
    return read_results(run_folder)


@pytest.fixture(scope="module")
def reports(results: Results, run_folder: Path) -> Iterator[tuple[str, str]]:
    """report.md and report.html."""
    markdown, page = write_reports(results, run_folder)
    yield markdown.read_text(encoding="utf-8"), page.read_text(encoding="utf-8")
    markdown.unlink()
    page.unlink()


class Page(HTMLParser):
    """What a browser makes of a page: its text, its tags with their attributes, and whether they are balanced."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.text = ""
        self.feed(text)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open, f"</{tag}> closes nothing"
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.text += data

    def all(self, tag: str) -> list[dict[str, str | None]]:
        return [attributes for name, attributes in self.tags if name == tag]


def changed(results: Results, **values: object) -> Results:
    return replace(results, sets=[replace(results.sets[0], **values)])


def compared(results: Results, *, certain: bool) -> Results:
    told = Comparison("x", "sift", "AUC@5", 3.14, 1.0 if certain else -1.0, 7.25, 2.0, certain)
    return changed(results, comparisons=[replace(told, method=EVIL)])


def test_the_table_fits_100_columns_and_stands_in_order(results: Results) -> None:
    lines = table(results).splitlines()
    assert max(map(len, lines)) <= 100
    assert lines[0].startswith("Protocol tiepoint: long side <= 1024 px, 2048 keypoints")
    told = " ".join(lines)
    assert "walls: walls & trees; 4 pairs, 1 left out; mean corner error in px; difference in AUC@5 from sift." in told
    head = next(line for line in lines if line.startswith("method") and "AUC" in line)
    heads = "method AUC@1 @3 @5 @10 [px] matches inliers fail s/pair difference"
    assert head.split() == heads.split()
    rows = lines[lines.index(head) + 1 :]
    assert [row.split()[0] for row in rows[:2]] == ["sift", EVIL]
    assert rows[0].split()[5:] == ["[3]", "30", "20", "1", "0.0400"]


def test_the_figures_are_those_of_the_errors(results: Results) -> None:
    row = next(line for line in table(results).splitlines() if line.startswith("sift"))
    # AUC@5 of 0.5, 2.0, none and 8.0: ((5 - 0.5) + (5 - 2) + 2 / 2) / (4 * 5)
    assert row.split()[3] == "42.5"


@settings(deadline=None)
@given(names=st.lists(st.text(min_size=1, max_size=300), min_size=2, max_size=2, unique=True))
def test_the_table_fits_whatever_the_names(names: list[str], results: Results) -> None:
    methods = [replace(method, name=name) for method, name in zip(results.sets[0].methods, names, strict=True)]
    told = replace(results.sets[0].comparisons[0], method=names[1], low=-100.0, difference=-99.9, high=-98.8)
    lines = table(changed(results, methods=methods, comparisons=[told], name=names[0], title=names[1])).split("\n")
    assert max(map(len, lines)) <= 100
    assert all(line.isprintable() for line in lines)


def test_a_long_name_keeps_its_end(results: Results) -> None:
    long = [replace(method, name=f"/a/{'very/' * 30}{method.name}") for method in results.sets[0].methods]
    rows = table(changed(results, methods=long)).splitlines()
    assert any(re.match(r"…\S+/sift  +", row) for row in rows)


@pytest.mark.parametrize("certain", [True, False])
def test_a_difference_inside_its_noise_is_marked(certain: bool, results: Results, run_folder: Path) -> None:
    told = compared(results, certain=certain)
    row = next(line for line in table(told).splitlines() if line.startswith(EVIL))
    interval = "+3.1 (+1.0…+7.2)" if certain else "+3.1 (-1.0…+7.2) ~"
    assert row.endswith(interval)
    folder = run_folder / f"noise-{certain}"
    markdown, page = (path.read_text(encoding="utf-8") for path in write_reports(told, folder))
    assert f"| {interval} |" in markdown
    assert any(attributes.get("class") == "noise" for attributes in Page(page).all("td")) is not certain
    assert interval.replace("-", "\N{MINUS SIGN}") in page


def test_markdown_holds_tables_protocol_environment_sources_and_what_was_left_out(reports: tuple[str, str]) -> None:
    text = reports[0]
    for part in (
        "# Matchers side by side", "## Protocol", "## walls", "## Time", "## Environment", "## Sources and licences",
        "Left out: 1", "- wall/1-4: 4.jpg does not exist, expected an image file", "- versions: numpy: ",
        "- licence: CC0 &lt;none&gt;", "- source: made up for a test", "MHA@10", "repeatability",
    ):  # fmt: skip
        assert part in text
    assert "<script>" not in text
    rows = [line for line in text.splitlines() if line.startswith("| ")]
    widths = {len(re.findall(r"(?<!\\)\|", row)) for row in rows[:4]}
    assert len(widths) == 1


def test_the_page_is_well_formed(reports: tuple[str, str]) -> None:
    assert reports[1].startswith("<!doctype html>\n")
    page = Page(reports[1])
    assert page.open == []
    assert {"html", "head", "body", "table", "svg", "nav", "main"} <= {tag for tag, _ in page.tags}


def test_the_page_needs_nothing_from_elsewhere(reports: tuple[str, str]) -> None:
    page = Page(reports[1])
    named = [value or "" for _, attributes in page.tags for key, value in attributes.items() if key in ("src", "href")]
    assert named
    assert all(value.startswith(("data:image/jpeg;base64,", "#")) for value in named)
    assert not {"script", "link", "iframe", "object"} & {tag for tag, _ in page.tags}
    assert not re.search(r"url\(|@import", reports[1])


def test_the_contents_lead_to_the_sections(reports: tuple[str, str]) -> None:
    page = Page(reports[1])
    targets = [(attributes["href"] or "")[1:] for attributes in page.all("a")]
    assert targets == [attributes["id"] for attributes in page.all("section")]
    assert len(targets) == 5


def test_the_page_shows_every_method_and_the_protocol_under_every_figure(
    reports: tuple[str, str], results: Results
) -> None:
    text = Page(reports[1]).text
    assert EVIL in text
    assert "tree & <b>bush</b>/1-2" in text
    assert "CC0 <none>" in text
    captions = re.findall(r"<figcaption>(.*?)</figcaption>", reports[1])
    charts = [caption for caption in captions if "walls, 4 pairs, 1 left out" in caption]
    assert len(charts) == 3
    for caption in charts:
        for value in (
            "2048 keypoints",
            "1024 px",
            "poselib, 100-2000 iterations",
            "0.99999",
            "seed 0",
            "0.5, 1, 2, 3 px",
        ):
            assert value in caption


def series(page: str, chart: int) -> list[np.ndarray]:
    """Where the lines of a chart run, in shares of its axes."""
    svg = re.findall(r"<svg[^>]*class=\"chart\".*?</svg>", page)[chart]
    lines = []
    for words in re.findall(r'<polyline points="([^"]*)"', svg):
        xy = np.array([[float(value) for value in point.split(",")] for point in words.split()])
        x = (xy[:, 0] - LEFT) / (WIDTH - LEFT - RIGHT)
        lines.append(np.stack([x, (HEIGHT - BOTTOM - xy[:, 1]) / (HEIGHT - TOP - BOTTOM)], axis=1))
    return lines


def test_the_recall_curve_is_the_share_of_pairs_within_t(reports: tuple[str, str]) -> None:
    curves = series(reports[1], 0)
    assert len(curves) == 2
    # sift's errors are 0.5, 2, none and 8 px of at most 10
    expected = [[0, 0], [0.05, 0], [0.05, 0.25], [0.2, 0.25], [0.2, 0.5], [0.8, 0.5], [0.8, 0.75], [1, 0.75]]
    np.testing.assert_allclose(curves[0], expected, atol=2e-3)
    assert "sift: 50.0 % of the pairs within 5 px" in reports[1]


def test_the_matching_curve_is_the_mean_over_the_pairs(reports: tuple[str, str]) -> None:
    expected = np.stack([np.arange(10) / 9, np.arange(1, 11) / 10], axis=1)
    np.testing.assert_allclose(series(reports[1], 1)[0], expected, atol=2e-3)


def test_the_scatter_tells_speed_and_accuracy(reports: tuple[str, str]) -> None:
    assert "sift: AUC@5 42.5 %, 0.0400 s a pair" in reports[1]


@settings(deadline=None)
@given(st.lists(st.floats(0, 20) | st.just(float("inf")), max_size=30), st.integers(1, 40))
def test_recall_climbs_to_the_share_within_the_limit(errors: list[float], most: int) -> None:
    curve = recall(np.array(errors), 10.0, most=most)
    assert (np.diff(curve, axis=0) >= 0).all()
    assert curve[0].tolist() == [0, 0]
    assert curve[-1].tolist() == pytest.approx([10, 100 * share_within(np.array(errors), [10.0])[0]])


def test_pictures_of_the_best_and_the_worst_pairs_are_in_the_page(reports: tuple[str, str]) -> None:
    page = Page(reports[1])
    alts = [attributes["alt"] or "" for attributes in page.all("img")]
    assert len(alts) == 8  # of four pairs the two best and the two worst, two methods
    assert alts[0].startswith("sift, best: wall/1-2. 0.50 px (threshold 3 px), 30 matches, 20 inliers")
    assert alts[2].startswith("sift, worst: tree & <b>bush</b>/1-2. no model (threshold 3 px)")
    assert len(reports[1]) < 2e6


def test_a_missing_image_costs_its_picture_only(results: Results, run_folder: Path, tmp_path: Path) -> None:
    method = results.sets[0].methods[0]
    gone = [replace(method.pairs[0], path0=str(tmp_path / "gone.jpg")), *method.pairs[1:]]
    told = changed(results, methods=[replace(method, pairs=gone)], comparisons=[])
    page = write_reports(told, run_folder / "gone")[1].read_text(encoding="utf-8")
    assert f"Not drawn: {tmp_path / 'gone.jpg'} does not exist, expected an image file." not in page  # matches go first
    page = write_reports(told, run_folder)[1].read_text(encoding="utf-8")
    assert f"Not drawn: {tmp_path / 'gone.jpg'} does not exist, expected an image file." in page
    assert page.count("<img ") == 3


@pytest.mark.parametrize(
    ("methods", "pictures", "told"),
    [(9, 54, "the best and the worst pair of each method"), (17, 51, "the worst pair of each method")],
)
def test_a_run_of_many_methods_stays_bounded(
    methods: int, pictures: int, told: str, results: Results, run_folder: Path
) -> None:
    found = results.sets[0]
    many = [replace(found.methods[index % 2], name=f"method {index}") for index in range(methods)]
    sets = [replace(found, name=f"set {index}", methods=many, comparisons=[]) for index in range(3)]
    page = write_reports(replace(results, sets=sets), run_folder)[1].read_text(encoding="utf-8")
    assert page.count("<img ") == pictures
    assert page.count(told) == 3
    assert all(page.count(f"method {index}") > 10 for index in range(methods))
    assert Page(page).open == []


def empty(found: SetResult) -> SetResult:
    return replace(found, methods=[], comparisons=[])


def without_pairs(found: SetResult) -> SetResult:
    methods = [replace(method, pairs=[], figures={}, mma=None, precision=None) for method in found.methods]
    return replace(found, methods=methods, comparisons=[])


@pytest.mark.parametrize("change", [empty, without_pairs])
def test_a_set_without_usable_pairs_is_reported_too(change: object, results: Results, tmp_path: Path) -> None:
    assert callable(change)
    told = replace(results, sets=[change(results.sets[0])], timing=[])
    assert "0 pairs, 1 left out" in table(told)
    markdown, page = (path.read_text(encoding="utf-8") for path in write_reports(told, tmp_path))
    assert "Left out: 1" in markdown
    assert "4.jpg does not exist" in page
    assert Page(page).open == []


def test_sets_with_other_protocols_say_so(results: Results) -> None:
    own = dict(results.protocol) | {"name": "other", "seed": 7}
    sets = [results.sets[0], replace(results.sets[0], name="second", protocol=own)]
    told = table(replace(results, sets=sets))
    assert "On walls: Protocol tiepoint" in told
    assert "On second: Protocol other" in told


def test_a_protocol_of_another_version_is_told_as_it_is(results: Results) -> None:
    protocol = {"thresholds": [0.5, 1.0, 2.0, 3.0], "phase_of_moon": "full", "odds": 0.9999999}
    told = table(replace(results, protocol=protocol))
    assert told.startswith("Protocol: thresholds 0.5, 1, 2, 3; phase of moon full; odds 0.9999999.")


def test_points_are_within_and_poses_in_degrees(results: Results) -> None:
    figures = {"within@3": 1.0, "within@5": 2.0}
    methods = [replace(method, figures=figures, mma=None) for method in results.sets[0].methods]
    points = table(changed(results, truth="points", limits=[3.0, 5.0], methods=methods, comparisons=[]))
    assert "median distance of the marked points in px" in points
    assert re.search(r"within@3 +@5 ", points)
    assert "pose error in degrees" in table(changed(results, truth="pose", unit="degrees"))
