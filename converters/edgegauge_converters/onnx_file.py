"""ONNX files as bytes: a graph whose weights lie in a file beside it, written and read again.

    text = encode(graph, "model.onnx.data", {"key": "value"})
    initializers(path)                       # what the file says of its weights

ONNX is a protocol buffer: numbered fields, each a varint, four or eight bytes, or a length and
bytes. Only the messages of such a graph are known here, with the field numbers of `onnx.proto`
(onnx 1.17, IR version 10); that takes fewer lines than the onnx package takes megabytes.
"""

from __future__ import annotations

import math
import struct
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from edgegauge.errors import InputError

IR_VERSION = 10
OPSETS = {"": 21, "com.microsoft": 1}

FLOAT, UINT8, INT32, INT64, DOUBLE = 1, 2, 6, 7, 11
"""Element types (TensorProto.DataType)."""
ELEMENT_BYTES = {FLOAT: 4, UINT8: 1, INT32: 4, INT64: 8, DOUBLE: 8}

MAX_GRAPH_BYTES = 2**28
VARINT, FIXED64, BYTES, FIXED32 = 0, 1, 2, 5
"""Wire types."""
EXTERNAL = 1

Attribute = int | float | str


@dataclass(frozen=True, slots=True)
class Node:
    """One operation; an absent optional input or output is an empty name."""

    operator: str
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    attributes: Mapping[str, Attribute] = field(default_factory=dict)
    domain: str = ""


@dataclass(frozen=True, slots=True)
class Initializer:
    """A constant: `raw` bytes in the graph itself, or `offset` in the file of weights."""

    name: str
    type: int
    shape: tuple[int, ...]
    raw: bytes | None = None
    offset: int = 0

    @property
    def bytes(self) -> int:
        """How many bytes it has."""
        return math.prod(self.shape) * ELEMENT_BYTES[self.type]


@dataclass(frozen=True, slots=True)
class Value:
    """An input or output of the graph; a dimension is a number, or a name where it varies."""

    name: str
    type: int
    shape: tuple[int | str, ...]


@dataclass(slots=True)
class Graph:
    """A whole graph; nodes are in an order in which they can be executed."""

    nodes: list[Node] = field(default_factory=list)
    initializers: dict[str, Initializer] = field(default_factory=dict)
    inputs: list[Value] = field(default_factory=list)
    outputs: list[Value] = field(default_factory=list)


def encode(graph: Graph, data_name: str, metadata: Mapping[str, str], producer: str) -> bytes:
    """The ModelProto; weights are in the file `data_name` of the same folder."""
    model = _number(1, IR_VERSION) + _text(2, producer) + _message(7, _graph(graph, data_name))
    for domain, number in OPSETS.items():
        model += _message(8, _text(1, domain) + _number(2, number))
    for key, value in metadata.items():
        model += _message(14, _text(1, key) + _text(2, value))
    return model


def _graph(graph: Graph, data_name: str) -> bytes:
    parts = [_message(1, _node(node, f"{i}_{node.operator}")) for i, node in enumerate(graph.nodes)]
    parts.append(_text(2, "decoder"))
    parts += [_message(5, _tensor(each, data_name)) for each in graph.initializers.values()]
    parts += [_message(11, _value(value)) for value in graph.inputs]
    parts += [_message(12, _value(value)) for value in graph.outputs]
    return b"".join(parts)


def _node(node: Node, name: str) -> bytes:
    parts = [_text(1, value) for value in node.inputs]
    parts += [_text(2, value) for value in node.outputs]
    parts += [_text(3, name), _text(4, node.operator)]
    parts += [_message(5, _attribute(*item)) for item in node.attributes.items()]
    return b"".join([*parts, _text(7, node.domain)])


def _attribute(name: str, value: Attribute) -> bytes:
    if isinstance(value, int):
        return _text(1, name) + _number(3, value) + _number(20, 2)
    if isinstance(value, float):
        body = _key(2, FIXED32) + struct.pack("<f", value)
        return _text(1, name) + body + _number(20, 1)
    return _text(1, name) + _text(4, value) + _number(20, 3)


def _tensor(tensor: Initializer, data_name: str) -> bytes:
    head = b"".join(_number(1, n) for n in tensor.shape) + _number(2, tensor.type)
    head += _text(8, tensor.name)
    if tensor.raw is not None:
        return head + _message(9, tensor.raw)
    place = {"location": data_name, "offset": str(tensor.offset), "length": str(tensor.bytes)}
    entries = (_message(13, _text(1, key) + _text(2, value)) for key, value in place.items())
    return head + b"".join(entries) + _number(14, EXTERNAL)


def _value(value: Value) -> bytes:
    sizes = (_number(1, n) if isinstance(n, int) else _text(2, n) for n in value.shape)
    shape = b"".join(_message(1, size) for size in sizes)
    return _text(1, value.name) + _message(
        2, _message(1, _number(1, value.type) + _message(2, shape))
    )


def _key(number: int, wire: int) -> bytes:
    return _varint(number << 3 | wire)


def _number(number: int, value: int) -> bytes:
    return _key(number, VARINT) + _varint(value % 2**64)


def _text(number: int, value: str) -> bytes:
    return _message(number, value.encode())


def _message(number: int, body: bytes) -> bytes:
    return _key(number, BYTES) + _varint(len(body)) + body


def _varint(value: int) -> bytes:
    made = bytearray()
    while value > 127:
        made.append(value & 127 | 128)
        value >>= 7
    made.append(value)
    return bytes(made)


def with_outputs(content: bytes, names: Sequence[str]) -> bytes:
    """A file with more outputs, of floats in any shape; what is appended to a message is merged."""
    any_shape = _message(2, _message(1, _number(1, FLOAT)))
    values = (_message(12, _text(1, name) + any_shape) for name in names)
    return content + _message(7, b"".join(values))


def node_outputs(content: bytes) -> list[str]:
    """What the nodes of a file give, in order; ValueError if it is not whole."""
    graphs = (_body(value) for number, value in _fields(memoryview(content)) if number == 7)
    nodes = (_body(value) for g in graphs for number, value in _fields(g) if number == 1)
    names = (_body(value) for node in nodes for number, value in _fields(node) if number == 2)
    return [str(name, "utf-8") for name in names]


def initializers(path: Path) -> dict[str, Initializer]:
    """The weights that an ONNX file names, by name; InputError if it is none."""
    try:
        with path.open("rb") as stream:
            content = stream.read(MAX_GRAPH_BYTES + 1)
    except OSError as error:
        raise InputError(f"cannot read {path}: {error.strerror}") from None
    if len(content) > MAX_GRAPH_BYTES:
        raise InputError(f"larger than {MAX_GRAPH_BYTES} bytes, so not read @ {path}")
    try:
        graphs = [body for number, body in _fields(memoryview(content)) if number == 7]
        found = (_read_tensor(t) for g in graphs for n, t in _fields(_body(g)) if n == 5)
        return {each.name: each for each in found}
    except (ValueError, KeyError, IndexError, struct.error) as error:
        raise InputError(f"not an ONNX file: {error} @ {path}") from None


def _read_tensor(message: int | memoryview) -> Initializer:
    shape, kind, name, raw = [], 0, "", None
    place: dict[str, str] = {}
    for number, value in _fields(_body(message)):
        if number == 1:
            shape += [value] if isinstance(value, int) else list(_varints(value))
        elif number == 2 and isinstance(value, int):
            kind = value
        elif number == 8:
            name = str(_body(value), "utf-8")
        elif number == 9:
            raw = bytes(_body(value))
        elif number == 13:
            entry = {n: str(_body(v), "utf-8") for n, v in _fields(_body(value))}
            place[entry[1]] = entry[2]
    tensor = Initializer(name, kind, tuple(shape), raw, int(place.get("offset", "0")))
    if raw is None and int(place.get("length", "-1")) not in (-1, tensor.bytes):
        raise ValueError(f"{name} has {place['length']} bytes, its shape {tensor.bytes}")
    return tensor


def _body(value: int | memoryview) -> memoryview:
    if isinstance(value, int):
        raise ValueError("a number where a message is expected")
    return value


def _fields(message: memoryview) -> Iterator[tuple[int, int | memoryview]]:
    """Field numbers and values: an int, or the bytes of whatever else it is."""
    at = 0
    while at < len(message):
        key, at = _read_varint(message, at)
        wire = key & 7
        if wire == VARINT:
            value, at = _read_varint(message, at)
            yield key >> 3, value
            continue
        if wire == BYTES:
            size, at = _read_varint(message, at)
        elif wire in (FIXED32, FIXED64):
            size = 4 if wire == FIXED32 else 8
        else:
            raise ValueError(f"wire type {wire}")
        if size > len(message) - at:
            raise ValueError("a field goes beyond the end")
        yield key >> 3, message[at : at + size]
        at += size


def _varints(packed: memoryview) -> Iterator[int]:
    at = 0
    while at < len(packed):
        value, at = _read_varint(packed, at)
        yield value


def _read_varint(message: memoryview, at: int) -> tuple[int, int]:
    value = 0
    for shift in range(0, 70, 7):
        value |= (message[at] & 127) << shift
        at += 1
        if message[at - 1] < 128:
            return value, at
    raise ValueError("a number of more than ten bytes")
