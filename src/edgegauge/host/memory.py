"""Memory: how much there is, and how much of it one application may use now.

The least of what the kernel calls available, the room left under every memory limit of the control
groups above this process (versions 1 and 2), and the address-space limit. On macOS the free and the
inactive pages, as Activity Monitor and psutil count them. What it can never exceed, however much
others give back, is the least of the memory and those limits themselves.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import PurePosixPath

from edgegauge.host.tree import Tree, fields, integer

UNLIMITED = 2**60
"""Limits from here on mean "none": version 1 prints the largest page-aligned number."""


@dataclass(frozen=True, slots=True, kw_only=True)
class MemoryFacts:
    """Bytes; `app_limit` names what decides `app_bytes`."""

    total_bytes: int
    ceiling_bytes: int
    """Most that one application can have once everything else is given back."""
    app_bytes: int
    app_limit: str
    notes: list[str]


@dataclass(frozen=True, slots=True)
class Limit:
    """A limit of a control group, and the room left under it."""

    name: str
    bytes: int
    room: int


def linux_memory(tree: Tree) -> MemoryFacts | None:
    """Memory of a Linux or Android tree; None without /proc/meminfo."""
    meminfo = {k: _kib(v) for k, v in fields(tree.text("proc/meminfo")).items()}
    total = meminfo.get("MemTotal")
    if not total:
        return None
    available = meminfo.get("MemAvailable")
    if available is None:  # kernels before 3.14
        available = sum(meminfo.get(k) or 0 for k in ("MemFree", "Buffers", "Cached"))
    limits = [Limit("MemAvailable of /proc/meminfo", total, available), *_cgroup_limits(tree)]
    notes = []
    address_space = _address_space(tree)
    if address_space is not None:
        limits.append(Limit("RLIMIT_AS", address_space, address_space))
        notes.append(
            f"RLIMIT_AS is {address_space} bytes: a memory-mapped model counts in full against it."
        )
    tightest = min(limits, key=lambda limit: limit.room)
    return MemoryFacts(
        total_bytes=total,
        ceiling_bytes=min(limit.bytes for limit in limits),
        app_bytes=max(min(tightest.room, total), 0),
        app_limit=tightest.name,
        notes=notes,
    )


def mac_memory(tree: Tree, total: int) -> MemoryFacts | None:
    """Memory from `vm_stat`; None where it does not print pages."""
    text = tree.output("vm_stat") or ""
    page = re.search(r"page size of ([0-9]{3,6}) bytes", text)
    pages = fields(text)
    counted = [integer(pages.get(k, "").rstrip(".")) for k in ("Pages free", "Pages inactive")]
    if total <= 0 or not page or None in counted:
        return None
    room = sum(c or 0 for c in counted) * int(page[1])
    return MemoryFacts(
        total_bytes=total,
        ceiling_bytes=total,
        app_bytes=min(room, total),
        app_limit="free and inactive pages of vm_stat",
        notes=[],
    )


def _kib(text: str) -> int | None:
    """Bytes from `/proc/meminfo`'s `8058816 kB`."""
    value = integer(text.removesuffix(" kB"))
    return None if value is None else value * 1024


def _address_space(tree: Tree) -> int | None:
    """The soft RLIMIT_AS of this process; None where there is none."""
    found = re.search(r"^Max address space\s+([0-9]+)\s", tree.text("proc/self/limits") or "", re.M)
    value = integer(found[1]) if found else None
    return value if value is not None and value < UNLIMITED else None


def _cgroup_limits(tree: Tree) -> list[Limit]:
    """The limits of every control group above this process."""
    limits = []
    for line in (tree.text("proc/self/cgroup") or "").splitlines():
        _, _, rest = line.partition(":")
        controllers, _, path = rest.partition(":")
        if controllers == "":
            hybrid = not tree.exists("sys/fs/cgroup/cgroup.controllers")
            mount = "sys/fs/cgroup/unified" if hybrid else "sys/fs/cgroup"
            limits += [_limit_v2(tree, group) for group in _groups(mount, path)]
        elif "memory" in controllers.split(","):
            limits += [_limit_v1(tree, group) for group in _groups("sys/fs/cgroup/memory", path)]
    return [limit for limit in limits if limit is not None]


def _groups(mount: str, path: str) -> list[str]:
    """The folders of a control group and of all above it.

    Inside a container the path may be that of the host, or climb out of the mount with `..`: then
    the mount itself is the group, and folders that do not exist give no limit.
    """
    parts = [] if ".." in PurePosixPath(path).parts else path.strip("/").split("/")
    return ["/".join([mount, *parts[:n]]) for n in range(len(parts) + 1) if n == 0 or parts[n - 1]]


def _limit_v2(tree: Tree, group: str) -> Limit | None:
    limits = {k: tree.integer(f"{group}/memory.{k}") for k in ("max", "high")}  # "max" is no limit
    given = {k: v for k, v in limits.items() if v is not None}
    if not given:
        return None
    name = min(given, key=lambda k: given[k])
    used = tree.integer(f"{group}/memory.current") or 0
    room = given[name] - used + _statistic(tree, group, "inactive_file")
    return Limit(f"cgroup memory.{name}", given[name], room)


def _limit_v1(tree: Tree, group: str) -> Limit | None:
    own = tree.integer(f"{group}/memory.limit_in_bytes")
    # In a container the groups above its own are not to be seen, but their limit counts here.
    above = _statistic(tree, group, "hierarchical_memory_limit") or UNLIMITED
    limit = min(own if own is not None else UNLIMITED, above)
    if limit >= UNLIMITED:
        return None
    used = tree.integer(f"{group}/memory.usage_in_bytes") or 0
    room = limit - used + _statistic(tree, group, "total_inactive_file")
    return Limit("cgroup memory.limit_in_bytes", limit, room)


def _statistic(tree: Tree, group: str, key: str) -> int:
    """A line of memory.stat, 0 without it; inactive file pages are counted as used, but nobody
    used them lately and they are given back on demand."""
    return integer(fields(tree.text(f"{group}/memory.stat"), " ").get(key)) or 0
