"""An encoder's blueprint as TFLite operators: one graph for one text of any length.

    graph = lower(file, spec, matrix, vector, length)

Inputs are `input_ids`, `attention_mask` and, where the model has token types, `token_type_ids`, all
int32 (1, length); outputs `last_hidden_state` (1, length, hidden) and `sentence_embedding`
(1, hidden). The length is declared as `length` with a free dimension: a program may resize the
inputs to its text, or pad to it with a mask of zeros.

No operator makes a tensor whose shape depends on values, so that XNNPACK takes all but the first
few. Positions are counted by a cumulative sum of ones for that reason. Integer weights stand for
themselves, and products with them are multiplied with the scales of their rows afterwards, which
runtimes without scales per row can execute too.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
from ai_edge_litert import schema_py_generated as schema
from numpy.typing import NDArray

from edgegauge.encoder import EncoderSpec
from edgegauge.gguf_header import tensor_name
from edgegauge.model import Tensor
from edgegauge_converters.blueprint import Add, Linear
from edgegauge_converters.encoder_blueprint import (
    EMBEDDING,
    HIDDEN,
    LEAST_LENGTH,
    LEAST_TOKENS,
    Attend,
    Gelu,
    LayerNorm,
    Lookup,
    Normalise,
    Operation,
    Pool,
    encoder_blueprint,
)
from edgegauge_converters.tflite_file import Quantization, TfliteFile
from edgegauge_converters.tflite_graph import Matrix
from edgegauge_converters.tflite_operators import Operators

SIGNATURE = "serving_default"
FAR = 1e9
"""Scores of padding are lowered by this."""
FREE = -1

Matrices = Callable[[Tensor], Matrix]
Vector = Callable[[Tensor], NDArray[np.float32]]


def lower(
    file: TfliteFile, spec: EncoderSpec, matrix: Matrices, vector: Vector, length: int
) -> None:
    """Add the graph and its signature to the file."""
    _Lowering(file, spec, matrix, vector, length).build()


class _Lowering:
    """One pass over the blueprint; values are (length, hidden)."""

    def __init__(
        self, file: TfliteFile, spec: EncoderSpec, matrix: Matrices, vector: Vector, length: int
    ) -> None:
        self._file, self._spec, self._length = file, spec, length
        self._matrix, self._vector = matrix, vector
        self._graph = file.graph(SIGNATURE)
        self._o = Operators(self._graph, SIGNATURE)
        self._values: dict[str, int] = {}
        self._inputs: dict[str, int] = {}

    def build(self) -> None:
        """Lower everything."""
        self._declare()
        for operation in encoder_blueprint(self._spec):
            made = self._values[operation.output] = self._lower(operation)
            if isinstance(operation, LayerNorm):  # the stream, under names to find it by
                self._graph.made.tensors[made].name = operation.output
        hidden = self._reshape(self._values[HIDDEN], (1, FREE, self._spec.hidden))
        outputs = {HIDDEN: hidden, EMBEDDING: self._values[EMBEDDING]}
        for name, tensor in outputs.items():
            self._graph.made.tensors[tensor].name = name
        self._free(hidden)
        self._graph.between(self._inputs, outputs)
        self._file.signature(SIGNATURE, self._graph, self._inputs, outputs)

    def _declare(self) -> None:
        names = ["input_ids", "attention_mask"]
        names += ["token_type_ids"] if self._spec.token_types else []
        for name in names:
            self._inputs[name] = self._graph.tensor(name, (1, self._length), "INT32")
            self._free(self._inputs[name])
        cast = schema.CastOptionsT(
            inDataType=schema.TensorType.INT32, outDataType=schema.TensorType.FLOAT32
        )
        mask = self._o.op("CAST", [self._inputs["attention_mask"]], (1, self._length), cast)
        self._weights = self._reshape(mask, (FREE, 1))
        less = self._binary("SUB", mask, self._o.number("one", 1.0), schema.SubOptionsT())
        far = self._o.mul(less, self._o.number("far", FAR))
        self._mask = self._reshape(far, (1, 1, 1, FREE))

    def _lower(self, operation: Operation) -> int:
        inputs = [self._values[name] for name in operation.inputs]
        match operation:
            case Lookup():
                return self._lookup(operation)
            case Add():
                return self._o.add(*inputs)
            case LayerNorm():
                return self._norm(operation, *inputs)
            case Linear():
                return self._linear(operation, *inputs)
            case Attend():
                return self._attend(operation, inputs)
            case Gelu():
                options = schema.GeluOptionsT(approximate=operation.tanh)
                return self._o.op("GELU", inputs, self._graph.shape(inputs[0]), options)
            case Pool():
                return self._pool(operation, *inputs)
            case Normalise():
                return self._normalise(*inputs)

    # --- operations

    def _lookup(self, operation: Lookup) -> int:
        ids = self._positions() if operation.by == "position" else self._ids(operation.by)
        shape = (self._length, operation.weight.cols)
        rows = self._o.op("EMBEDDING_LOOKUP", [ids, self._weight(operation.weight)], shape)
        scales = self._matrix(operation.weight).scales
        if scales is None:
            return rows
        table = self._graph.weight(f"{tensor_name(operation.weight)}.scales", scales)
        options = schema.GatherOptionsT(axis=0)
        factors = self._o.op("GATHER", [table, ids], (self._length,), options)
        return self._o.mul(rows, self._reshape(factors, (FREE, 1)))

    def _ids(self, name: str) -> int:
        return self._reshape(self._inputs[name], (FREE,), "INT32")

    def _positions(self) -> int:
        """0, 1, 2, ... as many as there are tokens."""
        zero, one, axis = (
            self._o.ints(name, [n]) for name, n in (("zero", 0), ("one_id", 1), ("axis", 0))
        )
        shape = (self._length,)
        ids = self._ids("input_ids")
        zeros = self._o.op("MUL", [ids, zero], shape, schema.MulOptionsT(), "INT32")
        ones = self._o.op("ADD", [zeros, one], shape, schema.AddOptionsT(), "INT32")
        options = schema.CumsumOptionsT(exclusive=True)
        return self._o.op("CUMSUM", [ones, axis], shape, options, "INT32")

    def _norm(self, operation: LayerNorm, x: int) -> int:
        centred = self._binary("SUB", x, self._reduce("MEAN", x, 1), schema.SubOptionsT())
        variance = self._reduce("MEAN", self._o.mul(centred, centred), 1)
        shifted = self._o.add(variance, self._o.number("eps", operation.eps))
        inverse = self._o.op("RSQRT", [shifted], self._graph.shape(shifted))
        normed = self._o.mul(self._o.mul(centred, inverse), self._constant(operation.weight))
        return self._o.add(normed, self._constant(operation.bias))

    def _linear(self, operation: Linear, x: int) -> int:
        """The bias is divided by the scales that the product is multiplied with."""
        weight, matrix = operation.weight, self._matrix(operation.weight)
        assert operation.bias is not None
        bias = self._vector(operation.bias)
        scales = None if matrix.block else matrix.scales
        if scales is not None:
            bias = bias / scales
        added = self._graph.weight(tensor_name(operation.bias), bias)
        options = schema.FullyConnectedOptionsT(keepNumDims=True, asymmetricQuantizeInputs=True)
        inputs = [x, self._weight(weight), added]
        made = self._o.op("FULLY_CONNECTED", inputs, (self._length, weight.rows), options)
        if scales is None:
            return made
        return self._o.mul(made, self._graph.weight(f"{tensor_name(weight)}.scales", scales))

    def _attend(self, operation: Attend, inputs: Sequence[int]) -> int:
        heads, width = operation.heads, self._spec.head_dim
        parts = [self._reshape(x, (1, FREE, heads, width)) for x in inputs]
        query, key = (self._o.transpose(x, (0, 2, 1, 3)) for x in parts[:2])
        value = self._o.transpose(parts[2], (0, 2, 3, 1))
        scaled = self._o.mul(query, self._o.number("scale", width**-0.5))
        scores = self._o.add(self._o.matmul(scaled, key), self._mask)
        mixed = self._o.matmul(self._o.softmax(scores), value)
        return self._reshape(self._o.transpose(mixed, (0, 2, 1, 3)), (FREE, self._spec.hidden))

    def _pool(self, operation: Pool, hidden: int) -> int:
        if operation.kind == "cls":
            return self._o.slice(hidden, (0, 0), (1, self._spec.hidden))
        total = self._reduce("SUM", self._o.mul(hidden, self._weights), 0)
        return self._divide(total, self._reduce("SUM", self._weights, 0), LEAST_TOKENS)

    def _normalise(self, x: int) -> int:
        square = self._reduce("SUM", self._o.mul(x, x), 1)
        length = self._o.op("SQRT", [square], self._graph.shape(square))
        return self._divide(x, length, LEAST_LENGTH)

    # --- building blocks

    def _divide(self, x: int, divisor: int, least: float) -> int:
        lowest = self._o.number(f"least_{least}", least)
        shape = self._graph.shape(divisor)
        options = schema.MaximumMinimumOptionsT()
        bounded = self._o.op("MAXIMUM", [divisor, lowest], shape, options)
        return self._binary("DIV", x, bounded, schema.DivOptionsT())

    def _binary(self, kind: str, x: int, y: int, options: object) -> int:
        return self._o.op(kind, [x, y], self._graph.shape(x), options)

    def _reduce(self, kind: str, x: int, axis: int) -> int:
        shape = list(self._graph.shape(x))
        shape[axis] = 1
        axes = self._o.ints(f"axis_{axis}", [axis])
        return self._o.op(kind, [x, axes], shape, schema.ReducerOptionsT(keepDims=True))

    def _reshape(self, x: int, shape: Sequence[int], type: str = "FLOAT32") -> int:
        """The same values in a shape of which FREE is whatever is left."""
        declared = [self._length if n == FREE else n for n in shape]
        options = schema.ReshapeOptionsT(newShape=list(shape))
        return self._o.op("RESHAPE", [x, self._o.ints("shape", shape)], declared, options, type)

    def _free(self, tensor: int) -> None:
        """Declare that the length of this tensor may change."""
        made = self._graph.made.tensors[tensor]
        signature = [FREE if axis == 1 else int(n) for axis, n in enumerate(made.shape)]
        made.shapeSignature = np.array(signature, "<i4")

    def _constant(self, tensor: Tensor) -> int:
        return self._graph.weight(tensor_name(tensor), self._vector(tensor))

    def _weight(self, tensor: Tensor) -> int:
        matrix, name = self._matrix(tensor), tensor_name(tensor)
        quantization = None if matrix.scales is None else Quantization()
        if matrix.block:
            assert matrix.scales is not None
            scales = self._graph.weight(f"{name}.scales", matrix.scales)
            quantization = Quantization(block=matrix.block, scales=scales)
        return self._graph.tensor(
            name, (matrix.rows, matrix.cols), matrix.type, buffer=matrix.buffer,
            quantization=quantization,
        )  # fmt: skip
