"""The section of context: speed against what is already in the context, and against the prompt.

Only burst results of one sequence are drawn. A line joins those that differ in nothing but the
quantity along the axis; the band is the interval of each median.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import altair as alt

from edgegauge.figure import Figure
from edgegauge.report.block import DASHES, Block, Picture
from edgegauge.report.chapter import Subject, subject_of
from edgegauge.report.charts import Row, styled
from edgegauge.report.curves import SECONDS, along, lines, spread, upright
from edgegauge.report.legend import Legend
from edgegauge.report.shown import interval_of, value_of
from edgegauge.report.svg import draw
from edgegauge.report.thin import drawable
from edgegauge.result import Result, Summary

WIDTH, HEIGHT = 270, 200
MOST_SUBJECTS = 8


@dataclass(frozen=True, slots=True)
class Axis:
    """What goes along a picture, and what tells its lines apart."""

    name: str
    section: str
    title: str
    other: str
    other_said: str


DEPTH = Axis(
    "depth", "Speed and depth", "Tokens in the context before the prompt", "prompt_tokens",
    "prompt of {}",
)  # fmt: skip
PROMPT = Axis("prompt_tokens", "Speed and prompt length", "Tokens of the prompt", "depth",
              "depth of {}")  # fmt: skip
AXES = (DEPTH, PROMPT)

FIGURES = {"decode": "Decode, tok/s", "prefill": "Prompt, tok/s", "ttft": "First token, time"}


Group = tuple[Subject, int, list[Result]]
"""A line: its subject, the value of the axis' `other`, and its results in order."""


def context_blocks(results: Sequence[Result], legend: Legend, name: str) -> list[Block]:
    """One section for two depths or more of an artifact, one for two prompt lengths or more."""
    plain = [r for r in results if r.workload.mode == "burst" and r.workload.parallel == 1]
    kept = list(dict.fromkeys(subject_of(r) for r in plain))[:MOST_SUBJECTS]
    plain = [r for r in plain if subject_of(r) in kept]
    found = [_block(_groups(plain, axis), axis, legend, f"{name}-{axis.name}") for axis in AXES]
    return [block for block in found if block]


def _block(groups: Sequence[Group], axis: Axis, legend: Legend, name: str) -> Block | None:
    made = [
        _picture(groups, axis, figure, title, legend, f"{name}-{figure}")
        for figure, title in FIGURES.items()
    ]
    pictures = [picture for picture in made if picture]
    if not pictures:
        return None
    others = sorted({other for _, other, _ in groups})
    dashes = [(axis.other_said.format(other), DASHES[i]) for i, other in enumerate(others)]
    said = "Medians of burst results of one sequence; a band is their interval."
    if len(others) == 1:
        said += f" All at a {dashes[0][0]}."
    return Block(
        axis.section, said, pictures, legend.used(subject for subject, _, _ in groups),
        dashes if len(others) > 1 else [],
    )  # fmt: skip


def _groups(results: Sequence[Result], axis: Axis) -> list[Group]:
    """Lines of at least two results, of at most as many `other` values as there are styles."""
    found: dict[tuple[Subject, int, int], list[Result]] = {}
    for result in results:
        load = result.workload
        key = (subject_of(result), getattr(load, axis.other), load.generated_tokens)
        found.setdefault(key, []).append(result)
    lined = {key: group for key, group in found.items() if len(group) > 1}
    shown = spread([other for _, other, _ in lined], len(DASHES))
    return [
        (subject, other, sorted(group, key=lambda r: getattr(r.workload, axis.name)))
        for (subject, other, _), group in lined.items()
        if other in shown
    ]


def _figure(summary: Summary, name: str) -> Figure | None:
    if name == "ttft":
        return summary.ttft_s.p50 if summary.ttft_s else None
    return summary.decode_tok_per_s if name == "decode" else summary.prefill_tok_per_s


def _picture(
    groups: Sequence[Group], axis: Axis, figure: str, title: str, legend: Legend, name: str
) -> Picture | None:
    others = sorted({other for _, other, _ in groups})
    rows: list[Row] = []
    for index, (subject, other, group) in enumerate(groups):
        made = [_row(result, axis, figure) for result in group]
        line = [row for row in made if row]
        for row in line if len(line) > 1 else ():
            row |= {
                "series": index, "colour": legend.colours[subject], "dash": others.index(other),
                "tip": f"{legend.names[subject]}, {axis.other_said.format(other)}, {row['tip']}",
            }  # fmt: skip
            rows.append(row)
    if not rows:
        return None
    x = along([row["x"] for row in rows], axis.title)
    ends = [row[key] for row in rows for key in ("y", "low", "high")]
    y = upright(ends, title if figure != "ttft" else "", SECONDS if figure == "ttft" else None)
    chart = alt.layer(*lines(rows, x, y)).properties(width=WIDTH, height=HEIGHT)
    label = f"{title} against {axis.title.lower()}: {len({r['series'] for r in rows})} lines, " + (
        "; ".join(str(row["tip"]) for row in rows[:6])
    )
    return Picture(title.split(",")[0], draw(styled(chart), name=name, label=label))


def _row(result: Result, axis: Axis, figure: str) -> Row | None:
    found = _figure(result.summary, figure)
    if found is None or not all(map(drawable, (found.value, found.least, found.most))):
        return None
    x = getattr(result.workload, axis.name)
    interval = interval_of(found)
    said = f"{value_of(found)}" + (f" ({interval})" if interval else "")
    along_said = f"depth {x}" if axis is DEPTH else f"prompt of {x}"
    return {"x": x, "y": found.value, "low": found.least, "high": found.most,
            "tip": f"{along_said}: {said}"}  # fmt: skip
