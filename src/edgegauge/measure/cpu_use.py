"""Who uses the processors: clock ticks of the machine, of this process and of its children.

Other programs' share of the CPU time is all busy ticks less our own. What a machine hides is None.
"""

from __future__ import annotations

import os
import sys
import time
from typing import Any

from edgegauge.host.tree import LIVE, Tree, integer

LEAST_SHARE = 0.05
"""Of one CPU: a process below it is not worth naming."""
LOOK_S = 0.1
"""How long other processes are watched before a measurement: ten clock ticks."""
STAT_TIMES = slice(11, 15)
"""utime, stime, cutime and cstime, counted after the name in /proc/PID/stat (proc(5))."""


def cpu_ticks(tree: Tree) -> dict[str, int] | None:
    """Clock ticks of all CPUs since boot: busy, stolen by the hypervisor, all."""
    if _is_this_mac(tree):
        return _mac_ticks()
    words = (tree.text("proc/stat") or "").partition("\n")[0].split()
    ticks = [integer(w) for w in words[1:9]]
    if words[:1] != ["cpu"] or len(ticks) < 8 or None in ticks:
        return None
    user, nice, system, idle, waiting, irq, soft, steal = (t or 0 for t in ticks)
    busy = user + nice + system + irq + soft
    return {"busy": busy, "steal": steal, "all": busy + idle + waiting + steal}


def own_ticks(tree: Tree) -> int | None:
    """Clock ticks of this process, of its children that have ended, and of those that run.

    None where the kernel does not list children (CONFIG_PROC_CHILDREN).
    """
    mine = _process_ticks(tree, "self")
    tasks = tree.names("proc/self/task")
    children = [tree.text(f"proc/self/task/{task}/children") for task in tasks]
    listed = [pids for pids in children if pids is not None]  # a thread may have ended meanwhile
    if mine is None or not listed:
        return None
    return mine + sum(_process_ticks(tree, pid) or 0 for pid in " ".join(listed).split())


def ticks(tree: Tree) -> dict[str, int] | None:
    """busy, own and all ticks so far; None where one of them is hidden."""
    all_cpus, own = cpu_ticks(tree), own_ticks(tree)
    if all_cpus is None or own is None:
        return None
    return {"busy": all_cpus["busy"], "own": own, "all": all_cpus["all"]}


def average(tree: Tree) -> float | None:
    """Load average of the last minute."""
    words = (tree.text("proc/loadavg") or "").split()
    if words:
        return float(words[0]) if words[0].replace(".", "", 1).isdigit() else None
    return os.getloadavg()[0] if _is_this_mac(tree) else None


def busiest(tree: Tree) -> dict[str, Any] | None:
    """Name and share (of one CPU) of the busiest other process; None if none takes 5 %.

    Watches for `LOOK_S`; this process and those it started are not others. Only of this machine.
    """
    if tree.root != LIVE:
        return None
    import psutil

    me = psutil.Process()
    ours = {me.pid, *(child.pid for child in me.children(recursive=True))}
    others = [p for p in psutil.process_iter(["name"]) if p.pid not in ours]
    first = {p: _cpu_s(p) for p in others}
    time.sleep(LOOK_S)
    spent = [(_cpu_s(p) - first[p], p.info["name"]) for p in others]
    most, name = max(spent, key=lambda found: found[0], default=(0.0, None))
    share = most / LOOK_S
    return {"name": name, "share": round(share, 2)} if share > LEAST_SHARE else None


def _cpu_s(process: Any) -> float:
    import psutil

    try:
        times = process.cpu_times()
    except psutil.Error:  # it has ended, or belongs to somebody else
        return 0.0
    return float(times.user + times.system)


def _process_ticks(tree: Tree, pid: str) -> int | None:
    # The name in parentheses may hold anything, parentheses too.
    words = (tree.text(f"proc/{pid}/stat") or "").rpartition(")")[2].split()
    found = [integer(w) for w in words[STAT_TIMES]]
    return sum(t or 0 for t in found) if len(found) == 4 and None not in found else None


def _is_this_mac(tree: Tree) -> bool:
    return tree.root == LIVE and sys.platform == "darwin"


def _mac_ticks() -> dict[str, int]:
    import psutil

    times, per_s = psutil.cpu_times(), os.sysconf("SC_CLK_TCK")
    everything = sum(times)
    return {
        "busy": int((everything - times.idle) * per_s),
        "steal": 0,
        "all": int(everything * per_s),
    }
