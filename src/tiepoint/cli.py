"""The command line: a table of verbs. Nothing heavy is imported before a verb needs it."""

import os
import sys
from collections.abc import Callable, Sequence
from importlib import import_module
from typing import NoReturn

from tiepoint.errors import InputError, WorkError, parser_sentence

# verb -> (module:function, what it does); the function takes the arguments after the verb
VERBS = {
    "match": ("tiepoint.match:match", "find the tie points of two images"),
    "register": ("tiepoint.registration:register_files", "lay an image, or a folder of them, over another one"),
    "pose": ("tiepoint.pose:pose", "find how the camera moved between two images"),
    "depth": ("tiepoint.depth:depth", "find how far away every pixel of an image is, from a second one"),
    "edges": ("tiepoint.edges:edges", "find the edges of images, as people would draw them"),
    "denoise": ("tiepoint.denoise:denoise", "take the noise out of photographs"),
    "benchmark": ("tiepoint.benchmark:benchmark", "measure methods side by side on public pairs, by one protocol"),
    "inspect": ("tiepoint.inspection:inspect", "draw the pairs on which a method failed, or lost against another"),
    "fit": ("tiepoint.training:main", "train on folders of photos"),
    "validate": ("tiepoint.training:main", "measure a checkpoint on the validation pairs"),
    "test": ("tiepoint.training:main", "measure a checkpoint on the test pairs, with times"),
    "predict": ("tiepoint.training:main", "match the photos of a folder, each with the next"),
    "replay": ("tiepoint.training:replay", "make a training step again that failed"),
    "convert": (
        "tiepoint.convert:convert_file",
        "write weights as .ckpt, .pt, .safetensors or .onnx, and prove them the same",
    ),
    "models": ("tiepoint.catalogue:models", "list what can be loaded"),
}


def usage() -> str:
    """The text of `tiepoint --help`."""
    rows = "\n".join(f"  {verb:<10} {what}" for verb, (_, what) in VERBS.items())
    return (
        "usage: tiepoint VERB ... [--debug]\n\n"
        f"{rows}\n\n"
        "tiepoint VERB --help tells the options of a verb; tiepoint --version the version.\n"
        "Exit codes: 0 done, 1 the work failed, 2 the command line or an input file was wrong.\n"
    )


def main(argv: Sequence[str] | None = None) -> int:
    """Run one verb.

    Args:
        argv: the arguments; those of the process if None.

    Returns:
        The exit code: 0 done, 1 the work failed, 2 the command line or an input file was wrong.
    """
    args = list(sys.argv[1:] if argv is None else argv)
    debug = "--debug" in args
    args = [arg for arg in args if arg != "--debug"]
    try:
        code = _run(args, debug=debug)
        sys.stdout.flush()  # here, where what goes wrong with it can still be said
        return code
    except SystemExit as leaving:  # --help and --print_config leave like this, and Lightning when interrupted
        if isinstance(leaving.__context__, KeyboardInterrupt):
            return _interrupted()
        return leaving.code if isinstance(leaving.code, int) else int(leaving.code is not None)
    except KeyboardInterrupt:
        return _interrupted()
    except BrokenPipeError:
        # whoever read the output has left; what is still buffered must not complain at exit
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    except Exception as error:
        if type(error).__name__ == "BdbQuit":  # the debugger was left by q
            return _interrupted()
        if debug:
            _post_mortem(error)
        return _report(error)


def _run(args: list[str], *, debug: bool) -> int:
    if not args or args[0] in ("-h", "--help"):
        sys.stdout.write(usage())
        return 0
    if args[0] == "--version":
        sys.stdout.write(f"tiepoint {import_module('tiepoint').__version__}\n")
        return 0
    verb = args[0]
    if verb not in VERBS:
        raise InputError(f"there is no verb {verb!r}, expected one of {', '.join(VERBS)}")
    place, _, name = VERBS[verb][0].partition(":")
    try:
        function = getattr(import_module(place), name)
    except ModuleNotFoundError as error:
        if (error.name or "").startswith("tiepoint"):
            raise
        raise InputError(f"`tiepoint {verb}` needs {error.name}: pip install 'tiepoint[train]'") from error
    if name == "main":
        function([*args, "--debug=true"] if debug else args)
    else:
        _call(function, verb, args[1:])
    return 0


def _call(function: Callable[..., None], verb: str, args: list[str]) -> None:
    """Call a typed function with the command line that jsonargparse derives from its signature."""
    import inspect

    import docstring_parser
    import jsonargparse

    from tiepoint import logs

    class Parser(jsonargparse.ArgumentParser):  # type: ignore[misc]
        def error(self, message: str, ex: Exception | None = None) -> NoReturn:
            raise InputError(parser_sentence(message)) from ex

    if "loguru" in sys.modules:  # what the verb has imported will use it
        logs.setup()
    else:
        logs.setup_when_needed()
    parser = Parser(prog=f"tiepoint {verb}", description=VERBS[verb][1])
    parameters = inspect.signature(function).parameters.values()
    several = next((each.name for each in parameters if each.kind is each.VAR_POSITIONAL), None)
    said = {told.arg_name: told.description for told in docstring_parser.parse(function.__doc__ or "").params}
    if several:  # jsonargparse passes over *names
        parser.add_argument(several, nargs="*", type=str, default=[], help=said.get(f"*{several}"))
    # an option such as --as is a word of Python's, and the parameter's name ends in an underscore
    words = [each for each in parameters if each.name.endswith("_")]
    parser.add_function_arguments(function, as_group=False, as_positional=True, skip={each.name for each in words})
    for word in words:
        parser.add_argument(f"--{word.name[:-1]}", type=word.annotation, default=word.default, help=said.get(word.name))
    switches = {f"--{each.name}" for each in parameters if each.annotation is bool}
    config = parser.parse_args(_spelled_out(args, switches))
    given = parser.instantiate_classes(config).as_dict()
    given |= {word.name: given.pop(word.name[:-1]) for word in words}
    function(*(given.pop(several) if several else ()), **given)


def _spelled_out(args: list[str], switches: set[str]) -> list[str]:
    """Short options in full, and a switch that stands alone turned on."""
    full = ["--output" if arg == "-o" else arg for arg in args]
    followers = [*full, ""][1:]
    alone = [arg in switches and after not in ("true", "false") for arg, after in zip(full, followers, strict=True)]
    return [f"{arg}=true" if switch else arg for arg, switch in zip(full, alone, strict=True)]


def _interrupted() -> int:
    sys.stderr.write("tiepoint: interrupted\n")
    return 130


def _report(error: Exception) -> int:
    """One sentence on stderr; the exit code."""
    message = str(error)
    if "Original Traceback" in message:
        # an error of a loader's process arrives with the whole of its traceback as its message
        message = message.strip().splitlines()[-1].partition(": ")[2]
    sentence = " ".join(message.split()) or type(error).__name__
    if isinstance(error, InputError):
        sys.stderr.write(f"tiepoint: {sentence}\n")
        return 2
    if not isinstance(error, WorkError):
        sentence = f"{type(error).__name__}: {sentence} (--debug shows where)"
    sys.stderr.write(f"tiepoint: {sentence}\n")
    return 1


def _post_mortem(error: BaseException) -> None:
    """Show where it failed and, at a terminal, open the debugger there."""
    import pdb
    import traceback

    traceback.print_exception(error)
    while error.__cause__ is not None:  # what the sentence was made of
        error = error.__cause__
    if sys.stdin.isatty():
        pdb.post_mortem(error.__traceback__)
