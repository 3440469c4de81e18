"""The same ONNX graph with smaller numbers in its convolutions: float16, or integers of 8 bits.

Everything else stays in float32: the mean over all pixels of an image loses its digits in half precision, which also
tells no places beyond pixel 2048 from their neighbours; and what chooses keypoints and matches costs little.
"""

import logging
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np
import onnx
from onnx import TensorProto
from onnxruntime.quantization import CalibrationDataReader, CalibrationMethod, QuantFormat, QuantType, quantize_static
from onnxruntime.transformers.float16 import convert_float_to_float16
from onnxruntime.transformers.onnx_model import OnnxModel

from tiepoint.errors import WorkError
from tiepoint.images import UInt8

Precision = Literal["fp32", "fp16", "int8"]
BETWEEN = ("Relu", "Add", "Resize")  # of what lies between convolutions, what has a form for integers that gains time
CALIBRATION_KEYPOINTS = 64  # convolutions do not depend on it


def write_smaller(path: Path, precision: Precision, images: Sequence[UInt8]) -> None:
    """Replace an ONNX file by its smaller form, which is for use alone.

    Args:
        path: a file of `write_onnx`.
        precision: "fp16" or "int8".
        images: (H, W, 3) each, what int8 is calibrated on.

    Raises:
        WorkError: ONNX Runtime cannot do it.
    """
    proto = onnx.load_model(str(path))
    told = {entry.key: entry.value for entry in proto.metadata_props if entry.key != "trainable"}
    smaller = to_fp16(proto) if precision == "fp16" else to_int8(proto, images)
    del smaller.metadata_props[:]
    for key, value in (told | {"precision": precision}).items():
        smaller.metadata_props.add(key=key, value=value)
    onnx.checker.check_model(smaller, full_check=True)
    onnx.save_model(smaller, str(path))


def to_fp16(proto: onnx.ModelProto) -> onnx.ModelProto:
    """Convolutions, and what lies between them, in float16; inputs and outputs as they were.

    Args:
        proto: a graph of `write_onnx`; it is used up.
    """
    kept = {node.name for node in _dense(proto.graph)}
    others = [node.name for node in proto.graph.node if node.name not in kept]
    converted: onnx.ModelProto = convert_float_to_float16(
        proto, keep_io_types=True, op_block_list=[], node_block_list=others
    )
    _without_detours(converted.graph)
    OnnxModel.graph_topological_sort(converted.graph)
    del converted.graph.value_info[:]  # it tells of values that are gone
    return converted


def to_int8(proto: onnx.ModelProto, images: Sequence[UInt8]) -> onnx.ModelProto:
    """Convolutions in int8: a scale for each channel of the weights, one for each map, out of what the images give.

    The scale of a map spans what is seen on the images. The first and the last convolutions stay in float32: they see
    the image and tell the odds, and have few weights. Activations are unsigned and weights signed, which is what
    processors multiply fastest.

    Args:
        proto: a graph from images, of `write_onnx`.
        images: (H, W, 3) each, as those that it is going to be used on.

    Raises:
        WorkError: ONNX Runtime cannot do it.
    """
    dense = _dense(proto.graph)
    outer = {node.name for node in (*_first(proto.graph), *_last(proto.graph))}
    chosen = [node.name for node in dense if node.op_type in ("Conv", *BETWEEN) and node.name not in outer]
    with tempfile.TemporaryDirectory() as folder:
        source, target = Path(folder, "float.onnx"), Path(folder, "int8.onnx")
        onnx.save_model(onnx.shape_inference.infer_shapes(proto), str(source))
        root = logging.getLogger()
        level = root.level
        root.setLevel(logging.ERROR)  # it recommends a preparation that has been done
        try:
            quantize_static(
                str(source),
                str(target),
                _Reader(proto.graph, images),
                quant_format=QuantFormat.QDQ,
                op_types_to_quantize=["Conv", *BETWEEN],
                nodes_to_quantize=chosen,
                per_channel=True,
                activation_type=QuantType.QUInt8,
                weight_type=QuantType.QInt8,
                calibrate_method=CalibrationMethod.MinMax,
            )
        except Exception as error:  # ONNX Runtime's exceptions share no base but Exception
            raise WorkError(f"--precision: ONNX Runtime cannot quantise the graph: {str(error)[:160]}") from error
        finally:
            root.setLevel(level)
        return onnx.load_model(str(target))


class _Reader(CalibrationDataReader):  # type: ignore[misc]
    """Feeds each image, to every input that takes one."""

    def __init__(self, graph: onnx.GraphProto, images: Sequence[UInt8]) -> None:
        self._inputs = [each.name for each in graph.input if each.name.startswith("image")]
        self._images: Iterator[UInt8] = iter(images)

    def get_next(self) -> dict[str, Any] | None:
        image = next(self._images, None)
        if image is None:
            return None
        # both sides of a pair graph see the same, or equal layers would get other scales
        count = np.array(CALIBRATION_KEYPOINTS, np.int64)
        return dict.fromkeys(self._inputs, image[None]) | {"max_keypoints": count}


def _dense(graph: onnx.GraphProto) -> list[onnx.NodeProto]:
    """Convolutions, what lies on a way from one to another, and the activations after the last ones."""
    before, after = _reach(graph, forward=True), _reach(graph, forward=False)
    return [
        node
        for node in graph.node
        if node.op_type == "Conv" or (node.name in before and (node.name in after or node.op_type == "Relu"))
    ]


def _first(graph: onnx.GraphProto) -> list[onnx.NodeProto]:
    """The convolutions with no other before them."""
    after_another = _reach(graph, forward=True)
    return [node for node in graph.node if node.op_type == "Conv" and node.name not in after_another]


def _last(graph: onnx.GraphProto) -> list[onnx.NodeProto]:
    """The convolutions with no other after them."""
    before_another = _reach(graph, forward=False)
    return [node for node in graph.node if node.op_type == "Conv" and node.name not in before_another]


def _reach(graph: onnx.GraphProto, *, forward: bool) -> set[str]:
    """Names of the nodes that come after some convolution, or before one; the nodes of a graph are in order."""
    reached: set[str] = set()
    touched: set[str] = set()  # values
    for node in graph.node if forward else reversed(graph.node):
        given, made = (node.input, node.output) if forward else (node.output, node.input)
        hit = any(value in touched for value in given)
        if hit:
            reached.add(node.name)
        if hit or node.op_type == "Conv":
            touched.update(made)
    return reached


def _without_detours(graph: onnx.GraphProto) -> None:
    """Take out the casts from float32 to float16 and straight back, which round what was to stay as it is."""
    made_by = {value: node for node in graph.node for value in node.output}
    instead: dict[str, str] = {}
    for node in graph.node:
        source = made_by.get(node.input[0]) if _casts_to(node, TensorProto.FLOAT) else None
        if source is not None and _casts_to(source, TensorProto.FLOAT16):
            instead[node.output[0]] = source.input[0]
    outputs = {each.name for each in graph.output}
    # an output keeps its name: what is cast into it takes that name itself
    named = {origin: name for name, origin in instead.items() if name in outputs}
    kept = [node for node in graph.node if not any(name in instead for name in node.output)]
    for node in kept:
        node.input[:] = [named.get(origin := instead.get(name, name), origin) for name in node.input]
        node.output[:] = [named.get(name, name) for name in node.output]
    used = outputs | {name for node in kept for name in node.input}
    kept = [node for node in kept if any(name in used for name in node.output)]
    del graph.node[:]
    graph.node.extend(kept)


def _casts_to(node: onnx.NodeProto, kind: int) -> bool:
    return node.op_type == "Cast" and any(each.name == "to" and each.i == kind for each in node.attribute)
