"""The section of graphs that are no language models: a table, and how their latencies spread."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import cycle

import altair as alt

from edgegauge.figure import Figure
from edgegauge.graph_result import GraphResult
from edgegauge.report.block import Block, Grid, GridRow, Picture
from edgegauge.report.charts import Row, chart_of, log_axis, log_scale, styled
from edgegauge.report.curves import SECONDS
from edgegauge.report.shown import clean, value_of
from edgegauge.report.svg import PALETTE, draw
from edgegauge.report.thin import MOST_POINTS, quantiles
from edgegauge.report.view import Notes, column_of
from edgegauge.units import format_bytes

WIDTH, HEIGHT = 860, 260
MOST_LINES = 8
MANY = 1000
"""Of so many latencies the slowest percent is not drawn: one in ten thousand would set the axis."""

HEADINGS = {
    "p50": "Median", "p90": "90th", "p99": "99th", "max": "Largest", "rate": "Inferences",
    "tokens": "Tokens", "memory": "Peak memory", "load": "Load", "energy": "Energy",
}  # fmt: skip


def graphs_block(graphs: Sequence[GraphResult], notes: Notes, name: str) -> Block | None:
    """The section; None where no graph was measured."""
    if not graphs:
        return None
    names = names_of(graphs)
    lines = dict(zip(names, cycle(PALETTE), strict=False))
    drawn = [(who, graph) for who, graph in zip(names, graphs, strict=True)][:MOST_LINES]
    picture = _distribution(drawn, lines, f"{name}-latency")
    said = (
        "One inference is one call of the graph on one input. Percentiles are of all timed calls; "
        "the 90th needs 29 of them and the 99th 299."
    )
    reasons = dict.fromkeys(
        f"No energy figure: {clean(g.summary.energy_reason, 300)}"
        for g in graphs
        if g.summary.j_per_inference is None and g.summary.energy_reason
    )
    return Block(
        "Graphs", said, [picture] if picture else [],
        [(who, lines[who]) for who, _ in drawn] if picture and len(drawn) > 1 else [],
        grid=_grid(names, graphs, notes), notes=list(reasons),
    )  # fmt: skip


def names_of(graphs: Sequence[GraphResult]) -> list[str]:
    """The name of each graph; with what tells those of one name apart."""
    plain = [clean(graph.graph.name) for graph in graphs]
    names: list[str] = []
    for who, graph in zip(plain, graphs, strict=True):
        if plain.count(who) > 1:
            load = graph.workload
            fed = clean(load.text.name, 20) if load.text else ""
            shapes = ", ".join("x".join(map(str, s)) for s in load.shapes.values())
            parts = [who, graph.graph.format, f"{load.threads} threads", shapes, fed]
            who = ", ".join(part for part in parts if part)
        names.append(who if who not in names else f"{who} ({len(names) + 1})")
    return names


def _grid(names: Sequence[str], graphs: Sequence[GraphResult], notes: Notes) -> Grid:
    figures = [_figures(graph) for graph in graphs]
    columns, cells = [], []
    for key, heading in HEADINGS.items():
        of_key = [row[key] for row in figures]
        if any(of_key):
            column, made = column_of(of_key, notes, heading=heading)
            columns.append(column)
            cells.append(made)
    rows = [
        GridRow(who, _about(graph), [c[i] for c in cells], _under(graph))
        for i, (who, graph) in enumerate(zip(names, graphs, strict=True))
    ]
    return Grid("Graph", "Measured graphs", columns, rows)


def _figures(graph: GraphResult) -> dict[str, Figure | None]:
    found = graph.summary
    latency = found.latency_s
    return {
        "p50": latency.p50, "p90": latency.p90, "p99": latency.p99,
        "max": latency.max, "rate": found.inferences_per_s,
        "tokens": found.tokens_per_s, "memory": found.memory.peak_rss_bytes, "load": found.load_s,
        "energy": found.j_per_inference,
    }  # fmt: skip


def _about(graph: GraphResult) -> str:
    return f"{graph.graph.format}, {format_bytes(graph.graph.file_bytes)}"


def _under(graph: GraphResult) -> str:
    """How it was fed and by which runtime."""
    load, tool = graph.workload, graph.tool
    fed = f"lines of {clean(load.text.name)}" if load.text else "random values"
    inputs = [f"{clean(name)}: {clean(spec, 60)}" for name, spec in graph.graph.inputs.items()]
    shapes = [f"{clean(n)} as {'x'.join(map(str, s))}" for n, s in load.shapes.items()]
    return "; ".join([
        f"{clean(tool.runtime)} {clean(tool.runtime_version, 20)}",
        f"{load.threads} thread{'s' * (load.threads != 1)}",
        f"{graph.summary.latency_s.samples} inferences of {fed}",
        *inputs[:6], *shapes[:6],
        *([] if graph.trustworthy else ["in doubt: the machine was disturbed"]),
    ])  # fmt: skip


def _distribution(
    drawn: Sequence[tuple[str, GraphResult]], colours: dict[str, str], name: str
) -> Picture | None:
    rows: list[Row] = []
    for who, graph in drawn:
        latencies = sorted(s for run in graph.samples for s in run.latencies_s)
        many = len(latencies) >= MANY
        points = quantiles(latencies)[: -max(1, MOST_POINTS // 100) if many else None]
        rows += [
            {"x": value, "y": 100 * share, "who": who, "colour": colours[who]}
            for value, share in points
        ]
    if len(rows) < 2:
        return None
    values = [row["x"] for row in rows]
    x = alt.X("x:Q", title="Latency", scale=log_scale(values), axis=log_axis(values, SECONDS))
    y = alt.Y("y:Q", title="Inferences that took no longer, %",
              scale=alt.Scale(domain=[0, 100]),
              axis=alt.Axis(values=[0, 25, 50, 75, 90, 100]))  # fmt: skip
    line = chart_of(rows).mark_line(interpolate="step-after", strokeWidth=1.8, aria=False)
    chart = line.encode(x=x, y=y, detail="who:N", stroke=alt.Stroke("colour:N", scale=None))
    label = "Distribution of latencies: " + "; ".join(
        f"{who}: median {value_of(graph.summary.latency_s.p50)}" for who, graph in drawn
    )
    svg = draw(styled(chart.properties(width=WIDTH, height=HEIGHT)), name=name, label=label)
    cut = any(sum(len(run.latencies_s) for run in graph.samples) >= MANY for _, graph in drawn)
    note = "without the slowest percent, which the table has" if cut else ""
    return Picture("How latencies spread", svg, note, wide=True)
