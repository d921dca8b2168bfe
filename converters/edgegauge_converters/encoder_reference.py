"""An encoder's forward pass in NumPy: what every converted file is compared with.

    made = EncoderReference(spec, weights).encode([101, 7592, 102])
    made.hidden             # (tokens, hidden)
    made.embedding          # (hidden,)

It interprets `encoder_blueprint.py`, one text at a time and so without padding, and favours the
plain formula over speed. `tests/data/golden_embeddings` pins it to the transformers library.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from edgegauge.encoder import EncoderSpec
from edgegauge.errors import InputError
from edgegauge.model import Tensor
from edgegauge_converters.blueprint import Add, Linear
from edgegauge_converters.encoder_blueprint import (
    EMBEDDING,
    HIDDEN,
    LEAST_LENGTH,
    Attend,
    Gelu,
    LayerNorm,
    Lookup,
    Normalise,
    Operation,
    Pool,
    encoder_blueprint,
)
from edgegauge_converters.reference import Array, Weights, plain_weight

Rounding = Callable[[Operation, list[Array]], list[Array]]
"""Gives what an operation reads, from its exact inputs."""

NOTHING: Mapping[str, Array] = {}

_erf = np.frompyfunc(math.erf, 1, 1)


def exactly(_: Operation, inputs: list[Array]) -> list[Array]:
    """The rounding that changes nothing."""
    return inputs


@dataclass(frozen=True, slots=True)
class Encoded:
    """A text's tokens (tokens, hidden), and its one vector (hidden,)."""

    hidden: Array
    embedding: Array


class EncoderReference:
    """An encoder that can be asked for vectors; `dtype` is float32 or float64."""

    def __init__(self, spec: EncoderSpec, weights: Weights, dtype: type = np.float32) -> None:
        self.spec = spec
        self._weights = weights
        self._dtype = dtype

    def encode(self, tokens: Sequence[int], types: Sequence[int] | None = None) -> Encoded:
        """The vectors of one text; `types` are zeros unless given. InputError."""
        made = {operation.output: value for operation, value in self.values(tokens, types)}
        return Encoded(made[HIDDEN], made[EMBEDDING])

    def values(
        self,
        tokens: Sequence[int],
        types: Sequence[int] | None = None,
        rounded: Rounding = exactly,
        instead: Mapping[str, Array] = NOTHING,
    ) -> Iterator[tuple[Operation, Array]]:
        """Every operation on one text with its value, in order, as `Reference.values`."""
        spec = self.spec
        ids = {
            "input_ids": self._ids("token ids", tokens, spec.vocab),
            "token_type_ids": self._ids(
                "token types", types or [0] * len(tokens), max(spec.token_types, 1)
            ),
            "position": np.arange(len(tokens)),
        }
        if len(tokens) > spec.positions or len(ids["token_type_ids"]) != len(tokens):
            raise InputError(f"expected up to {spec.positions} tokens, each with its type")
        values: dict[str, Array] = {}
        for operation in encoder_blueprint(spec):
            read = rounded(operation, [values[name] for name in operation.inputs])
            values[operation.output] = self._apply(operation, read, ids)
            yield operation, values[operation.output]
            if operation.output in instead:
                values[operation.output] = instead[operation.output]

    def _ids(self, what: str, given: Sequence[int], limit: int) -> Array:
        ids = np.asarray(given, dtype=np.int64)
        if ids.ndim != 1 or not ids.size or ids.min() < 0 or ids.max() >= limit:
            raise InputError(f"expected {what} from 0 to {limit - 1}")
        return ids

    def _apply(self, operation: Operation, inputs: list[Array], ids: dict[str, Array]) -> Array:
        """The value of one operation."""
        match operation:
            case Lookup():
                return self._weight(operation.weight)[ids[operation.by]]
            case Add():
                return inputs[0] + inputs[1]
            case LayerNorm():
                centred = inputs[0] - inputs[0].mean(axis=-1, keepdims=True)
                spread = np.sqrt(
                    np.mean(np.square(centred), axis=-1, keepdims=True) + operation.eps
                )
                weight, bias = self._weight(operation.weight), self._weight(operation.bias)
                normed: Array = weight * (centred / spread) + bias
                return normed
            case Linear():
                assert operation.bias is not None
                made: Array = inputs[0] @ self._weight(operation.weight).T
                return made + self._weight(operation.bias)
            case Attend():
                return _attend(operation.heads, *inputs)
            case Gelu():
                return _gelu(inputs[0], operation.tanh)
            case Pool(kind="mean"):
                mean: Array = inputs[0].mean(axis=0)
                return mean
            case Pool():
                first: Array = inputs[0][0]
                return first
            case Normalise():
                length = max(float(np.sqrt(np.sum(np.square(inputs[0])))), LEAST_LENGTH)
                scaled: Array = inputs[0] / inputs[0].dtype.type(length)
                return scaled

    def _weight(self, tensor: Tensor) -> Array:
        return plain_weight(self._weights, tensor, self._dtype)


def _attend(heads: int, query: Array, key: Array, value: Array) -> Array:
    q, k, v = (x.reshape(len(x), heads, -1).swapaxes(0, 1) for x in (query, key, value))
    scores = q @ k.swapaxes(1, 2) / math.sqrt(q.shape[2])
    shares = np.exp(scores - scores.max(axis=-1, keepdims=True))
    mixed: Array = (shares / shares.sum(axis=-1, keepdims=True)) @ v
    return mixed.swapaxes(0, 1).reshape(query.shape)


def _gelu(x: Array, tanh: bool) -> Array:
    """Hendrycks and Gimpel 2016 (arXiv 1606.08415), both forms."""
    if tanh:
        inner: Array = np.tanh(math.sqrt(2 / math.pi) * (x + 0.044715 * x**3))
    else:
        inner = np.asarray(_erf(x * math.sqrt(0.5)), x.dtype)
    made: Array = 0.5 * x * (1 + inner)
    return made
