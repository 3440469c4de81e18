"""Weight files of others, above all checkpoints of PyTorch Lightning 1.x and 2.x: their tensors and no code.

Such a checkpoint is a pickle that names classes of its authors: settings, callbacks, whatever was at hand. torch
refuses what it does not know. Here an empty dictionary takes the place of each class that is known to hold settings
alone, or that the user vouches for; nothing that a file names is imported, let alone called.
"""

import pickletools
import re
import warnings
import zipfile
from collections import OrderedDict
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import safetensors
import safetensors.torch
import torch
from torch import Tensor

from tiepoint.building import check_archive, check_tensors
from tiepoint.errors import InputError

ENDINGS = (".ckpt", ".pt", ".pth", ".bin", ".safetensors")
# what holds the tensors where the file's own entries are none, in the order in which it is looked for
_HOLDERS = ("state_dict", "model_state_dict", "model", "extractor", "net", "weights")
# packages whose classes stand in checkpoints as settings, or as bookkeeping of the training
_SETTINGS = (
    *("argparse", "collections", "datetime", "enum", "pathlib", "typing"),
    *("addict", "easydict", "ml_collections", "numpy", "omegaconf", "yacs"),
    *("lightning", "lightning_fabric", "lightning_utilities", "pytorch_lightning", "torchmetrics"),
    *("torch.nn", "torch.optim", "torch.utils.data"),
)
# what torch itself makes tensors of
_TORCHS = re.compile(r"torch\.(_utils\._rebuild_\w+|\w+Storage|Size|device)|collections\.\w+|_codecs\.encode")
_TOLD = ("pytorch-lightning_version", "epoch", "global_step")


class ForeignState(NamedTuple):
    """What a weight file of others holds.

    Attributes:
        tensors: by the file's names.
        told: version of Lightning, epoch and step, where the file tells them.
        passed_over: classes that the file names and that nothing was made of.
    """

    tensors: dict[str, Tensor]
    told: dict[str, Any]
    passed_over: list[str]


class _Empty:
    """Stands for a class of others: whatever it is called with, an empty dictionary comes of it.

    An ordered one and not a class of our own, since torch fills exactly this kind with entries and attributes.
    """

    def __new__(cls, *_: object, **__: object) -> OrderedDict[Any, Any]:  # type: ignore[misc]
        return OrderedDict()


class _Ignored:
    """Stands for what is made and filled otherwise than objects with entries and attributes: NumPy's numbers."""

    def __init__(self, *_: object) -> None:
        pass

    def __setstate__(self, _: object) -> None:
        pass


def read_foreign(path: Path, *, allow: Sequence[str] = ()) -> ForeignState:
    """The tensors of a weight file of others.

    Args:
        path: a .ckpt, .pt, .pth, .bin or .safetensors file.
        allow: packages whose classes may be named in a pickle; they are passed over, not imported.

    Raises:
        InputError: it is missing, damaged, of another kind, holds no tensors, or names classes that are not known to
            be settings.
    """
    if not path.is_file():
        raise InputError(f"{path} {'is a folder' if path.is_dir() else 'does not exist'}, expected a weight file")
    if path.suffix.lower() not in ENDINGS:
        raise InputError(f"{path} ends in {path.suffix or 'nothing'}, expected {', '.join(ENDINGS)} with --as")
    if path.suffix.lower() == ".safetensors":
        try:
            content: Any = safetensors.torch.load_file(path)
        except (safetensors.SafetensorError, OSError) as error:
            raise InputError(f"{path} is no .safetensors file that can be read: {str(error)[:160]}") from error
        named: list[str] = []
    else:
        content, named = _unpickled(path, allow)
    told = {
        name: content[name] for name in _TOLD if isinstance(content, dict) and isinstance(content.get(name), str | int)
    }
    return ForeignState(_tensors(content, path), told, named)


def _unpickled(path: Path, allow: Sequence[str]) -> tuple[Any, list[str]]:
    """The content of a pickle of torch, and which classes it names that torch does not know."""
    check_archive(path)
    try:
        named = _names(path)
    except Exception as error:  # whatever a damaged file makes the parser raise
        raise InputError(f"{path} is no weight file that can be read safely: it is damaged or another kind") from error
    packages = tuple(f"{package}." for package in (*_SETTINGS, *allow))
    unknown = [name for name in named if not name.startswith(packages)]
    if unknown:
        more = f" and {len(unknown) - 1} more" if unknown[1:] else ""
        package = unknown[0].partition(".")[0][:40]
        raise InputError(
            f"{path} names {unknown[0][:100]}{more}, expected tensors and settings alone: if that is a class of "
            f"settings, --allow {package} passes over it without running it"
        )
    try:
        stands: list[Any] = [(_Ignored if name.startswith(("numpy.", "pathlib.")) else _Empty, name) for name in named]
        with warnings.catch_warnings(), torch.serialization.safe_globals(stands):
            warnings.simplefilter("ignore")  # of other versions of the pickle's format
            return torch.load(path, map_location="cpu", weights_only=True), named
    except Exception as error:  # whatever a damaged file or one of another kind makes torch raise
        raise InputError(f"{path} is no weight file that can be read safely: it is damaged or another kind") from error


def _names(path: Path) -> list[str]:
    """What a pickle names that torch does not make by itself. It is parsed, not run."""
    if zipfile.is_zipfile(path):
        return sorted(torch.serialization.get_unsafe_globals_in_checkpoint(path))
    named = set()
    with path.open("rb") as file:
        for _ in range(4):  # torch before 1.6: a number, a version, facts of the system, and then what was saved
            for operation, argument, _ in pickletools.genops(file):
                if operation.name == "GLOBAL":
                    named.add(str(argument).replace(" ", "."))
    return sorted(name for name in named if not _TORCHS.fullmatch(name))


def _tensors(content: Any, path: Path) -> dict[str, Tensor]:
    for _ in range(3):  # one holder may lie in another one
        if isinstance(content, Mapping) and not any(isinstance(value, Tensor) for value in content.values()):
            held = (content[name] for name in _HOLDERS if isinstance(content.get(name), Mapping))
            content = next(held, content)
    found = (
        {str(name): value for name, value in content.items() if isinstance(value, Tensor)}
        if isinstance(content, Mapping)
        else {}
    )
    if not found:
        raise InputError(f"{path} holds no tensors by name, expected the weights of a network")
    check_tensors(found, title=str(path))
    # a state dict of its own: a tensor may be a part of a larger one, which would be written along with it
    return {name: value.detach().clone().contiguous() for name, value in found.items()}
