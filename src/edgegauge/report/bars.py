"""Pictures of a device: predicted speed as ranges, memory as bars against what may be used."""

from __future__ import annotations

import math
from typing import Any

import altair as alt

from edgegauge.report.charts import (
    BYTES,
    Row,
    chart_of,
    is_recommended,
    log_axis,
    log_scale,
    name_of,
    styled,
)
from edgegauge.report.shown import clean, interval_of, limits_of, value_of
from edgegauge.report.summary import CandidateRow, DevicePrediction
from edgegauge.report.svg import ACCENT, FAINT, INK, MUTED, SURFACE, draw

SPEED_WIDTH, MEMORY_WIDTH, ROW_HEIGHT = 400, 330, 25
MOST_ROWS, MOST_PASSING = 16, 12
"""Candidates in the picture, and those of them that pass; the table has all."""
LONGEST = 1.4
"""Bars of memory are cut at this multiple of what may be used."""


def device_rows(prediction: DevicePrediction) -> list[CandidateRow]:
    """The candidates in the picture of a device, smallest first.

    Of those that pass, the recommended one, then those of the frontier. Of those that fail, the
    closest in size to the recommended one; where none is, those that miss the fewest limits.
    """
    chosen = next(
        (r for r in prediction.candidates if is_recommended(r, prediction.recommended)), None
    )

    def rank(row: CandidateRow) -> tuple[bool, bool, int]:
        return (row is not chosen, not row.frontier, row.file_bytes)

    def distance(row: CandidateRow) -> tuple[float, int]:
        if chosen is None or not chosen.file_bytes:
            return (len(row.broken), row.file_bytes)
        return (abs(math.log(max(1, row.file_bytes) / chosen.file_bytes)), row.file_bytes)

    drawn = [
        r
        for r in prediction.candidates
        if r.figures.decode_tok_per_s and r.figures.decode_tok_per_s.value > 0
    ]
    passing = sorted((r for r in drawn if r.passes), key=rank)[:MOST_PASSING]
    failing = sorted((r for r in drawn if not r.passes), key=distance)
    failing = failing[: MOST_ROWS - len(passing)]
    return sorted([*passing, *failing], key=lambda r: r.file_bytes)


def device_picture(prediction: DevicePrediction, name: str) -> str | None:
    """Speed as ranges and memory as bars against what one application may use; None if empty."""
    rows = device_rows(prediction)
    if not rows:
        return None
    limits = limits_of(prediction.budget)
    room = min(prediction.device.app_memory_bytes, limits.get("memory", math.inf))
    values = [_bar(i, row, prediction, room) for i, row in enumerate(rows)]
    base = chart_of(values)
    y = alt.Y("i:O", axis=None, scale=alt.Scale(padding=0.3))
    speed = _speed_panel(base, values, y, limits.get("decode_tok_per_s"))
    panels = [speed, *_memory_panel(base, values, y, room)]
    chart = alt.hconcat(*panels, spacing=28).resolve_scale(y="shared")
    label = (
        f"Predicted speed and memory of {len(rows)} candidates on {clean(prediction.device.name)}"
    )
    return draw(styled(chart), name=name, label=label)


def _bar(index: int, row: CandidateRow, prediction: DevicePrediction, room: float) -> Row:
    speed, memory = row.figures.decode_tok_per_s, row.figures.peak_memory_bytes
    assert speed  # rows without are not drawn
    made: Row = {
        "i": index, "name": name_of(row), "passes": row.passes,
        "recommended": is_recommended(row, prediction.recommended),
        "speed": speed.value, "low": max(speed.least, speed.value / 100), "high": speed.most,
        "speed_text": value_of(speed).removesuffix(" tok/s"),
        "tip": f"{name_of(row)}: {value_of(speed)}, from {interval_of(speed) or 'no interval'}",
    }  # fmt: skip
    if memory:
        end = LONGEST * room
        made |= {
            "memory": min(memory.value, end), "memory_text": value_of(memory),
            "memory_low": min(memory.least, end), "memory_high": min(memory.most, end),
            "memory_tip": f"{name_of(row)}: {value_of(memory)}",
        }  # fmt: skip
    return made


def _panel(base: Any, layers: list[Any], x: Any, y: Any, text: str) -> Any:
    """The layers with a text at x, which hides the lines it crosses."""
    word = base.mark_text(align="left", dx=7, fontSize=11, aria=False)
    halo = word.encode(
        x=x, y=y, text=text, stroke=alt.value(SURFACE), fill=alt.value(SURFACE),
        strokeWidth=alt.value(4),
    )  # fmt: skip
    return alt.layer(*layers, halo, word.encode(x=x, y=y, text=text, fill=alt.value(MUTED)))


def _speed_panel(base: Any, values: list[Row], y: Any, least: float | None) -> Any:
    """Names, a bar from the low to the high end of each interval, and a tick at the value."""
    ends = [v[k] for v in values for k in ("low", "high")] + ([least] if least else [])
    scale = log_scale(ends)
    x = alt.X("low:Q", title="Tokens per second", scale=scale, axis=log_axis(ends))
    high = alt.X("high:Q", scale=scale)
    bar = base.mark_bar(height=9, cornerRadius=4, opacity=0.45)
    tick = base.mark_tick(thickness=2.5, height=15, aria=False, opacity=1)
    # A guess at the width of the longest name: a font is chosen only where the page is read.
    margin = min(300.0, 7.0 * max(len(v["name"]) for v in values)) + 14
    name = base.mark_text(align="left", fontSize=12, x=-margin, limit=margin - 6, aria=False)
    ink = alt.condition("datum.recommended", alt.value(ACCENT), alt.value(INK))
    layers = [_limit_rule(least, scale)] if least else []
    layers += [
        bar.encode(x=x, x2="high:Q", y=y, color=_colour(), description="tip:N"),
        tick.encode(x=alt.X("speed:Q", scale=scale), y=y, color=_colour()),
        name.encode(y=y, text="name:N", color=ink),
    ]
    return _panel(base, layers, high, y, "speed_text:N").properties(
        width=SPEED_WIDTH, height=alt.Step(ROW_HEIGHT)
    )


def _memory_panel(base: Any, values: list[Row], y: Any, room: float) -> list[Any]:
    """A bar from nothing to the predicted peak; longer ones are cut, but their text is true."""
    if not any("memory" in v for v in values):
        return []
    most = max([room, *(v.get("memory_high", 0.0) for v in values)]) * 1.25
    scale = alt.Scale(domain=[0, most], nice=False)
    axis = alt.Axis(labelExpr=BYTES, tickCount=4)
    x = alt.X("memory:Q", title="Peak memory", scale=scale, axis=axis)
    low, high = (alt.X(f"memory_{end}:Q", scale=scale) for end in ("low", "high"))
    bar = base.mark_bar(height=9, cornerRadiusEnd=4, opacity=0.45)
    whisker = base.mark_rule(strokeWidth=1.5, aria=False)
    layers = [
        _limit_rule(room, scale),
        bar.encode(x=x, y=y, color=_colour(), description="memory_tip:N"),
        whisker.encode(x=low, x2="memory_high:Q", y=y, color=_colour()),
    ]
    return [
        _panel(base, layers, high, y, "memory_text:N").properties(
            width=MEMORY_WIDTH, height=alt.Step(ROW_HEIGHT)
        )
    ]


def _colour() -> Any:
    return alt.condition("datum.passes", alt.value(ACCENT), alt.value(FAINT))


def _limit_rule(value: float, scale: Any) -> Any:
    """A dashed line down the whole panel."""
    base = chart_of([{"limit": value}])
    rule = base.mark_rule(strokeDash=[4, 3], stroke=INK, strokeWidth=1.2, aria=False)
    return rule.encode(x=alt.X("limit:Q", scale=scale))
