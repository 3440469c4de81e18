"""Weight files of torch: .ckpt (Lightning's), .pt and .safetensors (ours), read without running any code of theirs."""

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import safetensors
import safetensors.torch
import torch
from torch import nn

from tiepoint.building import build, check_archive, check_plain, read_json
from tiepoint.conversion.provenance import told_by
from tiepoint.errors import InputError
from tiepoint.files import atomic_path
from tiepoint.models.attention import AttentionMatcher, AttentiveFeatureMatcher, AttentiveTwoViewMatcher
from tiepoint.models.base import Extractor, Network, spec_of
from tiepoint.models.image import ImageMaps, ImageNetwork
from tiepoint.models.sweep import PlaneSweep
from tiepoint.models.sweep_graph import SweepPair
from tiepoint.models.twoview import FeatureMatcher, ImageFeatures, TwoViewMatcher

Shape = Literal["pair", "extractor", "matcher", "image", "sweep"]
WARM_START = "tiepoint_warm_start"  # in a .ckpt: what is known of the weights that a training is to begin with


@dataclass(frozen=True)
class Weights:
    """Networks with what their file says about them, all in evaluation mode.

    Attributes:
        model: the first network of the task; an extractor where the task is to match.
        metadata: plain data such as steps and hyperparameters.
        matcher: assigns keypoints to each other; None for mutual nearest neighbours.
        others: further networks of the task, by the names of its arguments.
    """

    model: Network
    metadata: dict[str, Any]
    matcher: AttentionMatcher | None = None
    others: Mapping[str, Network] = field(default_factory=dict)

    @property
    def extractor(self) -> Extractor:
        """The model, which finds and describes keypoints.

        Raises:
            InputError: it does something else.
        """
        if isinstance(self.model, Extractor):
            return self.model
        kind = type(self.model).__name__
        raise InputError(
            f"the weights are those of {kind}, which finds no keypoints: expected an extractor to match with, or "
            "to make an ONNX graph of"
        )

    @property
    def image_network(self) -> ImageNetwork:
        """The model, which makes maps of single images.

        Raises:
            InputError: it does something else.
        """
        if isinstance(self.model, ImageNetwork):
            return self.model
        raise InputError(f"the weights are those of {type(self.model).__name__}, which makes no maps of single images")

    @property
    def sweep(self) -> PlaneSweep:
        """The model, which sweeps planes through two images.

        Raises:
            InputError: it does something else.
        """
        if isinstance(self.model, PlaneSweep):
            return self.model
        raise InputError(f"the weights are those of {type(self.model).__name__}, which sweeps no planes")

    def two_view(self) -> nn.Module:
        """The graph from two images to `TwoViewMatches`, in evaluation mode."""
        return self.graph("pair")

    def graph(self, shape: Shape) -> nn.Module:
        """The graph: pair to matches, image to features, features to matches, image to maps, or pair to depth."""
        if shape == "sweep":
            return SweepPair(self.sweep).eval()
        if shape == "image":
            return ImageMaps(self.image_network).eval()
        if shape == "extractor":
            return ImageFeatures(self.extractor).eval()
        if self.matcher is None:
            return (FeatureMatcher() if shape == "matcher" else TwoViewMatcher(self.extractor)).eval()
        if shape == "matcher":
            return AttentiveFeatureMatcher(self.matcher).eval()
        return AttentiveTwoViewMatcher(self.extractor, self.matcher).eval()

    def networks(self) -> dict[str, Network]:
        """All of them, by the names that they have in a task."""
        return {"model": self.model, **({"matcher": self.matcher} if self.matcher else {}), **self.others}

    def specs(self) -> dict[str, dict[str, Any]]:
        """How to build the networks again, by the names that they have in a task."""
        return {name: spec_of(network) for name, network in self.networks().items()}


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
        from tiepoint.conversion.graph_reading import read_onnx  # here: what reads a checkpoint does not wait for onnx

        return read_onnx(path, allow=allow)
    named, metadata = _of_safetensors(path) if path.suffix == ".safetensors" else _of_torch(path)
    if "model" not in named:
        raise InputError(f"{path} is not a checkpoint of tiepoint: it does not name the network that it holds")
    class_path = str(named["model"].get("class_path"))
    if class_path.startswith("kornia."):
        raise InputError(
            f"{path} holds {class_path[:100]}, which one of the field's matchers takes: `tiepoint match --model NAME "
            f"--weights {path}`; `tiepoint models` lists them"
        )
    check_plain(metadata, title=f"what {path} tells of its training")
    return built(named, metadata, title=str(path), allow=allow)


def built(
    named: Mapping[str, Mapping[str, Any]], metadata: dict[str, Any], *, title: str, allow: Sequence[str] = ()
) -> Weights:
    """Networks from their descriptions.

    Args:
        named: class path, arguments and state dict of each, by the names that they have in a task.
        metadata: what is told of their training.
        title: what an error message calls the file.
        allow: as for `read_weights`.

    Raises:
        InputError: a network cannot be built, or its weights are others.
    """
    kinds: dict[str, type[Network]] = {"matcher": AttentionMatcher}
    networks = {name: build(spec, kinds.get(name, Network), title=title, allow=allow) for name, spec in named.items()}
    model, matcher = networks.pop("model"), networks.pop("matcher", None)
    assert matcher is None or isinstance(matcher, AttentionMatcher)
    return Weights(model, metadata, matcher, networks)


def sha256(path: Path) -> str:
    """Of the content of a file."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _of_torch(path: Path) -> tuple[dict[str, dict[str, Any]], dict[str, Any]]:
    content = _load(path)
    if "state_dict" in content and "class_path" in content:
        others = content.get("networks", {})
        if not isinstance(others, dict):
            raise InputError(f"{path} is not a checkpoint of tiepoint: it does not describe its networks")
        named = {"model": content} | ({"matcher": content["matcher"]} if content.get("matcher") else {}) | others
        metadata = content.get("metadata", {})
    else:
        named = _of_task(content)
        metadata = content.get(WARM_START) or told_by(content, networks=named, title=str(path))
    if not all(isinstance(each, dict) for each in (*named.values(), metadata)):
        raise InputError(f"{path} is not a checkpoint of tiepoint: it does not describe its networks")
    return named, dict(metadata)


def _of_task(content: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    """The networks that a task's hyperparameters describe, each with its part of the task's state dict."""
    hparams, state = content.get("hyper_parameters"), content.get("state_dict")
    if not isinstance(hparams, dict) or not isinstance(state, dict):
        return {}
    parts = {str(name): _part(state, f"{name}.") for name in hparams}
    return {
        name: {**spec, "state_dict": parts[name]}
        for name, spec in hparams.items()
        # a task may take other classes too: what has weights is a network
        if isinstance(spec, dict) and "class_path" in spec and (parts[name] or name in ("model", "matcher"))
    }


def _part(state: Mapping[Any, Any], prefix: str) -> dict[str, Any]:
    return {str(name).removeprefix(prefix): value for name, value in state.items() if str(name).startswith(prefix)}


def _load(path: Path) -> dict[str, Any]:
    check_archive(path)
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
    others = described.get("networks", {})
    places = {"model": "extractor", "matcher": "matcher"} | {name: f"networks.{name}" for name in others}
    specs = {name: described.get(name) for name in ("model", "matcher")} | dict(others)
    named = {
        name: {**spec, "state_dict": _part(state, f"{places[name]}.")}
        for name, spec in specs.items()
        if isinstance(spec, dict)
    }
    metadata = described.get("metadata")
    return named, metadata if isinstance(metadata, dict) else {}


def write_pt(path: Path, weights: Weights) -> None:
    """Write class path, arguments, state dict and metadata; `torch.load(path, weights_only=True)` reads them.

    A matcher stands as an entry of its own, of the same form, and further networks under `networks`.
    """
    named = {name: _described(network) for name, network in weights.networks().items()}
    content = named.pop("model") | {"metadata": weights.metadata}
    if "matcher" in named:
        content["matcher"] = named.pop("matcher")
    if named:
        content["networks"] = named
    with atomic_path(path) as temporary:
        torch.save(content, temporary)


def write_safetensors(path: Path, weights: Weights) -> None:
    """Write the tensors as `extractor.NAME`, `matcher.NAME` and `networks.NETWORK.NAME`.

    What describes them is JSON in the entry `tiepoint`.
    """
    specs = weights.specs()
    told = {name: specs.pop(name) for name in ("model", "matcher") if name in specs} | {"metadata": weights.metadata}
    described = json.dumps(told | ({"networks": specs} if specs else {}))
    places = {"model": "extractor", "matcher": "matcher"}
    state = {
        f"{places.get(part, f'networks.{part}')}.{name}": value.contiguous()
        for part, network in weights.networks().items()
        for name, value in network.state_dict().items()
    }
    with atomic_path(path) as temporary:
        safetensors.torch.save_file(state, temporary, metadata={"tiepoint": described})


def _described(network: Network) -> dict[str, Any]:
    state = {name: value.cpu().contiguous() for name, value in network.state_dict().items()}
    return {**spec_of(network), "state_dict": state}
