"""NVIDIA Jetson: the power of the module or the board, from its INA3221 and INA238 monitors.

Which rail is the total, and which lies within another:

    VIN                    Thor's board input (INA238)               alone: the whole board
    VDD_IN                 module input of Orin Nano/NX, Xavier NX   alone: GPU and CPU are within
    POM_5V_IN              module input of Nano, TX1, TX2            alone
    none of these          AGX Orin, AGX Xavier: a known set of rails is added up, all or nothing

`VIN_SYS_5V0` is only what the 5 V side takes, so it is a term of the sum and never the total; the
memory's `VDDQ_VDD2_1V8AO` is fed from it and not added again. USB-C supplies (`ucsi_*`) tell what
was negotiated, which nobody measured. Rails and sums: NVIDIA Jetson Linux Developer Guide,
"Software-Based Power Consumption Modeling"; rbonghi/jetson_stats issues 51 and 344, pull request
900.

JetPack 5 and 6 tell mV and mA under hwmon, JetPack 4 mW under iio.
"""

from __future__ import annotations

from dataclasses import dataclass

from edgegauge.energy import MeterFacts
from edgegauge.host.tree import Tree
from edgegauge.measure.machine import Machine
from edgegauge.measure.meters import Meter, MeterUnusable
from edgegauge.measure.meters.rails import (
    CALIBRATION_SHARE,
    CHANNELS,
    TRIPLE,
    Rail,
    RailMeter,
    calibration_text,
    chips,
    rails_of,
    unreadable,
    update_s,
)

COMPATIBLE = "proc/device-tree/compatible"
HWMON_BY_DRIVER = "sys/bus/i2c/drivers/ina3221"
IIO = "sys/bus/i2c/drivers/ina3221x"

MODULE_INPUTS = ("VDD_IN", "POM_5V_IN")
BOARD_INPUT = "VIN"
SUMS = (
    ("VDD_GPU_SOC", "VDD_CPU_CV", "VIN_SYS_5V0"),  # AGX Orin
    ("GPU", "CPU", "SOC", "CV", "VDDRQ", "SYS5V"),  # AGX Xavier
    ("VDD_GPU", "VDD_CPU_SOC_MSS", "VIN_SYS_5V0"),  # Thor, where VIN is not there
)
"""Rails that make up a module together, without one that is fed by another."""


@dataclass(frozen=True, slots=True)
class Total:
    """The rails whose sum is the total, and what that is the total of."""

    rails: list[Rail]
    whole_device: bool
    covers: str
    excludes: list[str]


class JetsonKind:
    """Finds the total of a Jetson."""

    name = "jetson"

    def find(self, machine: Machine, address: str | None) -> list[Meter]:
        """The one meter of the module or board. It takes no address."""
        if address is not None:
            raise MeterUnusable(f"it takes no address, got {address!r}")
        tree = machine.tree
        if not is_jetson(tree):
            raise MeterUnusable("this is not an NVIDIA Jetson")
        rails = _hwmon_rails(tree) or _iio_rails(tree)
        if not rails:
            raise _no_rails(tree)
        total = total_of(rails)
        if unread := [rail for rail in total.rails if rail.watts(tree) is None]:
            raise unreadable(tree, unread)
        return [RailMeter(machine, total.rails, _facts(tree, total))]


def is_jetson(tree: Tree) -> bool:
    """Whether the device tree names NVIDIA as the maker of board and chip."""
    names = (tree.text(COMPATIBLE) or "").split("\0")
    return any(name.startswith("nvidia,") for name in names)


def total_of(rails: list[Rail]) -> Total:
    """The rails that add up to module or board; MeterUnusable where that is not known."""
    by_label = {rail.label: rail for rail in rails}
    board = by_label.get(BOARD_INPUT)
    if board and board.chip != TRIPLE:
        return Total([board], True, "the board at its input (VIN)", ["power adapter"])
    for label in MODULE_INPUTS:
        if label in by_label:
            return Total([by_label[label]], False, f"the module at its input ({label})", OUTSIDE)
    for labels in SUMS:
        if all(label in by_label for label in labels):
            covers = f"the module's rails {' + '.join(labels)}"
            excludes = [*OUTSIDE, "converters before the rails"]
            return Total([by_label[label] for label in labels], False, covers, excludes)
    raise MeterUnusable(
        f"which of the rails {', '.join(sorted(by_label))} make up the total is not known"
    )


OUTSIDE = ["carrier board: fan, storage, USB, network", "power adapter"]


def _hwmon_rails(tree: Tree) -> list[Rail]:
    found = chips(tree)
    if not found:  # the same folders by way of the driver, where a container hides the class
        found = [
            (f"{HWMON_BY_DRIVER}/{device}/hwmon/{n}", TRIPLE)
            for device in tree.names(HWMON_BY_DRIVER)
            for n in tree.names(f"{HWMON_BY_DRIVER}/{device}/hwmon")
        ]
    return [rail for at, chip in found for rail in rails_of(tree, at, chip)]


def _iio_rails(tree: Tree) -> list[Rail]:
    """JetPack 4: three rails in each `iio:device`."""
    rails = []
    for device in tree.names(IIO):
        for part in tree.names(f"{IIO}/{device}"):
            at = f"{IIO}/{device}/{part}"
            for channel in range(len(CHANNELS)) if part.startswith("iio:device") else ():
                label = tree.text(f"{at}/rail_name_{channel}")
                power = f"{at}/in_power{channel}_input"
                if label and tree.exists(power):
                    rails.append(Rail(label[:60], "ina3221x", power=power, power_unit_w=1e-3))
    return [rail for rail in rails if rail.connected()]


def _no_rails(tree: Tree) -> MeterUnusable:
    for folder in (HWMON_BY_DRIVER, IIO):
        if tree.refused(folder):
            return MeterUnusable(f"this user may not list /{folder}", f"sudo chmod a+rx /{folder}")
    return MeterUnusable(
        "no INA3221 or INA238 power monitor is visible; in a container, mount /sys"
    )


def _facts(tree: Tree, total: Total) -> MeterFacts:
    quanta = [rail.quantum_w(tree) for rail in total.rails]
    known = [q for q in quanta if q is not None]
    return MeterFacts(
        meter="jetson",
        id="jetson:" + "+".join(rail.label for rail in total.rails),
        read_from=", ".join(f"/{path}" for rail in total.rails for path in rail.paths),
        unit=_unit(total.rails[0]),
        counter=False,
        update_period_s=update_s(total.rails),
        quantum=sum(known) if known and len(known) == len(quanta) else None,
        calibration_share=CALIBRATION_SHARE,
        calibration=calibration_text(total.rails),
        grade="C",
        whole_device=total.whole_device,
        covers=[total.covers],
        excludes=total.excludes,
    )


def _unit(rail: Rail) -> str:
    if rail.power is None:
        return "mV x mA"
    return "mW" if rail.chip == "ina3221x" else "µW"
