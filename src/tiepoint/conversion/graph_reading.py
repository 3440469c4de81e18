"""ONNX files of networks, read back into what can be trained again."""

import base64
import binascii
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import onnx
import safetensors
import safetensors.torch
import torch
from google.protobuf.message import DecodeError
from torch import Tensor, nn

from tiepoint.building import read_json, sketch
from tiepoint.checkpoints import Weights, built
from tiepoint.errors import InputError
from tiepoint.models.attention import AttentionMatcher
from tiepoint.models.base import Extractor, Network
from tiepoint.models.blocks import unfused

TRANSPOSED = ".T"  # ends the name of an initialiser that is the transpose of the parameter before it
_IN_GRAPH = {"extractor": "model"}  # names in a graph that are others in a task


def parameters(graph: onnx.GraphProto, names: set[str]) -> dict[str, Tensor]:
    """The initialisers that hold parameters of these names."""
    found = {}
    for tensor in graph.initializer:
        name = tensor.name.removesuffix(TRANSPOSED)
        if name in names:
            content = torch.from_numpy(onnx.numpy_helper.to_array(tensor).copy())
            found[name] = content if tensor.name == name else content.T.contiguous()
    return found


def read_onnx(path: Path, *, allow: Sequence[str] = ()) -> Weights:
    """The networks of a file of `write_onnx` as they were before they were fused, up to rounding.

    Args:
        path: the file.
        allow: as for `read_weights`.

    Raises:
        InputError: it is damaged, of something else, reaches for other files, or does not fit its networks.
    """
    proto = read_proto(path)
    told = {entry.key: entry.value for entry in proto.metadata_props}
    if "class_path" not in told or "init_args" not in told:
        raise InputError(f"{path} does not name the network that it holds, expected a file of `tiepoint convert`")
    if told.get("shape") == "matcher":
        raise InputError(f"{path} holds a matcher alone, expected one of --shape pair or extractor to go on from")
    if told.get("precision", "fp32") != "fp32":
        raise InputError(
            f"{path} holds its numbers as {told['precision'][:20]}, which is for use alone: convert the file that it "
            f"was made of ({told.get('source', '?')[:80]})"
        )
    if "trainable" not in told:
        raise InputError(
            f"{path} was written by tiepoint {told.get('tiepoint', '?')[:20]} without what training needs: convert its "
            "checkpoint again"
        )
    first = "model" if told.get("shape") in ("image", "sweep") else "extractor"
    described: dict[str, dict[str, Any]] = {
        first: {"class_path": told["class_path"], "init_args": _read(told, "init_args", path)}
    }
    if "matcher" in told and told.get("shape") != "extractor":
        described["matcher"] = _read(told, "matcher", path)
    metadata = _read(told, "training", path) if "training" in told else {}
    metadata |= {name: told[name] for name in ("command", "licence") if name in told}
    if "figures" in told:
        metadata["figures"] = _read(told, "figures", path)
    rest = _unpacked(told["trainable"], path)
    state = _trainable(proto.graph, rest, described, path, allow)
    named = {
        _IN_GRAPH.get(name, name): spec | {"state_dict": _part(state[name], name)} for name, spec in described.items()
    }
    others = _read(told, "networks", path) if "networks" in told else {}
    for name, spec in others.items():
        named[name] = (spec if isinstance(spec, dict) else {}) | {"state_dict": _part(rest, f"networks.{name}")}
    return built(named, metadata, title=str(path), allow=allow)


def _part(state: Mapping[str, Tensor], prefix: str) -> dict[str, Tensor]:
    return {name.removeprefix(f"{prefix}."): value for name, value in state.items() if name.startswith(f"{prefix}.")}


def _unpacked(packed: str, path: Path) -> dict[str, Tensor]:
    try:
        return safetensors.torch.load(base64.b64decode(packed, validate=True))
    except (safetensors.SafetensorError, binascii.Error, ValueError) as error:
        raise InputError(f"{path} is damaged: what it needs to be trained again cannot be read") from error


def _trainable(
    graph: onnx.GraphProto,
    rest: Mapping[str, Tensor],
    described: Mapping[str, dict[str, Any]],
    path: Path,
    allow: Sequence[str],
) -> dict[str, dict[str, Tensor]]:
    """The state dict of each network in the graph."""
    kinds: dict[str, type[nn.Module]] = {
        "extractor": Extractor,
        "matcher": AttentionMatcher,
        "model": Network,
    }
    found = {}
    for name, spec in described.items():
        held = {tensor.name: tensor for tensor in graph.initializer if tensor.name.startswith(f"{name}.")}
        count = len(held) + len(rest)
        network = nn.ModuleDict({name: sketch(spec, kinds[name], count=count, title=str(path), allow=allow)})
        try:
            fused = parameters(graph, {key.removesuffix(TRANSPOSED) for key in held})
            own = {key: value for key, value in rest.items() if key.startswith(f"{name}.")}
            found[name] = unfused(network, fused, own)
        except (ValueError, TypeError, KeyError, RuntimeError) as error:
            reason = (str(error).splitlines() or [type(error).__name__])[0][:160]
            raise InputError(f"{path} does not fit the networks that it names: {reason}") from error
    return found


def _read(told: dict[str, str], name: str, path: Path) -> dict[str, Any]:
    return read_json(told[name], title=f"the entry {name} in the metadata of {path}")


def read_proto(path: Path) -> onnx.ModelProto:
    """An ONNX file that holds all its weights itself.

    Raises:
        InputError: it is no such file.
    """
    try:
        proto = onnx.load_model(str(path), load_external_data=False)
    except (DecodeError, ValueError, OSError) as error:
        raise InputError(f"{path} is no ONNX file that can be read: it is damaged or another kind") from error
    if not proto.graph.node:
        raise InputError(f"{path} is no ONNX file that can be read: it holds no graph")
    for tensor in _tensors(proto.graph):
        if tensor.external_data or tensor.data_location == onnx.TensorProto.EXTERNAL:
            places = [entry.value for entry in tensor.external_data if entry.key == "location"]
            raise InputError(
                f"{path} takes {tensor.name[:80]} from another file ({', '.join(places)[:100]}), expected a file that "
                "holds all its weights itself"
            )
    return proto


def _tensors(graph: onnx.GraphProto) -> Iterator[onnx.TensorProto]:
    """Of the graph and of all graphs within it."""
    yield from graph.initializer
    for sparse in graph.sparse_initializer:
        yield from (sparse.values, sparse.indices)
    for node in graph.node:
        for attribute in node.attribute:
            yield from (attribute.t, *attribute.tensors)
            for inner in (attribute.g, *attribute.graphs):
                yield from _tensors(inner)
