"""Encoder specs: the architecture of a BERT-type sentence encoder as facts, without weights.

    spec.parameters                     # 22565376 for all-MiniLM-L6-v2, without its pooler
    [t for t in spec.tensors() if t.role == "ffn_down"]

An encoder turns a text into one vector. A text's tokens see each other in both directions; each
block adds what attention gives and normalises, then adds what the feed-forward unit gives and
normalises again (Devlin et al. 2018, arXiv 1810.04805). The vectors of the tokens become one by
their mean or by that of the first token, which some models scale to length 1.

Such a spec comes from a Hugging Face folder (`read_encoder.py`). DistilBERT is the same
architecture without token types.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Annotated, Literal

from pydantic import Field, model_validator

from edgegauge.document import Document
from edgegauge.model import Count, Role, Tensor, Width


class EncoderSpec(Document):
    """The shape of an encoder and what its output is. Widths in elements, lengths in tokens."""

    id: str = Field(min_length=1, max_length=200)
    family: Literal["bert", "distilbert"]
    """How its checkpoints name tensors; the arithmetic is one."""
    layers: Annotated[int, Field(gt=0, le=1024)]
    hidden: Width
    intermediate: Width
    heads: Annotated[int, Field(gt=0, le=4096)]
    vocab: Width
    positions: Annotated[Count, Field(le=2**20)]
    """The longest text, which is as long as the table of position vectors."""
    token_types: Annotated[int, Field(ge=0, le=1024)]
    """Rows of the table that tells a first text from a second; 0: there is none (DistilBERT)."""
    norm_eps: float = Field(gt=0, lt=1)
    activation: Literal["gelu", "gelu_tanh"]
    pooling: Literal["mean", "cls"]
    """What becomes of the tokens' vectors: their mean, or that of the first token."""
    normalise: bool
    """The result is scaled to length 1."""

    @model_validator(mode="after")
    def _heads_fit(self) -> EncoderSpec:
        if self.hidden % self.heads:
            raise ValueError(f"hidden ({self.hidden}) must be a multiple of heads ({self.heads})")
        return self

    @property
    def head_dim(self) -> int:
        """Width of one head."""
        return self.hidden // self.heads

    @property
    def parameters(self) -> int:
        """Stored parameters."""
        return sum(tensor.elements for tensor in self.tensors())

    def tensors(self) -> Iterator[Tensor]:
        """All weight tensors in storage order."""
        yield Tensor("token_embd", None, self.vocab, self.hidden)
        yield Tensor("position_embd", None, self.positions, self.hidden)
        if self.token_types:
            yield Tensor("token_types", None, self.token_types, self.hidden)
        yield from self._norm("token_embd_norm", "token_embd_norm_bias", None)
        for layer in range(self.layers):
            yield from self._block(layer)

    def _block(self, layer: int) -> Iterator[Tensor]:
        h, wide = self.hidden, self.intermediate
        projections: tuple[tuple[Role, Role], ...] = (
            ("attn_q", "attn_q_bias"), ("attn_k", "attn_k_bias"), ("attn_v", "attn_v_bias"),
            ("attn_output", "attn_output_bias"),
        )  # fmt: skip
        for weight, bias in projections:
            yield Tensor(weight, layer, h, h)
            yield Tensor(bias, layer, 1, h)
        yield from self._norm("attn_output_norm", "attn_output_norm_bias", layer)
        yield Tensor("ffn_up", layer, wide, h)
        yield Tensor("ffn_up_bias", layer, 1, wide)
        yield Tensor("ffn_down", layer, h, wide)
        yield Tensor("ffn_down_bias", layer, 1, h)
        yield from self._norm("layer_output_norm", "layer_output_norm_bias", layer)

    def _norm(self, weight: Role, bias: Role, layer: int | None) -> Iterator[Tensor]:
        yield Tensor(weight, layer, 1, self.hidden)
        yield Tensor(bias, layer, 1, self.hidden)
