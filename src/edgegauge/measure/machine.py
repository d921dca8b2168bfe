"""The machine that a measurement runs on: its files and its clock, both replaceable.

`Machine()` is this one. Tests give a recorded tree whose files move, and a clock that runs faster
than the wall's, so that windows of minutes pass in a second through the same code.

    machine = Machine()
    machine.clock.now_s()      # seconds on the clock of the run
    machine.clock.wait(1.0)
"""

from __future__ import annotations

import time
from dataclasses import dataclass, field

from edgegauge.host.tree import Tree

NANO = 1_000_000_000


@dataclass(frozen=True, slots=True)
class Clock:
    """The monotonic clock, which a child shares; `speed` > 1 lets recorded minutes pass quickly.

    All times of a run are on this clock. At speed 1 it is `time.monotonic`.
    """

    speed: float = 1.0

    def now_s(self) -> float:
        """Seconds on this clock."""
        return self.at(time.monotonic_ns())

    def at(self, monotonic_ns: int) -> float:
        """This clock when the monotonic clock of any process of the machine read that."""
        return monotonic_ns / NANO * self.speed

    def real_s(self, seconds: float) -> float:
        """How long that many seconds of this clock take."""
        return seconds / self.speed

    def wait(self, seconds: float) -> None:
        """Sleep for that many seconds of this clock."""
        time.sleep(max(0.0, self.real_s(seconds)))


@dataclass(frozen=True, slots=True)
class Machine:
    """Files and clock of the machine under measurement."""

    tree: Tree = field(default_factory=Tree)
    clock: Clock = field(default_factory=Clock)
