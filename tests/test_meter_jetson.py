"""Jetsons: which rail is the total, which lies within another, and what is only negotiated."""

from __future__ import annotations

from collections.abc import Mapping
from itertools import pairwise

import pytest
from played_machine import HandClock, Move, PlayedTree, Power, played, steps

from edgegauge.energy import Window
from edgegauge.measure.joules import energy_of
from edgegauge.measure.machine import Machine
from edgegauge.measure.meters import Meter, MeterLost, MeterUnusable
from edgegauge.measure.meters.jetson import JetsonKind
from edgegauge.measure.recorder import Recorded, Recorder

HWMON = "sys/class/hwmon"
LOAD = Power([(0, 5.0), (40, 14.0), (100, 6.0)], ripple_w=0.8, ripple_s=1.7)
NVIDIA = {"proc/device-tree/compatible": "nvidia,p3701-0000\0nvidia,tegra234"}


def chip(number: int, *rails: tuple[str, int, int], name: str = "ina3221") -> dict[str, str]:
    """Files of a chip with those (label, mV, mA)."""
    at, files = f"{HWMON}/hwmon{number}", {f"{HWMON}/hwmon{number}/name": name}
    for n, (label, millivolts, milliamperes) in enumerate(rails, start=1):
        files[f"{at}/in{n}_label"] = label
        files[f"{at}/in{n}_input"] = str(millivolts)
        files[f"{at}/curr{n}_input"] = str(milliamperes)
    if name == "ina3221":
        files |= {f"{at}/in7_label": "sum of shunt voltages", f"{at}/in7_input": "16"}
    return files


AGX_ORIN = {
    **NVIDIA,
    **chip(3, ("VDD_GPU_SOC", 20000, 200), ("VDD_CPU_CV", 20000, 100), ("VIN_SYS_5V0", 5000, 800)),
    **chip(4, ("NC", 5000, 900), ("VDDQ_VDD2_1V8AO", 5000, 200), ("NC", 0, 0)),
}
AGX_XAVIER = {
    **NVIDIA,
    **chip(2, ("GPU", 19000, 100), ("CPU", 19000, 50), ("SOC", 19000, 60)),
    **chip(3, ("CV", 19000, 0), ("VDDRQ", 19000, 20), ("SYS5V", 19000, 90)),
}


def find(files: Mapping[str, str | Move]) -> Meter:
    clock = HandClock()
    (meter,) = JetsonKind().find(Machine(PlayedTree(files, clock, LOAD), clock), None)
    return meter


def watts(meter: Meter) -> float:
    reading = meter.read()
    assert reading is not None
    return reading.value


def test_the_module_input_alone_is_the_total() -> None:
    clock = HandClock()
    tree = played("jetson-orin-nano", clock, LOAD)
    (meter,) = JetsonKind().find(Machine(tree, clock), None)
    readings = []
    for _ in range(600):
        readings.append(meter.read())
        clock.wait(meter.poll_s)
    known = [reading for reading in readings if reading is not None]
    area = sum((a.value + b.value) / 2 * (b.t_s - a.t_s) for a, b in pairwise(known))
    assert area == pytest.approx(tree.true_joules(known[0].t_s, known[-1].t_s), rel=0.01)
    facts = meter.facts
    assert facts.id == "jetson:VDD_IN" and facts.update_period_s == 0.02
    assert facts.quantum == pytest.approx(0.040, rel=0.01), "40 µV over 5 mohm at 5 V"
    assert not facts.whole_device and "carrier board" in facts.excludes[0]
    assert "5000 µohm (VDD_IN)" in facts.calibration


def test_its_joules_are_the_true_ones_within_what_they_claim() -> None:
    clock = HandClock()
    tree = played("jetson-orin-nano", clock, LOAD)
    (meter,) = JetsonKind().find(Machine(tree, clock), None)
    readings = []
    while clock.now_s() < tree.born_s + 200:
        clock.wait(meter.poll_s)
        readings.append(meter.read())
    recorded = Recorded(meter.facts, [r for r in readings if r is not None], meter.flags())
    start_s, end_s = tree.born_s + 105, tree.born_s + 195
    energy = energy_of(recorded, [Window(phase="decode", start_s=start_s, end_s=end_s, tokens=500)])
    (window,) = energy.windows
    assert window.joules is not None and window.uncertainty_j is not None
    true_j = tree.true_joules(start_s, end_s)
    assert abs(window.joules - true_j) <= 2 * window.uncertainty_j < 0.05 * true_j


def test_the_recorder_polls_it() -> None:
    clock = HandClock()
    tree = played("jetson-orin-nano", clock, Power([(0, 7.5)]))
    clock.wait(1)  # the chip's average needs a past
    meters = JetsonKind().find(Machine(tree, clock), None)
    with Recorder(meters, clock) as recorder:
        clock.wait(1)
        recorder.mark()
    (recorded,) = recorder.recorded
    assert recorded.lost is None and len(recorded.readings) >= 2
    assert all(reading.value == pytest.approx(7.5, abs=0.05) for reading in recorded.readings)


def test_a_nano_with_jetpack_4_tells_milliwatts() -> None:
    at = "sys/bus/i2c/drivers/ina3221x/6-0040/iio:device0"
    files = {"proc/device-tree/compatible": "nvidia,p3450-0000\0nvidia,jetson-nano"}
    for n, (label, milliwatts) in enumerate(
        [("POM_5V_IN", 4217), ("POM_5V_GPU", 1200), ("POM_5V_CPU", 1500)]
    ):
        files |= {f"{at}/rail_name_{n}": label, f"{at}/in_power{n}_input": str(milliwatts)}
    meter = find(files)
    assert watts(meter) == pytest.approx(4.217), "CPU and GPU are within"
    assert meter.facts.unit == "mW" and not meter.facts.whole_device


def test_an_agx_orin_has_no_total_rail_so_its_rails_are_added_once_each() -> None:
    meter = find(AGX_ORIN)
    assert watts(meter) == pytest.approx(4 + 2 + 4), "neither NC, nor the memory within the 5 V"
    assert meter.facts.id == "jetson:VDD_GPU_SOC+VDD_CPU_CV+VIN_SYS_5V0"


def test_an_agx_xavier() -> None:
    assert watts(find(AGX_XAVIER)) == pytest.approx(19 * (0.1 + 0.05 + 0.06 + 0.02 + 0.09))


@pytest.mark.parametrize("label", ["VDD_GPU_SOC", "VDD_CPU_CV", "VIN_SYS_5V0"])
def test_a_sum_with_a_rail_missing_is_no_total(label: str) -> None:
    (at,) = [path for path, text in AGX_ORIN.items() if text == label]
    with pytest.raises(MeterUnusable, match="make up the total is not known"):
        find({**AGX_ORIN, at: "NC"})


def test_the_five_volt_rail_alone_is_not_the_total() -> None:
    with pytest.raises(MeterUnusable, match="VIN_SYS_5V0 make up"):
        find({**NVIDIA, **chip(1, ("VIN_SYS_5V0", 5000, 800))})


def test_a_thor_is_measured_at_its_input_and_not_by_what_usb_c_negotiated() -> None:
    at = f"{HWMON}/hwmon5"
    vin = chip(5, ("VIN", 20000, 9999), name="ina238") | {f"{at}/power1_input": "61500000"}
    rails = chip(
        1, ("VDD_GPU", 9000, 900), ("VDD_CPU_SOC_MSS", 9000, 900), ("VIN_SYS_5V0", 5000, 900)
    )
    ucsi = chip(6, ("VIN", 20000, 5000), name="ucsi_source_psy_2_0008")
    meter = find({**NVIDIA, **rails, **vin, **ucsi})
    assert watts(meter) == pytest.approx(61.5) and meter.facts.whole_device
    without = find({**NVIDIA, **rails, **ucsi})
    assert watts(without) == pytest.approx(9 * 1.8 + 4.5) and not without.facts.whole_device


def test_by_the_driver_where_the_class_is_hidden() -> None:
    shown = chip(1, ("VDD_IN", 5000, 1000))
    bus = "sys/bus/i2c/drivers/ina3221/1-0040/hwmon"
    files = {path.replace(HWMON, bus): text for path, text in shown.items()}
    assert watts(find({**NVIDIA, **files})) == pytest.approx(5.0)


def test_reasons_and_mends() -> None:
    with pytest.raises(MeterUnusable, match="not an NVIDIA Jetson"):
        find({"proc/device-tree/compatible": "raspberrypi,5-model-b\0brcm,bcm2712"})
    with pytest.raises(MeterUnusable, match="no INA3221"):
        find(NVIDIA)
    locked = {
        **NVIDIA,
        **chip(1, ("VDD_IN", 5000, 1000)),
        f"{HWMON}/hwmon1/in1_input": "@{refused}",
    }
    with pytest.raises(MeterUnusable, match="may not read") as refused:
        find(locked)
    assert refused.value.hint == f"sudo chmod a+r /{HWMON}/hwmon1/in1_input"
    with pytest.raises(MeterUnusable, match="may not list") as hidden:
        find({**NVIDIA, "sys/bus/i2c/drivers/ina3221": "@{refused}"})
    assert hidden.value.hint == "sudo chmod a+rx /sys/bus/i2c/drivers/ina3221"
    with pytest.raises(MeterUnusable, match="takes no address"):
        JetsonKind().find(Machine(PlayedTree(AGX_ORIN, HandClock(), LOAD), HandClock()), "VDD_IN")


def test_a_rail_that_vanishes_is_lost_even_if_the_others_stay() -> None:
    at = f"{HWMON}/hwmon3/curr2_input"
    clock = HandClock()
    tree = PlayedTree({**AGX_ORIN, at: steps((0, "100"), (5, None))}, clock, LOAD)
    (meter,) = JetsonKind().find(Machine(tree, clock), None)
    assert meter.read() is not None
    clock.wait(6)
    assert meter.read() is None and meter.read() is None
    with pytest.raises(MeterLost, match="curr2_input"):
        meter.read()
