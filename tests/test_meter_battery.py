"""Batteries of played machines against the true energy, and each way to read them wrongly."""

from __future__ import annotations

import math
from collections.abc import Mapping
from itertools import pairwise

import pytest
from played_machine import HandClock, Move, PlayedTree, Power, files_of, played, shown, steps

from edgegauge.measure.machine import Machine
from edgegauge.measure.meters import Meter, MeterLost, MeterUnusable, Reading
from edgegauge.measure.meters.battery import BatteryKind

SUPPLIES = "sys/class/power_supply"
BAT = f"{SUPPLIES}/BAT0"
LOAD = Power([(0, 7.0), (120, 22.0), (420, 8.0)], ripple_w=1.5, ripple_s=9.0)
STEP_J = 36.0
"""10 mWh, the step of the recorded laptop's energy_now."""
NO_ENERGY = {f"{BAT}/energy_now": None, f"{BAT}/energy_full": None}
CHARGE: Mapping[str, str | Move | None] = {
    **NO_ENERGY,
    f"{BAT}/energy_full_design": None,
    f"{BAT}/charge_full": "4080000",
    f"{BAT}/charge_now": "@{counter start=3060000 unit=0.0036 volts=11.874 sign=-1 tick=2}",
}
POWER_ONLY: Mapping[str, str | Move | None] = {**NO_ENERGY, f"{BAT}/capacity": None}
Moves = Mapping[str, str | Move | None]


def found(
    moves: Moves | None = None, power: Power = LOAD, name: str = "laptop-on-battery"
) -> tuple[PlayedTree, HandClock, Meter]:
    clock = HandClock()
    tree = played(name, clock, power, moves)
    (meter,) = BatteryKind().find(Machine(tree, clock), None)
    return tree, clock, meter


def poll(meter: Meter, clock: HandClock, seconds: float) -> list[Reading]:
    readings = [meter.read()]
    for _ in range(round(seconds / meter.poll_s)):
        clock.wait(meter.poll_s)
        readings.append(meter.read())
    return [reading for reading in readings if reading is not None]


def taken_j(meter: Meter, clock: HandClock, seconds: float) -> float:
    """What the meter says was taken: a counter's difference, a power's trapezoids."""
    readings = poll(meter, clock, seconds)
    if meter.facts.counter:
        assert all(a.value <= b.value for a, b in pairwise(readings))
        return readings[-1].value - readings[0].value
    return sum((a.value + b.value) / 2 * (b.t_s - a.t_s) for a, b in pairwise(readings))


def flags(meter: Meter) -> list[str]:
    return [flag.text for flag in meter.flags()]


def test_the_energy_counter_is_the_truth_to_its_step() -> None:
    tree, clock, meter = found()
    start_s = clock.now_s()
    joules = taken_j(meter, clock, 600)
    # A step of the counter, and what its two seconds between updates held at either end.
    assert joules == pytest.approx(tree.true_joules(start_s, clock.now_s()), abs=STEP_J + 2 * 22)
    assert joules / STEP_J == pytest.approx(round(joules / STEP_J), abs=1e-6), "whole steps"
    facts = meter.facts
    assert (facts.id, facts.unit, facts.counter, facts.grade) == ("battery:BAT0", "µWh", True, "C")
    assert facts.quantum == pytest.approx(STEP_J)
    assert facts.whole_device and not flags(meter)


def test_charge_is_energy_with_the_voltage_at_each_step() -> None:
    """The voltage sags from 12.6 to 11 V half-way: with either one the energy is 7 % wrong."""
    power, volts = Power([(0, 20.0)]), {0: 12.6, 300: 11.0}

    def charge_now(t_s: float) -> str:
        coulombs = power.joules(min(t_s, 300)) / volts[0]
        coulombs += (power.joules(max(t_s, 300)) - power.joules(300)) / volts[300]
        return str(3_060_000 - int(coulombs / 0.0036))

    moves = {
        **CHARGE,
        f"{BAT}/charge_now": charge_now,
        f"{BAT}/voltage_now": steps((0, "12600000"), (300, "11000000")),
    }
    tree, clock, meter = found(moves, power)
    start_s = clock.now_s()
    joules = taken_j(meter, clock, 600)
    assert joules == pytest.approx(tree.true_joules(start_s, clock.now_s()), rel=1e-3)
    assert meter.facts.unit == "µAh x µV"
    assert meter.facts.quantum == pytest.approx(1e-3 * 3600 * 12.6), "1 mAh"


def test_energy_is_preferred_to_charge_and_never_mixed_with_it() -> None:
    moves = {**CHARGE, f"{BAT}/charge_now": "@{counter start=3060000 unit=0.01 sign=-1}"}
    both = {k: v for k, v in moves.items() if "energy" not in k}
    tree, clock, meter = found(both)
    start_s = clock.now_s()
    assert meter.facts.read_from == f"/{BAT}/energy_now"
    true_j = tree.true_joules(start_s, start_s + 600)
    assert taken_j(meter, clock, 600) == pytest.approx(true_j, abs=STEP_J + 44)


@pytest.mark.parametrize("sign", [1, -1], ids=["unsigned", "negative"])
@pytest.mark.parametrize("told", ["power", "current"])
def test_the_sign_of_power_and_current_does_not_matter(told: str, sign: int) -> None:
    """qualcomm-battmgr negates both, embedded controllers tell magnitudes: it discharges."""
    current = f"@{{gauge volts=11.874 period=1 sign={sign}}}"
    moves: dict[str, str | Move | None] = {**POWER_ONLY}
    if told == "power":
        moves[f"{BAT}/power_now"] = f"@{{gauge period=1 sign={sign}}}"
    else:
        moves |= {f"{BAT}/power_now": None, f"{BAT}/current_now": current}
    tree, clock, meter = found(moves)
    start_s = clock.now_s()
    assert (meter.facts.counter, meter.facts.grade) == (False, "C")
    joules = taken_j(meter, clock, 600)
    assert joules == pytest.approx(tree.true_joules(start_s, clock.now_s()), rel=0.01)


@pytest.mark.parametrize("status", ["Charging", "Full", "Not charging", "Unknown", "", None])
def test_it_measures_only_while_it_discharges(status: str | None) -> None:
    with pytest.raises(MeterUnusable, match="not discharging") as caught:
        found({f"{BAT}/status": status})
    assert caught.value.hint == "unplug the charger"


@pytest.mark.parametrize("supply", ["AC", "ucsi-source-psy-USBC000:001", "wireless"])
def test_it_does_not_measure_with_a_charger_that_is_online(supply: str) -> None:
    """A weak charger does not stop the battery from discharging, and hides what it delivers."""
    online = {f"{SUPPLIES}/{supply}/online": "1"}
    kind = {} if supply != "wireless" else {f"{SUPPLIES}/{supply}/type": "Wireless"}
    with pytest.raises(MeterUnusable, match=f"{supply} is online"):
        found({**online, **kind})


def test_a_laptop_that_charges_on_mains_is_refused() -> None:
    with pytest.raises(MeterUnusable, match=r"not discharging \(ACAD is online\)"):
        found(name="laptop-on-mains")


@pytest.mark.parametrize(
    "moves",
    [
        {f"{BAT}/status": steps((0, "Discharging"), (60, "Charging"))},
        {f"{BAT}/status": steps((0, "Discharging"), (60, ""))},
        {f"{SUPPLIES}/AC/online": steps((0, "0"), (60, "1"))},
    ],
)
def test_a_charger_that_is_connected_half_way_ends_the_meter(moves: Moves) -> None:
    _, clock, meter = found(moves)
    assert poll(meter, clock, 59)
    with pytest.raises(MeterLost, match="a charger was connected"):
        poll(meter, clock, 2)


@pytest.mark.parametrize("bad", ["", "garbage", "-4", None])
@pytest.mark.parametrize("key", ["energy_now", "charge_now", "voltage_now"])
def test_a_counter_that_fails_half_way_is_an_error_and_not_zero(key: str, bad: str | None) -> None:
    files: dict[str, str | Move | None] = {**files_of("laptop-on-battery")}
    files |= {} if key == "energy_now" else CHARGE
    good = shown(str(files[f"{BAT}/{key}"]), LOAD)
    _, clock, meter = found({**files, f"{BAT}/{key}": steps((0, good), (60, bad))})
    assert poll(meter, clock, 59)
    with pytest.raises(MeterLost, match=f"no longer tells {key}"):
        poll(meter, clock, 2)


@pytest.mark.parametrize("bad", ["", "garbage", "900000000", None])
def test_a_power_that_fails_half_way_is_an_error_and_not_zero(bad: str | None) -> None:
    good = shown("@{gauge}", LOAD)
    _, clock, meter = found({**POWER_ONLY, f"{BAT}/power_now": steps((0, good), (60, bad))})
    assert poll(meter, clock, 59)
    with pytest.raises(MeterLost, match="no longer tells a possible power"):
        poll(meter, clock, 2)


def test_a_battery_that_is_taken_out_ends_the_meter() -> None:
    _, clock, meter = found({**second(), f"{SUPPLIES}/BAT1/present": steps((0, "1"), (60, "0"))})
    assert poll(meter, clock, 59)
    with pytest.raises(MeterLost, match="removed"):
        poll(meter, clock, 2)


def second(status: str = "Discharging") -> dict[str, str | Move | None]:
    at = f"{SUPPLIES}/BAT1"
    falls = "unit=0.0036 quantum=10000 sign=-1"
    return {
        f"{at}/type": "Battery",
        f"{at}/status": status,
        f"{at}/present": "1",
        f"{at}/capacity": "50",
        f"{at}/energy_full": "20000000",
        f"{at}/energy_now": f"@{{counter start=10000000 share=0.3 {falls}}}",
        f"{BAT}/energy_now": f"@{{counter start=35205000 share=0.7 {falls}}}",
    }


def test_two_batteries_are_one_source() -> None:
    tree, clock, meter = found(second())
    start_s = clock.now_s()
    assert meter.facts.id == "battery:BAT0+BAT1"
    true_j = tree.true_joules(start_s, start_s + 600)
    assert taken_j(meter, clock, 600) == pytest.approx(true_j, abs=2 * STEP_J)


def test_the_second_battery_may_rest_but_not_charge() -> None:
    idle = {**second("Not charging"), f"{SUPPLIES}/BAT1/energy_now": "10000000"}
    tree, clock, meter = found(
        {**idle, f"{BAT}/energy_now": "@{counter start=35205000 unit=0.0036 quantum=10000 sign=-1}"}
    )
    start_s = clock.now_s()
    true_j = tree.true_joules(start_s, start_s + 300)
    assert taken_j(meter, clock, 300) == pytest.approx(true_j, abs=STEP_J)
    with pytest.raises(MeterUnusable, match="Charging"):
        found(second("Charging"))


def test_an_empty_bay_and_the_battery_of_a_mouse_are_not_the_machine_s() -> None:
    _, _, meter = found({**second(), f"{SUPPLIES}/BAT1/present": "0"})
    assert meter.facts.id == "battery:BAT0"


def test_a_power_that_is_far_off_its_counter_is_flagged_and_not_used() -> None:
    """As on a Surface: from below 1 to over 60 W, while the counter is sane."""
    wild = steps((0, "900000"), (100, "61000000"), (130, "700000"), (300, "66000000"))
    tree, clock, meter = found({f"{BAT}/power_now": wild})
    start_s = clock.now_s()
    true_j = tree.true_joules(start_s, start_s + 600)
    assert taken_j(meter, clock, 600) == pytest.approx(true_j, abs=STEP_J + 44)
    (text,) = flags(meter)
    assert "off its own counter" in text and text.split()[4].startswith("+")
    assert not meter.flags()[0].spoils


@pytest.mark.parametrize("share, flagged", [(1.2, True), (0.8, True), (1.05, False)])
def test_a_power_is_compared_with_its_counter(share: float, flagged: bool) -> None:
    _, clock, meter = found({f"{BAT}/power_now": f"@{{gauge share={share}}}"})
    poll(meter, clock, 600)
    assert bool(flags(meter)) is flagged


def test_a_counter_at_nothing_is_not_one() -> None:
    _, _, meter = found({f"{BAT}/energy_now": "0", f"{BAT}/capacity": None})
    assert not meter.facts.counter and meter.facts.unit == "µW"


def test_a_short_run_has_too_few_steps_to_compare() -> None:
    _, clock, meter = found({f"{BAT}/power_now": "@{gauge share=3}"})
    poll(meter, clock, 60)
    assert not flags(meter)


@pytest.mark.parametrize(
    "counter", [{**NO_ENERGY}, {f"{BAT}/energy_now": "47000000"}, {f"{BAT}/energy_now": "0"}]
)
def test_only_percent_is_a_source_of_the_lowest_grade(counter: Moves) -> None:
    """energy_now that stands at full while the gauge says 74 % is no counter."""
    tree, clock, meter = found({**counter, f"{BAT}/power_now": None})
    one = (50 if f"{BAT}/energy_full" in counter else 47) * 36.0
    facts = meter.facts
    assert (facts.grade, facts.unit) == ("D", "%") and facts.quantum == pytest.approx(one)
    start_s = clock.now_s()
    joules = taken_j(meter, clock, 600)
    true_j = tree.true_joules(start_s, clock.now_s())
    assert math.isclose(joules % (one), 0, abs_tol=1e-6)
    assert joules > 0 and abs(joules - true_j * one / 1692) <= one


def test_a_counter_that_stands_still_while_the_percentage_falls_has_no_figures() -> None:
    moves = {f"{BAT}/energy_now": "35000000", f"{BAT}/power_now": None}
    _, clock, meter = found(moves, Power([(0, 40.0)]))
    poll(meter, clock, 130)
    (flag,) = meter.flags()
    assert flag.spoils and "stood still while 3 percent went" in flag.text


@pytest.mark.parametrize("to", ["37000000", "31000000"])
def test_a_counter_that_is_recalibrated_has_no_figures(to: str) -> None:
    word = shown("@{counter start=35205000 unit=0.0036 quantum=10000 sign=-1}", LOAD)
    _, clock, meter = found({f"{BAT}/energy_now": steps((0, word), (60, to))})
    poll(meter, clock, 70)
    (flag,) = [flag for flag in meter.flags() if flag.spoils]
    assert "energy_now jumped from" in flag.text


def test_a_gauge_that_updates_once_a_minute_did_not_jump() -> None:
    word = "@{counter start=35205000 unit=0.0036 quantum=10000 sign=-1 tick=60}"
    tree, clock, meter = found({f"{BAT}/energy_now": word}, Power([(0, 60.0)]))
    clock.wait(59.5)
    start_s = clock.now_s()
    joules = taken_j(meter, clock, 600)
    assert joules == pytest.approx(tree.true_joules(start_s, clock.now_s()), abs=60 * 60)
    assert not flags(meter)


def test_a_gauge_that_flickers_by_a_step_counts_nothing_twice() -> None:
    power = Power([(0, 10.0)])

    def flicker(t_s: float) -> str:
        return str(35_200_000 - int(t_s // 30) * 80_000 + (10_000 if int(t_s) % 2 else 0))

    _, clock, meter = found({f"{BAT}/energy_now": flicker}, power)
    joules = taken_j(meter, clock, 300)
    assert joules == pytest.approx(800_000 * 0.0036, abs=STEP_J)


@pytest.mark.parametrize("margin, spoils", [("7", False), ("100", True)])
def test_the_margin_that_the_gauge_states_is_told(margin: str, spoils: bool) -> None:
    _, _, meter = found({f"{BAT}/capacity_error_margin": margin})
    (flag,) = meter.flags()
    assert f"{margin} %" in flag.text and flag.spoils is spoils


def test_a_phone_that_hides_its_battery_and_a_machine_without_one() -> None:
    with pytest.raises(MeterUnusable, match="not readable"):
        found(name="termux-phone")
    with pytest.raises(MeterUnusable, match="no battery here"):
        found(name="intel-psys")
    every = {
        f"{BAT}/{key}": "@{refused}"
        for key in ("capacity", "energy_now", "energy_full", "power_now", "voltage_now")
    }
    with pytest.raises(MeterUnusable, match="BAT0 is present but not readable"):
        found(every)


def test_a_battery_that_tells_nothing_useful_is_refused() -> None:
    with pytest.raises(MeterUnusable, match="nor the percent of a known energy"):
        found({**POWER_ONLY, f"{BAT}/power_now": "0"})


def test_there_is_no_address() -> None:
    clock = HandClock()
    machine = Machine(played("laptop-on-battery", clock, LOAD), clock)
    with pytest.raises(MeterUnusable, match="no address"):
        BatteryKind().find(machine, "BAT0")


def test_the_power_of_two_batteries_of_which_one_rests() -> None:
    other = f"{SUPPLIES}/BAT1"
    rests = {f"{other}/type": "Battery", f"{other}/status": "Unknown", f"{other}/power_now": "0"}
    tree, clock, meter = found({**POWER_ONLY, **rests, f"{BAT}/power_now": "@{gauge}"})
    start_s = clock.now_s()
    joules = taken_j(meter, clock, 300)
    assert joules == pytest.approx(tree.true_joules(start_s, clock.now_s()), rel=0.01)


def test_flags_are_told_without_reading_a_file(monkeypatch: pytest.MonkeyPatch) -> None:
    """The recorder asks for them while another thread reads; a file that blocks must not matter."""
    tree, clock, meter = found()
    poll(meter, clock, 30)

    def never(path: str) -> str | None:
        raise AssertionError(f"/{path} was read")

    monkeypatch.setattr(tree, "text", never)
    assert meter.flags() == []
