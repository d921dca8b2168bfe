"""The section of parallel sequences: what all of them get together against what each one waits.

One combination of prompt length and depth is drawn, that with the most numbers of sequences; among
equals the one with the least to do.
"""

from __future__ import annotations

from collections.abc import Sequence

import altair as alt

from edgegauge.report.block import Block, Picture
from edgegauge.report.chapter import Subject, subject_of
from edgegauge.report.charts import Row, chart_of, log_axis, log_scale, styled
from edgegauge.report.curves import SECONDS, upright, words
from edgegauge.report.legend import Legend
from edgegauge.report.shown import quantity, value_of
from edgegauge.report.svg import draw
from edgegauge.report.thin import drawable
from edgegauge.result import Result

WIDTH, HEIGHT = 860, 300
MOST_SUBJECTS = 8

Sweep = dict[Subject, list[Result]]
"""Results of each subject that differ in the number of sequences, in order."""


def parallel_block(results: Sequence[Result], legend: Legend, name: str) -> Block | None:
    """The section; None where no artifact was measured with two numbers of sequences."""
    sweeps = _sweeps([r for r in results if r.workload.mode == "burst"])
    if not sweeps:
        return None
    shape = max(sweeps, key=lambda s: (max(map(len, sweeps[s].values())), [-n for n in s]))
    rows = [
        row
        for index, (subject, group) in enumerate(list(sweeps[shape].items())[:MOST_SUBJECTS])
        for row in _rows(group, subject, index, legend)
    ]
    if len(rows) < 2:
        return None
    prompt, depth, generated = shape
    more = len(sweeps) - 1
    said = (
        f"Each mark is a number of sequences decoded side by side, after {prompt} prompt tokens at "
        f"depth {depth}, {generated} generated. The line to its right ends at the 99th percentile "
        "of the gap (or the largest seen, where there are too few)."
    )
    if more:
        said += f" {more} other combination{'s' * (more > 1)} of prompt and depth not drawn."
    return Block(
        "Sequences side by side", said, [_picture(rows, f"{name}-parallel")],
        legend.used(list(sweeps[shape])[:MOST_SUBJECTS]),
    )  # fmt: skip


def _sweeps(results: Sequence[Result]) -> dict[tuple[int, int, int], Sweep]:
    """By prompt, depth and generated tokens: subjects with two numbers of sequences or more."""
    found: dict[tuple[int, int, int], Sweep] = {}
    for result in sorted(results, key=lambda r: r.workload.parallel):
        load = result.workload
        shape = (load.prompt_tokens, load.depth, load.generated_tokens)
        found.setdefault(shape, {}).setdefault(subject_of(result), []).append(result)
    several = {
        shape: {subject: group for subject, group in sweep.items() if len(group) > 1}
        for shape, sweep in found.items()
    }
    return {shape: sweep for shape, sweep in several.items() if sweep}


def _rows(group: Sequence[Result], subject: Subject, series: int, legend: Legend) -> list[Row]:
    made: list[Row] = []
    for result in group:
        rate, gap = result.summary.decode_tok_per_s, result.summary.inter_token_s
        if rate is None or gap is None:
            continue
        numbers = (rate.value, rate.least, rate.most, gap.p50.value, gap.tail.value)
        if not all(map(drawable, numbers)):
            continue
        count = result.workload.parallel
        tail = "99th percentile" if gap.p99 else "largest"
        made.append({
            "x": gap.p50.value, "tail": max(gap.tail.value, gap.p50.value), "y": rate.value,
            "low": rate.least, "high": rate.most, "series": series, "text": str(count),
            "colour": legend.colours[subject], "order": count,
            "tip": f"{legend.names[subject]}, {count} sequence{'s' * (count > 1)}: "
            f"{value_of(rate)} together, gap {value_of(gap.p50)}, "
            f"{tail} {quantity(gap.tail.value, 's')}",
        })  # fmt: skip
    return made if len(made) > 1 else []


def _picture(rows: list[Row], name: str) -> Picture:
    gaps = [row[key] for row in rows for key in ("x", "tail")]
    x_scale = log_scale(gaps)
    x = alt.X("x:Q", title="Gap between tokens of a sequence: median, and to the right its tail",
              scale=x_scale, axis=log_axis(gaps, SECONDS))  # fmt: skip
    rates = [row[key] for row in rows for key in ("y", "low", "high")]
    y = upright(rates, "All sequences together, tok/s")
    base = chart_of(rows)
    ink = alt.Stroke("colour:N", scale=None)
    layers = [
        base.mark_line(strokeWidth=1.8, aria=False).encode(
            x=x, y=y, stroke=ink, detail="series:N", order="order:Q"
        ),
        base.mark_rule(strokeWidth=1.2, opacity=0.55, aria=False).encode(
            x=x, x2="tail:Q", y=y, stroke=ink
        ),
        base.mark_rule(strokeWidth=1.2, aria=False).encode(
            x=x, y=alt.Y("low:Q"), y2="high:Q", stroke=ink
        ),
        base.mark_point(size=60, opacity=1).encode(
            x=x, y=y, stroke=ink, fill=alt.Fill("colour:N", scale=None), description="tip:N"
        ),
        *words(rows, x, y, dx=-10, dy=-10),
    ]
    chart = alt.layer(*layers).properties(width=WIDTH, height=HEIGHT)
    label = "Throughput against latency by number of sequences: " + "; ".join(
        str(row["tip"]) for row in rows[:8]
    )
    svg = draw(styled(chart), name=name, label=label)
    return Picture("Throughput against latency", svg, wide=True)
