"""The weights of a TFLite file as `Reference` takes them: exactly the numbers that are stored.

    weights = TfliteWeights(path, spec)
    Reference(spec, weights).logits(tokens)

The file is one that this package wrote: its tensors are found by their names in the first graph of
`decode`. Stacked projections are taken apart, and the factor on q.k is taken out of them again.
"""

from __future__ import annotations

import re
import struct
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from ai_edge_litert import schema_py_generated as schema
from numpy.typing import NDArray

from edgegauge.errors import InputError
from edgegauge.model import ModelSpec, Tensor
from edgegauge_converters.blueprint import Linear, RmsNorm
from edgegauge_converters.tflite_graph import steps
from edgegauge_converters.tflite_layout import (
    gained_roles,
    head_norms,
    query_gain,
    stack_name,
)
from edgegauge_converters.tflite_quantize import decode

Floats = NDArray[np.float32]

TYPES = {
    schema.TensorType.FLOAT32: "F32",
    schema.TensorType.INT8: "INT8",
    schema.TensorType.INT4: "INT4",
}


class TfliteWeights:
    """Callable from a tensor of the spec to its float32 values; the file stays memory-mapped."""

    def __init__(self, path: Path, spec: ModelSpec) -> None:
        self._path, self._spec = path, spec
        try:
            self._data = np.memmap(path, np.uint8, "r")
            model = schema.Model.GetRootAs(self._data, 0)
            graphs = [model.Subgraphs(i) for i in range(model.SubgraphsLength())]
            self._model = model
            named = ((re.fullmatch(rb"decode_(\d+)", g.Name()), n) for n, g in enumerate(graphs))
            self._steps = sorted((int(found[1]), number) for found, number in named if found)
            self._graph = graphs[self._steps[0][1]]
            count = self._graph.TensorsLength()
            self._tensors = {self._graph.Tensors(i).Name().decode(): i for i in range(count)}
        except (OSError, ValueError, IndexError, TypeError, struct.error, StopIteration) as error:
            raise InputError(f"cannot read {path} as a TFLite language model: {error}") from None
        self._places = {t: (name, first) for name, first, t in _places(spec)}

    def step_graph(self, position: int) -> int:
        """The number of the subgraph that a step at this position runs."""
        return next(number for span, number in self._steps if position < span)

    def __call__(self, tensor: Tensor) -> Floats:
        """The values, (rows, cols) or (cols,); InputError if the file has no such tensor."""
        name, first = self._places[tensor]
        if name not in self._tensors:
            raise InputError(f"no tensor {name} @ {self._path}")
        if tensor.is_vector:
            stored = self._graph.Tensors(self._tensors[name])
            values: Floats = self._buffer(stored.Buffer()).view("<f4")[first : first + tensor.cols]
        else:
            values = self._rows(name, first, first + tensor.rows)
        gained = tensor.role in gained_roles(self._spec)
        return values / np.float32(query_gain(self._spec)) if gained else values

    def _rows(self, name: str, first: int, last: int) -> Floats:
        stored = self._graph.Tensors(self._tensors[name])
        type = TYPES[stored.Type()]
        rows = stored.ShapeAsNumpy()[0]
        packed = self._buffer(stored.Buffer()).reshape(rows, -1)[first:last]
        if type == "F32":
            return decode(packed, None, type)
        column = self._graph.Tensors(self._tensors[f"{name}.scales"])
        half = column.Type() == schema.TensorType.FLOAT16
        scales = self._buffer(column.Buffer()).view("<f2" if half else "<f4")
        if not half:
            return decode(packed, scales[first:last], type)
        scales = scales.reshape(rows, -1)[first:last]
        return decode(packed, scales, f"{type}/{packed.shape[1] * 2 // scales.shape[1]}")

    def _buffer(self, number: int) -> NDArray[np.uint8]:
        buffer = self._model.Buffers(number)
        if buffer.Size():
            return self._data[buffer.Offset() : buffer.Offset() + buffer.Size()]
        data: NDArray[np.uint8] = buffer.DataAsNumpy()
        return data


def _places(spec: ModelSpec) -> Iterator[tuple[str, int, Tensor]]:
    """Every tensor with the name it is stored under and its first row or element there."""
    for step in steps(spec):
        linears = [o for o in step if isinstance(o, Linear)]
        weights = tuple(o.weight for o in linears)
        yield from _stacked(weights, lambda t: t.rows)
        yield from _stacked(tuple(o.bias for o in linears if o.bias is not None), lambda t: t.cols)
        for operation in step:
            if isinstance(operation, RmsNorm):
                yield from _norm(spec, operation.weight)
    embedding = next(iter(spec.tensors()))
    yield stack_name((embedding,)), 0, embedding


def _stacked(tensors: tuple[Tensor, ...], size: Any) -> Iterator[tuple[str, int, Tensor]]:
    first = 0
    for tensor in tensors:
        yield stack_name(tensors), first, tensor
        first += size(tensor)


def _norm(spec: ModelSpec, tensor: Tensor) -> Iterator[tuple[str, int, Tensor]]:
    """The norms of queries and keys are one, repeated for every head."""
    if tensor.role not in ("attn_q_norm", "attn_k_norm"):
        yield stack_name((tensor,)), 0, tensor
        return
    first = 0 if tensor.role == "attn_q_norm" else spec.heads * spec.head_dim
    yield head_norms(tensor), first, tensor
