"""`edgegauge report`: one self-contained HTML page from result files."""

from __future__ import annotations

from pathlib import Path

import click

from edgegauge.cli.output import emit_json, json_option, stderr, warn
from edgegauge.report.load import gather
from edgegauge.report.page import write_page

WARNINGS = 6
"""So many are printed; the page has all."""


@click.command("report")
@click.argument(
    "paths", nargs=-1, required=True, type=click.Path(path_type=Path), metavar="PATH..."
)
@click.option(
    "-o",
    "--output",
    type=click.Path(path_type=Path, dir_okay=False),
    default=Path("report.html"),
    show_default=True,
    help="Where to write the page.",
)
@json_option
def command(paths: tuple[Path, ...], output: Path, as_json: bool) -> None:
    """One self-contained HTML page from run folders and result files.

    PATH is a folder of `edgegauge run`, its summary.json, or a file that `edgegauge measure` or
    `edgegauge evaluate` wrote. Each artifact becomes one row; grids, sustained results, energy and
    graphs have sections of their own.
    """
    chapters = gather(paths)
    write_page(chapters, output)
    summaries = [chapter.summary for chapter in chapters]
    told = [warning for summary in summaries for warning in summary.warnings]
    told += [
        f"{failed.artifact.name} failed: {failed.failures[-1].reason}"
        for chapter in chapters
        for failed in chapter.failed
    ]
    for warning in told[:WARNINGS]:
        warn(warning)
    if len(told) > WARNINGS:
        warn(f"{len(told) - WARNINGS} more on the page")
    if as_json:
        emit_json(
            {
                "format": 1,
                "output": str(output),
                "bytes": output.stat().st_size,
                "candidates": sum(len(s.measured) for s in summaries),
                "results": sum(len(c.results) for c in chapters),
                "graphs": sum(len(c.graphs) for c in chapters),
                "failed": sum(len(c.failed) for c in chapters),
                "devices": sum(len(s.predicted) for s in summaries),
            }
        )
    else:
        stderr().print(f"written to {output}", soft_wrap=True, markup=False)
