"""Memory: how much there is, and how much of it one application may use now.

The least of what the kernel calls available, the room left under every memory limit of the control
groups above this process (versions 1 and 2), and the address-space limit. On macOS the free and the
inactive pages, as Activity Monitor and psutil count them.
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
    app_bytes: int
    app_limit: str
    notes: list[str]


def linux_memory(tree: Tree) -> MemoryFacts | None:
    """Memory of a Linux or Android tree; None without /proc/meminfo."""
    meminfo = {k: _kib(v) for k, v in fields(tree.text("proc/meminfo")).items()}
    total = meminfo.get("MemTotal")
    if not total:
        return None
    available = meminfo.get("MemAvailable")
    if available is None:  # kernels before 3.14
        available = sum(meminfo.get(k) or 0 for k in ("MemFree", "Buffers", "Cached"))
    rooms = [("MemAvailable of /proc/meminfo", available), *_cgroup_rooms(tree)]
    notes = []
    address_space = _address_space(tree)
    if address_space is not None:
        rooms.append(("RLIMIT_AS", address_space))
        notes.append(
            f"RLIMIT_AS is {address_space} bytes: a memory-mapped model counts in full against it."
        )
    limit, room = min(rooms, key=lambda r: r[1])
    return MemoryFacts(
        total_bytes=total, app_bytes=max(min(room, total), 0), app_limit=limit, notes=notes
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


def _cgroup_rooms(tree: Tree) -> list[tuple[str, int]]:
    """(name of the limit, bytes left under it) for every control group above this process."""
    rooms = []
    for line in (tree.text("proc/self/cgroup") or "").splitlines():
        _, _, rest = line.partition(":")
        controllers, _, path = rest.partition(":")
        if controllers == "":
            hybrid = not tree.exists("sys/fs/cgroup/cgroup.controllers")
            mount = "sys/fs/cgroup/unified" if hybrid else "sys/fs/cgroup"
            rooms += [_room_v2(tree, group) for group in _groups(mount, path)]
        elif "memory" in controllers.split(","):
            rooms += [_room_v1(tree, group) for group in _groups("sys/fs/cgroup/memory", path)]
    return [room for room in rooms if room is not None]


def _groups(mount: str, path: str) -> list[str]:
    """The folders of a control group and of all above it.

    Inside a container the path may be that of the host, or climb out of the mount with `..`: then
    the mount itself is the group, and folders that do not exist give no limit.
    """
    parts = [] if ".." in PurePosixPath(path).parts else path.strip("/").split("/")
    return ["/".join([mount, *parts[:n]]) for n in range(len(parts) + 1) if n == 0 or parts[n - 1]]


def _room_v2(tree: Tree, group: str) -> tuple[str, int] | None:
    limits = {k: tree.integer(f"{group}/memory.{k}") for k in ("max", "high")}  # "max" is no limit
    given = {k: v for k, v in limits.items() if v is not None}
    if not given:
        return None
    name = min(given, key=lambda k: given[k])
    used = tree.integer(f"{group}/memory.current") or 0
    return f"cgroup memory.{name}", given[name] - used + _reclaimable(tree, group, "inactive_file")


def _room_v1(tree: Tree, group: str) -> tuple[str, int] | None:
    limit = tree.integer(f"{group}/memory.limit_in_bytes")
    if limit is None or limit >= UNLIMITED:
        return None
    used = tree.integer(f"{group}/memory.usage_in_bytes") or 0
    room = limit - used + _reclaimable(tree, group, "total_inactive_file")
    return "cgroup memory.limit_in_bytes", room


def _reclaimable(tree: Tree, group: str, key: str) -> int:
    """File pages nobody used lately: counted as used, but given back on demand."""
    return integer(fields(tree.text(f"{group}/memory.stat"), " ").get(key)) or 0
