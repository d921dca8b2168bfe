"""The machine a measurement ran on, and what could have spoiled it.

`machine` reads what stays the same, `state` what may change during a run; a run stores the state
before and after. `trust` compares the two. Everything is read through a `Tree`, so recorded
machines drive the tests; what a machine does not tell is None.

    before = state(Tree()); ...; after = state(Tree())
    list(trust.of_host(before, after, cores=4, own_cpu_s=12.3))
"""

from __future__ import annotations

import os
import platform
import time
from typing import Any

from edgegauge.errors import EdgeGaugeError
from edgegauge.host.cpu import CpuFacts, linux_cpu
from edgegauge.host.identity import identity
from edgegauge.host.memory import linux_memory
from edgegauge.host.tree import Tree, cpu_list, fields, integer

CPUS = "sys/devices/system/cpu"
SUPPLIES = "sys/class/power_supply"
THERMAL = "sys/class/thermal"
PI_THROTTLED = "sys/devices/platform/soc/soc:firmware/get_throttled"
PI_NOW_OR_SINCE_BOOT = 0xF000F
"""Under-voltage, capped frequency, throttled, soft temperature limit: now, and since boot
(raspberrypi.com documentation of vcgencmd get_throttled)."""


def machine(tree: Tree) -> dict[str, Any]:
    """What stays the same: processor, system, how many cores this process may use, limits."""
    cpu, who, memory = _cpu(tree), identity(tree), linux_memory(tree)
    return {
        "cpu_model": cpu.soc if cpu else platform.processor() or platform.machine(),
        "name": who.name,
        "machine": platform.machine(),
        "os": _os(tree),
        "kernel": who.kernel or platform.release(),
        "python": platform.python_version(),
        "virtual": who.virtual,
        "container": who.container,
        "cores_online": len(cpu_list(tree.text(f"{CPUS}/online"))) or os.cpu_count(),
        "cores_usable": usable_cores(tree),
        "cpus_allowed": fields(tree.text("proc/self/status")).get("Cpus_allowed_list"),
        "cpu_quota": cpu_quota(tree),
        "memory_total_bytes": memory.total_bytes if memory else None,
        "memory_limit": memory.app_limit if memory else None,
    }


def state(tree: Tree) -> dict[str, Any]:
    """What may change during a run: clocks, temperature, counters, load, memory, power."""
    memory = linux_memory(tree)
    vmstat = fields(tree.text("proc/vmstat"), " ")
    load = (tree.text("proc/loadavg") or "").split()
    return {
        "monotonic_s": time.monotonic(),
        "governor": _governor(tree),
        "frequency_mhz": _frequencies(tree),
        "temperature_c": _temperature(tree),
        "throttle_count": _throttle_count(tree),
        "pi_throttled": _pi_throttled(tree),
        "swapped_in_pages": integer(vmstat.get("pswpin")),
        "swapped_out_pages": integer(vmstat.get("pswpout")),
        "load_1min": float(load[0]) if load and _is_number(load[0]) else None,
        "cpu_ticks": _cpu_ticks(tree),
        "memory_available_bytes": memory.app_bytes if memory else None,
        "power_source": _power_source(tree),
    }


def cpu_model() -> str:
    """This machine's processor, as in a result file."""
    model: str = machine(Tree())["cpu_model"]
    return model


def usable_cores(tree: Tree) -> int:
    """Physical cores this process may use: affinity and control-group quota applied."""
    cpu = _cpu(tree)
    if cpu:
        cores = sum(cluster.count for cluster in cpu.clusters)
    else:
        import psutil

        cores = psutil.cpu_count(logical=False) or os.cpu_count() or 1
    quota = cpu_quota(tree)
    return max(1, min(cores, int(quota + 0.5) if quota else cores))


def cpu_quota(tree: Tree) -> float | None:
    """CPUs' worth of time that the control groups above this process allow; None if no limit."""
    found: list[float] = []
    for line in (tree.text("proc/self/cgroup") or "").splitlines():
        _, _, rest = line.partition(":")
        controllers, _, path = rest.partition(":")
        parts = [p for p in path.split("/") if p and p != ".."]
        groups = ["/".join(parts[:n]) for n in range(len(parts) + 1)]
        if controllers == "":
            found += [q for g in groups if (q := _quota_v2(tree, g)) is not None]
        elif "cpu" in controllers.split(","):
            found += [q for g in groups if (q := _quota_v1(tree, g)) is not None]
    return min(found, default=None)


def _quota_v2(tree: Tree, group: str) -> float | None:
    words = (tree.text(f"sys/fs/cgroup/{group}/cpu.max") or "").split()
    quota, period = (integer(w) for w in words) if len(words) == 2 else (None, None)
    return quota / period if quota and period else None


def _quota_v1(tree: Tree, group: str) -> float | None:
    at = f"sys/fs/cgroup/cpu/{group}"
    quota, period = (tree.integer(f"{at}/cpu.cfs_{k}_us") for k in ("quota", "period"))
    return quota / period if quota and quota > 0 and period else None


def _cpu(tree: Tree) -> CpuFacts | None:
    try:
        return linux_cpu(tree)
    except EdgeGaugeError:  # a processor that no core class describes can still be measured
        return None


def _os(tree: Tree) -> str:
    lines = fields(tree.text("etc/os-release"), "=")
    return lines.get("PRETTY_NAME", "").strip('"') or platform.system()


def _numbers(tree: Tree, pattern: str) -> list[int]:
    """A whole number of every CPU that has this file."""
    names = [n for n in tree.names(CPUS) if n[:3] == "cpu" and n[3:].isdigit()]
    values = (tree.integer(f"{CPUS}/{name}/{pattern}") for name in names)
    return [v for v in values if v is not None]


def _governor(tree: Tree) -> str | None:
    """The scaling governor; several are joined by commas."""
    names = [n for n in tree.names(CPUS) if n[:3] == "cpu" and n[3:].isdigit()]
    found = {tree.text(f"{CPUS}/{n}/cpufreq/scaling_governor") for n in names}
    return ",".join(sorted(g for g in found if g)) or None


def _frequencies(tree: Tree) -> list[float] | None:
    """Slowest and fastest current clock of any CPU."""
    mhz = [khz / 1000 for khz in _numbers(tree, "cpufreq/scaling_cur_freq")]
    if not mhz:
        lines = (tree.text("proc/cpuinfo") or "").splitlines()
        words = [line.partition(":")[2].strip() for line in lines if line.startswith("cpu MHz")]
        mhz = [float(word) for word in words if _is_number(word)]
    return [min(mhz), max(mhz)] if mhz else None


def _temperature(tree: Tree) -> float | None:
    """The hottest thermal zone."""
    zones = [n for n in tree.names(THERMAL) if n.startswith("thermal_zone")]
    millidegrees = [tree.integer(f"{THERMAL}/{zone}/temp") for zone in zones]
    plausible = [m / 1000 for m in millidegrees if m is not None and 0 < m < 150_000]
    return max(plausible, default=None)


def _throttle_count(tree: Tree) -> int | None:
    """Times an x86 core or package was throttled for heat since boot, over all CPUs."""
    counts = [
        *_numbers(tree, "thermal_throttle/core_throttle_count"),
        *_numbers(tree, "thermal_throttle/package_throttle_count"),
    ]
    return sum(counts) if counts else None


def _pi_throttled(tree: Tree) -> int | None:
    """The Raspberry Pi firmware's bits, those of now and those since boot."""
    text = tree.text(PI_THROTTLED)
    try:
        return int(text, 16) & PI_NOW_OR_SINCE_BOOT if text else None
    except ValueError:
        return None


def _cpu_ticks(tree: Tree) -> dict[str, int] | None:
    """Clock ticks of all CPUs since boot: busy, stolen by the hypervisor, all."""
    words = (tree.text("proc/stat") or "").partition("\n")[0].split()
    ticks = [integer(w) for w in words[1:9]]
    if words[:1] != ["cpu"] or len(ticks) < 8 or None in ticks:
        return None
    user, nice, system, idle, waiting, irq, soft, steal = (t or 0 for t in ticks)
    busy = user + nice + system + irq + soft
    return {"busy": busy, "steal": steal, "all": busy + idle + waiting + steal}


def _power_source(tree: Tree) -> str | None:
    """`battery` while one discharges, `mains` while a supply is connected, None where unknown."""
    names = tree.names(SUPPLIES)
    types = {n: tree.text(f"{SUPPLIES}/{n}/type") for n in names}
    for name in names:
        at = f"{SUPPLIES}/{name}"
        own = types[name] == "Battery" and tree.text(f"{at}/scope") != "Device"
        if own and tree.text(f"{at}/status") == "Discharging":
            return "battery"
    online = [n for n in names if types[n] in ("Mains", "USB", "Wireless")]
    if any(tree.integer(f"{SUPPLIES}/{n}/online") for n in online):
        return "mains"
    return None


def _is_number(text: str) -> bool:
    return text.replace(".", "", 1).isdigit()
