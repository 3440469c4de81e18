"""The errors that end a command with one sentence instead of a traceback."""

import re
from collections.abc import Iterable
from difflib import get_close_matches


class InputError(Exception):
    """The command line or an input file is wrong (exit code 2).

    The message is one sentence that names the file or option, what was found and what was expected.
    """


def parser_sentence(message: str) -> str:
    """What was wrong on a command line, without jsonargparse's account of every type that it tried."""
    flat = " ".join(message.split())
    # '[Parser key "x": ]Does not validate against any of the Union subtypes ... Errors: - REASON - Expected a <class'
    tried = re.search(r'(Parser key "[\w.]+": )?Does not validate .*? Errors: - (.*?) - Expected a <class', flat)
    if tried:
        given = re.search(r"Given value: (\S+)$", flat)
        flat = f"{tried[1] or ''}{tried[2]}" + (f", found {given[1]}" if given else "")
    flat = re.sub(r'Parser key "([\w.]+)":', r"\1:", flat)
    # two ways of saying so, the first by its short name and for each type that it could be, the second by its path
    flat = re.sub(r"Expected a dot import path string: (\S+).*?, found \1", r"there is no class \1", flat)
    flat = re.sub(r"Problem with given class_path '(\S+)': (.*?), found \1", r"there is no class \1 (\2)", flat)
    return flat.replace("<class '", "").replace("'>", "").replace("typing.", "")


def with_nearest(sentence: str, known: Iterable[str]) -> str:
    """The sentence of `parser_sentence`, and which of the known names is like the one that it does not know."""
    told = re.search(r"(?:ption '|unrecognized arguments: )([\w.-]+)|there is no class ([\w.]+)", sentence)
    if not told or "the nearest is" in sentence:  # which the parser of a class has said already
        return sentence
    option, path = told.groups()
    # an option of that name is of something else; a class of that name is elsewhere
    wrong, names = (option, set(known) - {option}) if option else (path.rpartition(".")[2], set(known))
    near = get_close_matches(wrong, sorted(names), n=1, cutoff=0.7)
    return f"{sentence}; the nearest is {near[0]}" if near else sentence


class WorkError(Exception):
    """The input was right and the work itself failed (exit code 1)."""
