"""Heat and what the machine does about it: temperature, and every sign of a throttled clock."""

from __future__ import annotations

import re

from edgegauge.host.tree import Tree
from edgegauge.measure import frequencies

THERMAL = "sys/class/thermal"
PI_THROTTLED = "sys/devices/platform/soc/soc:firmware/get_throttled"
PI_BITS = {
    0: "under-voltage",
    1: "capped frequency",
    2: "throttling",
    3: "soft temperature limit",
}
"""Of now; the same bits from 16 on say that it happened since boot (raspberrypi.com documentation
of vcgencmd get_throttled)."""
PI_NOW, PI_SINCE_BOOT = 0xF, 0xF0000
PI_UNDER_VOLTAGE = 0x10001
CPU_COOLING = ("Processor", "thermal-cpufreq", "cpufreq-")
"""Types of cooling devices that slow a CPU down (ACPI, and drivers/thermal/cpufreq_cooling.c)."""


def temperature(tree: Tree) -> float | None:
    """The hottest thermal zone, in degrees Celsius."""
    zones = [n for n in tree.names(THERMAL) if n.startswith("thermal_zone")]
    millidegrees = [tree.integer(f"{THERMAL}/{zone}/temp") for zone in zones]
    plausible = [m / 1000 for m in millidegrees if m is not None and 0 < m < 150_000]
    return max(plausible, default=None)


def throttle_count(tree: Tree) -> int | None:
    """Times an x86 core or package was throttled for heat since boot, over all CPUs."""
    counts = [
        *frequencies.numbers(tree, "thermal_throttle/core_throttle_count"),
        *frequencies.numbers(tree, "thermal_throttle/package_throttle_count"),
    ]
    return sum(counts) if counts else None


def cooling(tree: Tree) -> int | None:
    """The strongest step by which the kernel slows a CPU down for heat now; 0 for none."""
    names = [n for n in tree.names(THERMAL) if n.startswith("cooling_device")]
    types = {n: tree.text(f"{THERMAL}/{n}/type") or "" for n in names}
    steps = [
        tree.integer(f"{THERMAL}/{n}/cur_state") for n in names if types[n].startswith(CPU_COOLING)
    ]
    return max((s for s in steps if s is not None), default=None)


def pi_throttled(tree: Tree) -> int | None:
    """The Raspberry Pi firmware's bits, those of now and those since boot.

    From sysfs, or `vcgencmd get_throttled` where the kernel has no such file; None off a Pi.
    """
    text = tree.text(PI_THROTTLED)
    if text is not None:
        found = re.fullmatch(r"(?:0x)?([0-9a-fA-F]{1,8})", text)
    elif "Raspberry Pi" in (tree.text("proc/device-tree/model") or ""):
        said = tree.output("vcgencmd", "get_throttled") or ""
        found = re.search(r"^throttled=0x([0-9a-fA-F]{1,8})$", said.strip(), re.M)
    else:
        return None
    return int(found[1], 16) & (PI_NOW | PI_SINCE_BOOT) if found else None


def pi_words(bits: int) -> str:
    """`under-voltage, throttling`: what the bits of now and of since boot say."""
    return ", ".join(word for bit, word in PI_BITS.items() if bits & (0x10001 << bit))
