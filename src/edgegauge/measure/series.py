"""Child runs of several configurations, in turn, until each has enough or fails for good.

    series = [Series(workload, worker.job(...), most_runs=10) for workload in workloads]
    for one, index in turns(series):
        one.keep(attempt(one.job, index, tree=tree, timeout_s=600))

Configurations are interleaved A B C, C B A, A B C, ...: what drifts (heat, other programs) then
falls on all of them alike, and a linear drift cancels. Each gets `workload.runs` runs, and more of
them until the medians of its runs agree (`steady`) or `most_runs` are done. A run that fails is
made up for once; after a timeout or a second failure the configuration is given up.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import TypeVar

from pydantic import ValidationError

from edgegauge.errors import MeasurementError
from edgegauge.host.tree import Tree, fields, integer
from edgegauge.measure import child, trust
from edgegauge.measure.child import FailureKind, Message
from edgegauge.result import ChildRun, Failure, Run, Workload

MODULE = "edgegauge.measure.worker"
"""What a child runs; tests put a stand-in here."""
MOST_FAILURES = 2
STARTING = "start"
"""The phase before the child's first message."""

R = TypeVar("R", bound=ChildRun)


@dataclass(slots=True)
class Series:
    """The runs of one configuration so far."""

    workload: Workload
    job: Message
    """Of `worker.job`."""
    most_runs: int = 0
    """Child processes at most; fewer than `workload.runs` mean those."""
    runs: list[Run] = field(default_factory=list)
    failures: list[Failure] = field(default_factory=list)

    @property
    def tried(self) -> int:
        """Child processes so far."""
        return len(self.runs) + len(self.failures)

    @property
    def wants_more(self) -> bool:
        """Whether another run is needed, and can be hoped for."""
        if len(self.failures) >= MOST_FAILURES or any(f.kind == "timeout" for f in self.failures):
            return False
        if self.tried < self.workload.runs:
            return True
        return self.tried < self.most_runs and not steady(self.runs)

    def keep(self, outcome: Run | Failure) -> None:
        """Add what became of a run."""
        if isinstance(outcome, Run):
            self.runs.append(outcome)
        else:
            self.failures.append(outcome)


def steady(runs: Sequence[Run]) -> bool:
    """Whether decode medians agree so well that two calls would differ by less than 2 %."""
    share = trust.half_width(runs)
    return share is not None and share <= trust.REPEATABLE


def turns(series: Sequence[Series]) -> Iterator[tuple[Series, int]]:
    """Whose run is next, and its number within that configuration; there and back again."""
    forward = True
    while waiting := [one for one in series if one.wants_more]:
        for one in waiting if forward else reversed(waiting):
            yield one, one.tried
        forward = not forward


def attempt(job: Message, index: int, *, tree: Tree, timeout_s: float | None) -> Run | Failure:
    """Run one child on a `worker.job`; what it found, or how it failed; as `attempt_as`."""
    return attempt_as(Run, MODULE, job, index, tree=tree, timeout_s=timeout_s)


def attempt_as(
    schema: type[R], module: str, job: Message, index: int, *, tree: Tree, timeout_s: float | None
) -> R | Failure:
    """Run `module` as a child on its job; its `run` as a `schema`, or how it failed.

    Raises InputError where the runtime refuses the artifact: another run would be refused too.
    """
    phase, kills = STARTING, _memory_kills(tree)
    kind: FailureKind = "failed"
    try:
        with child.start(module, job, timeout_s=timeout_s) as messages:
            for message in messages:
                if "run" in message:
                    return schema.model_validate(message["run"])
                phase = str(message.get("phase", phase))
        reason = "the child ended without a result"
    except ValidationError as error:
        reason = f"the child's result makes no sense: {error}"
    except MeasurementError as error:
        reason, kind = str(error), _kind_of(error, kills, tree)
        if kind == "out of memory" and "memory" not in reason.lower():
            reason = f"the system ran out of memory: {reason}"
    return Failure(run=index, phase=phase, kind=kind, reason=reason)


def _kind_of(error: MeasurementError, kills: int | None, tree: Tree) -> FailureKind:
    """`child.failure_kind`; a kill counts as out of memory only where the kernel has counted it."""
    kind = child.failure_kind(error)
    if kind == "killed" and kills is not None and (_memory_kills(tree) or 0) > kills:
        return "out of memory"
    return kind


def _memory_kills(tree: Tree) -> int | None:
    """Processes that the kernel killed for memory since boot, those of control groups included."""
    return integer(fields(tree.text("proc/vmstat"), " ").get("oom_kill"))


HINTS: dict[FailureKind, str | None] = {
    "killed": "the system kills a process when memory runs out: try a smaller artifact",
    "crashed": "a crash inside the runtime: check the artifact's hash, or try another recipe",
    "out of memory": "use a smaller artifact, fewer bits or a shorter context, or free memory",
    "timeout": "allow more with --timeout, or ask for fewer tokens",
    "failed": None,
}
"""What mends each kind of failure."""


def described(name: str, failure: Failure) -> str:
    """`tiny.gguf, in the phase 'load': stopped after 3 s, its limit`."""
    doing = "starting" if failure.phase == STARTING else f"in the phase {failure.phase!r}"
    return f"{name}, {doing}: {failure.reason}"
