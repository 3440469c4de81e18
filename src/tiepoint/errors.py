"""The errors that end a command with one sentence instead of a traceback."""

import re


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
    return flat.replace("<class '", "").replace("'>", "").replace("typing.", "")


class WorkError(Exception):
    """The input was right and the work itself failed (exit code 1)."""
