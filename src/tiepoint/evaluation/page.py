"""report.html: one file that holds all it shows, and opens without a network."""

import base64
from collections.abc import Mapping, Sequence
from typing import Any
from xml.etree.ElementTree import Element

from tiepoint.evaluation.figures import set_charts
from tiepoint.evaluation.markup import html, node
from tiepoint.evaluation.pictures import Gallery, Picture
from tiepoint.evaluation.results import Results, SetResult
from tiepoint.evaluation.standing import facts, protocol_text, shown
from tiepoint.evaluation.tables import NOTE, Cell, Table, marked, set_table, time_table

# nothing from elsewhere may be loaded, whatever a name in the results contains
POLICY = "default-src 'none'; img-src data:; style-src 'unsafe-inline'"
STYLE = """
:root { color-scheme: light dark; --paper: #fdfdfc; --ink: #1b1b1f; --faint: #5d5d66; --rule: #d9d9de; --band: #f3f3f1;
  --link: #0058a3 }
@media (prefers-color-scheme: dark) {
  :root { --paper: #16171a; --ink: #e6e6ea; --faint: #a3a3ad; --rule: #393a41; --band: #1f2025; --link: #7fc1ff } }
* { box-sizing: border-box }
body { margin: 0 auto; padding: 1.5rem clamp(.9rem, 4vw, 3rem) 4rem; max-width: 80rem; background: var(--paper);
  color: var(--ink); font: 1rem/1.55 system-ui, -apple-system, "Segoe UI", Roboto, "Noto Sans", sans-serif }
h1 { font-size: 1.9rem; line-height: 1.2; margin: .4rem 0 1rem }
h2 { font-size: 1.4rem; line-height: 1.25; margin: 3rem 0 .6rem; padding-top: .8rem; border-top: 1px solid var(--rule) }
h3 { font-size: 1.05rem; margin: 1.8rem 0 .4rem }
p { max-width: 46rem; margin: .6rem 0 }
a { color: var(--link) }
code { font: .875em/1.5 ui-monospace, SFMono-Regular, Menlo, Consolas, monospace; overflow-wrap: anywhere }
nav ul { columns: 15rem; padding-left: 1.2rem; margin: .6rem 0 }
.faint, figcaption, caption { color: var(--faint); font-size: .875rem; line-height: 1.45 }
.scroll { overflow-x: auto; margin: .8rem 0; border-bottom: 1px solid var(--rule) }
table { border-collapse: collapse; font-size: .9rem; font-variant-numeric: tabular-nums; white-space: nowrap }
th, td { padding: .38rem .55rem; text-align: right; border-top: 1px solid var(--rule) }
thead th { border-top: 0; color: var(--faint); font-weight: 600 }
tbody tr:nth-child(odd) > * { background: var(--band) }
th:first-child { position: sticky; left: 0; text-align: left; background: var(--paper); max-width: 45vw;
  overflow: hidden; text-overflow: ellipsis }
td.best { font-weight: 700 }
td.noise { color: var(--faint) }
table.facts { white-space: normal }
table.facts td { text-align: left; overflow-wrap: anywhere }
table.facts th { vertical-align: top; font-weight: 600 }
.row { display: grid; grid-template-columns: repeat(auto-fit, minmax(min(100%, 21rem), 1fr)); gap: 1.4rem }
figure { margin: 1rem 0 0; min-width: 0 }
figure img, .chart { display: block; width: 100%; height: auto }
figcaption { margin-top: .45rem; overflow-wrap: anywhere }
.legend { display: flex; flex-wrap: wrap; gap: .2rem 1.1rem; list-style: none; padding: 0; margin: .3rem 0;
  font-size: .875rem; overflow-wrap: anywhere }
.legend svg { vertical-align: -.15em }
@media print { body { max-width: none } figure, tr { break-inside: avoid } }
"""


def page(results: Results, galleries: Mapping[str, Gallery]) -> str:
    """A run as one HTML document.

    Args:
        results: the run.
        galleries: by the set's name, pictures of its pairs.
    """
    sections = [_protocol(results), *(_set(results, found, galleries.get(found.name)) for found in results.sets)]
    sections += [_time(results)] if results.timing else []
    sections += [_section("environment", "Environment", _facts(results.environment)), _sources(results)]
    contents = [node("li", node("a", _title(section), href=f"#{section.get('id')}")) for section in sections]
    names = ", ".join(dict.fromkeys(shown(method.name) for found in results.sets for method in found.methods))
    body = node(
        "body",
        node("h1", "Matchers side by side"),
        node("p", f"{names or 'No method'} on {_counted(results)}."),
        node("p", node("code", shown(results.command))),
        node("nav", node("ul", *contents), aria_label="Contents"),
        node("main", *sections),
    )
    head = node(
        "head",
        node("meta", charset="utf-8"),
        node("meta", name="viewport", content="width=device-width, initial-scale=1"),
        node("meta", http_equiv="Content-Security-Policy", content=POLICY),
        node("title", f"tiepoint benchmark: {names}"),
        node("style", STYLE),
    )
    return "<!doctype html>\n" + html(node("html", head, body, lang="en")) + "\n"


def _protocol(results: Results) -> Element:
    told = dict.fromkeys(protocol_text(results, found) for found in results.sets)
    return _section("protocol", "Protocol", *(node("p", each) for each in told), node("p", NOTE, class_="faint"))


def _set(results: Results, found: SetResult, gallery: Gallery | None) -> Element:
    table = set_table(found, full=True)
    parts = [_table(table, f"{table.title}. {protocol_text(results, found)}")]
    if charts := set_charts(results, found):
        parts += [node("h3", "Curves and speed"), node("div", *charts, class_="row")]
    if gallery:
        parts += [node("h3", "Best and worst pairs"), node("p", gallery.note, class_="faint")]
        parts += [node("div", *map(_picture, gallery.pictures), class_="row")]
    if found.left_out:
        items = [node("li", shown(reason)) for reason in found.left_out]
        parts += [node("h3", f"Left out: {len(items)}"), node("ul", *items, class_="faint")]
    return _section(f"set-{results.sets.index(found) + 1}", shown(found.name), *parts)


def _time(results: Results) -> Element:
    table = time_table(results.timing)
    return _section("time", "Time", _table(table, f"{table.title}."))


def _sources(results: Results) -> Element:
    rows = []
    for found in results.sets:
        words = {"source": found.source, "licence": found.licence, "folder": found.folder}
        rows += [(f"{shown(found.name)}: {name}", shown(text)) for name, text in words.items()]
    return _section("sources", "Sources and licences", _pairs(rows))


def _section(name: str, title: str, *parts: Element) -> Element:
    return node("section", node("h2", title), *parts, id=name)


def _title(section: Element) -> str:
    return section[0].text or ""


def _counted(results: Results) -> str:
    sets, pairs = len(results.sets), sum(len(found.methods[0].pairs) for found in results.sets if found.methods)
    return f"{sets} set{'' if sets == 1 else 's'}, {pairs} pair{'' if pairs == 1 else 's'}"


def _table(table: Table, caption: str) -> Element:
    """A table that scrolls sideways by itself where the screen is narrow."""
    rows = [
        node("tr", node("th", name.text, scope="row", title=name.text), *map(_cell, cells))
        for name, *cells in table.rows
    ]
    head = node("thead", node("tr", *(node("th", word, scope="col") for word in table.head)))
    grid = node("table", head, node("tbody", *rows))
    scroll = node("div", grid, class_="scroll", tabindex=0, role="region", aria_label=table.title)
    return node("figure", scroll, node("figcaption", caption))


def _cell(cell: Cell) -> Element:
    looks = {"class_": "best" if cell.best else "noise"} if cell.best or cell.noise else {}
    return node("td", _typeset(marked(cell)), **looks)


def _typeset(number: str) -> str:
    return number.replace("-", "\N{MINUS SIGN}") if number[:1] in "+-(" else number.replace("-", "–")


def _facts(content: Mapping[str, Any]) -> Element:
    return _pairs(facts(content))


def _pairs(rows: Sequence[tuple[str, str]]) -> Element:
    lines = [node("tr", node("th", name, scope="row"), node("td", text)) for name, text in rows]
    return node("table", node("tbody", *lines), class_="facts")


def _picture(picture: Picture) -> Element:
    caption = node("figcaption", picture.caption)
    if picture.jpeg is None:
        return node("figure", caption)
    data = "data:image/jpeg;base64," + base64.b64encode(picture.jpeg).decode("ascii")
    height, width = picture.size
    return node("figure", node("img", src=data, alt=picture.alt, width=width, height=height, loading="lazy"), caption)
