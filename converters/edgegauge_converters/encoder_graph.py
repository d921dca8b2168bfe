"""An encoder's blueprint lowered to an ONNX graph of ONNX Runtime's fused operators.

    graph = lower(spec, layout)

Inputs are `input_ids`, `attention_mask` and, where the model has token types, `token_type_ids`, all
int64 (batch_size, sequence_length), both free. Outputs are `last_hidden_state` (batch_size,
sequence_length, hidden) and `sentence_embedding` (batch_size, hidden), the names that transformers
and sentence-transformers give them. Tokens whose mask is 0 change neither the others nor the
embedding.

Biases are added by what follows a product: by the attention, by the activation (BiasGelu,
FastGelu), and by SkipLayerNormalization together with the sum and the norm. Operators of the domain
com.microsoft are described in ONNX Runtime's `docs/ContribOperators.md`.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from edgegauge.encoder import EncoderSpec
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
from edgegauge_converters.onnx_builder import MICROSOFT, Builder
from edgegauge_converters.onnx_file import FLOAT, INT32, INT64, Graph, Value
from edgegauge_converters.onnx_layout import Layout

HIDDEN_KEY = -3.4e38
"""What a masked key's score becomes: the lowest float32, as in transformers."""


def lower(spec: EncoderSpec, layout: Layout) -> Graph:
    """The graph of this encoder with its weights where the layout puts them."""
    return _Lowering(spec, layout).graph()


class _Lowering:
    """One pass over the blueprint; `values` says what each of its names is in the graph by now."""

    def __init__(self, spec: EncoderSpec, layout: Layout) -> None:
        self._spec = spec
        self._made = Builder(layout)
        self._values: dict[str, str] = {}
        self._biases: dict[str, Tensor] = {}
        """Names to which a bias has still to be added."""
        self._projected: dict[str, tuple[str, int]] = {}
        """Names that are a stretch of a wider product: which value, and the number of stretches."""
        self._operations: Sequence[Operation] = list(encoder_blueprint(spec))

    def graph(self) -> Graph:
        """Lower everything."""
        self._declare()
        at = 0
        while at < len(self._operations):
            at += self._lower(at)
        return self._made.graph

    def _declare(self) -> None:
        graph, tokens = self._made.graph, ("batch_size", "sequence_length")
        names = ["input_ids", "attention_mask"]
        names += ["token_type_ids"] if self._spec.token_types else []
        graph.inputs += [Value(name, INT64, tokens) for name in names]
        graph.outputs.append(Value(HIDDEN, FLOAT, (*tokens, self._spec.hidden)))
        graph.outputs.append(Value(EMBEDDING, FLOAT, ("batch_size", self._spec.hidden)))
        self._made.node("Cast", ["attention_mask"], "mask", to=INT32)

    def _lower(self, at: int) -> int:
        """Lower the operation at this place, and those after it that fuse with it; their count."""
        operation = self._operations[at]
        match operation:
            case Lookup():
                self._values[operation.output] = self._lookup(operation)
            case Add():
                return self._add(at, operation)
            case Linear():
                return self._linear(at, operation)
            case Attend():
                self._values[operation.output] = self._attend(operation)
            case Gelu():
                self._values[operation.output] = self._gelu(operation)
            case Pool():
                self._values[operation.output] = self._pool(operation)
            case Normalise():
                self._values[operation.output] = self._normalise(operation)
            case LayerNorm():
                raise AssertionError("a norm follows a sum")
        return 1

    def _lookup(self, operation: Lookup) -> str:
        if operation.by != "position":
            return self._made.rows(operation.weight, operation.by)
        length = self._made.node("Shape", ["input_ids"], start=1, end=2)
        zero = self._made.constant("zero", np.array([0]))
        return self._made.node("Slice", [self._made.floats(operation.weight), zero, length, zero])

    def _add(self, at: int, operation: Add) -> int:
        """The sum, together with the norm that follows it and the bias of what is added."""
        first, second = (self._values[name] for name in operation.inputs)
        norm = self._operations[at + 1]
        if not isinstance(norm, LayerNorm):
            self._values[operation.output] = self._made.node("Add", [first, second])
            return 1
        bias = self._biases.pop(operation.inputs[1], None)
        inputs = [first, second, self._made.floats(norm.weight), self._made.floats(norm.bias)]
        if bias is not None:
            inputs.append(self._made.floats(bias))
        self._values[norm.output] = self._made.node(
            "SkipLayerNormalization", inputs, norm.output, domain=MICROSOFT, epsilon=norm.eps
        )
        return 2

    def _linear(self, at: int, first: Linear) -> int:
        """A product with every projection that is stored in the same group; their count."""
        group = self._made.layout.place(first.weight)
        run = [
            op for op in self._operations[at : at + len(group.members)] if isinstance(op, Linear)
        ]
        assert [op.weight.role for op in run] == [m.tensor.role for m in group.members]
        product = self._made.product(self._values[first.inputs[0]], group)
        names: tuple[str, ...] = (product,)
        if len(run) > 1:
            names = tuple(f"{op.output}.{len(self._made.graph.nodes)}" for op in run)
            sizes = self._made.constant("widths", np.array([op.weight.rows for op in run]))
            self._made.node("Split", [product, sizes], *names, axis=-1)
        for op, name in zip(run, names, strict=True):
            assert op.bias is not None
            self._values[op.output], self._biases[op.output] = name, op.bias
        return len(run)

    def _attend(self, operation: Attend) -> str:
        """The three biases are stored together, as the operator wants them."""
        biases = [self._biases.pop(name) for name in operation.inputs]
        bias = self._made.floats(biases[0])
        assert self._made.layout.place(biases[0]) == self._made.layout.place(biases[2])
        inputs = [*(self._values[name] for name in operation.inputs), bias, "mask"]
        return self._made.node(
            "MultiHeadAttention", inputs, domain=MICROSOFT, num_heads=operation.heads,
            mask_filter_value=HIDDEN_KEY,
        )  # fmt: skip

    def _gelu(self, operation: Gelu) -> str:
        name = operation.inputs[0]
        inputs = [self._values[name], self._made.floats(self._biases.pop(name))]
        operator = "FastGelu" if operation.tanh else "BiasGelu"
        return self._made.node(operator, inputs, domain=MICROSOFT)

    def _pool(self, operation: Pool) -> str:
        made, hidden = self._made, self._values[operation.inputs[0]]
        output = (operation.output,) if operation.output == EMBEDDING else ()
        if operation.kind == "cls":
            first = made.constant("first", np.array(0))
            return made.node("Gather", [hidden, first], *output, axis=1)
        one = made.constant("one", np.array([1]))
        weights = made.node("Cast", ["attention_mask"], to=FLOAT)
        total = made.node("MatMul", [made.node("Unsqueeze", [weights, one]), hidden])
        count = made.node("ReduceSum", [weights, one], keepdims=1)
        least = made.constant("least_tokens", np.array(LEAST_TOKENS, np.float32))
        divisor = made.node("Max", [count, least])
        return made.node("Div", [made.node("Squeeze", [total, one]), divisor], *output)

    def _normalise(self, operation: Normalise) -> str:
        made, value = self._made, self._values[operation.inputs[0]]
        last = made.constant("last", np.array([-1]))
        length = made.node("ReduceL2", [value, last], keepdims=1)
        least = made.constant("least_length", np.array(LEAST_LENGTH, np.float32))
        return made.node("Div", [value, made.node("Max", [length, least])], operation.output)
