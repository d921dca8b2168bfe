"""What a page says, as plain data: verdict, tiles, tables and footnotes, ready for the template.

A column whose figures all have one kind and one source says so once, in its head; otherwise each
cell does. Sources are numbered in the order in which they appear.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from edgegauge.battery import BATTERY_FIGURES
from edgegauge.figure import Figure
from edgegauge.report.charts import is_recommended
from edgegauge.report.shown import (
    FIGURES,
    HEADS,
    LIMITS,
    PER_HOUR,
    clean,
    interval_of,
    limit_text,
    limits_of,
    value_of,
)
from edgegauge.report.summary import (
    CandidateKey,
    CandidateRow,
    DevicePrediction,
    RunSummary,
)
from edgegauge.units import format_bytes

HOST_FACTS = {
    "cpu_model": "Processor", "name": "Machine", "cores_usable": "Cores used",
    "memory_total_bytes": "Memory", "memory_limit": "Memory limited by", "os": "System",
    "kernel": "Kernel", "virtual": "Virtual machine", "container": "Container",
    "python": "Python",
}  # fmt: skip


MISSING = "\N{EN DASH}"
"""What stands for a figure that nobody has."""

PLAIN_UNITS: set[str] = {"tok/s", "1/s", "J/token", "J/inference", "W", "h"}
"""Units whose numbers are shown without a prefix, so that the head of a column can hold them."""


@dataclass(slots=True)
class Notes:
    """The numbered sources of a page."""

    sources: list[str] = field(default_factory=list)

    def number(self, source: str) -> int:
        """The number of a source, a new one for a new source."""
        if source not in self.sources:
            self.sources.append(source)
        return self.sources.index(source) + 1


@dataclass(frozen=True, slots=True)
class Cell:
    """A figure in a table; `kind` and `note` are None where the column's head says them.

    `title` is shown where the pointer rests.
    """

    text: str
    interval: str | None = None
    title: str | None = None
    kind: str | None = None
    note: int | None = None
    broken: bool = False


@dataclass(frozen=True, slots=True)
class Column:
    """A column's head."""

    name: str
    unit: str | None = None
    """The unit of every value, where one unit fits them all."""
    kind: str | None = None
    note: int | None = None


@dataclass(frozen=True, slots=True)
class Line:
    """A candidate's line."""

    model: str
    about: str
    recommended: bool
    passes: bool
    frontier: bool
    reason: str
    cells: list[Cell]


@dataclass(frozen=True, slots=True)
class TableView:
    """A table of candidates; `judged` where there was a budget to judge them by."""

    columns: list[Column]
    lines: list[Line]
    judged: bool
    missing: list[str]
    """Headings of the figures that no candidate has; all of the battery are one."""


@dataclass(frozen=True, slots=True)
class Tile:
    """One figure of the recommended candidate, with the limit it had to meet."""

    name: str
    text: str
    interval: str | None
    kind: str
    limit: str | None


def table_of(
    rows: Sequence[CandidateRow], key: CandidateKey | None, judged: bool, notes: Notes
) -> TableView:
    """The table of these candidates, smallest first."""
    ordered = sorted(rows, key=lambda r: (r.file_bytes, r.model, r.recipe))
    known = [n for n in FIGURES if any(getattr(r.figures, n) for r in ordered)]
    columns, cells = [Column("Size")], [[_size(r) for r in ordered]]
    for name in known:
        column, of_rows = _column(name, ordered, notes)
        columns.append(column)
        cells.append(of_rows)
    lines = [
        Line(
            clean(row.model), _about(row), is_recommended(row, key), row.passes, row.frontier,
            row.reason, [column[index] for column in cells],
        )
        for index, row in enumerate(ordered)
    ]  # fmt: skip
    return TableView(columns, lines, judged, _missing(known))


def _missing(known: list[str]) -> list[str]:
    names = [n for n in FIGURES if n not in known]
    if set(BATTERY_FIGURES) <= set(names):
        names = [n for n in names if n == "battery_h" or n not in BATTERY_FIGURES]
        return ["Battery" if n == "battery_h" else FIGURES[n] for n in names]
    return [FIGURES[n] for n in names]


def _about(row: CandidateRow) -> str:
    """`gguf q8_0, 8.6 bits`: under the model's name."""
    parts = [clean(f"{row.format} {row.recipe}".strip())]
    if row.effective_bits is not None:
        parts.append(f"{row.effective_bits:.3g} bits")
    if row.synthetic:
        parts.append("random weights")
    return ", ".join(parts)


def _size(row: CandidateRow) -> Cell:
    broken = any(b.limit == "file_size" for b in row.broken)
    title = f"{row.file_bytes:,} bytes"
    if row.parameters:
        title += f", {row.parameters:,} parameters"
    return Cell(format_bytes(row.file_bytes), title=title, broken=broken)


def _column(name: str, rows: Sequence[CandidateRow], notes: Notes) -> tuple[Column, list[Cell]]:
    column, cells = column_of([getattr(row.figures, name) for row in rows], notes, name)
    broken = [
        any(LIMITS[b.limit].figure == name for b in row.broken if b.limit in LIMITS) for row in rows
    ]
    cells = [replace(c, broken=b and c.text != MISSING)
             for c, b in zip(cells, broken, strict=True)]  # fmt: skip
    heading, said = HEADS.get(name, (FIGURES[name], column.unit))
    return replace(column, name=heading, unit=said), cells


def column_of(
    figures: Sequence[Figure | None], notes: Notes, name: str = "", heading: str = ""
) -> tuple[Column, list[Cell]]:
    """A column of these figures under a heading; `name` is that of a candidate's figure."""
    kinds = {f.kind for f in figures if f}
    sources = {f.source for f in figures if f}
    kind = kinds.pop() if len(kinds) == 1 else None
    note = notes.number(sources.pop()) if len(sources) == 1 else None
    units = {f.unit for f in figures if f} & PLAIN_UNITS
    unit = units.pop() if len(units) == 1 else "%/h" if name == PER_HOUR else None
    cells = []
    for figure in figures:
        if figure is None:
            cells.append(Cell(MISSING))
            continue
        text, interval = value_of(figure, name), interval_of(figure, name)
        if unit:
            text = text.removesuffix(f" {unit}")
            interval = interval and interval.removesuffix(f" {unit}")
        cells.append(
            Cell(
                text, interval, None, None if kind else figure.kind,
                None if note else notes.number(figure.source),
            )
        )  # fmt: skip
    return Column(heading, unit, kind, note), cells


def tiles_of(summary: RunSummary) -> list[Tile]:
    """The figures of the recommended candidate; nothing where none is recommended."""
    chosen = next((r for r in summary.measured if is_recommended(r, summary.recommended)), None)
    if chosen is None:
        return []
    limits = limits_of(summary.budget)
    said = {
        LIMITS[n].figure: limit_text(n, v, [chosen.figures]).removeprefix(LIMITS[n].noun)
        for n, v in limits.items()
    }
    tiles = [
        Tile("Size on disk", format_bytes(chosen.file_bytes), None, "measured", said.get(None))
    ]
    for name, heading in FIGURES.items():
        figure: Figure | None = getattr(chosen.figures, name)
        if figure and name != "perplexity":
            tiles.append(
                Tile(heading, value_of(figure, name), interval_of(figure, name), figure.kind,
                     said.get(name))
            )  # fmt: skip
    return tiles


def chips_of(budget: dict[str, Any], rows: Iterable[CandidateRow]) -> list[str]:
    """Each limit of a budget as text."""
    figures = [row.figures for row in rows]
    return [limit_text(name, value, figures) for name, value in limits_of(budget).items()]


def host_facts(summary: RunSummary) -> list[tuple[str, str]]:
    """What is said of the machine, in the order of the page."""
    found = []
    for name, heading in HOST_FACTS.items():
        value = summary.host.get(name)
        if value is None or value is False or isinstance(value, (dict, list)):
            continue
        text = "yes" if value is True else str(value)
        if name == "memory_total_bytes" and isinstance(value, (int, float)):
            text = format_bytes(value)
        found.append((heading, clean(text, 120)))
    return found


def workload_facts(summary: RunSummary) -> list[tuple[str, str]]:
    """What the measured candidates were given to do, and with which programs."""
    found = [(name, clean(version, 80)) for name, version in summary.tools.items()]
    if work := summary.workload:
        found += [
            ("Prompt", f"{work.prompt_tokens} tokens"),
            ("Generated", f"{work.generated_tokens} tokens"),
            ("Threads", str(work.threads)),
            (
                "Repeated",
                f"{work.runs} process{'es' * (work.runs != 1)}, at least {work.repetitions} "
                "rounds in each",
            ),
        ]
        if work.depth:
            found.append(("Already in the context", f"{work.depth} tokens"))
    return found


def counted(prediction: DevicePrediction) -> str:
    """`12 of 62 candidates meet every limit`."""
    passing = sum(row.passes for row in prediction.candidates)
    total = len(prediction.candidates)
    return (
        f"{passing} of {total} candidate{'s' * (total != 1)} meet{'s' * (passing == 1)} every limit"
    )
