"""Steps of runs and sweeps: which candidates there are, each converted and measured once.

    chosen = candidates(models, formats, recipes)
    step = conversion(chosen.candidates[0], base, folder)
    measurement = Measurement(folder, step.artifact(), workload, runtime)
    result = measurement.result()            # reads the file if it is there, else measures

Every finished step is a file or folder whose name carries a hash of all that went into it, so
whatever was killed goes on where it stopped, and a change repeats only what it changed:

    artifacts/<model>-<recipe>-<format>-<hash>/            the artifact, verified, and its manifest
    results/<model>-<recipe>-<format>-<hash>.measure.json

A step has the machine's turn (`measure.turn`) while it works, and looks again when it gets it:
two processes may share a folder, and no conversion disturbs another's measurement.
"""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from edgegauge import __version__
from edgegauge.artifact import Artifact, FileFormat, open_artifact
from edgegauge.convert import Preparation, converter_for, prepare
from edgegauge.document import write_json
from edgegauge.errors import InputError, MissingDependency
from edgegauge.host.tree import Tree
from edgegauge.measure.energy_run import EnergyOptions
from edgegauge.measure.host import cpu_model
from edgegauge.measure.manager import measure
from edgegauge.measure.metering import battery_here, with_battery
from edgegauge.measure.runtimes import Runtime, runtime_for
from edgegauge.measure.turn import turn
from edgegauge.plan import locate
from edgegauge.recipe import resolve_each
from edgegauge.result import Result, Workload, read_result
from edgegauge.usage import Usage
from edgegauge.verify import verified

TIMEOUT_S = 3600.0
"""Of one child process of a measurement."""
RESULT_FORMAT: int = Result.model_fields["format"].default

Progress = Callable[[float, str], None]
"""Called with the share done (0..1) and what is being done."""


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


def candidates(
    models: Sequence[str], formats: Sequence[FileFormat], recipes: Sequence[str]
) -> Candidates:
    """Every candidate of these that can be made and run here, each once.

    Raises InputError for a recipe that none of the formats has, and where nothing is left.
    """
    absent = {f: reason for f in formats if (reason := _absent(f))}
    left_out = [f"no {file_format} rows: {reason}" for file_format, reason in absent.items()]
    pairs: dict[tuple[FileFormat, str], None] = {}
    for recipe in recipes:
        resolved, refusals = resolve_each(recipe, formats)
        pairs |= {(f, name): None for f, name in resolved.items() if f not in absent}
        left_out += [reason for f, reason in refusals.items() if f not in absent]
    if not pairs:
        raise InputError("none of the plan's formats can be made and run here", left_out)
    ordered = sorted(pairs, key=lambda pair: formats.index(pair[0]))
    wanted = [Wanted(model, *pair) for model in models for pair in ordered]
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


@dataclass(frozen=True, slots=True)
class Conversion:
    """A candidate that is to be converted into `output`, or was."""

    prepared: Preparation
    format: FileFormat
    context: int | None
    output: Path

    @property
    def finished(self) -> bool:
        """Whether the artifact is there."""
        return self.output.exists()

    def artifact(self) -> Artifact:
        """The artifact; converted and verified now unless it is there."""
        with turn():
            if not self.finished:
                self._convert()
        return open_artifact(self.output)

    def _convert(self) -> None:
        """Make `output`, which exists only when it is whole and nothing was found wrong with it."""
        unverified = self.output.with_name(f"{self.output.name}.unverified")
        shutil.rmtree(unverified, ignore_errors=True)  # of a run that was killed
        try:
            job = self.prepared.into(unverified, context=self.context)
            artifact = converter_for(self.format).convert(job, lambda done, note: None)
            verified(artifact, self.prepared.spec, self.prepared.folder)
            unverified.rename(self.output)
        finally:
            shutil.rmtree(unverified, ignore_errors=True)


def conversion(wanted: Wanted, base: Path, folder: Path, context: int | None = None) -> Conversion:
    """The conversion of a candidate in `folder`; a hub model is fetched now, and InputError.

    References are relative to `base`. `context` is the room of a TFLite file, as in `convert`.
    """
    recipe, file_format = wanted.recipe, wanted.format
    prepared = prepare(locate(wanted.reference, base), recipe, file_format)
    spec, state = prepared.spec, fingerprint(prepared.folder)
    key = digest("convert", __version__, spec.model_dump(), recipe, file_format, state, context)
    output = folder / "artifacts" / f"{spec.id}-{recipe}-{file_format}-{key}"
    return Conversion(prepared, file_format, context, output)


@dataclass(frozen=True, slots=True)
class Measurement:
    """One workload of an artifact in a runtime; with a `usage` energy is measured too."""

    folder: Path
    artifact: Artifact
    workload: Workload
    runtime: Runtime
    usage: Usage | None = None

    @property
    def path(self) -> Path:
        """Where the result is, or will be."""
        usage = self.usage.model_dump() if self.usage else None
        tool = [self.runtime.name, self.runtime.version()]
        key = digest(
            "measure", RESULT_FORMAT, digests_of(self.artifact), self.workload.model_dump(),
            usage, tool, cpu_model(),
        )  # fmt: skip
        return self.folder / "results" / f"{name_of(self.artifact)}-{key}.measure.json"

    @property
    def finished(self) -> bool:
        """Whether the result is there."""
        return self.path.exists()

    def result(self, progress: Progress = lambda done, note: None) -> Result:
        """The result; measured now unless it is there. Raises what `measure` raises."""
        path = self.path
        with turn():
            if not path.exists():
                write_json(path, self._measured(progress).model_dump(mode="json"))
        return read_result(path)

    def _measured(self, progress: Progress) -> Result:
        energy = EnergyOptions() if self.usage else None
        result = measure(
            self.artifact, self.workload, runtime=self.runtime, energy=energy,
            timeout_s=TIMEOUT_S, progress=progress,
        )  # fmt: skip
        return with_battery(result, battery_here(Tree()), self.usage) if self.usage else result


def name_of(artifact: Artifact) -> str:
    """`smollm2-135m-q4_0-gguf`."""
    return f"{artifact.name}-{artifact.file_format}"


def digests_of(artifact: Artifact) -> list[str]:
    """The hashes of the artifact's files, as its converter wrote them down."""
    assert artifact.manifest is not None
    return [file.sha256 for file in artifact.manifest.files]


def fingerprint(path: Path | None) -> list[Any]:
    """What tells one state of a file or folder from another without reading gigabytes."""
    if path is None:
        return []
    files = sorted(p for p in path.rglob("*") if p.is_file()) if path.is_dir() else [path]
    return [[file.name, file.stat().st_size, file.stat().st_mtime_ns] for file in files]


def digest(*parts: Any) -> str:
    """Ten hex digits of all of these."""
    text = json.dumps(parts, sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:10]
