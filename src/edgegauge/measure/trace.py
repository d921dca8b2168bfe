"""A power trace in memory: as few points as its energy needs, from as many rows as it has.

    thinner = Thinner()
    thinner.add(t_s, watts)        # for each row, time never falling
    trace = thinner.trace()
    trace.energy_j(1.0, 61.0)

Rows closer than a millisecond become one point with their mean power (by trapezoid) and the time
that it averages; rows further apart stay as they are. Above `MAX_POINTS` neighbours are merged the
same way, so memory is bounded and no joule is lost. Counters keep their value at each point kept.
"""

from __future__ import annotations

from array import array
from bisect import bisect_left
from dataclasses import dataclass
from functools import cached_property

BIN_S = 1e-3
MAX_POINTS = 2_000_000
LONGEST_MERGE = 10.0
"""Neighbours further apart than so many usual distances lie at a gap and stay apart."""


@dataclass(frozen=True)
class Trace:
    """Points in order of time: seconds, watts (or joules of a counter), seconds averaged over."""

    t_s: array[float]
    value: array[float]
    span_s: array[float]
    counter: bool = False

    def __len__(self) -> int:
        return len(self.t_s)

    @property
    def seconds(self) -> float:
        """From the first point to the last."""
        return self.t_s[-1] - self.t_s[0] if len(self) else 0.0

    @cached_property
    def joules(self) -> array[float]:
        """Energy from the first point to each."""
        if self.counter:
            return array("d", (v - self.value[0] for v in self.value))
        total, found = 0.0, array("d", [0.0] if len(self) else [])
        for i in range(1, len(self)):
            total += self._step_j(i)
            found.append(total)
        return found

    def joules_at(self, t_s: float) -> float:
        """Energy from the first point to that time, straight between points."""
        t, e = self.t_s, self.joules
        after = bisect_left(t, t_s)
        if after == 0 or after == len(t):
            return e[0] if after == 0 else e[-1]
        share = (t_s - t[after - 1]) / (t[after] - t[after - 1])
        return e[after - 1] + share * (e[after] - e[after - 1])

    def energy_j(self, start_s: float, end_s: float) -> float:
        """Energy between two times within the trace."""
        return self.joules_at(end_s) - self.joules_at(start_s)

    def slower(self, factor: float) -> Trace:
        """The same watts on a clock whose unit is `factor` times as long."""
        return Trace(
            array("d", (t * factor for t in self.t_s)),
            self.value,
            array("d", (s * factor for s in self.span_s)),
            self.counter,
        )

    def from_zero(self) -> Trace:
        """The same trace with its first point at second 0."""
        first = self.t_s[0] if len(self) else 0.0
        return Trace(
            array("d", (t - first for t in self.t_s)), self.value, self.span_s, self.counter
        )

    def thinned(self, most: int) -> Trace:
        """At most about so many points, with the same energy."""
        trace = self
        while len(trace) > most and (fewer := trace._halved()) is not None:
            trace = fewer
        return trace

    def _step_j(self, i: int) -> float:
        """Energy between a point and the one before it."""
        step_s = self.t_s[i] - self.t_s[i - 1]
        if self.span_s[i] <= 0:
            return (self.value[i] + self.value[i - 1]) / 2 * step_s
        # Where the averages leave time out, it has the power around it.
        return self.value[i] * self.span_s[i] + (self.value[i] + self.value[i - 1]) / 2 * max(
            0.0, step_s - self.span_s[i]
        )

    def _halved(self) -> Trace | None:
        """Pairs of neighbours merged, except across gaps; None where that merges nothing."""
        t, v = self.t_s, self.value
        if len(self) < 3:
            return None
        steps = sorted(t[i] - t[i - 1] for i in range(1, len(self), max(1, len(self) // 1001)))
        longest_s = LONGEST_MERGE * steps[len(steps) // 2]
        new = Trace(array("d", t[:1]), array("d", v[:1]), self.span_s[:1], self.counter)
        i = 1
        while i < len(self):
            last = i + 1 if i + 1 < len(self) and t[i + 1] - t[i - 1] <= 2 * longest_s else i
            joules = sum(self._step_j(k) for k in range(i, last + 1)) if not self.counter else 0.0
            span_s = t[last] - t[i - 1]
            new.t_s.append(t[last])
            keep = self.counter or last == i
            new.value.append(v[last] if keep else joules / span_s)
            new.span_s.append(self.span_s[last] if keep else span_s)
            i = last + 1
        return new if len(new) < len(self) else None


class Thinner:
    """Makes a trace of rows that come one by one."""

    def __init__(self, counter: bool = False, bin_s: float = BIN_S) -> None:
        self.rows = 0
        self._trace = Trace(array("d"), array("d"), array("d"), counter)
        self._bin_s = bin_s
        self._t_s = self._value = self._start_s = self._joules = 0.0

    def add(self, t_s: float, value: float) -> None:
        """One row; `t_s` not before the last row's."""
        self.rows += 1
        if self.rows == 1:
            self._put(t_s, value, 0.0)
        elif t_s - self._t_s >= self._bin_s:
            self._flush()
            self._put(t_s, value, 0.0)
        else:
            self._joules += (value + self._value) / 2 * (t_s - self._t_s)
            if t_s - self._start_s >= self._bin_s:
                self._t_s, self._value = t_s, value
                self._flush()
        self._t_s, self._value = t_s, value

    def trace(self) -> Trace:
        """All rows so far."""
        self._flush()
        return self._trace

    def _flush(self) -> None:
        """Close the point that is being averaged, at the last row."""
        span_s = self._t_s - self._start_s
        if span_s > 0:
            counter = self._trace.counter
            mean = self._value if counter else self._joules / span_s
            self._put(self._t_s, mean, 0.0 if counter else span_s)

    def _put(self, t_s: float, value: float, span_s: float) -> None:
        self._trace.t_s.append(t_s)
        self._trace.value.append(value)
        self._trace.span_s.append(span_s)
        self._start_s, self._joules = t_s, 0.0
        if len(self._trace) > MAX_POINTS:
            self._trace = self._trace.thinned(MAX_POINTS // 2)
            self._bin_s *= 2
