"""Facts of recorded machines, of one that tells nothing, and of this one."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from unpacked_machine import plant

from edgegauge.host.tree import Tree
from edgegauge.measure import cpu_use, frequencies, heat, supply
from edgegauge.measure.host import cpu_model, cpu_quota, glance, machine, state, usable_cores

MACHINES = Path(__file__).parent / "data" / "machines" / "host"


class Recorded:
    """Unpacks recordings (see data/machines/README.md) into a folder each."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def __call__(self, name: str) -> Tree:
        return plant(self._folder / name, (MACHINES / f"{name}.txt").read_text())


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
    unknown = set(now) - {"monotonic_s", "clock_offsets"}
    assert {key: now[key] for key in unknown} == dict.fromkeys(unknown)
    assert set(glance(Tree(tmp_path)).values()) == {None}


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


def made(root: Path, files: dict[str, str]) -> Tree:
    for path, text in files.items():
        (root / path).parent.mkdir(parents=True, exist_ok=True)
        (root / path).write_text(text + "\n")
    return Tree(root)


def test_a_glance_agrees_with_the_state(recorded: Recorded) -> None:
    quick, now = glance(recorded("pi5")), state(recorded("pi5"))
    assert quick["mhz"] == now["frequency_mhz"]
    for key in ("temperature_c", "throttle_count", "pi_throttled", "swapped_in_pages"):
        assert quick[key] == now[key], key


def test_clusters_and_their_clocks(tmp_path: Path) -> None:
    at = "sys/devices/system/cpu/cpufreq/policy"
    tree = made(
        tmp_path,
        {
            f"{at}{first}/{name}": value
            for first, cpus, fastest in ((0, "0 1 2 3", 1800000), (10, "10", 2900000))
            for name, value in (
                ("affected_cpus", cpus),
                ("scaling_governor", "schedutil"),
                ("scaling_min_freq", "300000"),
                ("scaling_max_freq", str(fastest)),
                ("scaling_cur_freq", "600000"),
            )
        },
    )
    little, big = state(tree)["policies"]
    assert little == {
        "cpus": "0 1 2 3", "governor": "schedutil",
        "min_mhz": 300.0, "max_mhz": 1800.0, "cur_mhz": 600.0,
    }  # fmt: skip
    assert (big["cpus"], big["max_mhz"]) == ("10", 2900.0)


@pytest.mark.parametrize(
    ("file", "value", "on"),
    [
        (frequencies.NO_TURBO, "0", True),
        (frequencies.NO_TURBO, "1", False),
        (frequencies.BOOST, "1", True),
        (frequencies.BOOST, "0", False),
        (frequencies.BOOST, "?", None),
    ],
)
def test_turbo(tmp_path: Path, file: str, value: str, on: bool | None) -> None:
    tree = made(tmp_path, {file: value})
    assert frequencies.turbo(tree) is on
    assert frequencies.turbo_off(tree) and file in str(frequencies.turbo_off(tree))


def test_a_kernel_that_cools_a_processor(tmp_path: Path) -> None:
    at = "sys/class/thermal/cooling_device"
    files = {f"{at}0/type": "Processor", f"{at}0/cur_state": "0"}
    files |= {f"{at}1/type": "pwm-fan", f"{at}1/cur_state": "4"}
    assert heat.cooling(made(tmp_path, files)) == 0, "a fan that turns slows nothing down"
    files |= {f"{at}2/type": "cpufreq-cpu4", f"{at}2/cur_state": "7"}
    assert heat.cooling(made(tmp_path, files)) == 7


@pytest.mark.parametrize(
    ("said", "bits"),
    [("throttled=0x50005", 0x50005), ("throttled=0x0", 0), ("VCHI initialization failed", None)],
)
def test_a_pi_without_the_kernel_file_is_asked_by_command(
    tmp_path: Path, said: str, bits: int | None
) -> None:
    files = {"proc/device-tree/model": "Raspberry Pi 4 Model B", "commands/vcgencmd.txt": said}
    assert heat.pi_throttled(made(tmp_path, files)) == bits


def test_no_other_machine_is_asked_for_the_bits_of_a_pi(tmp_path: Path) -> None:
    tree = made(tmp_path, {"commands/vcgencmd.txt": "throttled=0x50005"})
    assert heat.pi_throttled(tree) is None


def test_the_bits_of_a_pi_in_words() -> None:
    assert heat.pi_words(0x1) == heat.pi_words(0x10000) == "under-voltage"
    assert heat.pi_words(0x40008) == "throttling, soft temperature limit"


@pytest.mark.parametrize(
    ("command", "said", "source"),
    [
        ("termux-battery-status", json.dumps({"plugged": "UNPLUGGED"}), "battery"),
        ("termux-battery-status", json.dumps({"plugged": "PLUGGED_USB"}), "mains"),
        ("termux-battery-status", "[" * 5000, None),
        ("termux-battery-status", '{"plugged": 3}', None),
        ("pmset", "Now drawing from 'AC Power'\n -InternalBattery-0", "mains"),
        ("pmset", "Now drawing from 'Battery Power'", "battery"),
        ("pmset", "", None),
    ],
)
def test_the_power_source_by_command(
    tmp_path: Path, command: str, said: str, source: str | None
) -> None:
    assert supply.power_source_by_command(made(tmp_path, {f"commands/{command}.txt": said})) == (
        source
    )


@pytest.mark.parametrize(
    ("path", "text", "saving"),
    [
        ("sys/firmware/acpi/platform_profile", "low-power", True),
        ("sys/firmware/acpi/platform_profile", "balanced", False),
        ("commands/pmset.txt", "Currently in use:\n lowpowermode         1", True),
        ("commands/pmset.txt", " standby 1\n lowpowermode         0", False),
    ],
)
def test_a_power_saving_profile(tmp_path: Path, path: str, text: str, saving: bool) -> None:
    assert supply.battery_saver(made(tmp_path, {path: text})) is saving


STAT = "{pid} (a (b) c) S 1 1 1 0 -1 0 0 0 0 0 {times} 20 0 1 0"


def test_own_ticks_are_those_of_this_process_and_its_children(tmp_path: Path) -> None:
    tree = made(
        tmp_path,
        {
            "proc/self/stat": STAT.format(pid=7, times="10 5 200 100"),
            "proc/self/task/7/children": "",
            "proc/self/task/8/children": "90 91 92",
            "proc/90/stat": STAT.format(pid=90, times="1000 20 3 0"),
            "proc/91/stat": "gone",
        },
    )
    assert cpu_use.own_ticks(tree) == 315 + 1023


SPIN = ("-c", "i=0; while [ $i -lt 3000000 ]; do i=$((i+1)); done")


@pytest.mark.skipif(sys.platform != "linux", reason="counts on /proc")
def test_the_busiest_other_process_is_named_and_our_own_is_not(tmp_path: Path) -> None:
    for name in ("ours-spins", "other-spins"):
        (tmp_path / name).symlink_to("/bin/sh")
    # The shell between us and the other process ends at once, which leaves it nobody's child.
    start = f"{tmp_path / 'other-spins'} {SPIN[0]} '{SPIN[1]}' >/dev/null 2>&1 & echo $!"
    done = subprocess.run(["/bin/sh", "-c", start], capture_output=True, check=True, timeout=10)
    ours = subprocess.Popen([tmp_path / "ours-spins", *SPIN])
    try:
        found, now = cpu_use.busiest(Tree()), cpu_use.ticks(Tree())
    finally:
        ours.kill()
        ours.wait()
        os.kill(int(done.stdout), signal.SIGKILL)
    assert found is not None and found["share"] > 0.05
    assert found["name"] != "ours-spins"
    assert now is not None and now["all"] > now["busy"] >= now["own"] > 0


def test_this_machine() -> None:
    assert cpu_model() == machine(Tree())["cpu_model"] != ""
    assert usable_cores(Tree()) >= 1


@pytest.mark.parametrize(
    ("files", "source"),
    [
        ({"BAT0/type": "Battery", "BAT0/status": "Discharging"}, "battery"),
        ({"BAT0/type": "Battery", "BAT0/status": "Discharging", "BAT0/present": "0"}, None),
        ({"mouse/type": "Battery", "mouse/status": "Discharging", "mouse/scope": "Device"}, None),
        ({"usb/type": "USB_PD", "usb/online": "1"}, "mains"),
        ({"AC/type": "Mains", "AC/online": "0"}, None),
    ],
)
def test_the_power_source_of_sysfs(
    tmp_path: Path, files: dict[str, str], source: str | None
) -> None:
    tree = made(tmp_path, {f"sys/class/power_supply/{path}": text for path, text in files.items()})
    assert supply.power_source(tree) == source
