"""Baselines: the exact figures of a gate's subjects, as a file in the user's repository.

What is deterministic is kept and compared: bytes on disk, bytes of tensors, predicted memory, and
the quality that was evaluated. A figure that is worse by more than the gate tolerates fails, and
one that is better by more than that is told, so that the file can be written anew.
"""

from __future__ import annotations

from pathlib import Path

from pydantic import Field

from edgegauge import __version__
from edgegauge.check.gate import BaselineRule
from edgegauge.check.outcome import Check
from edgegauge.document import Document, read_json, write_json
from edgegauge.errors import InputError
from edgegauge.figure import Figure
from edgegauge.units import format_quality, format_quantity


class Exact(Document):
    """The exact figures of one subject; None: it has none."""

    file_bytes: int | None = Field(default=None, ge=0)
    """Of all its files."""
    tensor_bytes: int = Field(ge=0)
    exact_match: float | None = None
    bits_per_byte: float | None = None
    memory_bytes: dict[str, int] = {}
    """Device: memory that it needs there, as predicted."""


class Baseline(Document):
    """A baseline file."""

    format: int = Field(default=1, ge=1, le=1)
    edgegauge: str
    """Version that wrote it: another one may predict other memory."""
    subjects: dict[str, Exact]


def baseline_path(gate: Path, rule: BaselineRule) -> Path:
    """Where the baseline of the gate at this path is, or goes."""
    return gate.with_name(rule.file or f"{gate.stem}.baseline.json")


def read_baseline(path: Path) -> Baseline:
    """The baseline in this file; InputError where there is none or it is wrong."""
    if not path.exists():
        raise InputError(
            f"there is no baseline {path}",
            hint="--update-baseline writes it; commit it beside the gate",
        )
    return read_json(path, Baseline)


def write_baseline(path: Path, subjects: dict[str, Exact]) -> None:
    """Write the file: sorted, and one figure a line, so that diffs are short."""
    exact = {name: subjects[name].model_dump(exclude_none=True) for name in sorted(subjects)}
    for figures in exact.values():
        figures["memory_bytes"] = dict(sorted(figures["memory_bytes"].items()))
    write_json(path, {"format": 1, "edgegauge": __version__, "subjects": exact})


def exact_of(figures: dict[str, Figure], memory: dict[str, Figure]) -> Exact:
    """The figures of a subject, and those of its memory by device, as the file keeps them."""
    sizes = {k: round(f.value) if f.unit == "bytes" else f.value for k, f in figures.items()}
    return Exact(**sizes, memory_bytes={k: round(f.value) for k, f in memory.items()})


def compare(name: str, was: float, now: Figure, rule: BaselineRule) -> tuple[Check, str | None]:
    """One figure with the baseline's: the check, and what is better by more than is tolerated."""
    if now.unit == "bytes":
        write, tolerated = format_quantity, was * rule.growth_at_most
        allowed = f"{100 * rule.growth_at_most:g} %"
    else:
        write, tolerated = format_quality, rule.quality_loss_at_most
        allowed = _points(tolerated, now)
    more_is_better = name == "exact_match"
    worse = was - now.value if more_is_better else now.value - was
    says = f"{NOUNS[name]} is {write(now.value, now.unit)}, {_change(was, now)}"
    exceeds = abs(worse) > tolerated * (1 + 1e-9)  # 0.9 - 0.89 is more than 0.01 in binary
    fails = exceeds and worse > 0
    check = Check(
        limit=f"baseline.{name}", outcome="fail" if fails else "pass",
        required=was - tolerated if more_is_better else was + tolerated, figure=now,
        says=f"{says}, {allowed} allowed" if fails else says,
    )  # fmt: skip
    return check, says if exceeds and not fails else None


NOUNS = {
    "file_bytes": "the size on disk", "tensor_bytes": "the size of the tensors",
    "memory_bytes": "the memory", "exact_match": "exact match", "bits_per_byte": "bits per byte",
}  # fmt: skip


def _change(was: float, now: Figure) -> str:
    """`12.3 % more than the baseline's 8.00 MB`."""
    if now.value == was:
        return "as in the baseline"
    side = "more" if now.value > was else "less"
    if now.unit == "bytes":
        share = f"{100 * abs(now.value / was - 1):.2g} % {side}" if was else side
        return f"{share} than the baseline's {format_quantity(was, now.unit)}"
    change = _points(abs(now.value - was), now)
    return f"{change} {side} than the baseline's {format_quality(was, now.unit)}"


def _points(change: float, of: Figure) -> str:
    """A difference of two qualities: of shares, in points."""
    return f"{100 * change:.3g} points" if of.unit == "1" else format_quality(change, of.unit)
