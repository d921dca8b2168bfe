"""The section of memory: what each phase held at its end, and its peak.

Anonymous memory cannot be reclaimed; file pages can, at the price of reading them again.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import altair as alt

from edgegauge.report.block import Block, Picture
from edgegauge.report.charts import BYTES, Row, chart_of, styled
from edgegauge.report.svg import INK, MUTED, PALETTE, draw
from edgegauge.result import Phase
from edgegauge.units import format_bytes

WIDTH, ROW_HEIGHT = 600, 21
MOST_SUBJECTS = 8
ANONYMOUS, FILE = PALETTE[6], PALETTE[5]

Held = tuple[str, Mapping[str, Phase]]
"""A name, and the phases of its largest run."""


def phases_block(held: Sequence[Held], name: str) -> Block | None:
    """The section; None where no result says what its phases held."""
    told = [(who, kept) for who, phases in held if (kept := _known(phases))][:MOST_SUBJECTS]
    if not told:
        return None
    rows = _rows(told)
    svg = _picture(rows, [who for who, _ in told], f"{name}-memory")
    said = (
        "Of the process that measured, at the end of each phase; the tick is the peak within it. "
        "Anonymous memory cannot be reclaimed. File pages, the mapped weights among them, can be "
        "dropped and read again. The import phase has the interpreter and its libraries only."
    )
    more = len([1 for _, phases in held if phases]) - len(told)
    notes = [f"{more} more are not drawn."] if more > 0 else []
    colours = [("anonymous", ANONYMOUS), ("file pages", FILE)]
    return Block("Memory by phase", said, [Picture("", svg, wide=True)], colours,
                 notes=notes)  # fmt: skip


def _known(phases: Mapping[str, Phase]) -> dict[str, tuple[int, int, int | None]]:
    """Phase: anonymous and file bytes, and the peak, where Linux told them."""
    return {
        name: (phase.anonymous_bytes, phase.file_bytes, phase.peak_rss_bytes)
        for name, phase in list(phases.items())[:8]
        if phase.anonymous_bytes is not None
        and phase.file_bytes is not None
        and all(0 <= b < 1e15 for b in (phase.anonymous_bytes, phase.file_bytes))
    }


def _rows(told: Sequence[tuple[str, Mapping[str, tuple[int, int, int | None]]]]) -> list[Row]:
    rows: list[Row] = []
    for who, phases in told:
        for number, (phase, (anonymous, file, peak)) in enumerate(phases.items()):
            top = peak if peak is not None and 0 < peak < 1e15 else None
            rows.append({
                "i": len(rows), "who": "" if number else who, "phase": phase.replace("_", "-"),
                "zero": 0, "anonymous": anonymous, "both": anonymous + file, "peak": top,
                "end": max(anonymous + file, top or 0),
                "text": format_bytes(top or anonymous + file),
                "tip": f"{who}, {phase}: {format_bytes(anonymous)} anonymous, "
                f"{format_bytes(file)} file" + (f", peak {format_bytes(top)}" if top else ""),
            })  # fmt: skip
    return rows


def _picture(rows: list[Row], names: Sequence[str], name: str) -> str:
    most = max(row["end"] for row in rows) or 1
    scale = alt.Scale(domain=[0, most * 1.15], nice=False)
    axis = alt.Axis(labelExpr=BYTES, tickCount=6, grid=False)

    def x(field: str) -> Any:
        return alt.X(f"{field}:Q", title="Resident memory", scale=scale, axis=axis)

    # A guess at the width of the longest name: a font is chosen only where the page is read.
    margin = min(260.0, 7.0 * max(map(len, names))) + 84
    y = alt.Y("i:O", axis=None, scale=alt.Scale(padding=0.25))
    base = chart_of(rows)
    bar = base.mark_bar(height=11, opacity=0.8)
    layers = [
        bar.encode(x=x("zero"), x2="anonymous:Q", y=y, fill=alt.value(ANONYMOUS),
                   description="tip:N"),
        bar.encode(x=x("anonymous"), x2="both:Q", y=y, fill=alt.value(FILE), description="tip:N"),
        base.transform_filter("datum.peak != null").mark_tick(
            thickness=2, height=15, stroke=INK, fill=INK, aria=False, opacity=1
        ).encode(x=x("peak"), y=y),
        base.mark_text(align="left", dx=8, fontSize=11, aria=False).encode(
            x=x("end"), y=y, text="text:N", fill=alt.value(MUTED)
        ),
        base.mark_text(align="left", x=-margin, limit=margin - 80, fontSize=12, aria=False).encode(
            y=y, text="who:N", fill=alt.value(INK)
        ),
        base.mark_text(align="right", x=-10, fontSize=11, aria=False).encode(
            y=y, text="phase:N", fill=alt.value(MUTED)
        ),
    ]  # fmt: skip
    chart = alt.layer(*layers).properties(width=WIDTH, height=alt.Step(ROW_HEIGHT))
    label = f"Memory by phase of {', '.join(names)}; " + "; ".join(r["tip"] for r in rows[:8])
    return draw(styled(chart), name=name, label=label)
