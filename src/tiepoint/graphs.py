"""ONNX files of networks: written, and read back into what can be trained again."""

import base64
import binascii
import json
import logging
import time
import warnings
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
import safetensors
import safetensors.torch
import torch
from google.protobuf.message import DecodeError
from torch import Tensor, nn
from torch.export import Dim

from tiepoint import __version__
from tiepoint.building import build, sketch
from tiepoint.checkpoints import Shape, Weights, read_json
from tiepoint.errors import InputError
from tiepoint.models.attention import AttentionMatcher
from tiepoint.models.base import Extractor, Keypoints
from tiepoint.models.blocks import deployed, remainder, unfused
from tiepoint.models.twoview import FeatureMatches, TwoViewMatches
from tiepoint.runtime.matcher import INPUTS

OPSET = 18  # the first with antialiased Resize and GridSample in every runtime named in the docs
FEATURES = ("keypoints", "descriptors", "mask", "size")  # of an image, what the matcher alone takes
TRANSPOSED = ".T"  # ends the name of an initialiser that is the transpose of the parameter before it
_SHAPES: dict[Shape, tuple[tuple[str, ...], tuple[str, ...]]] = {
    "pair": (INPUTS, TwoViewMatches._fields),
    "extractor": (("image", "max_keypoints"), Keypoints._fields),
    "matcher": (tuple(f"{name}{side}" for side in (0, 1) for name in FEATURES), FeatureMatches._fields),
}


def write_onnx(
    path: Path, weights: Weights, *, shape: Shape = "pair", source: Mapping[str, str] = MappingProxyType({})
) -> None:
    """Export with dynamic sizes, batch and number of keypoints.

    Names of inputs and outputs are those of the networks' `forward` and of what it returns. How to build the
    networks again stands in the metadata, with what fusing has taken from them.

    Args:
        path: the file to write.
        weights: the networks.
        shape: two images to matches, one image to features, or the features of two images to matches.
        source: further entries of the metadata.
    """
    network = weights.graph(shape)
    used = deployed(network)
    inputs, outputs = _SHAPES[shape]
    arguments, dynamic = _example(weights, shape)
    registration = logging.getLogger("torch.onnx._internal.exporter._registration")
    registration.setLevel(logging.ERROR)  # it says of torchvision, which nothing here needs, that it is missing
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch's own deprecations inside its exporter
        program = torch.onnx.export(
            used,
            arguments,
            dynamo=True,
            verbose=False,
            external_data=False,
            dynamic_shapes=dict(zip(inputs, dynamic, strict=True)),
            input_names=inputs,
            output_names=outputs,
            opset_version=OPSET,
        )
    assert program is not None
    proto = _without_traces(program.model_proto)
    _name_parameters(proto.graph, used.state_dict())
    for key, value in (_metadata(weights, network, proto.graph, shape) | dict(source)).items():
        proto.metadata_props.add(key=key, value=value)
    onnx.checker.check_model(proto, full_check=True)
    onnx.save_model(proto, str(path))


def _example(weights: Weights, shape: Shape) -> tuple[tuple[Tensor, ...], tuple[Any, ...]]:
    """Arguments for the exporter, and which of their sizes may change."""
    batch = Dim("batch", min=1, max=64)
    # two and unequal: torch.export specialises sizes that are 1 or the same
    images = torch.zeros((2, 96, 130, 3), dtype=torch.uint8), torch.zeros((2, 110, 150, 3), dtype=torch.uint8)
    if shape != "matcher":
        count = 2 if shape == "pair" else 1
        names = [str(index) if shape == "pair" else "" for index in range(count)]
        sides = tuple({0: batch, 1: _side(f"height{name}"), 2: _side(f"width{name}")} for name in names)
        return (*images[:count], torch.tensor(64)), (*sides, None)
    with torch.no_grad():
        length = weights.extractor(torch.zeros(1, 1, 64, 64), 1).descriptors.shape[2]
    keypoints = Dim("keypoints", min=1, max=65536)
    mask = torch.ones((2, 70), dtype=torch.bool)
    features = torch.zeros(2, 70, 2), torch.zeros(2, 70, length), mask, torch.tensor(2 * [[96, 130]])
    moving = {0: batch, 1: keypoints}
    return (*features, *(each.clone() for each in features)), 2 * (moving, moving, moving, {0: batch})


def _side(name: str) -> Dim:
    return Dim(name, min=1, max=16384)


def _without_traces(proto: onnx.ModelProto) -> onnx.ModelProto:
    """Drop the exporter's notes on every node: a third of the file, and they hold paths of the machine."""
    graph = proto.graph
    for part in (graph, *graph.node, *graph.value_info, *graph.input, *graph.output, *graph.initializer):
        part.ClearField("metadata_props")
        part.ClearField("doc_string")
    return proto


def _name_parameters(graph: onnx.GraphProto, state: dict[str, Tensor]) -> None:
    """Give initialisers the names of the parameters that they hold; the exporter turns kernels of products over."""
    own = {tensor.name for tensor in graph.initializer}
    missing = {name: value.numpy() for name, value in state.items() if name not in own}
    renamed: dict[str, str] = {}
    for tensor in graph.initializer:
        if tensor.name in state or len(tensor.dims) != 2:
            continue
        content = onnx.numpy_helper.to_array(tensor)
        for name, value in missing.items():
            if _same(content, value) or (value.ndim == 2 and _same(content, value.T)):
                renamed[tensor.name] = name if _same(content, value) else name + TRANSPOSED
                tensor.name = renamed[tensor.name]
                del missing[name]
                break
    for node in graph.node:
        node.input[:] = [renamed.get(name, name) for name in node.input]


def _same(content: npt.NDArray[Any], value: npt.NDArray[Any]) -> bool:
    return content.dtype == value.dtype and np.array_equal(content, value)


def _parameters(graph: onnx.GraphProto, names: set[str]) -> dict[str, Tensor]:
    """The initialisers that hold parameters of these names."""
    found = {}
    for tensor in graph.initializer:
        name = tensor.name.removesuffix(TRANSPOSED)
        if name in names:
            content = torch.from_numpy(onnx.numpy_helper.to_array(tensor).copy())
            found[name] = content if tensor.name == name else content.T.contiguous()
    return found


def _metadata(weights: Weights, network: nn.Module, graph: onnx.GraphProto, shape: Shape) -> dict[str, str]:
    specs = weights.specs()
    fused = deployed(network).state_dict()
    held = {name: value for name, value in _parameters(graph, set(fused)).items() if torch.equal(value, fused[name])}
    rest = {name: value.contiguous() for name, value in remainder(network, held).items()}
    told = dict(weights.metadata)
    stated = {name: str(told.pop(name)) for name in ("command", "licence") if told.get(name)}
    if told.get("figures"):
        stated["figures"] = json.dumps(told.pop("figures"))
    matcher = {"matcher": json.dumps(specs["matcher"])} if "matcher" in specs else {}
    return {
        "tiepoint": __version__,
        "opset": str(OPSET),
        "shape": shape,
        "form": "fused",  # as few convolutions as give the same answer; for training again see "trainable"
        "class_path": specs["model"]["class_path"],
        "init_args": json.dumps(specs["model"]["init_args"]),
        **matcher,
        **stated,
        "training": json.dumps(told),
        "trainable": base64.b64encode(safetensors.torch.save(rest)).decode(),
        "written": time.strftime("%Y-%m-%d"),
    }


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
    if "trainable" not in told:
        raise InputError(
            f"{path} was written by tiepoint {told.get('tiepoint', '?')[:20]} without what training needs: convert its "
            "checkpoint again"
        )
    described: dict[str, dict[str, Any]] = {
        "extractor": {"class_path": told["class_path"], "init_args": _read(told, "init_args", path)}
    }
    if "matcher" in told and told.get("shape") != "extractor":
        described["matcher"] = _read(told, "matcher", path)
    metadata = _read(told, "training", path) if "training" in told else {}
    metadata |= {name: told[name] for name in ("command", "licence") if name in told}
    if "figures" in told:
        metadata["figures"] = _read(told, "figures", path)
    state = _trainable(proto.graph, told["trainable"], described, path, allow)
    parts = {
        name: spec | {"state_dict": {key.removeprefix(f"{name}."): value for key, value in state[name].items()}}
        for name, spec in described.items()
    }
    matcher = None
    if "matcher" in parts:
        matcher = build(parts["matcher"], AttentionMatcher, title=str(path), allow=allow)
    return Weights(build(parts["extractor"], Extractor, title=str(path), allow=allow), metadata, matcher)


def _trainable(
    graph: onnx.GraphProto, packed: str, described: dict[str, dict[str, Any]], path: Path, allow: Sequence[str]
) -> dict[str, dict[str, Tensor]]:
    """The state dict of each network."""
    try:
        rest = safetensors.torch.load(base64.b64decode(packed, validate=True))
    except (safetensors.SafetensorError, binascii.Error, ValueError) as error:
        raise InputError(f"{path} is damaged: what it needs to be trained again cannot be read") from error
    kinds: dict[str, type[nn.Module]] = {"extractor": Extractor, "matcher": AttentionMatcher}
    found = {}
    for name, spec in described.items():
        held = {tensor.name: tensor for tensor in graph.initializer if tensor.name.startswith(f"{name}.")}
        count = len(held) + len(rest)
        network = nn.ModuleDict({name: sketch(spec, kinds[name], count=count, title=str(path), allow=allow)})
        try:
            fused = _parameters(graph, {key.removesuffix(TRANSPOSED) for key in held})
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
