"""What verifying an artifact found: a part of its manifest.

Format history:
    1  first version

Errors of logits are in standard deviations of the expected logits, so that they compare between
models. KL divergences are of the next-token distributions, expected against computed, in nats.
"""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from edgegauge.document import Document
from edgegauge.figure import Figure


class Agreement(Document):
    """How far computed logits are from expected ones, over all positions."""

    positions: int = Field(gt=0)
    max_error: Figure
    mean_error: Figure
    rms_error: Figure
    kl_mean: Figure
    kl_p99: Figure
    kl_max: Figure
    same_choice: Figure
    """Share of positions with the same most likely token."""
    greedy_prefix: int | None = Field(default=None, ge=0)
    """Tokens that a greedy continuation has in common from its start; None: none was made."""
    greedy_tokens: int = Field(default=0, ge=0)
    """Tokens of that continuation."""


class WeightCheck(Document):
    """The stored weights against the checkpoint's: the tensor that is farthest off for its type."""

    tensors: int = Field(gt=0)
    """How many were compared: all of them."""
    worst: str
    error: Figure
    """Root mean square of the differences, as a share of that of the weights."""
    allowed: float = Field(gt=0)


class TokenizerCheck(Document):
    """Texts through the artifact's own tokenizer against `tokenizer.json`."""

    texts: int = Field(gt=0)
    other_tokens: list[str]
    """The texts that give other tokens."""
    other_text: list[str]
    """The texts whose tokens are turned back into another text."""


class Verification(Document):
    """One verification of an artifact that passed it."""

    format: Literal[1] = 1
    runtime: str
    runtime_version: str
    positions: int = Field(gt=0)
    on: Literal["built-in text", "random tokens"]
    own_weights: Agreement
    """Against the reference at the very weights that the file stores: is the graph right?"""
    expected_error: Figure
    """Root mean square error that the runtime's roundings make in the reference."""
    allowed_error: Figure
    original: Agreement | None = None
    """Against the reference at the checkpoint's weights: what quantisation costs."""
    weights: WeightCheck | None = None
    tokenizer: TokenizerCheck | None = None
    not_checked: list[str] = []
    """What was left out, and why."""
    seconds: float = Field(ge=0)
    created: str
