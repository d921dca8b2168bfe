"""From paths to what a page shows: summaries as they are, results merged into one row per artifact.

    gather([Path("edgegauge-run"), Path("a.measure.json"), Path("a.evaluate.json")])

A run folder stands for its `summary.json`; any other folder for the result files in it and in its
`results` folder. Results of different machines become different summaries.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from edgegauge.choose import Candidate, frontier_of
from edgegauge.document import parse, read_json_object
from edgegauge.errors import InputError
from edgegauge.evaluate.result import EvaluationResult
from edgegauge.figure import Figure
from edgegauge.report.summary import (
    CandidateFigures,
    CandidateRow,
    RunSummary,
    battery_of,
    energy_notes,
)
from edgegauge.result import ArtifactFacts, FailedResult, Result

SUMMARY = "summary.json"
KINDS = "a run's summary.json, a result of `edgegauge measure` or one of `edgegauge evaluate`"


@dataclass(slots=True)
class _Found:
    """What was read, apart by kind."""

    summaries: list[RunSummary] = field(default_factory=list)
    results: list[Result] = field(default_factory=list)
    failures: list[FailedResult] = field(default_factory=list)
    evaluations: list[EvaluationResult] = field(default_factory=list)


def gather(paths: Iterable[Path]) -> list[RunSummary]:
    """One summary per run and one per machine of loose results; InputError names what is wrong."""
    found = _Found()
    for path in paths:
        for file in _files(path):
            _read(file, found)
    made = [*found.summaries, *_merged(found.results, found.evaluations)]
    return _with_failures(made, found.failures)


def _with_failures(made: list[RunSummary], failures: Sequence[FailedResult]) -> list[RunSummary]:
    """Failed measurements as warnings of the first page; InputError where there is nothing else."""
    told = [f"{f.artifact.name} could not be measured: {f.failures[-1].reason}" for f in failures]
    if told and not made:
        raise InputError("nothing to report: every measurement failed", told)
    if not told:
        return made
    first = made[0].model_copy(update={"warnings": [*made[0].warnings, *told]})
    return [first, *made[1:]]


def _files(path: Path) -> list[Path]:
    if not path.is_dir():
        return [path]
    if (path / SUMMARY).is_file():
        return [path / SUMMARY]
    files = sorted([*path.glob("*.json"), *path.glob("results/*.json")])
    files = [f for f in files if not f.name.endswith(".manifest.json")]
    if not files:
        raise InputError(f"nothing to report in {path}", hint=f"expected there: {KINDS}")
    return files


def _read(path: Path, found: _Found) -> None:
    """Read one file by what it holds, since names say nothing."""
    value = read_json_object(path)
    where = str(path)
    if "explanation" in value:
        found.summaries.append(parse(value, RunSummary, where))
    elif "samples" in value:
        found.results.append(parse(value, Result, where))
    elif "failures" in value:
        found.failures.append(parse(value, FailedResult, where))
    elif "accuracy" in value or "perplexity" in value:
        found.evaluations.append(parse(value, EvaluationResult, where))
    else:
        raise InputError(f"not a result file: {path}", hint=f"expected {KINDS}")


def _merged(results: Sequence[Result], evaluations: Sequence[EvaluationResult]) -> list[RunSummary]:
    """Results by machine, and evaluations of artifacts that nobody measured."""
    machines: dict[tuple[Any, Any], list[Result]] = {}
    for result in results:
        key = (result.host.get("cpu_model"), result.host.get("name"))
        machines.setdefault(key, []).append(result)
    measured = {_identity(result.artifact) for result in results}
    alone = [e for e in evaluations if _identity(e.artifact) not in measured]
    made = [_summary(group, evaluations) for group in machines.values()]
    return [*made, _summary([], alone)] if alone else made


def _summary(results: Sequence[Result], evaluations: Sequence[EvaluationResult]) -> RunSummary:
    """One machine's results with the evaluations of the same artifacts; the newest of each wins."""
    warnings: list[str] = []
    speeds = _newest(results, "measured", warnings)
    qualities = _newest(evaluations, "evaluated", warnings) if not results else {}
    if results:
        ours = [e for e in evaluations if _identity(e.artifact) in speeds]
        qualities = _newest(ours, "evaluated", warnings)
    rows = [
        _row(speeds.get(sha), qualities.get(sha)) for sha in dict.fromkeys([*speeds, *qualities])
    ]
    workloads = [result.workload for result in speeds.values()]
    warnings += _doubts(list(speeds.values()), list(qualities.values()))
    documents: list[Result | EvaluationResult] = [*results, *evaluations]
    newest = max(documents, key=lambda d: d.created)
    tool = newest.tool
    noun = "artifact" if len(rows) == 1 else "artifacts"
    return RunSummary(
        title=f"{rows[0].model} {rows[0].recipe}".strip() if len(rows) == 1 else "Results",
        created=newest.created,
        host=results[0].host if results else {},
        measured=_with_frontier(rows),
        explanation=f"{len(rows)} {noun} from result files; without a budget none is recommended.",
        quality_metric="exact_match",
        workload=workloads[0] if workloads else None,
        energy_notes=energy_notes(speeds.values()),
        tools={"edgegauge": tool.edgegauge, tool.runtime: tool.runtime_version},
        warnings=warnings,
    )


def _newest(documents: Sequence[Any], verb: str, warnings: list[str]) -> dict[str, Any]:
    """The newest document of each artifact, by what identifies it."""
    kept: dict[str, Any] = {}
    for document in sorted(documents, key=lambda d: d.created):
        facts = document.artifact
        if _identity(facts) in kept:
            warnings.append(f"{facts.name}: {verb} more than once; the newest is shown")
        kept[_identity(facts)] = document
    return kept


def _identity(facts: ArtifactFacts) -> str:
    """What tells artifacts apart: the hash, or of a file that nobody hashed name and size."""
    return facts.sha256 or f"{facts.name}, {facts.file_bytes} bytes"


def _doubts(results: Sequence[Result], evaluations: Sequence[EvaluationResult]) -> list[str]:
    """What keeps the figures of a page from being comparable or trusted."""
    documents: list[Result | EvaluationResult] = [*results, *evaluations]
    found = [f"{d.artifact.name}: {w}" for d in documents for w in d.warnings]
    if len({r.workload.model_dump_json() for r in results}) > 1:
        found.append("not all were measured under the same workload: speeds do not compare")
    if len({e.accuracy.task.sha256 for e in evaluations if e.accuracy}) > 1:
        found.append("not all were asked the same task: exact matches do not compare")
    if len({e.perplexity.text.sha256 for e in evaluations if e.perplexity}) > 1:
        found.append("not all read the same text: perplexities do not compare")
    return found


def _row(result: Result | None, evaluation: EvaluationResult | None) -> CandidateRow:
    source = result or evaluation
    assert source is not None  # every hash comes from one of the two
    facts: ArtifactFacts = source.artifact
    return CandidateRow(
        model=facts.model,
        recipe=facts.recipe or "",
        format=facts.format,
        parameters=facts.parameters,
        file_bytes=facts.file_bytes,
        effective_bits=facts.effective_bits,
        passes=True,
        reason="no budget was given",
        synthetic=facts.synthetic,
        figures=_figures(result, evaluation),
    )


def _figures(result: Result | None, evaluation: EvaluationResult | None) -> CandidateFigures:
    found: dict[str, Figure | None] = {}
    if result:
        summary = result.summary
        found |= {
            "decode_tok_per_s": summary.decode_tok_per_s,
            "prefill_tok_per_s": summary.prefill_tok_per_s,
            "ttft_s": summary.ttft_s.tail if summary.ttft_s else None,
            "peak_memory_bytes": summary.memory.peak_rss_bytes,
            "energy_j_per_token": summary.energy_j_per_token,
            **battery_of(summary),
        }
    if evaluation:
        if evaluation.accuracy:
            found["quality"] = evaluation.accuracy.exact_match
        if evaluation.perplexity:
            found["perplexity"] = evaluation.perplexity.perplexity
    return CandidateFigures(**found)


def _with_frontier(rows: list[CandidateRow]) -> list[CandidateRow]:
    """The rows with the frontier marked (`choose.frontier_of`)."""
    candidates = [
        Candidate(
            model=str(index),
            recipe=row.recipe,
            format=row.format,
            parameters=row.parameters or 0,
            file_bytes=row.file_bytes,
            effective_bits=row.effective_bits or 0.0,
            figures=dict(row.figures),
        )
        for index, row in enumerate(rows)
    ]
    frontier = frontier_of(candidates)
    return [
        row.model_copy(update={"frontier": candidate.key in frontier})
        for row, candidate in zip(rows, candidates, strict=True)
    ]
