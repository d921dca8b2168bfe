"""Verifying encoders: `verify.py` for models that turn texts into vectors.

    artifact = verified_encoder(artifact, spec, folder)     # refuses a broken one: ConversionError

How a format's artifacts are looked into is an entry point of the group
`edgegauge.encoder_verifiers`. The child's messages are those of `verify.py`.
"""

from __future__ import annotations

import os
import sys
from dataclasses import dataclass
from importlib.metadata import entry_points
from pathlib import Path
from typing import Any, Protocol

from edgegauge.artifact import Artifact
from edgegauge.document import parse
from edgegauge.encoder import EncoderSpec
from edgegauge.errors import EdgeGaugeError, InputError, MeasurementError
from edgegauge.measure import child
from edgegauge.measure.host import default_threads
from edgegauge.measure.runtimes import runtime_for
from edgegauge.verification import EncoderVerification
from edgegauge.verify import Progress, settled, told

GROUP = "edgegauge.encoder_verifiers"
MODULE = "edgegauge.verify_encoder"
"""What the child runs."""


@dataclass(frozen=True, slots=True, kw_only=True)
class EncoderVerificationJob:
    """What to verify: an artifact's main file, and the encoder it should compute."""

    path: Path
    file_format: str
    recipe: str
    spec: EncoderSpec
    folder: Path | None
    """The checkpoint, in Hugging Face form; None for synthetic weights."""
    threads: int

    def to_json(self) -> dict[str, Any]:
        """The form that `from_json` reads back."""
        return {
            "path": str(self.path),
            "file_format": self.file_format,
            "recipe": self.recipe,
            "spec": self.spec.model_dump(mode="json"),
            "folder": None if self.folder is None else str(self.folder),
            "threads": self.threads,
        }

    @classmethod
    def from_json(cls, value: dict[str, Any]) -> EncoderVerificationJob:
        """The job of `to_json`; trusted, since the parent wrote it."""
        folder = value["folder"]
        return cls(
            **value
            | {
                "path": Path(value["path"]),
                "spec": parse(value["spec"], EncoderSpec, "job"),
                "folder": None if folder is None else Path(folder),
            }
        )


class EncoderVerifier(Protocol):
    """Verifies artifacts of one file format, in this process."""

    def verify(self, job: EncoderVerificationJob, progress: Progress) -> EncoderVerification:
        """What was found; ConversionError, naming the place, for an artifact that is broken."""


def verified_encoder(
    artifact: Artifact,
    spec: EncoderSpec,
    folder: Path | None,
    *,
    threads: int | None = None,
    progress: Progress = lambda done, note: None,
) -> Artifact:
    """The artifact with the verification in its manifest; what becomes of others: `verified`."""
    assert artifact.manifest is not None  # the converter wrote it
    job = EncoderVerificationJob(
        path=artifact.path.absolute(),
        file_format=artifact.file_format,
        recipe=artifact.manifest.recipe,
        spec=spec,
        folder=folder and folder.absolute(),
        threads=threads or default_threads(),
    )

    def look() -> EncoderVerification:
        runtime_for(job.file_format).version()
        if not entry_points(group=GROUP, name=job.file_format):
            raise MeasurementError(f"nothing here verifies encoders in {job.file_format} files")
        return told(artifact, lambda: _in_child(job, progress))

    return settled(artifact, look)


def encoder_verifier_for(file_format: str) -> EncoderVerifier:
    """The registered verifier of this format; InputError if there is none."""
    for point in entry_points(group=GROUP, name=file_format):
        made: EncoderVerifier = point.load()()
        return made
    raise InputError(f"nothing here verifies encoders in {file_format} files")


def _in_child(job: EncoderVerificationJob, progress: Progress) -> EncoderVerification:
    with child.start(MODULE, job.to_json()) as messages:
        for message in messages:
            if "verification" in message:
                found = message["verification"]
                return parse(found, EncoderVerification, "the verifying process")
            progress(*message["progress"])
    raise EdgeGaugeError("the verifying process ended without a result")


def work(job: dict[str, Any], send: child.Send) -> None:
    """In the child: do the job of `EncoderVerificationJob.to_json`."""
    asked = EncoderVerificationJob.from_json(job)
    # The reference divides its work itself; read when NumPy is loaded, which it is not yet.
    os.environ["OPENBLAS_NUM_THREADS"] = "1"

    def progress(done: float, note: str) -> None:
        send({"progress": [done, note]})

    found = encoder_verifier_for(asked.file_format).verify(asked, progress)
    send({"verification": found.model_dump(mode="json")})


if __name__ == "__main__":
    sys.exit(child.serve(work))
