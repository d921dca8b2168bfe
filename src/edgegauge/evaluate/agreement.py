"""Agreement of computed logits with expected ones, gathered a few rows at a time.

    found = Comparison()
    for expected, computed in rows: found.add(expected, computed)       # (rows, vocab) each
    found.agreement("256 positions of the built-in text")

Only a few numbers per position are kept. Intervals are 95 %: Wilson's of the share of equal
choices, by order statistics of a quantile. A mean has none here, since positions of one text depend
on each other (`against.py` has windows of text for that).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from edgegauge.evaluate.intervals import Z, wilson
from edgegauge.figure import Figure, Unit
from edgegauge.verification import Agreement

P99 = 0.99


class Comparison:
    """Sums over the positions seen so far; `kl`, `expected_choices` and `same` have one each."""

    def __init__(self) -> None:
        self.kl: list[float] = []
        self.expected_choices: list[int] = []
        self.same: list[bool] = []
        self._values = 0
        self._sum = self._squares = 0.0
        """Of the expected logits."""
        self._error = self._error_squares = self._worst = 0.0

    def add(self, expected: Any, computed: Any) -> None:
        """Some positions: float arrays (rows, vocab)."""
        import numpy as np

        wide, narrow = expected.astype(np.float64), computed.astype(np.float64)
        with np.errstate(over="ignore", invalid="ignore"):
            error = np.abs(narrow - wide)
            self._values += wide.size
            self._sum += float(wide.sum())
            self._squares += float(np.square(wide).sum())
            self._error += float(error.sum())
            self._error_squares += float(np.square(error).sum())
            self._worst = float(np.fmax(self._worst, _largest(error)))
            self.kl += _divergence(wide, narrow)
        choices = wide.argmax(1)
        self.expected_choices += choices.tolist()
        self.same += (choices == narrow.argmax(1)).tolist()

    @property
    def std(self) -> float:
        """Standard deviation of all expected logits."""
        mean = self._sum / self._values
        return math.sqrt(max(0.0, self._squares / self._values - mean * mean))

    @property
    def rms(self) -> float:
        """Root mean square error in those; infinite where something is not finite."""
        return self._relative(math.sqrt(self._error_squares / self._values))

    def agreement(self, source: str, continued: tuple[int, int] | None = None) -> Agreement:
        """All figures; `continued` is the common greedy prefix and what it is out of."""
        prefix, tokens = continued or (None, 0)
        low, high = wilson(sum(self.same), len(self.same))

        def figure(
            value: float, unit: Unit, ends: tuple[float | None, float | None] = (None, None)
        ) -> Figure:
            return Figure(value, unit, "measured", source, *ends)

        return Agreement(
            positions=len(self.kl),
            max_error=figure(self._relative(self._worst), "1"),
            mean_error=figure(self._relative(self._error / self._values), "1"),
            rms_error=figure(self.rms, "1"),
            kl_mean=figure(math.fsum(self.kl) / len(self.kl), "nat"),
            kl_p99=figure(*quantile(self.kl, P99)),
            kl_max=figure(max(self.kl), "nat"),
            same_choice=figure(sum(self.same) / len(self.same), "1", (low, high)),
            greedy_prefix=prefix,
            greedy_tokens=tokens,
        )

    def _relative(self, error: float) -> float:
        return error / self.std if math.isfinite(error) and self.std else math.inf


def quantile(values: Sequence[float], share: float) -> tuple[float, Unit, tuple[Any, Any]]:
    """A quantile in nats with its interval by order statistics; an end beyond all values is None.

    The number of values below the quantile is binomial, here by its normal approximation
    (Conover, Practical Nonparametric Statistics, 1999, section 3.2).
    """
    ordered, count = sorted(values), len(values)
    half = Z * math.sqrt(count * share * (1 - share))
    low, high = math.floor(count * share - half) - 1, math.ceil(count * share + half) - 1
    ends = tuple(ordered[i] if 0 <= i < count else None for i in (low, high))
    return ordered[min(count - 1, math.ceil(count * share) - 1)], "nat", (ends[0], ends[1])


def common_prefix(continuation: Sequence[int], choices: Sequence[int]) -> int:
    """How many tokens both begin with."""
    pairs = enumerate(zip(continuation, choices, strict=False))
    return next((i for i, (a, b) in pairs if a != b), min(len(continuation), len(choices)))


def _largest(error: Any) -> float:
    import numpy as np

    return float(error.max()) if np.isfinite(error).all() else math.inf


def _divergence(expected: Any, computed: Any) -> list[float]:
    """KL(softmax(expected) || softmax(computed)) of each row, never below 0 by rounding."""
    import numpy as np

    first, second = (x - x.max(axis=1, keepdims=True) for x in (expected, computed))
    weights = np.exp(first)
    total = weights.sum(axis=1)
    gap = np.log(np.exp(second).sum(axis=1)) - np.log(total)
    found = (weights * (first - second)).sum(axis=1) / total + gap
    made: list[float] = np.where(np.isfinite(found), np.maximum(found, 0), np.inf).tolist()
    return made
