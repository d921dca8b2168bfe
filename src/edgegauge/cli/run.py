"""`edgegauge run`: the whole job from a plan, ending with the table, the choice and the reasons."""

from __future__ import annotations

from pathlib import Path

import click
from rich.markup import escape
from rich.table import Table

from edgegauge.cli.budget_options import BudgetFlags, budget_options
from edgegauge.cli.output import emit_json, json_option, stderr, stdout, table, text_of, warn
from edgegauge.document import write_json
from edgegauge.errors import (
    EXIT_BROKEN_BUDGET,
    EXIT_DONE,
    EXIT_NOT_TRUSTWORTHY,
    MissingDependency,
)
from edgegauge.pipeline import execute
from edgegauge.plan import read_plan
from edgegauge.report.shown import value_of
from edgegauge.report.summary import CandidateKey, CandidateRow, DevicePrediction, RunSummary
from edgegauge.units import format_bytes

PREDICTED_ROWS = 6
"""Rows of a predicted device that the terminal shows; the report has them all."""

WARNINGS = 6
"""Warnings that the terminal shows."""


@click.command("run")
@click.argument("plan", required=False, type=click.Path(exists=True, path_type=Path))
@click.option(
    "-o",
    "--output",
    default="edgegauge-run",
    show_default=True,
    type=click.Path(file_okay=False, path_type=Path),
    help="Folder for artifacts, results and the report; a killed run goes on from it.",
)
@budget_options
@json_option
def command(plan: Path | None, output: Path, limits: BudgetFlags, as_json: bool) -> int:
    """Convert, measure, evaluate and choose, as PLAN says (default: the built-in example).

    The exit status is 3 where no candidate meets the budget, and 4 where a disturbed measurement
    leaves open whether one does.
    """
    read, base = read_plan(plan)
    read = read.model_copy(update={"budget": limits.apply(read.budget)})
    summary = execute(read, base, output, _talk)
    write_json(output / "summary.json", summary.model_dump(mode="json"))
    page = _write_page(output)
    if as_json:
        emit_json(summary.model_dump(mode="json"))
    else:
        _print(summary)
    _warn(summary.warnings)
    written = f"{output}/summary.json, {output}/results" + (f" and {page}" if page else "")
    stderr().print(f"written: {written}", soft_wrap=True, markup=False)
    if not summary.trustworthy:
        return EXIT_NOT_TRUSTWORTHY
    return EXIT_DONE if summary.recommended else EXIT_BROKEN_BUDGET


def _warn(warnings: list[str]) -> None:
    for warning in warnings[:WARNINGS]:
        warn(warning)
    if len(warnings) > WARNINGS:
        warn(f"{len(warnings) - WARNINGS} more in summary.json")


def _talk(step: int, steps: int, what: str, *, reused: bool) -> None:
    note = "  [dim]done before[/]" if reused else ""
    stderr().print(f"[dim]{step:>3}/{steps}[/]  {escape(what)}{note}")


def _write_page(folder: Path) -> Path | None:
    """The page of what a run left in its folder; None where the report's packages are missing."""
    path = folder / "report.html"
    try:
        from edgegauge.report.load import gather
        from edgegauge.report.page import write_page

        write_page(gather([folder]), path)
    except MissingDependency as missing:
        warn(f"no report.html: {missing}; {missing.hint}")
        return None
    return path


def _print(summary: RunSummary) -> None:
    console = stdout()
    for prediction in summary.predicted:
        _print_prediction(prediction)
    console.print(f"\n[bold]{escape(summary.title)}[/]  measured on {_host(summary)}")
    if summary.budget:
        console.print(f"[dim]Budget: {escape(_limits(summary.budget))}[/]", soft_wrap=True)
    console.print(_rows(summary.measured, summary.recommended))
    console.print(f"\n[bold]{escape(summary.explanation)}[/]", soft_wrap=True)


def _print_prediction(prediction: DevicePrediction) -> None:
    console = stdout()
    console.print(f"\n[bold]Predicted for {escape(prediction.device.name)}[/]")
    console.print(f"[dim]Budget: {escape(_limits(prediction.budget))}[/]", soft_wrap=True)
    shown, hidden = _excerpt(prediction)
    console.print(_rows(shown, prediction.recommended))
    if hidden:
        console.print(f"[dim]{hidden} more in the report[/]")
    console.print(escape(prediction.explanation), soft_wrap=True)


def _excerpt(prediction: DevicePrediction) -> tuple[list[CandidateRow], int]:
    """The recommended row and its neighbours in size: what it beat and what was too much."""
    rows = prediction.candidates
    chosen = next((i for i, r in enumerate(rows) if _is(r, prediction.recommended)), 0)
    first = max(0, min(chosen - PREDICTED_ROWS // 2, len(rows) - PREDICTED_ROWS))
    shown = rows[first : first + PREDICTED_ROWS]
    return shown, len(rows) - len(shown)


def _rows(rows: list[CandidateRow], recommended: CandidateKey | None) -> Table:
    numbers = ("size", "decode", "first token", "memory", "quality")
    made = table("", "model", "stored as", *numbers, "verdict", right=numbers)
    for row in rows:
        figures, best = row.figures, _is(row, recommended)
        mark = "[bold green]>[/]" if best else "[dim]*[/]" if row.frontier else ""
        made.add_row(
            mark,
            escape(row.model),
            escape(f"{row.format} {row.recipe}"),
            format_bytes(row.file_bytes) if row.file_bytes else "-",
            text_of(figures.decode_tok_per_s),
            text_of(figures.ttft_s),
            text_of(figures.peak_memory_bytes),
            value_of(figures.quality, "quality") if figures.quality else "-",
            escape(row.reason),
            style=None if row.passes else "dim",
        )
    made.caption = "> recommended   * on the frontier   ~ predicted"
    made.caption_justify = "left"
    return made


def _is(row: CandidateRow, key: CandidateKey | None) -> bool:
    return key is not None and (row.model, row.recipe, row.format) == (
        key.model, key.recipe, key.format
    )  # fmt: skip


def _host(summary: RunSummary) -> str:
    host, work = summary.host, summary.workload
    threads = f", {work.threads} thread{'s' * (work.threads > 1)}" if work else ""
    return escape(f"{host.get('cpu_model', 'this machine')}{threads}")


def _limits(budget: dict[str, object]) -> str:
    """A budget in one line: `memory 200.0 MB, decode_tok_per_s 20`."""
    parts = []
    for name, value in budget.items():
        if isinstance(value, dict):
            parts.append(f"{value.get('metric')} >= {value.get('at_least'):g}")
        elif name in ("memory", "file_size") and isinstance(value, int):
            parts.append(f"{name} <= {format_bytes(value)}")
        else:
            sign = "<=" if name in ("ttft_p99_s", "energy_j_per_token") else ">="
            parts.append(f"{name} {sign} {value}")
    return ", ".join(parts) or "none"
