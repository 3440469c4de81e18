"""Weight files of torch: .ckpt (Lightning's) and .pt (ours), read without running any code of theirs."""

import importlib
import pickle
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from tiepoint.errors import InputError
from tiepoint.files import atomic_path
from tiepoint.models.base import Extractor, spec_of

_PREFIX = "model."  # of the network's entries in a task's state dict
_MODELS = "tiepoint.models."  # class paths outside of it are never imported


@dataclass(frozen=True)
class Weights:
    """A network with what its file says about it.

    Attributes:
        extractor: the network, in evaluation mode.
        metadata: plain data such as steps and hyperparameters.
    """

    extractor: Extractor
    metadata: dict[str, Any]


def read_weights(path: Path) -> Weights:
    """The network of a .ckpt or .pt file.

    Raises:
        InputError: the file is missing, damaged, of something else, or its network cannot be built.
    """
    content = _read(path)
    if "state_dict" in content and "class_path" in content:
        return Weights(_build(path, content, content["state_dict"]), dict(content.get("metadata", {})))
    hparams = content.get("hyper_parameters", {})
    spec = hparams.get("model") if isinstance(hparams, dict) else None
    if not isinstance(spec, dict) or "class_path" not in spec or "state_dict" not in content:
        raise InputError(f"{path} is not a checkpoint of tiepoint: it does not name the network that it holds")
    state = {k.removeprefix(_PREFIX): v for k, v in content["state_dict"].items() if k.startswith(_PREFIX)}
    data = [state["data_hash"] for state in content.values() if isinstance(state, dict) and "data_hash" in state]
    metadata = {"steps": content.get("global_step"), "epochs": content.get("epoch"), "data_hash": data}
    return Weights(_build(path, spec, state), metadata)


def _read(path: Path) -> dict[str, Any]:
    if not path.is_file():
        raise InputError(f"{path} {'is a folder' if path.is_dir() else 'does not exist'}, expected a weight file")
    try:
        content = torch.load(path, map_location="cpu", weights_only=True)
    except (pickle.UnpicklingError, RuntimeError, EOFError, ValueError, KeyError, OSError) as error:
        raise InputError(f"{path} is no weight file that can be read safely: it is damaged or another kind") from error
    if not isinstance(content, dict):
        raise InputError(f"{path} holds a {type(content).__name__}, expected the weights of a tiepoint network")
    return content


def _build(path: Path, spec: dict[str, Any], state: dict[str, Tensor]) -> Extractor:
    class_path = str(spec["class_path"])
    if not class_path.startswith(_MODELS):
        raise InputError(f"{path} names the class {class_path}, expected one of {_MODELS}*")
    module, _, name = class_path.rpartition(".")
    try:
        cls = getattr(importlib.import_module(module), name)
        if not issubclass(cls, Extractor):
            raise TypeError(f"{class_path} is no extractor")
        extractor: Extractor = cls(**spec.get("init_args", {}))
        extractor.load_state_dict(state)
    except (ImportError, AttributeError, TypeError, RuntimeError) as error:
        reason = str(error).splitlines()[0][:160]
        raise InputError(f"{path} does not fit the network {class_path} of this version: {reason}") from error
    return extractor.eval()


def write_pt(path: Path, weights: Weights) -> None:
    """Write class path, arguments, state dict and metadata; `torch.load(path, weights_only=True)` reads them."""
    state = {name: value.cpu().contiguous() for name, value in weights.extractor.state_dict().items()}
    content = {**spec_of(weights.extractor), "state_dict": state, "metadata": weights.metadata}
    with atomic_path(path) as temporary:
        torch.save(content, temporary)
