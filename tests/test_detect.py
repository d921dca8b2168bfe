"""Describing machines: recorded ones of several kinds, then this one."""

from __future__ import annotations

import re
import threading
import tomllib
from collections.abc import Callable
from datetime import date
from itertools import pairwise
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edgegauge import __version__
from edgegauge.detect import as_detection, describe, detect, measured_counts, write_profile
from edgegauge.device import Cluster, DeviceProfile, load
from edgegauge.errors import EdgeGaugeError, MeasurementError
from edgegauge.host import bandwidth
from edgegauge.host.arm import core_name
from edgegauge.host.bandwidth import Readings, measure_read, thread_counts
from edgegauge.host.cpu import cache_bytes, linux_cpu
from edgegauge.host.memory import linux_memory
from edgegauge.host.power import battery
from edgegauge.host.tree import MAX_BYTES, Tree, cpu_list, fields
from edgegauge.toml import dumps
from edgegauge.units import MIB

MACHINES = Path(__file__).parent / "data" / "machines"
NAMES = sorted(p.stem for p in MACHINES.glob("*.txt"))
DAY = date(2026, 3, 1)
MEASURED = Readings(
    gb_per_s={1: 9.256, 2: 13.23, 4: 11.59}, cached_gb_per_s=40, buffer_bytes=64 * MIB, notes=[]
)

Unpack = Callable[[str], Tree]


def plant(root: Path, text: str) -> Tree:
    """The tree that a recording in `tail -n +1` form describes."""
    parts = re.split(r"^==> /(.+) <==\n", text, flags=re.M)
    for name, content in zip(parts[1::2], parts[2::2], strict=True):
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(content.removesuffix("\n\n").replace("\\0", "\0") + "\n")
    return Tree(root)


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


def test_limits_of_all_groups_above_count(tmp_path: Path) -> None:
    tree = plant(
        tmp_path,
        "==> /proc/meminfo <==\nMemTotal: 8000000 kB\nMemAvailable: 7000000 kB\n\n"
        "==> /proc/self/cgroup <==\n0::/outer/inner\n\n"
        "==> /sys/fs/cgroup/cgroup.controllers <==\nmemory\n\n"
        "==> /sys/fs/cgroup/outer/memory.high <==\n3000000000\n\n"
        "==> /sys/fs/cgroup/outer/memory.max <==\n4000000000\n\n"
        "==> /sys/fs/cgroup/outer/memory.current <==\n500000000\n\n"
        "==> /sys/fs/cgroup/outer/inner/memory.max <==\n5000000000\n\n",
    )
    memory = linux_memory(tree)
    assert memory is not None
    assert (memory.app_bytes, memory.app_limit) == (2_500_000_000, "cgroup memory.high")
    assert memory.ceiling_bytes == 3_000_000_000  # whatever others give back


def test_cgroup_v1_limit_seen_from_inside_a_container(tmp_path: Path) -> None:
    tree = plant(
        tmp_path,
        "==> /proc/meminfo <==\nMemTotal: 8000000 kB\nMemAvailable: 7000000 kB\n\n"
        "==> /proc/self/cgroup <==\n4:cpu,memory:/docker/0123abcd\n\n"
        "==> /sys/fs/cgroup/memory/memory.limit_in_bytes <==\n1000000000\n\n"
        "==> /sys/fs/cgroup/memory/memory.usage_in_bytes <==\n400000000\n\n"
        "==> /sys/fs/cgroup/memory/memory.stat <==\ntotal_inactive_file 150000000\n\n",
    )
    memory = linux_memory(tree)
    assert memory is not None and memory.app_bytes == 750_000_000
    assert (memory.ceiling_bytes, memory.total_bytes) == (1_000_000_000, 8_192_000_000)


def test_a_cgroup_v1_limit_of_groups_that_are_out_of_sight(tmp_path: Path) -> None:
    tree = plant(
        tmp_path,
        "==> /proc/meminfo <==\nMemTotal: 8000000 kB\nMemAvailable: 7000000 kB\n\n"
        "==> /proc/self/cgroup <==\n4:memory:/\n\n"
        "==> /sys/fs/cgroup/memory/memory.limit_in_bytes <==\n9223372036854771712\n\n"
        "==> /sys/fs/cgroup/memory/memory.usage_in_bytes <==\n400000000\n\n"
        "==> /sys/fs/cgroup/memory/memory.stat <==\nhierarchical_memory_limit 2000000000\n\n",
    )
    memory = linux_memory(tree)
    assert memory is not None
    assert (memory.ceiling_bytes, memory.app_bytes) == (2_000_000_000, 1_600_000_000)


def test_address_space_limit_is_used_and_told(tmp_path: Path) -> None:
    tree = plant(
        tmp_path,
        "==> /proc/meminfo <==\nMemTotal: 8000000 kB\nMemAvailable: 7000000 kB\n\n"
        "==> /proc/self/limits <==\nMax address space    2000000000    unlimited    bytes\n\n",
    )
    memory = linux_memory(tree)
    assert memory is not None and memory.app_bytes == 2_000_000_000
    assert "RLIMIT_AS" in memory.notes[0]


def test_old_kernels_without_memavailable(tmp_path: Path) -> None:
    tree = plant(
        tmp_path, "==> /proc/meminfo <==\nMemTotal: 500 kB\nMemFree: 100 kB\nCached: 50 kB\n\n"
    )
    memory = linux_memory(tree)
    assert memory is not None and memory.app_bytes == 150 * 1024


def arm_cpuinfo(*cores: tuple[int, int], features: str = "asimd asimddp") -> str:
    blocks = [
        f"processor\t: {n}\nFeatures\t: {features}\nCPU implementer\t: {i:#x}\nCPU part\t: {p:#x}\n"
        for n, (i, p) in enumerate(cores)
    ]
    return "==> /proc/cpuinfo <==\n" + "\n".join(blocks) + "\n\n"


@pytest.mark.parametrize(
    ("cores", "features", "android", "expected"),
    [
        ([(0x41, 0xD03)] * 4, "asimd", False, "arm-in-order"),  # Raspberry Pi Zero 2 W
        ([(0x41, 0xD03)] * 4, "half thumb neon vfpv4", False, "arm-in-order"),  # 32-bit system
        ([(0x41, 0xD08)] * 4, "asimd", False, "arm-a72"),  # Raspberry Pi 4
        ([(0x41, 0xD42)] * 6, "asimd asimddp", False, "arm-a76"),  # Jetson Orin Nano
        ([(0x41, 0xD05), (0x41, 0xD0B)], "asimd asimddp", False, "arm-a76"),  # RK3588
        ([(0x41, 0xD05), (0x41, 0xD41)], "asimd asimddp", True, "arm-big-little"),  # Galaxy A54
        ([(0x51, 0x001)] * 8, "asimd asimddp i8mm", False, "arm-a76"),  # Snapdragon X
        ([(0x61, 0x022), (0x61, 0x023)], "asimd asimddp", False, "apple"),  # M1 under Linux
    ],
)
def test_core_classes(
    cores: list[tuple[int, int]], features: str, android: bool, expected: str, tmp_path: Path
) -> None:
    cpu = linux_cpu(plant(tmp_path, arm_cpuinfo(*cores, features=features)), android=android)
    assert cpu is not None and cpu.core_class == expected


def test_cores_of_one_kind_but_binned_clocks_are_one_cluster(tmp_path: Path) -> None:
    clocks = [1800000, 2256000, 2304000]
    tree = plant(
        tmp_path,
        arm_cpuinfo((0x41, 0xD05), (0x41, 0xD0B), (0x41, 0xD0B))
        + "".join(
            f"==> /sys/devices/system/cpu/cpu{n}/cpufreq/cpuinfo_max_freq <==\n{khz}\n\n"
            for n, khz in enumerate(clocks)
        ),
    )
    cpu = linux_cpu(tree)
    assert cpu is not None
    assert [(c.core, c.count, c.ghz) for c in cpu.clusters] == [
        ("Cortex-A76", 2, 2.3),
        ("Cortex-A55", 1, 1.8),
    ]


def test_an_unknown_core_is_named_by_its_numbers_and_doubted(tmp_path: Path) -> None:
    cpu = linux_cpu(plant(tmp_path, arm_cpuinfo((0x41, 0xDFF))))
    assert cpu is not None and cpu.clusters[0].core == "ARM core 0x41/0xdff"
    assert "not in the table" in cpu.notes[0]


def test_a_processor_of_no_class_is_refused(tmp_path: Path) -> None:
    tree = plant(tmp_path, "==> /proc/cpuinfo <==\nprocessor : 0\nisa : rv64imafdcv\n\n")
    with pytest.raises(EdgeGaugeError, match="neither x86 nor ARM"):
        linux_cpu(tree)


def test_a_machine_that_tells_nothing_is_refused(tmp_path: Path) -> None:
    with pytest.raises(EdgeGaugeError, match="does not tell what edgegauge needs"):
        describe(Tree(tmp_path))


def test_no_room_left_is_refused(machine: Unpack) -> None:
    tree = machine("container-with-limit")
    (tree.root / "sys/fs/cgroup/memory.current").write_text("2147483648")
    (tree.root / "sys/fs/cgroup/memory.stat").write_text("inactive_file 0")
    with pytest.raises(EdgeGaugeError, match="is used up"):
        profile_of(tree)


@pytest.mark.parametrize(
    ("files", "expected"),
    [
        ({"type": "Mains"}, None),
        ({"type": "Battery"}, None),  # a gauge without a design capacity
        ({"type": "Battery", "energy_full_design": "0"}, None),
        ({"type": "Battery", "energy_full_design": "1"}, None),  # never set up
        ({"type": "Battery", "energy_full_design": "50000000"}, (50, None)),
        ({"type": "Battery", "energy_full_design": "5000000", "energy_full": "9" * 15}, (5, None)),
        (
            {
                "type": "Battery", "charge_full_design": "4000000", "charge_full": "3000000",
                "voltage_min_design": "11400000",
            },
            (45.6, 0.75),
        ),
    ],
)  # fmt: skip
def test_battery(
    files: dict[str, str], expected: tuple[float, float | None] | None, tmp_path: Path
) -> None:
    text = "".join(f"==> /sys/class/power_supply/B/{k} <==\n{v}\n\n" for k, v in files.items())
    found = battery(plant(tmp_path, text))
    assert (found and (round(found.capacity_wh, 6), found.health)) == expected


def test_two_batteries_are_one(tmp_path: Path) -> None:
    text = "".join(
        f"==> /sys/class/power_supply/BAT{n}/{k} <==\n{v}\n\n"
        for n, full in ((0, 24000000), (1, 12000000))
        for k, v in (
            ("type", "Battery"), ("energy_full_design", "24000000"), ("energy_full", str(full)),
        )
    )  # fmt: skip
    found = battery(plant(tmp_path, text))
    assert found is not None and (found.capacity_wh, found.health) == (48, 0.75)


def test_files_that_cannot_be_what_they_should_be_are_missing(tmp_path: Path) -> None:
    (tmp_path / "long").write_bytes(b"1" * (MAX_BYTES + 1))
    (tmp_path / "words").write_text("12 apples")
    tree = Tree(tmp_path)
    assert tree.text("long") is None
    assert tree.integer("words") is None
    assert tree.text("a\0b") is None
    assert tree.output("no-such-command") is None
    assert tree.names("no/such/folder") == []


def test_kernel_lists() -> None:
    assert cpu_list("0-3,8") == [0, 1, 2, 3, 8]
    assert cpu_list("junk") == cpu_list(None) == []
    assert (cache_bytes("512K"), cache_bytes("105M"), cache_bytes("0K")) == (
        524288,
        105 * MIB,
        None,
    )
    assert fields("a: 1\na: 2\nno mark") == {"a": "1"}
    assert core_name(0x41, 0xD0B) == "Cortex-A76"


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


# Bandwidth


def test_thread_counts() -> None:
    assert thread_counts(1, 1) == [1]
    assert thread_counts(4, 4) == [1, 2, 4]
    assert thread_counts(9, 5) == [1, 2, 4, 5, 8, 9]
    clusters = [Cluster(core="x", count=4), Cluster(core="y", count=2)]
    assert measured_counts(clusters) == [1, 2, 4, 6]


def test_reading_this_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bandwidth, "WINDOWS", 2)
    monkeypatch.setattr(bandwidth, "MOST_WINDOWS", 2)
    monkeypatch.setattr(bandwidth, "WINDOW_S", 0.02)
    said: list[tuple[int, int]] = []
    found = measure_read(
        [1, 2], cache_bytes=4 * MIB, free_bytes=400 * MIB, order=[],
        progress=lambda done, threads: said.append((done, threads)),
    )  # fmt: skip
    assert said == [(0, 1), (1, 2)]
    assert found.buffer_bytes == 64 * MIB
    assert set(found.gb_per_s) == {1, 2}
    # Wide bounds: one thread of a slow core under load, to more than any memory of today.
    assert all(0.05 < rate < 2000 for rate in found.gb_per_s.values())
    assert found.cached_gb_per_s > 0.05


def test_every_byte_of_the_slices_is_read_once_per_round(monkeypatch: pytest.MonkeyPatch) -> None:
    """The threads share the buffer without overlap, and go on where the last window stopped."""
    monkeypatch.setattr(bandwidth, "WINDOW_S", 0.005)
    calls: list[tuple[int, int]] = []
    lock = threading.Lock()
    reader = bandwidth._Reader(8 * MIB)
    try:

        def note(address: int, byte: int, length: int) -> None:
            with lock:
                calls.append((address - reader.address, length))

        reader._memchr = note  # type: ignore[assignment]
        bandwidth._best(reader, 2, MIB, 8 * MIB, [])
    finally:
        reader.close()
    offsets = {offset for offset, _ in calls}
    assert offsets == {n * MIB for n in range(8)}
    first = [offset for offset, _ in calls if offset < 4 * MIB]
    assert all((b - a) % (4 * MIB) == MIB for a, b in pairwise(first))


def test_the_buffer_is_several_times_the_caches_or_there_is_no_figure() -> None:
    assert bandwidth._buffer_bytes(100 * MIB, 4000 * MIB) == 400 * MIB
    assert bandwidth._buffer_bytes(MIB // 2, 329 * MIB) == 64 * MIB  # Raspberry Pi Zero 2 W
    with pytest.raises(MeasurementError, match="get past the caches"):
        bandwidth._buffer_bytes(100 * MIB, 300 * MIB)
    with pytest.raises(MeasurementError, match="only 20"):
        bandwidth._buffer_bytes(MIB, 20_000_000)


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


# TOML

keys = st.text(st.characters(codec="utf-8"), max_size=12)
scalars = st.one_of(
    st.text(st.characters(codec="utf-8"), max_size=20),
    st.integers(-(2**63), 2**63 - 1),
    st.floats(allow_nan=False),
    st.booleans(),
)
values = st.recursive(
    scalars,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(keys, inner, max_size=3),
    max_leaves=12,
)


@settings(max_examples=150, deadline=None)
@given(st.dictionaries(keys, values, max_size=5))
def test_what_is_written_as_toml_reads_back(document: dict[str, object]) -> None:
    assert tomllib.loads(dumps(document)) == document


def test_toml_has_no_null() -> None:
    with pytest.raises(TypeError, match="NoneType"):
        dumps({"a": None})
