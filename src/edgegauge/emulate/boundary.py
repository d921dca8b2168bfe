"""The memory at which an artifact stops fitting, and at which it dies, by bisection.

    boundary = find_boundary(emulator, workload)
    boundary.fits_bytes.value               # the smallest limit in which it fits

Each trial is one short run under one limit. From a guess (the prediction, where there is one) the
limit grows or shrinks by STEP until it encloses the change, which is then halved until it is known
within TOLERANCE. A trial that takes three times as long as one that fits is stopped; if it had
re-read the model by then, it thrashes.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

from edgegauge.emulate.emulator import LEAST_LIMIT_BYTES, Emulator
from edgegauge.emulate.expect import expected
from edgegauge.emulate.places import DELEGATE
from edgegauge.emulation import Boundary
from edgegauge.errors import InputError, MeasurementError
from edgegauge.figure import Figure
from edgegauge.host.memory import linux_memory
from edgegauge.measure import worker
from edgegauge.measure.child import Message
from edgegauge.measure.runtimes import runtime_for
from edgegauge.measure.turn import turn
from edgegauge.memory import Outcome
from edgegauge.result import Workload

STEP = 1.12
TOLERANCE = 1.01
"""Ratio of the two limits between which the verdict changes."""
ROOM = 1.25
"""Of the first trial, which is to show how long a run takes that fits."""
FIRST_TIMEOUT_S = 300.0
LONGER, AT_LEAST_S = 3.0, 15.0
"""How long a trial may take, by the first one that fitted."""

Say = Callable[[str], None]


@turn()
def find_boundary(
    emulator: Emulator,
    workload: Workload,
    *,
    prompt_text: str | None = None,
    say: Say = lambda note: None,
) -> Boundary:
    """Search for both limits of this workload; `say` is told of every trial.

    Raises InputError without a control group, and MeasurementError where a run fails for another
    reason than memory.
    """
    if emulator.place is None:
        text = "the memory in which an artifact fits can be searched for in a control group only"
        raise InputError(text, hint=DELEGATE)
    short = workload.model_copy(update={"runs": 1, "repetitions": 1})
    artifact = emulator.artifact
    runtime = runtime_for(artifact.file_format)
    job = worker.job(runtime, artifact.path.absolute(), short.model_dump(), prompt_text)
    told = expected(artifact, workload, emulator.profile, emulator.features)
    needed = told.needed_bytes.value if told else float(artifact.bytes)
    least = told.anonymous_bytes.value if told else needed
    search = _Search(emulator, job, say)
    search.outcome(needed * ROOM)
    return Boundary(
        fits_bytes=search.smallest({"fits"}, needed),
        survives_bytes=search.smallest({"fits", "thrashes"}, least),
        trials=len(search.seen),
    )


@dataclass
class _Search:
    emulator: Emulator
    job: Message
    say: Say
    seen: dict[int, Outcome] = field(default_factory=dict)
    timeout_s: float = FIRST_TIMEOUT_S

    def smallest(self, wanted: set[Outcome], guess: float) -> Figure | None:
        """The smallest limit with a wanted outcome; None where this host has not as much."""
        high = min((b for b, found in self.seen.items() if found in wanted), default=guess)
        memory = linux_memory(self.emulator.tree)
        while self.outcome(high) not in wanted:
            if memory and high > memory.app_bytes:
                return None
            high *= STEP
        below = [b for b, found in self.seen.items() if found not in wanted and b < high]
        low = max(below, default=min(guess, high) / STEP)
        while self.outcome(low) in wanted:
            high, low = low, low / STEP
        while high > low * TOLERANCE:
            middle = (low * high) ** 0.5
            low, high = (low, middle) if self.outcome(middle) in wanted else (middle, high)
        source = f"{self.emulator.place.version if self.emulator.place else ''}, bisection"
        return Figure(round(high), "bytes", "emulated", source, round(low), round(high))

    def outcome(self, limit: float) -> Outcome:
        """How a run ends under this limit, in bytes; each limit is tried once."""
        asked = round(limit)
        if asked in self.seen:
            return self.seen[asked]
        if asked <= (self.emulator.libraries_bytes or 0) + LEAST_LIMIT_BYTES:
            raise MeasurementError("there is no limit in which it does not fit")
        run = self.emulator.observe(self.job, len(self.seen), asked, timeout_s=self.timeout_s)
        found, reason = self.emulator.verdict([run], asked)
        if found is None:
            raise MeasurementError(f"a trial under {asked} bytes tells nothing: {reason}")
        if found == "fits" and self.timeout_s == FIRST_TIMEOUT_S:
            self.timeout_s = max(LONGER * run.seconds, AT_LEAST_S)
        self.say(f"{asked / 1e6:.0f} MB: {found}")
        self.seen[asked] = found
        return found
