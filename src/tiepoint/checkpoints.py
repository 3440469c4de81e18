"""Weight files of torch: .ckpt (Lightning's) and .pt (ours), read without running any code of theirs."""

import importlib
import pickle
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import torch
from torch import nn

from tiepoint.errors import InputError
from tiepoint.files import atomic_path
from tiepoint.models.attention import AttentionMatcher, AttentiveTwoViewMatcher
from tiepoint.models.base import Extractor, Network, spec_of
from tiepoint.models.twoview import TwoViewMatcher

_MODELS = "tiepoint.models."  # class paths outside of it are never imported
_Built = TypeVar("_Built", bound=Network)


@dataclass(frozen=True)
class Weights:
    """Networks with what their file says about them.

    Attributes:
        extractor: finds and describes keypoints; in evaluation mode.
        metadata: plain data such as steps and hyperparameters.
        matcher: assigns them to each other, in evaluation mode; None for mutual nearest neighbours.
    """

    extractor: Extractor
    metadata: dict[str, Any]
    matcher: AttentionMatcher | None = None

    def two_view(self) -> nn.Module:
        """The graph from two images to `TwoViewMatches`, in evaluation mode."""
        if self.matcher is None:
            return TwoViewMatcher(self.extractor).eval()
        return AttentiveTwoViewMatcher(self.extractor, self.matcher).eval()


def read_weights(path: Path) -> Weights:
    """The networks of a .ckpt or .pt file.

    Raises:
        InputError: the file is missing, damaged, of something else, or its networks cannot be built.
    """
    content = _read(path)
    if "state_dict" in content and "class_path" in content:
        named = {"model": content} | ({"matcher": content["matcher"]} if content.get("matcher") else {})
        metadata = dict(content.get("metadata", {}))
    else:
        named, metadata = _of_task(content), _of_training(content)
    if "model" not in named:
        raise InputError(f"{path} is not a checkpoint of tiepoint: it does not name the network that it holds")
    matcher = _build(path, named["matcher"], AttentionMatcher) if "matcher" in named else None
    return Weights(_build(path, named["model"], Extractor), metadata, matcher)


def _of_task(content: dict[str, Any]) -> dict[str, dict[str, Any]]:
    """The networks that a task's hyperparameters describe, each with its part of the task's state dict."""
    hparams, state = content.get("hyper_parameters"), content.get("state_dict")
    if not isinstance(hparams, dict) or not isinstance(state, dict):
        return {}
    specs = {name: hparams.get(name) for name in ("model", "matcher")}
    return {
        name: spec | {"state_dict": _part(state, f"{name}.")}
        for name, spec in specs.items()
        if isinstance(spec, dict) and "class_path" in spec
    }


def _part(state: dict[str, Any], prefix: str) -> dict[str, Any]:
    return {name.removeprefix(prefix): value for name, value in state.items() if name.startswith(prefix)}


def _of_training(content: dict[str, Any]) -> dict[str, Any]:
    data = [state["data_hash"] for state in content.values() if isinstance(state, dict) and "data_hash" in state]
    return {"steps": content.get("global_step"), "epochs": content.get("epoch"), "data_hash": data}


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


def _build(path: Path, described: dict[str, Any], kind: type[_Built]) -> _Built:
    """A network from its class path, arguments and state dict."""
    class_path = str(described["class_path"])
    if not class_path.startswith(_MODELS):
        raise InputError(f"{path} names the class {class_path}, expected one of {_MODELS}*")
    module, _, name = class_path.rpartition(".")
    try:
        cls = getattr(importlib.import_module(module), name)
        if not issubclass(cls, kind):
            raise TypeError(f"{class_path} is no {kind.__name__}")
        network: _Built = cls(**described.get("init_args", {}))
        network.load_state_dict(described["state_dict"])
    except (ImportError, AttributeError, KeyError, TypeError, ValueError, RuntimeError) as error:
        reason = str(error).splitlines()[0][:160]
        raise InputError(f"{path} does not fit the network {class_path} of this version: {reason}") from error
    return network.eval()


def write_pt(path: Path, weights: Weights) -> None:
    """Write class path, arguments, state dict and metadata; `torch.load(path, weights_only=True)` reads them.

    A matcher stands as an entry of its own, of the same form.
    """
    content = _described(weights.extractor) | {"metadata": weights.metadata}
    if weights.matcher is not None:
        content["matcher"] = _described(weights.matcher)
    with atomic_path(path) as temporary:
        torch.save(content, temporary)


def _described(network: Network) -> dict[str, Any]:
    state = {name: value.cpu().contiguous() for name, value in network.state_dict().items()}
    return {**spec_of(network), "state_dict": state}
