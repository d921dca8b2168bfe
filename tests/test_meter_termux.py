"""A phone's charge counter against the true energy, and every way its gauge misleads."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from played_machine import HandClock, Move, PlayedTree, Power, played, steps

from edgegauge.energy import Window
from edgegauge.measure.joules import energy_of
from edgegauge.measure.machine import Machine
from edgegauge.measure.meters import Meter, MeterLost, MeterUnusable
from edgegauge.measure.meters.termux import PREFIX, TermuxKind, counter_unit_uah, parse
from edgegauge.measure.recorder import Recorded

STATUS = "commands/termux-battery-status.txt"
BINARY = f"{PREFIX}/bin/termux-battery-status"
VOLTS = 3.85
STEP_J = 1000 * 3.6e-3 * VOLTS
LOAD = Power([(0, 1.4), (300, 5.2), (1500, 1.5)], ripple_w=0.2, ripple_s=13.0)
"""Idle, 1200 s of inference at 1.35 A, idle."""
Moves = Mapping[str, str | Move | None]


def status(power: Power, **changes: Any) -> Move:
    """A phone whose fields are those values, or functions of (s, mA drawn, µAh left)."""

    def text(t_s: float) -> str:
        drawn_ma = power.watts(t_s) / VOLTS * 1000
        left_uah = 3_545_000 - power.joules(t_s) / VOLTS / 3.6e-3
        told: dict[str, Any] = {
            "plugged": "UNPLUGGED",
            "status": "DISCHARGING",
            "voltage": VOLTS * 1000,
            "current": -round(drawn_ma * 1000),
            "percentage": int(left_uah / 50_000),
            "charge_counter": math.floor(left_uah / 1000) * 1000,
        }
        for key, value in changes.items():
            told[key] = value(t_s, drawn_ma, left_uah) if callable(value) else value
        return json.dumps({key: value for key, value in told.items() if value is not None})

    return text


def termux_api(current: float) -> float:
    """What Termux:API makes of a current."""
    return current * 1000 if abs(current) < 1000 else current


def find(power: Power = LOAD, moves: Moves | None = None) -> tuple[PlayedTree, HandClock, Meter]:
    clock = HandClock()
    tree = played("termux-phone", clock, power, moves)
    (meter,) = TermuxKind().find(Machine(tree, clock), None)
    return tree, clock, meter


def refused(**changes: Any) -> MeterUnusable:
    with pytest.raises(MeterUnusable) as error:
        find(moves={STATUS: status(LOAD, **changes)})
    return error.value


def record(meter: Meter, clock: HandClock, seconds: float) -> Recorded:
    readings = [meter.read()]
    for _ in range(round(seconds / meter.poll_s)):
        clock.wait(meter.poll_s)
        readings.append(meter.read())
    known = [reading for reading in readings if reading is not None]
    assert all(a.value <= b.value for a, b in pairwise(known))
    return Recorded(meter.facts, known, meter.flags())


def flags(power: Power, seconds: float, **changes: Any) -> list[str]:
    _, clock, meter = find(power, {STATUS: status(power, **changes)})
    record(meter, clock, seconds)
    return [("spoils: " if f.spoils else "") + f.text for f in meter.flags()]


def test_the_recorded_phone_gives_the_true_energy_whatever_its_current_says() -> None:
    tree, clock, meter = find()
    born_s = clock.now_s()
    recorded = record(meter, clock, 1700)
    taken_j = recorded.readings[-1].value - recorded.readings[0].value
    true_j = tree.true_joules(recorded.readings[0].t_s, recorded.readings[-1].t_s)
    assert taken_j == pytest.approx(true_j, abs=2 * STEP_J)
    window = Window(phase="decode", start_s=born_s + 310, end_s=born_s + 1490, tokens=1000)
    energy = energy_of(recorded, [window])
    (measured,) = energy.windows
    true_j = tree.true_joules(window.start_s, window.end_s)
    assert measured.joules is not None and measured.uncertainty_j is not None
    assert abs(measured.joules - true_j) <= 2 * measured.uncertainty_j
    assert measured.joules == pytest.approx(true_j, rel=0.01)
    assert energy.decode_j_per_token is not None
    facts = meter.facts
    assert facts.whole_device and facts.counter and facts.grade == "C"
    assert "disagrees" in energy.flags[0], "this phone says 364000 and 1351 in one run"


def test_a_phone_of_milliamperes_at_900_then_1300() -> None:
    """Termux corrects 900 and not 1300: a mean of the two fits no scale and joules none of it."""
    power = Power([(0, 0.9 * VOLTS), (400, 1.3 * VOLTS)])
    shown = {"current": lambda _, drawn_ma, __: termux_api(-round(drawn_ma))}
    told = flags(power, 800, **shown)
    assert len(told) == 1 and "disagrees with its charge counter in every scale" in told[0]
    _, clock, meter = find(power, {STATUS: status(power, **shown)})
    recorded = record(meter, clock, 800)
    assert recorded.readings[-1].value == pytest.approx(800 * 1.1 * VOLTS, rel=0.01)


@pytest.mark.parametrize("sign", [-1, 1])
@pytest.mark.parametrize(("scale", "said"), [(1.0, []), (1e-3, ["in mA, where µA are meant"])])
def test_a_current_that_agrees_in_one_scale_and_sign(
    sign: int, scale: float, said: list[str]
) -> None:
    power = Power([(0, 1.3 * VOLTS)])
    told = flags(power, 600, current=lambda _, ma, __: sign * round(ma * 1000 * scale))
    assert len(told) == len(said) and all(a in b for a, b in zip(said, told, strict=True))


def test_before_five_minutes_nothing_is_said_of_the_current() -> None:
    assert flags(LOAD, 250, current=-17) == []
    assert len(flags(LOAD, 700, current=-17)) == 1


def test_a_counter_in_milliampere_hours_is_one_in_microampere_hours() -> None:
    tree, clock, meter = find(
        moves={STATUS: status(LOAD, charge_counter=lambda _, __, uah: math.floor(uah / 1000))}
    )
    recorded = record(meter, clock, 1700)
    true_j = tree.true_joules(recorded.readings[0].t_s, recorded.readings[-1].t_s)
    assert recorded.readings[-1].value == pytest.approx(true_j, abs=2 * STEP_J)


@pytest.mark.parametrize("millivolts", [3850, 3.85, 3_850_000])
def test_voltage_in_any_unit(millivolts: float) -> None:
    found = parse(json.dumps({"status": "DISCHARGING", "voltage": millivolts}))
    assert found is not None and found.volts == pytest.approx(3.85)


@pytest.mark.parametrize("voltage", [0, -1, 385, 38500, "3850", True, None, [3850]])
def test_a_voltage_that_cannot_be_is_none(voltage: object) -> None:
    found = parse(json.dumps({"status": "DISCHARGING", "voltage": voltage}))
    assert found is not None and found.volts is None


@pytest.mark.parametrize("counter", [None, 0, -(2**31), 70, 70_000_000, 5.0e9])
def test_without_a_plausible_counter_the_phone_is_refused(counter: float | None) -> None:
    error = refused(charge_counter=counter)
    assert "its current alone may be 1000 times too small" in str(error)


def test_a_counter_without_a_percentage_cannot_be_judged() -> None:
    assert "is no phone's battery" in str(refused(percentage=None))


@pytest.mark.parametrize(
    "changes",
    [
        {"plugged": "PLUGGED_USB"},
        {"status": "CHARGING"},
        {"status": "NOT_CHARGING"},
        {"status": "FULL", "plugged": "PLUGGED_AC"},
        {"plugged": None},
    ],
)
def test_only_while_nothing_but_the_battery_feeds_it(changes: dict[str, Any]) -> None:
    error = refused(**changes)
    assert "not running from its battery alone" in str(error)
    assert error.hint == "unplug it; reach it over Wi-Fi"


@pytest.mark.parametrize("changes", [{"status": "CHARGING"}, {"plugged": "PLUGGED_USB"}])
def test_a_charger_that_is_connected_half_way_ends_the_meter_at_once(
    changes: dict[str, Any],
) -> None:
    moving = steps((0, status(LOAD)), (60, status(LOAD, **changes)))
    _, clock, meter = find(moves={STATUS: moving})
    record(meter, clock, 55)
    clock.wait(10)
    with pytest.raises(MeterLost, match="no longer alone"):
        meter.read()


def test_a_counter_that_never_moves_spoils_its_zero_joules() -> None:
    told = flags(LOAD, 600, charge_counter=3_545_000)
    assert told[0] == "spoils: the charge counter never moved in 600 s"
    assert flags(Power([(0, 0.3)]), 30) == []


def test_a_counter_that_is_recalibrated_spoils() -> None:
    up = flags(LOAD, 900, charge_counter=lambda t, _, uah: int(uah) + (100_000 if t > 400 else 0))
    assert any(t.startswith("spoils: the charge counter rose by") for t in up)
    down = flags(LOAD, 900, charge_counter=lambda t, _, uah: int(uah) - (100_000 if t > 400 else 0))
    assert any(t.startswith("spoils: the charge counter fell by 10") for t in down)


def test_a_counter_that_trembles_counts_nothing_twice() -> None:
    tree, clock, meter = find(
        moves={
            STATUS: status(
                LOAD, charge_counter=lambda t, _, uah: int(uah) + (5000 if t % 10 < 5 else 0)
            )
        }
    )
    recorded = record(meter, clock, 1700)
    true_j = tree.true_joules(recorded.readings[0].t_s, recorded.readings[-1].t_s)
    assert recorded.readings[-1].value == pytest.approx(true_j, abs=6 * STEP_J)
    assert not any(flag.spoils for flag in recorded.flags)


def test_whole_percents_of_charge_are_grade_d() -> None:
    power = Power([(0, 8.0)])
    _, clock, meter = find(
        power,
        {STATUS: status(power, charge_counter=lambda _, __, uah: int(uah / 50_000) * 50_000)},
    )
    assert meter.facts.grade == "C"
    recorded = record(meter, clock, 900)
    assert recorded.facts.grade == "D" == meter.facts.grade
    assert any("whole percents" in flag.text for flag in recorded.flags)


def test_a_command_that_times_out_is_a_gap_and_garbage_the_end() -> None:
    good = status(LOAD)
    moving = steps((0, good), (10, None), (15, good), (30, '{"status": "DISCH'))
    _, clock, meter = find(moves={STATUS: moving})
    assert meter.read() is not None
    clock.wait(11)
    assert meter.read() is None
    clock.wait(5)
    assert meter.read() is not None
    clock.wait(20)
    assert meter.read() is None and meter.read() is None
    with pytest.raises(MeterLost, match="no charge and voltage 3 times in a row"):
        meter.read()


def test_reasons_and_mends() -> None:
    with pytest.raises(MeterUnusable, match="gave no answer") as silent:
        find(moves={STATUS: None})
    assert silent.value.hint == "install the Termux:API app and open it once"
    with pytest.raises(MeterUnusable, match="not installed") as absent:
        find(moves={STATUS: None, BINARY: None, f"{PREFIX}/bin/bash": ""})
    assert absent.value.hint == "pkg install termux-api"
    with pytest.raises(MeterUnusable, match="not Termux"):
        find(moves={STATUS: None, BINARY: None})
    with pytest.raises(MeterUnusable, match="printed no status"):
        find(moves={STATUS: "Termux:API is not yet available"})
    assert "tells no voltage" in str(refused(voltage=None))


@given(st.text() | st.recursive(st.none() | st.floats() | st.text(), st.lists).map(json.dumps))
def test_what_is_no_status_is_none(text: str) -> None:
    assert parse(text) is None
    assert parse(None) is None and parse("[" * 100_000) is None


FIELD = st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5)


@given(st.fixed_dictionaries({"status": st.just("DISCHARGING"), "plugged": FIELD,
    "percentage": FIELD, "voltage": FIELD, "current": FIELD, "charge_counter": FIELD}))  # fmt: skip
def test_whatever_the_fields_hold_numbers_are_in_range_or_none(told: dict[str, Any]) -> None:
    found = parse(json.dumps(told))
    assert found is not None
    assert found.volts is None or 2.5 <= found.volts <= 20
    assert found.percentage is None or 0 <= found.percentage <= 100
    assert found.charge_counter is None or 0 < found.charge_counter < 1e12
    assert counter_unit_uah(found) in (None, 1.0, 1000.0)


@given(st.integers(0, 200))
def test_truncated_json_is_none(length: int) -> None:
    text = status(LOAD)(0.0) or ""
    assert parse(text[: min(length, len(text) - 1)]) is None


def test_a_fall_of_charge_counts_at_the_mean_voltage_since_the_last() -> None:
    moving = steps(
        (0, status(LOAD, charge_counter=3_545_000, voltage=4000)),
        (4, status(LOAD, charge_counter=3_544_000, voltage=3800)),
        (9, status(LOAD, charge_counter=3_543_000, voltage=3400)),
    )
    _, clock, meter = find(moves={STATUS: moving})
    taken = [reading.value for reading in record(meter, clock, 10).readings]
    assert taken == pytest.approx([0, 3.6 * 3.9, 3.6 * (3.9 + 3.6)])
