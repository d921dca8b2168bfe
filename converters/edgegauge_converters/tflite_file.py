"""Writing TFLite files: a flatbuffer that names its weights, and the weights streamed after it.

    file = TfliteFile("edgegauge")
    weights = file.reserve(rows * cols)              # a buffer that is written later
    graph = file.graph("decode")
    x = graph.tensor("x", (1, 576), "FLOAT32")
    ...
    file.write(stream, lambda buffer: pieces)        # pieces of each reserved buffer, in order

The flatbuffer is built with empty reserved buffers; the offsets of their data, which lies behind
everything else, are put in afterwards. So the weights are never in memory together, and a file
under 2 GiB is an ordinary flatbuffer that any reader takes. Flatbuffers end at 2 GiB: in a larger
file reserved buffers use the schema's way out, `Buffer.offset` and `Buffer.size`, counted from the
file's start. Layout: `schema.fbs` of TensorFlow Lite, and the flatbuffers internals page.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import flatbuffers
import numpy as np
from ai_edge_litert import schema_py_generated as schema
from numpy.typing import NDArray

from edgegauge_converters.temporary_file import HashedFile

IDENTIFIER = b"TFL3"
ALIGNMENT = 64
"""Weights begin at multiples of this, as XNNPACK's widest loads like it."""

FLATBUFFER_LIMIT = 2**31 - 1
SCHEMA_VERSION = 3
ABSENT = -1
"""The index of an optional input that is left out."""

TYPES: dict[int, str] = {n: name for name, n in vars(schema.TensorType).items() if name.isupper()}

VERSIONS = {"FULLY_CONNECTED": 5}
"""Operator versions other than 1: 5 keeps the number of dimensions."""


class Quantization:
    """Marks a tensor's integers as standing for numbers: for themselves, or scaled by blocks.

    By blocks of `block` along a row, `scales` is the tensor, of the same graph, that holds float16
    scales (rows, cols / block).
    """

    def __init__(self, *, block: int = 0, scales: int = 0) -> None:
        self._block, self._scales = block, scales

    def Pack(self, builder: Any) -> int:
        """Write the table."""
        return self._by_block(builder) if self._block else self._plain(builder)

    def _plain(self, builder: Any) -> int:
        one = builder.CreateNumpyVector(np.ones(1, "<f4"))
        zero = builder.CreateNumpyVector(np.zeros(1, "<i8"))
        schema.QuantizationParametersStart(builder)
        schema.QuantizationParametersAddScale(builder, one)
        schema.QuantizationParametersAddZeroPoint(builder, zero)
        return int(schema.QuantizationParametersEnd(builder))

    def _by_block(self, builder: Any) -> int:
        schema.BlockwiseQuantizationStart(builder)
        schema.BlockwiseQuantizationAddScales(builder, self._scales)
        schema.BlockwiseQuantizationAddZeroPoints(builder, ABSENT)
        schema.BlockwiseQuantizationAddBlockSize(builder, self._block)
        details = schema.BlockwiseQuantizationEnd(builder)
        schema.QuantizationParametersStart(builder)
        kind = schema.QuantizationDetails.BlockwiseQuantization
        schema.QuantizationParametersAddDetailsType(builder, kind)
        schema.QuantizationParametersAddDetails(builder, details)
        return int(schema.QuantizationParametersEnd(builder))


class _Reserved:
    """A buffer whose place is put in after the flatbuffer is built."""

    def __init__(self, size: int) -> None:
        self.size = size
        self.outside = False

    def Pack(self, builder: Any) -> int:
        """Write the table with placeholders that are not default values, so that they are there."""
        empty = 0 if self.outside else builder.CreateByteVector(b"")
        schema.BufferStart(builder)
        if self.outside:
            schema.BufferAddOffset(builder, FLATBUFFER_LIMIT)
            schema.BufferAddSize(builder, self.size)
        else:
            schema.BufferAddData(builder, empty)
        return int(schema.BufferEnd(builder))


class Graph:
    """One subgraph: tensors by number, operators in the order in which they run."""

    def __init__(self, file: TfliteFile, name: str) -> None:
        self._file = file
        self.made = schema.SubGraphT(tensors=[], operators=[], inputs=[], outputs=[], name=name)
        self._constants: dict[tuple[int, tuple[int, ...], str], int] = {}

    def tensor(
        self,
        name: str,
        shape: Sequence[int],
        type: str = "FLOAT32",
        *,
        buffer: int = 0,
        quantization: Quantization | None = None,
    ) -> int:
        """A new tensor; `type` as the schema's `TensorType` names it."""
        made = schema.TensorT(
            name=name, shape=np.array(shape, "<i4"), type=getattr(schema.TensorType, type),
            buffer=buffer, hasRank=True, quantization=quantization,
        )  # fmt: skip
        self.made.tensors.append(made)
        return len(self.made.tensors) - 1

    def constant(self, name: str, values: NDArray[Any]) -> int:
        """A tensor of float32 or int32 values, stored once in the file."""
        buffer = self._file.data(values.tobytes())
        type = {"f": "FLOAT32", "i": "INT32"}[values.dtype.kind]
        key = (buffer, values.shape, type)
        if key not in self._constants:
            self._constants[key] = self.tensor(name, values.shape, type, buffer=buffer)
        return self._constants[key]

    def weight(self, name: str, values: NDArray[Any]) -> int:
        """A tensor of float32 or float16 values that keeps its name, whatever its values."""
        type = {4: "FLOAT32", 2: "FLOAT16"}[values.dtype.itemsize]
        return self.tensor(name, values.shape, type, buffer=self._file.data(values.tobytes()))

    def shape(self, tensor: int) -> tuple[int, ...]:
        """The shape a tensor was made with."""
        return tuple(int(n) for n in self.made.tensors[tensor].shape)

    def type(self, tensor: int) -> str:
        """The type a tensor was made with."""
        return TYPES[self.made.tensors[tensor].type]

    def between(self, inputs: dict[str, int], outputs: dict[str, int]) -> None:
        """Name what the graph is given and what it gives, in order."""
        self.made.inputs, self.made.outputs = list(inputs.values()), list(outputs.values())

    def op(self, kind: str, inputs: Sequence[int], output: int, options: Any = None) -> int:
        """Append an operator that writes `output`, which is returned."""
        self.ops(kind, inputs, [output], options)
        return output

    def ops(
        self, kind: str, inputs: Sequence[int], outputs: Sequence[int], options: Any = None
    ) -> None:
        """Append an operator that writes any number of tensors."""
        made = schema.OperatorT(
            opcodeIndex=self._file.opcode(kind), inputs=list(inputs), outputs=list(outputs)
        )
        if options is not None:
            name = type(options).__name__.removesuffix("T")
            made.builtinOptionsType = getattr(schema.BuiltinOptions, name)
            made.builtinOptions = options
        self.made.operators.append(made)


class TfliteFile:
    """A file under construction."""

    def __init__(self, description: str) -> None:
        self._model = schema.ModelT(
            version=SCHEMA_VERSION, description=description, operatorCodes=[], subgraphs=[],
            signatureDefs=[], buffers=[schema.BufferT()],
        )  # fmt: skip
        self._opcodes: dict[str, int] = {}
        self._data: dict[bytes, int] = {}

    def graph(self, name: str) -> Graph:
        """A new subgraph."""
        made = Graph(self, name)
        self._model.subgraphs.append(made.made)
        return made

    def opcode(self, kind: str) -> int:
        """The index of a built-in operator, by its name in the schema."""
        if kind not in self._opcodes:
            code = getattr(schema.BuiltinOperator, kind)
            self._opcodes[kind] = len(self._opcodes)
            self._model.operatorCodes.append(
                schema.OperatorCodeT(
                    builtinCode=code,
                    deprecatedBuiltinCode=min(code, 127),  # the field of readers before 2020
                    version=VERSIONS.get(kind, 1),
                )
            )
        return self._opcodes[kind]

    def data(self, content: bytes) -> int:
        """The buffer that holds these bytes, within the flatbuffer."""
        if content not in self._data:
            self._data[content] = len(self._model.buffers)
            self._model.buffers.append(schema.BufferT(data=np.frombuffer(content, np.uint8)))
        return self._data[content]

    def reserve(self, size: int) -> int:
        """A new buffer of this many bytes whose content `write` asks for."""
        self._model.buffers.append(_Reserved(size))
        return len(self._model.buffers) - 1

    def number(self, graph: Graph) -> int:
        """The index of a subgraph."""
        number: int = self._model.subgraphs.index(graph.made)
        return number

    def signature(
        self, key: str, graph: Graph, inputs: dict[str, int], outputs: dict[str, int]
    ) -> None:
        """Name a subgraph, its inputs and its outputs for those who call it; see `between`."""

        def maps(tensors: dict[str, int]) -> list[Any]:
            return [schema.TensorMapT(name=n, tensorIndex=i) for n, i in tensors.items()]

        made = schema.SignatureDefT(
            inputs=maps(inputs), outputs=maps(outputs), signatureKey=key,
            subgraphIndex=self.number(graph),
        )  # fmt: skip
        self._model.signatureDefs.append(made)

    def reserved_bytes(self) -> int:
        """Bytes of all reserved buffers."""
        return sum(b.size for b in self._model.buffers if isinstance(b, _Reserved))

    def write(self, stream: HashedFile, content: Callable[[int], Iterable[Any]]) -> None:
        """Write everything; `content(buffer)` gives the bytes of a reserved buffer in pieces."""
        reserved = {i: b for i, b in enumerate(self._model.buffers) if isinstance(b, _Reserved)}
        head = self._pack(reserved, outside=False)
        whole = len(head) + sum(b.size + 2 * ALIGNMENT for b in reserved.values())
        outside = whole > FLATBUFFER_LIMIT
        if outside:
            head = self._pack(reserved, outside=True)
        places = _places(head, reserved, outside)
        stream.write(head)
        for number, buffer in reserved.items():
            stream.write(bytes(places[number] - 4 - stream.bytes))
            stream.write(struct.pack("<I", 0 if outside else buffer.size))
            for piece in content(number):
                stream.write(piece)
            assert stream.bytes == places[number] + buffer.size, number

    def _pack(self, reserved: dict[int, _Reserved], *, outside: bool) -> bytearray:
        for buffer in reserved.values():
            buffer.outside = outside
        builder = flatbuffers.Builder(2**20)
        builder.Finish(self._model.Pack(builder), IDENTIFIER)
        return bytearray(builder.Output())


def _places(head: bytearray, reserved: dict[int, _Reserved], outside: bool) -> dict[int, int]:
    """Where each reserved buffer's data goes, which is written into the head.

    A vector is referred to by the distance from the referring field to its length (uint32), which
    its elements follow; `Buffer.offset` (uint64) counts from the start of the file.
    """
    model = schema.Model.GetRootAs(head, 0)
    places = {}
    end = len(head)
    for number, buffer in reserved.items():
        place = -(-(end + 4) // ALIGNMENT) * ALIGNMENT
        table = model.Buffers(number)._tab
        if outside:
            struct.pack_into("<Q", head, table.Pos + table.Offset(6), place)
        else:
            field = table.Pos + table.Offset(4)
            struct.pack_into("<I", head, field, place - 4 - field)
        places[number] = place
        end = place + buffer.size
    return places
