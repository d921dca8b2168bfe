"""The blueprint as TFLite operators: a few subgraphs per signature, all on the same weights.

    lowering = Lowering(file, spec, matrices, vector, spans=(256, 512, 1024, 1280))
    lowering.prefill(128)              # signature prefill_128
    lowering.decode()                  # signature decode

Signatures, tensors and shapes are those of LiteRT's own language models, so that LiteRT-LM runs
them: `tokens` (1, T), `input_pos` (T,), `mask` (1, 1, T, context) that is added to the scores,
`kv_cache_k_<slot>` (1, kv heads, context, head dim), `kv_cache_v_<slot>` (1, kv heads, head dim,
context) in and out, and `logits` (1, T, vocab) out of `decode`. Seen in the files of litert-torch
0.10 and in LiteRT-LM 0.18.

What makes it fast where XNNPACK runs it: projections of the same input are one FULLY_CONNECTED, the
factor on q.k is in the weights, and no step attends to much more of the cache than is in use.
XNNPACK cannot leave out what a mask hides, and puts all keys and values into an order of its own
for each product: with SmolLM2-135M, 40 % of a step went into 1280 positions, most of them hidden.
So there is a subgraph for each of a few spans from the beginning of the cache, and a signature is
a chain of IF: the shortest span that holds all positions. TFLite hands tensors to a branch and back
by their addresses, so that nothing is copied.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import Any

import numpy as np
from ai_edge_litert import schema_py_generated as schema
from numpy.typing import NDArray

from edgegauge.model import ModelSpec, Tensor
from edgegauge_converters.blueprint import (
    LOGITS,
    Add,
    Attention,
    Embed,
    Gate,
    Linear,
    Operation,
    RmsNorm,
    Rotary,
    blueprint,
)
from edgegauge_converters.tflite_choice import Subgraph, choice
from edgegauge_converters.tflite_file import ABSENT, Graph, Quantization, TfliteFile
from edgegauge_converters.tflite_layout import head_norms, stack_name
from edgegauge_converters.tflite_operators import Operators

FAR = 1e9
"""Scores of keys before a window are lowered by at least half of this."""


@dataclass(frozen=True, slots=True)
class Matrix:
    """A weight matrix in the file: one tensor of the spec, or several stacked by rows."""

    buffer: int
    rows: int
    cols: int
    type: str
    scales: NDArray[Any] | None = None
    """float32 (rows,), or with blocks float16 (rows, cols / block); None for floats."""
    block: int = 0


Matrices = Callable[[tuple[Tensor, ...]], Matrix]
"""The matrix of these tensors, stacked."""

Vector = Callable[[Tensor], NDArray[np.float32]]
"""The float32 values of a norm or bias, with the query gain where it belongs."""


def steps(spec: ModelSpec) -> Iterator[list[Operation]]:
    """The blueprint with projections of the same value together."""
    operations = list(blueprint(spec))
    for _, run in groupby(operations, lambda o: o.inputs if isinstance(o, Linear) else id(o)):
        yield list(run)


class Lowering:
    """Adds signatures to a file.

    `spans` are what steps may attend to, rising; the last one is the length of the cache.
    """

    def __init__(
        self, file: TfliteFile, spec: ModelSpec, matrices: Matrices, vector: Vector,
        spans: Sequence[int],
    ) -> None:  # fmt: skip
        self.file, self.spec, self.spans, self.context = file, spec, spans, spans[-1]
        self.matrices, self.vector = matrices, vector
        rotations = [o.frequencies for o in blueprint(spec) if isinstance(o, Rotary)]
        self.tables = list(dict.fromkeys(rotations))

    def prefill(self, tokens: int) -> None:
        """Append `tokens` tokens to the cache; no logits, as LiteRT-LM asks `decode` for them."""
        self._signature(f"prefill_{tokens}", tokens, logits=False)

    def decode(self) -> None:
        """Append one token and give its logits."""
        self._signature("decode", 1, logits=True)

    def _signature(self, key: str, tokens: int, *, logits: bool) -> None:
        spans = [span for span in self.spans if tokens <= span]
        self.file.signature(key, *self._chain(key, tokens, spans, logits))

    def _chain(self, key: str, tokens: int, spans: Sequence[int], logits: bool) -> Subgraph:
        """A subgraph that attends to the first of these spans that holds all positions."""
        near = _Step(self, f"{key}_{spans[0]}", tokens, spans[0], logits=logits).build()
        if len(spans) == 1:
            return near
        return choice(self.file, key, spans[0], near, self._chain(key, tokens, spans[1:], logits))


class _Step:
    """One subgraph while it is built."""

    def __init__(
        self, lowering: Lowering, key: str, tokens: int, span: int, *, logits: bool
    ) -> None:
        self.l, self.tokens, self.span, self.logits = lowering, tokens, span, logits
        self.key, self.spec = key, lowering.spec
        self.graph: Graph = lowering.file.graph(key)
        self.o = Operators(self.graph, key)
        self.inputs: dict[str, int] = {}
        self.outputs: dict[str, int] = {}
        self.values: dict[str, int] = {}
        self.together: dict[str, int] = {}
        """Projection by the names of all its values, which share one tensor."""
        self.norms: dict[str, RmsNorm] = {}
        self.frequencies: dict[str, tuple[float, ...]] = {}
        self.rotations: dict[tuple[float, ...], tuple[int, int]] = {}
        self.masks: dict[int | None, int] = {}
        self.weights: dict[str, int] = {}

    def build(self) -> Subgraph:
        """Lower every step of the blueprint up to what is asked for."""
        self._inputs()
        last = self.spec.executed_layers - 1
        for step in steps(self.spec):
            self._lower(step)
            if not self.logits and isinstance(step[0], Attention) and step[0].slot == last:
                break  # nothing after the last keys and values is asked for
        if self.logits:
            self.outputs["logits"] = self.values[LOGITS]
        self.graph.between(self.inputs, self.outputs)
        return self.graph, self.inputs, self.outputs

    def _inputs(self) -> None:
        context, t, spec = self.l.context, self.tokens, self.spec
        shapes: list[tuple[str, tuple[int, ...], str]] = [
            ("tokens", (1, t), "INT32"),
            ("input_pos", (t,), "INT32"),
            ("mask", (1, 1, t, context), "FLOAT32"),
        ]
        for slot in range(spec.executed_layers):
            keys = (1, spec.kv_heads, context, spec.head_dim)
            values = (1, spec.kv_heads, spec.head_dim, context)
            shapes += [(f"kv_cache_k_{slot}", keys, "FLOAT32")]
            shapes += [(f"kv_cache_v_{slot}", values, "FLOAT32")]
        for name, shape, type in shapes:
            self.inputs[name] = self.graph.tensor(f"{self.key}_{name}", shape, type)
        self._positions()

    def _positions(self) -> None:
        """What depends on positions alone: where to write, the rotations and the masks."""
        first = self.o.slice(self.inputs["input_pos"], (0,), (1,), "INT32")
        zero, two, three = (self.o.ints(f"zeros_{n}", [0] * n) for n in (1, 2, 3))
        self.key_start = self.o.concatenate([two, first, zero], 0, "INT32")
        self.value_start = self.o.concatenate([three, first], 0, "INT32")
        for table in self.l.tables:
            self.rotations[table] = self._rotation(table)

    def _rotation(self, frequencies: tuple[float, ...]) -> tuple[int, int]:
        """Cosines, and sines with the sign of the half they turn, each (1, T, head dim)."""
        angles = _angles(self.l.context, frequencies)
        cos = np.tile(np.cos(angles), 2)
        sin = np.concatenate([-np.sin(angles), np.sin(angles)], axis=1)
        number = self.l.tables.index(frequencies)
        made = []
        for name, values in (("cos", cos), ("sin", sin)):
            table = self.graph.constant(f"rotary_{name}_{number}", values.astype(np.float32))
            shape = (self.tokens, values.shape[1])
            gather = schema.GatherOptionsT(axis=0)
            row = self.o.op("GATHER", [table, self.inputs["input_pos"]], shape, gather)
            made.append(self.o.reshape(row, (1, 1, *shape)))
        return made[0], made[1]

    def _mask(self, window: int | None) -> int:
        """What is added to the scores of a key head's queries: (1, 1, group x T or 1, span)."""
        if window not in self.masks:
            mask = self.o.slice(self.inputs["mask"], (0, 0, 0, 0), (1, 1, self.tokens, self.span))
            if window is not None:
                mask = self.o.add(mask, self._before(window))
            group = self.spec.heads // self.spec.kv_heads
            if self.tokens > 1 and group > 1:
                mask = self.o.concatenate([mask] * group, axis=2)
            self.masks[window] = mask
        return self.masks[window]

    def _before(self, window: int) -> int:
        """Zero where the key lies within the window of the query, very low where before it.

        min(0, (window - 1/2 - ago) * FAR), which is 0 up to ago = window - 1.
        """
        t, span = self.tokens, self.span
        now = self.o.widen(self.inputs["input_pos"], "INT32")
        now = self.o.reshape(now, (1, 1, t, 1))
        limit = np.arange(span, dtype=np.float32) + np.float32(window - 0.5)
        limits = self.graph.constant(f"window_{window}", limit.reshape(1, 1, 1, span))
        shape = (1, 1, t, span)
        left = self.o.op("SUB", [limits, now], shape, schema.SubOptionsT())
        far = self.o.mul(left, self.o.number("far", FAR))
        low = [far, self.o.number("nothing", 0.0)]
        return self.o.op("MINIMUM", low, shape, schema.MaximumMinimumOptionsT())

    def _lower(self, step: Sequence[Operation]) -> None:
        first = step[0]
        if isinstance(first, Linear):
            self._linear([o for o in step if isinstance(o, Linear)])
            return
        match first:
            case Embed():
                self.values[first.output] = self._embed(first)
            case RmsNorm() if first.weight.role in ("attn_q_norm", "attn_k_norm"):
                self.norms[first.output] = first
            case RmsNorm():
                self.values[first.output] = self._norm(first)
            case Rotary():
                self.frequencies[first.output] = first.frequencies
            case Attention():
                self.values[first.output] = self._attention(first)
            case Gate():
                self.values[first.output] = self._gate(first)
            case Add():
                x, y = (self.values[i] for i in first.inputs)
                self.values[first.output] = self.o.add(x, y)

    def _embed(self, operation: Embed) -> int:
        shape = (self.tokens, self.spec.hidden)
        ids = self.o.reshape(self.inputs["tokens"], (self.tokens,), "INT32")
        rows = self._weight((operation.weight,))
        x = self.o.op("EMBEDDING_LOOKUP", [ids, rows], shape)
        if self.l.matrices((operation.weight,)).scales is not None:
            inputs = [self._scales((operation.weight,)), ids]
            scales = self.o.op("GATHER", inputs, (self.tokens,), schema.GatherOptionsT(axis=0))
            x = self.o.mul(x, self.o.reshape(scales, (self.tokens, 1)))
        x = self.o.reshape(x, (1, *shape))
        scale = operation.scale
        return x if scale == 1 else self.o.mul(x, self.o.number("embedding_scale", scale))

    def _norm(self, operation: RmsNorm) -> int:
        weight = self.l.vector(operation.weight)
        factor = self.graph.weight(stack_name([operation.weight]), weight)
        return self.o.rms_norm(self.values[operation.inputs[0]], factor, operation.eps)

    def _linear(self, operations: list[Linear]) -> None:
        """One product for all; its values are told apart where they are used."""
        x = self.values[operations[0].inputs[0]]
        made = self._product(x, tuple(o.weight for o in operations))
        biases = [o.bias for o in operations if o.bias is not None]
        if biases:
            values = np.concatenate([self.l.vector(b) for b in biases])
            made = self.o.add(made, self.graph.weight(stack_name(biases), values))
        if len(operations) == 1:
            self.values[operations[0].output] = made
        for operation in operations:
            self.together[operation.output] = made

    def _attention(self, operation: Attention) -> int:
        query, key, value = self._heads(operation)
        slot, spec = operation.slot, self.spec
        keys = self._remember(f"kv_cache_k_{slot}", key, self.key_start)
        values = self._remember(f"kv_cache_v_{slot}", value, self.value_start)
        mask = self._mask(operation.window)
        mixed = self._attend(query, keys, values, mask)
        if self.tokens == 1:
            return self.o.reshape(mixed, (1, 1, spec.heads * spec.head_dim))
        mixed = self.o.reshape(mixed, (1, spec.heads, self.tokens, spec.head_dim))
        mixed = self.o.transpose(mixed, (0, 2, 1, 3))
        return self.o.reshape(mixed, (1, self.tokens, spec.heads * spec.head_dim))

    def _heads(self, operation: Attention) -> tuple[int, int, int]:
        """Query (1, kv heads, group x T, width), key (1, kv heads, T, width), value turned."""
        spec, t, d = self.spec, self.tokens, operation.head_dim
        heads, kv = spec.heads, spec.kv_heads
        x = self.together[operation.inputs[0]]
        assert x == self.together[operation.inputs[1]] == self.together[operation.inputs[2]]
        x = self.o.reshape(x, (1, t, heads + 2 * kv, d)) if t > 1 else x
        count = (1, heads + 2 * kv, t, d)
        x = self.o.transpose(x, (0, 2, 1, 3)) if t > 1 else self.o.reshape(x, count)
        turned = self.o.slice(x, (0, 0, 0, 0), (1, heads + kv, t, d))
        if operation.inputs[0] in self.norms:
            turned = self._head_norms(turned, operation)
        turned = self._rotate(turned, self.frequencies[operation.inputs[0]])
        query = self.o.slice(turned, (0, 0, 0, 0), (1, heads, t, d))
        query = self.o.reshape(query, (1, kv, heads // kv * t, d))
        key = self.o.slice(turned, (0, heads, 0, 0), (1, kv, t, d))
        value = self.o.slice(x, (0, heads + kv, 0, 0), (1, kv, t, d))
        if t == 1:
            return query, key, self.o.reshape(value, (1, kv, d, 1))
        return query, key, self.o.transpose(value, (0, 1, 3, 2))

    def _head_norms(self, x: int, operation: Attention) -> int:
        """The norms of queries and keys in one, as their factors stand side by side."""
        q, k = (self.norms[i] for i in operation.inputs[:2])
        rows = [self.l.vector(q.weight)] * self.spec.heads
        rows += [self.l.vector(k.weight)] * self.spec.kv_heads
        factor = self.graph.weight(head_norms(q.weight), np.stack(rows)[None, :, None, :])
        return self.o.rms_norm(x, factor, q.eps)

    def _rotate(self, x: int, frequencies: tuple[float, ...]) -> int:
        """x * cos + (second half, first half) * (-sin, sin)."""
        shape = self.graph.shape(x)
        cos, sin = self.rotations[frequencies]
        half = (*shape[:-1], shape[-1] // 2)
        first = self.o.slice(x, (0, 0, 0, 0), half)
        second = self.o.slice(x, (0, 0, 0, half[-1]), half)
        swapped = self.o.concatenate([second, first], axis=3)
        return self.o.add(self.o.mul(x, cos), self.o.mul(swapped, sin))

    def _remember(self, name: str, part: int, start: int) -> int:
        cache = self.inputs[name]
        written = self.graph.tensor(f"{self.key}_{name}_output", self.graph.shape(cache))
        options = schema.DynamicUpdateSliceOptionsT()
        self.outputs[name] = self.graph.op(
            "DYNAMIC_UPDATE_SLICE", [cache, part, start], written, options
        )
        return self.outputs[name]

    def _attend(self, query: int, keys: int, values: int, mask: int) -> int:
        """(1, kv heads, queries, width), the queries of a key head together."""
        _, kv, _, width = self.graph.shape(query)
        if self.span < self.l.context:
            keys = self.o.slice(keys, (0, 0, 0, 0), (1, kv, self.span, width))
            values = self.o.slice(values, (0, 0, 0, 0), (1, kv, width, self.span))
        scores = self.o.add(self.o.matmul(query, keys), mask)
        return self.o.matmul(self.o.softmax(scores), values)

    def _gate(self, operation: Gate) -> int:
        x = self.together[operation.inputs[0]]
        shape = (1, self.tokens, self.spec.intermediate)
        gate = self.o.slice(x, (0, 0, 0), shape)
        up = self.o.slice(x, (0, 0, self.spec.intermediate), shape)
        if operation.activation == "silu":
            share = self.o.op("LOGISTIC", [gate], shape)
            active = self.o.mul(gate, share)
        else:
            active = self.o.op("GELU", [gate], shape, schema.GeluOptionsT(approximate=True))
        return self.o.mul(active, up)

    def _product(self, x: int, tensors: tuple[Tensor, ...]) -> int:
        """x times a matrix; scales of rows are multiplied with afterwards.

        The format can name them in the product too, but tflite-runtime 2.14 then takes the first
        row's for all of them, without a word.
        """
        matrix = self.l.matrices(tensors)
        shape = (1, self.tokens, matrix.rows)
        options = schema.FullyConnectedOptionsT(keepNumDims=True, asymmetricQuantizeInputs=True)
        inputs = [x, self._weight(tensors), ABSENT]
        made = self.o.op("FULLY_CONNECTED", inputs, shape, options)
        if matrix.scales is None or matrix.block:
            return made
        return self.o.mul(made, self._scales(tensors))

    def _weight(self, tensors: tuple[Tensor, ...]) -> int:
        """The tensor of a matrix, made once per graph."""
        matrix = self.l.matrices(tensors)
        name = stack_name(tensors)
        if name not in self.weights:
            quantization = None if matrix.scales is None else Quantization()
            if matrix.block:
                quantization = Quantization(block=matrix.block, scales=self._scales(tensors))
            self.weights[name] = self.graph.tensor(
                name, (matrix.rows, matrix.cols), matrix.type, buffer=matrix.buffer,
                quantization=quantization,
            )  # fmt: skip
        return self.weights[name]

    def _scales(self, tensors: tuple[Tensor, ...]) -> int:
        """The tensor of a matrix's scales, made once per graph."""
        name = f"{stack_name(tensors)}.scales"
        scales = self.l.matrices(tensors).scales
        if name not in self.weights:
            assert scales is not None, name
            self.weights[name] = self.graph.weight(name, scales)
        return self.weights[name]


def _angles(positions: int, frequencies: tuple[float, ...]) -> Any:
    """Radians by which each pair is turned at each position."""
    return np.arange(positions)[:, None] * np.array(frequencies)
