"""The clocks of a machine beside each other: was the wall clock stepped, did the machine sleep?

    before = clock_offsets(); ...; flags = list(clock_findings(before, clock_offsets()))

Slewing (NTP's usual way) moves the wall clock and the monotonic one alike and is not seen; a step
moves the wall clock alone. The monotonic clock stands still while a Linux machine sleeps, and
CLOCK_BOOTTIME goes on (clock_gettime(2)).
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from edgegauge.measure.meters import Flag

MOST_STEP_S = 0.1
"""A smaller step of the wall clock does not matter to a recording of a few samples a second."""
MOST_SLEEP_S = 0.1


@dataclass(frozen=True, slots=True)
class ClockOffsets:
    """How far other clocks are ahead of the monotonic one, in seconds."""

    unix_s: float
    """Of the wall clock: add it to a monotonic time for seconds since 1970."""
    boot_s: float | None
    """Of the clock that also counts sleep: time slept since boot. None outside Linux."""


def clock_offsets() -> ClockOffsets:
    """The offsets now."""
    boot = getattr(time, "CLOCK_BOOTTIME", None)
    return ClockOffsets(
        _ahead(time.time_ns),
        None if boot is None else _ahead(lambda: time.clock_gettime_ns(boot)),
    )


def _ahead(read_ns: Callable[[], int]) -> float:
    """Of three readings the one that took least: another process may run between two clocks."""
    tries = []
    for _ in range(3):
        before = time.monotonic_ns()
        other = read_ns()
        after = time.monotonic_ns()
        tries.append((after - before, other - (before + after) / 2))
    return min(tries)[1] / 1e9


def clock_findings(before: ClockOffsets, after: ClockOffsets) -> Iterator[Flag]:
    """What happened to the clocks in between; sleep spoils every figure per time."""
    if before.boot_s is not None and after.boot_s is not None:
        slept_s = after.boot_s - before.boot_s
        if slept_s > MOST_SLEEP_S:
            text = f"the machine slept for {slept_s:.1f} s meanwhile"
            yield Flag(f"{text}: keep it awake, for example with systemd-inhibit", spoils=True)
            return  # the wall clock went on, too
    step_s = after.unix_s - before.unix_s
    if abs(step_s) > MOST_STEP_S:
        text = f"the wall clock was stepped by {step_s:+.1f} s"
        yield Flag(f"{text}: a recording aligned by timestamps would be off")
