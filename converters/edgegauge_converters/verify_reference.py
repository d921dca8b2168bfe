"""What an artifact should compute: the references at its own and at the original weights.

    expected = expect(spec, weights, tokens, rounding, trace, threads, progress)

Several forward passes go side by side, so that each weight is read once. Three are of the whole
text: exact, rounded as the runtime rounds (`rounding.py`), and, where there is a checkpoint, exact
at its weights. The difference of the first two says what departure is to be expected of the logits.

Where the runtime gave its values on the way (a trace), two more go part by part: each half block is
computed from the runtime's own values before it, exactly and rounded. Roundings of one part cannot
add up with those of others there, so a part departs or it does not.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from threading import RLock

import numpy as np

from edgegauge.model import ModelSpec, Role, Tensor
from edgegauge.recipe import StoredTensor
from edgegauge_converters.reference import Array, Reference, Rounding, Weights

SLACK = 2.0
"""A departure of this many times the expected one is allowed; the largest seen is 1.06."""

FLOOR = 2e-4
"""And at least this, in standard deviations: float32 sums in another order, amplified."""

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


@dataclass(frozen=True, slots=True)
class Trace:
    """What a runtime computed of the first tokens on the way to their logits."""

    tokens: Sequence[int]
    stream: dict[str, Array]
    """Values (tokens, hidden) by point of the blueprint's stream: x0, x0.5, x1, ..., x."""
    logits: Array
    """(tokens, vocab)."""


@dataclass(frozen=True, slots=True)
class Step:
    """One part of the model, computed from the runtime's own values before it."""

    point: str
    error: float
    """Relative root mean square by which the runtime departs from the rounded reference."""
    from_exact: float
    """Likewise from the exact one."""
    rounding: float
    """By which the rounded one departs from the exact."""

    def excess(self, floor: float) -> float:
        """Above 1 this part computes something else; a runtime need not round as it does here."""
        return min(self.error, self.from_exact) / allowed(self.rounding, floor)


@dataclass(slots=True)
class Expected:
    """Final values of each pass (tokens, hidden), and the parts of a trace."""

    exact: Array
    rounded: Array
    original: Array | None = None
    stepped: Array | None = None
    """Of the traced tokens, the last part from the runtime's own values, rounded."""
    steps: list[Step] = field(default_factory=list)


def expect(
    spec: ModelSpec,
    weights: BothWeights,
    tokens: Sequence[int],
    rounding: Rounding,
    trace: Trace | None,
    threads: int,
    progress: Callable[[float], None],
) -> Expected:
    """Run the passes, on so many threads."""
    stored = Reference(spec, weights.stored)
    passes = {"exact": stored.values(tokens), "rounded": stored.values(tokens, rounding)}
    if weights.has_original:
        passes["original"] = Reference(spec, weights.original).values(tokens)
    if trace is not None:
        passes["stepped"] = stored.values(trace.tokens, rounding, trace.stream)
        passes["exactly"] = stored.values(trace.tokens, instead=trace.stream)
    total = len(stored.operations)
    steps: list[Step] = []
    # NumPy releases Python's lock, so the passes do each operation side by side.
    with ThreadPoolExecutor(threads) as pool:
        for done in range(1, total):
            made = dict(zip(passes, pool.map(next, passes.values()), strict=True))
            point = made["exact"][0].output
            values = {name: value for name, (_, value) in made.items()}
            if trace is not None and point in trace.stream:
                found = trace.stream[point]
                steps.append(step(point, found, values["stepped"], values["exactly"]))
            progress(done / total)
    values.pop("exactly", None)
    return Expected(**values, steps=steps)


def step(point: str, found: Array, rounded: Array, exact: Array) -> Step:
    """How what a runtime found compares with what the references make of the same inputs."""
    return Step(
        point,
        relative_error(found, rounded),
        relative_error(found, exact),
        relative_error(rounded, exact),
    )


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
