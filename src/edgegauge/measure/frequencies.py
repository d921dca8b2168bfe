"""Processor clocks: how fast each cluster may and does run, who decides it, and whether it boosts.

All from cpufreq in sysfs; what a machine hides (virtual machines, most of macOS) is None.
"""

from __future__ import annotations

from typing import Any

from edgegauge.host.tree import Tree

CPUS = "sys/devices/system/cpu"
POLICIES = f"{CPUS}/cpufreq"
NO_TURBO = f"{CPUS}/intel_pstate/no_turbo"
BOOST = f"{CPUS}/cpufreq/boost"


def cpu_names(tree: Tree) -> list[str]:
    """`cpu0`, `cpu1`, ...: the folders of single CPUs."""
    return [n for n in tree.names(CPUS) if n[:3] == "cpu" and n[3:].isdigit()]


def numbers(tree: Tree, pattern: str) -> list[int]:
    """A whole number of every CPU that has this file."""
    values = (tree.integer(f"{CPUS}/{name}/{pattern}") for name in cpu_names(tree))
    return [v for v in values if v is not None]


def governor(tree: Tree) -> str | None:
    """The scaling governor; several are joined by commas."""
    found = {tree.text(f"{CPUS}/{n}/cpufreq/scaling_governor") for n in cpu_names(tree)}
    return ",".join(sorted(g for g in found if g)) or None


def current(tree: Tree) -> list[float] | None:
    """Slowest and fastest current clock of any CPU in MHz, as cpufreq tells it.

    On a Raspberry Pi this is the clock asked for, not what the firmware caps it to.
    """
    mhz = [khz / 1000 for khz in numbers(tree, "cpufreq/scaling_cur_freq")]
    return [min(mhz), max(mhz)] if mhz else None


def current_or_listed(tree: Tree) -> list[float] | None:
    """The same, from /proc/cpuinfo where there is no cpufreq; that file is long to read."""
    if found := current(tree):
        return found
    lines = (tree.text("proc/cpuinfo") or "").splitlines()
    words = [line.partition(":")[2].strip() for line in lines if line.startswith("cpu MHz")]
    mhz = [float(word) for word in words if word.replace(".", "", 1).isdigit()]
    return [min(mhz), max(mhz)] if mhz else None


def policies(tree: Tree) -> list[dict[str, Any]] | None:
    """Each cpufreq policy (a cluster, on ARM): its CPUs, governor, and least, most, current MHz."""
    names = [n for n in tree.names(POLICIES) if n.startswith("policy")]
    found = [_policy(tree, f"{POLICIES}/{n}") for n in sorted(names, key=lambda n: (len(n), n))]
    return found or None


def _policy(tree: Tree, at: str) -> dict[str, Any]:
    khz = {key: tree.integer(f"{at}/scaling_{key}_freq") for key in ("min", "max", "cur")}
    return {
        "cpus": tree.text(f"{at}/affected_cpus"),
        "governor": tree.text(f"{at}/scaling_governor"),
        **{f"{key}_mhz": None if v is None else v / 1000 for key, v in khz.items()},
    }


def turbo(tree: Tree) -> bool | None:
    """Whether the processor may exceed its sustained clock for a while."""
    off = tree.integer(NO_TURBO)
    if off is not None:
        return off == 0
    boost = tree.integer(BOOST)
    return None if boost is None else boost != 0


def turbo_off(tree: Tree) -> str | None:
    """The command that turns turbo off; None where nothing can."""
    if tree.exists(NO_TURBO):
        return f"echo 1 | sudo tee /{NO_TURBO}"
    return f"echo 0 | sudo tee /{BOOST}" if tree.exists(BOOST) else None
