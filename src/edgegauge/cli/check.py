"""`edgegauge check`: the gate of a CI job; its exit status is the verdict."""

from __future__ import annotations

import os
from pathlib import Path

import click
from rich.markup import escape
from rich.text import Text

from edgegauge.check.annotations import workflow_commands
from edgegauge.check.judge import judge
from edgegauge.check.junit import junit
from edgegauge.check.markdown import markdown
from edgegauge.check.outcome import Cell, Outcome, Report
from edgegauge.cli.output import emit_json, json_option, progress, stdout, table, warn
from edgegauge.document import atomic_write
from edgegauge.errors import EXIT_BROKEN_BUDGET, EXIT_DONE

SHOWN_PASSING = 24
"""Subjects that pass, beyond which they are only counted; --all shows each on each device."""

MARKS: dict[Outcome, str] = {
    "fail": "[red]fail[/]", "cannot tell": "[yellow]?[/]", "pass": "[green]ok[/]",
}  # fmt: skip


@click.command("check")
@click.argument("gate", type=click.Path(path_type=Path))
@click.option(
    "--update-baseline", is_flag=True,
    help="Write the gate's baseline file anew instead of comparing with it.",
)  # fmt: skip
@click.option(
    "--junit", "junit_file", type=click.Path(path_type=Path), metavar="FILE",
    help="Write JUnit XML, which CI systems show as tests.",
)  # fmt: skip
@click.option(
    "--markdown", "markdown_file", type=click.Path(path_type=Path), metavar="FILE",
    help="Write the report as GitHub-flavoured Markdown.",
)  # fmt: skip
@click.option("--all", "show_all", is_flag=True, help="List everything that passes, too.")
@json_option
def command(
    gate: Path,
    update_baseline: bool,
    junit_file: Path | None,
    markdown_file: Path | None,
    show_all: bool,
    as_json: bool,
) -> int:
    """Judge models on devices as GATE, a TOML file, requires; for CI.

    Sizes are those of the files, memory and speed are predicted, quality is evaluated here where
    the gate asks for it. Exits with status 3 where a limit is broken. A limit inside a prediction's
    interval is one that nobody can tell, which breaks the gate only if it says so.

    On GitHub, failures become annotations, and the report is added to the job's summary.
    """
    with progress("check", total=1.0) as advance:
        report = judge(gate, update_baseline=update_baseline, progress=advance)
    if junit_file:
        _write(junit_file, junit(report))
    if markdown_file:
        _write(markdown_file, markdown(report))
    _tell_github(report)
    for note in report.notes:
        warn(note)
    if as_json:
        emit_json(report.to_json())
    else:
        _show(report, show_all)
    return EXIT_BROKEN_BUDGET if report.breaks else EXIT_DONE


def _write(path: Path, text: str) -> None:
    with atomic_write(path, "w") as stream:
        stream.write(text)


def _tell_github(report: Report) -> None:
    """Annotations and a job summary, where this runs as a step of a workflow."""
    if os.environ.get("GITHUB_ACTIONS") != "true":
        return
    workspace = Path(os.environ.get("GITHUB_WORKSPACE", "."))
    for line in workflow_commands(report, workspace.absolute()):
        click.echo(line, err=True)  # the runner reads both, and stdout may be a document
    summary = os.environ.get("GITHUB_STEP_SUMMARY")
    if summary:
        with Path(summary).open("a", encoding="utf-8") as stream:
            stream.write(f"{markdown(report)}\n")


def _show(report: Report, show_all: bool) -> None:
    """What fails first, then what nobody can tell, then what passes: there a line for a subject."""
    console = stdout()
    console.print(f"[bold]{escape(report.title)}[/]\n")
    made = table("", "subject", "device", "")
    passing: dict[str, list[Cell]] = {}
    elsewhere = {cell.subject for cell in report.cells if cell.outcome != "pass"}
    for cell in report.ordered():
        if cell.outcome == "pass" and not show_all:
            passing.setdefault(cell.subject, []).append(cell)
        else:
            made.add_row(MARKS[cell.outcome], _plain(cell.subject), _device(cell), _why(cell))
    for subject, cells in list(passing.items())[:SHOWN_PASSING]:
        devices = sum(cell.device is not None for cell in cells)
        if not devices and subject in elsewhere:
            continue  # only its figures are as in the baseline
        where = Text(f"{devices} devices") if devices > 1 else _device(cells[-1])
        made.add_row(MARKS["pass"], _plain(subject), where, _why(cells[0]))
    console.print(made)
    if len(passing) > SHOWN_PASSING:
        console.print(f"[dim]{len(passing) - SHOWN_PASSING} more subjects pass: --all[/]")
    console.print()
    for step in report.next_steps:
        console.print(f"[dim]{escape(step)}[/]", soft_wrap=True)
    console.print(report.summary, soft_wrap=True, markup=False)


def _device(cell: Cell) -> Text:
    return _plain(cell.device or "-")


def _plain(text: str) -> Text:
    """Text from outside, without what a terminal would obey."""
    return Text("".join(c if c.isprintable() else " " for c in text))


def _why(cell: Cell) -> Text:
    why = _plain(cell.explanation)
    if cell.advice:
        why.append(f"\n{cell.advice}", style="dim")
    return why
