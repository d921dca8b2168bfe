"""Energy within one window from one meter's readings, with its own uncertainty. Pure arithmetic.

Three roads, chosen by what the readings show:

- a counter that ticks faster than it is read is differenced between the two edges, each
  interpolated between the readings around it;
- a counter seen to stand still between readings (a battery gauge, a unit of 1 J) is differenced
  from its first change within the window to its last, and that mean power lasts for the window;
- power is integrated by trapezoid from the first reading within the window to the last, or, where
  the source averages itself, weighted by the time averaged. Up to an edge, at most a few intervals
  away, the power is that of the nearest reading.

Only readings within a window speak for its power: one beyond an edge may belong to another load,
which would bias the window by up to half an interval of that load. A window that these rules cannot
serve raises `Unmeasured` with the reason; nothing is extrapolated over a gap.

Uncertainties are standard (k=1), in joules. `measure.joules` adds up windows and explains terms.
"""

from __future__ import annotations

import math
from bisect import bisect_left, bisect_right
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise
from operator import attrgetter, mul
from statistics import fmean, median

from edgegauge.energy import MeterFacts
from edgegauge.measure.meters import Reading
from edgegauge.measure.statistics import t_95

LEAST_SAMPLES = 10
"""Power readings within one window, below which their scatter says nothing."""
LEAST_CHANGES = 2
MAX_GAP = 3.0
"""In intervals: a longer gap is not bridged."""
MOST_VALUES = 1000
"""Of more readings, blocks are compared with each other instead: correlations cost their square."""
STANDSTILL = 0.1
"""Share of readings equal to the one before, from which on a counter is taken to be stepped."""

_time = attrgetter("t_s")


class Unmeasured(Exception):
    """Why a window has no joules."""


@dataclass(frozen=True, slots=True)
class Amount:
    """Joules of one window and what they may be off by (standard, k=1), term by term."""

    joules: float
    quantum_j: float = 0.0
    alignment_j: float = 0.0
    sampling_j: float = 0.0
    samples: int = 0
    longest_gap_s: float = 0.0
    period_s: float = 0.0
    """How often the source had a new value, the stated period being the least."""
    quantum: float = 0.0
    """The source's smallest step, the stated one being the least; J (counter) or W."""

    @property
    def uncertainty_j(self) -> float:
        """All terms together."""
        return math.hypot(self.quantum_j, self.alignment_j, self.sampling_j)


class Series:
    """The readings of one meter, in strict order of time."""

    def __init__(self, facts: MeterFacts, readings: Sequence[Reading]) -> None:
        self.facts = facts
        ordered = sorted(readings, key=_time)
        self.readings = [a for a, b in pairwise(ordered) if a.t_s < b.t_s] + ordered[-1:]
        self.times = [reading.t_s for reading in self.readings]

    @cached_property
    def interval_s(self) -> float:
        """The usual time between readings, or between updates where those are rarer."""
        gaps = [b - a for a, b in pairwise(self.times)]
        return max(self.facts.update_period_s, median(gaps) if gaps else 0.0)

    @property
    def mean_power_w(self) -> float | None:
        """Over all that was read; None where that says nothing."""
        if len(self.readings) < 2:
            return None
        if self.facts.counter:
            return _slope(self, self.times[0], self.times[-1])
        return fmean(r.value for r in self.readings)

    def within(self, start_s: float, end_s: float) -> list[Reading]:
        """Readings from `start_s` to `end_s`, both included."""
        return self.readings[bisect_left(self.times, start_s) : bisect_right(self.times, end_s)]

    def around(self, t_s: float) -> tuple[Reading, Reading] | None:
        """The last reading at or before that time and the first after it (or at it)."""
        after = bisect_left(self.times, t_s)
        if after < len(self.times) and self.times[after] == t_s:
            return self.readings[after], self.readings[after]
        if not 0 < after < len(self.times):
            return None
        return self.readings[after - 1], self.readings[after]

    def value_at(self, t_s: float) -> float | None:
        """The value at that time on the straight line between the readings around it."""
        found = self.around(t_s)
        if found is None:
            return None
        a, b = found
        share = (t_s - a.t_s) / (b.t_s - a.t_s) if b.t_s > a.t_s else 0.0
        return a.value + share * (b.value - a.value)


def amount(series: Series, start_s: float, end_s: float) -> Amount:
    """The energy between two moments; raises Unmeasured."""
    if not series.readings:
        raise Unmeasured("there are no readings")
    inside = series.within(start_s, end_s)
    if not series.facts.counter:
        return _power(series, inside, start_s, end_s)
    if any(b.value < a.value for a, b in pairwise(inside)):
        raise Unmeasured("the counter fell within the window")
    pairs = list(pairwise(inside))
    if sum(a.value == b.value for a, b in pairs) > STANDSTILL * len(pairs):
        return _steps(series, inside, start_s, end_s)
    return _difference(series, inside, start_s, end_s)


def _difference(series: Series, inside: Sequence[Reading], start_s: float, end_s: float) -> Amount:
    """A fast counter: the difference between the edges, each between the readings around it."""
    edges = [_edge(series, start_s), _edge(series, end_s)]
    joules = edges[1][0] - edges[0][0]
    power_w = joules / (end_s - start_s)
    quantum = series.facts.quantum or 0.0
    late = [math.hypot(a_s, series.facts.update_period_s) * power_w for _, _, a_s in edges]
    return Amount(
        joules,
        quantum_j=quantum / math.sqrt(6),
        alignment_j=math.hypot(*(e[1] for e in edges), *(lag / math.sqrt(12) for lag in late)),
        samples=len(inside),
        longest_gap_s=_longest(inside, start_s, end_s),
        period_s=series.facts.update_period_s,
        quantum=quantum,
    )


def _edge(series: Series, t_s: float) -> tuple[float, float, float]:
    """Joules at an edge, how far a change of load near it may bend the line (k=1), read time."""
    found = series.around(t_s)
    if found is None:
        raise Unmeasured("the readings do not reach over both ends of the window")
    a, b = found
    width = b.t_s - a.t_s
    if width > MAX_GAP * series.interval_s:
        raise Unmeasured(_gap(width, series.interval_s))
    value = series.value_at(t_s)
    assert value is not None  # readings lie around it
    # A load that steps within the bracket leaves the chord by x (w - x) / w times the step.
    bend_s = (t_s - a.t_s) * (b.t_s - t_s) / width if width else 0.0
    reach = MAX_GAP * series.interval_s
    step_w = abs(_slope(series, b.t_s, b.t_s + reach) - _slope(series, a.t_s - reach, a.t_s))
    return value, bend_s * step_w / math.sqrt(3), max(a.took_s, b.took_s)


def _slope(series: Series, start_s: float, end_s: float) -> float:
    """Mean power between two moments, as far as there are readings."""
    start_s, end_s = max(start_s, series.times[0]), min(end_s, series.times[-1])
    first, last = series.value_at(start_s), series.value_at(end_s)
    if first is None or last is None or end_s <= start_s:
        return 0.0
    return (last - first) / (end_s - start_s)


def _steps(series: Series, inside: Sequence[Reading], start_s: float, end_s: float) -> Amount:
    """A stepped counter: from the first change within the window to the last."""
    changes = [(a, b) for a, b in pairwise(inside) if b.value > a.value]
    if len(changes) < LEAST_CHANGES:
        seen = {0: "did not change", 1: "changed once"}[len(changes)]
        raise Unmeasured(f"the source {seen} within {end_s - start_s:.0f} s")
    # It changed at some moment between two readings.
    at = [(a.t_s + b.t_s) / 2 for a, b in changes]
    lengths = [b - a for a, b in pairwise(at)]
    rises = [b[1].value - a[1].value for a, b in pairwise(changes)]
    known_s = at[-1] - at[0]
    power_w = math.fsum(rises) / known_s
    missing_s = (end_s - start_s) - known_s
    usual_s = max(median(lengths), series.interval_s)
    ends = (at[0] - start_s, end_s - at[-1])
    if max(ends) > MAX_GAP * usual_s:
        raise Unmeasured(_gap(max(ends), usual_s))
    quantum = max(series.facts.quantum or 0.0, min(b.value - a.value for a, b in changes))
    # Where steps hold several quanta, it is the updates that are rare, not the quanta.
    coarse = median(rises) >= 2 * quantum
    period_s = max(series.facts.update_period_s, median(lengths) if coarse else 0.0)
    timing_j = _timing_j(changes, power_w)
    rounding_j = min(quantum, period_s * power_w) / math.sqrt(6)
    # The ends of the window err like the ends of any step: whatever a step is off the mean power
    # by holds rounding, late updates and timing of two changes.
    off = [rise - power_w * length for rise, length in zip(rises, lengths, strict=True)]
    scatter_j = _scatter(off)
    return Amount(
        power_w * (end_s - start_s),
        quantum_j=max(rounding_j, math.sqrt(max(0.0, scatter_j**2 - timing_j**2))),
        alignment_j=timing_j,
        sampling_j=_missing_j(rises, lengths, missing_s),
        samples=len(inside),
        longest_gap_s=_longest(inside, start_s, end_s),
        period_s=period_s,
        quantum=quantum,
    )


def _timing_j(changes: Sequence[tuple[Reading, Reading]], power_w: float) -> float:
    """What not knowing the moments of the first and the last change costs."""
    spans = [b.t_s - a.t_s + max(a.took_s, b.took_s) for a, b in (changes[0], changes[-1])]
    return math.hypot(*spans) * power_w / math.sqrt(12)


def _missing_j(rises: Sequence[float], lengths: Sequence[float], missing_s: float) -> float:
    """What taking the mean power for the time before the first change and after the last costs.

    At most the usual error of two readings that are rounded to a whole step each.
    """
    at_most = fmean(rises) / math.sqrt(6)
    if len(rises) < 3:
        return at_most
    powers = [rise / length for rise, length in zip(rises, lengths, strict=True)]
    return min(at_most, _scatter(powers) * missing_s)


def _power(series: Series, inside: Sequence[Reading], start_s: float, end_s: float) -> Amount:
    """A power reading: the trapezoid of what lies within, or the averages weighted by time."""
    length_s = end_s - start_s
    # An average that began before the window tells of another load, as does a value at its end.
    inside = [
        r for r in inside if r.t_s - r.span_s >= start_s - 1e-6 and (r.t_s < end_s or r.span_s)
    ]
    if len(inside) < LEAST_SAMPLES:
        raise Unmeasured(f"{len(inside)} readings within {length_s:.0f} s are too few")
    longest_s = _longest(inside, start_s + inside[0].span_s, end_s)
    if longest_s > MAX_GAP * series.interval_s:
        raise Unmeasured(_gap(longest_s, series.interval_s))
    joules = _integral(inside, start_s, end_s)
    values = [r.value for r in inside]
    scatter_w, independent = _scatter_over_time(inside)
    quantum = series.facts.quantum or 0.0
    rounding_w = quantum / math.sqrt(12)
    if scatter_w > quantum:  # rounding errors of values that move average out
        rounding_w /= math.sqrt(independent)
    held_s = (inside[0].t_s - inside[0].span_s - start_s) + (end_s - inside[-1].t_s)
    sampling_w = scatter_w * _inflation(len(values)) / math.sqrt(independent)
    return Amount(
        joules,
        quantum_j=rounding_w * length_s,
        alignment_j=_late_j(series, inside, start_s),
        sampling_j=math.hypot(sampling_w * length_s, scatter_w * max(0.0, held_s)),
        samples=len(inside),
        longest_gap_s=longest_s,
        period_s=series.interval_s,
        quantum=quantum,
    )


def _integral(inside: Sequence[Reading], start_s: float, end_s: float) -> float:
    """Joules: by trapezoid on the real times, or weighted by the time each value averages over."""
    spans = math.fsum(r.span_s for r in inside)
    if spans > 0:
        return math.fsum(r.value * r.span_s for r in inside) / spans * (end_s - start_s)
    first, last = inside[0], inside[-1]
    area = math.fsum((a.value + b.value) * (b.t_s - a.t_s) / 2 for a, b in pairwise(inside))
    return area + first.value * (first.t_s - start_s) + last.value * (end_s - last.t_s)


def _late_j(series: Series, inside: Sequence[Reading], start_s: float) -> float:
    """A value may be as old as the update period: the first ones may tell of what ran before."""
    facts = series.facts
    age_s = facts.update_period_s + median(r.took_s for r in inside)
    before = series.within(start_s - 2 * max(age_s, series.interval_s), start_s)
    outside = [r.value for r in before if r.t_s < start_s]
    if not outside:
        return 0.0
    settled = [r.value for r in inside[: 2 * LEAST_SAMPLES]]
    return abs(fmean(outside) - fmean(settled)) * age_s / math.sqrt(3)


def _scatter_over_time(inside: Sequence[Reading]) -> tuple[float, float]:
    """Scatter about a straight line in time, W, and how many independent values that is worth.

    Neighbouring values resemble each other: with correlations r1, r2, ... up to the first that is
    not positive, n values are worth n / (1 + 2 (r1 + r2 + ...)) (Geyer, Practical Markov Chain
    Monte Carlo, 1992, after the initial positive sequence).
    """
    moments, values = _blocks(inside)
    n = len(values)
    middle = fmean(moments)
    ages = [moment - middle for moment in moments]
    level = fmean(values)
    tilt = _dot(ages, [value - level for value in values]) / _dot(ages, ages)
    rest = [value - level - tilt * age for value, age in zip(values, ages, strict=True)]
    square = _dot(rest, rest)
    if square <= 0:
        return 0.0, float(n)
    total = 1.0
    for lag in range(1, n // 2):
        correlation = _dot(rest[:-lag], rest[lag:]) / square
        if correlation <= 0:
            break
        total += 2 * correlation
    return math.sqrt(square / (n - 2)), n / total


def _blocks(inside: Sequence[Reading]) -> tuple[list[float], list[float]]:
    """Times and values; of very many readings, means of equally large blocks say the same."""
    times, values = [r.t_s for r in inside], [r.value for r in inside]
    size = math.ceil(len(inside) / MOST_VALUES)
    if size == 1:
        return times, values
    starts = range(0, len(inside) - size + 1, size)
    return [fmean(times[i : i + size]) for i in starts], [
        fmean(values[i : i + size]) for i in starts
    ]


def _dot(a: Sequence[float], b: Sequence[float]) -> float:
    return math.fsum(map(mul, a, b))


def _scatter(values: Sequence[float]) -> float:
    """Standard deviation, enlarged where few values make it uncertain; 0 for fewer than 3."""
    n = len(values)
    if n < 3:
        return 0.0
    mean = fmean(values)
    return math.sqrt(math.fsum((v - mean) ** 2 for v in values) / (n - 1)) * _inflation(n)


def _inflation(n: int) -> float:
    """Makes twice a standard deviation of n values cover 95 %, as twice a known one does."""
    return max(1.0, t_95(n - 1) / 2)


def _longest(inside: Sequence[Reading], start_s: float, end_s: float) -> float:
    times = [start_s, *(r.t_s for r in inside), end_s]
    return max(b - a for a, b in pairwise(times))


def _gap(seen_s: float, usual_s: float) -> str:
    return f"a gap of {seen_s:.3g} s, where a reading comes every {usual_s:.3g} s"
