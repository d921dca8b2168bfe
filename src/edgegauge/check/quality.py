"""The quality of an artifact, evaluated as a gate asks, against its floors."""

from __future__ import annotations

from pathlib import Path

from edgegauge.artifact import Artifact
from edgegauge.check.gate import Quality
from edgegauge.check.outcome import Check, Outcome
from edgegauge.errors import InputError, MeasurementError
from edgegauge.evaluate.manager import Progress, evaluate
from edgegauge.evaluate.task import read_task, read_text
from edgegauge.figure import Figure
from edgegauge.plan import locate
from edgegauge.units import format_quality


def check_files(asked: Quality, base: Path) -> None:
    """InputError where the files that are evaluated on are wrong; paths are relative to `base`."""
    task, text = _files(asked, base)
    if task is not None:
        read_task(task, asked.limit)
    if text is not None:
        read_text(text)


def _files(asked: Quality, base: Path) -> tuple[Path | None, Path | None]:
    """Task and text."""
    task, text = (Path(locate(name, base)) if name else None for name in (asked.task, asked.text))
    return task, text


def quality_checks(
    artifact: Artifact, asked: Quality, base: Path, progress: Progress
) -> tuple[list[Check], dict[str, Figure]]:
    """A check for each floor, and the figures by name; the files are there (`check_files`).

    An artifact that its runtime does not execute fails. Raises MissingDependency where that is not
    installed.
    """
    task, text = _files(asked, base)
    try:
        found = evaluate(artifact, task=task, text=text, limit=asked.limit, progress=progress)
    except (InputError, MeasurementError) as error:
        says = f"it could not be evaluated: {error}"
        return [_check("quality", None, None, says=says, passes=False)], {}
    checks: list[Check] = []
    figures: dict[str, Figure] = {}
    if found.accuracy and asked.exact_match_at_least is not None:
        figure = figures["exact_match"] = found.accuracy.exact_match
        floor = asked.exact_match_at_least
        says = (
            f"answers {format_quality(figure.value, '1')} of {found.accuracy.total} items of "
            f"{found.accuracy.task.name} exactly, {format_quality(floor, '1')} required"
        )
        checks.append(_check("exact_match", figure, floor, says, figure.value >= floor))
    if found.perplexity and asked.bits_per_byte_at_most is not None:
        figure = figures["bits_per_byte"] = found.perplexity.bits_per_byte
        most = asked.bits_per_byte_at_most
        says = (
            f"takes {figure.value:.4g} bits per byte of {found.perplexity.text.name}, "
            f"{most:g} allowed"
        )
        checks.append(_check("bits_per_byte", figure, most, says, figure.value <= most))
    return checks, figures


def _check(
    limit: str, figure: Figure | None, required: float | None, says: str, passes: bool
) -> Check:
    outcome: Outcome = "pass" if passes else "fail"
    return Check(limit=limit, outcome=outcome, required=required, figure=figure, says=says)
