"""What this machine is called and what sort of device it is.

Boards say it in the device tree, PCs in the DMI tables, Android in its properties, Macs in sysctl.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Literal

from edgegauge.device import DeviceKind
from edgegauge.host.tree import Tree, fields

OperatingSystem = Literal["linux", "android", "macos"]

DMI = "sys/class/dmi/id"

CHASSIS: dict[str, DeviceKind] = {
    **dict.fromkeys(("8", "9", "10", "14"), "laptop"),
    **dict.fromkeys(("31", "32"), "laptop"),  # convertible, detachable
    **dict.fromkeys(("3", "4", "5", "6", "7", "13"), "desktop"),
    **dict.fromkeys(("35", "36"), "mini-pc"),
    **dict.fromkeys(("17", "23", "28", "29"), "server"),
    "30": "tablet",
    "11": "phone",
}
"""Chassis types of the SMBIOS specification (DSP0134), those that are a kind of ours."""

PLACEHOLDERS = re.compile(
    r"to be filled|system (product|version|manufacturer)|default string|not (specified|applicable)"
    r"|o\.?e\.?m\.?$|^(none|invalid|x+|0+|-+)$",
    re.IGNORECASE,
)
"""What board makers leave in the DMI tables."""

HYPERVISORS = re.compile(r"qemu|kvm|vmware|virtualbox|innotek|xen|bochs|parallels|amazon ec2", re.I)


@dataclass(frozen=True, slots=True, kw_only=True)
class Identity:
    """Name, kind and system; `virtual` for a virtual machine, `container` inside one."""

    name: str | None
    kind: DeviceKind
    os: OperatingSystem
    kernel: str | None
    virtual: bool = False
    container: bool = False


def identity(tree: Tree) -> Identity:
    """The machine behind the tree."""
    kernel = tree.text("proc/sys/kernel/osrelease")
    if tree.exists("system/bin/getprop") or tree.exists("system/build.prop"):
        return Identity(name=_android_name(tree), kind="phone", os="android", kernel=kernel)
    container = _in_container(tree)
    board = tree.text("proc/device-tree/model")
    if board:
        return Identity(
            name=board, kind=_board_kind(board), os="linux", kernel=kernel, container=container
        )
    name, kind, virtual = _pc(tree)
    return Identity(
        name=name, kind=kind, os="linux", kernel=kernel, virtual=virtual, container=container
    )


def mac_identity(tree: Tree, sysctl: dict[str, str]) -> Identity:
    """A Mac: its model code (`Mac14,2`) is all it tells of its name, its battery of its kind."""
    model = sysctl.get("hw.model")
    portable = "InternalBattery" in (tree.output("pmset", "-g", "batt") or "")
    return Identity(
        name=f"Apple {model}" if model else None,
        kind="laptop" if portable else "desktop",
        os="macos",
        kernel=sysctl.get("kern.osrelease"),
    )


def _board_kind(board: str) -> DeviceKind:
    return "module" if re.search(r"jetson|compute module", board, re.I) else "sbc"


def _android_name(tree: Tree) -> str | None:
    """Maker and model from `getprop` (`[key]: [value]`) or build.prop (`key=value`)."""
    listed = re.findall(r"^\[([^]]+)\]: \[([^]]*)\]", tree.output("getprop") or "", re.M)
    properties = dict(listed) or fields(tree.text("system/build.prop"), "=")
    maker = properties.get("ro.product.manufacturer", "")
    model = properties.get("ro.product.model", "")
    if not model:
        return None
    return model if model.lower().startswith(maker.lower()) else f"{maker.title()} {model}"


def _pc(tree: Tree) -> tuple[str | None, DeviceKind, bool]:
    vendor, product, version = (
        _dmi(tree, k) for k in ("sys_vendor", "product_name", "product_version")
    )
    flags = fields(tree.text("proc/cpuinfo")).get("flags", "").split()
    virtual = "hypervisor" in flags or bool(HYPERVISORS.search(f"{vendor} {product}"))
    kind = CHASSIS.get(tree.text(f"{DMI}/chassis_type") or "", "server" if virtual else "desktop")
    if (vendor or "").upper() == "LENOVO" and version:
        product = version  # Lenovo keeps the name people know in the version
    name = " ".join(w for w in (vendor, product) if w)
    if vendor and product and product.lower().startswith(vendor.lower()):
        name = product
    return (None if virtual else name or None), ("server" if virtual else kind), virtual


def _dmi(tree: Tree, key: str) -> str | None:
    text = " ".join((tree.text(f"{DMI}/{key}") or "").split())
    return None if not text or PLACEHOLDERS.search(text) else text


def _in_container(tree: Tree) -> bool:
    groups = tree.text("proc/1/cgroup") or tree.text("proc/self/cgroup") or ""
    return (
        tree.exists(".dockerenv")
        or tree.exists("run/.containerenv")
        or bool(re.search(r"docker|kubepods|containerd|libpod|lxc", groups))
    )
