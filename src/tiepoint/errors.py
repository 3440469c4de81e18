"""The errors that end a command with one sentence instead of a traceback."""


class InputError(Exception):
    """The command line or an input file is wrong (exit code 2).

    The message is one sentence that names the file or option, what was found and what was expected.
    """


class WorkError(Exception):
    """The input was right and the work itself failed (exit code 1)."""
