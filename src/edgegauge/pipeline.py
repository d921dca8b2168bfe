"""The whole job: convert, measure, evaluate, choose; then the same question for other devices.

    summary = execute(plan, base, Path("edgegauge-run"), talk)

Every finished step is a file whose name carries a hash of all that went into it, so a run that was
killed goes on where it stopped, and a changed plan repeats only what it changed:

    artifacts/<model>-<recipe>-<hash>/            the artifact and its manifest
    results/<model>-<recipe>-<hash>.measure.json
    results/<model>-<recipe>-<hash>.evaluate.json

A candidate that cannot be converted, measured or evaluated is a row with the reason; the others go
on.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from edgegauge import __version__
from edgegauge.artifact import SUFFIX, Artifact, open_artifact
from edgegauge.convert import converter_for, prepare
from edgegauge.document import read_json, write_json
from edgegauge.errors import EdgeGaugeError
from edgegauge.evaluate.manager import evaluate
from edgegauge.evaluate.result import EvaluationResult
from edgegauge.host.tree import Tree
from edgegauge.measure.energy_run import EnergyOptions
from edgegauge.measure.host import cpu_model
from edgegauge.measure.manager import default_threads, measure
from edgegauge.measure.metering import battery_here, with_battery
from edgegauge.plan import LADDER_PREFIX, Plan, locate
from edgegauge.recipe import resolve
from edgegauge.report.summary import RunSummary
from edgegauge.result import Result, Workload, read_result
from edgegauge.summarise import Outcome, predicted, summarise
from edgegauge.usage import load as load_usage

FILE_FORMAT = "gguf"
TIMEOUT_S = 3600.0
"""Of one child process of a measurement."""


class Talk(Protocol):
    """Hears what a run is doing; the command line draws it, tests record it."""

    def __call__(self, step: int, steps: int, what: str, *, reused: bool) -> None:
        """Step `step` of `steps` begins, or was found finished (`reused`)."""


def execute(plan: Plan, base: Path, folder: Path, talk: Talk) -> RunSummary:
    """Do what the plan says inside `folder`; paths of the plan are relative to `base`.

    Raises InputError for a plan whose devices, recipes or bundled models do not exist; whatever
    goes wrong with one candidate is told in its row.
    """
    predictions = [predicted(asked, base) for asked in plan.predict]
    return summarise(plan, _outcomes(plan, base, folder, talk), predictions)


def candidates(plan: Plan) -> list[tuple[str, str]]:
    """Every (model reference, recipe) of the plan, each once."""
    named = [(m, resolve(r, FILE_FORMAT)) for m in plan.models for r in plan.recipes]
    return list(dict.fromkeys(named))


def _outcomes(plan: Plan, base: Path, folder: Path, talk: Talk) -> Iterator[Outcome]:
    pairs = candidates(plan)
    each = 3 if plan.evaluation else 2
    for index, (reference, recipe) in enumerate(pairs):
        steps = _Steps(plan, base, folder, talk, index * each, len(pairs) * each)
        try:
            yield steps.execute(reference, recipe)
        except EdgeGaugeError as error:
            name = Path(reference).name.removeprefix(LADDER_PREFIX)
            yield Outcome(name, recipe, failure=str(error))


@dataclass(frozen=True, slots=True)
class _Steps:
    """The steps of one candidate, numbered from `before` + 1 of `total`."""

    plan: Plan
    base: Path
    folder: Path
    talk: Talk
    before: int
    total: int

    def execute(self, reference: str, recipe: str) -> Outcome:
        artifact = self._convert(reference, recipe)
        result = self._measure(artifact)
        evaluation = self._evaluate(artifact) if self.plan.evaluation else None
        return Outcome(reference, recipe, artifact, result, evaluation)

    def _say(self, step: int, what: str, *, reused: bool) -> None:
        self.talk(self.before + step, self.total, what, reused=reused)

    def _convert(self, reference: str, recipe: str) -> Artifact:
        prepared = prepare(locate(reference, self.base), recipe, FILE_FORMAT)
        spec = prepared.spec
        key = _hash("convert", spec.model_dump(), recipe, _fingerprint(prepared.folder))
        output = self.folder / "artifacts" / f"{spec.id}-{recipe}-{key}"
        finished = any(output.glob(f"*{SUFFIX}"))
        self._say(1, f"convert {spec.id} to {recipe}", reused=finished)
        if not finished:
            converter_for(FILE_FORMAT).convert(prepared.into(output), lambda done, note: None)
        return open_artifact(output)

    def _measure(self, artifact: Artifact) -> Result:
        asked = self.plan.workload
        workload = Workload(
            threads=asked.threads or default_threads(),
            **asked.model_dump(exclude={"threads", "energy", "usage"}),
        )
        wanted = self.plan.budget.limits_energy if asked.energy is None else asked.energy
        usage = load_usage(locate(asked.usage, self.base))
        asked_for = [workload.model_dump(), usage.model_dump() if wanted else None]
        key = _hash("measure", _digest(artifact), asked_for, cpu_model())
        path = self.folder / "results" / f"{artifact.name}-{key}.measure.json"
        self._say(2, f"measure {artifact.name}", reused=path.exists())
        if not path.exists():
            energy = EnergyOptions() if wanted else None
            result = measure(artifact, workload, energy=energy, timeout_s=TIMEOUT_S)
            result = with_battery(result, battery_here(Tree()), usage)
            write_json(path, result.model_dump(mode="json"))
        return read_result(path)

    def _evaluate(self, artifact: Artifact) -> EvaluationResult:
        asked = self.plan.evaluation
        assert asked is not None
        task, text = (
            Path(locate(name, self.base)) if name else None for name in (asked.task, asked.text)
        )
        inputs = [_fingerprint(path) for path in (task, text)]
        key = _hash("evaluate", _digest(artifact), asked.model_dump(), inputs)
        path = self.folder / "results" / f"{artifact.name}-{key}.evaluate.json"
        self._say(3, f"evaluate {artifact.name}", reused=path.exists())
        if not path.exists():
            found = evaluate(artifact, task=task, text=text, limit=asked.limit)
            write_json(path, found.model_dump(mode="json"))
        return read_json(path, EvaluationResult)


def _digest(artifact: Artifact) -> str:
    assert artifact.manifest is not None  # the converter wrote it
    return artifact.manifest.files[0].sha256


def _fingerprint(path: Path | None) -> list[Any]:
    """What tells one state of a file or folder from another without reading gigabytes."""
    if path is None:
        return []
    files = sorted(p for p in path.rglob("*") if p.is_file()) if path.is_dir() else [path]
    return [[file.name, file.stat().st_size, file.stat().st_mtime_ns] for file in files]


def _hash(*parts: Any) -> str:
    text = json.dumps([__version__, *parts], sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:10]
