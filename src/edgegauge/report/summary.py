"""Run summaries: everything a report shows, as one document that the pipeline writes.

Format history:
    1  first version

A report is made from this file alone. Figures are null where nothing is known, and a candidate that
could not be made or measured is a row whose figures are all null and whose reason says why.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, Literal

from pydantic import Field

from edgegauge.battery import BATTERY_FIGURES
from edgegauge.document import Document
from edgegauge.figure import Figure
from edgegauge.result import Result, Summary, Workload


class BrokenLimit(Document):
    """A limit that is not met, in the unit of its figure; `figure` None: nothing is known."""

    limit: str
    required: float
    figure: Figure | None


class CandidateFigures(Document):
    """What is known of a candidate's speed, memory, energy and quality."""

    decode_tok_per_s: Figure | None = None
    prefill_tok_per_s: Figure | None = None
    ttft_s: Figure | None = None
    peak_memory_bytes: Figure | None = None
    energy_j_per_token: Figure | None = None
    battery_h: Figure | None = None
    """Decoding without pause."""
    tokens_per_charge: Figure | None = None
    conversations_per_charge: Figure | None = None
    added_drain_percent_per_hour: Figure | None = None
    """Of the usage that the figures' sources name."""
    quality: Figure | None = None
    """On the metric that the summary names."""
    perplexity: Figure | None = None


def battery_of(summary: Summary) -> dict[str, Figure | None]:
    """The battery figures of a result, as a candidate has them."""
    battery = summary.battery or {}
    return {name: battery.get(key) for name, key in BATTERY_FIGURES.items()}


def energy_notes(results: Iterable[Result]) -> list[str]:
    """Where energy figures come from, and why there is none, each said once."""
    notes: dict[str, None] = {}
    for result in results:
        if result.summary.energy_j_per_token is None:
            if result.summary.energy_reason:
                notes[f"No energy figure: {result.summary.energy_reason}"] = None
            continue
        for energy in result.energy[:1]:
            source = energy.source
            missing = f", not {', '.join(source.excludes)}" if source.excludes else ""
            notes[
                f"Energy: {source.id}, grade {source.grade}, covers {', '.join(source.covers)}"
                f"{missing} ({source.calibration})"
            ] = None
            notes |= dict.fromkeys(f"Energy, {source.id}: {flag}" for flag in energy.flags)
    return list(notes)


class CandidateRow(Document):
    """One (model, recipe, format) with its figures and its verdict."""

    model: str
    recipe: str
    format: str
    parameters: int | None = None
    file_bytes: int
    effective_bits: float | None = None
    passes: bool
    broken: list[BrokenLimit] = []
    reason: str
    """The verdict as a sentence."""
    frontier: bool = False
    synthetic: bool = False
    """Random weights: speed and memory mean something, quality does not."""
    figures: CandidateFigures = CandidateFigures()


class CandidateKey(Document):
    """What tells candidates apart."""

    model: str
    recipe: str
    format: str


class DeviceFacts(Document):
    """What a report says of a device."""

    id: str
    name: str
    app_memory_bytes: float = Field(gt=0)


class DevicePrediction(Document):
    """Candidates predicted for a device that is not here."""

    device: DeviceFacts
    candidates: list[CandidateRow]
    recommended: CandidateKey | None
    explanation: str
    budget: dict[str, Any] = {}
    quality_metric: str | None = None


class RunSummary(Document):
    """A summary file."""

    format: Literal[1] = 1
    title: str
    created: str
    host: dict[str, Any] = {}
    """The machine that measured (`measure.host`); empty where nothing was measured."""
    budget: dict[str, Any] = {}
    """Limit: value, as in a budget file."""
    measured: list[CandidateRow] = []
    predicted: list[DevicePrediction] = []
    recommended: CandidateKey | None = None
    explanation: str
    quality_metric: str | None = None
    """What `quality` counts, for example `exact_match`."""
    workload: Workload | None = None
    """What the measured candidates were given to do."""
    tools: dict[str, str] = {}
    """Program: version."""
    energy_notes: list[str] = []
    """Which meters the energy figures come from, their grade and coverage, or why there is none."""
    trustworthy: bool = True
    """False where a disturbed measurement leaves open whether its candidate meets a limit."""
    warnings: list[str] = []
