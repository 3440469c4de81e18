"""What people look at after a run: the printed table, report.md and report.html."""

import os
import textwrap
from pathlib import Path

from tiepoint.evaluation.page import page
from tiepoint.evaluation.pictures import draw_galleries
from tiepoint.evaluation.results import Results, SetResult
from tiepoint.evaluation.standing import facts, protocol_text, shown
from tiepoint.evaluation.tables import NOTE, WIDTH, Table, escaped, markdown, set_table, text, time_table
from tiepoint.files import atomic_path


def table(results: Results) -> str:
    """The run for a terminal: the protocol, then one block a benchmark, then the times; at most 100 columns.

    Args:
        results: the run.

    Returns:
        The text, without a line feed at its end.
    """
    told = _protocols(results)
    blocks = [textwrap.fill(f"{each} {NOTE}" if len(told) == 1 else each, WIDTH) for each in told]
    blocks += [textwrap.fill(NOTE, WIDTH)] if len(told) != 1 else []
    blocks += [text(set_table(found, full=False)) for found in results.sets]
    blocks += [text(time_table(results.timing))] if results.timing else []
    return "\n\n".join(blocks)


def write_reports(results: Results, folder: str | os.PathLike[str]) -> tuple[Path, Path]:
    """Write report.md and report.html; each file appears complete or not at all.

    Args:
        results: the run.
        folder: of the run; the paths of the pairs' matches start there. An image or a file of matches that is gone
            since costs its picture only, and the report says so.

    Returns:
        The two files.

    Raises:
        InputError: the folder cannot be written to.
    """
    home = Path(folder)
    written = home / "report.md", home / "report.html"
    contents = _markdown(results), page(results, draw_galleries(results, home))
    for path, content in zip(written, contents, strict=True):
        with atomic_path(path) as temporary:
            # paths on disk may hold bytes that are no UTF-8
            temporary.write_text(content, encoding="utf-8", errors="replace")
    return written


def _protocols(results: Results) -> list[str]:
    """The protocols of the sets, each once; which sets they are of is said where they differ."""
    sets: dict[str, list[str]] = {}
    for found in results.sets:
        sets.setdefault(protocol_text(results, found), []).append(shown(found.name))
    if len(sets) == 1:
        return list(sets)
    return [f"On {', '.join(names)}: {told}" for told, names in sets.items()]


def _markdown(results: Results) -> str:
    parts = ["# Matchers side by side", f"Command: {escaped(shown(results.command))}", "## Protocol"]
    parts += [escaped(each) for each in [*_protocols(results), NOTE]]
    parts += [part for found in results.sets for part in _set(found)]
    if results.timing:
        told = time_table(results.timing)
        parts += ["## Time", f"{escaped(told.title)}.", markdown(told)]
    parts += ["## Environment", _list(facts(results.environment)), "## Sources and licences"]
    for found in results.sets:
        words = [("source", found.source), ("licence", found.licence), ("folder", found.folder)]
        parts += [f"{escaped(shown(found.name))}:", _list(words)]
    return "\n\n".join(part for part in parts if part) + "\n"


def _set(found: SetResult) -> list[str]:
    told: Table = set_table(found, full=True)
    parts = [f"## {escaped(shown(found.name))}", f"{escaped(told.title)}.", markdown(told)]
    if found.left_out:
        parts += [f"Left out: {len(found.left_out)}", "\n".join(f"- {escaped(shown(each))}" for each in found.left_out)]
    return parts


def _list(rows: list[tuple[str, str]]) -> str:
    return "\n".join(f"- {escaped(shown(name))}: {escaped(shown(words))}" for name, words in rows)
