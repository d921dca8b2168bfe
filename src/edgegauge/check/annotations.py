"""A gate's report as workflow commands, which GitHub shows beside the gate file."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from edgegauge.check.outcome import Report

MOST_SHOWN = 10
"""Errors, and warnings, that GitHub shows of one step."""


def workflow_commands(report: Report, workspace: Path) -> Iterator[str]:
    """`::error file=gate.toml,title=...::...` for each cell that fails, `::warning` where nobody
    can tell; the last of too many counts the rest. Files are named from `workspace` on."""
    gate = Path(report.gate).absolute()
    file = gate.relative_to(workspace) if gate.is_relative_to(workspace) else gate
    for outcome, command in (("fail", "error"), ("cannot tell", "warning")):
        cells = [cell for cell in report.cells if cell.outcome == outcome]
        shown = cells if len(cells) <= MOST_SHOWN else cells[: MOST_SHOWN - 1]
        told = [(cell.name, f"{outcome}: {cell.explanation}") for cell in shown]
        if more := len(cells) - len(shown):
            told.append((report.title, f"{outcome}: {more} more, see the summary"))
        for title, message in told:
            about = f"file={_property(file.as_posix())},title={_property(title)}"
            yield f"::{command} {about}::{_data(message)}"


def _data(text: str) -> str:
    """Text as a command's message: `%` first, since the others make it."""
    return text.replace("%", "%25").replace("\r", "%0D").replace("\n", "%0A")


def _property(text: str) -> str:
    """Text as the value of a command's property."""
    return _data(text).replace(":", "%3A").replace(",", "%2C")
