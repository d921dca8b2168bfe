"""Current monitors of any board: which files are a rail, and that rails are not added up."""

from __future__ import annotations

from collections.abc import Mapping
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st
from played_machine import HandClock, Move, PlayedTree, Power, steps

from edgegauge.measure.machine import Machine
from edgegauge.measure.meters import Meter, MeterLost, MeterUnusable, Reading
from edgegauge.measure.meters.ina import InaKind

HWMON = "sys/class/hwmon"
LOAD = Power([(0, 3.0), (30, 8.0), (60, 3.5)])
Files = Mapping[str, str | Move]

INA226: Files = {
    f"{HWMON}/hwmon4/name": "ina226",
    f"{HWMON}/hwmon4/device/uevent": "DRIVER=ina2xx\nOF_FULLNAME=/soc/i2c@1/power-monitor@40",
    f"{HWMON}/hwmon4/in0_input": "12",
    f"{HWMON}/hwmon4/in1_input": "5020",
    f"{HWMON}/hwmon4/curr1_input": "77777",
    f"{HWMON}/hwmon4/power1_input": "@{gauge unit=1e-6 quantum=25000 period=0.14 average=0.14}",
    f"{HWMON}/hwmon4/shunt_resistor": "2000",
    f"{HWMON}/hwmon4/update_interval": "140",
}
INA3221: Files = {
    f"{HWMON}/hwmon7/name": "ina3221",
    f"{HWMON}/hwmon7/in1_label": "VBUS",
    f"{HWMON}/hwmon7/in1_input": "12000",
    f"{HWMON}/hwmon7/curr1_input": "@{gauge unit=1e-3 volts=12}",
    f"{HWMON}/hwmon7/shunt1_resistor": "10000",
    f"{HWMON}/hwmon7/in2_label": "NC",
    f"{HWMON}/hwmon7/in2_input": "12000",
    f"{HWMON}/hwmon7/curr2_input": "900",
    f"{HWMON}/hwmon7/in3_label": "3V3",
    f"{HWMON}/hwmon7/in3_enable": "0",
    f"{HWMON}/hwmon7/in3_input": "3300",
    f"{HWMON}/hwmon7/curr3_input": "100",
    f"{HWMON}/hwmon7/curr4_input": "5000",
    f"{HWMON}/hwmon7/in4_input": "8",
    f"{HWMON}/hwmon7/in7_label": "sum of shunt voltages",
    f"{HWMON}/hwmon7/in7_input": "16",
}
NOISE: Files = {
    f"{HWMON}/hwmon0/name": "coretemp",
    f"{HWMON}/hwmon1/name": "BAT0",
    f"{HWMON}/hwmon1/power1_input": "7000000",
    f"{HWMON}/hwmon2/name": "ucsi_source_psy_1",
    f"{HWMON}/hwmon2/in1_input": "20000",
    f"{HWMON}/hwmon2/curr1_input": "3000",
}


def board(*parts: Files, clock: HandClock | None = None) -> tuple[PlayedTree, HandClock]:
    clock = clock or HandClock()
    return PlayedTree({k: v for part in parts for k, v in part.items()}, clock, LOAD), clock


def found(tree: PlayedTree, clock: HandClock, address: str | None = None) -> dict[str, Meter]:
    meters = InaKind().find(Machine(tree, clock), address)
    return {meter.facts.id: meter for meter in meters}


def integral_j(meter: Meter, clock: HandClock, seconds: float) -> tuple[float, float, float]:
    """(start, end, joules) by trapezoid at the meter's own pace."""
    readings = [meter.read()]
    for _ in range(round(seconds / meter.poll_s)):
        clock.wait(meter.poll_s)
        readings.append(meter.read())
    known: list[Reading] = [reading for reading in readings if reading is not None]
    area = sum((a.value + b.value) / 2 * (b.t_s - a.t_s) for a, b in pairwise(known))
    return known[0].t_s, known[-1].t_s, area


def test_a_chip_with_a_power_register() -> None:
    tree, clock = board(NOISE, INA226)
    meters = found(tree, clock)
    assert list(meters) == ["ina:power-monitor@40"], "nothing of other chips and supplies"
    meter = meters["ina:power-monitor@40"]
    start_s, end_s, joules = integral_j(meter, clock, 90)
    assert joules == pytest.approx(tree.true_joules(start_s, end_s), rel=0.005)
    facts = meter.facts
    assert facts.update_period_s == 0.14 and facts.unit == "µW" and not facts.counter
    assert not facts.whole_device and facts.grade == "C"
    assert "2000 µohm" in facts.calibration
    reading = meter.read()
    assert reading is not None and reading.span_s == 0.14, "the chip averages"


def test_without_a_power_register_volts_times_amperes() -> None:
    files = {k: v for k, v in INA226.items() if "power1" not in k and "interval" not in k}
    files[f"{HWMON}/hwmon4/curr1_input"] = "1000"
    files[f"{HWMON}/hwmon4/shunt_resistor"] = "10000"
    tree, clock = board(files)
    (meter,) = found(tree, clock).values()
    reading = meter.read()
    assert reading is not None and reading.value == pytest.approx(5.02), "in1, not the shunt's in0"
    assert reading.span_s == 0 and meter.facts.update_period_s == 0.1
    assert "what the kernel assumes" in meter.facts.calibration


def test_of_three_channels_only_those_in_use() -> None:
    tree, clock = board(INA3221)
    meters = found(tree, clock)
    assert list(meters) == ["ina:VBUS"], "NC, switched off and sums of channels are no rails"
    start_s, end_s, joules = integral_j(meters["ina:VBUS"], clock, 60)
    assert joules == pytest.approx(tree.true_joules(start_s, end_s), rel=0.01)
    assert meters["ina:VBUS"].facts.quantum == pytest.approx(0.048), "40 µV over 10 mohm at 12 V"


def test_rails_are_never_added_up_and_one_can_be_chosen() -> None:
    tree, clock = board(INA226, INA3221, {f"{HWMON}/hwmon7/in2_label": "power-monitor@40"})
    meters = found(tree, clock)
    assert set(meters) == {"ina:power-monitor@40", "ina:VBUS", "ina:power-monitor@40#2"}
    assert not any(meter.facts.whole_device for meter in meters.values())
    assert list(found(tree, clock, "VBUS")) == ["ina:VBUS"]
    with pytest.raises(MeterUnusable, match="there are: power-monitor@40, VBUS"):
        found(tree, clock, "VDD_IN")


@pytest.mark.parametrize("number", [0, 3, 12])
def test_a_chip_is_found_by_name_whatever_its_number(number: int) -> None:
    moved = {k.replace("hwmon7", f"hwmon{number}"): v for k, v in INA3221.items()}
    assert list(found(*board(moved))) == ["ina:VBUS"]


def test_a_jetson_is_left_to_its_own_meter() -> None:
    tree, clock = board(INA3221, {"proc/device-tree/compatible": "nvidia,p3767\0nvidia,tegra234"})
    with pytest.raises(MeterUnusable, match="meter jetson"):
        found(tree, clock)


def test_reasons_and_mends() -> None:
    with pytest.raises(MeterUnusable, match="no INA current monitor"):
        found(*board(NOISE))
    with pytest.raises(MeterUnusable, match="may not read /sys") as refused:
        found(*board(INA226, {f"{HWMON}/hwmon4/power1_input": "@{refused}"}))
    assert refused.value.hint == f"sudo chmod a+r /{HWMON}/hwmon4/power1_input"
    with pytest.raises(MeterUnusable, match="hold no number"):
        found(*board(INA226, {f"{HWMON}/hwmon4/power1_input": ""}))


def test_an_empty_file_is_a_gap_then_the_end_and_never_zero_watts() -> None:
    path = f"{HWMON}/hwmon7/curr1_input"
    moving = steps((0, "500"), (5, ""), (6, "500"), (10, None))
    tree, clock = board(INA3221, {path: moving})
    (meter,) = found(tree, clock).values()
    first = meter.read()
    assert first is not None and first.value == 6.0
    clock.wait(5.1)
    assert meter.read() is None, "a busy bus"
    clock.wait(1)
    again = meter.read()
    assert again is not None and again.value == 6.0
    clock.wait(5)
    assert meter.read() is None and meter.read() is None
    with pytest.raises(MeterLost, match=r"curr1_input 3 times in a row"):
        meter.read()


@given(st.text(max_size=30), st.text(max_size=30))
def test_whatever_the_files_hold_it_is_a_power_or_a_reason(volts: str, amperes: str) -> None:
    at = f"{HWMON}/hwmon7"
    files = {f"{at}/in1_input": lambda _: volts, f"{at}/curr1_input": lambda _: amperes}
    tree, clock = board({**INA3221, **files})
    try:
        (meter,) = found(tree, clock).values()
    except MeterUnusable:
        return
    reading = meter.read()
    assert reading is not None
    assert reading.value == pytest.approx(
        int(volts.strip("\0 \n\t\r")) * int(amperes.strip("\0 \n\t\r")) / 1e6
    )
