"""Networks out of files: class path, arguments and weights, none of which is trusted."""

import json
import zipfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from importlib import import_module
from pathlib import Path
from typing import Any, TypeVar

import torch
from torch import Tensor, nn
from torch.nn.modules.module import register_module_parameter_registration_hook

from tiepoint.errors import InputError
from tiepoint.models.blocks import deployed

_OWN = ("tiepoint.models.", "tiepoint.tasks.")
_KNOWN = (*_OWN, "kornia.")  # classes from elsewhere are only imported from packages that the user allows
_MAX_VALUES, _MAX_DEPTH, _MAX_TEXT = 20_000, 16, 1 << 20  # of what describes a network: ours takes some dozens
_Built = TypeVar("_Built", bound=nn.Module)


def check_plain(value: Any, *, title: str) -> None:
    """Refuse what is no plain data, or so much or so deep that reading it is an attack.

    Args:
        value: made of dictionaries with names, lists, numbers, texts and None.
        title: what an error message calls it.

    Raises:
        InputError: it is not.
    """
    values = text = 0
    todo = [(value, 0)]
    while todo:
        each, depth = todo.pop()
        values += 1
        text += len(each) if isinstance(each, str) else 0
        if values > _MAX_VALUES or text > _MAX_TEXT or depth > _MAX_DEPTH:
            raise InputError(
                f"{title} is larger or deeper than any network needs, expected at most {_MAX_VALUES} values in "
                f"{_MAX_DEPTH} levels with {_MAX_TEXT} characters"
            )
        if isinstance(each, Mapping):
            todo += [(part, depth + 1) for pair in each.items() for part in pair]
        elif isinstance(each, list | tuple):
            # one list can stand in another a million times: no more is looked at than can be too much
            todo += [(part, depth + 1) for part in each[: _MAX_VALUES + 1]]
        elif not isinstance(each, str | int | float | bool | None):
            raise InputError(f"{title} holds a {type(each).__name__}, expected plain data")


def check_archive(path: Path) -> None:
    """Refuse a zip file that torch has not written, as it packs nothing: it may unpack to more than all memory.

    Args:
        path: a file; other kinds pass.

    Raises:
        InputError: it is one, or damaged.
    """
    if not zipfile.is_zipfile(path):
        return
    try:
        with zipfile.ZipFile(path) as archive:
            packed = sum(member.file_size for member in archive.infolist()) > path.stat().st_size
    except (zipfile.BadZipFile, ValueError, NotImplementedError) as error:
        raise InputError(f"{path} is no weight file that can be read safely: it is damaged") from error
    if packed:
        raise InputError(f"{path} unpacks to more than its size, expected a weight file as torch writes it")


def read_json(text: str, *, title: str) -> dict[str, Any]:
    """An object of plain data out of a file that is not trusted.

    Args:
        text: JSON.
        title: what an error message calls it.

    Raises:
        InputError: it is no JSON of an object, or more of it than describes a network.
    """
    try:
        content = json.loads(text)
    except (ValueError, RecursionError) as error:
        reason = "it is nested too deeply" if isinstance(error, RecursionError) else str(error)[:100]
        raise InputError(f"{title} is no JSON that can be read: {reason}") from error
    check_plain(content, title=title)
    if not isinstance(content, dict):
        raise InputError(f"{title} is a {type(content).__name__}, expected an object")
    return content


def find_class(class_path: object, kind: type[_Built], *, title: str, allow: Sequence[str] = ()) -> type[_Built]:
    """The class that a file names.

    Args:
        class_path: with its module.
        kind: what it must be a subclass of.
        title: what an error message calls the file.
        allow: packages beside tiepoint and kornia that may be imported.

    Raises:
        InputError: it is from elsewhere, does not exist, or is something else.
    """
    known = (*_KNOWN, *(f"{package}." for package in allow))
    if not isinstance(class_path, str) or not class_path.startswith(known):
        raise InputError(
            f"{title} names the class {str(class_path)[:100]}, expected one of tiepoint or kornia, or of a package "
            "that you allow with --allow PACKAGE"
        )
    module, _, name = class_path.rpartition(".")
    try:
        cls = getattr(import_module(module), name)
    except (ImportError, AttributeError, ValueError) as error:
        raise InputError(f"{title} does not fit this version: there is no class {class_path}") from error
    if not (isinstance(cls, type) and issubclass(cls, kind)):
        raise InputError(f"{title} does not fit: {class_path} is no {kind.__name__}")
    return cls


def build(described: Mapping[str, Any], kind: type[_Built], *, title: str, allow: Sequence[str] = ()) -> _Built:
    """A network from its class path, arguments and state dict, in evaluation mode.

    Args:
        described: with `class_path`, `init_args` and `state_dict`.
        kind: what it must be a subclass of.
        title: what an error message calls the file.
        allow: as for `find_class`.

    Raises:
        InputError: it cannot be built, or its weights are others.
    """
    state: Any = described.get("state_dict")
    check_tensors(state, title=title)
    cls, fits = find_class(described.get("class_path"), kind, title=title, allow=allow), _misfit(described, title)
    with _said(fits):
        _check_fit(sketch(described, kind, count=len(state), title=title, allow=allow), state, fits=fits)
        network = cls(**described.get("init_args", {})).eval()
        network.load_state_dict(state)
    return network


def sketch(
    described: Mapping[str, Any], kind: type[_Built], *, count: int, title: str, allow: Sequence[str] = ()
) -> _Built:
    """A network from its class path and arguments without weights, in evaluation mode.

    Arguments of a few bytes can ask for all the memory and time that there is: it gets no memory (where it is the
    user's own class, which may not be able to do without, it gets what it asks for), and no more parameters than
    `count` would explain.

    Args:
        described: with `class_path` and `init_args`.
        kind: what it must be a subclass of.
        count: how many tensors there are for it.
        title: what an error message calls the file.
        allow: as for `find_class`.

    Raises:
        InputError: it cannot be built.
    """
    cls = find_class(described.get("class_path"), kind, title=title, allow=allow)
    arguments = described.get("init_args", {})
    check_plain(arguments, title=f"the description of a network in {title}")
    device = "meta" if described["class_path"].startswith(_OWN) else "cpu"
    with _said(_misfit(described, title)), _at_most(count), torch.device(device):
        return cls(**arguments).eval()


def _misfit(described: Mapping[str, Any], title: str) -> str:
    return f"{title} does not fit the network {described.get('class_path')} of this version"


@contextmanager
def _said(fits: str) -> Iterator[None]:
    """Turns what goes wrong with arguments and weights into one sentence."""
    try:
        yield
    except (TypeError, ValueError, RuntimeError, KeyError, AttributeError, OverflowError) as error:
        reason = (str(error).splitlines() or [type(error).__name__])[0][:160]
        raise InputError(f"{fits}: {reason}") from error


def check_tensors(state: Any, *, title: str) -> None:
    """Refuse what is no state dict, and tensors that claim more numbers than the file holds.

    Args:
        state: names with tensors.
        title: what an error message calls the file.

    Raises:
        InputError: it is not.
    """
    if not isinstance(state, Mapping) or not all(isinstance(name, str) for name in state):
        raise InputError(f"{title} holds a {type(state).__name__} for the weights, expected names with tensors")
    for name, value in state.items():
        if not isinstance(value, Tensor) or value.layout != torch.strided:
            raise InputError(f"{title} holds a {type(value).__name__} as {name[:80]}, expected a tensor")
        if value.numel() * value.element_size() > value.untyped_storage().nbytes():
            raise InputError(f"{title} holds {name[:80]} of {tuple(value.shape)}, expected as many numbers in the file")


def _check_fit(network: nn.Module, state: Mapping[str, Tensor], *, fits: str) -> None:
    own = network.state_dict()
    if own.keys() != state.keys() and deployed(network).state_dict().keys() == state.keys():
        raise InputError(
            f"{fits}: it holds the fused form, which is for use alone, expected the trainable one, "
            "as a checkpoint or an ONNX file of `tiepoint convert` holds it"
        )
    for name in own.keys() - state.keys():
        raise InputError(f"{fits}: {name} is missing")
    for name in state.keys() - own.keys():
        raise InputError(f"{fits}: it has no {name[:80]}")
    for name, value in own.items():
        if value.shape != state[name].shape:
            raise InputError(f"{fits}: {name} is {tuple(state[name].shape)}, expected {tuple(value.shape)}")


@contextmanager
def _at_most(count: int) -> Iterator[None]:
    """Stops the building of a network with many more parameters than a file holds: a loop can be as long as it says."""
    seen = 0

    def counted(*_: object) -> None:
        nonlocal seen
        seen += 1
        if seen > 4 * count + 64:  # some are set twice
            raise ValueError(f"its arguments ask for more weights than the {count} that the file holds")

    handle = register_module_parameter_registration_hook(counted)
    try:
        yield
    finally:
        handle.remove()
