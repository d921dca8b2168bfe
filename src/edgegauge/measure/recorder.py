"""The recorder: reads every meter in a thread of its own while something else runs.

    with Recorder(meters, machine.clock) as recorder:
        start_s = clock.now_s(); recorder.mark()     # a reading now, close to the edge of a window
        ...                                          # what is measured
        end_s = clock.now_s(); recorder.mark()
    recorder.recorded                                # [Recorded(facts, readings, flags, lost)]

A counter is read at multiples of the meter's `poll_s` after the start; one reading that took too
long makes the next wait for the next multiple, so the rhythm never drifts. Power is read once in
each such period, but at a random moment of it: a load that goes up and down with every token, ten
times a second, would look constant to readings exactly ten times a second.

A meter that fails, in whatever way, is lost: its readings up to then are kept and `lost` says why.
Nothing here can hang the run: a read that blocks is left behind in its daemon thread, and what it
returns later is ignored.
"""

from __future__ import annotations

import itertools
import math
import random
import threading
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from types import TracebackType

from edgegauge.energy import MeterFacts
from edgegauge.measure.machine import Clock
from edgegauge.measure.meters import Flag, Meter, MeterLost, Reading

FIRST_S = 2.0
"""Real seconds to wait at the start until every meter was read once."""
STOP_S = 2.0
"""Real seconds that the threads have at the end for a last reading."""


@dataclass(frozen=True, slots=True)
class Recorded:
    """What one meter told during a run. Readings in order of time, on the machine's clock."""

    facts: MeterFacts
    readings: list[Reading]
    flags: list[Flag]
    lost: str | None = None
    """Why it told nothing after its last reading; None where it was there to the end."""


class Recorder:
    """Polls meters while its `with` block runs. Closes them at the end."""

    def __init__(self, meters: Sequence[Meter], clock: Clock) -> None:
        self._polls = [_Poll(meter, clock) for meter in meters]

    def __enter__(self) -> Recorder:
        for poll in self._polls:
            poll.thread.start()
        _within(FIRST_S, [poll.first for poll in self._polls])
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        for poll in self._polls:
            poll.stop()
        _within(STOP_S, [poll.ended for poll in self._polls])
        for poll in self._polls:
            poll.abandon()

    def mark(self) -> None:
        """Have every meter read once more as soon as it can. Returns at once."""
        for poll in self._polls:
            poll.wake.set()

    def lost(self, meter_id: str) -> str | None:
        """Why the meter of this id was lost; None while it is there. KeyError if unknown."""
        return self.so_far(meter_id).lost

    def so_far(self, meter_id: str) -> Recorded:
        """What the meter of this id has told up to now. KeyError if unknown."""
        for poll in self._polls:
            if poll.meter.facts.id == meter_id:
                return poll.recorded()
        raise KeyError(meter_id)

    @property
    def recorded(self) -> list[Recorded]:
        """What each meter has told, in the order they were given."""
        return [poll.recorded() for poll in self._polls]


class _Poll:
    """One meter, its thread and its readings."""

    def __init__(self, meter: Meter, clock: Clock) -> None:
        self.meter, self.clock = meter, clock
        self.wake, self.first, self.ended = (threading.Event() for _ in range(3))
        name = f"meter {meter.facts.id}"
        self.thread = threading.Thread(target=self._run, name=name, daemon=True)
        self._lock = threading.Lock()
        self._readings: list[Reading] = []
        self._lost: str | None = None
        self._stopping = False

    def stop(self) -> None:
        """Ask for one last reading, which closes the last window, and the end of the thread."""
        self._stopping = True
        self.wake.set()

    def abandon(self) -> None:
        """Leave a thread that did not end behind; closing its meter may set it free."""
        if self.ended.is_set():
            return
        self._lose("a reading did not end")
        threading.Thread(target=self.meter.close, daemon=True).start()

    def recorded(self) -> Recorded:
        flags: list[Flag] = []
        try:
            flags = list(self.meter.flags())
        except Exception as error:
            self._lose(f"its flags failed: {type(error).__name__}: {error}")
        with self._lock:
            return Recorded(self.meter.facts, list(self._readings), flags, self._lost)

    def _run(self) -> None:
        try:
            self._poll()
        except MeterLost as error:
            self._lose(str(error))
        except Exception as error:  # whatever went wrong, the result says it
            self._lose(f"{type(error).__name__}: {error}")
        finally:
            self.first.set()
            try:
                self.meter.close()
            except Exception as error:
                self._lose(f"closing it failed: {type(error).__name__}: {error}")
            self.ended.set()

    def _poll(self) -> None:
        start_s = self.clock.now_s()
        due = moments(self.meter, random.Random(self.meter.facts.id))
        due_s = 0.0
        while True:
            # Before the reading: one that was asked for meanwhile must come after it.
            self.wake.clear()
            last = self._stopping
            self._read()
            if last:
                return
            now_s = self.clock.now_s() - start_s
            while due_s <= now_s:
                due_s = next(due)
            self.wake.wait(self.clock.real_s(due_s - now_s))

    def _read(self) -> None:
        reading = self.meter.read()
        self.first.set()
        if reading is None:
            return
        if not math.isfinite(reading.value) or not math.isfinite(reading.t_s):
            raise MeterLost(f"it read {reading.value} at {reading.t_s} s")
        with self._lock:
            if self._lost is None:
                self._readings.append(reading)

    def _lose(self, reason: str) -> None:
        with self._lock:
            self._lost = self._lost or reason


def moments(meter: Meter, draw: random.Random) -> Iterator[float]:
    """When to read, in seconds from the start, period after period; without end."""
    for period in itertools.count():
        dither = 0.0 if meter.facts.counter else draw.random()
        yield (period + dither) * meter.poll_s


def _within(seconds: float, events: Sequence[threading.Event]) -> None:
    """Wait until all are set, for so many real seconds in all."""
    clock = Clock()
    end = clock.now_s() + seconds
    for event in events:
        event.wait(max(0.0, end - clock.now_s()))
