"""Where the machine's power comes from, and whether it saves some.

`battery` while one discharges, `mains` while a supply is connected, None where nothing tells.
"""

from __future__ import annotations

import json
import re

from edgegauge.host.power import SUPPLIES, chargers_online, own_batteries
from edgegauge.host.tree import Tree

PROFILE = "sys/firmware/acpi/platform_profile"
SAVING = ("low-power", "quiet")


def power_source(tree: Tree) -> str | None:
    """From sysfs; cheap enough for once a second."""
    statuses = [tree.text(f"{SUPPLIES}/{name}/status") for name in own_batteries(tree)]
    if "Discharging" in statuses:
        return "battery"
    return "mains" if chargers_online(tree) else None


def power_source_by_command(tree: Tree) -> str | None:
    """The same with the commands of Termux and macOS, which take up to a second."""
    if found := power_source(tree):
        return found
    told = re.search(r"drawing from '(AC|Battery) Power'", tree.output("pmset", "-g", "batt") or "")
    if told:
        return "mains" if told[1] == "AC" else "battery"
    return _termux(tree.output("termux-battery-status"))


def _termux(said: str | None) -> str | None:
    try:
        found = json.loads(said or "")
    except (ValueError, RecursionError):
        return None
    plugged = found.get("plugged") if isinstance(found, dict) else None
    if not isinstance(plugged, str):
        return None
    return "battery" if plugged == "UNPLUGGED" else "mains"


def battery_saver(tree: Tree) -> bool | None:
    """Whether the firmware's or macOS's low-power profile is on."""
    profile = tree.text(PROFILE)
    if profile is not None:
        return profile in SAVING
    told = re.search(r"^\s*lowpowermode\s+([01])\b", tree.output("pmset", "-g") or "", re.M)
    return told[1] == "1" if told else None
