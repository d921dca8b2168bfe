"""Verifying: does an artifact compute, in its runtime, the model that it was made from?

    artifact = verified(artifact, spec, folder)     # refuses a broken one: ConversionError
    found = verify(artifact, spec, folder)          # only looks

A child process does it, since native code may crash on a broken file. How a format's artifacts are
opened and looked into is an entry point named after the format, of the group `edgegauge.verifiers`
for language models and `edgegauge.encoder_verifiers` for encoders.

    {"progress": [share, note]}
    {"verification": {...}}                                     the last message
"""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import Callable
from dataclasses import dataclass, replace
from importlib.metadata import EntryPoint, entry_points
from pathlib import Path
from typing import Any, Generic, Protocol, TypeVar

from edgegauge import hub
from edgegauge.artifact import Artifact, manifest_path
from edgegauge.document import parse, write_json
from edgegauge.encoder import EncoderSpec
from edgegauge.errors import (
    ConversionError,
    EdgeGaugeError,
    InputError,
    MeasurementError,
)
from edgegauge.measure import child
from edgegauge.measure.host import default_threads
from edgegauge.measure.runtimes import runtime_for
from edgegauge.model import ModelSpec
from edgegauge.recipe import Recipe
from edgegauge.recipe_file import RecipeFile
from edgegauge.verification import EncoderVerification, Verification

GROUP, ENCODER_GROUP = "edgegauge.verifiers", "edgegauge.encoder_verifiers"
MODULE = "edgegauge.verify"
"""What the child runs."""

UNVERIFIED = ("killed", "out of memory", "timeout")
"""Ends of a child that say nothing of the artifact."""

Progress = Callable[[float, str], None]
Spec = ModelSpec | EncoderSpec
Found = Verification | EncoderVerification
SpecT = TypeVar("SpecT", bound=Spec)
RecipeT = TypeVar("RecipeT", bound=Recipe)


@dataclass(frozen=True, kw_only=True)  # slots would make calling its aliases a TypeError
class Job(Generic[SpecT, RecipeT]):
    """What to verify: an artifact's main file, and the model or encoder that it should compute."""

    path: Path
    file_format: str
    recipe: RecipeT
    spec: SpecT
    folder: Path | None
    """The checkpoint, in Hugging Face form; None for synthetic weights."""
    threads: int
    text: str | None = None
    """What the artifact is tried on; None: the built-in text."""
    context: int | None = None
    """Tokens that the file has room for, where it says so."""

    @property
    def is_encoder(self) -> bool:
        """Whether an encoder is verified, else a language model."""
        return isinstance(self.spec, EncoderSpec)

    @property
    def group(self) -> str:
        """Of the entry points among which its verifier is."""
        return ENCODER_GROUP if self.is_encoder else GROUP

    def to_json(self) -> dict[str, Any]:
        """The form that `from_json` reads back."""
        return {
            "path": str(self.path),
            "file_format": self.file_format,
            "recipe": self.recipe
            if isinstance(self.recipe, str)
            else self.recipe.model_dump(mode="json"),
            "is_encoder": self.is_encoder,
            "spec": self.spec.model_dump(mode="json"),
            "folder": None if self.folder is None else str(self.folder),
            "threads": self.threads,
            "text": self.text,
            "context": self.context,
        }

    @classmethod
    def from_json(cls, value: dict[str, Any]) -> AnyJob:
        """The job of `to_json`; trusted, since the parent wrote it."""
        folder, recipe = value["folder"], value["recipe"]
        kind = EncoderSpec if value.pop("is_encoder") else ModelSpec
        return cls(
            **value
            | {
                "recipe": recipe if isinstance(recipe, str) else parse(recipe, RecipeFile, "job"),
                "path": Path(value["path"]),
                "spec": parse(value["spec"], kind, "job"),
                "folder": None if folder is None else Path(folder),
            }
        )


VerificationJob = Job[ModelSpec, Recipe]
"""Of language models."""
EncoderVerificationJob = Job[EncoderSpec, str]
"""Of encoders, which know no recipe files."""
AnyJob = Job[Any, Any]


class Verifier(Protocol):
    """Verifies artifacts of one file format, in this process."""

    def verify(self, job: AnyJob, progress: Progress) -> Found:
        """What was found; ConversionError, naming the place, for an artifact that is broken."""


def verify(
    artifact: Artifact,
    spec: Spec,
    folder: Path | None,
    *,
    threads: int | None = None,
    text: str | None = None,
    progress: Progress = lambda done, note: None,
) -> Found:
    """Compare the artifact with the model `spec` and its checkpoint in `folder`.

    A language model is tried on `text`, where there is one. Raises ConversionError where it
    departs, MissingDependency where its runtime is not installed, and MeasurementError where the
    child was killed, ran out of memory or failed on its own account.
    """
    if artifact.manifest is None:
        raise InputError(f"{artifact.path} has no manifest, so what it should compute is unknown")
    runtime_for(artifact.file_format).version()
    job = Job(
        path=artifact.path.absolute(),
        file_format=artifact.file_format,
        recipe=artifact.manifest.stored_as,
        spec=spec,
        folder=folder and folder.absolute(),
        threads=threads or default_threads(),
        text=text,
        context=artifact.manifest.context,
    )
    _entry_point(job)
    try:
        return _in_child(job, progress)
    except MeasurementError as error:
        ours = isinstance(error, child.ChildEnded) and error.status >= 0
        if ours or child.failure_kind(error) in UNVERIFIED:
            raise
        raise ConversionError(f"{artifact.name} does not run: {error}", error.hint) from None
    except InputError as error:
        raise ConversionError(f"{artifact.name} is not what it should be: {error}") from None


def verify_again(
    artifact: Artifact,
    *,
    threads: int | None = None,
    progress: Progress = lambda done, note: None,
) -> Verification:
    """Verify an artifact against the checkpoint that its manifest names; InputError without one."""
    manifest = artifact.manifest
    origin = manifest.origin if manifest else None
    if (
        manifest is None
        or manifest.spec is None
        or origin is None
        or origin.kind not in ("folder", "hub")
    ):
        raise InputError(f"nothing says which checkpoint {artifact.path} was made from")
    folder = None
    if not origin.synthetic:
        folder = Path(origin.reference) if origin.kind == "folder" else hub.fetch(origin.reference)
        if not folder.is_dir():
            raise InputError(f"{artifact.name} was made from {folder}, which is not there")
    found = verify(artifact, manifest.spec, folder, threads=threads, progress=progress)
    assert isinstance(found, Verification)  # the manifest has a model's spec
    return found


def verified(
    artifact: Artifact,
    spec: Spec,
    folder: Path | None,
    *,
    threads: int | None = None,
    text: str | None = None,
    progress: Progress = lambda done, note: None,
) -> Artifact:
    """The artifact with the verification in its manifest.

    A broken one is removed before ConversionError is raised. One that could not be tried, because
    its runtime is not installed or memory ran out, is returned with a warning that says so.
    """
    try:
        found = verify(artifact, spec, folder, threads=threads, text=text, progress=progress)
    except ConversionError as error:
        discard(artifact)
        raise ConversionError(
            f"{error}\n  the artifact is removed",
            hint=error.hint or "convert --no-verify keeps it, to look into",
        ) from None
    except EdgeGaugeError as error:
        return _noted(artifact, None, [f"not verified: {error}"])
    return _noted(artifact, found, _warnings(found))


def verifier_for(job: AnyJob) -> Verifier:
    """The registered verifier of the job's format; MeasurementError if there is none."""
    made: Verifier = _entry_point(job).load()()
    return made


def _entry_point(job: AnyJob) -> EntryPoint:
    for point in entry_points(group=job.group, name=job.file_format):
        return point
    kind = "encoders in " if job.is_encoder else ""
    raise MeasurementError(f"nothing here verifies {kind}{job.file_format} files")


def _warnings(found: Found) -> list[str]:
    if found.tokenizer is None or not found.tokenizer.other_tokens:
        return []
    others = found.tokenizer.other_tokens
    return [
        f"{len(others)} of {found.tokenizer.texts} texts give other tokens than tokenizer.json, "
        f"such as {others[0]!r}"
    ]


def _noted(artifact: Artifact, found: Found | None, warnings: list[str]) -> Artifact:
    """The artifact with this written into its manifest."""
    assert artifact.manifest is not None
    is_encoder = isinstance(found, EncoderVerification)
    manifest = artifact.manifest.model_copy(
        update={
            "encoder_verification" if is_encoder else "verification": found,
            "warnings": [*artifact.manifest.warnings, *warnings],
        }
    )
    write_json(manifest_path(artifact.path), manifest.model_dump(mode="json"))
    return replace(artifact, manifest=manifest)


def discard(artifact: Artifact) -> None:
    """Remove the manifest, then every file that it lists, then a folder that is empty by that."""
    assert artifact.manifest is not None
    manifest_path(artifact.path).unlink(missing_ok=True)
    for path in artifact.paths:
        path.unlink(missing_ok=True)
    if len(artifact.manifest.files) > 1:
        with contextlib.suppress(OSError):  # something else is in it
            artifact.path.parent.rmdir()


def _in_child(job: AnyJob, progress: Progress) -> Found:
    kind: type[Found] = EncoderVerification if job.is_encoder else Verification
    with child.start(MODULE, job.to_json()) as messages:
        for message in messages:
            if "verification" in message:
                return parse(message["verification"], kind, "the verifying process")
            progress(*message["progress"])
    raise EdgeGaugeError("the verifying process ended without a result")


def work(job: dict[str, Any], send: child.Send) -> None:
    """In the child: do the job of `Job.to_json`."""
    asked = Job.from_json(job)
    # The reference divides its work itself; read when NumPy is loaded, which it is not yet.
    os.environ["OPENBLAS_NUM_THREADS"] = "1"

    def progress(done: float, note: str) -> None:
        send({"progress": [done, note]})

    found = verifier_for(asked).verify(asked, progress)
    send({"verification": found.model_dump(mode="json")})


if __name__ == "__main__":
    sys.exit(child.serve(work))
