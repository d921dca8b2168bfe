"""Run summaries: everything a report shows, as one document that the pipeline writes.

Format history:
    1  first version

A report is made from this file alone. Figures are null where nothing is known, and a candidate that
could not be made or measured is a row whose figures are all null and whose reason says why.
"""

from __future__ import annotations

from typing import Any, Literal

from pydantic import Field

from edgegauge.document import Document
from edgegauge.figure import Figure
from edgegauge.result import Workload


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
    quality: Figure | None = None
    """On the metric that the summary names."""
    perplexity: Figure | None = None


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
    trustworthy: bool = True
    """False where a disturbed measurement leaves open whether its candidate meets a limit."""
    warnings: list[str] = []
