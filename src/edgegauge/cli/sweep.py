"""`edgegauge sweep`: every combination of a sweep file measured once, and a table of them all."""

from __future__ import annotations

from pathlib import Path

import click
from rich.markup import escape
from rich.table import Table

from edgegauge.cli.output import (
    emit_json,
    json_option,
    progress,
    stderr,
    stdout,
    table,
    text_of,
    warn,
)
from edgegauge.document import read_toml
from edgegauge.errors import EXIT_DONE, EXIT_ERROR, EXIT_NOT_TRUSTWORTHY, EXIT_TIMEOUT
from edgegauge.sweep import CellRow, Forecast, SweepSummary, execute, forecast
from edgegauge.sweep_cells import Sweep, cells
from edgegauge.units import format_seconds

SHAPE = ("threads", "prompt", "depth", "parallel")


@click.command("sweep")
@click.argument("sweep", metavar="SWEEP.toml", type=click.Path(path_type=Path, dir_okay=False))
@click.option(
    "-o", "--output", default="edgegauge-sweep", show_default=True,
    type=click.Path(file_okay=False, path_type=Path),
    help="Folder for artifacts and results; a killed sweep goes on from it.",
)  # fmt: skip
@click.option("--dry-run", is_flag=True, help="List the cells and the estimated time; run nothing.")
@click.option("--retry-failed", is_flag=True, help="Try the cells again that failed before.")
@json_option
def command(sweep: Path, output: Path, dry_run: bool, retry_failed: bool, as_json: bool) -> int:
    """Measure every combination of models, recipes, formats, runtimes, threads and contexts.

    What is finished in --output is not measured again. The exit status is 1 where a cell failed
    (124 if all that failed were late), and 4 where the machine disturbed one.
    """
    base = sweep.parent
    chosen = cells(read_toml(sweep, Sweep), base)
    for reason in chosen.left_out:
        warn(reason)
    if dry_run:
        _show_forecast(forecast(chosen, base, output), chosen.left_out, as_json)
        return EXIT_DONE
    with progress("sweep", total=1.0) as advance:
        summary = execute(
            chosen, base, output, retry_failed=retry_failed, talk=_talk, progress=advance
        )
    if as_json:
        emit_json(summary.model_dump(mode="json"))
    else:
        stdout().print(_rows(summary.cells))
    written = f"written: {output}/sweep.json and {output}/results"
    stderr().print(written, soft_wrap=True, markup=False)
    return _status(summary)


def _talk(cell: int, cells: int, what: str, note: str, left_s: float) -> None:
    """One line; the time left is that of this cell and all after it."""
    told = note or f"about {format_seconds(left_s)} left, by estimate"
    line = f"[dim]{cell:>3}/{cells}[/]  {escape(what)}  [dim]{escape(told)}[/]"
    stderr().print(line, soft_wrap=True)


def _status(summary: SweepSummary) -> int:
    failures = [row.failure for row in summary.cells if row.failure]
    if failures:
        return EXIT_TIMEOUT if all(failure.timeout for failure in failures) else EXIT_ERROR
    disturbed = any(row.trustworthy is False for row in summary.cells)
    return EXIT_NOT_TRUSTWORTHY if disturbed else EXIT_DONE


def _rows(rows: list[CellRow]) -> Table:
    numbers = (*SHAPE, "prefill", "decode", "first token", "memory")
    made = table("model", "stored as", "runtime", *numbers, "", right=numbers)
    for row in rows:
        shape = (row.threads, row.prompt_tokens, row.depth, row.parallel)
        figures = (row.prefill_tok_per_s, row.decode_tok_per_s, row.ttft_s, row.peak_rss_bytes)
        note = row.failure.reason if row.failure else "" if row.trustworthy else "disturbed"
        made.add_row(
            escape(row.model), f"{row.format} {escape(row.recipe)}", escape(row.runtime),
            *map(str, shape), *map(text_of, figures), escape(note),
        )  # fmt: skip
    return made


def _show_forecast(forecasts: list[Forecast], left_out: list[str], as_json: bool) -> None:
    total_s = sum(each.seconds for each in forecasts)
    if as_json:
        listed = [
            {"cell": each.cell.text, "seconds": each.seconds, "measured": each.finished}
            for each in forecasts
        ]
        emit_json({"format": 1, "cells": listed, "left_out": left_out, "seconds": total_s})
        return
    made = table("cell", "by estimate", right=("by estimate",))
    for each in forecasts:
        estimate = "measured" if each.finished else format_seconds(each.seconds)
        made.add_row(escape(each.cell.text), estimate)
    made.caption = f"{len(forecasts)} cells, about {format_seconds(total_s)} by estimate"
    made.caption_justify = "left"
    stdout().print(made)
