"""Parts of a machine, each read from a few files: memory limits, cores, batteries."""

from __future__ import annotations

from pathlib import Path

import pytest
from unpacked_machine import plant

from edgegauge.errors import EdgeGaugeError
from edgegauge.host.arm import core_name
from edgegauge.host.cpu import cache_bytes, linux_cpu
from edgegauge.host.memory import linux_memory
from edgegauge.host.power import battery
from edgegauge.host.tree import MAX_BYTES, Tree, cpu_list, fields
from edgegauge.units import MIB


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
