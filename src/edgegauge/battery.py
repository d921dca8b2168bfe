"""Battery: joules per token and watts as charge, tokens and hours.

    available_j(14.0 * 3600, health=0.9, usable=0.93)
    continuous_h(50_000, power_w=7.0)              # 1.98
    tokens_per_charge(50_000, 0.7)                 # 71,428

Hours of decoding without pause depend on the speed as much as on the energy: a model that is faster
at the same joules per token empties the battery sooner. The headline is therefore tokens per charge
and the charge that a stated usage adds per hour; hours stand beside the rate they belong to.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from edgegauge.device import Battery
from edgegauge.figure import Figure
from edgegauge.units import JOULES_PER_WH


@dataclass(frozen=True, slots=True)
class Usage:
    """How much is generated: by default twenty answers of 150 tokens in an hour."""

    tokens_per_hour: float = 3000.0


def available_j(capacity_j: float, *, health: float = 1.0, usable: float = 1.0) -> float:
    """Joules that one charge delivers: rated capacity, what age has left, what cut-off allows."""
    return capacity_j * health * usable


def continuous_h(energy_j: float, power_w: float) -> float:
    """Hours at a constant power."""
    return energy_j / power_w / 3600


def tokens_per_charge(energy_j: float, j_per_token: float) -> float:
    """Tokens generated from one charge, if the charge were spent on nothing else."""
    return energy_j / j_per_token


def drain_percent_per_hour(energy_j: float, j_per_token: float, usage: Usage) -> float:
    """Percent of a charge that this usage takes per hour."""
    return 100 * usage.tokens_per_hour * j_per_token / energy_j


def battery_figures(
    battery: Battery,
    energy_j_per_token: Figure,
    power_w: Figure,
    *,
    idle_w: float = 0.0,
    usage: Usage | None = None,
) -> dict[str, Figure]:
    """Hours, tokens per charge and added drain per hour of a device while it decodes.

    `power_w` is the device's power while it decodes and `idle_w` what it would draw anyway, which
    the added drain leaves out. Intervals follow from those of the arguments.
    """
    usage = usage or Usage()
    wh = battery.capacity_wh
    energy = available_j(
        wh.value * JOULES_PER_WH, health=battery.health, usable=battery.usable
    )  # fmt: skip
    charge = f"{wh.value:g} Wh x {battery.health:g} health x {battery.usable:g} usable"
    added = max(0.0, 1 - idle_w / power_w.value)
    hours = Figure(
        continuous_h(energy, power_w.value), "h", energy_j_per_token.kind,
        f"{charge} / {power_w.source}",
        continuous_h(energy, power_w.most), continuous_h(energy, power_w.least),
    )  # fmt: skip
    per_token = energy_j_per_token
    tokens = replace(
        hours, value=tokens_per_charge(energy, per_token.value), unit="1",
        source=f"{charge} / {per_token.source}",
        low=tokens_per_charge(energy, per_token.most),
        high=tokens_per_charge(energy, per_token.least),
    )  # fmt: skip
    drain = replace(
        tokens, value=added * drain_percent_per_hour(energy, per_token.value, usage), unit="%",
        source=f"{usage.tokens_per_hour:g} tokens an hour, power above idle; {per_token.source}",
        low=added * drain_percent_per_hour(energy, per_token.least, usage),
        high=added * drain_percent_per_hour(energy, per_token.most, usage),
    )  # fmt: skip
    return {
        "continuous_h": hours,
        "tokens_per_charge": tokens,
        "added_drain_percent_per_hour": drain,
    }
