"""RAPL counters of played machines against their true energy, and each way to read them wrongly."""

from __future__ import annotations

from collections.abc import Mapping
from itertools import pairwise

import pytest
from played_machine import HandClock, Move, PlayedTree, Power, played, shown, steps

from edgegauge.measure.machine import Machine
from edgegauge.measure.meters import Meter, MeterLost, MeterUnusable, Reading
from edgegauge.measure.meters.rapl import RaplKind

CAP = "sys/class/powercap"
LOAD = Power([(0, 12.0), (20, 45.0), (50, 14.0)], ripple_w=2.0, ripple_s=0.7)
Moves = Mapping[str, str | Move | None]


def found(
    name: str, power: Power = LOAD, moves: Moves | None = None, address: str | None = None
) -> tuple[PlayedTree, HandClock, dict[str, Meter]]:
    clock = HandClock()
    tree = played(name, clock, power, moves)
    meters = RaplKind().find(Machine(tree, clock), address)
    return tree, clock, {meter.facts.id: meter for meter in meters}


def poll(meter: Meter, clock: HandClock, seconds: float) -> list[Reading]:
    """Readings at the meter's own pace."""
    readings = [meter.read()]
    for _ in range(round(seconds / meter.poll_s)):
        clock.wait(meter.poll_s)
        readings.append(meter.read())
    values = [reading for reading in readings if reading is not None]
    assert all(a.value <= b.value for a, b in pairwise(values))
    return values


def assert_true(tree: PlayedTree, readings: list[Reading], extra_j: float = 0.0) -> None:
    """The first and the last reading differ by the true energy, to the counters' ticks."""
    first, last = readings[0], readings[-1]
    true_j = tree.true_joules(first.t_s, last.t_s)
    assert last.value - first.value == pytest.approx(true_j + extra_j, abs=0.3)


def zone(number: str, name: str, energy: str | Move, top_uj: int = 262143328850) -> Moves:
    at = f"{CAP}/intel-rapl:{number}"
    return {f"{at}/name": name, f"{at}/energy_uj": energy, f"{at}/max_energy_range_uj": str(top_uj)}


def test_package_and_memory_are_the_truth_and_psys_is_apart() -> None:
    tree, clock, meters = found("intel-psys")
    assert set(meters) == {"rapl:package", "rapl:psys"}, "psys at index 1 is no second package"
    package = meters["rapl:package"]
    assert_true(tree, poll(package, clock, 80))
    facts = package.facts
    assert facts.counter and facts.grade == "B" and not facts.whole_device
    assert facts.covers == ["package-0 (cores, graphics, memory controller)", "memory"]
    assert "intel-rapl-mmio" not in facts.read_from
    assert facts.quantum == pytest.approx(61e-6, rel=0.01)
    assert not package.flags()


def test_psys_is_less_trusted_than_the_package() -> None:
    tree, clock, meters = found("intel-psys", address="psys")
    (psys,) = meters.values()
    readings = poll(psys, clock, 40)
    true_j = tree.true_joules(readings[0].t_s, readings[-1].t_s)
    assert readings[-1].value == pytest.approx(1.1 * true_j + 3.5 * 40, abs=0.3)
    assert psys.facts.grade == "C" and psys.facts.calibration_share >= 0.2
    assert not psys.facts.whole_device


def test_a_package_under_the_memory_mapped_interface_alone_is_used() -> None:
    recorded = played("intel-psys", HandClock(), LOAD)
    gone = {f"{CAP}/{n}/name": None for n in recorded.names(CAP) if n.startswith("intel-rapl:")}
    _, _, meters = found("intel-psys", moves=gone)
    assert meters["rapl:package"].facts.read_from == f"/{CAP}/intel-rapl-mmio:0/energy_uj"


def test_a_counter_that_wraps_once() -> None:
    tree, clock, meters = found("intel-psys")
    recorded = tree.integer(f"{CAP}/intel-rapl:0/energy_uj")
    assert recorded is not None and 0 < 262143328850 - recorded < 1e9, "500 J below its range"
    readings = poll(meters["rapl:package"], clock, 80)
    assert (tree.integer(f"{CAP}/intel-rapl:0/energy_uj") or 0) < recorded, "it did wrap"
    assert_true(tree, readings)


def test_a_counter_that_wraps_twice() -> None:
    hot = Power([(0, 280.0)], ripple_w=10.0, ripple_s=2.0)
    tree, clock, meters = found("amd-wraps", hot)
    readings = poll(meters["rapl:package"], clock, 300)
    assert readings[-1].value > 65_532.610987 + 333
    assert_true(tree, readings)
    assert meters["rapl:package"].facts.covers == ["package-0 (cores, graphics, memory controller)"]
    assert "memory" in meters["rapl:package"].facts.excludes


def test_it_is_polled_four_times_faster_than_it_could_wrap() -> None:
    word = "@{counter range=400000000}"
    _, _, meters = found("amd-wraps", moves=zone("0", "package-0", word, 400_000_000))
    assert meters["rapl:package"].poll_s == pytest.approx(0.2)
    _, _, meters = found("amd-wraps", moves=zone("0", "package-0", word, 10_000_000))
    assert meters["rapl:package"].poll_s == 0.1
    _, _, meters = found("amd-wraps")
    assert meters["rapl:package"].poll_s == 1.0


def test_a_gap_that_could_hide_a_wrap_ends_the_meter() -> None:
    _, clock, meters = found("amd-wraps")
    meter = meters["rapl:package"]
    meter.read()
    clock.wait(140)
    with pytest.raises(MeterLost, match=r"not read for 140\.0 s"):
        meter.read()


def test_a_counter_that_was_reset_is_no_wrap() -> None:
    word = shown("@{counter start=150000000000}", LOAD)
    moves = zone("0", "package-0", steps((0, word), (5, shown("@{counter}", LOAD))))
    _, clock, meters = found("amd-wraps", moves=moves)
    with pytest.raises(MeterLost, match="reset"):
        poll(meters["rapl:package"], clock, 10)


def test_dies_are_packages() -> None:
    moves = {
        **zone("0", "package-0-die-0", "@{counter start=5000 share=0.7}"),
        **zone("1", "package-0-die-1", "@{counter start=77000000 share=0.3}"),
        f"{CAP}/intel-rapl:0:2/name": None,
    }
    tree, clock, meters = found("intel-psys", moves=moves)
    assert set(meters) == {"rapl:package"}
    assert_true(tree, poll(meters["rapl:package"], clock, 60))
    assert not meters["rapl:package"].flags()


def test_dies_that_mirror_one_counter_count_once() -> None:
    word = "@{counter start=5000 share=0.9}"
    moves = {
        **zone("0", "package-0-die-0", word),
        **zone("1", "package-0-die-1", word),
        **zone("0:2", "dram", "@{counter start=7 share=0.1}"),
        **zone("1:2", "dram", "@{counter start=7 share=0.1}"),
    }
    tree, clock, meters = found("intel-psys", moves=moves)
    assert_true(tree, poll(meters["rapl:package"], clock, 60))
    assert [str(f.text) for f in meters["rapl:package"].flags()] == [
        "package-0-die-1 shows the counter of package-0-die-0: counted once"
    ]


def test_counters_that_agree_once_are_not_mirrors() -> None:
    moves = {
        **zone("0", "package-0", "@{counter start=5000 share=0.6}"),
        **zone("1", "package-1", "@{counter start=5000 share=0.4}"),
        f"{CAP}/intel-rapl:0:2/name": None,
    }
    tree, clock, meters = found("intel-psys", moves=moves)
    assert_true(tree, poll(meters["rapl:package"], clock, 60))


def test_memory_of_each_package_is_added() -> None:
    moves = {
        **zone("0", "package-0", "@{counter start=1 share=0.4}"),
        **zone("0:2", "dram", "@{counter start=2 share=0.1}"),
        **zone("1", "package-1", "@{counter start=9000000 share=0.3}"),
        **zone("1:0", "dram", "@{counter start=4 share=0.2}"),
    }
    tree, clock, meters = found("intel-psys", moves=moves)
    assert_true(tree, poll(meters["rapl:package"], clock, 60))


def test_memory_that_is_not_readable_is_said_to_be_missing() -> None:
    _, _, meters = found("intel-psys", moves={f"{CAP}/intel-rapl:0:2/energy_uj": "@{refused}"})
    meter = meters["rapl:package"]
    assert "memory" in meter.facts.excludes and "memory" not in meter.facts.covers
    assert ["memory is not included" in f.text for f in meter.flags()] == [True]


def test_counters_for_root_only_name_the_command_that_opens_them() -> None:
    with pytest.raises(MeterUnusable, match="RAPL is present but not readable") as caught:
        found("laptop-on-battery")
    assert caught.value.hint and "systemd-tmpfiles" in caught.value.hint
    assert "0440" in caught.value.hint, "readable by everybody re-opens the side channel"


@pytest.mark.parametrize("name", ["no-source", "raspberry-pi-5", "termux-phone"])
def test_a_machine_without_zones(name: str) -> None:
    with pytest.raises(MeterUnusable, match="no powercap zones here") as caught:
        found(name)
    assert caught.value.hint is None


def test_an_address_that_is_no_source() -> None:
    with pytest.raises(MeterUnusable, match="core") as caught:
        found("intel-psys", address="core")
    assert caught.value.hint and "rapl:psys" in caught.value.hint
    with pytest.raises(MeterUnusable, match="no zone named psys"):
        found("amd-wraps", address="psys")


@pytest.mark.parametrize("bad", ["", "garbage", "-5", "99999999999999", "12.5", None])
@pytest.mark.parametrize("number", ["0", "0:2"])
def test_a_counter_that_fails_half_way_is_an_error_and_not_zero(
    number: str, bad: str | None
) -> None:
    word = shown("@{counter start=5000000 share=0.5}", LOAD)
    at = f"{CAP}/intel-rapl:{number}/energy_uj"
    _, clock, meters = found("intel-psys", moves={at: steps((0, word), (5, bad))})
    with pytest.raises(MeterLost, match="no longer tells an energy"):
        poll(meters["rapl:package"], clock, 10)


@pytest.mark.parametrize("top", [None, "0", "-1", ""])
def test_a_counter_whose_range_is_unknown_is_not_used(top: str | None) -> None:
    with pytest.raises(MeterUnusable, match="range"):
        found("amd-wraps", moves={f"{CAP}/intel-rapl:0/max_energy_range_uj": top})


def test_a_platform_counter_in_whole_joules_says_so() -> None:
    word = "@{counter start=7000000 quantum=1000000}"
    tree, clock, meters = found("intel-psys", moves=zone("1", "psys", word, 4294967295000000))
    psys = meters["rapl:psys"]
    assert psys.facts.quantum == pytest.approx(1.0)
    readings = poll(psys, clock, 60)
    true_j = tree.true_joules(readings[0].t_s, readings[-1].t_s)
    assert readings[-1].value == pytest.approx(true_j, abs=1.0)
    assert all(reading.value == int(reading.value) for reading in readings)


def test_no_microjoule_is_lost_to_rounding() -> None:
    """262 kJ in µJ, in thousands of steps: the sum is kept in whole numbers."""
    _, clock, meters = found("amd-wraps", Power([(0, 300.0)]))
    readings = poll(meters["rapl:package"], clock, 2000)
    assert readings[-1].value == pytest.approx(600_000, abs=0.3)
    assert readings[-1].value * 1e6 == pytest.approx(round(readings[-1].value * 1e6), abs=1e-3)
