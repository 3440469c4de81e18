"""Weight files of torch: .ckpt (Lightning's), .pt and .safetensors (ours), read without running any code of theirs."""

import hashlib
import json
import re
import shlex
import zipfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePath
from typing import Any, Literal

import safetensors
import safetensors.torch
import torch
from torch import Tensor, nn

from tiepoint.building import build, check_plain
from tiepoint.errors import InputError
from tiepoint.files import atomic_path
from tiepoint.models.attention import AttentionMatcher, AttentiveFeatureMatcher, AttentiveTwoViewMatcher
from tiepoint.models.base import Extractor, Network, spec_of
from tiepoint.models.twoview import FeatureMatcher, ImageFeatures, TwoViewMatcher

Shape = Literal["pair", "extractor", "matcher"]
WARM_START = "tiepoint_warm_start"  # in a .ckpt: what is known of the weights that a training is to begin with
_FOLDERS = re.compile(r"[^\s\[\],'\"=]*/(?=[^\s/\[\],'\"=])")  # before a name, in what a command says
_HERE = ("folders", "folder", "num_workers")  # belong to the machine, not to the weights


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
        return self.graph("pair")

    def graph(self, shape: Shape) -> nn.Module:
        """The graph from two images to matches, from one image to features, or from features to matches."""
        if shape == "extractor":
            return ImageFeatures(self.extractor).eval()
        if self.matcher is None:
            return (FeatureMatcher() if shape == "matcher" else TwoViewMatcher(self.extractor)).eval()
        if shape == "matcher":
            return AttentiveFeatureMatcher(self.matcher).eval()
        return AttentiveTwoViewMatcher(self.extractor, self.matcher).eval()

    def specs(self) -> dict[str, dict[str, Any]]:
        """How to build the networks again, by the names that they have in a task: `model` and `matcher`."""
        matcher = {} if self.matcher is None else {"matcher": spec_of(self.matcher)}
        return {"model": spec_of(self.extractor)} | matcher


def read_weights(path: Path, *, allow: Sequence[str] = ()) -> Weights:
    """The networks of a .ckpt, .pt, .safetensors or .onnx file.

    Args:
        path: the file.
        allow: packages beside tiepoint and kornia whose classes may be imported.

    Raises:
        InputError: the file is missing, damaged, of something else, or its networks cannot be built.
    """
    if not path.is_file():
        raise InputError(f"{path} {'is a folder' if path.is_dir() else 'does not exist'}, expected a weight file")
    if path.suffix == ".onnx":
        from tiepoint.graphs import read_onnx  # here: what reads a checkpoint does not wait for onnx

        return read_onnx(path, allow=allow)
    named, metadata = _of_safetensors(path) if path.suffix == ".safetensors" else _of_torch(path)
    if "model" not in named:
        raise InputError(f"{path} is not a checkpoint of tiepoint: it does not name the network that it holds")
    check_plain(metadata, title=f"what {path} tells of its training")
    built = build(named["model"], Extractor, title=str(path), allow=allow)
    matcher = None
    if "matcher" in named:
        matcher = build(named["matcher"], AttentionMatcher, title=str(path), allow=allow)
    return Weights(built, metadata, matcher)


def sha256(path: Path) -> str:
    """Of the content of a file."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _of_torch(path: Path) -> tuple[dict[str, dict[str, Any]], dict[str, Any]]:
    content = _load(path)
    if "state_dict" in content and "class_path" in content:
        named = {"model": content} | ({"matcher": content["matcher"]} if content.get("matcher") else {})
        metadata = content.get("metadata", {})
    else:
        named, metadata = _of_task(content), content.get(WARM_START) or _of_training(content)
    if not all(isinstance(each, dict) for each in (*named.values(), metadata)):
        raise InputError(f"{path} is not a checkpoint of tiepoint: it does not describe its networks")
    return named, dict(metadata)


def _of_task(content: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
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


def _part(state: Mapping[Any, Any], prefix: str) -> dict[str, Any]:
    return {str(name).removeprefix(prefix): value for name, value in state.items() if str(name).startswith(prefix)}


def _of_training(content: dict[str, Any]) -> dict[str, Any]:
    """What a training tells of itself, without the places of files on its machine."""
    states = [state for state in content.values() if isinstance(state, dict)]
    callbacks = content.get("callbacks")
    for state in callbacks.values() if isinstance(callbacks, dict) else ():
        states += [state] if isinstance(state, dict) else []
    told: dict[str, Any] = {
        "steps": content.get("global_step"),
        "epochs": content.get("epoch"),
        "data_hash": [state["data_hash"] for state in states if "data_hash" in state],
    }
    scores = {state["monitor"]: state.get("current_score") for state in states if state.get("monitor")}
    told["figures"] = {name: float(score) for name, score in scores.items() if isinstance(score, Tensor)}
    settings = dict(content.get("datamodule_hyper_parameters") or {})
    parts = {
        "task": (content.get("tiepoint_task"), dict(content.get("hyper_parameters") or {})),
        "data": (settings.pop("_class_path", None), settings),
    }
    for name, (class_path, arguments) in parts.items():
        if class_path:
            kept = {key: value for key, value in arguments.items() if key not in ("model", "matcher", *_HERE)}
            kept.pop("_instantiator", None)
            told[name] = {"class_path": class_path, "init_args": _without_places(kept)}
    if isinstance(command := content.get("tiepoint_command"), list):
        told["command"] = " ".join(["tiepoint", *(shlex.quote(_FOLDERS.sub("", str(part))) for part in command)])
    return told


def _without_places(value: Any) -> Any:
    """Plain data in which paths are names of files alone."""
    if isinstance(value, dict):
        return {key: _without_places(part) for key, part in value.items() if key not in _HERE}
    if isinstance(value, list | tuple):
        return [_without_places(part) for part in value]
    return PurePath(value).name if isinstance(value, str) else value


def _load(path: Path) -> dict[str, Any]:
    if zipfile.is_zipfile(path):
        try:
            with zipfile.ZipFile(path) as archive:
                # torch packs nothing: what unpacks to more than the file is none of its
                packed = sum(member.file_size for member in archive.infolist()) > path.stat().st_size
        except (zipfile.BadZipFile, ValueError, NotImplementedError) as error:
            raise InputError(f"{path} is no weight file that can be read safely: it is damaged") from error
        if packed:
            raise InputError(f"{path} unpacks to more than its size, expected a weight file as torch writes it")
    try:
        content = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # whatever a damaged file or one of another kind makes torch raise
        raise InputError(f"{path} is no weight file that can be read safely: it is damaged or another kind") from error
    if not isinstance(content, dict):
        raise InputError(f"{path} holds a {type(content).__name__}, expected the weights of a tiepoint network")
    return content


def _of_safetensors(path: Path) -> tuple[dict[str, dict[str, Any]], dict[str, Any]]:
    try:
        with safetensors.safe_open(path, framework="pt") as file:
            told = file.metadata() or {}
            state = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118  it is no dictionary
    except (safetensors.SafetensorError, OSError) as error:
        raise InputError(f"{path} is no .safetensors file that can be read: {str(error)[:160]}") from error
    if "tiepoint" not in told:
        raise InputError(f"{path} is not a checkpoint of tiepoint: it does not name the network that it holds")
    described = read_json(told["tiepoint"], title=f"the metadata of {path}")
    named = {
        name: {**spec, "state_dict": _part(state, f"{part}.")}
        for name, part in (("model", "extractor"), ("matcher", "matcher"))
        if isinstance(spec := described.get(name), dict)
    }
    metadata = described.get("metadata")
    return named, metadata if isinstance(metadata, dict) else {}


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


def write_pt(path: Path, weights: Weights) -> None:
    """Write class path, arguments, state dict and metadata; `torch.load(path, weights_only=True)` reads them.

    A matcher stands as an entry of its own, of the same form.
    """
    content = _described(weights.extractor) | {"metadata": weights.metadata}
    if weights.matcher is not None:
        content["matcher"] = _described(weights.matcher)
    with atomic_path(path) as temporary:
        torch.save(content, temporary)


def write_safetensors(path: Path, weights: Weights) -> None:
    """Write the tensors as `extractor.NAME` and `matcher.NAME`; what describes them is JSON in the entry `tiepoint`."""
    described = json.dumps(weights.specs() | {"metadata": weights.metadata})
    state = {
        f"{part}.{name}": value.contiguous()
        for part, network in (("extractor", weights.extractor), ("matcher", weights.matcher))
        if network is not None
        for name, value in network.state_dict().items()
    }
    with atomic_path(path) as temporary:
        safetensors.torch.save_file(state, temporary, metadata={"tiepoint": described})


def _described(network: Network) -> dict[str, Any]:
    state = {name: value.cpu().contiguous() for name, value in network.state_dict().items()}
    return {**spec_of(network), "state_dict": state}
