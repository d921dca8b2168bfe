"""A gate's report as GitHub-flavoured Markdown, for a job summary or a comment."""

from __future__ import annotations

import re
from collections.abc import Iterator

from edgegauge.check.outcome import Cell, Outcome, Report

MOST_BYTES = 1_000_000
"""A job summary may have 1 MiB."""

MOST_ROWS = (300, 100, 10)
"""Rows of one table; fewer where the document would have more than MOST_BYTES."""

MOST_TEXT = 600
"""Characters of one name or explanation."""

HEADINGS: dict[Outcome, tuple[str, str]] = {
    "fail": ("Fails", "why"),
    "cannot tell": ("Nobody can tell", "why"),
    "pass": ("Passes", "seen"),
}


def markdown(report: Report) -> str:
    """The document: what fails first, what passes folded away."""
    made = (_document(report, rows) for rows in MOST_ROWS)
    return next(text for text in made if len(text.encode()) <= MOST_BYTES)


def _document(report: Report, rows: int) -> str:
    mark = "❌" if report.breaks else "✅"
    lines = [f"## {mark} {_text(report.title)}", "", f"{report.summary}.", ""]
    for outcome, (heading, column) in HEADINGS.items():
        cells = [cell for cell in report.cells if cell.outcome == outcome]
        if not cells:
            continue
        table = list(_table(cells, column, rows))
        if outcome == "pass":
            table = [f"<details><summary>{heading}: {len(cells)}</summary>", "", *table]
            table += ["", "</details>"]
        else:
            table = [f"### {heading}", "", *table]
        lines += [*table, ""]
    for heading, items in (("What to do", report.next_steps), ("Notes", report.notes)):
        if items:
            lines += [f"### {heading}", "", *(f"- {_text(x)}" for x in items[:rows]), ""]
    return "\n".join(lines)


def _table(cells: list[Cell], column: str, rows: int) -> Iterator[str]:
    yield f"| subject | device | {column} |"
    yield "|---|---|---|"
    for cell in cells[:rows]:
        said = _text(cell.explanation)
        if cell.outcome == "pass":
            said = "<br>".join(_text(check.says) for check in cell.checks)
        if cell.advice:
            said += f"<br>*{_text(cell.advice)}*"
        yield f"| {_text(cell.subject)} | {_text(cell.device or '')} | {said} |"
    if len(cells) > rows:
        yield f"| {len(cells) - rows} more | | |"


def _text(text: str) -> str:
    """Text from outside as one line of a table's cell that is nothing but text."""
    cut = text if len(text) <= MOST_TEXT else text[: MOST_TEXT - 1] + "…"
    line = "".join(c if c.isprintable() else " " for c in cut)
    return re.sub(r"([\\`*_{}\[\]<>#!|~&])", r"\\\1", line)
