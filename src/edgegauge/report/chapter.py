"""What one part of a page is made from: a summary, and the result files behind it.

A run's summary stands alone; the sections of raw data (curves, traces, distributions) come from the
results, and a summary without results has none of them.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from edgegauge.graph_result import GraphResult
from edgegauge.report.summary import RunSummary
from edgegauge.result import ArtifactFacts, FailedResult, Result


@dataclass(frozen=True, slots=True)
class Chapter:
    """One run, or the loose results of one machine."""

    summary: RunSummary
    results: Sequence[Result] = ()
    """All of them, the newest of each subject and workload."""
    shown: Sequence[Result] = ()
    """Those whose figures are the rows of the table."""
    graphs: Sequence[GraphResult] = ()
    failed: Sequence[FailedResult] = ()


@dataclass(frozen=True, slots=True)
class Subject:
    """What one line of a picture is about: an artifact, and how it was executed."""

    artifact: str
    runtime: str
    threads: int
    prompt: str | None
    """SHA-256 of the text; None: random tokens."""


def identity_of(facts: ArtifactFacts) -> str:
    """What tells artifacts apart: the hash, or of a file that nobody hashed name and size."""
    return facts.sha256 or f"{facts.name}, {facts.file_bytes} bytes"


def subject_of(result: Result) -> Subject:
    """The subject of a result."""
    load = result.workload
    prompt = load.prompt.sha256 if load.prompt else None
    return Subject(identity_of(result.artifact), result.tool.runtime, load.threads, prompt)
