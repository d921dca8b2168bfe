"""`edgegauge report`: one self-contained HTML page from result files."""

from __future__ import annotations

from pathlib import Path

import click

from edgegauge.cli.output import emit_json, json_option, stderr, warn
from edgegauge.report.load import gather
from edgegauge.report.page import write_page


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
    `edgegauge evaluate` wrote. Results of the same artifact become one row.
    """
    summaries = gather(paths)
    write_page(summaries, output)
    for summary in summaries:
        for warning in summary.warnings:
            warn(warning)
    if as_json:
        emit_json(
            {
                "format": 1,
                "output": str(output),
                "bytes": output.stat().st_size,
                "candidates": sum(len(s.measured) for s in summaries),
                "devices": sum(len(s.predicted) for s in summaries),
            }
        )
    else:
        stderr().print(f"written to {output}", soft_wrap=True, markup=False)
