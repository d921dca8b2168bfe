"""The recorder: rhythm, marks, meters that fail, block or lie.

Tests wait for what must happen; none depends on how fast it does.
"""

from __future__ import annotations

import random
import threading
import time
from collections.abc import Callable
from itertools import islice, pairwise

import pytest

from edgegauge.energy import MeterFacts
from edgegauge.measure import recorder
from edgegauge.measure.machine import Clock
from edgegauge.measure.meters import Flag, MeterLost, Reading
from edgegauge.measure.recorder import Recorder, moments

FAST = Clock(speed=100.0)
PATIENCE_S = 10.0


class FakeMeter:
    """Reads the clock; `fail` may raise or block at the n-th reading (from 0)."""

    def __init__(
        self,
        name: str = "fake",
        *,
        poll_s: float = 1.0,
        counter: bool = True,
        fail: Callable[[int], None] = lambda n: None,
    ) -> None:
        self.facts = MeterFacts(
            meter=name,
            id=f"{name}:0",
            read_from="a test",
            unit="J",
            counter=counter,
            update_period_s=0.1,
            calibration_share=0.0,
            calibration="none",
            grade="B",
            whole_device=True,
            covers=["all"],
            excludes=[],
        )
        self.poll_s = poll_s
        self.fail = fail
        self.count = 0
        self.closed = 0
        self.threads: set[int] = set()

    def read(self) -> Reading | None:
        self.threads.add(threading.get_ident())
        self.count += 1
        self.fail(self.count - 1)
        return Reading(FAST.now_s(), float(self.count))

    def flags(self) -> list[Flag]:
        return [Flag(f"{self.count} readings")]

    def close(self) -> None:
        self.closed += 1


def until(true: Callable[[], bool]) -> None:
    """Wait for something another thread does."""
    end = time.monotonic() + PATIENCE_S
    while not true():
        assert time.monotonic() < end, "it never happened"
        time.sleep(0.001)


def waits(event: threading.Event) -> None:
    event.wait(PATIENCE_S)


def fail_at(n: int, error: Exception) -> Callable[[int], None]:
    def fail(count: int) -> None:
        if count == n:
            raise error

    return fail


def test_every_meter_is_read_in_its_own_thread_and_closed() -> None:
    meters = [FakeMeter("a"), FakeMeter("b", poll_s=2.0)]
    with Recorder(meters, FAST) as running:
        until(lambda: all(meter.count > 5 for meter in meters))
    for meter, found in zip(meters, running.recorded, strict=True):
        assert found.facts is meter.facts and found.lost is None
        assert [r.value for r in found.readings] == list(range(1, meter.count + 1))
        assert all(a.t_s < b.t_s for a, b in pairwise(found.readings))
        assert found.flags == [Flag(f"{meter.count} readings")]
        assert meter.closed == 1 and len(meter.threads) == 1
    assert meters[0].threads != meters[1].threads


def test_a_mark_brings_a_reading_between_two_polls() -> None:
    meter = FakeMeter(poll_s=1e6)
    with Recorder([meter], FAST) as running:
        assert meter.count == 1  # the first reading is there when the block begins
        running.mark()
        until(lambda: len(running.so_far("fake:0").readings) == 2)
    # The end brings another, which closes the last window.
    assert len(running.recorded[0].readings) == 3


def test_a_mark_during_a_reading_brings_a_later_one() -> None:
    go, begun = threading.Event(), threading.Event()

    def fail(n: int) -> None:
        if n == 1:
            begun.set()
            go.wait(PATIENCE_S)

    meter = FakeMeter(poll_s=1e6, fail=fail)
    with Recorder([meter], FAST) as running:
        running.mark()
        assert begun.wait(PATIENCE_S)
        running.mark()
        go.set()
        until(lambda: meter.count == 3)


def test_a_counter_has_a_rhythm_that_does_not_drift() -> None:
    assert list(islice(moments(FakeMeter(poll_s=0.5), random.Random(1)), 4)) == [0.0, 0.5, 1.0, 1.5]


def test_a_slow_reading_makes_the_next_wait_for_its_turn() -> None:
    # Each reading takes 2.5 polls: readings begin 3 apart, not one after the other.
    meter = FakeMeter(poll_s=5.0, fail=lambda n: FAST.wait(12.5))
    with Recorder([meter], FAST) as running:
        until(lambda: meter.count > 4)
    readings = running.recorded[0].readings[:-1]
    assert min(b.t_s - a.t_s for a, b in pairwise(readings)) > 12.6


def test_power_is_read_once_a_period_at_no_rhythm() -> None:
    times = list(islice(moments(FakeMeter(counter=False, poll_s=0.5), random.Random(1)), 200))
    assert all(0.5 * i <= t < 0.5 * (i + 1) for i, t in enumerate(times))
    # A load that swings twice a second looks constant at multiples of 0.5 s, and half up here.
    up = sum((t * 2) % 1 < 0.5 for t in times)
    assert 80 < up < 120


@pytest.mark.parametrize(
    ("error", "reason"),
    [
        (MeterLost("the charger was connected"), "the charger was connected"),
        (OSError(5, "Input/output error"), "OSError: [Errno 5] Input/output error"),
        (ZeroDivisionError("x"), "ZeroDivisionError: x"),
    ],
)
def test_a_meter_that_fails_is_lost_with_the_reason(error: Exception, reason: str) -> None:
    bad, good = FakeMeter("bad", fail=fail_at(3, error)), FakeMeter("good")
    with Recorder([bad, good], FAST) as running:
        until(lambda: running.lost("bad:0") is not None)
        before = good.count
        until(lambda: good.count > before + 2)
        assert running.lost("good:0") is None
        running.mark()  # harmless
    lost, kept = running.recorded
    assert lost.lost == reason and len(lost.readings) == 3 and bad.closed == 1
    assert kept.lost is None


def test_a_meter_that_fails_at_once_does_not_hold_the_run() -> None:
    with Recorder([FakeMeter(fail=fail_at(0, MeterLost("gone")))], FAST) as running:
        pass
    assert running.recorded[0].lost == "gone" and running.recorded[0].readings == []


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_what_is_no_number_loses_the_meter(value: float) -> None:
    meter = FakeMeter()
    meter.read = lambda: Reading(1.0, value)  # type: ignore[method-assign]
    with Recorder([meter], FAST) as running:
        until(lambda: running.lost("fake:0") is not None)
    assert running.recorded[0].readings == []


def test_nothing_new_is_no_reading() -> None:
    meter = FakeMeter()
    meter.read = lambda: None  # type: ignore[method-assign]
    with Recorder([meter], FAST) as running:
        pass
    assert running.recorded[0].readings == [] and running.recorded[0].lost is None


def test_a_reading_that_blocks_hangs_nothing_and_is_ignored_when_it_ends(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(recorder, "STOP_S", 0.05)
    release = threading.Event()

    def fail(n: int) -> None:
        if n == 2:
            release.wait(PATIENCE_S)

    meter = FakeMeter(fail=fail)
    with Recorder([meter], FAST) as running:
        until(lambda: meter.count == 3)
    found = running.recorded[0]
    assert found.lost == "a reading did not end" and len(found.readings) == 2
    until(lambda: meter.closed == 1)  # which may be what sets it free
    release.set()
    until(lambda: meter.closed == 2)
    assert len(running.recorded[0].readings) == 2


def test_a_first_reading_that_blocks_does_not_hold_the_start(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(recorder, "FIRST_S", 0.05)
    monkeypatch.setattr(recorder, "STOP_S", 0.05)
    release = threading.Event()
    with Recorder([FakeMeter(fail=lambda n: waits(release))], FAST) as running:
        pass
    release.set()
    assert running.recorded[0].lost == "a reading did not end"


def test_a_meter_that_cannot_be_closed_says_so() -> None:
    meter = FakeMeter()

    def close() -> None:
        raise OSError("stuck")

    meter.close = close  # type: ignore[method-assign]
    with Recorder([meter], FAST) as running:
        pass
    assert running.recorded[0].lost == "closing it failed: OSError: stuck"


def test_an_error_in_the_block_stops_the_threads() -> None:
    meter = FakeMeter()
    with pytest.raises(KeyboardInterrupt), Recorder([meter], FAST):
        raise KeyboardInterrupt
    assert meter.closed == 1


def test_an_unknown_meter_is_an_error() -> None:
    with Recorder([], FAST) as running:
        pass
    with pytest.raises(KeyError):
        running.lost("none:0")


def test_a_meter_whose_flags_fail_is_lost_and_breaks_nothing() -> None:
    class Odd(FakeMeter):
        def flags(self) -> list[Flag]:
            raise ValueError("too few steps")

    with Recorder([Odd()], FAST) as recorder:
        pass
    (found,) = recorder.recorded
    assert found.readings and found.flags == []
    assert found.lost == "its flags failed: ValueError: too few steps"
