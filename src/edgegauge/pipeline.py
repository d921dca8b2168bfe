"""The whole job: convert, measure, evaluate, choose; then the same question for other devices.

    summary = execute(plan, base, Path("edgegauge-run"), talk)

Every finished step is a file whose name carries a hash of all that went into it, so a run that was
killed goes on where it stopped, and a changed plan repeats only what it changed:

    artifacts/<model>-<recipe>-<format>-<hash>/            the artifact, verified, and its manifest
    results/<model>-<recipe>-<format>-<hash>.measure.json
    results/<model>-<recipe>-<format>-<hash>.evaluate.json

A candidate is a model in a format at a recipe. One that cannot be converted, measured or evaluated
is a row with the reason; the others go on. A format whose converter or runtime is not installed,
and a recipe that a format has not got, are left out with one warning each.
"""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from edgegauge import __version__
from edgegauge.artifact import Artifact, FileFormat, open_artifact
from edgegauge.convert import Preparation, converter_for, prepare
from edgegauge.document import read_json, write_json
from edgegauge.errors import EdgeGaugeError, InputError, MissingDependency
from edgegauge.evaluate.manager import evaluate
from edgegauge.evaluate.result import EvaluationResult
from edgegauge.host.tree import Tree
from edgegauge.measure.energy_run import EnergyOptions
from edgegauge.measure.host import cpu_model, default_threads
from edgegauge.measure.manager import measure
from edgegauge.measure.metering import battery_here, with_battery
from edgegauge.measure.runtimes import runtime_for
from edgegauge.plan import LADDER_PREFIX, Plan, locate
from edgegauge.recipe import resolve_each
from edgegauge.report.summary import RunSummary
from edgegauge.result import Result, Workload, read_result
from edgegauge.summarise import Outcome, predicted, summarise
from edgegauge.usage import load as load_usage
from edgegauge.verify import verified

TIMEOUT_S = 3600.0
"""Of one child process of a measurement."""


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
    chosen = candidates(plan)
    predictions = [predicted(asked, base) for asked in plan.predict]
    outcomes = _outcomes(chosen.candidates, plan, base, folder, talk)
    return summarise(plan, outcomes, predictions, chosen.left_out)


@dataclass(frozen=True, slots=True)
class Wanted:
    """A candidate of a plan: a model reference, at a recipe of a format."""

    reference: str
    format: FileFormat
    recipe: str


@dataclass(frozen=True, slots=True)
class Candidates:
    """What a plan comes to here, and sentences on what of it was left out."""

    candidates: list[Wanted]
    left_out: list[str]


def candidates(plan: Plan) -> Candidates:
    """Every candidate of the plan that can be made and run here, each once.

    Raises InputError for a recipe that none of the plan's formats has, and where nothing is left.
    """
    absent = {f: reason for f in plan.formats if (reason := _absent(f))}
    left_out = [f"no {file_format} rows: {reason}" for file_format, reason in absent.items()]
    pairs: dict[tuple[FileFormat, str], None] = {}
    for recipe in plan.recipes:
        resolved, refusals = resolve_each(recipe, plan.formats)
        pairs |= {(f, name): None for f, name in resolved.items() if f not in absent}
        left_out += [reason for f, reason in refusals.items() if f not in absent]
    if not pairs:
        raise InputError("none of the plan's formats can be made and run here", left_out)
    ordered = sorted(pairs, key=lambda pair: plan.formats.index(pair[0]))
    wanted = [Wanted(model, *pair) for model in plan.models for pair in ordered]
    return Candidates(list(dict.fromkeys(wanted)), left_out)


def _absent(file_format: FileFormat) -> str | None:
    """Why this format cannot be made and run here, and what mends it; None where it can."""
    try:
        converter_for(file_format)
        runtime_for(file_format).version()
    except MissingDependency as missing:
        return f"{missing}; {missing.hint}"
    except InputError as error:
        return str(error)
    return None


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
        recipe, file_format = wanted.recipe, wanted.format
        prepared = prepare(locate(wanted.reference, self.base), recipe, file_format)
        spec = prepared.spec
        key = _hash(
            "convert", spec.model_dump(), recipe, file_format, _fingerprint(prepared.folder)
        )
        output = self.folder / "artifacts" / f"{spec.id}-{recipe}-{file_format}-{key}"
        finished = output.exists()
        self._say(1, f"convert {spec.id} to {file_format} {recipe}", reused=finished)
        if not finished:
            _convert_verified(prepared, file_format, output)
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
        path = self.folder / "results" / f"{_name(artifact)}-{key}.measure.json"
        self._say(2, f"measure {_name(artifact)}", reused=path.exists())
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
        path = self.folder / "results" / f"{_name(artifact)}-{key}.evaluate.json"
        self._say(3, f"evaluate {_name(artifact)}", reused=path.exists())
        if not path.exists():
            found = evaluate(artifact, task=task, text=text, limit=asked.limit)
            write_json(path, found.model_dump(mode="json"))
        return read_json(path, EvaluationResult)


def _convert_verified(prepared: Preparation, file_format: FileFormat, output: Path) -> None:
    """Make `output`, which exists only when it is whole and nothing was found wrong with it."""
    unverified = output.with_name(f"{output.name}.unverified")
    shutil.rmtree(unverified, ignore_errors=True)  # of a run that was killed
    try:
        job = prepared.into(unverified)
        artifact = converter_for(file_format).convert(job, lambda done, note: None)
        verified(artifact, prepared.spec, prepared.folder)
        unverified.rename(output)
    finally:
        shutil.rmtree(unverified, ignore_errors=True)


def _name(artifact: Artifact) -> str:
    return f"{artifact.name}-{artifact.file_format}"


def _digest(artifact: Artifact) -> list[str]:
    assert artifact.manifest is not None  # the converter wrote it
    return [file.sha256 for file in artifact.manifest.files]


def _fingerprint(path: Path | None) -> list[Any]:
    """What tells one state of a file or folder from another without reading gigabytes."""
    if path is None:
        return []
    files = sorted(p for p in path.rglob("*") if p.is_file()) if path.is_dir() else [path]
    return [[file.name, file.stat().st_size, file.stat().st_mtime_ns] for file in files]


def _hash(*parts: Any) -> str:
    text = json.dumps([__version__, *parts], sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:10]
