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


class PartCheck(Document):
    """Each part of the model, from the runtime's own values before it.

    Parts are the embedding, the attention and the feed-forward half of each block, and what follows
    the last; the reference rounds as the runtime does.
    """

    positions: int = Field(gt=0)
    parts: int = Field(gt=0)
    """How many were compared, beside the head."""
    worst: str
    """The part that departs most for what rounding makes in it."""
    error: Figure
    """Of that part: root mean square of the differences, as a share of that of the values."""
    rounding: Figure
    """Of that part: by which rounding itself moves them."""
    logits: Agreement | None = None
    """Of the last part and the head; None: an encoder has no head."""


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
    on: Literal["built-in text", "given text", "random tokens"]
    own_weights: Agreement
    """Against the reference at the very weights that the file stores: is the graph right?"""
    own_arithmetic: Agreement | None = None
    """Against that reference with the runtime's roundings made in it. Two such computations that
    add up in another order may round to other integers, and so depart almost as far."""
    parts: PartCheck | None = None
    """Part by part, where nothing of that kind adds up."""
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


class VectorAgreement(Document):
    """How far computed vectors of texts are from expected ones."""

    least_cosine: Figure
    max_error: Figure
    """In root mean squares of the expected values."""
    rms_error: Figure


class EncoderVerification(Document):
    """One verification of an encoder that passed it; as `Verification`, on vectors of texts."""

    format: Literal[1] = 1
    runtime: str
    runtime_version: str
    texts: int = Field(gt=0)
    tokens: int = Field(gt=0)
    on: Literal["built-in text", "random tokens"]
    own_weights: VectorAgreement
    own_arithmetic: VectorAgreement
    expected_error: Figure
    allowed_error: Figure
    parts: PartCheck
    original: VectorAgreement | None = None
    weights: WeightCheck | None = None
    tokenizer: TokenizerCheck | None = None
    not_checked: list[str] = []
    seconds: float = Field(ge=0)
    created: str
