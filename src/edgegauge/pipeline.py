"""The whole job: convert, measure, evaluate, choose; then the same question for other devices.

    summary = execute(plan, base, Path("edgegauge-run"), talk)

Every finished step is a file whose name carries a hash of all that went into it (`steps`), so a run
that was killed goes on where it stopped, and a changed plan repeats only what it changed. To their
files this adds

    results/<model>-<recipe>-<format>-<hash>.evaluate.json

A candidate is a model in a format at a recipe. One that cannot be converted, measured or evaluated
is a row with the reason; the others go on. A format whose converter or runtime is not installed,
and a recipe that a format has not got, are left out with one warning each.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from edgegauge import __version__
from edgegauge.artifact import Artifact
from edgegauge.document import read_json, write_json
from edgegauge.errors import EdgeGaugeError
from edgegauge.evaluate.manager import evaluate
from edgegauge.evaluate.result import EvaluationResult
from edgegauge.measure.host import default_threads
from edgegauge.measure.runtimes import runtime_for
from edgegauge.measure.turn import turn
from edgegauge.plan import LADDER_PREFIX, Plan, locate
from edgegauge.report.summary import RunSummary
from edgegauge.result import Result, Workload
from edgegauge.steps import (
    Measurement,
    Wanted,
    candidates,
    conversion,
    digest,
    digests_of,
    fingerprint,
    name_of,
)
from edgegauge.summarise import Outcome, predicted, summarise
from edgegauge.usage import load as load_usage


class Talk(Protocol):
    """Hears what a run is doing; the command line draws it, tests record it."""

    def __call__(self, step: int, steps: int, what: str, *, reused: bool) -> None:
        """Step `step` of `steps` begins, or was found finished (`reused`)."""


def execute(plan: Plan, base: Path, folder: Path, talk: Talk) -> RunSummary:
    """Do what the plan says inside `folder`; paths of the plan are relative to `base`.

    Raises InputError for a plan whose devices, recipes or bundled models do not exist, or of whose
    formats none can be made and run here; whatever goes wrong with one candidate is told in its
    row.
    """
    chosen = candidates(plan.models, plan.formats, plan.recipes)
    predictions = [predicted(asked, base) for asked in plan.predict]
    outcomes = _outcomes(chosen.candidates, plan, base, folder, talk)
    return summarise(plan, outcomes, predictions, chosen.left_out)


def _outcomes(
    chosen: list[Wanted], plan: Plan, base: Path, folder: Path, talk: Talk
) -> Iterator[Outcome]:
    each = 3 if plan.evaluation else 2
    for index, wanted in enumerate(chosen):
        steps = _Steps(plan, base, folder, talk, index * each, len(chosen) * each)
        try:
            yield steps.execute(wanted)
        except EdgeGaugeError as error:
            name = Path(wanted.reference).name.removeprefix(LADDER_PREFIX)
            yield Outcome(name, wanted.recipe, wanted.format, failure=str(error))


@dataclass(frozen=True, slots=True)
class _Steps:
    """The steps of one candidate, numbered from `before` + 1 of `total`."""

    plan: Plan
    base: Path
    folder: Path
    talk: Talk
    before: int
    total: int

    def execute(self, wanted: Wanted) -> Outcome:
        artifact = self._convert(wanted)
        result = self._measure(artifact)
        evaluation = self._evaluate(artifact) if self.plan.evaluation else None
        return Outcome(wanted.reference, wanted.recipe, wanted.format, artifact, result, evaluation)

    def _say(self, step: int, what: str, *, reused: bool) -> None:
        self.talk(self.before + step, self.total, what, reused=reused)

    def _convert(self, wanted: Wanted) -> Artifact:
        step = conversion(wanted, self.base, self.folder)
        what = f"convert {step.prepared.spec.id} to {wanted.format} {wanted.recipe}"
        self._say(1, what, reused=step.finished)
        return step.artifact()

    def _measure(self, artifact: Artifact) -> Result:
        asked = self.plan.workload
        workload = Workload(
            threads=asked.threads or default_threads(),
            **asked.model_dump(exclude={"threads", "energy", "usage"}),
        )
        energy = self.plan.budget.limits_energy if asked.energy is None else asked.energy
        usage = load_usage(locate(asked.usage, self.base))
        runtime = runtime_for(artifact.file_format)
        step = Measurement(self.folder, artifact, workload, runtime, usage if energy else None)
        self._say(2, f"measure {name_of(artifact)}", reused=step.finished)
        return step.result()

    def _evaluate(self, artifact: Artifact) -> EvaluationResult:
        asked = self.plan.evaluation
        assert asked is not None
        task, text = (
            Path(locate(name, self.base)) if name else None for name in (asked.task, asked.text)
        )
        inputs = [fingerprint(path) for path in (task, text)]
        key = digest("evaluate", __version__, digests_of(artifact), asked.model_dump(), inputs)
        path = self.folder / "results" / f"{name_of(artifact)}-{key}.evaluate.json"
        self._say(3, f"evaluate {name_of(artifact)}", reused=path.exists())
        with turn():
            if not path.exists():
                found = evaluate(artifact, task=task, text=text, limit=asked.limit)
                write_json(path, found.model_dump(mode="json"))
        return read_json(path, EvaluationResult)
