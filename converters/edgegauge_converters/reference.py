"""The forward pass in NumPy: the ground truth that every converted file is compared with.

    reference = Reference(spec, weights)          # weights: Tensor -> float array
    logits = reference.logits(tokens)             # (tokens, vocab), from an empty context

It interprets `blueprint.py` in float32 (or float64, to tell rounding from mistakes), holds one
weight at a time, and favours the plain formula over speed. `tests/data/golden_logits` pins it to
the numbers of the transformers library.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgegauge.errors import InputError
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

Array = NDArray[Any]
Weights = Callable[[Tensor], Array]
"""Gives each tensor of the spec in the blueprint's plain form: (rows, cols), or (cols,)."""

Rounding = Callable[[Operation, list[Array]], list[Array]]
"""Gives what an operation reads, from its exact inputs."""

HEAD_ROWS = 32
"""Rows of logits computed at once: a row of a large vocabulary takes 1 MB."""

NOTHING: Mapping[str, Array] = {}


def exactly(_: Operation, inputs: list[Array]) -> list[Array]:
    """The rounding that changes nothing."""
    return inputs


@dataclass(slots=True)
class Cache:
    """Keys and values of the tokens seen so far, by attention slot, each (tokens, kv width)."""

    tokens: int = 0
    keys: dict[int, Array] = field(default_factory=dict)
    values: dict[int, Array] = field(default_factory=dict)


def plain_weight(weights: Weights, tensor: Tensor, dtype: type) -> Array:
    """A tensor's values in this type, (cols,) or (rows, cols); InputError for another shape."""
    weight: Array = np.asarray(weights(tensor), dtype=dtype)
    expected = (tensor.cols,) if tensor.is_vector else (tensor.rows, tensor.cols)
    if weight.shape != expected:
        raise InputError(
            f"{tensor.role} of layer {tensor.layer}: expected shape {expected}, got {weight.shape}"
        )
    return weight


class Reference:
    """A model that can be asked for logits; `dtype` is float32 or float64."""

    def __init__(self, spec: ModelSpec, weights: Weights, dtype: type = np.float32) -> None:
        self.spec = spec
        self._weights = weights
        self._dtype = dtype
        self.operations = list(blueprint(spec))
        """Those of the blueprint, in order."""

    def logits(self, tokens: Sequence[int], cache: Cache | None = None) -> Array:
        """Logits (tokens, vocab) after each token; with a cache, of tokens that follow it.

        The cache is extended, so that a prompt and then single tokens give what one call on the
        whole text gives. Raises InputError for an id outside the vocabulary.
        """
        ids = np.asarray(tokens, dtype=np.int64)
        if ids.ndim != 1 or not ids.size or ids.min() < 0 or ids.max() >= self.spec.vocab:
            raise InputError(f"expected token ids from 0 to {self.spec.vocab - 1}")
        run = _Run(ids, cache if cache is not None else Cache(), self._weight)
        for operation, value in self._values(run, self.operations, exactly, {}):
            if operation.output == LOGITS:
                logits = value
        run.cache.tokens += len(ids)
        return logits

    def values(
        self,
        tokens: Sequence[int],
        rounded: Rounding = exactly,
        instead: Mapping[str, Array] = NOTHING,
    ) -> Iterator[tuple[Operation, Array]]:
        """Every operation from an empty context with its value, in order, but the logits.

        `rounded` changes what operations read, as a runtime does that computes in fewer bits.
        A value whose name is in `instead` is given here and then replaced, so that what follows is
        computed from the value there, such as a runtime's own.
        """
        run = _Run(np.asarray(tokens, dtype=np.int64), Cache(), self._weight)
        return self._values(run, self.operations[:-1], rounded, instead)

    def head(self, hidden: Array, rounded: Rounding = exactly) -> Iterator[Array]:
        """The logits (vocab,) of each row of the last value of `values`, a few rows at a time."""
        operation = self.operations[-1]
        assert isinstance(operation, Linear)
        weight = self._weight(operation.weight)
        (read,) = rounded(operation, [hidden])
        for start in range(0, len(read), HEAD_ROWS):
            yield from read[start : start + HEAD_ROWS] @ weight.T

    def _values(
        self,
        run: _Run,
        operations: Sequence[Operation],
        rounded: Rounding,
        instead: Mapping[str, Array],
    ) -> Iterator[tuple[Operation, Array]]:
        values: dict[str, Array] = {}
        for operation in operations:
            read = rounded(operation, [values[i] for i in operation.inputs])
            values[operation.output] = run.apply(operation, read)
            if isinstance(operation, Add):  # the stream moved on: its old value is dead
                del values[operation.inputs[0]]
            yield operation, values[operation.output]
            if operation.output in instead:
                values[operation.output] = instead[operation.output]

    def _weight(self, tensor: Tensor) -> Array:
        return plain_weight(self._weights, tensor, self._dtype)


@dataclass(slots=True)
class _Run:
    """One forward pass: the tokens, what came before them, and where weights come from."""

    ids: Array
    cache: Cache
    weight: Callable[[Tensor], Array]

    def apply(self, operation: Operation, inputs: list[Array]) -> Array:
        """The value of one operation."""
        match operation:
            case Embed():
                return self.weight(operation.weight)[self.ids] * operation.scale
            case RmsNorm():
                return _rms_norm(inputs[0], self.weight(operation.weight), operation.eps)
            case Linear():
                made = inputs[0] @ self.weight(operation.weight).T
                return made if operation.bias is None else made + self.weight(operation.bias)
            case Rotary():
                return self._rotate(inputs[0], np.array(operation.frequencies))
            case Attention():
                return self._attend(operation, *inputs)
            case Gate(activation="silu"):
                return _silu(inputs[0]) * inputs[1]
            case Gate():
                return _gelu_tanh(inputs[0]) * inputs[1]
            case Add():
                return inputs[0] + inputs[1]

    def _rotate(self, x: Array, frequencies: Array) -> Array:
        """Turn each pair (first half, second half) of each head by its position's angle."""
        positions = self.cache.tokens + np.arange(len(x))
        angles = positions[:, None] * frequencies  # float64: positions may be large
        cos, sin = (f(angles).astype(x.dtype)[:, None, :] for f in (np.cos, np.sin))
        heads = x.reshape(len(x), -1, 2 * len(frequencies))
        first, second = np.split(heads, 2, axis=-1)
        turned = np.concatenate([first * cos - second * sin, second * cos + first * sin], axis=-1)
        return turned.reshape(x.shape)

    def _attend(self, operation: Attention, query: Array, key: Array, value: Array) -> Array:
        """softmax(scale * q.k, causal and within the window) . v, queries sharing their key head.

        Positions are counted over the cache, whose keys are already rotated.
        """
        slot, width = operation.slot, operation.head_dim
        cache = self.cache
        if slot in cache.keys:
            key = np.concatenate([cache.keys[slot], key])
            value = np.concatenate([cache.values[slot], value])
        cache.keys[slot], cache.values[slot] = key, value
        hidden = self._mask(len(query), len(key), operation.window)
        k, v = (x.reshape(len(x), -1, width).swapaxes(0, 1) for x in (key, value))
        q = query.reshape(len(query), len(k), -1, width)  # (tokens, kv heads, group, width)
        mixed = np.empty_like(q)
        for head in range(len(k)):
            for member in range(q.shape[2]):
                scores = q[:, head, member] @ k[head].T * operation.scale
                scores[hidden] = -np.inf
                mixed[:, head, member] = _softmax(scores) @ v[head]
        return mixed.reshape(len(query), -1)

    def _mask(self, queries: int, keys: int, window: int | None) -> Array:
        """Which (query, key) pairs are hidden: keys that come later or lie before the window."""
        ago = (keys - queries + np.arange(queries))[:, None] - np.arange(keys)
        return (ago < 0) if window is None else (ago < 0) | (ago >= window)


def _rms_norm(x: Array, weight: Array, eps: float) -> Array:
    """Over the whole width, or per head where the weight is one head long."""
    parts = x.reshape(len(x), -1, len(weight))
    mean_square = np.mean(np.square(parts), axis=-1, keepdims=True)
    normed: Array = parts / np.sqrt(mean_square + eps) * weight
    return normed.reshape(x.shape)


def _softmax(scores: Array) -> Array:
    shifted = np.exp(scores - scores.max(axis=-1, keepdims=True))
    normalized: Array = shifted / shifted.sum(axis=-1, keepdims=True)
    return normalized


def _silu(x: Array) -> Array:
    """x * sigmoid(x), with the sigmoid as a tanh, which cannot overflow."""
    made: Array = x * (0.5 + 0.5 * np.tanh(0.5 * x))
    return made


def _gelu_tanh(x: Array) -> Array:
    """GELU in its tanh form (Hendrycks and Gimpel 2016, arXiv 1606.08415)."""
    made: Array = 0.5 * x * (1 + np.tanh(np.sqrt(2 / np.pi) * (x + 0.044715 * x**3)))
    return made
