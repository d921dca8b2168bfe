"""Model specs: a decoder's architecture as facts, without weights.

A `ModelSpec` comes from a Hugging Face `config.json` (`read_config.py`), a GGUF header
(`gguf_header.py`) or the catalog (`catalog/*.toml`), and answers: which weight matrices there are
and how large they are, how many parameters, how many bytes of key/value cache.

    spec.parameters                     # 134515008 for SmolLM2-135M
    [t for t in spec.tensors() if t.role == "ffn_down"]
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Annotated, Literal

from pydantic import Field, model_validator

from edgegauge.document import Document

Family = Literal["llama", "qwen2", "qwen3", "gemma3"]
"""The block structure, named as llama.cpp does. Llama also covers SmolLM2, TinyLlama, MobileLLM."""

Role = Literal[
    "token_embd", "output", "output_norm",
    "attn_norm", "attn_q", "attn_k", "attn_v", "attn_output",
    "attn_q_bias", "attn_k_bias", "attn_v_bias", "attn_q_norm", "attn_k_norm", "attn_post_norm",
    "ffn_norm", "ffn_gate", "ffn_up", "ffn_down", "ffn_post_norm", "rope_freqs",
    "position_embd", "token_types", "token_embd_norm", "token_embd_norm_bias", "attn_output_bias",
    "attn_output_norm", "attn_output_norm_bias", "ffn_up_bias", "ffn_down_bias",
    "layer_output_norm", "layer_output_norm_bias",
]  # fmt: skip
"""What a tensor is for, independent of any file format's name for it; the last eleven are
encoders' (`encoder.py`)."""

Count = Annotated[int, Field(gt=0, le=2**31 - 1)]
Width = Annotated[int, Field(gt=0, le=2**20)]


@dataclass(frozen=True, slots=True)
class Tensor:
    """One weight tensor: `rows` x `cols` row-major (a vector is one row), `layer` None outside."""

    role: Role
    layer: int | None
    rows: int
    cols: int

    @property
    def elements(self) -> int:
        """Number of parameters in it."""
        return self.rows * self.cols

    @property
    def is_vector(self) -> bool:
        """Norm weights, biases and position factors, which every recipe keeps in f32."""
        return self.role.endswith(("_norm", "_bias", "_freqs"))


class RopeScaling(Document):
    """Frequency scaling of rotary positions: `linear` by a factor, or Llama 3's banded rule."""

    kind: Literal["linear", "llama3"]
    factor: float = Field(gt=0)
    low_freq_factor: float = Field(default=1.0, gt=0)
    high_freq_factor: float = Field(default=4.0, gt=0)
    original_context: Count = 8192


class ModelSpec(Document):
    """The shape of a decoder-only transformer. Widths in elements, context in tokens."""

    id: str = Field(min_length=1, max_length=200)
    family: Family
    layers: Annotated[int, Field(gt=0, le=1024)]
    """Blocks whose weights are stored."""
    layer_repeats: Annotated[int, Field(gt=0, le=8)] = 1
    """Times each stored block is executed in a row (MobileLLM's layer sharing: 2)."""
    hidden: Width
    intermediate: Width
    heads: Annotated[int, Field(gt=0, le=4096)]
    kv_heads: Annotated[int, Field(gt=0, le=4096)]
    head_dim: Annotated[int, Field(gt=0, le=4096)]
    vocab: Width
    tied: bool
    """The output head is the embedding matrix."""
    context: Count
    norm_eps: float = Field(gt=0, lt=1)
    rope_theta: float = Field(gt=0)
    rope_local_theta: float | None = Field(default=None, gt=0)
    """Base for the sliding-window layers, where it differs (Gemma 3)."""
    rope_scaling: RopeScaling | None = None
    attention_bias: bool = False
    """Bias on the q, k and v projections (Qwen 2)."""
    qk_norm: bool = False
    """RMS norm on each query and key head (Qwen 3, Gemma 3)."""
    sliding_window: Count | None = None
    """Tokens seen by a local layer; None where every layer is global."""
    global_every: Count | None = None
    """Layer i is global when (i + 1) % global_every == 0; others use the window."""
    query_scale: float | None = Field(default=None, gt=0)
    """Multiplier of q.k where it is not head_dim ** -0.5 (Gemma 3's query_pre_attn_scalar)."""

    @model_validator(mode="after")
    def _shape_is_consistent(self) -> ModelSpec:
        if self.heads % self.kv_heads:
            raise ValueError(
                f"heads ({self.heads}) must be a multiple of kv_heads ({self.kv_heads})"
            )
        if self.head_dim % 2:
            raise ValueError(f"head_dim must be even for rotary positions, got {self.head_dim}")
        if (self.sliding_window is None) != (self.global_every is None):
            raise ValueError("sliding_window and global_every are given together or not at all")
        return self

    def __hash__(self) -> int:
        """Specs are keys of many caches, where a search for a shape puts many of one id."""
        return hash((self.id, self.layers, self.hidden, self.intermediate, self.kv_heads))

    @property
    def activation(self) -> Literal["silu", "gelu_tanh"]:
        """The gate's non-linearity."""
        return "gelu_tanh" if self.family == "gemma3" else "silu"

    @property
    def scales_embedding(self) -> bool:
        """Whether embeddings are multiplied by sqrt(hidden) (Gemma)."""
        return self.family == "gemma3"

    @property
    def executed_layers(self) -> int:
        """Blocks a token passes through, shared ones counted each time."""
        return self.layers * self.layer_repeats

    def is_global(self, executed_layer: int) -> bool:
        """Whether this executed layer attends to the whole context."""
        return self.global_every is None or (executed_layer + 1) % self.global_every == 0

    def tensors(self, *, unrolled: bool = False) -> Iterator[Tensor]:
        """All weight tensors in storage order.

        `unrolled` repeats shared blocks once per execution, as a format that cannot share must.
        """
        yield Tensor("token_embd", None, self.vocab, self.hidden)
        for layer in range(self.executed_layers if unrolled else self.layers):
            yield from self._block(layer)
        yield Tensor("output_norm", None, 1, self.hidden)
        if not self.tied:
            yield Tensor("output", None, self.vocab, self.hidden)

    def _block(self, layer: int) -> Iterator[Tensor]:
        h, q, kv = self.hidden, self.heads * self.head_dim, self.kv_heads * self.head_dim
        yield Tensor("attn_norm", layer, 1, h)
        yield Tensor("attn_q", layer, q, h)
        yield Tensor("attn_k", layer, kv, h)
        yield Tensor("attn_v", layer, kv, h)
        if self.attention_bias:
            yield Tensor("attn_q_bias", layer, 1, q)
            yield Tensor("attn_k_bias", layer, 1, kv)
            yield Tensor("attn_v_bias", layer, 1, kv)
        if self.qk_norm:
            yield Tensor("attn_q_norm", layer, 1, self.head_dim)
            yield Tensor("attn_k_norm", layer, 1, self.head_dim)
        yield Tensor("attn_output", layer, h, q)
        if self.family == "gemma3":
            yield Tensor("attn_post_norm", layer, 1, h)
        yield Tensor("ffn_norm", layer, 1, h)
        yield Tensor("ffn_gate", layer, self.intermediate, h)
        yield Tensor("ffn_up", layer, self.intermediate, h)
        yield Tensor("ffn_down", layer, h, self.intermediate)
        if self.family == "gemma3":
            yield Tensor("ffn_post_norm", layer, 1, h)

    @property
    def parameters(self) -> int:
        """Stored parameters, shared and tied ones counted once."""
        return self.embedding_parameters + self.body_parameters + self.head_parameters

    @property
    def embedding_parameters(self) -> int:
        """Parameters of the token embedding, which is also the head where they are tied."""
        return self.vocab * self.hidden

    @property
    def head_parameters(self) -> int:
        """Parameters of an output head of its own; 0 where it is the embedding."""
        return 0 if self.tied else self.vocab * self.hidden

    @property
    def body_parameters(self) -> int:
        """Parameters of the blocks and the last norm. All blocks have one shape."""
        return self.layers * sum(t.elements for t in self._block(0)) + self.hidden

    @property
    def kv_bytes_per_token(self) -> int:
        """Bytes in f16 by which keys and values grow with each token once all windows are full."""
        global_layers = sum(self.is_global(layer) for layer in range(self.executed_layers))
        return 2 * 2 * self.kv_heads * self.head_dim * global_layers

    def kv_cache_bytes(self, context: int, *, bytes_per_element: float = 2) -> float:
        """Bytes of keys and values for `context` tokens, windows applied (f16 by default)."""
        total = 0
        for layer in range(self.executed_layers):
            window = context if self.is_global(layer) else min(context, self.sliding_window or 0)
            total += 2 * self.kv_heads * self.head_dim * window
        return total * bytes_per_element
