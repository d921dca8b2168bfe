"""From runs to a result document: figures, facts, findings, and failures told as what they are."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import psutil

from edgegauge.artifact import Artifact
from edgegauge.errors import MeasurementError, RunTimeout
from edgegauge.measure import trust
from edgegauge.measure.child import HINTS
from edgegauge.measure.facts import artifact_facts
from edgegauge.measure.failures import described
from edgegauge.measure.finding import Finding
from edgegauge.measure.memory_outcome import outcome
from edgegauge.measure.series import Series
from edgegauge.measure.summary import rates_of, summarise
from edgegauge.result import FailedResult, Failure, Result, Tool


@dataclass(frozen=True, slots=True, kw_only=True)
class Circumstances:
    """What all configurations of one call share."""

    artifact: Artifact
    digest: str
    tool: Tool
    host: dict[str, Any]
    findings: list[Finding]
    """Of the host, while the runs went on."""
    refaulted_pages: int | None
    """Re-read by the whole system meanwhile; None where unknown, or where runs of several
    configurations share it."""


def result_of(series: Series, shared: Circumstances, warnings: list[str]) -> Result | FailedResult:
    """The result of one configuration; a FailedResult where no run of it ended well."""
    runs = series.runs
    facts = runs[0].runtime_facts if runs else {}
    common: dict[str, Any] = {
        "tool": shared.tool,
        "artifact": artifact_facts(shared.artifact, shared.digest, facts),
        "host": shared.host,
        "workload": series.workload,
        "failures": series.failures,
        "created": now(),
    }
    if not runs:
        told = [*warnings, *(str(finding) for finding in shared.findings)]
        return FailedResult(**common, warnings=told)
    findings = [
        *failed_findings(shared.artifact.name, series.failures, series.tried),
        *trust.of_runs(
            runs, rates_of(runs, series.workload), refaulted_pages=shared.refaulted_pages
        ),
        *shared.findings,
    ]
    source = facts.get("source", f"{shared.tool.runtime} {shared.tool.runtime_version}")
    summary = summarise(runs, series.workload, source)
    stayed = outcome(runs, refaulted_pages=shared.refaulted_pages)
    memory = summary.memory.model_copy(update={"outcome": stayed})
    return Result(
        **common,
        samples=runs,
        summary=summary.model_copy(update={"memory": memory}),
        warnings=[*warnings, *(str(finding) for finding in findings)],
        trustworthy=not any(finding.spoils for finding in findings),
    )


def now() -> str:
    """UTC time as result files have it."""
    return datetime.now(UTC).isoformat(timespec="seconds")


def children_cpu_s() -> float:
    """CPU time of all children that have been waited for."""
    times = psutil.Process().cpu_times()
    return float(getattr(times, "children_user", 0.0) + getattr(times, "children_system", 0.0))


def failed_findings(name: str, failures: Sequence[Failure], tried: int) -> Iterator[Finding]:
    """A finding for each run of the artifact that failed, of so many that were tried."""
    for failure in failures:
        text = f"run {failure.run + 1} of {tried} failed and is left out: "
        yield Finding(text + described(name, failure), True, HINTS[failure.kind])


def error_of(failed: FailedResult) -> MeasurementError:
    """The error that a failed result is."""
    return error_from(f"{failed.artifact.name}.{failed.artifact.format}", failed.failures)


def error_from(name: str, failures: Sequence[Failure]) -> MeasurementError:
    """The last of these failures as an error; RunTimeout where all were too late."""
    last = failures[-1]
    late = all(failure.kind == "timeout" for failure in failures)
    kind = RunTimeout if late else MeasurementError
    return kind(described(name, last), hint=HINTS[last.kind])
