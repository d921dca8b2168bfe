"""The text of `edgegauge fit` for several devices: what fits each of them best."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass

from rich.text import Text

from edgegauge.choose import Key, Verdict, obstacles
from edgegauge.cli.output import stdout, table, text_of
from edgegauge.fit import FitReport
from edgegauge.units import format_bytes

WIDE = 110
"""Columns of a terminal from which the table has room for how a candidate is stored."""


@dataclass(frozen=True, slots=True)
class _Line:
    """What is kept of a device's report, which holds hundreds of predictions."""

    device: str
    passing: dict[Key, int]
    """The candidates that meet every limit, with their bytes on disk."""
    smallest: Verdict | None
    best: Verdict | None
    """The one with the highest score, the smallest where several have it."""
    obstacles: dict[str, int]
    """How many candidates each limit was the first to stop."""


def show_devices(reports: Iterable[FitReport]) -> bool:
    """Print what fits each device; whether every device has something that does."""
    console = stdout()
    lines = [_line(report) for report in reports]
    fitting = [line for line in lines if line.passing]
    failing = [line for line in lines if not line.passing]
    if fitting:
        _show_fitting(fitting)
    if failing:
        made = table("nothing fits", "candidates stopped by")
        for line in failing:
            stopped = ", ".join(f"{noun} {count}" for noun, count in line.obstacles.items())
            made.add_row(_name(line.device), stopped)
        console.print(made)
        console.print()
    console.print(f"Something meets every limit on {len(fitting)} of {len(lines)} devices.")
    if len(fitting) > 1:
        console.print(_for_most(fitting), soft_wrap=True, markup=False)
    return not failing


def _line(report: FitReport) -> _Line:
    choice = report.choice
    passing = [v for v in choice.verdicts if v.passes]
    smallest = next((v for v in passing if v.candidate is choice.recommended), None)
    best = max(passing, key=_score, default=None)
    sizes = {v.candidate.key: v.candidate.file_bytes for v in passing}
    return _Line(report.device.id, sizes, smallest, best, obstacles(choice))


def _score(verdict: Verdict) -> tuple[float, int]:
    quality = verdict.candidate.figure("quality")
    return (quality.value if quality else 0.0, -verdict.candidate.file_bytes)


def _show_fitting(lines: list[_Line]) -> None:
    """The smallest and the best candidate, one device a row."""
    console = stdout()
    wide = console.width >= WIDE
    made = table("device")
    for head in ("smallest that\nmeets every limit", "highest score\nthat does"):
        made.add_column(head)
        if wide:
            made.add_column("stored as")
        made.add_column("tok/s", justify="right")
    made.add_column("score", justify="right")
    for line in lines:
        made.add_row(
            _name(line.device), *_cells(line.smallest, wide), *_cells(line.best, wide),
            text_of(line.best.candidate.figure("quality")) if line.best else "-",
        )  # fmt: skip
    console.print(made)
    if any(v.uncertain for line in lines for v in (line.smallest, line.best) if v):
        console.print("[dim]? a limit lies within its error[/]")
    console.print()


def _cells(verdict: Verdict | None, wide: bool) -> list[str | Text]:
    """Model, how it is stored, decode rate."""
    assert verdict is not None  # devices without are listed apart
    candidate = verdict.candidate
    stored = [f"{candidate.format} {candidate.recipe}"] if wide else []
    rate = text_of(candidate.figure("decode_tok_per_s"))
    mark = "?" if verdict.uncertain else " "
    return [
        _name(candidate.model), *stored, rate.removeprefix("~").removesuffix(" tok/s") + mark
    ]  # fmt: skip


def _for_most(lines: list[_Line]) -> str:
    """What to ship where one file has to do for as many devices as it can."""
    sizes = {key: size for line in lines for key, size in line.passing.items()}
    counts: Counter[Key] = Counter(key for line in lines for key in line.passing)
    chosen = min(counts, key=lambda key: (-counts[key], sizes[key], key))
    model, recipe, file_format = chosen
    return (
        f"One for most of them: {model} at {recipe} ({file_format}, "
        f"{format_bytes(sizes[chosen])}) meets every limit on {counts[chosen]}."
    )


def _name(text: str) -> Text:
    return Text(text, overflow="ellipsis", no_wrap=True)
