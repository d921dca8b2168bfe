"""Lines with the bands of their intervals, as charts; what the pictures of sections share."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import altair as alt

from edgegauge.report.block import DASHES
from edgegauge.report.charts import NUMBER, Row, chart_of, log_axis, log_scale
from edgegauge.report.svg import MUTED, SURFACE

SECONDS = (
    "datum.value >= 1 ? format(datum.value, '~g') + ' s' : "
    "datum.value >= 1e-3 ? format(datum.value * 1e3, '~g') + ' ms' : "
    "datum.value ? format(datum.value * 1e6, '~g') + ' µs' : '0'"
)
"""Vega's expression for the label of a number of seconds."""

WIDE_RATIO = 30
"""Values further apart than this stand on a logarithmic axis."""


def upright(
    values: Sequence[float], title: str, labels: str | None = None, field: str = "y:Q"
) -> Any:
    """A vertical axis from 0, or a logarithmic one where the values are far apart."""
    if min(values) > 0 and max(values) / min(values) > WIDE_RATIO:
        axis, scale = log_axis(values, labels), log_scale(values)
    else:
        axis = alt.Axis(tickCount=5, labelExpr=labels or NUMBER)
        low, high = min(0.0, *values), max(values) or 1.0
        scale = alt.Scale(domain=[low, high + (high - low) * 0.08], nice=False)
    return alt.Y(field, title=title, axis=axis, scale=scale)


def along(values: Sequence[float], title: str | None, *, room: float = 0.03) -> Any:
    """A horizontal axis over the values, with a tick at each of a few.

    `room` is left to the right for words, as a share of the span.
    """
    low, high = min(values), max(values)
    span = (high - low) or 1.0
    ticks: dict[str, Any] = {"tickCount": 6}
    if len(set(values)) <= 6:
        ticks = {"values": sorted(set(values))}
    axis = alt.Axis(labelOverlap=True, labelExpr=NUMBER, **ticks)
    scale = alt.Scale(domain=[low - 0.03 * span, high + room * span], nice=False, zero=False)
    return alt.X("x:Q", title=title, axis=axis, scale=scale)


def lines(rows: list[Row], x: Any, y: Any) -> list[Any]:
    """Band, line and marks of each `series` of rows.

    A row has x, y, series, colour, dash (an index of `DASHES`), tip, and low and high of its band.
    """
    base = chart_of(rows)
    order = list(range(len(DASHES)))
    dash = alt.StrokeDash("dash:O", legend=None, scale=alt.Scale(domain=order, range=DASHES))
    ink = alt.Stroke("colour:N", scale=None)
    fill = alt.Fill("colour:N", scale=None)
    band = base.mark_area(opacity=0.16, aria=False)
    line = base.mark_line(strokeWidth=1.8, aria=False)
    mark = base.mark_point(size=34, opacity=1, strokeWidth=1)
    return [
        band.encode(x=x, y=alt.Y("low:Q"), y2="high:Q", fill=fill, detail="series:N"),
        line.encode(x=x, y=y, stroke=ink, strokeDash=dash, detail="series:N"),
        mark.encode(x=x, y=y, stroke=ink, fill=fill, description="tip:N"),
    ]


def words(rows: list[Row], x: Any, y: Any, **style: Any) -> list[Any]:
    """The `text` of each row at its place, over a halo that hides what it crosses."""
    word = chart_of(rows).mark_text(fontSize=11, aria=False, **style)
    halo = word.encode(
        x=x, y=y, text="text:N", stroke=alt.value(SURFACE), fill=alt.value(SURFACE),
        strokeWidth=alt.value(4),
    )  # fmt: skip
    return [halo, word.encode(x=x, y=y, text="text:N", fill=alt.value(MUTED))]


def spread(values: Sequence[int], most: int) -> list[int]:
    """At most so many of the values, from the least to the largest, evenly chosen."""
    kept = sorted(set(values))
    if len(kept) <= most:
        return kept
    return [kept[math.floor(i * (len(kept) - 1) / (most - 1) + 0.5)] for i in range(most)]
