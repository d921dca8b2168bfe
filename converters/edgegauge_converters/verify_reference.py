"""What an artifact should compute: the references at its own and at the original weights.

    expected = expect(spec, weights, tokens, rounding, threads, progress)

Three forward passes go side by side, so that each weight is read once: exact, rounded as the
runtime rounds (`rounding.py`), and, where there is a checkpoint, exact at its weights. The
differences of the first two say what departure is to be expected at every place.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from threading import RLock

import numpy as np

from edgegauge.model import ModelSpec, Role, Tensor
from edgegauge.recipe import StoredTensor
from edgegauge_converters.blueprint import Operation
from edgegauge_converters.reference import Array, Reference, Rounding, Weights

SLACK = 2.0
"""A departure of this many times the expected one is allowed; the largest seen is 1.06."""

FLOOR = 2e-4
"""And at least this, in standard deviations: float32 sums in another order, amplified."""

GROWN = 1.2
"""Where no point is beyond what is allowed, but the logits are, the one that departs most is named
if it is beyond this many times what is expected."""

ALLOWED_ERRORS = ((30, 1e-5), (15, 2e-3), (7, 0.1), (0, 0.4))
"""Bits per weight from which on, and the relative error that storing a tensor in them may make. A
tensor in the place of another is off by 1.4, one scaled by 2 by 1 and by 1/2 by 0.5."""

CHUNK_ROWS = 4096
KEPT = 2
"""Weights held at a time: a matrix and its bias."""

Key = tuple[Role, int | None]


@dataclass(frozen=True, slots=True)
class TensorError:
    """How far a stored tensor is from the checkpoint's, and how far its type may be."""

    name: str
    error: float
    allowed: float

    @property
    def excess(self) -> float:
        """Above 1 it is another tensor."""
        return self.error / self.allowed


class BothWeights:
    """Weights as stored and, where there is a checkpoint, as they were; compared on the way."""

    def __init__(
        self, stored: Weights, original: Weights | None, types: Sequence[StoredTensor]
    ) -> None:
        self._stored, self._original = stored, original
        self._bits = {(s.tensor.role, s.tensor.layer): 8 * s.bytes / s.tensor.elements
                      for s in types}  # fmt: skip
        self._kept: dict[tuple[bool, Key], Array] = {}
        self._lock = RLock()
        self.errors: dict[Key, TensorError] = {}

    @property
    def has_original(self) -> bool:
        """Whether there is a checkpoint."""
        return self._original is not None

    def stored(self, tensor: Tensor) -> Array:
        """The values in the file."""
        with self._lock:
            value = self._once(tensor, True, self._stored)
            key = (tensor.role, tensor.layer)
            if self._original is not None and key not in self.errors:
                allowed = next(a for bits, a in ALLOWED_ERRORS if self._bits[key] >= bits)
                error = relative_error(value, self.original(tensor))
                self.errors[key] = TensorError(name_of(tensor), error, allowed)
            return value

    def original(self, tensor: Tensor) -> Array:
        """The values in the checkpoint."""
        assert self._original is not None
        with self._lock:
            return self._once(tensor, False, self._original)

    def _once(self, tensor: Tensor, stored: bool, weights: Weights) -> Array:
        key = (stored, (tensor.role, tensor.layer))
        if key not in self._kept:
            of_this = [k for k in self._kept if k[0] == stored]
            for old in of_this[: len(of_this) - KEPT + 1]:
                del self._kept[old]
            self._kept[key] = np.asarray(weights(tensor), np.float32)
        return self._kept[key]


@dataclass(slots=True)
class Expected:
    """Final values of each pass (tokens, hidden), and the stream of values on the way there."""

    exact: Array
    rounded: Array
    original: Array | None
    stream: dict[str, Array] = field(default_factory=dict)
    """By point (x0, x0.5, x1, ...): the exact values (tokens, hidden)."""
    noise: dict[str, float] = field(default_factory=dict)
    """By point: relative root mean square that rounding is expected to make."""


def expect(
    spec: ModelSpec,
    weights: BothWeights,
    tokens: Sequence[int],
    rounding: Rounding,
    threads: int,
    progress: Callable[[float], None],
) -> Expected:
    """Run the passes, on so many threads."""
    exact = Reference(spec, weights.stored)
    made = Expected(np.empty(0), np.empty(0), None)
    passes: list[Iterator[tuple[Operation, Array]]] = [
        exact.values(tokens),
        exact.values(tokens, rounding),
    ]
    if weights.has_original:
        passes.append(Reference(spec, weights.original).values(tokens))
    total = len(exact.operations)
    # NumPy releases Python's lock, so the passes do each operation side by side.
    with ThreadPoolExecutor(threads) as pool:
        for done in range(1, total):
            (operation, value), *others = pool.map(next, passes)
            made.exact, made.rounded = value, others[0][1]
            made.original = others[1][1] if len(others) > 1 else None
            if operation.output.startswith("x"):
                made.stream[operation.output] = value
                made.noise[operation.output] = relative_error(made.rounded, value)
            progress(done / total)
    return made


def allowed(noise: float, floor: float = FLOOR) -> float:
    """The relative error up to which a departure is explained by rounding."""
    return max(floor, SLACK * noise)


def relative_error(computed: Array, expected: Array) -> float:
    """Root mean square of the differences over that of what is expected; infinite if not finite."""
    difference = size = 0.0
    for start in range(0, len(expected), CHUNK_ROWS):
        part = slice(start, start + CHUNK_ROWS)
        difference += float(np.square(computed[part] - expected[part], dtype=np.float64).sum())
        size += float(np.square(expected[part], dtype=np.float64).sum())
    if not math.isfinite(difference):
        return math.inf
    return math.sqrt(difference / size) if size else math.inf if difference else 0.0


def name_of(tensor: Tensor) -> str:
    """`attn_q of block 3`."""
    return tensor.role if tensor.layer is None else f"{tensor.role} of block {tensor.layer}"


def place_of(point: str) -> str:
    """What makes the value at this point of the stream."""
    number = point.removeprefix("x")
    if not number:
        return "the last norm"
    if number == "0":
        return "the embedding"
    if number.endswith(".5"):
        return f"the attention of block {number.removesuffix('.5')}"
    return f"the feed-forward part of block {int(number) - 1}"


def first_departure(found: Mapping[str, Array], expected: Expected) -> str:
    """The first place whose value departs, from values (tokens, hidden) by point of the stream."""
    worst, most = "the head", GROWN / SLACK
    for point, value in expected.stream.items():
        if point not in found:
            continue
        error = relative_error(found[point], value[: len(found[point])])
        excess = error / allowed(expected.noise[point])
        place = f"{place_of(point)} (off by {100 * error:.2g} %)"
        if not excess <= 1:
            return place
        if excess > most:
            worst, most = place, excess
    return worst
