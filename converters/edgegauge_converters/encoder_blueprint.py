"""An encoder as data: the operations that turn token ids into a text's vector, in order.

    for operation in encoder_blueprint(spec): ...

`encoder_reference.py` interprets the list with NumPy; a graph format lowers each operation to its
own, fused where it has something for several. Values have names and the shape (tokens, hidden),
with heads side by side, until pooling makes one row of them. The stream of values is x0, x0.5, x1
and so on, by halves of blocks; its last has the name of the output. Projections are meant as
(output, input).

Order of operations: `modeling_bert.py` and `modeling_distilbert.py` of the transformers library,
`Pooling.py` and `Normalize.py` of sentence-transformers.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

from edgegauge.encoder import EncoderSpec
from edgegauge.model import Role, Tensor
from edgegauge_converters.blueprint import Add, Linear

LEAST_TOKENS = 1e-9
"""A mean is divided by at least so many tokens, so that an empty text gives zeros."""

LEAST_LENGTH = 1e-12
"""A vector is divided by at least this length."""


@dataclass(frozen=True, slots=True)
class Lookup:
    """Rows of `weight` by what `by` says of each token."""

    output: str
    weight: Tensor
    by: Literal["input_ids", "token_type_ids", "position"]
    inputs: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class LayerNorm:
    """(x - mean(x)) / sqrt(var(x) + eps) * weight + bias over each row."""

    output: str
    inputs: tuple[str]
    weight: Tensor
    bias: Tensor
    eps: float


@dataclass(frozen=True, slots=True)
class Attend:
    """softmax(q.k / sqrt(head_dim)) . v of (query, key, value); every token sees every other."""

    output: str
    inputs: tuple[str, str, str]
    heads: int


@dataclass(frozen=True, slots=True)
class Gelu:
    """x * Phi(x), exactly or with Phi as a tanh."""

    output: str
    inputs: tuple[str]
    tanh: bool


@dataclass(frozen=True, slots=True)
class Pool:
    """One row: the mean over the tokens, or the first token's."""

    output: str
    inputs: tuple[str]
    kind: Literal["mean", "cls"]


@dataclass(frozen=True, slots=True)
class Normalise:
    """x / sqrt(sum(x**2))."""

    output: str
    inputs: tuple[str]


Operation = Lookup | Add | LayerNorm | Linear | Attend | Gelu | Pool | Normalise

HIDDEN = "last_hidden_state"
EMBEDDING = "sentence_embedding"
"""Names of the last block's output and of the text's vector."""


def encoder_blueprint(spec: EncoderSpec) -> Iterator[Operation]:
    """The operations of one forward pass."""
    stored = {(t.role, t.layer): t for t in spec.tensors()}
    yield Lookup("words", stored["token_embd", None], "input_ids")
    if spec.token_types:
        yield Lookup("types", stored["token_types", None], "token_type_ids")
        yield Add("words", ("words", "types"))
    yield Lookup("positions", stored["position_embd", None], "position")
    yield Add("sum", ("words", "positions"))
    weight, bias = stored["token_embd_norm", None], stored["token_embd_norm_bias", None]
    yield LayerNorm("x0", ("sum",), weight, bias, spec.norm_eps)
    for layer in range(spec.layers):
        last = HIDDEN if layer == spec.layers - 1 else f"x{layer + 1}"
        yield from _block(_Block(spec, stored, layer), last)
    pooled = "pooled" if spec.normalise else EMBEDDING
    yield Pool(pooled, (HIDDEN,), spec.pooling)
    if spec.normalise:
        yield Normalise(EMBEDDING, (pooled,))


@dataclass(frozen=True, slots=True)
class _Block:
    spec: EncoderSpec
    stored: dict[tuple[Role, int | None], Tensor]
    layer: int

    def linear(self, output: str, value: str, weight: Role, bias: Role) -> Linear:
        found = self.stored
        return Linear(output, (value,), found[weight, self.layer], found[bias, self.layer])

    def norm(self, output: str, norm: Role, bias: Role) -> LayerNorm:
        weight, shift = self.stored[norm, self.layer], self.stored[bias, self.layer]
        return LayerNorm(output, ("sum",), weight, shift, self.spec.norm_eps)


def _block(block: _Block, last: str) -> Iterator[Operation]:
    first, middle = f"x{block.layer}", f"x{block.layer}.5"
    yield block.linear("q", first, "attn_q", "attn_q_bias")
    yield block.linear("k", first, "attn_k", "attn_k_bias")
    yield block.linear("v", first, "attn_v", "attn_v_bias")
    yield Attend("h", ("q", "k", "v"), block.spec.heads)
    yield block.linear("h", "h", "attn_output", "attn_output_bias")
    yield Add("sum", (first, "h"))
    yield block.norm(middle, "attn_output_norm", "attn_output_norm_bias")
    yield block.linear("h", middle, "ffn_up", "ffn_up_bias")
    yield Gelu("h", ("h",), block.spec.activation == "gelu_tanh")
    yield block.linear("h", "h", "ffn_down", "ffn_down_bias")
    yield Add("sum", (middle, "h"))
    yield block.norm(last, "layer_output_norm", "layer_output_norm_bias")
