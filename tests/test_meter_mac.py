"""macOS: powermetrics as a stream of a process that may die, and the battery gauge of ioreg."""

from __future__ import annotations

import plistlib
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from played_machine import HandClock

from edgegauge.host.tree import Tree
from edgegauge.measure.machine import Clock, Machine
from edgegauge.measure.meters import MeterLost, MeterUnusable, Reading, powermetrics
from edgegauge.measure.meters.mac_battery import MacBatteryKind, discharge_w, properties, signed
from edgegauge.measure.meters.powermetrics import (
    PowermetricsKind,
    PowermetricsMeter,
    watts,
)

CLOCK = Clock()


def plist(elapsed_ns: int, **milliwatts: float) -> bytes:
    """One sample in the shape of macOS 14, shortened."""
    return plistlib.dumps(
        {
            "is_delta": True,
            "elapsed_ns": elapsed_ns,
            "hw_model": "Mac14,2",
            "processor": {"clusters": [], **milliwatts},
        }
    )


def test_a_sample_is_the_sum_of_its_parts_and_its_real_time() -> None:
    sample = plist(1_019_178_750, cpu_power=4044.0, gpu_power=150.5, ane_power=5.5)
    assert watts(b"\0" + sample) == (pytest.approx(4.2), 1_019_178_750)
    older = plist(2_000_000_000, cpu_energy=8000, gpu_energy=400, ane_energy=0)
    assert watts(older) == (pytest.approx(4.2), 2_000_000_000)


@pytest.mark.parametrize(
    "sample",
    [
        b"",
        b"<plist></plist>",
        plist(1, gpu_power=5.0),
        plist(0, cpu_power=5.0),
        plist(-5, cpu_power=5.0),
        plist(10**9, cpu_power=float("nan")),
        plist(10**9, cpu_power=-5.0),
        plist(10**9, cpu_power=1e9),
        plistlib.dumps(["elapsed_ns"]),
        b"<!DOCTYPE x [<!ENTITY a 'b'>]><plist><dict/></plist>",
    ],
)
def test_what_is_no_sample_is_none(sample: bytes) -> None:
    assert watts(sample) is None


@given(
    st.one_of(
        st.binary(max_size=200),
        st.text(alphabet="<>/plistdckeyrng01 ", max_size=200).map(str.encode),
        st.integers(0, 400).map(lambda n: plist(10**9, cpu_power=1.0)[:n]),
    )
)
def test_garbage_never_raises(raw: bytes) -> None:
    assert watts(raw) is None


def command(tmp_path: Path, body: str) -> tuple[str, ...]:
    """A process that runs `body` with `emit(elapsed_ns, **milliwatts)`."""
    script = tmp_path / "fake.py"
    script.write_text(
        "import plistlib, sys, time\n"
        "out = sys.stdout.buffer\n"
        "def emit(ns, **mw):\n"
        "    out.write(b'\\0' + plistlib.dumps({'elapsed_ns': ns, 'processor': mw}))\n"
        "    out.flush()\n" + body
    )
    return sys.executable, "-S", str(script)


def within(meter: PowermetricsMeter, count: int) -> Iterator[Reading]:
    """The next readings, at most five seconds long; stops when the meter is lost."""
    end = time.monotonic() + 5
    while count and time.monotonic() < end:
        reading = meter.read()
        if reading is None:
            time.sleep(0.005)
            continue
        count -= 1
        yield reading


def test_samples_stream_with_their_own_span(tmp_path: Path) -> None:
    body = (
        "emit(1_500_000_000, cpu_power=3000)\nemit(700_000_000, cpu_power=5000)\ntime.sleep(60)\n"
    )
    meter = PowermetricsMeter(command(tmp_path, body), Clock(speed=2.0))
    try:
        first, second = within(meter, 2)
        assert (first.value, first.span_s) == (3.0, 3.0)  # on a clock of double speed
        assert (second.value, second.span_s) == (5.0, pytest.approx(1.4))
        assert meter.read() is None
    finally:
        meter.close()
    meter.close()
    assert meter._process.poll() is not None


def test_a_process_that_dies_loses_the_meter_after_its_last_sample(tmp_path: Path) -> None:
    body = "emit(10**9, cpu_power=3000)\nsys.stderr.write('no such sampler')\nsys.exit(7)\n"
    meter = PowermetricsMeter(command(tmp_path, body), CLOCK)
    seen = []
    with pytest.raises(MeterLost, match="status 7: no such sampler"):
        seen += within(meter, 2)
    meter.close()


def test_killed_half_way(tmp_path: Path) -> None:
    meter = PowermetricsMeter(
        command(tmp_path, "emit(10**9, cpu_power=3000)\ntime.sleep(60)\n"), CLOCK
    )
    assert next(within(meter, 1)).value == 3.0
    meter._process.kill()
    with pytest.raises(MeterLost, match="ended"):
        list(within(meter, 1))
    meter.close()


def test_garbage_is_a_gap_and_too_much_of_it_a_loss(tmp_path: Path) -> None:
    body = "out.write(b'<plist>no</plist>')\nemit(10**9, cpu_power=3000)\ntime.sleep(60)\n"
    meter = PowermetricsMeter(command(tmp_path, body), CLOCK)
    assert next(within(meter, 1)).value == 3.0
    assert "1 samples" in meter.flags()[0].text
    meter.close()
    body = "out.write(b'<plist>no</plist>' * 9)\nout.flush()\ntime.sleep(60)\n"
    meter = PowermetricsMeter(command(tmp_path, body), CLOCK)
    with pytest.raises(MeterLost, match="cpu_power"):
        list(within(meter, 1))
    meter.close()


def test_a_sample_without_end_is_not_collected_for_ever(tmp_path: Path) -> None:
    body = "while True: out.write(b'x' * 65536)\n"
    meter = PowermetricsMeter(command(tmp_path, body), CLOCK)
    with pytest.raises(MeterLost, match="without end"):
        list(within(meter, 1))
    meter.close()


def test_silence_loses_the_meter(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(powermetrics, "SILENCE_S", 0.05)
    meter = PowermetricsMeter(command(tmp_path, "time.sleep(60)\n"), CLOCK)
    with pytest.raises(MeterLost, match="printed nothing"):
        list(within(meter, 1))
    meter.close()


def on_path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, body: str) -> None:
    words = command(tmp_path, body)
    program = tmp_path / "powermetrics"
    program.write_text("#!/bin/sh\nexec '" + "' '".join(words) + '\' "$@"\n')
    program.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path))


@pytest.mark.skipif(sys.platform == "win32", reason="a shell script on PATH")
def test_kind_starts_the_command_that_is_on_the_path(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    body = "assert sys.argv[-2:] == ['-f', 'plist']\nemit(10**9, cpu_power=2500)\ntime.sleep(60)\n"
    on_path(tmp_path, monkeypatch, body)
    monkeypatch.setattr("os.geteuid", lambda: 501)
    with pytest.raises(MeterUnusable, match="root") as caught:
        PowermetricsKind().find(Machine(), None)
    assert "sudo" in str(caught.value.hint)
    monkeypatch.setattr("os.geteuid", lambda: 0)
    (meter,) = PowermetricsKind().find(Machine(), None)
    reading = meter.read()
    assert reading is not None and reading.value == 2.5
    assert not meter.facts.whole_device
    assert "memory" in meter.facts.excludes
    meter.close()
    on_path(tmp_path, monkeypatch, "sys.stderr.write('broken'); sys.exit(1)\n")
    with pytest.raises(MeterUnusable, match="broken"):
        PowermetricsKind().find(Machine(), None)


def test_elsewhere_it_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    for tree in (Tree(), Tree(tmp_path)):
        with pytest.raises(MeterUnusable, match="macOS"):
            PowermetricsKind().find(Machine(tree), None)


GAUGE = """\
+-o AppleSmartBattery  <class AppleSmartBattery, id 0x100000222, registered, matched, active>
    {{
      "ExternalConnected" = {external}
      "BatteryData" = {{"Voltage"=1,"InstantAmperage"=5,"CycleCount"=41}}
      "InstantAmperage" = {current}
      "Amperage" = 18446744073709550000
      "UpdateTime" = {update}
      "Voltage" = {voltage}
      "DesignCapacity" = 4629
    }}
"""
MINUS_1438 = 18446744073709550178


class Gauge(Tree):
    """A Mac whose ioreg prints what the test says."""

    def __init__(self, **values: object) -> None:
        super().__init__(Path("/nowhere"))
        self.values = {
            "external": "No", "current": MINUS_1438, "update": 1, "voltage": 11696, **values
        }  # fmt: skip

    def output(self, *command: str) -> str | None:
        assert command == ("ioreg", "-rw0", "-c", "AppleSmartBattery")
        return GAUGE.format(**self.values) if self.values else None


def test_current_is_unsigned_twos_complement() -> None:
    assert signed(str(MINUS_1438)) == -1438
    assert signed("-1103") == -1103
    assert signed("900") == 900
    assert signed(str(2**64)) is None
    assert signed("Yes") is None
    (meter,) = MacBatteryKind().find(Machine(Gauge(), HandClock()), None)
    reading = meter.read()
    assert reading is not None and reading.value == pytest.approx(11.696 * 1.438)
    assert meter.facts.whole_device and not meter.facts.counter


def test_averaged_current_where_there_is_no_instant_one() -> None:
    found = properties(GAUGE.format(external="No", current="?", update=1, voltage=10000))
    assert discharge_w(found) == pytest.approx(16.16)


def test_only_a_renewed_gauge_is_a_reading() -> None:
    tree, clock = Gauge(), HandClock()
    (meter,) = MacBatteryKind().find(Machine(tree, clock), None)
    values = []
    for second in range(0, 300, 2):
        tree.values["update"] = second // 60
        reading = meter.read()
        values += [reading.t_s] if reading else []
        clock.wait(2.0)
    assert len(values) == 5
    assert "every 60 s" in meter.flags()[0].text


def test_a_charger_ends_it_and_prevents_it() -> None:
    tree = Gauge()
    (meter,) = MacBatteryKind().find(Machine(tree, HandClock()), None)
    assert meter.read() is not None
    tree.values["external"] = "Yes"
    with pytest.raises(MeterLost, match="charger"):
        meter.read()
    with pytest.raises(MeterUnusable, match="charger") as caught:
        MacBatteryKind().find(Machine(tree), None)
    assert "unplug" in str(caught.value.hint)


@pytest.mark.parametrize(
    "values",
    [{"current": 1438}, {"current": 0}, {"voltage": 0}, {"voltage": 10**9}, {"current": 2**63}],
)
def test_a_gauge_that_makes_no_sense_is_unusable(values: dict[str, int]) -> None:
    with pytest.raises(MeterUnusable, match="does not report a discharge"):
        MacBatteryKind().find(Machine(Gauge(**values)), None)
    tree = Gauge()
    (meter,) = MacBatteryKind().find(Machine(tree, HandClock()), None)
    tree.values.update(values)
    assert [meter.read() for _ in range(2)] == [None] * 2
    with pytest.raises(MeterLost):
        meter.read()


def test_no_mac_no_meter(tmp_path: Path) -> None:
    with pytest.raises(MeterUnusable, match="only MacBooks"):
        MacBatteryKind().find(Machine(Tree(tmp_path)), None)
