"""Describing machines: recorded ones of several kinds, then this one."""

from __future__ import annotations

import tomllib
from collections.abc import Callable
from datetime import date
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from unpacked_machine import MACHINES, plant

from edgegauge import __version__
from edgegauge.detect import as_detection, describe, detect, write_profile
from edgegauge.device import Cluster, DeviceProfile, load
from edgegauge.errors import EdgeGaugeError, MeasurementError
from edgegauge.host import bandwidth
from edgegauge.host.bandwidth import Readings
from edgegauge.host.tree import Tree
from edgegauge.toml import dumps
from edgegauge.units import MIB

NAMES = sorted(p.stem for p in MACHINES.glob("*.txt"))
DAY = date(2026, 3, 1)
MEASURED = Readings(
    gb_per_s={1: 9.256, 2: 13.23, 4: 11.59}, cached_gb_per_s=40, buffer_bytes=64 * MIB, notes=[]
)

Unpack = Callable[[str], Tree]


@pytest.fixture
def machine(tmp_path: Path) -> Unpack:
    return lambda name: plant(tmp_path, (MACHINES / f"{name}.txt").read_text())


def profile_of(tree: Tree, readings: Readings | None = None) -> DeviceProfile:
    return as_detection(describe(tree), readings, DAY).profile


def test_raspberry_pi(machine: Unpack) -> None:
    profile = profile_of(machine("raspberry-pi-5"), MEASURED)
    assert profile.id == "raspberry-pi-5-model-b-rev-1.0-8gb"
    assert (profile.kind, profile.os) == ("sbc", "linux")
    assert profile.cpu.soc == "BCM2712"
    assert profile.cpu.core_class == "arm-a76"
    assert profile.cpu.clusters == [Cluster(core="Cortex-A76", count=4, ghz=2.4)]
    assert profile.cpu.features == ["neon", "fp16", "dotprod"]
    assert (profile.cpu.l2_cache_mb, profile.cpu.l3_cache_mb) == (2, 2)
    assert profile.memory.ram_gb.value == 8.454  # 8256208 KiB
    assert profile.memory.app_gb.value == 7.931
    assert "MemAvailable" in profile.memory.app_gb.source
    assert profile.memory.bandwidth_gb_per_s is None
    assert profile.battery is None


def test_measured_figures_say_where_and_when(machine: Unpack) -> None:
    memory = profile_of(machine("raspberry-pi-5"), MEASURED).memory
    assert memory.read_gb_per_s is not None and memory.read_1_thread_gb_per_s is not None
    assert memory.read_gb_per_s.value == 11.59  # all cores, though two threads read faster
    assert memory.read_1_thread_gb_per_s.value == 9.26
    assert memory.read_gb_per_s_by_threads == {"1": 9.26, "2": 13.23, "4": 11.59}
    said = f"measured on this machine on 2026-03-01 by edgegauge {__version__}"
    assert memory.read_gb_per_s.source.startswith(said)


def test_android_phone(machine: Unpack) -> None:
    profile = profile_of(machine("android-phone"))
    assert profile.id == "google-pixel-8-8gb"
    assert (profile.name, profile.kind, profile.os) == ("Google Pixel 8", "phone", "android")
    assert profile.cpu.core_class == "arm-big-little"
    assert [(c.core, c.count, c.ghz) for c in profile.cpu.clusters] == [
        ("Cortex-X3", 1, 2.91),
        ("Cortex-A715", 4, 2.37),
        ("Cortex-A510", 4, 1.7),
    ]
    assert profile.cpu.fast_cores == 5
    assert {"i8mm", "sve2", "bf16"} <= set(profile.cpu.features)
    assert profile.battery is not None
    assert profile.battery.capacity_wh.value == 17.6  # 4575 mAh x 3.85 V
    assert "3.85 V (assumed)" in profile.battery.capacity_wh.source
    assert profile.battery.health == 0.92
    assert profile.notes is not None and "Android may kill" in profile.notes


def test_the_fastest_cpus_come_first(machine: Unpack) -> None:
    order = describe(machine("android-phone")).cpu.order
    assert order[0] == 8 and set(order[1:5]) == {4, 5, 6, 7} and set(order[5:]) == {0, 1, 2, 3}


def test_laptop_with_hybrid_cores_and_battery(machine: Unpack) -> None:
    tree = machine("laptop-with-battery")
    profile = profile_of(tree)
    assert profile.id == "lenovo-thinkpad-x1-carbon-gen-10-16gb"
    assert profile.kind == "laptop"
    assert profile.cpu.soc == "Intel Core i5-1240P"
    assert profile.cpu.core_class == "x86-avx2"
    assert [(c.core, c.count, c.ghz) for c in profile.cpu.clusters] == [
        ("P-core", 4, 4.4),  # eight threads
        ("E-core", 8, 3.3),
    ]
    assert "avx_vnni" in profile.cpu.features
    assert (profile.cpu.l2_cache_mb, profile.cpu.l3_cache_mb) == (9, 12)
    assert profile.battery is not None  # the mouse's battery is not the laptop's
    assert profile.battery.capacity_wh.value == 57
    assert profile.battery.health == 0.9
    # One thread of each P-core, then E-cores, then the second threads of the P-cores.
    assert describe(tree).cpu.order[:4] == [0, 2, 4, 6]
    assert describe(tree).cpu.order[-4:] == [1, 3, 5, 7]


def test_virtual_machine_without_cpufreq(machine: Unpack) -> None:
    profile = profile_of(machine("virtual-machine"))
    assert profile.id == "virtual-machine-with-intel-xeon-processor-8gb"
    assert profile.kind == "server"
    assert profile.cpu.core_class == "x86-avx512"
    assert [(c.count, c.ghz) for c in profile.cpu.clusters] == [(2, None)]
    assert {"avx512_vnni", "amx_int8"} <= set(profile.cpu.features)
    assert profile.memory.app_gb.value == 7.516  # cgroup v1 without a limit
    assert profile.notes is not None and "virtual machine" in profile.notes


def test_container_with_a_cgroup_v2_limit(machine: Unpack) -> None:
    detection = as_detection(describe(machine("container-with-limit")), None, DAY)
    profile = detection.profile
    # memory.max - memory.current + inactive_file, far below the 20 GiB that the host has free
    assert profile.memory.app_gb.value == (2147483648 - 734003200 + 209715200) // 10**6 / 1000
    assert "cgroup memory.max" in profile.memory.app_gb.source
    assert profile.memory.ram_gb.value == 33.572
    assert profile.cores == 2  # CPUs 0, 1 and their second threads 8, 9
    assert any("4 of 16 CPUs" in note for note in detection.notes)
    assert detection.facts()["container"] is True
    assert profile.name == "Machine with AMD Ryzen 7 5800X 8-Core Processor"  # DMI is placeholders


def test_mac(machine: Unpack) -> None:
    profile = profile_of(machine("macbook-air-m2"))
    assert (profile.id, profile.kind, profile.os) == ("apple-mac14-2-8gb", "laptop", "macos")
    assert profile.cpu.core_class == "apple"
    assert [(c.core, c.count) for c in profile.cpu.clusters] == [
        ("Apple M2 P-core", 4),
        ("Apple M2 E-core", 4),
    ]
    assert profile.cpu.features == ["neon", "fp16", "bf16", "dotprod", "i8mm"]
    assert profile.cpu.l2_cache_mb == 20
    assert profile.memory.app_gb.value == 2.684  # (20480 + 143360) x 16384 bytes


@pytest.mark.parametrize("name", NAMES)
def test_a_detected_profile_can_be_loaded(name: str, tmp_path: Path) -> None:
    tree = plant(tmp_path / "root", (MACHINES / f"{name}.txt").read_text())
    profile = profile_of(tree, MEASURED)
    written = tmp_path / "my-device.toml"
    write_profile(written, profile)
    assert load(str(written)) == profile


def test_a_machine_that_tells_nothing_is_refused(tmp_path: Path) -> None:
    with pytest.raises(EdgeGaugeError, match="does not tell what edgegauge needs"):
        describe(Tree(tmp_path))


def test_no_room_left_is_refused(machine: Unpack) -> None:
    tree = machine("container-with-limit")
    (tree.root / "sys/fs/cgroup/memory.current").write_text("2147483648")
    (tree.root / "sys/fs/cgroup/memory.stat").write_text("inactive_file 0")
    with pytest.raises(EdgeGaugeError, match="is used up"):
        profile_of(tree)


@settings(max_examples=60, deadline=None)
@given(data=st.data())
def test_damaged_machines_give_a_profile_or_a_known_error(
    data: st.DataObject, tmp_path_factory: pytest.TempPathFactory
) -> None:
    name = data.draw(st.sampled_from(["raspberry-pi-5", "virtual-machine", "macbook-air-m2"]))
    lines = (MACHINES / f"{name}.txt").read_text().splitlines()
    for _ in range(data.draw(st.integers(1, 4))):
        at = data.draw(st.integers(0, len(lines) - 1))
        if not lines[at].startswith("==>"):
            junk = st.text(st.characters(codec="utf-8", exclude_characters="\r"), max_size=30)
            lines[at] = data.draw(st.one_of(st.just(""), junk, st.just(lines[at] + "9999")))
    tree = plant(tmp_path_factory.mktemp("tree"), "\n".join(lines) + "\n")
    try:
        profile = profile_of(tree)
    except EdgeGaugeError:
        return
    assert profile.memory.app_gb.value <= profile.memory.ram_gb.value


def test_doubts_are_told() -> None:
    def notes(rate: float, busy: float, cached: float, two: float = 0) -> str:
        windows = {1: bandwidth._Window(rate, busy), 2: bandwidth._Window(two or 2 * rate, busy)}
        return " ".join(bandwidth._doubts(windows, cached))

    assert notes(10, 0.99, 40) == ""
    assert "ran only 60 % of the time" in notes(10, 0.6, 40)
    assert "core or the C library limits" in notes(1.3, 0.99, 1.4)
    assert "slower from 2 threads on" in notes(10, 0.99, 40, two=6)


def test_this_machine_can_be_described() -> None:
    detection = detect(measure=None)
    assert detection.profile.cores >= 1
    assert detection.profile.app_memory_bytes > 1e6
    assert tomllib.loads(dumps({"id": detection.profile.id}))["id"] == detection.profile.id
    assert detection.readings is None and detection.facts()["read_buffer_bytes"] is None


def test_a_measurement_that_fails_leaves_the_figure_blank() -> None:
    def fail(*_: object, **__: object) -> Readings:
        raise MeasurementError("read bandwidth not measured: no memory")

    detection = detect(measure=fail)
    assert detection.profile.memory.read_gb_per_s is None
    assert "Read bandwidth not measured: no memory." in detection.notes
