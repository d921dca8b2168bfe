"""From paths to chapters of a page: summaries as they are, results as one row per artifact.

    gather([Path("edgegauge-run"), Path("a.measure.json"), Path("a.evaluate.json")])

A run folder stands for its `summary.json` and the results behind it; any other folder for the
result files in it and in its `results` folder. Results of different machines become different
chapters.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from edgegauge.choose import Candidate, frontier_of
from edgegauge.document import parse, read_json, read_json_object
from edgegauge.errors import InputError
from edgegauge.evaluate.result import EvaluationResult
from edgegauge.figure import Figure
from edgegauge.graph_result import GraphResult
from edgegauge.report.chapter import Chapter, identity_of
from edgegauge.report.rows import newest, shape_of, shape_text, table_results
from edgegauge.report.shown import clean
from edgegauge.report.summary import (
    CandidateFigures,
    CandidateRow,
    RunSummary,
    battery_of,
    energy_notes,
)
from edgegauge.result import ArtifactFacts, FailedResult, Result

SUMMARY = "summary.json"
INDEX = "sweep.json"
"""The index of a sweep's folder, which says nothing that the results in it do not."""
KINDS = "a run's summary.json, a result of `edgegauge measure` or one of `edgegauge evaluate`"


@dataclass(slots=True)
class _Found:
    """What was read, apart by kind."""

    summaries: list[RunSummary] = field(default_factory=list)
    results: list[Result] = field(default_factory=list)
    graphs: list[GraphResult] = field(default_factory=list)
    failures: list[FailedResult] = field(default_factory=list)
    evaluations: list[EvaluationResult] = field(default_factory=list)


def gather(paths: Iterable[Path]) -> list[Chapter]:
    """One chapter per run and one per machine of loose results; InputError names what is wrong."""
    found = _Found()
    chapters: list[Chapter] = []
    for path in paths:
        folder = path.parent if path.name == SUMMARY else path
        if (folder / SUMMARY).is_file():
            chapters.append(_run_chapter(folder))
            continue
        for file in _files(path):
            _read(file, found)
    chapters += [Chapter(summary) for summary in found.summaries]
    return _with_failures(
        [*chapters, *merged(found.results, found.evaluations, found.graphs)], found.failures
    )


def _run_chapter(folder: Path) -> Chapter:
    """A run with those results in its folder that its summary was made from."""
    summary = read_json(folder / SUMMARY, RunSummary)
    found = _Found()
    for file in sorted(folder.glob("results/*.measure.json")):
        _read(file, found)
    rows = {(row.model, row.recipe, row.format) for row in summary.measured}
    ours = [
        r
        for r in found.results
        if r.workload == summary.workload
        and (r.artifact.model, r.artifact.recipe, r.artifact.format) in rows
    ]
    results, _ = newest(ours)
    behind = tuple(results)
    return Chapter(summary, results=behind, shown=behind)


def _with_failures(chapters: list[Chapter], failures: Sequence[FailedResult]) -> list[Chapter]:
    """Failed measurements where their machine is shown; InputError where there is nothing else."""
    if failures and not chapters:
        told = [f"{f.artifact.name} could not be measured: {f.failures[-1].reason}"
                for f in failures]  # fmt: skip
        raise InputError("nothing to report: every measurement failed", told)
    places = [_machine(c.summary.host) for c in chapters]
    theirs: list[list[FailedResult]] = [[] for _ in chapters]
    for failure in failures:
        place = _machine(failure.host)
        theirs[places.index(place) if place in places else 0].append(failure)
    return [replace(c, failed=tuple(f)) for c, f in zip(chapters, theirs, strict=True)]


def _machine(host: dict[str, Any]) -> tuple[str, str]:
    """What tells machines apart."""
    return str(host.get("cpu_model")), str(host.get("name"))


def _files(path: Path) -> list[Path]:
    if not path.is_dir():
        return [path]
    files = sorted([*path.glob("*.json"), *path.glob("results/*.json")])
    files = [f for f in files if not f.name.endswith((".manifest.json", INDEX))]
    if not files:
        raise InputError(f"nothing to report in {path}", hint=f"expected there: {KINDS}")
    return files


def _read(path: Path, found: _Found) -> None:
    """Read one file by what it holds, since names say nothing."""
    value = read_json_object(path)
    where = str(path)
    if "explanation" in value:
        found.summaries.append(parse(value, RunSummary, where))
    elif "graph" in value and "samples" in value:
        found.graphs.append(parse(value, GraphResult, where))
    elif "samples" in value:
        found.results.append(parse(value, Result, where))
    elif "failures" in value:
        found.failures.append(parse(value, FailedResult, where))
    elif "accuracy" in value or "perplexity" in value:
        found.evaluations.append(parse(value, EvaluationResult, where))
    else:
        raise InputError(f"not a result file: {path}", hint=f"expected {KINDS}")


def merged(
    results: Sequence[Result],
    evaluations: Sequence[EvaluationResult],
    graphs: Sequence[GraphResult] = (),
) -> list[Chapter]:
    """A chapter for each machine, and one for evaluations of artifacts that nobody measured."""
    machines: dict[tuple[str, str], _Found] = {}
    for result in results:
        machines.setdefault(_machine(result.host), _Found()).results.append(result)
    for graph in graphs:
        machines.setdefault(_machine(graph.host), _Found()).graphs.append(graph)
    measured = {identity_of(result.artifact) for result in results}
    alone = [e for e in evaluations if identity_of(e.artifact) not in measured]
    for group in machines.values():
        ours = {identity_of(result.artifact) for result in group.results}
        group.evaluations += [e for e in evaluations if identity_of(e.artifact) in ours]
    groups = [*machines.values(), *([_Found(evaluations=alone)] if alone else [])]
    return [_chapter(group) for group in groups]


def _chapter(found: _Found) -> Chapter:
    """One machine: a row for each artifact, and everything that was measured for the sections."""
    results, several = newest(found.results)
    warnings = [f"{name}: measured more than once; the newest is shown" for name in several]
    speeds = table_results(results)
    qualities = _newest_evaluations(found.evaluations, warnings)
    rows = [
        _row(speeds.get(sha), qualities.get(sha)) for sha in dict.fromkeys([*speeds, *qualities])
    ]
    shown = list(speeds.values())
    warnings += _doubts(results, shown, list(qualities.values()))
    warnings += [f"{clean(g.graph.name)}: {w}" for g in found.graphs for w in g.warnings]
    documents: list[Result | GraphResult | EvaluationResult]
    documents = [*found.results, *found.graphs, *found.evaluations]
    newest_one = max(documents, key=lambda d: d.created)
    summary = RunSummary(
        title=_title(rows, found.graphs),
        created=newest_one.created,
        host=_host(found),
        measured=_with_frontier(rows),
        explanation=_explanation(rows, results, shown, found.graphs),
        quality_metric="exact_match",
        workload=shown[0].workload if shown else None,
        energy_notes=energy_notes(shown),
        tools={"edgegauge": newest_one.tool.edgegauge}
        | {d.tool.runtime: d.tool.runtime_version for d in documents},
        warnings=list(dict.fromkeys(warnings)),
    )
    return Chapter(summary, results, shown, found.graphs)


def _host(found: _Found) -> dict[str, Any]:
    """What the first result says of the machine."""
    hosts = [r.host for r in found.results] + [g.host for g in found.graphs]
    return hosts[0] if hosts else {}


def _title(rows: Sequence[CandidateRow], graphs: Sequence[GraphResult]) -> str:
    names = [f"{row.model} {row.recipe}".strip() for row in rows] + [g.graph.name for g in graphs]
    return names[0] if len(names) == 1 else "Results"


def _explanation(
    rows: Sequence[CandidateRow],
    results: Sequence[Result],
    shown: Sequence[Result],
    graphs: Sequence[GraphResult],
) -> str:
    parts = []
    if rows:
        parts.append(f"{_counted(len(rows), 'artifact')} from result files; without a budget none "
                     "is recommended.")  # fmt: skip
    shapes = list(dict.fromkeys(shape_text(result.workload) for result in shown))
    if len(results) > len(shown):
        parts.append(
            f"The table has one of {_counted(len(results), 'result')} for each artifact"
            + (f": {shapes[0]}." if len(shapes) == 1 else ", the plainest.")
        )
    if graphs:
        parts.append(f"{_counted(len(graphs), 'graph')} that {'is' if len(graphs) == 1 else 'are'} "
                     "no language model.")  # fmt: skip
    return " ".join(parts)


def _counted(number: int, noun: str) -> str:
    return f"{number} {noun}{'s' * (number != 1)}"


def _newest_evaluations(
    evaluations: Sequence[EvaluationResult], warnings: list[str]
) -> dict[str, EvaluationResult]:
    """The newest evaluation of each artifact."""
    kept: dict[str, EvaluationResult] = {}
    for document in sorted(evaluations, key=lambda d: d.created):
        facts = document.artifact
        if identity_of(facts) in kept:
            warnings.append(f"{facts.name}: evaluated more than once; the newest is shown")
        kept[identity_of(facts)] = document
    return kept


def _doubts(
    results: Sequence[Result], shown: Sequence[Result], evaluations: Sequence[EvaluationResult]
) -> list[str]:
    """What keeps the figures of a page from being comparable or trusted."""
    documents: list[Result | EvaluationResult] = [*results, *evaluations]
    found = [f"{d.artifact.name}: {w}" for d in documents for w in d.warnings]
    if len({shape_of(r.workload) for r in shown}) > 1:
        found.append("not all were measured under the same workload: speeds do not compare")
        found += [f"{r.artifact.name}: its row is of {shape_text(r.workload)}" for r in shown]
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
