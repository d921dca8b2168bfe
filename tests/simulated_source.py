"""A machine whose true power is a known function of time, and every kind of meter reading it.

    load = Load.drawn(rng, watts=..., seconds=...)     # P D D P between two idles
    readings = KIND.read(load, rng)                    # as that kind of meter would tell it
    load.joules(start_s, end_s)                        # the truth, exactly

No clock runs: the readings are computed, so hundreds of runs take a second.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from edgegauge.energy import MeterFacts, PhaseName, Window
from edgegauge.measure.meters import Reading
from edgegauge.measure.recorder import Recorded

Array = NDArray[np.float64]
LEAD_S = 3.0
"""The least time for which a block's load has been on before its window begins."""
TOKENS_PER_S = {"prefill": 120.0, "decode": 9.0}


@dataclass(frozen=True)
class Ripple:
    """A load that goes up and down with each token or layer: power x (1 + share sin)."""

    share: float
    period_s: float
    phase: float


class Load:
    """True power over time: levels, each with a slow drift and a ripple."""

    def __init__(self, levels: Sequence[tuple[float, float]], ripple: Ripple, drift: float) -> None:
        """`levels`: (seconds, watts) one after the other; `drift`: share of power by the end."""
        self.ripple, self.drift = ripple, drift
        self.ends = np.cumsum([0.0] + [seconds for seconds, _ in levels])
        self.watts = np.array([watts for _, watts in levels])
        self.total_s = float(self.ends[-1])
        parts = [self._part(w, a, b) for w, a, b in self._spans()]
        self.sums = np.cumsum([0.0, *parts])

    def _spans(self) -> list[tuple[float, float, float]]:
        return list(zip(self.watts, self.ends[:-1], self.ends[1:], strict=True))

    def _shape(self, t: Array | float) -> Array | float:
        """The integral of 1 + drift + ripple from 0 to t."""
        omega = 2 * math.pi / self.ripple.period_s
        wave = self.ripple.share / omega * np.cos(omega * np.asarray(t) + self.ripple.phase)
        whole: Array = t + self.drift * np.asarray(t) ** 2 / (2 * self.total_s) - wave
        return whole

    def _part(self, watts: float, a: float, b: float) -> float:
        return float(watts * (self._shape(b) - self._shape(a)))

    def energy(self, t: Array) -> Array:
        """Joules from 0 to each of the times."""
        index = np.clip(np.searchsorted(self.ends, t, "right") - 1, 0, len(self.watts) - 1)
        start = self._shape(self.ends[index])
        found: Array = self.sums[index] + self.watts[index] * (self._shape(t) - start)
        return found

    def power(self, t: Array) -> Array:
        """Watts at each of the times."""
        index = np.clip(np.searchsorted(self.ends, t, "right") - 1, 0, len(self.watts) - 1)
        omega = 2 * math.pi / self.ripple.period_s
        wave = self.ripple.share * np.sin(omega * t + self.ripple.phase)
        found: Array = self.watts[index] * (1 + self.drift * t / self.total_s + wave)
        return found

    def joules(self, start_s: float, end_s: float) -> float:
        """The truth."""
        a, b = self.energy(np.array([start_s, end_s]))
        return float(b - a)


@dataclass(frozen=True)
class Plan:
    """A run as the harness drives it: idle, P D D P, idle; lead-ins of the same load."""

    idle_w: float
    prefill_w: float
    decode_w: float
    idle_s: float
    prefill_s: float
    decode_s: float
    lead_s: float = LEAD_S
    ripple_share: float = 0.15
    drift: float = 0.02

    def run(self, rng: np.random.Generator) -> tuple[Load, list[Window]]:
        """The load with random phases, and the windows in it."""
        order: list[tuple[PhaseName, float, float]] = [
            ("idle_before", self.idle_s, self.idle_w),
            ("prefill", self.prefill_s / 2, self.prefill_w),
            ("decode", self.decode_s / 2, self.decode_w),
            ("decode", self.decode_s / 2, self.decode_w),
            ("prefill", self.prefill_s / 2, self.prefill_w),
            ("idle_after", self.idle_s, self.idle_w),
        ]
        levels, windows, now = [], [], 0.0
        for phase, seconds, watts in order:
            lead_s = self.lead_s + rng.uniform(0, 1)
            start_s, end_s = now + lead_s, now + lead_s + seconds
            tokens = round(seconds * TOKENS_PER_S.get(phase, 0))
            windows.append(Window(phase=phase, start_s=start_s, end_s=end_s, tokens=tokens))
            # The load stops a moment after its window, as a step that was begun is finished.
            now = end_s + rng.uniform(0.0, 0.1)
            levels.append((lead_s + now - start_s, watts))
        levels.append((self.lead_s * 2, self.idle_w))
        period_s = math.exp(rng.uniform(math.log(0.02), math.log(2.0)))
        ripple = Ripple(self.ripple_share, period_s, rng.uniform(0, 2 * math.pi))
        return Load(levels, ripple, rng.uniform(-self.drift, self.drift)), windows


@dataclass(frozen=True)
class Kind:
    """A kind of meter: its facts, the run that suits it, and how it turns a load into readings."""

    facts: MeterFacts
    plan: Plan
    tell: Callable[[Kind, Load, list[Window], np.random.Generator], list[Reading]]
    poll_s: float
    true_update_s: tuple[float, float] = (0.0, 0.0)
    """Range of the source's own period, where that is not what it states."""
    noise: float = 0.0
    """Scatter of single samples, as a share."""

    def recorded(
        self, load: Load, windows: list[Window], rng: np.random.Generator, gain: float = 1.0
    ) -> Recorded:
        """What the recorder would hold after the run, with the meter's scale off by `gain`."""
        told = self.tell(self, load, windows, rng)
        if gain != 1.0:
            told = [Reading(r.t_s, r.value * gain, r.took_s, r.span_s) for r in told]
        return Recorded(self.facts, told, [])

    def update_times(self, load: Load, rng: np.random.Generator) -> Array:
        """When the source has a new value."""
        period = rng.uniform(*self.true_update_s) or self.facts.update_period_s
        steps = period * rng.uniform(0.9, 1.1, int(load.total_s / period * 1.2) + 4)
        found: Array = np.cumsum(steps) - rng.uniform(period, 2 * period)
        return found

    def poll_times(
        self, load: Load, windows: list[Window], rng: np.random.Generator, *, marks: bool
    ) -> tuple[Array, Array]:
        """When the recorder reads, and how long that takes."""
        periods = np.arange(load.total_s / self.poll_s)
        dither = 0.0 if self.facts.counter else rng.uniform(0, 1, len(periods))
        times = rng.uniform(0.01, 0.02) + (periods + dither) * self.poll_s
        times = times + rng.uniform(0, 0.002, len(times))
        if marks:
            edges = np.array([t for w in windows for t in (w.start_s, w.end_s)])
            times = np.sort(np.concatenate([times, edges + rng.uniform(2e-4, 2e-3, len(edges))]))
        return times, rng.uniform(5e-5, 5e-4, len(times))


def readings(
    times: Array, values: Array, took: Array | float, span: Array | float
) -> list[Reading]:
    """Reading objects of columns."""
    took = np.broadcast_to(took, times.shape)
    span = np.broadcast_to(span, times.shape)
    columns = (times.tolist(), values.tolist(), took.tolist(), span.tolist())
    return [Reading(*row) for row in zip(*columns, strict=True)]


def counter(
    kind: Kind, load: Load, windows: list[Window], rng: np.random.Generator
) -> list[Reading]:
    """Energy that goes up by whole quanta at the source's updates."""
    times, took = kind.poll_times(load, windows, rng, marks=True)
    # A value is taken at any moment while the reading lasts.
    moments = times + rng.uniform(-0.5, 0.5, len(times)) * took
    if kind.facts.update_period_s < 0.1:  # too many to list: each is up to a period old
        shown = moments - rng.uniform(0, kind.facts.update_period_s, len(times))
    else:
        updates = kind.update_times(load, rng)
        shown = updates[np.clip(np.searchsorted(updates, moments, "right") - 1, 0, None)]
    quantum = kind.facts.quantum or 0.0
    whole = load.energy(np.maximum(shown, 0.0)) + rng.uniform(0, quantum)
    steps = np.maximum.accumulate(np.floor(whole / quantum) * quantum)
    return readings(times, steps - steps[0], took, 0.0)


def samples(
    kind: Kind, load: Load, windows: list[Window], rng: np.random.Generator
) -> list[Reading]:
    """Momentary power, with noise and a smallest step; as old as the source's last update."""
    times, took = kind.poll_times(load, windows, rng, marks=True)
    shown = times
    if kind.true_update_s[1] > 0:
        updates = kind.update_times(load, rng)
        shown = np.maximum(0.0, updates[np.clip(np.searchsorted(updates, times) - 1, 0, None)])
    values = load.power(shown) * (1 + kind.noise * noise_at(shown, rng))
    return readings(times, rounded(values, kind.facts.quantum), took, 0.0)


def averages(
    kind: Kind, load: Load, windows: list[Window], rng: np.random.Generator
) -> list[Reading]:
    """Mean power over intervals that follow each other and whose lengths vary."""
    lengths = kind.poll_s * rng.uniform(0.98, 1.15, int(load.total_s / kind.poll_s) + 1)
    ends = np.cumsum(lengths)
    ends = ends[ends < load.total_s]
    lengths = lengths[: len(ends)]
    values = (load.energy(ends) - load.energy(np.maximum(0.0, ends - lengths))) / lengths
    values = values * (1 + kind.noise * rng.standard_normal(len(ends)))
    return readings(ends, rounded(values, kind.facts.quantum), 0.0, lengths)


def noise_at(shown: Array, rng: np.random.Generator) -> Array:
    """Noise that belongs to the moment shown: a value that is told twice has the same error."""
    moments, where = np.unique(shown, return_inverse=True)
    found: Array = rng.standard_normal(len(moments))[where]
    return found


def rounded(values: Array, quantum: float | None) -> Array:
    """To whole quanta."""
    if not quantum:
        return values
    found: Array = np.round(values / quantum) * quantum
    return found
