"""The parent of an evaluation: checks the input, starts the child, makes the result document."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from edgegauge import __version__
from edgegauge.artifact import Artifact
from edgegauge.errors import InputError, MeasurementError
from edgegauge.evaluate.result import EvaluationResult
from edgegauge.evaluate.task import Task, Text, read_task, read_text
from edgegauge.evaluate.worker import Job
from edgegauge.measure import child
from edgegauge.measure.facts import artifact_facts, digest_of, spec_of
from edgegauge.measure.host import default_threads
from edgegauge.measure.runtimes import runtime_for
from edgegauge.result import ArtifactFacts, Tool
from edgegauge.units import MB

MODULE = "edgegauge.evaluate"
"""What the child runs; tests put a stand-in here."""

LANE_BYTES = 32 * MB
"""Artifacts smaller than this are evaluated in lanes (`lanes.py`)."""

Progress = Callable[[float, str], None]
"""Called with the share done (0..1) of what the note says is being done."""


def evaluate(
    artifact: Artifact,
    *,
    task: Path | None = None,
    text: Path | None = None,
    limit: int | None = None,
    threads: int | None = None,
    progress: Progress = lambda done, note: None,
) -> EvaluationResult:
    """Exact match on the JSONL file `task`, perplexity on the file `text`, or both.

    `limit` keeps the first items of the task and the first windows of the text. Raises InputError
    for a file that is wrong and MeasurementError where the runtime fails.
    """
    if task is None and text is None:
        raise InputError("nothing to evaluate on: neither a task nor a text was given")
    runtime = runtime_for(artifact.file_format)
    tool = Tool(edgegauge=__version__, runtime=runtime.name, runtime_version=runtime.version())
    cores = threads or default_threads()
    job = _job(
        artifact,
        cores,
        task=read_task(task, limit) if task else None,
        text=read_text(text) if text else None,
        limit=limit,
    )
    progress(0.0, "hashing the artifact")
    digest = digest_of(artifact)
    answer = _in_child(job, progress)
    facts = artifact_facts(artifact, digest, answer.pop("facts"))
    return EvaluationResult(
        tool=tool,
        artifact=facts,
        threads=cores,
        warnings=_warnings(facts),
        created=datetime.now(UTC).isoformat(timespec="seconds"),
        **answer,
    )


def _job(
    artifact: Artifact, cores: int, *, task: Task | None, text: Text | None, limit: int | None
) -> Job:
    """The job of a small artifact has a lane for each core, that of a larger one a thread."""
    spec = spec_of(artifact)
    small = artifact.bytes < LANE_BYTES
    return Job(
        artifact=artifact.path.absolute(),
        file_format=artifact.file_format,
        model_context=spec.context if spec else None,
        task=task,
        text=text,
        limit=limit,
        threads=1 if small else cores,
        lanes=cores if small else 1,
    )


def _in_child(job: Job, progress: Progress) -> dict[str, Any]:
    """Run the job in a child process and follow its progress; returns its last message."""
    with child.start(MODULE, job.to_json()) as messages:
        for message in messages:
            if "progress" not in message:
                return message
            done, total, what = message["progress"]
            progress(done / total, f"{done} of {total} {what}")
    raise MeasurementError("the runtime's process ended without a result")


def _warnings(facts: ArtifactFacts) -> list[str]:
    if facts.synthetic:
        return ["the weights are random (synthetic), so these figures say nothing of the model"]
    return []
