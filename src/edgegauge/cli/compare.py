"""`edgegauge compare`: is one result faster than another, slower, or can nobody tell?"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import click
from rich.markup import escape

from edgegauge.cli.output import emit_json, json_option, stdout, table, text_of, warn
from edgegauge.comparable import Measured
from edgegauge.compare import Comparison, compare
from edgegauge.compare_graphs import compare_graphs
from edgegauge.document import parse, read_json_object
from edgegauge.errors import InputError
from edgegauge.graph_result import GraphResult
from edgegauge.ratio import CANNOT_TELL, DEFAULT_THRESHOLD, Row
from edgegauge.result import Result, read_result


def _share(context: click.Context, parameter: click.Parameter, value: str) -> float:
    """`2%` or `0.02` as a number from 0 to below 10."""
    match = re.fullmatch(r"\s*([0-9]{1,6}(?:\.[0-9]{1,9})?)\s*(%?)\s*", value)
    share = float(match[1]) / (100 if match[2] else 1) if match else -1.0
    if not 0 <= share < 10:
        raise click.BadParameter(f"{value!r} is no share; write for example 2% or 0.02")
    return share


@click.command("compare")
@click.argument("base", type=click.Path(path_type=Path), metavar="A.json")
@click.argument(
    "others", nargs=-1, required=True, type=click.Path(path_type=Path), metavar="B.json..."
)
@click.option(
    "--threshold", callback=_share, default=f"{DEFAULT_THRESHOLD:.0%}", metavar="SHARE",
    show_default=True, help="A difference below this does not matter.",
)  # fmt: skip
@click.option("--force", is_flag=True, help="Compare although conditions differ, and say so.")
@json_option
def command(
    base: Path, others: tuple[Path, ...], threshold: float, force: bool, as_json: bool
) -> None:
    """Compare results of `edgegauge measure`: each B with A.

    Says for every quantity whether B is faster, slower, the same, or whether nobody can tell, with
    the interval of the ratio B / A and roughly how many runs would decide it. Results of different
    machines or workloads are refused.
    """
    first = _read(base)
    found = _compared(first, base, others, threshold, force)
    for other, _, comparison in found:
        for difference in comparison.differences:
            warn(f"not the same conditions, {base.name} and {other.name}: {difference}")
    if as_json:
        emit_json(_document(base, found, threshold))
        return
    for other, result, comparison in found:
        _show(base, first, other, result, comparison)
    stdout().print(
        f"[dim]same: the whole interval is within {100 * threshold:g} % of 1. Each run is one "
        "value, its median or p99; intervals are 95 %, Welch's t on their logarithms; of energy, "
        "from the intervals of both figures.[/]",
        soft_wrap=True,
    )


def _compared(
    first: Measured, base: Path, others: tuple[Path, ...], threshold: float, force: bool
) -> list[tuple[Path, Measured, Comparison]]:
    """Every comparison; the differences of all of them in one error."""
    done, problems = [], []
    for other in others:
        result = _read(other)
        try:
            done.append((other, result, _pair(first, result, threshold, force)))
        except InputError as error:
            problems += [f"{base} and {other}: {p}" for p in error.problems or [str(error)]]
    if problems:
        raise InputError(
            "not measured under the same conditions", problems,
            hint="measure under the same ones, or compare anyway with --force",
        )  # fmt: skip
    return done


def _read(path: Path) -> Measured:
    """The result in a file, of a language model or of another graph."""
    value = read_json_object(path)
    return parse(value, GraphResult, str(path)) if "graph" in value else read_result(path)


def _pair(a: Measured, b: Measured, threshold: float, force: bool) -> Comparison:
    if isinstance(a, Result) and isinstance(b, Result):
        return compare(a, b, threshold=threshold, force=force)
    if isinstance(a, GraphResult) and isinstance(b, GraphResult):
        return compare_graphs(a, b, threshold=threshold, force=force)
    raise InputError("one is of a language model and the other is not")


def _document(
    base: Path, found: list[tuple[Path, Measured, Comparison]], threshold: float
) -> dict[str, Any]:
    return {
        "format": 1,
        "a": str(base),
        "threshold": threshold,
        "comparisons": [
            {
                "b": str(other),
                "rows": [row.to_json() for row in comparison.rows],
                "differences": comparison.differences,
                "notes": comparison.notes,
            }
            for other, _, comparison in found
        ],
    }


def _show(base: Path, a: Measured, other: Path, b: Measured, comparison: Comparison) -> None:
    console = stdout()
    for label, result, path in (("A", a, base), ("B", b, other)):
        name = result.artifact.name if isinstance(result, Result) else result.graph.name
        console.print(f"{label}  {name}, {_runs(result)} ({path})", markup=False, soft_wrap=True)
    made = table("", "A", "B", "B / A", "interval", "verdict", right=("A", "B", "B / A"))
    for row in comparison.rows:
        made.add_row(
            row.noun, text_of(row.a), text_of(row.b), *_ratio(row), _verdict(row),
            style=None if row.ratio else "dim",
        )  # fmt: skip
    console.print(made)
    for note in comparison.notes:
        console.print(f"[dim]- {escape(note)}[/]", soft_wrap=True)
    console.print()


def _runs(result: Measured) -> str:
    count = len(result.samples)
    if isinstance(result, Result) and result.imported:
        tests = [found.test for found in result.imported]
        count = max(tests.count("prefill"), tests.count("decode"))
    return f"{count} run{'s' * (count != 1)}"


def _ratio(row: Row) -> tuple[str, str]:
    if row.ratio is None:
        return "-", ""
    low, high = row.ratio.low, row.ratio.high
    interval = "" if low is None or high is None else f"{low:.3f} to {high:.3f}"
    return f"{row.ratio.value:.3f}", interval


def _verdict(row: Row) -> str:
    if row.verdict is None:
        return escape(f"not compared: {row.reason}")
    if row.verdict != CANNOT_TELL:
        return f"[bold]{row.verdict}[/]"
    why = f": {row.reason}" if row.reason else ""
    if row.runs_needed:
        why += f" (about {row.runs_needed} runs of each would)"
    elif not row.reason:
        why += " (nor would 1000 runs)"
    return escape(row.verdict + why)
