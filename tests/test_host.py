"""Facts of recorded machines, of one that tells nothing, and of this one."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from edgegauge.host.tree import Tree
from edgegauge.measure.host import cpu_model, cpu_quota, machine, state, usable_cores

MACHINES = Path(__file__).parent / "data" / "machines" / "host"


class Recorded:
    """Unpacks recordings (see data/machines/README.md) into a folder each."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def __call__(self, name: str) -> Tree:
        root = self._folder / name
        text = (MACHINES / f"{name}.txt").read_text()
        parts = re.split(r"^==> /(.+) <==\n", text, flags=re.M)
        for path, content in zip(parts[1::2], parts[2::2], strict=True):
            target = root / path
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_text(content.removesuffix("\n\n").replace("\\0", "\0") + "\n")
        return Tree(root)


@pytest.fixture
def recorded(tmp_path: Path) -> Recorded:
    return Recorded(tmp_path)


def test_a_raspberry_pi(recorded: Recorded) -> None:
    facts, now = machine(recorded("pi5")), state(recorded("pi5"))
    assert facts["name"] == "Raspberry Pi 5 Model B Rev 1.0"
    assert facts["os"] == "Debian GNU/Linux 12 (bookworm)"
    assert facts["kernel"] == "6.6.31+rpt-rpi-2712"
    assert (facts["cores_online"], facts["cores_usable"]) == (4, 4)
    assert facts["memory_total_bytes"] == 8245760 * 1024
    assert facts["virtual"] is False
    assert now["governor"] == "ondemand"
    assert now["frequency_mhz"] == [1500.0, 2400.0]
    assert now["temperature_c"] == 61.75
    assert now["pi_throttled"] == 0
    assert (now["swapped_in_pages"], now["swapped_out_pages"]) == (12, 40)
    assert now["load_1min"] == 0.21
    assert now["cpu_ticks"] == {"busy": 1380, "steal": 0, "all": 91500}
    assert now["memory_available_bytes"] == 7340032 * 1024
    assert now["power_source"] is None and now["throttle_count"] is None


def test_a_laptop_on_battery(recorded: Recorded) -> None:
    facts, now = machine(recorded("laptop-on-battery")), state(recorded("laptop-on-battery"))
    assert facts["cpu_model"] == "Intel Core i5-1240P"
    assert facts["cores_usable"] == 2, "hyper-threads count once"
    assert now["power_source"] == "battery", "the mouse's battery is not the machine's"
    assert now["throttle_count"] == 3 + 4 + 5 + 6 + 4 * 10
    assert now["frequency_mhz"] == [1700.0, 2000.0]
    assert now["governor"] == "powersave"


def test_a_container_with_limits(recorded: Recorded) -> None:
    tree = recorded("container")
    facts = machine(tree)
    assert facts["virtual"] and facts["container"]
    assert facts["cpu_quota"] == 1.5
    assert facts["cores_usable"] == 2, "one and a half CPUs are best used by two threads"
    assert facts["memory_limit"] == "cgroup memory.max"
    assert state(tree)["memory_available_bytes"] == 536870912 - 104857600 + 4857600


def test_a_quota_of_control_groups_version_1(recorded: Recorded) -> None:
    assert cpu_quota(recorded("cgroup-v1")) == 2.0
    assert usable_cores(recorded("cgroup-v1")) == 2


def test_a_machine_that_tells_nothing(tmp_path: Path) -> None:
    facts, now = machine(Tree(tmp_path)), state(Tree(tmp_path))
    assert facts["cpu_model"] is not None and facts["cores_usable"] >= 1
    unknown = set(now) - {"monotonic_s"}
    assert {key: now[key] for key in unknown} == dict.fromkeys(unknown)


@pytest.mark.parametrize("text", ["", "garbage", "cpu x y z 1 2 3 4 5", "cpu 1 2 3"])
def test_odd_counters_are_unknown_rather_than_wrong(tmp_path: Path, text: str) -> None:
    for path in (
        "proc/stat",
        "proc/loadavg",
        "sys/devices/platform/soc/soc:firmware/get_throttled",
    ):
        (tmp_path / path).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / path).write_text(text)
    now = state(Tree(tmp_path))
    assert now["cpu_ticks"] is now["load_1min"] is now["pi_throttled"] is None


def test_this_machine() -> None:
    assert cpu_model() == machine(Tree())["cpu_model"] != ""
    assert usable_cores(Tree()) >= 1
