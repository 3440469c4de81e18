"""ONNX files of networks: written with what it takes to read them back, which `graph_reading` does."""

import base64
import json
import logging
import time
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
import safetensors.torch
import torch
from torch import Tensor, nn
from torch.export import Dim

from tiepoint import __version__
from tiepoint.checkpoints import Shape, Weights
from tiepoint.conversion.graph_reading import TRANSPOSED, parameters
from tiepoint.models.base import Keypoints
from tiepoint.models.blocks import deployed, remainder
from tiepoint.models.sweep import PLANES, STRIDE
from tiepoint.models.sweep_graph import example_geometry
from tiepoint.models.twoview import FeatureMatches, TwoViewMatches
from tiepoint.runtime import sweep
from tiepoint.runtime.image_graph import INPUT
from tiepoint.runtime.matcher import INPUTS

OPSET = 18  # the first with antialiased Resize and GridSample in every runtime named in the docs
FEATURES = ("keypoints", "descriptors", "mask", "size")  # of an image, what the matcher alone takes
# names of inputs and outputs; networks of single images name their output themselves
SHAPES: dict[Shape, tuple[tuple[str, ...], tuple[str, ...]]] = {
    "image": ((INPUT,), ()),
    "pair": (INPUTS, TwoViewMatches._fields),
    "extractor": (("image", "max_keypoints"), Keypoints._fields),
    "matcher": (tuple(f"{name}{side}" for side in (0, 1) for name in FEATURES), FeatureMatches._fields),
    "sweep": (sweep.INPUTS, sweep.OUTPUTS),
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
        shape: two images to matches, one image to features, the features of two images to matches, one image to maps
            of its size, or two images and how the one sees the other to depth.
        source: further entries of the metadata.
    """
    network = weights.graph(shape)
    used = deployed(network)
    inputs, outputs = SHAPES[shape]
    outputs = (weights.image_network.OUTPUT,) if shape == "image" else outputs
    arguments, dynamic = _example(weights, shape)
    proto = export(used, arguments, dict(zip(inputs, dynamic, strict=True)), outputs)
    _name_parameters(proto.graph, used.state_dict())
    for key, value in (_metadata(weights, network, proto.graph, shape) | dict(source)).items():
        proto.metadata_props.add(key=key, value=value)
    onnx.checker.check_model(proto, full_check=True)
    onnx.save_model(proto, str(path))


def export(
    graph: nn.Module, arguments: tuple[Any, ...], dynamic: Mapping[str, Any], outputs: Sequence[str]
) -> onnx.ModelProto:
    """A graph of `OPSET`, without what the exporter notes about this machine.

    Args:
        graph: for use.
        arguments: an example of its inputs.
        dynamic: by the names of the inputs, which of their sizes are free, as `torch.onnx.export` takes them.
        outputs: their names.
    """
    registration = logging.getLogger("torch.onnx._internal.exporter._registration")
    registration.setLevel(logging.ERROR)  # it says of torchvision, which nothing here needs, that it is missing
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch's own deprecations inside its exporter
        program = torch.onnx.export(
            graph,
            arguments,
            dynamo=True,
            verbose=False,
            external_data=False,
            dynamic_shapes=dict(dynamic),
            input_names=list(dynamic),
            output_names=list(outputs),
            opset_version=OPSET,
        )
    assert program is not None
    return _without_traces(program.model_proto)


def _example(weights: Weights, shape: Shape) -> tuple[tuple[Tensor, ...], tuple[Any, ...]]:
    """Arguments for the exporter, and which of their sizes may change."""
    batch = Dim("batch", min=1, max=64)
    # two and unequal: torch.export specialises sizes that are 1 or the same
    images = torch.zeros((2, 96, 130, 3), dtype=torch.uint8), torch.zeros((2, 110, 150, 3), dtype=torch.uint8)
    if shape == "image":
        network = weights.image_network
        given = torch.zeros((2, 96, 130, network.CHANNELS), dtype=torch.uint8 if network.BYTES else torch.float32)
        return (given,), ({0: batch, 1: _side("height"), 2: _side("width")},)
    if shape == "sweep":
        height, width = (STRIDE * Dim(name, min=2, max=256) for name in ("rows", "columns"))
        moving, planes = {1: height, 2: width}, {1: PLANES * Dim("planes", min=2, max=128)}
        pair = (torch.zeros((1, 96, 160, 3), dtype=torch.uint8) for _ in range(2))
        return (*pair, *example_geometry(12)), (moving, moving, None, None, planes)
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


def _metadata(weights: Weights, network: nn.Module, graph: onnx.GraphProto, shape: Shape) -> dict[str, str]:
    specs = weights.specs()
    others = {name: specs.pop(name) for name in weights.others}
    fused = deployed(network).state_dict()
    held = {name: value for name, value in parameters(graph, set(fused)).items() if torch.equal(value, fused[name])}
    rest = {name: value.contiguous() for name, value in remainder(network, held).items()}
    # networks that are not in the graph travel whole, but with a part that was asked for alone
    whole = shape not in ("extractor", "matcher")
    for name, other in weights.others.items() if whole else ():
        rest |= {f"networks.{name}.{key}": value.contiguous() for key, value in other.state_dict().items()}
    told = dict(weights.metadata)
    stated = {name: str(told.pop(name)) for name in ("command", "licence") if told.get(name)}
    if told.get("figures"):
        stated["figures"] = json.dumps(told.pop("figures"))
    further = {"matcher": json.dumps(specs["matcher"])} if "matcher" in specs else {}
    further |= {"networks": json.dumps(others)} if others and whole else {}
    return {
        "tiepoint": __version__,
        "opset": str(OPSET),
        "shape": shape,
        "form": "fused",  # as few convolutions as give the same answer; for training again see "trainable"
        "class_path": specs["model"]["class_path"],
        "init_args": json.dumps(specs["model"]["init_args"]),
        **further,
        **stated,
        "training": json.dumps(told),
        "trainable": base64.b64encode(safetensors.torch.save(rest)).decode(),
        "written": time.strftime("%Y-%m-%d"),
    }
