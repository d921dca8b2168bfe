"""What all pictures share: the house style, axes, and names; drawn by Altair, without a browser.

Intervals are drawn wherever a figure has one, and limits are dashed lines. Filled or coloured marks
meet every limit of the budget, hollow or grey ones do not.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import altair as alt

from edgegauge.report.shown import clean
from edgegauge.report.summary import CandidateKey, CandidateRow
from edgegauge.report.svg import FAINT, GRID, MUTED

Row = dict[str, Any]
"""What a chart knows of one candidate."""

FONT = "system-ui, -apple-system, Segoe UI, Roboto, Helvetica, Arial, sans-serif"

BYTES = (
    "datum.value >= 1e9 ? format(datum.value / 1e9, '~g') + ' GB' : "
    "datum.value >= 1e6 ? format(datum.value / 1e6, '~g') + ' MB' : "
    "datum.value ? format(datum.value / 1e3, '~g') + ' kB' : '0'"
)
"""Vega's expression for the label of a number of bytes."""

NUMBER = "format(datum.value, '~g')"
"""Vega's expression for the label of a plain number."""


def name_of(row: CandidateRow) -> str:
    """`ladder-1m q8_0 gguf`."""
    return clean(" ".join(filter(None, (row.model, row.recipe, row.format))))


def is_recommended(row: CandidateRow, key: CandidateKey | None) -> bool:
    """Whether this row is the recommended candidate."""
    return key is not None and (row.model, row.recipe, row.format) == (
        key.model, key.recipe, key.format
    )  # fmt: skip


def chart_of(rows: list[Row]) -> Any:
    """A chart of these rows, still without a mark."""
    return alt.Chart(alt.InlineData(values=rows))


def log_scale(values: Sequence[float]) -> Any:
    """A logarithmic scale over a little more than the values, which are above 0."""
    low, high = min(values), max(values)
    margin = (high / low) ** 0.09 if high > 1.2 * low else 1.3
    return alt.Scale(type="log", domain=[low / margin, high * margin], nice=False)


def log_axis(values: Sequence[float], labels: str | None = None, most: int = 7) -> Any:
    """Round ticks in each decade: as fine as gives no more than `most` of them."""
    low, high = (math.floor(math.log10(v)) for v in (min(values), max(values)))
    for digits in ((1, 1.5, 2, 3, 4, 5, 6, 7, 8, 9), (1, 2, 5), (1, 3), (1,)):
        ticks = [d * 10.0**power for power in range(low, high + 2) for d in digits]
        if sum(min(values) <= t <= max(values) for t in ticks) <= most:
            break
    return alt.Axis(values=ticks, labelOverlap=True, labelExpr=labels or NUMBER)


def linear_scale(values: Sequence[float], top: float | None) -> Any:
    """A scale over a little more than the values; margins do not go below 0 or over `top`."""
    low, high = min(values), max(values)
    margin = (high - low) * 0.08 or abs(high) * 0.1 or 1.0
    upper = high + margin if top is None or high > top else min(high + margin, top)
    lower = max(0.0, low - margin) if low >= 0 else low - margin
    return alt.Scale(domain=[lower, upper], nice=False, zero=False)


def styled(chart: Any) -> Any:
    """The house style: no frame, a hairline grid; the page has the legend."""
    return (
        chart.configure(font=FONT, background="transparent", padding=4)
        .configure_view(stroke=None)
        .configure_axis(
            grid=True, gridColor=GRID, domainColor=FAINT, tickColor=FAINT, labelColor=MUTED,
            titleColor=MUTED, labelFontSize=11, titleFontSize=12, titleFontWeight="normal",
            titlePadding=10, labelPadding=5, tickSize=4,
        )
        .configure_axisX(grid=False)
        .configure_axisY(domain=False, ticks=False)
    )  # fmt: skip
