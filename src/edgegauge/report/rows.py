"""Which result stands for an artifact in the table: a plain burst one, alike across artifacts.

    table_results(results)    # {identity: result}
    workload_said(chosen)     # "128 prompt tokens, 64 generated, depth 0"

Of a grid, that configuration is taken which most artifacts were measured under; among equals the
plainest: one sequence, the least depth, the prompt nearest the default. A sustained result, or one
imported from another tool, stands only for an artifact that has no other.
"""

from __future__ import annotations

from collections.abc import Sequence

from edgegauge.report.chapter import identity_of
from edgegauge.result import Result, Workload

DEFAULT_PROMPT = 128

Shape = tuple[str, int, int, int, int, int, str | None]


def shape_of(load: Workload) -> Shape:
    """What must agree for speeds to compare."""
    prompt = load.prompt.sha256 if load.prompt else None
    return (
        load.mode, load.parallel, load.depth, load.prompt_tokens, load.generated_tokens,
        load.threads, prompt,
    )  # fmt: skip


def table_results(results: Sequence[Result]) -> dict[str, Result]:
    """The result of each artifact that its row is made from; the newest among equals."""
    artifacts: dict[str, list[Result]] = {}
    for result in results:
        artifacts.setdefault(identity_of(result.artifact), []).append(result)
    # A set in between: an artifact counts once for a workload, however often it was measured.
    having = [{shape_of(r.workload) for r in group} for group in artifacts.values()]

    def rank(result: Result) -> tuple[object, ...]:
        load, shape = result.workload, shape_of(result.workload)
        return (
            load.mode != "burst",
            bool(result.imported),
            -sum(shape in shapes for shapes in having),
            load.parallel,
            load.depth,
            abs(load.prompt_tokens - DEFAULT_PROMPT),
            shape[4:6],
        )

    chosen = {}
    for identity, group in artifacts.items():
        newest_first = sorted(group, key=lambda r: r.created, reverse=True)
        chosen[identity] = min(newest_first, key=rank)
    return chosen


def shape_text(load: Workload) -> str:
    """`128 prompt tokens, 64 generated, depth 0`, and what is not plain about it."""
    text = f"{load.prompt_tokens} prompt tokens, {load.generated_tokens} generated"
    text += f", depth {load.depth}"
    if load.parallel > 1:
        text += f", {load.parallel} sequences side by side"
    return text + (", sustained" if load.mode == "sustained" else "")


def newest(results: Sequence[Result]) -> tuple[list[Result], list[str]]:
    """The newest of each artifact, tool and workload; and the names of those that had more."""
    kept: dict[tuple[object, ...], Result] = {}
    several = []
    for result in sorted(results, key=lambda r: r.created):
        key = (identity_of(result.artifact), result.tool.runtime, shape_of(result.workload))
        if key in kept:
            several.append(result.artifact.name)
        kept[key] = result
    return list(kept.values()), list(dict.fromkeys(several))
