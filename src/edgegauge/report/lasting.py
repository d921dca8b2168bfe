"""The section of sustained results: the token rate over time, and the temperature where known.

A point is one round, or the median of neighbouring rounds with the band of their range. The dashed
line is the burst rate, the solid one the plateau from the moment it was reached.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import altair as alt

from edgegauge.measure.finding import State
from edgegauge.measure.sustained import throttled_at_s
from edgegauge.report.block import Block, Picture
from edgegauge.report.chapter import subject_of
from edgegauge.report.charts import Row, chart_of, linear_scale, styled
from edgegauge.report.curves import along, upright, words
from edgegauge.report.legend import Legend
from edgegauge.report.rows import shape_text
from edgegauge.report.shown import interval_of, value_of
from edgegauge.report.svg import ACCENT, INK, PALETTE, WARN, draw
from edgegauge.report.thin import binned, drawable
from edgegauge.result import Result, Sustained
from edgegauge.units import format_seconds

WIDTH, HEIGHT, STRIP = 860, 230, 70
MOST_RESULTS = 8
ROOM = 0.1
"""Of the span, to the right of it, for the words."""


def lasting_block(results: Sequence[Result], legend: Legend, name: str) -> Block | None:
    """The section; None where nothing was decoded until it was steady."""
    lasting = [r for r in results if r.workload.mode == "sustained" and r.summary.sustained]
    pictures = [
        Picture(legend.names[subject_of(r)], svg, _said(r.summary.sustained), wide=True)
        for index, r in enumerate(lasting[:MOST_RESULTS])
        if r.summary.sustained and (svg := _drawn(r, r.summary.sustained, f"{name}-last{index}"))
    ]
    if not pictures:
        return None
    shapes = dict.fromkeys(
        shape_text(r.workload).removesuffix(", sustained") for r in lasting[:MOST_RESULTS]
    )
    notes = []
    if len(lasting) > MOST_RESULTS:
        notes.append(f"{len(lasting) - MOST_RESULTS} more sustained results are not drawn.")
    said = (
        "Rounds follow each other without a pause until their rate is steady. Dashed: the rate of "
        f"the first half minute. Solid: the plateau. Each round: {'; '.join(shapes)}."
    )
    return Block("Sustained", said, pictures, notes=notes)


def _said(found: Sustained | None) -> str:
    """`22.6 tok/s after 5 min, 43 % less than at first`."""
    assert found is not None  # the caller has looked
    if found.plateau_tok_per_s is None:
        text = "not steady in time"
    else:
        text = f"{value_of(found.plateau_tok_per_s)} in the long run"
        interval = interval_of(found.plateau_tok_per_s)
        text += f" ({interval})" if interval else ""
        if found.time_to_plateau_s:
            text += f", reached after {format_seconds(found.time_to_plateau_s)}"
        if found.drop_percent:
            drop, interval = found.drop_percent, interval_of(found.drop_percent)
            text += f", {drop.value:.1f} %{f' ({interval})' if interval else ''} below the first"
    if found.throttled is not None:
        text += "; the machine throttled" if found.throttled else "; no throttling"
    if found.peak_temperature_c is not None:
        text += f"; at most {found.peak_temperature_c:.0f} °C"
    return text


def rates_of(result: Result) -> list[tuple[float, float]]:
    """(seconds since the first round, tokens per second) of each round that says when it was."""
    rounds = [r for run in result.samples for r in run.rounds if r.start_s is not None]
    begun_s = min((r.start_s or 0.0 for r in rounds), default=0.0)
    found = []
    for timed in rounds:
        decode_s = sum(timed.inter_token_s)
        if decode_s > 0:
            middle_s = (timed.start_s or 0.0) - begun_s + timed.ttft_s + decode_s / 2
            tokens = result.workload.parallel * len(timed.inter_token_s)
            found.append((middle_s, tokens / decode_s))
    return found


def states_of(result: Result) -> list[State]:
    """What the machine said during the rounds, without what is no state."""
    during = result.host.get("during")
    return [
        {key: value for key, value in state.items() if _is_number(value)}
        for state in (during if isinstance(during, list) else ())
        if isinstance(state, dict) and _is_number(state.get("t_s"))
    ]


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and abs(value) < 1e15


def _drawn(result: Result, found: Sustained, name: str) -> str | None:
    bins = binned(rates_of(result))
    if len(bins) < 2:
        return None
    rows: list[Row] = [
        {"x": b.t_s, "y": b.middle, "low": b.low, "high": b.high,
         "tip": f"{b.t_s:.0f} s: {b.middle:.3g} tok/s"}
        for b in bins
    ]  # fmt: skip
    states = states_of(result)
    heat = binned([(s["t_s"], s["temperature_c"]) for s in states if "temperature_c" in s])
    strip = len(heat) > 1
    times = [row["x"] for row in rows] + [b.t_s for b in heat]
    below = along(times, "Seconds of decoding", room=ROOM)
    x = along(times, None, room=ROOM) if strip else below
    levels = _levels(found, bins[-1].t_s)
    ends = [row[key] for row in rows for key in ("low", "high")] + [row["y"] for row in levels]
    y = upright(ends, "Decode, tok/s")
    base = chart_of(rows)
    layers = [
        base.mark_area(fill=PALETTE[0], opacity=0.18, aria=False).encode(
            x=x, y=alt.Y("low:Q"), y2="high:Q"
        ),
        base.mark_line(stroke=PALETTE[0], strokeWidth=1.6, aria=False).encode(x=x, y=y),
        base.mark_point(fill=PALETTE[0], stroke=PALETTE[0], size=14, opacity=1).encode(
            x=x, y=y, description="tip:N"
        ),
        *_marks(levels, x, y),
        *_throttling(throttled_at_s(states) if found.throttled else None, x),
    ]
    chart: Any = alt.layer(*layers).properties(width=WIDTH, height=HEIGHT)
    if strip:
        chart = alt.vconcat(chart, _temperature(heat, below), spacing=8)
    label = f"Decoding rate over {bins[-1].t_s:.0f} s: {_said(found)}"
    return draw(styled(chart), name=name, label=label)


def _levels(found: Sustained, end_s: float) -> list[Row]:
    """The burst rate, and the plateau from where it began."""
    burst, plateau = found.burst_tok_per_s, found.plateau_tok_per_s
    levels: list[Row] = []
    if drawable(burst.value):
        levels.append({"x": 0.0, "end": end_s, "y": burst.value, "text": "burst", "dash": 1})
    if plateau and drawable(plateau.value):
        start_s = found.time_to_plateau_s or 0.0
        start_s = start_s if math.isfinite(start_s) and 0 <= start_s <= end_s else 0.0
        levels.append(
            {"x": start_s, "end": end_s, "y": plateau.value, "text": "plateau", "dash": 0}
        )
    return levels


def _marks(levels: list[Row], x: Any, y: Any) -> list[Any]:
    """Lines at these rates with their names at the right end."""
    if not levels:
        return []
    found = []
    for dash, colour, below in ((1, INK, -5), (0, ACCENT, 5)):
        rows = [row for row in levels if row["dash"] == dash]
        if not rows:
            continue
        rule = chart_of(rows).mark_rule(
            stroke=colour, strokeWidth=1.6, strokeDash=[5, 4] if dash else [1, 0], aria=False
        )
        found.append(rule.encode(x=x, x2="end:Q", y=y))
        at_end: list[Row] = [{**row, "x": row["end"]} for row in rows]
        found += words(at_end, x, y, align="left", dx=6, dy=below)
    return found


def _throttling(at_s: float | None, x: Any) -> list[Any]:
    """A line where the machine first said that it slowed down."""
    if at_s is None:
        return []
    base = chart_of([{"x": at_s, "text": "throttled"}])
    rule = base.mark_rule(stroke=WARN, strokeWidth=1.4, strokeDash=[2, 3], aria=False)
    word = base.mark_text(fill=WARN, align="left", dx=5, dy=6, fontSize=11, aria=False)
    return [rule.encode(x=x), word.encode(x=x, y=alt.value(0), text="text:N")]


def _temperature(heat: Sequence[Any], x: Any) -> Any:
    rows: list[Row] = [{"x": b.t_s, "y": b.middle} for b in heat]
    y = alt.Y("y:Q", title="°C", axis=alt.Axis(tickCount=3),
              scale=linear_scale([row["y"] for row in rows], None))  # fmt: skip
    line = chart_of(rows).mark_line(stroke=WARN, strokeWidth=1.6, aria=False)
    return line.encode(x=x, y=y).properties(width=WIDTH, height=STRIP)
