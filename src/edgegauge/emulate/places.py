"""Where a control group with a memory limit could be made, read from a machine's files.

    for place in places(Tree()):
        place.memory, place.cpuset              # folders below the root, without leading slash

Whether this user may is known only by trying (`group.usable_place`), so these are candidates, the
nearest first. Version 2 wants a folder whose `cgroup.subtree_control` hands the memory controller
on; a process's own folder hands nothing on while processes are in it, so they would have to move
into a leaf first (`crowded`), which only the owner of a delegated folder may do. Version 1 knows no
such rule.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import Literal

from edgegauge.host.tree import Tree

MOUNT = "sys/fs/cgroup"
DELEGATE = "systemd-run --user --scope -p Delegate=yes edgegauge measure ..."
"""What gives a user without root a folder of their own (systemd, version 2)."""


@dataclass(frozen=True, slots=True)
class Place:
    """A folder in which a group may be made."""

    version: Literal["cgroup v2", "cgroup v1"]
    memory: str
    cpuset: str | None
    """None: cores are given by affinity alone. In version 2 the same folder."""
    crowded: bool = False
    """Its processes must move into a leaf before it can hand the controllers on."""


def places(tree: Tree) -> list[Place]:
    """The candidates, the best first; none on a system without control groups."""
    own = _own_groups(tree)
    if "memory" in own:
        memory = _below(tree, f"{MOUNT}/memory", own["memory"])
        cpuset = _below(tree, f"{MOUNT}/cpuset", own["cpuset"]) if "cpuset" in own else None
        return [Place("cgroup v1", memory, cpuset)] if tree.exists(memory) else []
    if "" not in own or not tree.exists(f"{MOUNT}/cgroup.controllers"):
        return []
    nearest = _below(tree, MOUNT, own[""])
    found = [
        _v2(folder, handed)
        for folder in _upwards(nearest)
        if "memory" in (handed := _words(tree, f"{folder}/cgroup.subtree_control"))
    ]
    offered = _words(tree, f"{nearest}/cgroup.controllers")
    if "memory" in offered and (not found or found[0].memory != nearest):
        found.append(_v2(nearest, offered, crowded=True))
    return found


def _v2(folder: str, controllers: list[str], *, crowded: bool = False) -> Place:
    cpuset = folder if "cpuset" in controllers else None
    return Place("cgroup v2", folder, cpuset, crowded)


def _own_groups(tree: Tree) -> dict[str, str]:
    """Controller: the path of this process's group; version 2 has the controller ""."""
    found: dict[str, str] = {}
    for line in (tree.text("proc/self/cgroup") or "").splitlines():
        _, _, rest = line.partition(":")
        controllers, _, path = rest.partition(":")
        found |= dict.fromkeys(controllers.split(","), path)
    return found


def _below(tree: Tree, mount: str, path: str) -> str:
    """The folder of a group; in a container whose mount does not show it, the mount itself."""
    folder = f"{mount}/{path.strip('/')}".rstrip("/")
    return folder if ".." not in PurePosixPath(path).parts and tree.exists(folder) else mount


def _upwards(folder: str) -> list[str]:
    """The folder and those above it, up to the mount."""
    parts = PurePosixPath(folder).relative_to(MOUNT).parts
    return ["/".join([MOUNT, *parts[:n]]) for n in range(len(parts), -1, -1)]


def _words(tree: Tree, path: str) -> list[str]:
    return (tree.text(path) or "").split()
