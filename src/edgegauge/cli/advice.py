"""`edgegauge fit --advice`: what would make the failing candidates pass."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from rich.markup import escape
from rich.padding import Padding

from edgegauge.advice import Advice, Case, advise
from edgegauge.choose import Key, Verdict, explain
from edgegauge.cli.output import stdout, table, text_of
from edgegauge.fit import FitReport, Recipes, Subject

FIGURES = ("memory_bytes", "ttft_s", "decode_tok_per_s")


def advice_on(
    report: FitReport, subjects: Iterable[Subject], recipes: Recipes
) -> dict[Key, list[Advice]]:
    """Advice on every candidate of these subjects that fails."""
    known = {subject.spec.id: subject for subject in subjects}
    found = {}
    for prediction, verdict in report.rows():
        subject = known.get(prediction.model)
        if subject is None or verdict.passes:
            continue
        case = Case(
            device=report.device, spec=subject.spec, recipe=prediction.recipe,
            file_format=prediction.file_format, context=prediction.context,
            prompt_tokens=prediction.prompt_tokens, quality=subject.quality,
        )  # fmt: skip
        found[verdict.candidate.key] = advise(case, report.budget, recipes[case.file_format])
    return found


def with_advice(document: dict[str, Any], found: dict[Key, list[Advice]]) -> dict[str, Any]:
    """The document of `fit --json` with `advice` in each candidate that fails."""
    for candidate in document["candidates"]:
        key = candidate["model"], candidate["recipe"], candidate["format"]
        if key in found:
            candidate["advice"] = [_json(advice) for advice in found[key]]
    return document


def _json(advice: Advice) -> dict[str, Any]:
    return {
        "change": advice.kind,
        "value": advice.value,
        "mends": advice.mends,
        "passes": advice.verdict.passes,
        "broken": [broken.limit for broken in advice.verdict.broken],
        "uncertain": advice.verdict.uncertain,
        "reason": explain(advice.verdict),
    }


def show_advice(report: FitReport, found: dict[Key, list[Advice]]) -> None:
    """Under each failing candidate the changes that mend a limit, and what then still breaks."""
    console = stdout()
    for _, verdict in report.rows():
        key = verdict.candidate.key
        if not found.get(key):
            continue
        console.print(
            f"\n[bold]{escape(' '.join(key))}[/] {escape(explain(verdict))}", soft_wrap=True
        )
        made = table("with", "memory", "first token", "decode", "then")
        for advice in found[key]:
            figures = map(advice.verdict.candidate.figure, FIGURES)
            made.add_row(
                advice.change,
                *map(text_of, figures),
                _then(advice.verdict),
            )
        console.print(Padding(made, (0, 0, 0, 2)))
    if helpless := [" ".join(key) for key, advice in found.items() if not advice]:
        console.print(
            "\nNo single change of recipe, context, prompt, threads or memory helps "
            + escape(", ".join(helpless)),
            soft_wrap=True,
        )


def _then(verdict: Verdict) -> str:
    if not verdict.passes:
        return escape(explain(verdict))
    return "meets every limit" + (" (uncertain)" if verdict.uncertain else "")
