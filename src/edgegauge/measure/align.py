"""Placing a recording on the clock of the run: by absolute times, or by edges of the load.

    alignment = by_edges(trace, edges)           # edges: [(start_s, end_s), ...] of full load
    alignment.run_s(12.5)                        # the run's clock at second 12.5 of the recording

The run loads the device fully for 2 s and rests for 2 s, twice, at its start and at its end. Both
patterns are looked for in the trace by normalised correlation; the two places have to be as far
apart as they were in the run, up to 1 %, which is more than any clock is off. Then each edge is
timed by itself: where a step between the levels around it has the energy that was seen. A straight
line through those times gives offset and rate of the recording's clock, and their scatter says how
well. Where no place stands out, nothing is aligned.
"""

from __future__ import annotations

import math
from array import array
from bisect import bisect_left, bisect_right
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import fmean

from edgegauge.errors import MeasurementError
from edgegauge.measure.trace import Trace

LEAD_S = 1.0
"""Rest before and after a pattern that counts as part of it."""
APART_S = 20.0
"""Bursts further apart belong to another pattern."""
LEAST_CORRELATION = 0.6
CLEARLY = 0.15
"""By how much (sum of both correlations) the best place beats any other."""
SAME_PLACE_S = 1.0
MAX_RATE_OFF = 0.01
LOOSE_S = 1.0
COARSE_S = 0.1
MAX_PERIOD_S = 0.75
MAX_GRID = 400_000
NEAR_S = 0.95
GUARD_S = 0.3
LEAST_STEP = 0.3
"""Share of the pattern's own step that an edge must have to be timed."""
LEAST_EDGES = 4
CLOCKS_AGREE_S = 0.5
"""Standard uncertainty of two computers' clocks set by NTP; MLPerf Power accepts 0.8 s at most."""

Burst = tuple[float, float]


class NotAligned(MeasurementError):
    """The recording could not be placed on the clock of the run."""


@dataclass(frozen=True, slots=True)
class Alignment:
    """Run time = `offset_s` + `rate` x time of the recording."""

    offset_s: float
    rate: float
    uncertainty_s: float
    """Standard (k=1), anywhere in the run."""
    quality: float
    """Correlation with the pattern, 0 to 1; 1 for clocks."""
    note: str

    def run_s(self, recording_s: float) -> float:
        """The run's clock at that time of the recording."""
        return self.offset_s + self.rate * recording_s


def by_clock(since_1970_s: float | None, monotonic_to_unix_s: float | None) -> Alignment:
    """From when both began; raises NotAligned where either is not known."""
    if since_1970_s is None:
        raise NotAligned("its times are not absolute (seconds since 1970, or ISO 8601 with a zone)")
    if monotonic_to_unix_s is None:
        raise NotAligned("the result does not tell what the clock of the run was")
    note = f"placed by the clocks of both computers, taken to agree within {CLOCKS_AGREE_S} s"
    return Alignment(since_1970_s - monotonic_to_unix_s, 1.0, CLOCKS_AGREE_S, 1.0, note)


def by_edges(trace: Trace, edges: Sequence[Burst], period_s: float = 0.0) -> Alignment:
    """From the load pattern; raises NotAligned where it is not found, or in more than one place.

    `edges` are the bursts of full load on the run's clock, `period_s` the time between rows.
    """
    patterns = _patterns(edges)
    if not patterns:
        raise NotAligned("the result has no load edges: it was not measured with --meter file")
    if period_s > MAX_PERIOD_S:
        raise NotAligned(f"a row every {period_s:.2g} s is too rare to see the load edges")
    grid = _Grid(trace, max(COARSE_S, period_s))
    found = [grid.places(pattern) for pattern in patterns]
    if not all(found):
        raise NotAligned(
            "the load edges are not in the recording: start it before the run, and stop it after"
        )
    places, score = _consistent(patterns, found)
    times = [
        pair
        for pattern, place in zip(patterns, places, strict=True)
        for pair in _edge_times(trace, pattern, place, period_s)
    ]
    if len(times) < LEAST_EDGES:
        raise NotAligned(f"only {len(times)} load edges are clear enough to be timed")
    return _line(times, score / len(patterns), period_s, len(patterns) > 1)


def _patterns(edges: Sequence[Burst]) -> list[list[Burst]]:
    """Bursts, grouped where they follow each other closely; the first and the last group."""
    groups: list[list[Burst]] = []
    for burst in sorted(edges):
        if burst[1] <= burst[0]:
            continue
        if groups and burst[0] - groups[-1][-1][1] <= APART_S:
            groups[-1].append(burst)
        else:
            groups.append([burst])
    groups = [group for group in groups if len(group) > 1]
    return [groups[0], groups[-1]] if len(groups) > 1 else groups


class _Grid:
    """The trace as mean powers of equal steps, summed up so that any stretch costs the same."""

    def __init__(self, trace: Trace, step_s: float) -> None:
        self.step_s = max(step_s, trace.seconds / MAX_GRID)
        count = int(trace.seconds / self.step_s)
        joules = array("d", (trace.joules_at(k * self.step_s) for k in range(count + 1)))
        level = joules[-1] / max(count, 1)
        # Less their mean: sums of squares would lose the small differences that matter.
        rest = [joules[k + 1] - joules[k] - level for k in range(count)]
        self.sums, self.squares = _running(rest), _running([value * value for value in rest])

    def places(self, pattern: Sequence[Burst]) -> list[tuple[float, float]]:
        """(time of the pattern's first burst, correlation): the local maxima that are good."""
        start_s = pattern[0][0] - LEAD_S
        length = round((pattern[-1][1] + LEAD_S - start_s) / self.step_s)
        bursts = [
            (round((a - start_s) / self.step_s), round((b - start_s) / self.step_s))
            for a, b in pattern
        ]
        scores = [self._correlation(at, length, bursts) for at in range(len(self.sums) - length)]
        return [
            (k * self.step_s + LEAD_S, score)
            for k, score in enumerate(scores)
            if score >= LEAST_CORRELATION
            and score >= max(scores[max(0, k - 5) : k + 6], default=0.0)
        ]

    def _correlation(self, at: int, length: int, bursts: Sequence[tuple[int, int]]) -> float:
        """Of `length` steps from `at` with a pattern that is 1 in the bursts and 0 outside."""
        sums, squares = self.sums, self.squares
        total = sums[at + length] - sums[at]
        spread = squares[at + length] - squares[at] - total * total / length
        on = sum(b - a for a, b in bursts)
        if spread <= 1e-12 * (squares[-1] + 1e-30) or not 0 < on < length:
            return 0.0
        loaded = sum(sums[at + b] - sums[at + a] for a, b in bursts)
        covariance = loaded - total * on / length
        return covariance / math.sqrt(spread * on * (length - on) / length)


def _running(values: Sequence[float]) -> array[float]:
    total, found = 0.0, array("d", [0.0])
    for value in values:
        total += value
        found.append(total)
    return found


def _consistent(
    patterns: Sequence[Sequence[Burst]], found: Sequence[Sequence[tuple[float, float]]]
) -> tuple[list[float], float]:
    """The best places for all patterns together; NotAligned where others are nearly as good."""
    if len(patterns) == 1:
        options = [([place], score) for place, score in found[0]]
    else:
        apart_s = patterns[1][0][0] - patterns[0][0][0]
        loose_s = LOOSE_S + MAX_RATE_OFF * apart_s
        starts = [b for b, _ in found[1]]  # in order of time
        options = [
            ([a, b], first + second)
            for a, first in found[0]
            for b, second in found[1][
                bisect_left(starts, a + apart_s - loose_s) : bisect_right(
                    starts, a + apart_s + loose_s
                )
            ]
        ]
    if not options:
        raise NotAligned("the load edges at the start and at the end do not belong together")
    best, score = max(options, key=lambda option: option[1])
    for places, other in options:
        moved = max(abs(a - b) for a, b in zip(places, best, strict=True))
        if moved > SAME_PLACE_S and other > score - CLEARLY:
            raise NotAligned("the load edges fit in more than one place of the recording")
    return best, score


def _edge_times(
    trace: Trace, pattern: Sequence[Burst], place_s: float, period_s: float
) -> list[tuple[float, float]]:
    """(time in the recording, time in the run) of each edge that is clear."""
    shift_s = place_s - pattern[0][0]
    guard_s = min(GUARD_S + period_s, NEAR_S - 0.1)
    found: list[tuple[float, float, float]] = []
    for run_s in (moment for burst in pattern for moment in burst):
        at_s = run_s + shift_s
        before = trace.energy_j(at_s - NEAR_S, at_s - guard_s) / (NEAR_S - guard_s)
        after = trace.energy_j(at_s + guard_s, at_s + NEAR_S) / (NEAR_S - guard_s)
        if before == after:
            continue
        # The step that has this energy in 2 NEAR_S: before x u + after x (2 NEAR_S - u).
        seen_j = trace.energy_j(at_s - NEAR_S, at_s + NEAR_S)
        edge_s = at_s - NEAR_S + (2 * NEAR_S * after - seen_j) / (after - before)
        if abs(edge_s - at_s) < NEAR_S:
            found.append((edge_s, run_s, abs(after - before)))
    step_w = max((step for _, _, step in found), default=0.0)
    return [(edge, run) for edge, run, step in found if step >= LEAST_STEP * step_w]


def _line(
    times: Sequence[tuple[float, float]], quality: float, period_s: float, both_ends: bool
) -> Alignment:
    """The straight line through (recording, run) times; with one pattern the rate is 1."""
    n = len(times)
    x0, y0 = fmean(x for x, _ in times), fmean(y for _, y in times)
    square = sum((x - x0) ** 2 for x, _ in times)
    product = sum((x - x0) * (y - y0) for x, y in times)
    rate = product / square if both_ends else 1.0
    rest = sum((y - y0 - rate * (x - x0)) ** 2 for x, y in times)
    free = n - 2 if both_ends else n - 1
    # Few edges know their scatter badly.
    scatter_s = math.sqrt(rest / free) * (1 + 1 / free)
    # A row may stand for the time before it or around it; all edges are off by the same then.
    meant_s = period_s / math.sqrt(12)
    farthest = max(abs(x - x0) for x, _ in times)
    lever = 1 / n + (farthest**2 / square if both_ends else 0.0)
    uncertainty_s = math.hypot(scatter_s * math.sqrt(lever), meant_s)
    note = (
        f"placed by {n} load edges within {uncertainty_s:.2g} s (correlation {quality:.2f}, "
        f"its clock {1e6 * (1 / rate - 1):+.0f} ppm)"
    )
    return Alignment(y0 - rate * x0, rate, max(uncertainty_s, 1e-4), quality, note)
