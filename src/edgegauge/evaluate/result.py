"""Evaluation files: how well one artifact does on one task, one text, or both.

Format history:
    1  first version

Outcomes and window scores are stored one by one: every figure can be recomputed from them, and two
artifacts are compared item by item (`paired_difference`).
"""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from edgegauge.document import Document
from edgegauge.errors import InputError
from edgegauge.evaluate.intervals import mcnemar_exact, paired_interval
from edgegauge.figure import Figure
from edgegauge.result import ArtifactFacts, Tool

Sha256 = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]


class Source(Document):
    """The file that was evaluated on, so that only like is compared with like."""

    name: str
    sha256: Sha256


class Outcome(Document):
    """One item: whether the answer was right, and what was said."""

    index: int = Field(ge=0)
    """Position in the task file, from 0, blank lines not counted."""
    id: str | None = None
    ok: bool
    got: str


class AccuracyResult(Document):
    """Exact match of the greedy answer (the rule is in `accuracy.py`)."""

    task: Source
    exact_match: Figure
    """Share of items answered exactly, with its Wilson interval."""
    correct: int = Field(ge=0)
    total: int = Field(gt=0)
    max_tokens: int = Field(gt=0)
    """Tokens an answer may have."""
    sequences: int = Field(gt=0)
    """Prompts decoded side by side."""
    seconds: float = Field(ge=0)
    items: list[Outcome]


class Window(Document):
    """Scored tokens of one window and the sum of their negative log-likelihoods, in nats."""

    tokens: int = Field(gt=0)
    nats: float


class PerplexityResult(Document):
    """Perplexity of a text (the rule is in `perplexity.py`)."""

    text: Source
    perplexity: Figure
    """Per token, so comparable only between models with the same tokenizer."""
    bits_per_byte: Figure
    """Comparable between any models on the same text."""
    tokens: int = Field(gt=0)
    """Tokens scored."""
    bytes: int = Field(gt=0)
    """UTF-8 bytes of the scored tokens."""
    context: int = Field(gt=1)
    stride: int = Field(gt=0)
    seconds: float = Field(ge=0)
    windows: list[Window]


class EvaluationResult(Document):
    """An evaluation file."""

    format: Literal[1] = 1
    tool: Tool
    artifact: ArtifactFacts
    threads: int = Field(gt=0)
    accuracy: AccuracyResult | None = None
    perplexity: PerplexityResult | None = None
    warnings: list[str] = []
    created: str


class PairedDifference(Document):
    """Exact match of B minus that of A over the items both answered."""

    difference: Figure
    only_a: int
    """Items that only A answered exactly."""
    only_b: int
    total: int
    p_value: float
    """Exact McNemar test of "equally good"."""

    @property
    def certain(self) -> bool:
        """Whether the difference is more than chance at the 5 % level."""
        return self.p_value < 0.05


def paired_difference(a: AccuracyResult, b: AccuracyResult) -> PairedDifference:
    """How much better B answered the same items than A; negative means B lost quality.

    With A the original and B the quantised artifact this is the quality that quantisation cost. It
    is far sharper than comparing two intervals, since items that both got right or wrong cancel.
    Raises InputError if the two were not asked the same task or share no item.
    """
    if a.task.sha256 != b.task.sha256:
        raise InputError(
            f"not the same task: {a.task.name} ({a.task.sha256[:12]}) and "
            f"{b.task.name} ({b.task.sha256[:12]})"
        )
    ours = {item.index: item.ok for item in a.items}
    pairs = [(ours[item.index], item.ok) for item in b.items if item.index in ours]
    if not pairs:
        raise InputError(f"the two evaluations of {a.task.name} have no item in common")
    only_a = sum(first and not second for first, second in pairs)
    only_b = sum(second and not first for first, second in pairs)
    low, high = paired_interval(only_a, only_b, len(pairs))
    value = (only_b - only_a) / len(pairs)
    return PairedDifference(
        difference=Figure(value, "1", "measured", f"{len(pairs)} paired items", low, high),
        only_a=only_a,
        only_b=only_b,
        total=len(pairs),
        p_value=mcnemar_exact(only_a, only_b),
    )
