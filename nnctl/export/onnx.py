"""A network as ONNX: the bytes of a protocol buffer, written by hand.

Opset 17, IR version 8. Input `images`, uint8 (batch, rows, columns), is divided by 255 inside;
outputs are `probabilities` (with mean_squared_error `outputs`), float32 (batch, classes), and
`labels`, int64 (batch,). The messages and their field numbers are those of onnx.proto3
(https://github.com/onnx/onnx/blob/main/onnx/onnx.proto3).
"""

from __future__ import annotations

import json
import struct
from collections.abc import Callable
from itertools import count
from typing import Any

import numpy as np

from nnctl import __version__
from nnctl.export.model import Model
from nnctl.nn.functions import Array
from nnctl.nn.hyperparameters import kind_of
from nnctl.nn.layers import GELU, LAYERS, BatchNorm, Layer, LeakyReLU

OPSET, IR = 17, 8
FLOAT, UINT8, INT64 = 1, 2, 7  # TensorProto.DataType
TYPES = {"<f4": FLOAT, "<i8": INT64}
ATTRIBUTE_FLOAT, ATTRIBUTE_INT = 1, 2  # AttributeProto.AttributeType


# The wire format: https://protobuf.dev/programming-guides/encoding/


def varint(number: int) -> bytes:
    """Return a number from 0 on in groups of seven bits, the lowest first."""
    groups = [number & 0x7F]
    while number := number >> 7:
        groups[-1] |= 0x80
        groups.append(number & 0x7F)
    return bytes(groups)


def field(number: int, value: int | float | str | bytes) -> bytes:
    """Return a field of a message: an integer, a float, or what has a length of its own."""
    if isinstance(value, int):
        return varint(number << 3) + varint(value)
    if isinstance(value, float):
        return varint(number << 3 | 5) + struct.pack("<f", value)
    data = value.encode() if isinstance(value, str) else value
    return varint(number << 3 | 2) + varint(len(data)) + data


def message(*fields: tuple[int, Any]) -> bytes:
    """Return a message of its fields, (number, value) in order."""
    return b"".join(field(number, value) for number, value in fields)


# The messages of ONNX.


def tensor(name: str, array: Array) -> bytes:
    """Return a TensorProto."""
    dims = [(1, size) for size in array.shape]
    return message(*dims, (2, TYPES[array.dtype.str]), (8, name), (9, array.tobytes()))


def value_info(name: str, kind: int, *shape: int | str) -> bytes:
    """Return a ValueInfoProto of a tensor; a size that is a word may be any."""
    sizes = [(1, message((1 if isinstance(size, int) else 2, size))) for size in shape]
    return message((1, name), (2, message((1, message((1, kind), (2, message(*sizes)))))))


def node(kind: str, inputs: list[str], output: str, **attributes: int | float) -> bytes:
    """Return a NodeProto; it is called as its output."""
    encoded = []
    for name, value in attributes.items():
        place, code = (2, ATTRIBUTE_FLOAT) if isinstance(value, float) else (3, ATTRIBUTE_INT)
        encoded.append((5, message((1, name), (place, value), (20, code))))
    return message(*((1, name) for name in inputs), (2, output), (3, output), (4, kind), *encoded)


class OnnxGraph:
    """Collects the nodes and constants of a graph, the output of each node the next one's input."""

    def __init__(self, last: str) -> None:
        """Begin at the value named `last`."""
        self.last = last
        self.nodes: list[bytes] = []
        self.constants: dict[str, Array] = {}
        self._numbers = count()

    def add(self, kind: str, *others: str, result: str = "", **attributes: int | float) -> str:
        """Apply an operator to the last value and `others`; return the name of the result."""
        output = result or f"value_{next(self._numbers)}"
        self.nodes.append(node(kind, [self.last, *others], output, **attributes))
        self.last = output
        return output

    def constant(self, name: str, value: float) -> str:
        """Keep a number under `name`; return that."""
        self.constants[name] = np.array(value, "<f4")
        return name


Writer = Callable[[OnnxGraph, str, Any], object]  # the graph, the layer's name, the layer


def affine(graph: OnnxGraph, name: str, layer: Layer) -> None:
    """Add y = x W + b."""
    graph.add("Gemm", f"{name}.weight", f"{name}.bias")


def leaky_relu(graph: OnnxGraph, name: str, layer: LeakyReLU) -> None:
    """Add y = x where x > 0, slope x elsewhere."""
    graph.add("LeakyRelu", alpha=float(layer.slope))


def gelu(graph: OnnxGraph, name: str, layer: GELU) -> None:
    """Add y = x (1 + tanh(A x (1 + B x^2))) / 2: opset 17 has no operator for it."""
    x = graph.last
    graph.add("Mul", x)
    graph.add("Mul", graph.constant(f"{name}.b", layer.B))
    one = graph.constant(f"{name}.one", 1.0)
    graph.add("Add", one)
    graph.add("Mul", x)
    graph.add("Mul", graph.constant(f"{name}.a", layer.A))
    graph.add("Tanh")
    graph.add("Add", one)
    graph.add("Mul", x)
    graph.add("Mul", graph.constant(f"{name}.half", 0.5))


def dropout(graph: OnnxGraph, name: str, layer: Layer) -> None:
    """Add nothing: in use it is the identity."""


def batch_norm(graph: OnnxGraph, name: str, layer: BatchNorm) -> None:
    """Add y = weight (x - mean) / sqrt(variance + epsilon) + bias."""
    parts = ("weight", "bias", "running_mean", "running_variance")
    graph.add("BatchNormalization", *(f"{name}.{p}" for p in parts), epsilon=float(layer.epsilon))


WRITERS: dict[str, Writer] = {
    "affine": affine,
    "relu": lambda graph, name, layer: graph.add("Relu"),
    "leaky_relu": leaky_relu,
    "sigmoid": lambda graph, name, layer: graph.add("Sigmoid"),
    "tanh": lambda graph, name, layer: graph.add("Tanh"),
    "gelu": gelu,
    "dropout": dropout,
    "batch_norm": batch_norm,
}


def to_onnx(model: Model) -> bytes:
    """Return the bytes of an ONNX file."""
    graph = OnnxGraph("images")
    graph.add("Cast", to=FLOAT)
    graph.add("Div", graph.constant("white", 255.0))
    graph.add("Flatten", axis=1)
    for index, layer in enumerate(model.network.layers):
        WRITERS[kind_of(LAYERS, layer)](graph, model.network.layer_name(index), layer)
    if model.loss.has_probabilities:
        graph.add("Softmax", result=model.output, axis=1)
    else:
        graph.add("Identity", result=model.output)
    graph.add("ArgMax", result="labels", axis=1, keepdims=0)
    constants = graph.constants | model.arrays
    encoded = message(
        *((1, node) for node in graph.nodes),
        (2, "network"),
        *((5, tensor(name, array)) for name, array in constants.items()),
        (11, value_info("images", UINT8, "batch", *model.image_shape)),
        (12, value_info(model.output, FLOAT, "batch", model.network.widths[-1])),
        (12, value_info("labels", INT64, "batch")),
    )
    names = [(14, message((1, "class_names"), (2, json.dumps(model.class_names))))]
    return message(
        (1, IR),
        (2, "nnctl"),
        (3, __version__),
        (7, encoded),
        (8, message((1, ""), (2, OPSET))),
        *(names if model.class_names else ()),
    )
