"""Order statistics: percentiles of a sample and how sure they are, without assuming a distribution.

The interval of a quantile is a pair of order statistics. If q is the p-quantile, the number of
values below it is binomial(n, p), so ranks (a, b) with

    P(B < a) <= 2.5 %   and   P(B < b) >= 97.5 %,   B ~ binomial(n, p)

cover q with at least 95 % (David and Nagaraja, Order Statistics, 3rd edition, section 7.1). The
usual bootstrap covers the 99th percentile of 100 latencies far less often than it claims.

    quantile([...100 values], 0.9)     # Quantile(value=..., low=..., high=...)
    quantile([...20 values], 0.9)      # None: 20 values say nothing of a 90th percentile
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import median, stdev

CONFIDENCE = 0.95

T_95 = (12.706, 4.303, 3.182, 2.776, 2.571, 2.447, 2.365, 2.306, 2.262, 2.228)
"""Student's t for a two-sided 95 % interval with 1 to 10 degrees of freedom."""


@dataclass(frozen=True, slots=True)
class Quantile:
    """A quantile of a sample; `low` or `high` is None where the sample is too small to bound it."""

    value: float
    low: float | None
    high: float | None
    samples: int


@dataclass(frozen=True, slots=True)
class Centre:
    """A median; `covers` is None where `low`..`high` is only the range of fewer than 6 values."""

    value: float
    low: float
    high: float
    samples: int
    covers: float | None

    @property
    def spread(self) -> float:
        """Width of the interval as a share of the value; 0 for a value of 0."""
        return (self.high - self.low) / abs(self.value) if self.value else 0.0


def least_samples(p: float, *, confidence: float = CONFIDENCE) -> int:
    """Values needed before their maximum exceeds the p-quantile with this confidence.

    29 for the 90th percentile, 299 for the 99th: the least n with p ** n <= 1 - confidence.
    """
    return math.ceil(math.log(1 - confidence) / math.log(p))


def quantile(values: Sequence[float], p: float) -> Quantile | None:
    """The p-quantile (p >= 0.5): the value of rank ceil(p n), with its 95 % interval.

    None with fewer than `least_samples(p)` values. `high` is None until n is large enough for a
    two-sided interval: 36 values for the 90th percentile, 368 for the 99th.
    """
    n = len(values)
    if n < least_samples(p):
        return None
    ordered = sorted(values)
    a, b = ranks(n, p)
    return Quantile(
        value=ordered[max(0, math.ceil(p * n) - 1)],
        low=ordered[a - 1] if a else None,
        high=ordered[b - 1] if b else None,
        samples=n,
    )


def centre(values: Sequence[float]) -> Centre:
    """The median of at least one value: with its 95 % interval from 6 values on, else the range."""
    if not values:
        raise ValueError("the median of no values")
    ordered = sorted(values)
    n = len(ordered)
    a, b = ranks(n, 0.5)
    known = a is not None and b is not None
    low, high = (ordered[a - 1], ordered[b - 1]) if a and b else (ordered[0], ordered[-1])
    return Centre(median(ordered), low, high, n, CONFIDENCE if known else None)


def ranks(n: int, p: float, *, confidence: float = CONFIDENCE) -> tuple[int | None, int | None]:
    """The ranks (1 is the smallest value) that bound the p-quantile of n values from both sides.

    None for a side that no rank can bound.
    """
    tail = (1 - confidence) / 2
    below = _binomial_quantile(n, p, tail)
    # P(B <= a - 1) <= tail, with a as large as possible; P(B <= b - 1) >= 1 - tail, b small.
    lower = below if _binomial_at_most(below, n, p) > tail else below + 1
    upper = _binomial_quantile(n, p, 1 - tail) + 1
    return (lower if lower >= 1 else None, upper if upper <= n else None)


def stall_share(gaps: Sequence[float]) -> float | None:
    """The share of all time that was spent in gaps longer than three medians; None without gaps.

    One stall of two seconds among 500 tokens moves no percentile; it does move this.
    """
    total = math.fsum(gaps)
    if not total:
        return None
    limit = 3 * median(gaps)
    return math.fsum(gap for gap in gaps if gap > limit) / total


def t_95(freedom: int) -> float:
    """Student's t for a two-sided 95 % interval with that many degrees of freedom (at least 1).

    From a table up to 10, then the first terms of its expansion around the normal distribution
    (Abramowitz and Stegun, Handbook of Mathematical Functions, 26.7.5), right to 0.001.
    """
    if freedom <= len(T_95):
        return T_95[freedom - 1]
    z, v = 1.959964, float(freedom)
    first = (z**3 + z) / 4
    second = (5 * z**5 + 16 * z**3 + 3 * z) / 96
    third = (3 * z**7 + 19 * z**5 + 17 * z**3 - 15 * z) / 384
    return z + first / v + second / v**2 + third / v**3


def repeatability(per_run_medians: Sequence[float]) -> float | None:
    """How far the mean of the runs' medians may be off, as a share: half of its 95 % interval.

    Taken on logarithms, with Student's t, since runs (processes) differ by factors and their number
    is small. Two repeats of the same measurement differ by more than sqrt(2) times this share in
    about one case of twenty. None with fewer than 2 runs or a median that is not positive.
    """
    if len(per_run_medians) < 2 or min(per_run_medians) <= 0:
        return None
    logs = [math.log(value) for value in per_run_medians]
    return math.expm1(t_95(len(logs) - 1) * stdev(logs) / math.sqrt(len(logs)))


def _log_mass(k: int, n: int, p: float) -> float:
    ways = math.lgamma(n + 1) - math.lgamma(k + 1) - math.lgamma(n - k + 1)
    return ways + k * math.log(p) + (n - k) * math.log1p(-p)


def _window(n: int, p: float) -> int:
    """A count below which the binomial has no mass worth adding: 12 deviations under the mean."""
    return max(0, math.floor(n * p - 12 * math.sqrt(n * p * (1 - p))) - 1)


def _binomial_at_most(k: int, n: int, p: float) -> float:
    """P(B <= k)."""
    return math.fsum(math.exp(_log_mass(i, n, p)) for i in range(_window(n, p), k + 1))


def _binomial_quantile(n: int, p: float, probability: float) -> int:
    """The least k with P(B <= k) >= probability; n where rounding leaves none."""
    total = 0.0
    for k in range(_window(n, p), n + 1):
        total += math.exp(_log_mass(k, n, p))
        if total >= probability:
            return k
    return n
