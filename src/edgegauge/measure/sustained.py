"""The sustained run: one child that decodes until its rate is steady, with the machine watched.

    outcome = measure_sustained(worker.job(...), Machine())
    outcome.sustained.plateau_tok_per_s

Whole rounds follow each other without a pause; `steadiness` says after each batch whether that is
enough. With meters, an energy run is made around it: idle before, then the rounds, then the blocks
of prefill and decode on the machine as hot as it got, then idle after.

What happens to the child is part of the outcome; only InputError is raised. Rates come from the
child's own stamps, times from the machine's clock.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from statistics import fmean
from typing import Any

from pydantic import TypeAdapter, ValidationError

from edgegauge.energy import Energy
from edgegauge.errors import MeasurementError
from edgegauge.measure import heat
from edgegauge.measure.blocks import GRACE_S, told
from edgegauge.measure.child import Conversation, Message
from edgegauge.measure.energy_run import EnergyOptions, EnergyOutcome, Progress, measure_energy
from edgegauge.measure.finding import State, difference, known
from edgegauge.measure.machine import NANO, Machine
from edgegauge.measure.meters import Found
from edgegauge.measure.monitor import Monitor
from edgegauge.measure.steadiness import (
    Rate,
    SustainedOptions,
    is_steady,
    last_window,
    slope_percent_per_min,
    summary,
)
from edgegauge.result import Failure, Round, Sustained
from edgegauge.units import format_seconds

__all__ = ["SustainedOptions", "SustainedOutcome", "measure_sustained"]

BATCH_S = 10.0
"""Rounds are asked for in batches of so many seconds: a decision, and a word of progress, each."""

MOST_GAPS = 200_000
"""Gaps between tokens that a result keeps: a small model makes thousands a second, for an hour."""

SIGNS = ("throttle_count", "cooling", "pi_throttled")
"""What a state may say of throttling; the clock alone also falls when there is less to do."""

_ROUNDS = TypeAdapter(list[Round])


@dataclass(slots=True, kw_only=True)
class SustainedOutcome:
    """What a sustained run found."""

    rounds: list[Round] = field(default_factory=list)
    """All of them, or every n-th of very many."""
    rounds_seen: int = 0
    """How many there were; the rates that decide are those of all."""
    sustained: Sustained | None = None
    """None where not one round was finished."""
    states: list[State] = field(default_factory=list)
    """Of a `Monitor`, once a second during the rounds."""
    overhead: dict[str, float] = field(default_factory=dict)
    """Of the same `Monitor`."""
    failures: list[Failure] = field(default_factory=list)
    energy: EnergyOutcome = field(default_factory=EnergyOutcome)
    """Its failures are these failures."""

    @property
    def energies(self) -> list[Energy]:
        """One entry per source."""
        return self.energy.energies


def measure_sustained(
    job: Message,
    machine: Machine,
    *,
    options: SustainedOptions | None = None,
    energy: EnergyOptions | None = None,
    found: Found | None = None,
    source: str = "edgegauge",
    progress: Progress = lambda done, note: None,
    timeout_s: float | None = None,
) -> SustainedOutcome:
    """Run a job of `worker` until its rate is steady, or for `options.most_s`.

    `source` names the runtime in the figures; `timeout_s` (real seconds) limits loading. A child
    that fails half-way leaves its rounds, and a rate without a plateau. Raises InputError.
    """
    options = options or SustainedOptions()
    run = _Run(machine, options, job["workload"]["parallel"], progress)
    outcome = SustainedOutcome()
    outcome.energy = measure_energy(
        job,
        found or Found([], []),
        energy or EnergyOptions(),
        machine,
        progress=progress,
        timeout_s=timeout_s,
        between=run.until_steady,
    )
    outcome.failures = outcome.energy.failures
    outcome.rounds, outcome.rounds_seen = run.rounds, len(run.rates)
    outcome.states, outcome.overhead = run.states, run.overhead
    if run.rates:
        outcome.sustained = summary(
            run.rates,
            options,
            source,
            throttled_at_s=throttled_at_s(run.states),
            throttled=throttled(run.states),
            peak_temperature_c=max(known(run.states, "temperature_c"), default=None),
        )
    return outcome


class _Run:
    """Rounds until they are steady; keeps what was done when the child fails."""

    def __init__(
        self, machine: Machine, options: SustainedOptions, parallel: int, progress: Progress
    ) -> None:
        self.rounds: list[Round] = []
        self.rates: list[Rate] = []
        self._every = 1
        self.states: list[State] = []
        self.overhead: dict[str, float] = {}
        self._clock, self._tree = machine.clock, machine.tree
        self._options, self._parallel, self._progress = options, parallel, progress

    def until_steady(self, conversation: Conversation, round_s: float) -> None:
        """Ask for one batch of rounds after the other."""
        monitor = Monitor(self._tree, self._clock)
        batch_s = self._clock.real_s(BATCH_S)
        try:
            with monitor:
                while not self._is_over():
                    self._tell()
                    answer = conversation.ask(
                        {"do": "rounds", "seconds": batch_s},
                        timeout_s=2 * (batch_s + 3 * round_s) + GRACE_S,
                    )
                    self._add(told(answer, "rounds"))
        finally:
            self.states, self.overhead = monitor.states, monitor.overhead

    def _add(self, rounds: Any) -> None:
        for timed in checked_rounds(rounds):
            start_s, decode_s = timed.start_s or 0.0, math.fsum(timed.inter_token_s)
            middle_s = self._clock.at(round((start_s + timed.ttft_s + decode_s / 2) * NANO))
            moved = timed.model_copy(update={"start_s": self._clock.at(round(start_s * NANO))})
            if len(self.rates) % self._every == 0:
                self.rounds.append(moved)
            begun_s = self.rounds[0].start_s or 0.0
            tokens = self._parallel * len(timed.inter_token_s)
            self.rates.append(Rate(middle_s - begun_s, tokens / decode_s))

        while len(self.rounds) > 1 and sum(len(r.inter_token_s) for r in self.rounds) > MOST_GAPS:
            self.rounds, self._every = self.rounds[::2], 2 * self._every

    def _is_over(self) -> bool:
        elapsed_s = self.rates[-1].t_s if self.rates else 0.0
        return elapsed_s >= self._options.most_s or is_steady(self.rates, self._options)

    def _tell(self) -> None:
        if not self.rates:
            self._progress(0.0, "sustained: the first rounds")
            return
        last = last_window(self.rates, self._options.window_s)
        slope, elapsed_s = slope_percent_per_min(last), self.rates[-1].t_s
        text = f"sustained: {fmean(rate.tok_per_s for rate in last):.3g} tok/s"
        if slope is not None:
            text += f", {slope:+.1f} % per minute"
        text += f" after {format_seconds(elapsed_s)} (at least {format_seconds(self._least_s)})"
        self._progress(min(1.0, elapsed_s / self._least_s), text)

    @property
    def _least_s(self) -> float:
        return min(self._options.least_s, self._options.most_s)


def checked_rounds(rounds: Any) -> list[Round]:
    """The rounds as the child tells them; MeasurementError where they make no sense."""
    try:
        found = _ROUNDS.validate_python(rounds)
    except ValidationError as error:
        raise MeasurementError(f"the child's rounds make no sense: {error}") from None
    if not all(math.fsum(timed.inter_token_s) > 0 for timed in found):
        raise MeasurementError("the child's rounds make no sense: tokens that took no time")
    return found


def throttled(states: Sequence[State]) -> bool | None:
    """Whether the machine slowed itself down; None where it does not tell."""
    if not any(known(states, key) for key in SIGNS):
        return None
    return throttled_at_s(states) is not None


def throttled_at_s(states: Sequence[State]) -> float | None:
    """When it first did, in seconds from the first state; None if it did not, or does not tell."""
    for state in states:
        if _is_throttled(states[0], state):
            return float(state["t_s"])
    return None


def _is_throttled(first: State, now: State) -> bool:
    bits, before = now.get("pi_throttled") or 0, first.get("pi_throttled") or 0
    return bool(
        bits & heat.PI_NOW
        or bits & heat.PI_SINCE_BOOT & ~before
        or (now.get("cooling") or 0) > (first.get("cooling") or 0)
        or difference(first, now, "throttle_count") > 0
    )
