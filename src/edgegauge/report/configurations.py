"""The section of all configurations: every result, where the table of candidates has but some."""

from __future__ import annotations

from collections.abc import Sequence

from edgegauge.figure import Figure
from edgegauge.report.block import Block, Grid, GridRow
from edgegauge.report.chapter import Subject, subject_of
from edgegauge.report.legend import Legend
from edgegauge.report.rows import shape_of, shape_text
from edgegauge.report.view import Notes, column_of
from edgegauge.result import Result

MOST_ROWS = 200
HEADINGS = {"decode": "Decode", "prefill": "Prompt", "ttft": "First token", "memory": "Peak memory"}


def configurations_block(
    results: Sequence[Result], shown: Sequence[Result], legend: Legend, notes: Notes
) -> Block | None:
    """The section; None where all that was measured is in the table of candidates."""
    if len(results) <= len(shown):
        return None
    place: dict[Subject, int] = {}
    for result in results:
        place.setdefault(subject_of(result), len(place))
    listed = sorted(results, key=lambda r: (place[subject_of(r)], shape_of(r.workload)[:6]))
    more = len(listed) - MOST_ROWS
    said = f"{more} more are in the result files." if more > 0 else ""
    return Block("Every configuration", said, grid=_grid(listed[:MOST_ROWS], legend, notes))


def _grid(results: Sequence[Result], legend: Legend, notes: Notes) -> Grid:
    figures = [_figures(result) for result in results]
    columns, cells = [], []
    for key, heading in HEADINGS.items():
        column, made = column_of([row[key] for row in figures], notes, heading=heading)
        columns.append(column)
        cells.append(made)
    rows = [
        GridRow(
            legend.names[subject_of(result)], shape_text(result.workload), [c[i] for c in cells]
        )
        for i, result in enumerate(results)
    ]
    return Grid("Artifact", "Every configuration", columns, rows)


def _figures(result: Result) -> dict[str, Figure | None]:
    found = result.summary
    return {
        "decode": found.decode_tok_per_s,
        "prefill": found.prefill_tok_per_s,
        "ttft": found.ttft_s.tail if found.ttft_s else None,
        "memory": found.memory.peak_rss_bytes,
    }
