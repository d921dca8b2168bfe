"""What storing some weights in other types does to a model's answers, measured with the reference.

    passes = Passes(spec, weights, "gguf", tokens, starts=(0, 10, 20), threads=2)
    passes.divergences([{tensor: "Q4_0"}, {tensor: "Q8_0"}], start=10)

gives, for each of these variants, the KL divergence from the model at its own weights after every
token, in nats. A variant is the types of the tensors that it stores; the others stay as they are.
Its products also read their inputs as the runtime would for such types (`rounding.py`), since that
is a part of what a type costs.

Variants go side by side, so that every weight is read and widened once for all of them. What comes
before the first layer that they change is the same for all, was computed once, and is resumed from.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from itertools import islice
from threading import RLock

import numpy as np

from edgegauge.evaluate.agreement import Comparison
from edgegauge.model import ModelSpec, Tensor
from edgegauge_converters.blueprint import Embed, Linear, Operation
from edgegauge_converters.reference import HEAD_ROWS, Array, Reference, Rounding, Weights
from edgegauge_converters.rounding import runtime_rounding
from edgegauge_converters.stored_values import stored_values

SIDE_BY_SIDE = 8
"""Variants at once: each holds its own values of one block, and some rows of logits."""
HELD_ELEMENTS = 2**25
"""And one weight, so fewer of a large embedding: this many elements in all."""

Types = Mapping[Tensor, str]
Done = Callable[[int], None]
"""Called with how many variants have been run."""


class Passes:
    """Passes over one text; `starts` are the executed layers that `divergences` may start at."""

    def __init__(
        self, spec: ModelSpec, weights: Weights, file_format: str, tokens: Sequence[int],
        starts: Sequence[int], threads: int,
    ) -> None:  # fmt: skip
        self._spec, self._tokens, self._threads = spec, tokens, threads
        self._format, self._keep = file_format, stored_values(file_format)
        self._weights = _Shared(weights)
        self._exact = Reference(spec, self._weights)
        self._resumed: dict[int, Array] = {}
        points = {f"x{start}": start for start in starts}
        for operation, value in self._exact.values(tokens):
            if operation.output in points:
                self._resumed[points[operation.output]] = value
        self._final = value

    def divergences(
        self, variants: Sequence[Types], start: int | None = None, done: Done = lambda count: None
    ) -> list[list[float]]:
        """Nats after each token, for each variant.

        `start` is a layer that none of them changes anything before; None: from the embedding on.
        """
        found: list[list[float]] = []
        largest = max((t.elements for types in variants for t in types), default=1)
        size = max(1, min(SIDE_BY_SIDE, HELD_ELEMENTS // largest))
        for first in range(0, len(variants), size):
            found += self._side_by_side(variants[first : first + size], start)
            done(len(found))
        return found

    def _side_by_side(self, variants: Sequence[Types], start: int | None) -> list[list[float]]:
        references = [self._reference(types, start) for types in variants]
        roundings = [self._rounding(types) for types in variants]
        tokens = self._tokens if start is None else range(len(self._tokens))
        passes = [r.values(tokens, how) for r, how in zip(references, roundings, strict=True)]
        with ThreadPoolExecutor(self._threads) as pool:  # NumPy releases Python's lock
            for _ in references[0].operations[:-1]:
                hidden = [value for _, value in pool.map(_next, passes)]
            heads = [self._exact.head(self._final)]
            for reference, value, how in zip(references, hidden, roundings, strict=True):
                heads.append(reference.head(value, how))
            return _compared(heads, pool)

    def _reference(self, types: Types, start: int | None) -> Reference:
        """A reference at these types; from a start on, its embedding is the values up to there."""
        spec = self._spec
        resumed = Tensor("token_embd", None, len(self._tokens), spec.hidden)

        def weights(tensor: Tensor) -> Array:
            if start is not None and tensor is resumed:
                return self._resumed[start]
            values = self._weights(tensor)
            return self._keep(values, types[tensor]) if tensor in types else values

        reference = Reference(spec, weights)
        if start is not None:
            point = f"x{start}"
            at = next(i for i, o in enumerate(reference.operations) if o.output == point)
            reference.operations[: at + 1] = [Embed(point, resumed, 1.0)]
        return reference

    def _rounding(self, types: Types) -> Rounding:
        """The runtime's; only in products whose weights the variant stores, unless that is all."""
        runtime = runtime_rounding(self._format, types.__getitem__)
        if all(tensor.is_vector or tensor in types for tensor in self._spec.tensors()):
            return runtime

        def rounded(operation: Operation, inputs: list[Array]) -> list[Array]:
            stored = isinstance(operation, Linear) and operation.weight in types
            return runtime(operation, inputs) if stored else inputs

        return rounded


def _next(steps: Iterator[tuple[Operation, Array]]) -> tuple[Operation, Array]:
    return next(steps)


def _compared(heads: list[Iterator[Array]], pool: ThreadPoolExecutor) -> list[list[float]]:
    """The divergences of all heads but the first from it, some rows at a time."""
    found = [Comparison() for _ in heads[1:]]
    while True:
        expected, *computed = pool.map(_rows, heads)
        if not expected:
            return [each.kl for each in found]
        adding = partial(_add, np.stack(expected))
        list(pool.map(adding, found, computed))


def _add(expected: Array, found: Comparison, computed: list[Array]) -> None:
    found.add(expected, np.stack(computed))


def _rows(head: Iterator[Array]) -> list[Array]:
    return list(islice(head, HEAD_ROWS))


class _Shared:
    """Weights of which the last two asked for are kept: a matrix and its bias."""

    def __init__(self, weights: Weights) -> None:
        self._weights = weights
        self._kept: dict[Tensor, Array] = {}
        self._lock = RLock()

    def __call__(self, tensor: Tensor) -> Array:
        with self._lock:
            if tensor not in self._kept:
                for old in list(self._kept)[:-1]:
                    del self._kept[old]
                self._kept[tensor] = self._weights(tensor)
            return self._kept[tensor]
