"""Energy and battery of a result: the energy run that follows the timed ones, and one charge.

    metering = Metering(EnergyOptions(), machine, timeout_s)
    result = metering.add(result, job, progress)
    result = with_battery(result, battery_here(machine.tree), usage.load())

Energy comes from a run of its own, because a meter needs minutes where a timed round takes a
second. Whatever goes wrong there leaves the timed figures as they are: the energy is then None,
the reason is in the summary, and a warning says so.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from edgegauge.battery import battery_of
from edgegauge.device import Battery, Sourced
from edgegauge.energy import MeterFacts, PhaseName, best_of
from edgegauge.host.power import battery as battery_facts
from edgegauge.host.tree import Tree
from edgegauge.measure.child import Message
from edgegauge.measure.energy_run import EnergyOptions, EnergyOutcome, measure_energy
from edgegauge.measure.failures import described
from edgegauge.measure.machine import Machine
from edgegauge.measure.meters import Found, find_meters
from edgegauge.result import FailedResult, Result
from edgegauge.usage import Usage

Progress = Callable[[float, str], None]


@dataclass(slots=True)
class Metering:
    """The meters of a machine, for the energy runs of one or more results.

    Raises InputError at once for a meter of unknown name or address. Meters are open during energy
    runs alone: what one costs (a process, a request each second) is no part of a timed run.
    """

    options: EnergyOptions | None
    machine: Machine
    timeout_s: float | None

    def __post_init__(self) -> None:
        self._find().close()

    def _find(self) -> Found:
        if self.options is None or (self.options.recorded and not self.options.live):
            return Found([], [])
        return find_meters(self.machine, self.options.live)

    def add(
        self, result: Result | FailedResult, job: Message, progress: Progress
    ) -> Result | FailedResult:
        """The result with what an energy run of its job found; the same where none was asked for.

        Raises InputError where the child refuses the job.
        """
        if isinstance(result, FailedResult):
            return result
        outcome = self.measure(job, progress, ("prefill", "decode"))
        return result if outcome is None else with_energy(result, outcome)

    def measure(
        self, job: Message, progress: Progress, phases: Sequence[PhaseName]
    ) -> EnergyOutcome | None:
        """What an energy run of these phases finds; None where no energy was asked for."""
        options, found = self.ready()
        if options is None:
            return None
        return measure_energy(
            job, found, options, self.machine,
            phases=phases, progress=progress, timeout_s=self.timeout_s,
        )  # fmt: skip

    def ready(self) -> tuple[EnergyOptions | None, Found]:
        """What was asked for and meters for one run, which closes them; none if energy was not."""
        return self.options, self._find()


def with_energy(result: Result, outcome: EnergyOutcome, *, told: bool = True) -> Result:
    """The result with what an energy run found; `told` False where its failures are known of."""
    best = best_of(outcome.energies, lambda e: e.decode_j_per_token)
    figure = best.decode_j_per_token if best else None
    reason = outcome.reason or (best.reason if best else None)
    failed = outcome.failures if told else []
    warnings = notes_of(result.artifact.name, outcome, told=told)
    failures = [f.model_copy(update={"run": len(result.samples)}) for f in failed]
    summary = result.summary.model_copy(
        update={
            "energy_j_per_token": figure,
            "energy_reason": None if figure else reason or "the meter gave no figure",
        }
    )
    return result.model_copy(
        update={
            "host": {**result.host, **({"energy_run": outcome.facts} if outcome.facts else {})},
            "energy": outcome.energies,
            "summary": summary,
            "failures": [*result.failures, *failures],
            "warnings": list(dict.fromkeys([*result.warnings, *warnings])),
        }
    )


def notes_of(name: str, outcome: EnergyOutcome, *, told: bool = True) -> list[str]:
    """What a reader of the energies of this artifact should know, a line each."""
    notes = [f"energy: {described(name, f)}" for f in outcome.failures if told]
    notes += [flag.text for flag in outcome.flags]
    for energy in outcome.energies:
        notes += [f"{energy.source.id}: {flag}" for flag in energy.flags]
        if energy.reason:
            notes.append(f"{energy.source.id}: {energy.reason}")
    return notes


def battery_here(tree: Tree, capacity_wh: float | None = None) -> Battery | None:
    """This machine's battery, or one of that many Wh as the user states; None where unknown."""
    if capacity_wh is not None:
        return Battery(capacity_wh=Sourced(value=capacity_wh, source="given with --battery-wh"))
    facts = battery_facts(tree)
    if facts is None:
        return None
    capacity = Sourced(value=facts.capacity_wh, source=facts.source)
    if facts.health is None:
        return Battery(capacity_wh=capacity)
    return Battery(capacity_wh=capacity, health=facts.health)


def with_battery(result: Result, battery: Battery | None, usage: Usage) -> Result:
    """The result with what its energy means for one charge; the same where either is unknown.

    The source is the best one that covers the whole device; without any, the reason is told.
    """
    summary = result.summary
    rate = summary.decode_tok_per_s
    whole = [e for e in result.energy if e.source.whole_device]
    energy = best_of(whole or result.energy, lambda e: e.decode_j_per_token)
    if rate is None or energy is None:
        return result
    if battery is None:
        told = _unknown(result, energy.source)
        return result.model_copy(update={"warnings": [*result.warnings, *told]})
    outcome = battery_of(
        energy,
        battery=battery,
        usage=usage,
        decode_tok_per_s=rate,
        prefill_tok_per_s=summary.prefill_tok_per_s,
    )
    told = [f"battery: {outcome.reason}"] if outcome.reason else []
    return result.model_copy(
        update={
            "summary": summary.model_copy(update={"battery": outcome.figures}),
            "warnings": [*result.warnings, *told],
        }
    )


def _unknown(result: Result, facts: MeterFacts) -> list[str]:
    """What a machine that runs on a battery of unknown capacity should be told."""
    on_battery = (result.host.get("before") or {}).get("power_source") == "battery"
    if not on_battery or not facts.whole_device:
        return []
    return ["battery: its capacity is not known here; give it with --battery-wh"]
