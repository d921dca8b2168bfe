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
from typing import Protocol, TypeVar

from pydantic import ValidationError

from edgegauge.errors import MeasurementError
from edgegauge.host.tree import Tree
from edgegauge.measure import child, trust
from edgegauge.measure.child import Message
from edgegauge.measure.failures import STARTING, MemoryKills, failure_of
from edgegauge.result import ChildRun, Failure, Run, Workload

MODULE = "edgegauge.measure.worker"
"""What a child runs; tests put a stand-in here."""
MOST_FAILURES = 2

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


class Attempt(Protocol):
    """What `measure_grid` has a child run by: `attempt`, or the same under limits."""

    def __call__(
        self, job: Message, index: int, *, tree: Tree, timeout_s: float | None
    ) -> Run | Failure:
        """Run one child on a `worker.job`."""


def attempt(
    job: Message, index: int, *, tree: Tree, timeout_s: float | None, within: Sequence[str] = ()
) -> Run | Failure:
    """Run one child on a `worker.job`; what it found, or how it failed; as `attempt_as`."""
    return attempt_as(Run, MODULE, job, index, tree=tree, timeout_s=timeout_s, within=within)


def attempt_as(
    schema: type[R],
    module: str,
    job: Message,
    index: int,
    *,
    tree: Tree,
    timeout_s: float | None,
    within: Sequence[str] = (),
) -> R | Failure:
    """Run `module` as a child on its job; its `run` as a `schema`, or how it failed.

    `within` is a command that the child is started by (`child.start`). Raises InputError where the
    runtime refuses the artifact: another run would be refused too.
    """
    phase, kills = STARTING, MemoryKills(tree)
    try:
        with child.start(module, job, timeout_s=timeout_s, within=within) as messages:
            for message in messages:
                if "run" in message:
                    return schema.model_validate(message["run"])
                phase = str(message.get("phase", phase))
        error = MeasurementError("the child ended without a result")
    except ValidationError as invalid:
        error = MeasurementError(f"the child's result makes no sense: {invalid}")
    except MeasurementError as raised:
        error = raised
    return failure_of(error, kills, run=index, phase=phase)
