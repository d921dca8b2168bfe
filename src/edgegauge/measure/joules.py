"""Joules: what the readings of one meter add up to, window by window and per token. Pure.

    energy = energy_of(recorded, windows)    # the windows filled in, and the figures they give

The windows of one phase (the run has two blocks of each) are added up: their joules over their
tokens or seconds. Uncertainties are standard (k=1) until they become the interval of a figure,
which is the value ± 2 of them. The terms, for the total energy of a phase:

    calibration  the scale of the source, stated by its meter
    quantum      the smallest step of the source at both ends of each window
    alignment    not knowing to which moment a reading belongs, where the load changes
    sampling     what happened between readings: scatter over the effective number of readings
    repeat       s / sqrt(n) of the energy per token of the n blocks
    baseline     of the net energy alone: seconds x u(idle power)

Net is total less idle power times seconds: u2(net) = u2(total) + seconds2 u2(idle). The scale may
be off differently at idle and under load, so its error is not assumed to cancel. The idle power
is the mean of before and after, each with the model loaded, and half their difference is part of
its uncertainty. A figure with too little behind it is None and `reason` or `flags` say why.
Formulas and examples: docs/explanation/energy.md.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean, stdev

from edgegauge.energy import Energy, MeterFacts, PhaseName, Window
from edgegauge.figure import Figure, Unit
from edgegauge.measure.integrate import Amount, Series, Unmeasured, amount
from edgegauge.measure.meters import Reading
from edgegauge.measure.recorder import Recorded

LEAST_S = 60.0
"""The shortest measurement of power that MLPerf Power accepts (arXiv:2410.12032)."""
LEAST_UPDATES = 100
"""Of the source within a phase: an edge that is off by one update is then off by 1 %."""
LEAST_QUANTA = 100
LEAST_PERCENT_S = 600.0
LEAST_PERCENT_QUANTA = 10
"""For a source of grade D, whose steps are timed from edge to edge instead of counted in bulk."""
SLACK = 0.9
"""Share of the required length that is enough: the power it follows from was not known before."""
MOST_STORED = 20_000
"""Readings that a result keeps, enough to draw; the joules come from all."""
COVERAGE = 2.0
"""k: the intervals of figures are twice the standard uncertainty, about 95 %."""
IDLE: tuple[PhaseName, ...] = ("idle_before", "idle_after")
LOADS: tuple[PhaseName, ...] = ("prefill", "decode", "inference")


def required_s(facts: MeterFacts, power_w: float | None) -> float:
    """Seconds that the windows of one phase must last together at that power (W).

    At least a minute, 100 updates of the source and 100 of its quanta. A source of grade D (battery
    percent) needs ten minutes and ten of its steps. None of the quanta without a power.
    """
    crude = facts.grade == "D"
    least = LEAST_PERCENT_S if crude else LEAST_S
    if not crude:
        least = max(least, LEAST_UPDATES * facts.update_period_s)
    if facts.counter and facts.quantum and power_w and power_w > 0:
        quanta = LEAST_PERCENT_QUANTA if crude else LEAST_QUANTA
        least = max(least, quanta * facts.quantum / power_w)
    return least


def energy_of(recorded: Recorded, windows: Sequence[Window]) -> Energy:
    """The windows with their joules, or the reason why not, and the figures that follow."""
    facts = recorded.facts
    measured = _measure(recorded, windows)
    phases = {phase: [m for m in measured if m.window.phase == phase] for phase in (*IDLE, *LOADS)}
    rates = {phase: _rate(facts, found, "seconds") for phase, found in phases.items()}
    idle = _baseline([rate for phase in IDLE if (rate := rates[phase]) is not None])
    totals = {phase: _rate(facts, phases[phase], "tokens") for phase in LOADS}
    nets = {phase: _net(totals[phase], idle) for phase in LOADS}
    source = f"{facts.id}: {', '.join(facts.covers)}"

    def figure(rate: _Rate | None, unit: Unit) -> Figure | None:
        return None if rate is None else rate.figure(unit, source)

    headline: PhaseName = "decode" if phases["decode"] or not phases["inference"] else "inference"
    return Energy(
        source=facts,
        windows=[m.filled() for m in measured],
        idle_before_w=figure(rates["idle_before"], "W"),
        idle_after_w=figure(rates["idle_after"], "W"),
        prefill_w=figure(rates["prefill"], "W"),
        decode_w=figure(rates["decode"], "W"),
        inference_w=figure(rates["inference"], "W"),
        prefill_j_per_token=figure(totals["prefill"], "J/token"),
        decode_j_per_token=figure(totals["decode"], "J/token"),
        net_prefill_j_per_token=figure(nets["prefill"], "J/token"),
        net_decode_j_per_token=figure(nets["decode"], "J/token"),
        j_per_inference=figure(totals["inference"], "J/inference"),
        net_j_per_inference=figure(nets["inference"], "J/inference"),
        terms=_terms(totals[headline], nets[headline]),
        flags=[*(flag.text for flag in recorded.flags), *_missing(recorded, phases)],
        reason=None if totals[headline] else _why_none(recorded, phases[headline]),
        readings_seen=len(recorded.readings),
        readings=_some(recorded.readings),
    )


@dataclass(slots=True)
class _Measured:
    """A window and its joules, or the reason why it has none."""

    window: Window
    amount: Amount | None = None
    reason: str | None = None

    def filled(self) -> Window:
        if self.amount is None:
            return self.window.model_copy(update={"reason": self.reason})
        found = {
            "joules": self.amount.joules,
            "uncertainty_j": self.amount.uncertainty_j,
            "samples": self.amount.samples,
            "longest_gap_s": self.amount.longest_gap_s,
        }
        return self.window.model_copy(update=found)


@dataclass(frozen=True, slots=True)
class _Rate:
    """Joules per token or per second of one phase, with the terms of its uncertainty (k=1)."""

    value: float
    terms: Mapping[str, float]
    seconds_each: float = 1.0
    """Seconds per token, or 1."""

    @property
    def uncertainty(self) -> float:
        return math.hypot(*self.terms.values())

    def figure(self, unit: Unit, source: str) -> Figure:
        low, high = (self.value + k * self.uncertainty for k in (-COVERAGE, COVERAGE))
        return Figure(self.value, unit, "measured", source, low=low, high=high)


def _measure(recorded: Recorded, windows: Sequence[Window]) -> list[_Measured]:
    series = Series(recorded.facts, recorded.readings)
    spoilt = next((flag.text for flag in recorded.flags if flag.spoils), None)
    measured = [_Measured(window, reason=spoilt) for window in windows]
    if spoilt is not None:
        return measured
    last_s = series.times[-1] if series.times else -math.inf
    for found in measured:
        start_s, end_s = found.window.start_s, found.window.end_s
        try:
            found.amount = amount(series, start_s, end_s)
        except Unmeasured as error:
            gone = recorded.lost is not None and last_s < end_s
            found.reason = f"the meter was lost: {recorded.lost}" if gone else str(error)
    for phase in (*IDLE, *LOADS):
        _refuse_short(series, [m for m in measured if m.window.phase == phase])
    return measured


def _refuse_short(series: Series, windows: Sequence[_Measured]) -> None:
    """Withdraw the windows of a phase that are, all together, too short for their source."""
    if not windows:
        return
    seconds = math.fsum(m.window.seconds for m in windows)
    need_s = _need_s(series.facts, windows)
    if need_s is None:  # none has joules: the power of the whole run has to do
        need_s = required_s(series.facts, series.mean_power_w)
    if seconds >= SLACK * need_s:
        return
    short = f"{seconds:.3g} s are too short for this source: it needs {math.ceil(need_s)} s"
    for m in windows:
        m.reason = short if m.reason is None else f"{m.reason}; {short}"
        m.amount = None


def _need_s(facts: MeterFacts, windows: Sequence[_Measured]) -> float | None:
    """Seconds that this phase needs, by what the readings showed where that is worse than stated.

    Idle windows need the minute: how little they say is part of the net energy's uncertainty.
    """
    known = [(m.window, m.amount) for m in windows if m.amount is not None]
    if not known:
        return None
    if known[0][0].phase in IDLE:
        return LEAST_S
    worst = {
        "update_period_s": max(facts.update_period_s, *(a.period_s for _, a in known)),
        "quantum": max(facts.quantum or 0.0, *(a.quantum for _, a in known)),
    }
    power_w = math.fsum(a.joules for _, a in known) / math.fsum(w.seconds for w, _ in known)
    return required_s(facts.model_copy(update=worst), power_w)


def _rate(facts: MeterFacts, windows: Sequence[_Measured], per: str) -> _Rate | None:
    """Joules per token or per second over the windows that have joules; None if too little has."""
    valid = [(m.window, m.amount) for m in windows if m.amount is not None]
    need_s = _need_s(facts, windows)
    seconds = math.fsum(w.seconds for w, _ in valid)
    if need_s is None or seconds < SLACK * need_s:
        return None
    counts = [float(w.tokens) if per == "tokens" else w.seconds for w, _ in valid]
    if min(counts) <= 0:
        return None
    count, amounts = math.fsum(counts), [a for _, a in valid]
    value = math.fsum(a.joules for a in amounts) / count
    each = [a.joules / n for a, n in zip(amounts, counts, strict=True)]
    quanta = [a.quantum_j for a in amounts]
    terms = {
        "calibration": facts.calibration_share * abs(value),
        # The rounding of a power reading is the same error in every window of the same load.
        "quantum": (math.hypot(*quanta) if facts.counter else math.fsum(quanta)) / count,
        "alignment": math.hypot(*(a.alignment_j for a in amounts)) / count,
        "sampling": math.hypot(*(a.sampling_j for a in amounts)) / count,
        "repeat": stdev(each) / math.sqrt(len(each)) if len(each) > 1 else 0.0,
    }
    return _Rate(value, terms, seconds / count)


def _baseline(known: Sequence[_Rate]) -> _Rate | None:
    """Idle power, W: the mean of before and after; their difference is part of its uncertainty."""
    if not known:
        return None
    values = [rate.value for rate in known]
    terms = {
        "calibration": fmean(rate.terms["calibration"] for rate in known),
        "reading": math.hypot(*(_uncalibrated(rate) for rate in known)) / len(known),
        "difference": (max(values) - min(values)) / 2,
    }
    return _Rate(fmean(values), terms)


def _uncalibrated(rate: _Rate) -> float:
    return math.hypot(*(u for name, u in rate.terms.items() if name != "calibration"))


def _net(total: _Rate | None, idle: _Rate | None) -> _Rate | None:
    if total is None or idle is None:
        return None
    baseline = {"baseline": total.seconds_each * idle.uncertainty}
    value = total.value - total.seconds_each * idle.value
    return _Rate(value, {**total.terms, **baseline}, total.seconds_each)


def _terms(total: _Rate | None, net: _Rate | None) -> dict[str, float]:
    """The terms as shares of the total energy."""
    if total is None or total.value <= 0:
        return {}
    return {name: u / total.value for name, u in (net or total).terms.items()}


def _some(readings: Sequence[Reading]) -> list[tuple[float, float]]:
    """Every n-th reading, and the last: what a result file keeps of very many."""
    step = math.ceil(len(readings) / MOST_STORED) or 1
    kept = [*readings[:-1:step], *readings[-1:]]
    return [(round(r.t_s, 4), r.value) for r in kept]


def _why_none(recorded: Recorded, windows: Sequence[_Measured]) -> str:
    """Why a phase has no figure: the reasons of its windows."""
    if not windows and recorded.lost is not None:
        return f"the meter was lost: {recorded.lost}"
    if not windows:
        return "nothing ran while the meter was read"
    reasons = list(dict.fromkeys(m.reason for m in windows if m.reason))
    return "; ".join(reasons) or "no tokens were counted"


def _missing(recorded: Recorded, phases: Mapping[PhaseName, Sequence[_Measured]]) -> Iterator[str]:
    """What a reader must know of a run that is not whole."""
    if recorded.lost is not None:
        yield f"the meter was lost: {recorded.lost}"
    for phase, windows in phases.items():
        gone = [m.reason for m in windows if m.amount is None]
        if gone:
            name = phase.replace("_", " ")
            yield f"{name}: {len(gone)} of {len(windows)} windows without joules: {gone[0]}"
    idle = [m for phase in IDLE for m in phases[phase]]
    if not any(m.amount for m in idle):
        yield "no idle power was measured, so there is no net energy"
    elif not all(any(m.amount for m in phases[phase]) for phase in IDLE):
        yield "idle power was measured at one end of the run only"
