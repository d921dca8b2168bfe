"""The sections of a chapter that come from raw results, in the order of the page."""

from __future__ import annotations

from edgegauge.report.block import Block
from edgegauge.report.chapter import Chapter, subject_of
from edgegauge.report.configurations import configurations_block
from edgegauge.report.context import context_blocks
from edgegauge.report.graphs import graphs_block, names_of
from edgegauge.report.lasting import lasting_block
from edgegauge.report.legend import legend_of
from edgegauge.report.parallel import parallel_block
from edgegauge.report.phases import phases_block
from edgegauge.report.power import Metered, power_block
from edgegauge.report.rows import shape_text
from edgegauge.report.shown import clean
from edgegauge.report.view import Notes
from edgegauge.result import FailedResult, Result


def blocks_of(chapter: Chapter, notes: Notes, name: str) -> list[Block]:
    """Those sections that there is data for; ids within their pictures begin with `name`."""
    legend = legend_of(chapter)
    graphs = list(zip(names_of(chapter.graphs), chapter.graphs, strict=True))
    held = [(legend.names[subject_of(r)], r.summary.memory.phases) for r in chapter.shown]
    held += [(who, graph.summary.memory.phases) for who, graph in graphs]
    # The rows of the table first, then what else was metered: other shapes, and sustained runs.
    results = [*chapter.shown, *(r for r in chapter.results if r not in chapter.shown)]
    several = len(results) > len(chapter.shown)
    metered = [Metered(_named(r, legend.names[subject_of(r)], several), r.energy) for r in results]
    metered += [Metered(who, graph.energy) for who, graph in graphs]
    found = [
        graphs_block(chapter.graphs, notes, name),
        configurations_block(chapter.results, chapter.shown, legend, notes),
        *context_blocks(chapter.results, legend, name),
        parallel_block(chapter.results, legend, name),
        lasting_block(chapter.results, legend, name),
        power_block(metered, notes, name),
        phases_block(held, name),
    ]
    return [block for block in found if block]


def _named(result: Result, name: str, several: bool) -> str:
    return f"{name} ({shape_text(result.workload)})" if several else name


def failures_of(chapter: Chapter) -> list[tuple[str, str]]:
    """(what was measured, why it failed) of each measurement without a run that ended well."""
    return [
        (clean(f"{f.artifact.model} {f.artifact.recipe or ''}".strip()) + f", "
         f"{shape_text(f.workload)}", _why(f))
        for f in chapter.failed
    ]  # fmt: skip


def _why(failed: FailedResult) -> str:
    last = failed.failures[-1]
    return clean(f"{last.kind} during {last.phase}: {last.reason}", 400)
