"""The player of recorded machines, and the reading of files that it stands in for."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from played_machine import PLAYED, HandClock, Power, counter, gauge, played, shown, steps

from edgegauge.detect import describe
from edgegauge.host.tree import Tree
from edgegauge.measure.host import machine, state
from edgegauge.measure.machine import Clock

STEADY = Power([(0, 10.0)])
STEPS = Power([(0, 4.0), (10, 9.0), (20, 6.0)], ripple_w=0.5, ripple_s=3.0)
NAMES = sorted(path.stem for path in PLAYED.glob("*.txt"))


def test_the_true_energy_is_the_integral_of_the_true_power() -> None:
    h = 1e-3
    summed = sum(STEPS.watts((n + 0.5) * h) * h for n in range(25_000))
    assert STEPS.joules(25.0) == pytest.approx(summed, rel=1e-6)
    assert STEPS.joules(0) == 0 and STEPS.watts(-1) < 5


def test_a_counter_is_taken_at_ticks_in_steps_and_wraps() -> None:
    assert counter(STEADY, 1.2345, start=100) == "12345100"
    assert counter(STEADY, 1.2345, tick=0.5) == "10000000"
    assert counter(STEADY, 1.2345, quantum=61) == str(12345000 // 61 * 61)
    assert counter(STEADY, 1.2345, range=10_000_000) == "2345000"
    assert counter(STEADY, 36.0, start=5000, unit=0.0036, volts=10, sign=-1) == "-5000"
    assert counter(STEADY, 1.0, share=0.5, add_w=2) == "7000000"


def test_a_gauge_holds_its_value_and_averages() -> None:
    assert gauge(STEADY, 3.3, unit=1e-3, volts=5) == "2000"
    assert gauge(STEPS, 10.4, period=1.0) == f"{STEPS.watts(10.0) * 1e6:.0f}"
    mean = (STEPS.joules(11.0) - STEPS.joules(9.0)) / 2
    assert gauge(STEPS, 11.5, unit=1, period=1.0, average=2.0, digits=3) == f"{mean:.3f}"
    assert gauge(STEADY, 0.0, unit=1, quantum=4, sign=-1) == "-8"


def test_words_within_a_text_and_events() -> None:
    move = steps(
        (0, shown('{"mW": @{gauge unit=1e-3}, "n": @{elapsed per_s=2}}', STEADY)), (5, None)
    )
    assert move(1.5) == '{"mW": 10000, "n": 3}' and move(5.0) is None


@pytest.mark.parametrize("name", NAMES)
def test_every_recording_tells_what_the_host_readers_need(name: str) -> None:
    tree = played(name, HandClock(), STEADY)
    facts, now = machine(tree), state(tree)
    assert facts["cpu_model"] and facts["kernel"] and facts["memory_total_bytes"] > 2**30
    assert facts["virtual"] is (name == "no-source")
    assert describe(tree).memory.app_bytes > 0
    discharging = name in ("laptop-on-battery", "termux-phone")
    assert (now["power_source"] == "battery") is discharging


def test_files_that_move_vanish_and_refuse() -> None:
    clock = HandClock()
    at = "sys/class/power_supply/BAT0/status"
    tree = played("laptop-on-battery", clock, STEADY, {at: steps((0, "Discharging"), (60, None))})
    start_s, energy = clock.now_s(), at.replace("status", "energy_now")
    assert tree.text(at) == "Discharging" and tree.exists(at)
    before = tree.integer(energy)
    clock.wait(72)
    assert not tree.exists(at) and "status" not in tree.names("sys/class/power_supply/BAT0")
    assert before is not None and before - (tree.integer(energy) or 0) == 200_000, "720 J"
    assert tree.true_joules(start_s, clock.now_s()) == pytest.approx(720)
    refused = "sys/class/powercap/intel-rapl:0/energy_uj"
    assert tree.refused(refused) and tree.text(refused) is None and tree.exists(refused)
    assert not tree.refused(at) and not tree.refused("nowhere")
    phone = played("termux-phone", clock, STEADY)
    assert phone.refused("sys/class/power_supply") and not phone.names("sys/class/power_supply")


def test_a_clock_at_speed_moves_the_files_as_fast() -> None:
    clock = Clock(speed=1000)
    start_s = clock.now_s()  # before the counter's own start: a busy machine may pause between
    tree = played("laptop-on-mains", clock, STEADY)
    clock.wait(20)
    first = tree.integer("sys/class/powercap/intel-rapl:0/energy_uj")
    true_j = tree.true_joules(start_s, clock.now_s())
    assert first is not None and true_j >= 200
    assert (first - 12345678901) * 1e-6 <= true_j + 1


def test_recorded_commands_by_their_words_and_by_their_name(tmp_path: Path) -> None:
    folder = tmp_path / "commands"
    folder.mkdir()
    (folder / "vcgencmd_get_throttled.txt").write_text("throttled=0x0\n")
    (folder / "vcgencmd.txt").write_text("error\n")
    (folder / "ioreg_-rw0_-c_AppleSmartBattery.txt").write_text("ioreg\n")
    tree = Tree(tmp_path)
    assert tree.output("vcgencmd", "get_throttled") == "throttled=0x0"
    assert tree.output("vcgencmd", "measure_temp") == "error"
    assert tree.output("ioreg", "-rw0", "-c", "AppleSmartBattery") == "ioreg"
    assert tree.output("vcgencmd", "../../etc") == "error" and tree.output("absent") is None


@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() == 0, reason="root reads all files")
def test_a_file_without_permission_is_refused_and_not_absent(tmp_path: Path) -> None:
    (tmp_path / "energy_uj").write_text("5\n")
    (tmp_path / "energy_uj").chmod(0)
    tree = Tree(tmp_path)
    assert tree.refused("energy_uj") and tree.text("energy_uj") is None


def test_what_is_absent_or_a_folder_is_not_refused(tmp_path: Path) -> None:
    assert not Tree(tmp_path).refused("absent") and not Tree(tmp_path).refused("")


def test_permission_is_what_the_system_says(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def no(*_: object, **__: object) -> None:
        raise PermissionError

    monkeypatch.setattr(Path, "open", no)
    assert Tree(tmp_path).refused("energy_uj")
