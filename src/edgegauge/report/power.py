"""The section of energy: watts over the energy run, and what they came to per token or inference.

The trace is that of the best source which kept its readings: a counter as differences, watts as
means. Shaded spans are the windows whose energy was counted; the bar across one is its mean.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import altair as alt

from edgegauge.energy import Energy, Window
from edgegauge.figure import Figure
from edgegauge.report.block import Block, Grid, GridRow, Picture
from edgegauge.report.charts import Row, chart_of, styled
from edgegauge.report.curves import along, upright, words
from edgegauge.report.shown import clean
from edgegauge.report.svg import INK, MUTED, PALETTE, draw
from edgegauge.report.thin import MOST, is_time, steps_of
from edgegauge.report.view import Notes, column_of

WIDTH, HEIGHT = 860, 230
MOST_TRACES = 8
LEAST_TERM = 0.0005
"""Smaller shares of uncertainty are not listed."""

PHASES = {
    "idle_before": ("idle", MUTED), "prefill": ("prompt", PALETTE[1]),
    "decode": ("decode", PALETTE[0]), "inference": ("inference", PALETTE[0]),
    "idle_after": ("idle", MUTED),
}  # fmt: skip

COLUMNS = {
    "decode_j_per_token": "Decode", "net_decode_j_per_token": "Decode, net",
    "prefill_j_per_token": "Prompt", "net_prefill_j_per_token": "Prompt, net",
    "j_per_inference": "Inference", "net_j_per_inference": "Inference, net",
    "decode_w": "Decode", "inference_w": "Inference", "idle_before_w": "Idle",
}  # fmt: skip
"""Figures of a source, and their headings."""


@dataclass(frozen=True, slots=True)
class Metered:
    """A result with energy, under the name it has on the page."""

    name: str
    energies: Sequence[Energy]


def power_block(metered: Sequence[Metered], notes: Notes, name: str) -> Block | None:
    """The section; None where no source gave a figure or kept readings."""
    told = [m for m in metered if any(_says_something(e) for e in m.energies)]
    if not told:
        return None
    pictures: list[Picture] = []
    for index, one in enumerate(told):
        best = next((e for e in one.energies if len(e.readings) > 1 and e.windows), None)
        svg = best and _trace(best, one.name, f"{name}-power{index}")
        if best and svg and len(pictures) < MOST_TRACES:
            pictures.append(Picture(one.name, svg, clean(best.source.id), wide=True))
    said = (
        "Total energy is all that the source covers; net is less idle with the model loaded. "
        "Figures of different coverage do not compare."
    )
    if pictures:
        said += " Shaded: what was counted; the bar across a span is its mean."
    return Block("Energy", said, pictures, grid=_grid(told, notes))


def _says_something(energy: Energy) -> bool:
    return bool(energy.readings) or any(getattr(energy, name) for name in COLUMNS)


def _grid(told: Sequence[Metered], notes: Notes) -> Grid:
    pairs = [(m.name, e) for m in told for e in m.energies]
    columns, cells = [], []
    for key, heading in COLUMNS.items():
        figures: list[Figure | None] = [getattr(energy, key) for _, energy in pairs]
        if any(figures):
            column, made = column_of(figures, notes, heading=heading)
            columns.append(column)
            cells.append(made)
    rows = [
        GridRow(name, clean(energy.source.id), [c[i] for c in cells], _under(energy))
        for i, (name, energy) in enumerate(pairs)
    ]
    return Grid("Source", "Energy by source", columns, rows)


def _under(energy: Energy) -> str:
    """Grade, coverage and what makes the figure uncertain, or why there is none."""
    source = energy.source
    text = f"Grade {source.grade}; covers {_listed(source.covers)}"
    text += f", not {_listed(source.excludes)}" if source.excludes else ""
    terms = [
        f"{clean(name, 20)} {100 * share:.2g} %"
        for name, share in sorted(energy.terms.items(), key=lambda t: -t[1])
        if LEAST_TERM <= share <= MOST
    ]
    text += f". Standard uncertainty: {', '.join(terms)}" if terms else ""
    text += f". No figure: {clean(energy.reason, 300)}" if energy.reason else ""
    return text + "".join(f". {clean(flag, 160)}" for flag in energy.flags)


def _listed(names: Sequence[str]) -> str:
    return ", ".join(clean(name, 120) for name in names) or "nothing it names"


def _trace(energy: Energy, about: str, name: str) -> str | None:
    windows = [w for w in energy.windows if is_time(w.start_s) and is_time(w.end_s)
               and w.seconds > 0]  # fmt: skip
    if not windows:
        return None
    start_s, end_s = min(w.start_s for w in windows), max(w.end_s for w in windows)
    margin_s = 0.02 * (end_s - start_s)
    readings = [r for r in energy.readings if start_s - margin_s <= r[0] <= end_s + margin_s]
    steps = steps_of(readings, energy.source.counter)
    if not steps:
        return None
    rows: list[Row] = [{"x": s.start_s - start_s, "y": s.watts} for s in steps]
    rows.append({"x": steps[-1].end_s - start_s, "y": steps[-1].watts})
    spans = [_span(w, start_s) for w in windows]
    means = [span for span in spans if "y" in span]
    levels = [row["y"] for row in (*rows, *means)]
    times = [row["x"] for row in rows] + [span["end"] for span in spans]
    x = along(times, "Seconds", room=0.13)
    y = upright([0.0, *levels], "Watts")
    line = chart_of(rows).mark_line(interpolate="step-after", stroke=INK, strokeWidth=1, aria=False)
    layers = [
        *_shades(spans, x),
        line.encode(x=x, y=y),
        *_means(means, x, y),
        *_idle(energy, end_s - start_s, x, y),
    ]
    chart = alt.layer(*layers).properties(width=WIDTH, height=HEIGHT)
    label = f"Power of {about}, {clean(energy.source.id)}: " + "; ".join(
        str(span["tip"]) for span in spans[:8]
    )
    return draw(styled(chart), name=name, label=label)


def _span(window: Window, zero_s: float) -> Row:
    """A window from `zero_s`; with `y`, its mean watts, where it has joules."""
    word, colour = PHASES[window.phase]
    span: Row = {
        "x": window.start_s - zero_s, "end": window.end_s - zero_s,
        "middle": (window.start_s + window.end_s) / 2 - zero_s, "text": word, "colour": colour,
        "tip": f"{word}, {window.seconds:.0f} s: no figure",
    }  # fmt: skip
    if window.joules is not None and abs(window.joules / window.seconds) < MOST:
        watts = window.joules / window.seconds
        span |= {"y": watts, "tip": f"{word}, {window.seconds:.0f} s: {watts:.3g} W"}
    return span


def _shades(spans: list[Row], x: Any) -> list[Any]:
    """The windows, each with its word over it."""
    base = chart_of(spans)
    fill = alt.Fill("colour:N", scale=None)
    rect = base.mark_rect(opacity=0.13).encode(x=x, x2="end:Q", fill=fill, description="tip:N")
    word = base.mark_text(fontSize=11, dy=-7, aria=False).encode(
        x=alt.X("middle:Q"), y=alt.value(0),
        text="text:N", fill=alt.value(MUTED),
    )  # fmt: skip
    return [rect, word]


def _means(means: list[Row], x: Any, y: Any) -> list[Any]:
    if not means:
        return []
    rule = chart_of(means).mark_rule(strokeWidth=2.5, aria=False)
    return [rule.encode(x=x, x2="end:Q", y=y, stroke=alt.Stroke("colour:N", scale=None))]


def _idle(energy: Energy, end: float, x: Any, y: Any) -> list[Any]:
    """A dashed line at the idle level, which the net figures are less."""
    idle = energy.idle_before_w
    if idle is None or not 0 <= idle.value <= MOST:
        return []
    rows: list[Row] = [{"x": 0.0, "end": end, "y": idle.value}]
    rule = chart_of(rows).mark_rule(strokeDash=[4, 4], stroke=MUTED, aria=False)
    at_end: list[Row] = [{"x": end, "y": idle.value, "text": f"idle {idle.value:.3g} W"}]
    return [rule.encode(x=x, x2="end:Q", y=y), *words(at_end, x, y, align="left", dx=8)]
