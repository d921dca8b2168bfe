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
from dataclasses import astuple
from typing import Any

from edgegauge.errors import EdgeGaugeError
from edgegauge.host.cpu import CpuFacts, linux_cpu
from edgegauge.host.identity import identity
from edgegauge.host.memory import linux_memory
from edgegauge.host.tree import Tree, cpu_list, fields, integer
from edgegauge.measure import cpu_use, frequencies, heat, supply
from edgegauge.measure.clock_checks import clock_offsets


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
        "cores_online": len(cpu_list(tree.text(f"{frequencies.CPUS}/online"))) or os.cpu_count(),
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
    return {
        "monotonic_s": time.monotonic(),
        "clock_offsets": list(astuple(clock_offsets())),
        "governor": frequencies.governor(tree),
        "frequency_mhz": frequencies.current_or_listed(tree),
        "policies": frequencies.policies(tree),
        "turbo": frequencies.turbo(tree),
        "turbo_off": frequencies.turbo_off(tree),
        "temperature_c": heat.temperature(tree),
        "throttle_count": heat.throttle_count(tree),
        "cooling": heat.cooling(tree),
        "pi_throttled": heat.pi_throttled(tree),
        "swapped_in_pages": integer(vmstat.get("pswpin")),
        "swapped_out_pages": integer(vmstat.get("pswpout")),
        "refaulted_pages": integer(vmstat.get("workingset_refault_file")),
        "load_1min": cpu_use.average(tree),
        "busiest": cpu_use.busiest(tree),
        "cpu_ticks": cpu_use.cpu_ticks(tree),
        "memory_available_bytes": memory.app_bytes if memory else None,
        "power_source": supply.power_source_by_command(tree),
        "battery_saver": supply.battery_saver(tree),
    }


def glance(tree: Tree) -> dict[str, Any]:
    """The part of `state` that is cheap enough for once a second; `mhz` is slowest and fastest."""
    return {
        "mhz": frequencies.current(tree),
        "temperature_c": heat.temperature(tree),
        "throttle_count": heat.throttle_count(tree),
        "cooling": heat.cooling(tree),
        "pi_throttled": heat.pi_throttled(tree),
        "swapped_in_pages": integer(fields(tree.text("proc/vmstat"), " ").get("pswpin")),
        "power_source": supply.power_source(tree),
    }


def cpu_model() -> str:
    """This machine's processor, as in a result file."""
    model: str = machine(Tree())["cpu_model"]
    return model


def default_threads() -> int:
    """Physical cores that this process may use, on this machine."""
    return usable_cores(Tree())


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
