"""Battery: joules per token and watts as tokens, conversations, drain and hours of one charge.

    outcome = battery_of(energy, battery=battery, usage=usage, decode_tok_per_s=rate,
                         prefill_tok_per_s=prompt_rate)
    outcome.figures["tokens_per_charge"]

    charge              J    3600 x capacity x health x usable share
    tokens_per_charge        charge / decode energy per token
    conversations_per_charge charge / energy of a conversation of the stated usage:
                             turns x (prompt tokens x prefill + generated tokens x decode energy per
                             token + reading time x waiting power)
    added_drain_percent_per_hour   what the usage takes beyond waiting: 100 x conversations an hour
                             x turns x (prompt tokens x net prefill + generated tokens x net decode
                             energy per token) / charge
    continuous_h             charge / power while decoding

Idle is counted once. Total energy per token contains the idle power of its own time, so waiting
power is charged for the reading time only; net energy contains none, and the added drain asks for
nothing else. Hours of decoding without pause depend on the speed as much as on the energy: a model
that is faster at the same joules per token empties the battery sooner. They are no score, and stand
beside the rate they belong to (`decode_tok_per_s`). The headline is tokens and conversations per
charge and the added drain.

Intervals: the inputs of a figure are moved together to both ends of their own intervals. That is
first-order propagation with full correlation, which is right for energies and powers of one meter:
its calibration, the largest term of most of them, moves them all. Intervals of k=2 so give
intervals of k=2. Where an energy may be nothing at all, a quotient by it has no upper end. The
battery's capacity comes without an interval and adds none.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from edgegauge.device import Battery
from edgegauge.figure import Figure, Kind, Unit
from edgegauge.units import JOULES_PER_WH
from edgegauge.usage import Usage

if TYPE_CHECKING:
    from edgegauge.energy import Energy, MeterFacts

BATTERY_FIGURES = {
    "battery_h": "continuous_h",
    "tokens_per_charge": "tokens_per_charge",
    "conversations_per_charge": "conversations_per_charge",
    "added_drain_percent_per_hour": "added_drain_percent_per_hour",
}
"""Figures of a candidate (`choose.Candidate`), and their names in what `battery_figures` gives."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Costs:
    """What decoding and reading prompts cost on a device; `None` is not known.

    J/token of prompt (`prefill_j`) and answer (`decode_j`), as total energy and `net` of idle; the
    power while decoding and while waiting in W; rates in tok/s.
    """

    decode_j: Figure
    decode_tok_per_s: Figure
    decode_w: Figure | None = None
    prefill_j: Figure | None = None
    prefill_tok_per_s: Figure | None = None
    net_decode_j: Figure | None = None
    net_prefill_j: Figure | None = None
    waiting_w: Figure | None = None


@dataclass(frozen=True, slots=True)
class BatteryOutcome:
    """Battery figures for a usage; `figures` None, and why. A figure that lacks an input is left
    out, and `reason` names the input."""

    figures: dict[str, Figure] | None
    reason: str | None
    usage: Usage


def available_j(battery: Battery) -> float:
    """Joules that one charge delivers: rated capacity, what age has left, what cut-off allows."""
    return battery.capacity_wh.value * JOULES_PER_WH * battery.health * battery.usable


def battery_of(
    energy: Energy,
    *,
    battery: Battery,
    usage: Usage,
    decode_tok_per_s: Figure,
    prefill_tok_per_s: Figure | None,
) -> BatteryOutcome:
    """Battery figures from energy that was measured on the device this battery is in.

    A source that does not cover the whole device gives none: the battery also feeds the rest.
    """
    facts = energy.source
    reason = _unusable(energy)
    if reason or energy.decode_j_per_token is None:
        return BatteryOutcome(None, reason, usage)
    costs = Costs(
        decode_j=energy.decode_j_per_token,
        decode_w=_positive(energy.decode_w),
        decode_tok_per_s=decode_tok_per_s,
        prefill_j=_positive(energy.prefill_j_per_token),
        prefill_tok_per_s=prefill_tok_per_s,
        net_decode_j=energy.net_decode_j_per_token,
        net_prefill_j=energy.net_prefill_j_per_token,
        waiting_w=_idle(energy),
    )
    figures = battery_figures(battery, costs, usage, meter=_named(facts))
    return BatteryOutcome(figures, _left_out(costs, usage), usage)


def battery_figures(
    battery: Battery, costs: Costs, usage: Usage, *, meter: str = ""
) -> dict[str, Figure]:
    """The figures of the docstring above; one whose inputs are not known is left out.

    `meter` says where the energies come from; without it, each figure's own source does. Where the
    waiting power is not known, conversations count generation alone, and the source says so.
    """
    told = f"; {meter}" if meter else f"; {costs.decode_j.source}"
    charge = _Charge(battery, costs.decode_j.kind, told)
    waiting = _waiting(costs, usage)
    found: dict[str, Figure] = {}
    if costs.decode_w is not None:
        speed = f"{costs.decode_tok_per_s.value:.3g} tok/s"
        found["continuous_h"] = charge.figure(
            lambda j, w: _times(j, w) / 3600, [costs.decode_w], "h",
            f"decoding without pause at {speed}",
        )  # fmt: skip
        found["decode_tok_per_s"] = costs.decode_tok_per_s
    found["tokens_per_charge"] = charge.figure(
        _times, [costs.decode_j], "1", "spent on decoding alone"
    )
    if costs.prefill_j is not None:
        energies = [costs.prefill_j, costs.decode_j, *([waiting] if waiting else [])]
        found["conversations_per_charge"] = charge.figure(
            lambda j, *x: _times(j, _conversation_j(usage, *x)), energies, "1",
            usage.sentence() if waiting else
            f"{usage.sentence()}; reading time left out, its power is not known",
        )  # fmt: skip
    if costs.net_prefill_j is not None and costs.net_decode_j is not None:
        rate, slow = _conversations_per_hour(costs, usage)
        found["added_drain_percent_per_hour"] = charge.figure(
            lambda j, *x: 100 * rate * _conversation_j(usage, *x) / j,
            [costs.net_prefill_j, costs.net_decode_j], "%", f"{usage.sentence()}{slow}",
        )  # fmt: skip
    return found


@dataclass(frozen=True, slots=True)
class _Charge:
    """One charge of a battery, and what every figure of it has in common."""

    battery: Battery
    kind: Kind
    told: str

    def figure(
        self, formula: Callable[..., float], inputs: Sequence[Figure], unit: Unit, what: str
    ) -> Figure:
        """A figure from the joules of the charge and the inputs."""
        joules, battery = available_j(self.battery), self.battery
        ends = [
            _or_none(formula, joules, values)
            for values in ([f.least for f in inputs], [f.most for f in inputs])
        ]
        known = [end for end in ends if end is not None]
        charge = (
            f"{battery.capacity_wh.value:g} Wh ({battery.capacity_wh.source}) "
            f"x {battery.health:.3g} health x {battery.usable:g} usable"
        )
        return Figure(
            formula(joules, *(f.value for f in inputs)), unit, self.kind,
            f"{what}; {charge}{self.told}",
            min(known, default=None), max(known) if len(known) == len(ends) else None,
        )  # fmt: skip


def _or_none(formula: Callable[..., float], joules: float, values: list[float]) -> float | None:
    """The formula at one end; None where that end has none."""
    try:
        return formula(joules, *values)
    except ZeroDivisionError:
        return None


def _times(joules: float, cost_j: float) -> float:
    """How often a charge pays for something; ZeroDivisionError where it may cost nothing."""
    if cost_j <= 0:
        raise ZeroDivisionError
    return joules / cost_j


def _conversation_j(
    usage: Usage, prefill_j: float, decode_j: float, waiting_w: float = 0.0
) -> float:
    """Joules of one conversation."""
    answer = usage.prompt_tokens * prefill_j + usage.generated_tokens * decode_j
    return usage.turns * (answer + usage.reading_s * waiting_w)


def _conversations_per_hour(costs: Costs, usage: Usage) -> tuple[float, str]:
    """How many the device gets done in an hour, and a remark where that is fewer than asked for."""
    turn_s = usage.generated_tokens / costs.decode_tok_per_s.value + usage.reading_s
    if costs.prefill_tok_per_s is not None:
        turn_s += usage.prompt_tokens / costs.prefill_tok_per_s.value
    possible = 3600 / (usage.turns * turn_s)
    if possible >= usage.per_hour:
        return usage.per_hour, ""
    return possible, f"; only {possible:.3g} an hour are possible at this speed"


def _waiting(costs: Costs, usage: Usage) -> Figure | None:
    """Power between the turns: the user's own, else idle with the model loaded."""
    if usage.waiting_w is not None:
        return Figure(usage.waiting_w, "W", "stated", f"usage {usage.name}")
    return costs.waiting_w


def _unusable(energy: Energy) -> str | None:
    """Why no battery figure can be made of it."""
    facts = energy.source
    if not facts.whole_device:
        rest = f", not {', '.join(facts.excludes)}" if facts.excludes else ""
        return (
            f"{facts.id} measures {', '.join(facts.covers) or 'a part of the device'}{rest}: "
            "a battery feeds the whole device"
        )
    if _positive(energy.decode_j_per_token) is None:
        return energy.reason or f"{facts.id} gave no energy per generated token"
    return None


def _positive(figure: Figure | None) -> Figure | None:
    """The figure if it is above zero: noise can leave a quantity that is not."""
    return figure if figure is not None and figure.value > 0 else None


def _idle(energy: Energy) -> Figure | None:
    """Mean of idle before and after, between the extremes of both intervals."""
    known = [f for f in (energy.idle_before_w, energy.idle_after_w) if f and f.value > 0]
    if not known:
        return None
    mean = math.fsum(f.value for f in known) / len(known)
    least, most = min(f.least for f in known), max(f.most for f in known)
    return replace(known[0], value=mean, low=min(max(least, 0.0), mean), high=max(most, mean))


def _named(facts: MeterFacts) -> str:
    return f"energy from {facts.id}, grade {facts.grade}, which covers {', '.join(facts.covers)}"


def _left_out(costs: Costs, usage: Usage) -> str | None:
    """Which inputs were missing."""
    missing = []
    if costs.decode_w is None:
        missing.append("no power while decoding, so no hours")
    if costs.prefill_j is None:
        missing.append("no energy per prompt token, so no conversations")
    if costs.net_prefill_j is None or costs.net_decode_j is None:
        missing.append("no energy beyond idle, so no added drain")
    if _waiting(costs, usage) is None and costs.prefill_j is not None:
        missing.append("no idle power, so the reading time of conversations is left out")
    return "; ".join(missing) or None
