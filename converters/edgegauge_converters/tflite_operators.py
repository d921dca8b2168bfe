"""The TFLite operators that decoders are made of, as methods that give their result's tensor."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from ai_edge_litert import schema_py_generated as schema

from edgegauge_converters.tflite_file import Graph


class Operators:
    """Appends operators to a graph; tensors are named after `key`, the operator and a number."""

    def __init__(self, graph: Graph, key: str) -> None:
        self._graph, self._key = graph, key

    def op(
        self,
        kind: str,
        inputs: Sequence[int],
        shape: Sequence[int],
        options: Any = None,
        type: str = "FLOAT32",
    ) -> int:
        """Any operator with one output of this shape and type."""
        name = f"{self._key}_{kind.lower()}_{len(self._graph.made.tensors)}"
        return self._graph.op(kind, inputs, self._graph.tensor(name, shape, type), options)

    def ints(self, name: str, values: Sequence[int]) -> int:
        """A constant vector of int32."""
        return self._graph.constant(name, np.array(values, np.int32))

    def number(self, name: str, value: float) -> int:
        """A constant of one float32."""
        return self._graph.constant(name, np.array([value], np.float32))

    def add(self, x: int, y: int) -> int:
        """x + y, which is broadcast to x."""
        return self.op("ADD", [x, y], self._graph.shape(x), schema.AddOptionsT())

    def mul(self, x: int, y: int) -> int:
        """x * y, which is broadcast to x."""
        return self.op("MUL", [x, y], self._graph.shape(x), schema.MulOptionsT())

    def matmul(self, x: int, y: int) -> int:
        """x @ y transposed."""
        shape = (*self._graph.shape(x)[:-1], self._graph.shape(y)[-2])
        return self.op("BATCH_MATMUL", [x, y], shape, schema.BatchMatMulOptionsT(adjY=True))

    def softmax(self, x: int) -> int:
        """Over the last axis."""
        options = schema.SoftmaxOptionsT(beta=1.0)
        return self.op("SOFTMAX", [x], self._graph.shape(x), options)

    def concatenate(self, parts: Sequence[int], axis: int, type: str = "FLOAT32") -> int:
        """The parts one after the other along an axis."""
        shape = list(self._graph.shape(parts[0]))
        shape[axis] = sum(self._graph.shape(part)[axis] for part in parts)
        return self.op("CONCATENATION", parts, shape, schema.ConcatenationOptionsT(axis=axis), type)

    def reshape(self, x: int, shape: Sequence[int], type: str = "FLOAT32") -> int:
        """The same values in another shape."""
        options = schema.ReshapeOptionsT(newShape=list(shape))
        return self.op("RESHAPE", [x, self.ints("shape", shape)], shape, options, type)

    def transpose(self, x: int, order: Sequence[int]) -> int:
        """Axis i of the result is axis order[i]."""
        old = self._graph.shape(x)
        shape = [old[i] for i in order]
        inputs = [x, self.ints("order", order)]
        return self.op("TRANSPOSE", inputs, shape, schema.TransposeOptionsT())

    def slice(
        self, x: int, begin: Sequence[int], size: Sequence[int], type: str = "FLOAT32"
    ) -> int:
        """The part of this size from `begin`."""
        inputs = [x, self.ints("begin", begin), self.ints("size", size)]
        return self.op("SLICE", inputs, size, schema.SliceOptionsT(), type)

    def widen(self, x: int, type: str) -> int:
        """Integers of this type as float32."""
        kinds = schema.TensorType
        options = schema.CastOptionsT(inDataType=getattr(kinds, type), outDataType=kinds.FLOAT32)
        return self.op("CAST", [x], self._graph.shape(x), options)

    def rms_norm(self, x: int, factor: int, eps: float) -> int:
        """x / sqrt(mean(x**2) + eps) * factor over the last axis."""
        shape = self._graph.shape(x)
        thin = (*shape[:-1], 1)
        axis = self.ints("last_axis", [len(shape) - 1])
        options = schema.ReducerOptionsT(keepDims=True)
        mean = self.op("MEAN", [self.mul(x, x), axis], thin, options)
        inverse = self.op("RSQRT", [self.add(mean, self.number("eps", eps))], thin)
        return self.mul(self.mul(x, inverse), factor)
