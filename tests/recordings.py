"""Simulated energy runs and what instruments would write about them."""

from __future__ import annotations

import math
import random
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

IDLE_W, LOAD_W, PREFILL_W, DECODE_W = 2.0, 9.0, 8.0, 6.0


@dataclass
class Run:
    """True power by time of the run's clock: load edges, idle, P D D P, idle, load edges."""

    start_s: float = 5000.0
    block_s: float = 40.0
    idle_s: float = 65.0
    edges: list[tuple[float, float]] = field(default_factory=list)
    steps: list[tuple[float, float]] = field(default_factory=list)
    windows: list[tuple[str, float, float]] = field(default_factory=list)
    end_s: float = 0.0

    def __post_init__(self) -> None:
        at = self._pattern(self.start_s + 12.0)
        at = self._phase("idle_before", at, self.idle_s, IDLE_W)
        for name, watts in (
            ("prefill", PREFILL_W), ("decode", DECODE_W), ("decode", DECODE_W),
            ("prefill", PREFILL_W),
        ):  # fmt: skip
            at = self._phase(name, at + 1.0, self.block_s, watts)
        at = self._phase("idle_after", at + 1.0, self.idle_s, IDLE_W)
        self.end_s = self._pattern(at + 2.0) + 10.0

    def _pattern(self, at: float) -> float:
        for _ in range(2):
            self._set(at, LOAD_W)
            self._set(at + 2.0, IDLE_W)
            self.edges.append((at, at + 2.0))
            at += 4.0
        return at

    def _phase(self, name: str, at: float, seconds: float, watts: float) -> float:
        self._set(at - 0.5, watts)
        self.windows.append((name, at, at + seconds))
        self._set(at + seconds + 0.5, IDLE_W)
        return at + seconds

    def _set(self, at: float, watts: float) -> None:
        self.steps.append((at, watts))

    def joules(self, t_s: float) -> float:
        """Exact energy from the start of the run."""
        times = [self.start_s, *(t for t, _ in self.steps)]
        watts = [IDLE_W, *(w for _, w in self.steps)]
        ends = [*times[1:], math.inf]
        return sum(
            w * (min(b, t_s) - a) for a, b, w in zip(times, ends, watts, strict=True) if t_s > a
        )


def sample(
    run: Run,
    period_s: float,
    row: Callable[[int, float, float, float], str],
    *,
    offset_s: float = 0.0,
    ppm: float = 0.0,
    noise_w: float = 0.0,
    seed: int = 0,
) -> list[str]:
    """Rows `row(n, time on the meter's clock, mean W since the last row, J)`.

    The meter's clock is `(run time - start - offset) x (1 + ppm)`: it starts `offset_s` late.
    """
    random_ = random.Random(seed)
    rows, joules = [], 0.0
    steps = iter(sorted(run.steps))
    pending = next(steps)
    watts, at = IDLE_W, run.start_s
    n = 0
    while True:
        own = n * period_s
        t_s = run.start_s + offset_s + own / (1 + ppm * 1e-6)
        if t_s > run.end_s:
            return rows
        seen = 0.0
        began = at
        while pending is not None and pending[0] <= t_s:
            seen += watts * (pending[0] - at)
            at, watts = pending
            pending = next(steps, None)  # type: ignore[assignment]
        seen += watts * (t_s - at)
        at = t_s
        mean = seen / (t_s - began) if t_s > began else watts
        mean += random_.gauss(0.0, noise_w)
        joules += mean * period_s
        rows.append(row(n, own, mean, joules))
        n += 1


def csv(path: Path, header: str, rows: list[str]) -> Path:
    path.write_text("\n".join([header, *rows, ""]))
    return path
