"""The battery and the chargers in /sys/class/power_supply: rated energy, health, who is online.

Laptops report energy (µWh) or charge (µAh); Android phones charge. Charge becomes energy with the
design voltage, or with 3.85 V, the nominal voltage of current phone cells, where none is given.
"""

from __future__ import annotations

from dataclasses import dataclass

from edgegauge.host.tree import Tree

SUPPLIES = "sys/class/power_supply"
CHARGERS = ("Mains", "USB", "Wireless")
"""Types of supplies (sysfs-class-power of the Linux kernel); of USB older kernels name variants."""
NOMINAL_CELL_V = 3.85
"""Background knowledge; published Wh / mAh of phones gives 3.83 to 3.88 V."""
LEAST_WH, MOST_WH = 0.5, 10_000
"""A battery outside of this is a gauge that was never set up."""
LEAST_HEALTH, MOST_HEALTH = 0.05, 1.2
"""As for health: gauges of new batteries may report a little more than the design capacity."""


@dataclass(frozen=True, slots=True, kw_only=True)
class BatteryFacts:
    """All batteries of the machine together: Wh when new, and the share of it that is left."""

    capacity_wh: float
    health: float | None
    source: str


def battery(tree: Tree) -> BatteryFacts | None:
    """The machine's battery; None where it has none or hides it (Android does from apps)."""
    found = [
        facts
        for name in own_batteries(tree)
        if (facts := _battery(tree, f"{SUPPLIES}/{name}", name)) is not None
    ]
    if not found:
        return None
    design = sum(f.capacity_wh for f in found)
    known = all(f.health is not None for f in found)
    now = sum(f.capacity_wh * (f.health or 0) for f in found)
    return BatteryFacts(
        capacity_wh=design,
        health=now / design if known else None,
        source="; ".join(f.source for f in found),
    )


def own_batteries(tree: Tree) -> list[str]:
    """Names of the machine's own batteries that are in place, not of its mouse or keyboard."""
    return [
        name
        for name in tree.names(SUPPLIES)
        if tree.text(f"{SUPPLIES}/{name}/type") == "Battery"
        and tree.text(f"{SUPPLIES}/{name}/scope") != "Device"
        and tree.text(f"{SUPPLIES}/{name}/present") != "0"
    ]


def chargers_online(tree: Tree) -> list[str]:
    """Names of supplies other than batteries that say they deliver power."""
    return [
        name
        for name in tree.names(SUPPLIES)
        if (tree.text(f"{SUPPLIES}/{name}/type") or "").startswith(CHARGERS)
        and tree.text(f"{SUPPLIES}/{name}/scope") != "Device"
        and tree.integer(f"{SUPPLIES}/{name}/online")
    ]


def _battery(tree: Tree, at: str, name: str) -> BatteryFacts | None:
    for quantity in ("energy", "charge"):
        design = tree.integer(f"{at}/{quantity}_full_design")
        if not design or design < 0:
            continue
        full = tree.integer(f"{at}/{quantity}_full")
        wh, how = design / 1e6, f"{quantity}_full_design of {name}"
        if quantity == "charge":
            volts = (tree.integer(f"{at}/voltage_min_design") or 0) / 1e6
            wh *= volts if volts > 0 else NOMINAL_CELL_V
            how += " x voltage_min_design" if volts > 0 else " x 3.85 V (assumed)"
        if not LEAST_WH <= wh <= MOST_WH:
            continue
        health = (full or 0) / design
        known = LEAST_HEALTH <= health <= MOST_HEALTH
        return BatteryFacts(capacity_wh=wh, health=health if known else None, source=how)
    return None
