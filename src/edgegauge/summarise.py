"""From finished steps to the answer: figures of each candidate, the choice, and the summary.

    summary = summarise(plan, outcomes, predictions)

Pure but for the clock: it reads result objects and decides with `choose`.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from edgegauge import __version__, catalog, device
from edgegauge.artifact import Artifact, FileFormat
from edgegauge.budget import DEFAULT_METRIC, Budget
from edgegauge.choose import Candidate, Choice, Verdict, choose, explain, explain_choice
from edgegauge.evaluate.result import EvaluationResult
from edgegauge.figure import Figure
from edgegauge.find_model import resolve_model
from edgegauge.fit import FitReport, Subject, fit, published_quality, recipes_for
from edgegauge.plan import Plan, PlanPrediction, locate
from edgegauge.report.summary import (
    BrokenLimit,
    CandidateFigures,
    CandidateKey,
    CandidateRow,
    DeviceFacts,
    DevicePrediction,
    RunSummary,
    battery_of,
    energy_notes,
)
from edgegauge.result import Result

MEASURED_METRIC = "exact_match"
"""The quality that an evaluation on a task gives."""


@dataclass(frozen=True, slots=True)
class Outcome:
    """What one candidate came to: its files, or the reason it has none."""

    model: str
    recipe: str
    format: FileFormat
    artifact: Artifact | None = None
    result: Result | None = None
    evaluation: EvaluationResult | None = None
    failure: str | None = None


def summarise(
    plan: Plan,
    outcomes: Iterable[Outcome],
    predicted: list[DevicePrediction],
    left_out: Iterable[str] = (),
) -> RunSummary:
    """The summary of a run; failed candidates become rows without figures, after the others.

    `left_out` says what of the plan was not tried, and becomes the first warnings.
    """
    outcomes = list(outcomes)
    metric = plan.budget.quality.metric if plan.budget.quality else MEASURED_METRIC
    finished = [o for o in outcomes if o.failure is None]
    choice = choose([candidate_of(o, metric) for o in finished], plan.budget)
    results = [o.result for o in finished if o.result]
    rows = measured_rows(choice, finished)
    return RunSummary(
        title=plan.title,
        created=datetime.now(UTC).isoformat(timespec="seconds"),
        host=results[0].host if results else {},
        budget=limits_of(plan.budget),
        measured=rows + [failed_row(o) for o in outcomes if o.failure is not None],
        predicted=predicted,
        recommended=key_of(choice.recommended),
        explanation=explain_choice(choice),
        quality_metric=metric,
        workload=results[0].workload if results else None,
        tools=_tools(results),
        energy_notes=energy_notes(results),
        trustworthy=not _in_doubt(finished, choice),
        warnings=[*left_out, *_not_predicted(plan), *_warnings(finished)],
    )


def candidate_of(outcome: Outcome, metric: str) -> Candidate:
    """A finished outcome as a candidate; `metric` names what its quality counts."""
    assert outcome.artifact and outcome.artifact.manifest and outcome.result
    manifest, summary = outcome.artifact.manifest, outcome.result.summary
    evaluation = outcome.evaluation
    accuracy = evaluation.accuracy if evaluation else None
    perplexity = evaluation.perplexity if evaluation else None
    figures: dict[str, Figure | None] = {
        "decode_tok_per_s": summary.decode_tok_per_s,
        "prefill_tok_per_s": summary.prefill_tok_per_s,
        "ttft_s": summary.ttft_s.tail if summary.ttft_s else None,
        "peak_memory_bytes": summary.memory.peak_rss_bytes,
        "energy_j_per_token": summary.energy_j_per_token,
        **battery_of(summary),
        "quality": accuracy.exact_match if accuracy and metric == MEASURED_METRIC else None,
        "perplexity": perplexity.perplexity if perplexity else None,
    }
    return Candidate(
        model=manifest.model,
        recipe=manifest.recipe,
        format=manifest.file_format,
        parameters=manifest.parameters,
        file_bytes=sum(file.bytes for file in manifest.files),
        effective_bits=manifest.effective_bits,
        figures=figures,
        on_disk=True,
    )


def measured_rows(choice: Choice, outcomes: list[Outcome]) -> list[CandidateRow]:
    """The rows of measured candidates, smallest file first."""
    synthetic = {
        o.artifact.manifest.model: o.artifact.manifest.origin.synthetic
        for o in outcomes
        if o.artifact and o.artifact.manifest
    }
    return rows_of(choice, synthetic)


def rows_of(choice: Choice, synthetic: dict[str, bool] | None = None) -> list[CandidateRow]:
    """A choice as rows of a summary, smallest file first."""
    verdicts = sorted(choice.verdicts, key=lambda v: (v.candidate.file_bytes, v.candidate.key))
    return [_row(v, choice, (synthetic or {}).get(v.candidate.model, False)) for v in verdicts]


def _row(verdict: Verdict, choice: Choice, synthetic: bool) -> CandidateRow:
    candidate = verdict.candidate
    return CandidateRow(
        model=candidate.model,
        recipe=candidate.recipe,
        format=candidate.format,
        parameters=candidate.parameters,
        file_bytes=candidate.file_bytes,
        effective_bits=candidate.effective_bits,
        passes=verdict.passes,
        broken=[
            BrokenLimit(limit=b.limit, required=b.required, figure=b.figure) for b in verdict.broken
        ],
        reason=explain(verdict),
        frontier=candidate.key in choice.frontier,
        synthetic=synthetic,
        figures=CandidateFigures(
            **{name: candidate.figure(name) for name in CandidateFigures.model_fields}
        ),
    )


def failed_row(outcome: Outcome) -> CandidateRow:
    """A candidate that came to nothing, with the reason and no figures."""
    return CandidateRow(
        model=outcome.model,
        recipe=outcome.recipe,
        format=outcome.format,
        file_bytes=outcome.artifact.bytes if outcome.artifact else 0,
        passes=False,
        reason=f"not finished: {outcome.failure}",
    )


def key_of(candidate: Candidate | None) -> CandidateKey | None:
    """What tells a candidate apart, or None."""
    if candidate is None:
        return None
    return CandidateKey(model=candidate.model, recipe=candidate.recipe, format=candidate.format)


def predicted(asked: PlanPrediction, base: Path) -> DevicePrediction:
    """Models on a device that is not here; paths are relative to `base`. Raises InputError."""
    metric = asked.budget.quality.metric if asked.budget.quality else DEFAULT_METRIC
    found = [resolve_model(locate(name, base)) for name in asked.models or catalog.known_ids()]
    subjects = [
        Subject(f.spec, published_quality(f.entry, metric) if f.entry else None) for f in found
    ]
    recipes, _ = recipes_for(asked.formats, asked.recipes)
    profile = device.load(locate(asked.device, base))
    return prediction_of(fit(profile, subjects, recipes, asked.budget, metric=metric))


def _not_predicted(plan: Plan) -> list[str]:
    """What the plan's predictions leave out, each said once."""
    sentences = [s for asked in plan.predict for s in recipes_for(asked.formats, asked.recipes)[1]]
    return [f"not predicted: {sentence}" for sentence in dict.fromkeys(sentences)]


def prediction_of(report: FitReport) -> DevicePrediction:
    """A fit as the summary holds it."""
    profile = report.device
    return DevicePrediction(
        device=DeviceFacts(
            id=profile.id, name=profile.name, app_memory_bytes=profile.app_memory_bytes
        ),
        candidates=rows_of(report.choice),
        recommended=key_of(report.choice.recommended),
        explanation=explain_choice(report.choice),
        budget=limits_of(report.budget),
        quality_metric=report.metric,
    )


def limits_of(budget: Budget) -> dict[str, Any]:
    """The limits that a budget sets, as in its file."""
    return budget.model_dump(mode="json", exclude_none=True, exclude={"format"})


def _in_doubt(outcomes: list[Outcome], choice: Choice) -> bool:
    """Whether a disturbed measurement leaves open if its candidate meets a limit.

    Where every interval lies on one side of its limit, a disturbance changes no verdict.
    """
    return any(
        outcome.result and not outcome.result.trustworthy and verdict.uncertain
        for outcome, verdict in zip(outcomes, choice.verdicts, strict=True)
    )


def _tools(results: list[Result]) -> dict[str, str]:
    tools = {"edgegauge": __version__}
    return tools | {r.tool.runtime: r.tool.runtime_version for r in results}


def _warnings(outcomes: list[Outcome]) -> list[str]:
    """Every warning once, with the artifacts it is about."""
    about: dict[str, list[str]] = {}
    for outcome in outcomes:
        assert outcome.artifact
        for source in (outcome.result, outcome.evaluation):
            for warning in source.warnings if source else ():
                name = f"{outcome.artifact.name} ({outcome.format})"
                about.setdefault(warning, []).append(name)
    return [f"{', '.join(dict.fromkeys(names))}: {warning}" for warning, names in about.items()]
