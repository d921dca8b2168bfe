"""A paired comparison: is a candidate slower than a baseline, on a machine that others use too?

    result = compare_paired(candidate, baseline, workload, slower_at_most=0.05, most_pairs=40)
    result.outcome                      # "pass", "fail" or "cannot tell"
    result.metrics[0].ratio             # candidate / baseline, with its interval

Both sides are loaded at once, in a child process each (`paired_worker`), and take turns of a
twentieth of a second: what disturbs the machine disturbs both. After a few turns the pair of
processes is replaced by another, and the verdict is taken over pairs (`paired_statistics`).
"""

from __future__ import annotations

import math
import sys
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from statistics import median
from typing import Literal

from pydantic import Field

from edgegauge.artifact import Artifact
from edgegauge.check import paired_statistics as statistics
from edgegauge.check.outcome import Outcome, worst
from edgegauge.document import Document
from edgegauge.errors import InputError, MeasurementError
from edgegauge.figure import Figure
from edgegauge.host.tree import Tree
from edgegauge.measure import page_cache, worker
from edgegauge.measure.blocks import told
from edgegauge.measure.child import Conversation, Message, converse
from edgegauge.measure.facts import digest_of
from edgegauge.measure.manager import Progress, check_memory
from edgegauge.measure.runtimes import runtime_for
from edgegauge.measure.turn import turn
from edgegauge.result import Workload

MODULE = "edgegauge.check.paired_worker"
"""What a child runs; tests put a stand-in here."""
ROUND_S = 0.05
QUADS = 4
"""Of each metric, in one pair of processes: about as long as starting these takes."""
SILENT_S = 600.0
"""A child that does not answer for so long is stopped."""

Metric = Literal["decode", "prefill"]
METRICS: tuple[Metric, ...] = ("decode", "prefill")
BASELINE, CANDIDATE = 0, 1
SIDES = ("baseline", "candidate")
METHOD = "candidate / baseline over pairs of processes, 97.5 % interval by signed ranks"


class PairedSide(Document):
    """What was compared."""

    artifact: str
    sha256: str
    runtime: str
    """With its version, as the child's environment has it."""


class PairedMetric(Document):
    """One rate of both sides."""

    name: Metric
    baseline: Figure
    candidate: Figure
    """Medians over pairs; time spent waiting for a processor is left out (`paired_worker`)."""
    ratio: Figure
    """Candidate / baseline."""
    minimum_detectable: Figure
    """How much longer a token must take, in percent, to fail in 95 % of such comparisons."""
    outcome: Outcome


class PairedResult(Document):
    """What a paired comparison found."""

    format: Literal[1] = 1
    baseline: PairedSide
    candidate: PairedSide
    workload: Workload
    slower_at_most: float = Field(gt=0, lt=1)
    """The tolerance: how much longer a token may take; 0.05 is 5 %."""
    pairs: int
    """Pairs of processes."""
    waited: Figure
    """Percent of the time in which the sides waited for a processor that others had."""
    metrics: list[PairedMetric]

    @property
    def outcome(self) -> Outcome:
        """That of the worst metric."""
        return worst(metric.outcome for metric in self.metrics)


@dataclass(frozen=True, slots=True)
class Side:
    """One side: an artifact, the job of `worker` that runs it, and the interpreter that does."""

    artifact: Artifact
    job: Message
    python: str = sys.executable


def compare_paired(
    candidate: Artifact,
    baseline: Artifact,
    workload: Workload,
    *,
    slower_at_most: float,
    most_pairs: int,
    baseline_python: str | None = None,
    progress: Progress = lambda done, note: None,
) -> PairedResult:
    """Compare the speed of two artifacts, or of one in two environments, under this workload.

    `slower_at_most` is the share by which a token may take longer; twice as much is what will be
    told from no change, if `most_pairs` pairs of processes are enough for that. `baseline_python`
    is the interpreter of an environment with this edgegauge and another runtime. Raises
    InputError for numbers out of range or an artifact that is not what its manifest says, and
    MeasurementError where one does not fit into memory or a child ends.
    """
    if not statistics.LEAST_PAIRS <= most_pairs <= statistics.MOST_PAIRS:
        raise InputError(
            f"{most_pairs} pairs of processes at most: must be "
            f"{statistics.LEAST_PAIRS} to {statistics.MOST_PAIRS}"
        )
    artifacts = (baseline, candidate)
    sides = [
        Side(baseline, job_of(baseline, workload), baseline_python or sys.executable),
        Side(candidate, job_of(candidate, workload)),
    ]
    for artifact in artifacts:
        check_memory(artifact, workload, Tree())
    digests = [digest_of(artifact) for artifact in artifacts]
    found = compare_sides(
        sides, slower_at_most=slower_at_most, most_pairs=most_pairs, progress=progress
    )
    described = {
        name: PairedSide(artifact=artifact.name, sha256=digest, runtime=runtime)
        for name, artifact, digest, runtime in zip(
            SIDES, artifacts, digests, found.runtimes, strict=True
        )
    }
    return PairedResult.model_validate(
        {
            **described, "workload": workload, "slower_at_most": slower_at_most,
            "pairs": found.pairs, "waited": found.waited,
            "metrics": [found.metric(name, slower_at_most) for name in METRICS],
        }
    )  # fmt: skip


def job_of(artifact: Artifact, workload: Workload) -> Message:
    """The job of a child that is to run this artifact."""
    runtime = runtime_for(artifact.file_format)
    return worker.job(runtime, artifact.path.absolute(), workload.model_dump(mode="json"))


@dataclass(slots=True)
class Compared:
    """What pairs of processes have said so far."""

    runtimes: list[str] = field(default_factory=lambda: ["", ""])
    quads: dict[Metric, list[list[float]]] = field(
        default_factory=lambda: {name: [] for name in METRICS}
    )
    """Slow-downs: of each metric, of each pair."""
    rates: dict[Metric, tuple[list[float], list[float]]] = field(
        default_factory=lambda: {name: ([], []) for name in METRICS}
    )
    """tok/s of every round of both sides."""
    own_s: float = 0.0
    waited_s: float = 0.0

    @property
    def pairs(self) -> int:
        """How many."""
        return len(self.quads["decode"])

    @property
    def waited(self) -> Figure:
        """Percent of all time."""
        share = self.waited_s / (self.own_s + self.waited_s)
        return Figure(100 * share, "%", "measured", "the kernel's scheduler")

    def slow_down(self, name: Metric) -> statistics.SlowDown:
        """The estimate of one metric."""
        return statistics.slow_down(self.quads[name])

    def metric(self, name: Metric, slower_at_most: float) -> PairedMetric:
        """The figures and the verdict of one metric."""
        found, tolerance = self.slow_down(name), math.log1p(slower_at_most)
        low, value, high = (math.exp(-x) for x in (found.high, found.centre, found.low))
        rates = [
            Figure(median(values), "tok/s", "measured", runtime)
            for values, runtime in zip(self.rates[name], self.runtimes, strict=True)
        ]
        least = 100 * math.expm1(statistics.minimum_detectable(found, tolerance))
        return PairedMetric(
            name=name,
            baseline=rates[BASELINE],
            candidate=rates[CANDIDATE],
            ratio=Figure(value, "1", "measured", METHOD, low, high),
            minimum_detectable=Figure(least, "%", "measured", METHOD),
            outcome=statistics.outcome_of(found, tolerance),
        )

    def decided(self, tolerance: float) -> bool:
        """Whether another pair is not needed."""
        return self.pairs >= statistics.LEAST_PAIRS and all(
            statistics.narrow_enough(self.slow_down(name), tolerance) for name in METRICS
        )


def compare_sides(
    sides: Sequence[Side],
    *,
    slower_at_most: float,
    most_pairs: int,
    progress: Progress = lambda done, note: None,
) -> Compared:
    """Run pairs of processes of (baseline, candidate) until they tell enough."""
    found = Compared()
    with turn(lambda note: progress(0.0, note)):
        while found.pairs < most_pairs and not found.decided(math.log1p(slower_at_most)):
            progress(found.pairs / most_pairs, _note(found, most_pairs))
            with _loaded(sides, found) as conversations:
                for name in METRICS:
                    found.quads[name].append(list(_quads(name, conversations, found)))
    return found


def _note(found: Compared, most_pairs: int) -> str:
    text = f"pair {found.pairs + 1} of at most {most_pairs}"
    if found.pairs < statistics.LEAST_PAIRS:
        return text
    half = max(found.slow_down(name).half for name in METRICS)
    return f"{text}, known to ±{100 * math.expm1(half):.1f} %"


@contextmanager
def _loaded(sides: Sequence[Side], found: Compared) -> Iterator[list[Conversation]]:
    """A new process of each side, loaded and warm; which one starts first alternates."""
    order = (BASELINE, CANDIDATE) if found.pairs % 2 else (CANDIDATE, BASELINE)
    page_cache.drop(path for side in sides for path in side.artifact.paths)
    started: dict[int, Conversation] = {}
    with ExitStack() as stack:
        for index in order:
            side = sides[index]
            child = converse(MODULE, side.job, timeout_s=SILENT_S, python=side.python)
            with _named(index):
                started[index] = stack.enter_context(child)
        for index in order:
            with _named(index):
                ready = told(started[index].hear(timeout_s=SILENT_S), "ready")
            found.runtimes[index] = str(ready["runtime"])
        yield [started[index] for index in (BASELINE, CANDIDATE)]


def _quads(name: Metric, conversations: Sequence[Conversation], found: Compared) -> Iterator[float]:
    """The slow-down in each quad of one metric; every other one begins with the candidate."""
    for number in range(QUADS):
        first = (found.pairs + number) % 2
        took: tuple[list[float], list[float]] = ([], [])
        for index in (first, 1 - first, 1 - first, first):
            with _named(index):
                answer = conversations[index].ask(
                    {"do": name, "seconds": ROUND_S}, timeout_s=SILENT_S
                )
                spent = told(answer, "spent")
            took[index].append(spent["seconds"] / spent["tokens"])
            found.rates[name][index].append(1 / took[index][-1])
            found.own_s += spent["seconds"]
            found.waited_s += spent["waited_s"]
        yield statistics.quad(took[BASELINE], took[CANDIDATE])


@contextmanager
def _named(index: int) -> Iterator[None]:
    """Say of an error which side it is of."""
    try:
        yield
    except MeasurementError as error:
        raise type(error)(f"the {SIDES[index]}: {error}", hint=error.hint) from None
