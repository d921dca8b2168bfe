"""What the machine does while the runs go on: one compact state a second, read by the parent.

    with Monitor(machine.tree, machine.clock) as monitor:
        ...                        # the runs
    monitor.states                 # [{"t_s": 0.0, "mhz": [1500, 2400], "temperature_c": 61.8}, ...]
    monitor.overhead               # what the parent itself cost meanwhile

A state holds what `host.glance` tells, without the keys that the machine does not tell, and two
shares of the machine's CPU time since the state before: `own` (this process and its children) and
`others`.
A reading that takes more than one percent of the period (a command per reading, hundreds of CPUs)
makes the period longer, up to `LONGEST_PERIOD_S`: what is watched must not be disturbed.
"""

from __future__ import annotations

import threading
import time
from collections import deque
from types import TracebackType
from typing import Any, Self

from edgegauge.host.tree import Tree
from edgegauge.measure import cpu_use, host
from edgegauge.measure.machine import Clock

MOST_SHARE = 0.01
"""Of the period, that one reading may take."""
LONGEST_PERIOD_S = 10.0
JUDGED = 5
"""The cost of a reading is the shortest of the last few: a longer one was waiting for a CPU."""
LEAST_TICKS = 20
"""Shares of CPU time are told of so many clock ticks or more."""


class Monitor:
    """Reads states in a thread of its own from `__enter__` to `__exit__`."""

    def __init__(self, tree: Tree, clock: Clock, period_s: float = 1.0) -> None:
        self._tree, self._clock, self._period_s = tree, clock, period_s
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._watch, name="monitor", daemon=True)
        self._took_s: deque[float] = deque(maxlen=JUDGED)
        self._ticks: dict[str, int] | None = None
        self._start_s = self._wall_s = self._cpu_s = 0.0
        self.states: list[dict[str, Any]] = []
        self.overhead: dict[str, float] = {}
        """After the end: parent_cpu_s (all threads of this process), wall_s, share (of one CPU),
        reading_s (one state), period_s (the last one); real seconds."""

    def __enter__(self) -> Self:
        self._start_s = self._clock.now_s()
        self._wall_s, self._cpu_s = time.monotonic(), time.process_time()
        self._read()
        self._thread.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._stop.set()
        self._thread.join()
        self._read()
        wall_s, cpu_s = time.monotonic() - self._wall_s, time.process_time() - self._cpu_s
        self.overhead = {
            "parent_cpu_s": cpu_s,
            "wall_s": wall_s,
            "share": cpu_s / wall_s,
            "reading_s": min(self._took_s),
            "period_s": self.period_s,
        }

    @property
    def period_s(self) -> float:
        """Seconds between two states now."""
        cost_s = min(self._took_s, default=0.0) / MOST_SHARE
        return max(self._period_s, min(cost_s, LONGEST_PERIOD_S))

    def _watch(self) -> None:
        while not self._stop.wait(self._clock.real_s(self.period_s)):
            self._read()

    def _read(self) -> None:
        started = time.perf_counter()
        state = {"t_s": round(self._clock.now_s() - self._start_s, 3), **host.glance(self._tree)}
        state |= self._shares(cpu_use.ticks(self._tree))
        self._took_s.append(time.perf_counter() - started)
        self.states.append({key: value for key, value in state.items() if value is not None})

    def _shares(self, now: dict[str, int] | None) -> dict[str, float]:
        """Shares of the CPU time since the last call."""
        last, self._ticks = self._ticks, now
        if not last or not now or now["all"] - last["all"] < LEAST_TICKS:
            return {}
        spent = {key: now[key] - last[key] for key in now}
        own = spent["own"] / spent["all"]
        others = (spent["busy"] - spent["own"]) / spent["all"]
        return {"own": round(max(0.0, own), 3), "others": round(max(0.0, others), 3)}
