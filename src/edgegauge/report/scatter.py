"""Pictures of the choice: size against quality, and latency against quality.

A mark is a candidate: colour for the model, shape for the recipe, filled if it meets every limit,
faint if it does and another clearly beats it. The step line joins the best of the frontier.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from itertools import cycle
from typing import Any

import altair as alt

from edgegauge.figure import Figure
from edgegauge.report.charts import (
    BYTES,
    Row,
    chart_of,
    is_recommended,
    linear_scale,
    log_axis,
    log_scale,
    name_of,
    styled,
)
from edgegauge.report.shown import clean, limits_of, quantity, value_of
from edgegauge.report.summary import CandidateRow, RunSummary
from edgegauge.report.svg import ACCENT, FAINT, MUTED, PALETTE, SURFACE, draw

WIDTH, HEIGHT = 420, 300
FAINTNESS = 0.45
SLOWEST_TOK_PER_S = 1e-9
"""A slower rate is not drawn: it is an accident of a file, and its inverse may not be a number."""
SHAPES = ["circle", "square", "triangle-up", "diamond", "triangle-down", "triangle-right"]
"""Of Vega; the template draws the same for the key."""


@dataclass(frozen=True, slots=True)
class Key:
    """What the marks mean: a colour for each model, a shape for each recipe."""

    colours: dict[str, str]
    shapes: dict[str, str]


def key_of(summary: RunSummary) -> Key:
    """The key of a summary's pictures; colours and shapes come again where there are too many."""
    rows = [r for r in summary.measured if r.figures.quality]
    models, recipes = (dict.fromkeys(getattr(r, n) for r in rows) for n in ("model", "recipe"))
    return Key(
        dict(zip(models, cycle(PALETTE), strict=False)),
        dict(zip(recipes, cycle(SHAPES), strict=False)),
    )


@dataclass(frozen=True, slots=True)
class Limits:
    """Where a scatter draws its dashed lines; None is no limit."""

    x: float | None
    y: float | None


def size_and_quality(summary: RunSummary, name: str) -> str | None:
    """Bytes on disk against quality; None with fewer than two candidates that have both."""
    rows = []
    for row in summary.measured:
        size = Figure(float(row.file_bytes), "bytes", "measured", "")
        rows += _point(summary, row, size, "bytes") if row.file_bytes > 0 else []
    limits = limits_of(summary.budget)
    return _scatter(
        rows, Limits(limits.get("file_size"), limits.get("quality")), summary, name,
        title="Size on disk", labels=BYTES,
    )  # fmt: skip


def latency_and_quality(summary: RunSummary, name: str) -> str | None:
    """Milliseconds per token against quality; None with fewer than two that have both."""
    rows = []
    for row in summary.measured:
        speed = row.figures.decode_tok_per_s
        if speed and speed.least >= SLOWEST_TOK_PER_S:
            rows += _point(summary, row, _ms_per_token(speed), "ms")
    limits = limits_of(summary.budget)
    least = limits.get("decode_tok_per_s")
    return _scatter(
        rows, Limits(1000 / least if least else None, limits.get("quality")), summary, name,
        title="Milliseconds per generated token",
    )  # fmt: skip


def _ms_per_token(speed: Figure) -> Figure:
    low, high = (None if s is None else 1000 / s for s in (speed.high, speed.low))
    return Figure(1000 / speed.value, "s", speed.kind, speed.source, low, high)


def _point(summary: RunSummary, row: CandidateRow, x: Figure, unit: str) -> list[Row]:
    """The mark of a candidate, or nothing where it has no quality."""
    quality, key = row.figures.quality, key_of(summary)
    if quality is None or row.synthetic:
        return []
    scale = 100 if quality.unit == "1" else 1
    said = quantity(x.value, "bytes") if unit == "bytes" else f"{x.value:.3g} ms per token"
    return [
        {
            "x": x.value, "x_low": x.least, "x_high": x.most,
            "y": quality.value * scale, "y_low": quality.least * scale,
            "y_high": quality.most * scale,
            "opacity": FAINTNESS if row.passes and not row.frontier else 1.0,
            "colour": key.colours[row.model], "shape": key.shapes[row.recipe],
            "fill": key.colours[row.model] if row.passes else SURFACE, "frontier": row.frontier,
            "recommended": is_recommended(row, summary.recommended),
            "tip": f"{name_of(row)}: {said}, quality {value_of(quality, 'quality')}",
        }
    ]  # fmt: skip


def _scatter(
    rows: list[Row], limits: Limits, summary: RunSummary, name: str, *, title: str,
    labels: str | None = None,
) -> str | None:  # fmt: skip
    if len(rows) < 2:
        return None
    percent = any(
        r.figures.quality and r.figures.quality.unit in ("1", "%") for r in summary.measured
    )
    floor = limits.y
    if floor is not None and floor <= 1 and max(r["y"] for r in rows) > 1:
        floor *= 100
    xs = [r[k] for r in rows for k in ("x", "x_low", "x_high")] + ([limits.x] if limits.x else [])
    ys = [r[k] for r in rows for k in ("y", "y_low", "y_high")]
    ys += [floor] if floor is not None else []
    metric = clean(summary.quality_metric or "quality").replace("_", " ")
    x = alt.X("x:Q", title=title, axis=log_axis(xs, labels), scale=log_scale(xs))
    y = alt.Y(
        "y:Q", title=f"{metric[:1].upper()}{metric[1:]}{', %' if percent else ''}",
        axis=alt.Axis(tickCount=6), scale=linear_scale(ys, top=100 if percent else None),
    )  # fmt: skip
    base = chart_of(rows)
    layers = [*_limit_lines(limits.x, floor), *_frontier_line(rows, x, y)]
    layers += [*_whiskers(base, x, y), *_points(base, x, y)]
    chart = alt.layer(*layers).properties(width=WIDTH, height=HEIGHT)
    best = max(rows, key=lambda r: r["y"])
    label = f"{title} against {metric} of {len(rows)} candidates; best: {best['tip']}"
    return draw(styled(chart), name=name, label=label)


def _limit_lines(x: float | None, y: float | None) -> list[Any]:
    """Dashed lines where the budget draws them, each with the word `limit`."""
    found: list[Any] = []
    for channel, value in (("x", x), ("y", y)):
        if value is None:
            continue
        base = chart_of([{channel: value}])
        where = {channel: f"{channel}:Q"}
        found.append(base.mark_rule(strokeDash=[4, 3], stroke=MUTED, aria=False).encode(**where))
        offset: Row = {"dx": 4, "dy": 6} if channel == "x" else {"dx": -2, "dy": -6}
        place = alt.value(0) if channel == "x" else alt.value(WIDTH)
        text = base.mark_text(
            align="left" if channel == "x" else "right", fill=MUTED, fontSize=11, aria=False,
            **offset,
        )  # fmt: skip
        other = {"y": place} if channel == "x" else {"x": place}
        found.append(text.encode(**where, **other, text=alt.value("limit")))
    return found


def _frontier_line(rows: list[Row], x: Any, y: Any) -> list[Any]:
    """A step line under the best quality that candidates of the frontier reach at each x."""
    best, steps = -math.inf, []
    for row in sorted((r for r in rows if r["frontier"]), key=lambda r: (r["x"], -r["y"])):
        if row["y"] > best:
            best = row["y"]
            steps.append({"x": row["x"], "y": row["y"]})
    if len(steps) < 2:
        return []
    line = chart_of(steps).mark_line(
        interpolate="step-after", stroke=FAINT, strokeWidth=1.5, aria=False
    )
    return [line.encode(x=x, y=y)]


def _whiskers(base: Any, x: Any, y: Any) -> list[Any]:
    rule = base.mark_rule(strokeWidth=1.2, aria=False)
    ink = {
        "stroke": alt.Stroke("colour:N", scale=None),
        "opacity": alt.Opacity("opacity:Q", scale=None),
    }
    return [
        rule.encode(x=x, y=alt.Y("y_low:Q"), y2="y_high:Q", **ink),
        rule.encode(x=alt.X("x_low:Q"), x2="x_high:Q", y=y, **ink),
    ]


def _points(base: Any, x: Any, y: Any) -> list[Any]:
    """The marks, and a ring with a word round the chosen one."""
    points = base.mark_point(size=75, strokeWidth=1.8, opacity=1).encode(
        x=x, y=y, shape=alt.Shape("shape:N", scale=None),
        stroke=alt.Stroke("colour:N", scale=None), fill=alt.Fill("fill:N", scale=None),
        strokeOpacity=alt.StrokeOpacity("opacity:Q", scale=None),
        fillOpacity=alt.FillOpacity("opacity:Q", scale=None), description="tip:N",
    )  # fmt: skip
    chosen = base.transform_filter("datum.recommended").encode(x=x, y=y)
    ring = chosen.mark_point(size=330, stroke=ACCENT, strokeWidth=2, shape="circle", aria=False)
    word = chosen.mark_text(
        dy=-19, fill=ACCENT, fontSize=12, fontWeight=600, aria=False, text="recommended"
    )
    return [points, ring, word]
