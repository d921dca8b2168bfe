"""What emulation can enforce on this machine, for `edgegauge doctor`."""

from __future__ import annotations

from edgegauge.emulate.group import usable_place
from edgegauge.emulate.places import DELEGATE, MOUNT
from edgegauge.host.tree import Tree
from edgegauge.measure.checks import Check

NAME = "emulation"


def emulation_check(tree: Tree) -> Check:
    """Which limits of another device can be imposed here."""
    place, refusals = usable_place(tree)
    if place is not None:
        cores = "cpuset" if place.cpuset else "affinity"
        return Check(NAME, "ok", f"memory by {place.version}, cores by {cores}, no swap")
    found = "memory of the process alone: pages of files are not limited, thrashing is not seen"
    if refusals:
        found += f" ({'; '.join(refusals)})"
    if tree.exists(f"{MOUNT}/cgroup.controllers"):
        return Check(NAME, "unsure", found, DELEGATE)
    mend = "sudo edgegauge measure ..." if tree.exists(f"{MOUNT}/memory") else None
    return Check(NAME, "unsure", found, mend)
