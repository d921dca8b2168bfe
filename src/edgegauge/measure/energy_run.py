"""The energy run: one child, its blocks, all meters recorded meanwhile, and what they add up to.

    outcome = measure_energy(worker.job(...), find_meters(machine), EnergyOptions(), machine)
    outcome.energies[0].decode_j_per_token

The child loads the model and then idles, works P D D P and idles again (`blocks`). How long each
phase lasts follows from the sources: as long as `joules.required_s` says for the power seen while
idle, which the load exceeds, so that more quanta are seen than required; at most `MOST_S`.

`--meter file` is no kind of meter and must be left out of `find_meters`: it says that a meter
outside records the run. The run then makes load edges at both ends by which the recording can be
aligned, and `outcome.energies` holds an entry of meter `recording` with windows without joules;
`edgegauge energy RESULT FILE` fills them from `outcome.facts`.

Whatever happens to the child or a meter is part of the outcome; only InputError is raised.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from statistics import fmean
from typing import Annotated, Any

from pydantic import Field, TypeAdapter, ValidationError

from edgegauge.energy import Energy, MeterFacts, PhaseName, Window
from edgegauge.errors import EdgeGaugeError, InputError, MeasurementError
from edgegauge.measure import child
from edgegauge.measure.blocks import GRACE_S, LEAD_S, Block, in_order, run_blocks, told
from edgegauge.measure.child import Conversation, Message
from edgegauge.measure.clock_checks import ClockOffsets, clock_findings, clock_offsets
from edgegauge.measure.failures import STARTING, MemoryKills, failure_of
from edgegauge.measure.joules import energy_of, required_s
from edgegauge.measure.machine import Machine
from edgegauge.measure.meters import Flag, Found
from edgegauge.measure.recorder import Recorded, Recorder
from edgegauge.result import Failure
from edgegauge.units import format_seconds

MODULE = "edgegauge.measure.block_worker"
"""What the child runs; tests put a stand-in here."""
RECORDED = "file"
"""What `--meter` says for a recording that will be given later."""
RECORDED_S = 60.0
"""Seconds of a phase for a source that nothing is known of yet."""
RECORDING = "recording"
"""The meter of an energy that a recording is to fill, and its id."""
NOT_YET = "record with an external meter, then: edgegauge energy RESULT FILE"
EDGE_S = 2.0
"""A load edge: so many seconds of work, and as many of rest before and after."""
EDGES = 2
"""At each end of the run."""
MOST_S = 1800.0
"""The longest phase that is run unasked. A battery gauge that steps by 36 J needs 4 minutes at 15 W
and an hour at 1 W; a source that needs more than this gives no figure and says so."""
MOST_IDLE_S = 600.0
LOAD_LIMIT_S = 3600.0
"""Real seconds for loading and one round, where the caller set no limit."""
MOST_AGAIN = 0.01
"""Share of a window spent on restoring the context that is not worth saying."""

_ROUND = TypeAdapter(Annotated[float, Field(ge=0, le=1e9)])
_EDGES = TypeAdapter(list[tuple[int, int]])

Progress = Callable[[float, str], None]
"""Called with the share done (0..1) and what is being done."""
Between = Callable[[Conversation, float], None]
"""Work between the first idle block and the others; gets the real seconds of a round."""


@dataclass(frozen=True, slots=True, kw_only=True)
class EnergyOptions:
    """What the user asked for."""

    meters: tuple[str, ...] = ()
    """As given to `--meter`: names of kinds, `NAME:ADDRESS`, or `file`."""
    seconds: float | None = None
    """Of each phase; None: what the sources need."""
    idle_s: float = 60.0
    """The least length of each idle window."""

    @property
    def recorded(self) -> bool:
        """Whether a recording by an external meter will be given later."""
        return RECORDED in self.meters

    @property
    def live(self) -> tuple[str, ...]:
        """The meters for `find_meters`."""
        return tuple(name for name in self.meters if name != RECORDED)


@dataclass(slots=True, kw_only=True)
class EnergyOutcome:
    """What an energy run found."""

    energies: list[Energy] = field(default_factory=list)
    """One entry per source, the best first; a lost one with the reason."""
    reason: str | None = None
    """Why there is no energy, where there is none; as `Summary.energy_reason`."""
    failures: list[Failure] = field(default_factory=list)
    """At most one: how the child failed. Its `run` is 0, to be set by the caller."""
    flags: list[Flag] = field(default_factory=list)
    """What happened to the clocks; those that spoil are in the energies already."""
    facts: dict[str, Any] = field(default_factory=dict)
    """`monotonic_to_unix_s`, `wall_clock_step_s`, and for a recording `edges`: [start_s, end_s] of
    each burst."""


def measure_energy(
    job: Message,
    found: Found,
    options: EnergyOptions,
    machine: Machine,
    *,
    phases: Sequence[PhaseName] = ("prefill", "decode"),
    progress: Progress = lambda done, note: None,
    timeout_s: float | None = None,
    between: Between | None = None,
) -> EnergyOutcome:
    """Run the artifact of a job of `worker` or `graph_worker` between meter readings.

    `timeout_s`: real seconds for loading the artifact and one round. Nothing is run where there is
    neither a meter nor a recording (nor work `between`). Raises InputError for a bad artifact.
    """
    outcome = EnergyOutcome()
    if not found.meters and not options.recorded:
        outcome.reason = found.why_none()
        if between is None:
            return outcome
    before = clock_offsets()
    with Recorder(found.meters, machine.clock) as recorder:
        run = _Run(options, machine, recorder, phases, progress)
        try:
            with child.converse(MODULE, job, timeout_s=timeout_s or LOAD_LIMIT_S) as conversation:
                run.all(conversation, timeout_s or LOAD_LIMIT_S, between)
        except InputError:
            raise
        except EdgeGaugeError as error:
            outcome.failures.append(run.failed(error))
    _fill(outcome, run, recorder.recorded, before)
    return outcome


class _Run:
    """One child under the meters; keeps what was finished when the rest fails."""

    def __init__(
        self,
        options: EnergyOptions,
        machine: Machine,
        recorder: Recorder,
        phases: Sequence[PhaseName],
        progress: Progress,
    ) -> None:
        self.options, self.phases = options, phases
        self.windows: list[Window] = []
        self.edges: list[list[float]] = []
        self.flags: list[Flag] = []
        self._machine, self._recorder, self._progress = machine, recorder, progress
        self._kills = MemoryKills(machine.tree)
        self._doing = STARTING
        self._round_s = 0.0
        self._done_s = self._total_s = 0.0

    def all(self, conversation: Conversation, limit_s: float, between: Between | None) -> None:
        """Everything, in order, while a meter lives."""
        self._doing = "load"
        self._round_s = _round_s(told(conversation.hear(timeout_s=limit_s), "ready"))
        idle_s = self._idle_s()
        self._expect([Block("idle_before", idle_s), *self._plan(), Block("idle_after", idle_s)])
        self._make_edges(conversation)
        self._run(conversation, [Block("idle_before", idle_s)])
        if between:
            self._doing = "sustained"
            between(conversation, self._round_s)
        plan = [*self._plan(), Block("idle_after", idle_s)]
        self._expect(plan)
        self._run(conversation, plan)
        self._make_edges(conversation)

    def failed(self, error: EdgeGaugeError) -> Failure:
        """The failure, with what was being done."""
        return failure_of(error, self._kills, run=0, phase=self._doing)

    def _run(self, conversation: Conversation, plan: list[Block]) -> None:
        blocks = run_blocks(
            conversation,
            [block for block in plan if self._useful()],
            self._machine,
            self._recorder,
            round_s=self._round_s,
            before=self._tell,
        )
        for done in blocks:
            self.windows.append(done.window)
            self._done_s += done.window.seconds + LEAD_S
            if done.again_share > MOST_AGAIN:
                self.flags.append(Flag(_again(done.window.phase, done.again_share)))
            if not self._useful():
                return

    def _useful(self) -> bool:
        """Whether anything still records: a meter that is not lost, or one outside."""
        return self.options.recorded or any(r.lost is None for r in self._recorder.recorded)

    def _tell(self, block: Block) -> None:
        self._doing = block.phase
        left = format_seconds(max(0.0, self._total_s - self._done_s))
        name = block.phase.replace("_", " ")
        note = f"energy: {name} for {format_seconds(block.seconds)}, {left} left in all"
        self._progress(min(1.0, self._done_s / self._total_s), note)

    def _expect(self, plan: list[Block]) -> None:
        self._total_s = self._done_s + sum(block.all_s for block in plan)

    def _idle_s(self) -> float:
        if self.options.seconds is not None:
            return self.options.idle_s
        needed = [required_s(r.facts, None) for r in self._recorder.recorded]
        return max(self.options.idle_s, min(MOST_IDLE_S, max(needed, default=0.0)))

    def _plan(self) -> list[Block]:
        """The blocks of the phases, two of each, for what is known of the sources by now."""
        seconds = self.options.seconds
        if seconds is None:
            needed = [RECORDED_S] if self.options.recorded else []
            live = [r for r in self._recorder.recorded if r.lost is None]
            since_s = self.windows[0].start_s if self.windows else self._machine.clock.now_s()
            needed += [required_s(r.facts, _least_power_w(r, since_s)) for r in live]
            seconds = min(MOST_S, max(needed, default=0.0))
        return in_order({phase: seconds / 2 for phase in self.phases})

    def _make_edges(self, conversation: Conversation) -> None:
        """Work and rest that a recording shows, at times that are known here."""
        if not self.options.recorded:
            return
        self._doing = "edges"
        clock = self._machine.clock
        edge_s = clock.real_s(EDGE_S)
        load = "decode" if "decode" in self.phases else self.phases[-1]
        answer = conversation.ask(
            {"do": "burst", "load": load, "seconds": edge_s, "times": EDGES},
            timeout_s=2 * ((2 * EDGES + 1) * edge_s + 3 * self._round_s) + GRACE_S,
        )
        self.edges += [[clock.at(ns) for ns in edge] for edge in _edges(told(answer, "edges"))]


def _round_s(ready: Any) -> float:
    """What one round takes, as the child tells it."""
    try:
        return _ROUND.validate_python(ready["round_s"])
    except (ValidationError, LookupError, TypeError):
        raise MeasurementError(f"the child's answer makes no sense: {str(ready)[:200]}") from None


def _edges(edges: Any) -> list[tuple[int, int]]:
    """Beginning and end of each burst in monotonic nanoseconds, as the child tells them."""
    try:
        return _EDGES.validate_python(edges)
    except ValidationError:
        raise MeasurementError(f"the child's edges make no sense: {str(edges)[:200]}") from None


def _again(phase: str, share: float) -> str:
    text = f"{100 * share:.0f} % of a {phase} window went into restoring the context, which this"
    return f"{text} model cannot rewind: joules per token of {phase} are too high by about as much"


def _least_power_w(recorded: Recorded, since_s: float) -> float | None:
    """Watts since then; of a counter that hardly moved, those of its smallest step."""
    readings = [reading for reading in recorded.readings if reading.t_s >= since_s]
    if len(readings) < 2:
        return None
    if not recorded.facts.counter:
        return fmean(reading.value for reading in readings)
    first, last = readings[0], readings[-1]
    step_j = recorded.facts.quantum or 0.0
    return max(last.value - first.value - step_j, step_j) / (last.t_s - first.t_s)


def _fill(
    outcome: EnergyOutcome, run: _Run, recorded: Sequence[Recorded], before: ClockOffsets
) -> None:
    """Turn what was recorded into energies, and say why there are none."""
    after = clock_offsets()
    clocks = list(clock_findings(before, after))
    outcome.flags = [*clocks, *run.flags]
    outcome.facts = {
        "monotonic_to_unix_s": before.unix_s,
        "wall_clock_step_s": after.unix_s - before.unix_s,
    }
    if run.windows:
        # A step of the wall clock is nothing to a meter that is read by the monotonic one.
        flags = [*run.flags, *(flag for flag in clocks if flag.spoils)]
        outcome.energies = [
            energy_of(replace(r, flags=[*r.flags, *flags]), run.windows) for r in recorded
        ]
    if run.options.recorded:
        outcome.facts["edges"] = run.edges
        outcome.energies.append(_to_be_read(run.windows, [*clocks, *run.flags]))
    if not any(e.decode_j_per_token or e.j_per_inference for e in outcome.energies):
        outcome.reason = _reason(outcome, recorded)


def _reason(outcome: EnergyOutcome, recorded: Sequence[Recorded]) -> str | None:
    """Why no energy has the figure that a summary wants."""
    said = [f"the energy run failed: {f.reason}" for f in outcome.failures]
    lost = {r.facts.id: f"the meter was lost: {r.lost}" for r in recorded if r.lost}
    known = {e.source.id: e.reason for e in outcome.energies if e.reason}
    said += [f"{source}: {reason}" for source, reason in (known | lost).items()]
    return "; ".join(said) or outcome.reason


def _to_be_read(windows: list[Window], flags: list[Flag]) -> Energy:
    """The entry that a recording will fill."""
    source = MeterFacts(
        meter=RECORDING,
        id=RECORDING,
        read_from="a file that is still to come",
        unit="unknown",
        counter=False,
        update_period_s=1.0,
        calibration_share=0.0,
        calibration="unknown",
        grade="D",
        whole_device=False,
        covers=[],
        excludes=[],
    )
    said = [w.model_copy(update={"reason": NOT_YET}) for w in windows]
    return Energy(source=source, windows=said, flags=[f.text for f in flags], reason=NOT_YET)
