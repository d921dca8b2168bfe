"""A decoder as data: the operations that turn token ids into logits, in order.

    for operation in blueprint(spec): ...

`reference.py` interprets the list with NumPy; a graph format lowers each operation to its own. All
families are this one list: what differs between them is which operations are there, and their
numbers. Values have names and the shape (tokens, width), with heads side by side in the width.

Weights are meant in their plain form: projections as (output, input), queries and keys ordered for
rotation by halves (not interleaved), norms as the factor itself (Gemma stores factor - 1).

Sources of the formulas: RMS norm, Zhang and Sennrich 2019 (arXiv 1910.07467); rotary positions, Su
et al. 2021 (arXiv 2104.09864); grouped queries, Ainslie et al. 2023 (arXiv 2305.13245); gated
units, Shazeer 2020 (arXiv 2002.05202); order of operations, `modeling_llama.py`,
`modeling_qwen2.py`, `modeling_qwen3.py` and `modeling_gemma3.py` of the transformers library.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

from edgegauge.model import ModelSpec, Role, RopeScaling, Tensor


@dataclass(frozen=True, slots=True)
class Embed:
    """Rows of `weight` by token id, times `scale`."""

    output: str
    weight: Tensor
    scale: float
    inputs: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class RmsNorm:
    """x / sqrt(mean(x**2) + eps) * weight, over each stretch of the weight's length."""

    output: str
    inputs: tuple[str]
    weight: Tensor
    eps: float


@dataclass(frozen=True, slots=True)
class Linear:
    """x @ weight.T + bias."""

    output: str
    inputs: tuple[str]
    weight: Tensor
    bias: Tensor | None = None


@dataclass(frozen=True, slots=True)
class Rotary:
    """Pairs (x[i], x[i + head_dim/2]) of each head turned by position * frequencies[i]."""

    output: str
    inputs: tuple[str]
    frequencies: tuple[float, ...]
    """Radians per position."""


@dataclass(frozen=True, slots=True)
class Attention:
    """Causal attention of (query, key, value); keys and values are remembered in slot `slot`."""

    output: str
    inputs: tuple[str, str, str]
    slot: int
    head_dim: int
    scale: float
    window: int | None
    """Positions seen, the query's own included; None sees all."""


@dataclass(frozen=True, slots=True)
class Gate:
    """activation(first) * second."""

    output: str
    inputs: tuple[str, str]
    activation: Literal["silu", "gelu_tanh"]


@dataclass(frozen=True, slots=True)
class Add:
    """first + second."""

    output: str
    inputs: tuple[str, str]


Operation = Embed | RmsNorm | Linear | Rotary | Attention | Gate | Add

LOGITS = "logits"
"""Name of the last operation's output."""


def blueprint(spec: ModelSpec) -> Iterator[Operation]:
    """The operations of one forward pass; a shared block appears once per execution."""
    stored = {(t.role, t.layer): t for t in spec.tensors()}
    yield Embed("x0", stored["token_embd", None], _embedding_scale(spec))
    for number in range(spec.executed_layers):
        yield from _block(_Block(spec, stored, number))
    last = f"x{spec.executed_layers}"
    yield RmsNorm("x", (last,), stored["output_norm", None], spec.norm_eps)
    head = stored["token_embd" if spec.tied else "output", None]
    yield Linear(LOGITS, ("x",), head)


@dataclass(frozen=True, slots=True)
class _Block:
    """What building one executed block needs to know."""

    spec: ModelSpec
    stored: dict[tuple[Role, int | None], Tensor]
    number: int

    def tensor(self, role: Role) -> Tensor | None:
        return self.stored.get((role, self.number // self.spec.layer_repeats))

    def norm(self, output: str, value: str, role: Role) -> Iterator[RmsNorm]:
        """The norm of this role, where this family has it."""
        weight = self.tensor(role)
        if weight is not None:
            yield RmsNorm(output, (value,), weight, self.spec.norm_eps)

    def linear(self, output: str, value: str, role: Role, bias: Role | None = None) -> Linear:
        weight = self.tensor(role)
        assert weight is not None, role
        return Linear(output, (value,), weight, self.tensor(bias) if bias else None)


def _block(block: _Block) -> Iterator[Operation]:
    """Attention, then the gated unit, each added to the stream of values `x`.

    A step writes its value under the name it read where nothing needs the old one any more.
    """
    spec, n = block.spec, block.number
    everywhere = spec.is_global(n)
    frequencies = rotary_frequencies(spec, everywhere)
    yield from block.norm("h", f"x{n}", "attn_norm")
    yield block.linear("q", "h", "attn_q", "attn_q_bias")
    yield block.linear("k", "h", "attn_k", "attn_k_bias")
    yield block.linear("v", "h", "attn_v", "attn_v_bias")
    yield from block.norm("q", "q", "attn_q_norm")
    yield from block.norm("k", "k", "attn_k_norm")
    yield Rotary("q", ("q",), frequencies)
    yield Rotary("k", ("k",), frequencies)
    yield Attention(
        "h", ("q", "k", "v"), n, spec.head_dim,
        scale=spec.query_scale or spec.head_dim**-0.5,
        window=None if everywhere else spec.sliding_window,
    )  # fmt: skip
    yield block.linear("h", "h", "attn_output")
    yield from block.norm("h", "h", "attn_post_norm")
    yield Add(f"x{n}.5", (f"x{n}", "h"))
    yield from block.norm("h", f"x{n}.5", "ffn_norm")
    yield block.linear("gate", "h", "ffn_gate")
    yield block.linear("up", "h", "ffn_up")
    yield Gate("h", ("gate", "up"), spec.activation)
    yield block.linear("h", "h", "ffn_down")
    yield from block.norm("h", "h", "ffn_post_norm")
    yield Add(f"x{n + 1}", (f"x{n}.5", "h"))


def _embedding_scale(spec: ModelSpec) -> float:
    return math.sqrt(spec.hidden) if spec.scales_embedding else 1.0


def rotary_frequencies(spec: ModelSpec, everywhere: bool) -> tuple[float, ...]:
    """Radians per position for each pair of a head: base ** (-2i / head_dim), then scaled.

    `everywhere` tells a layer that sees the whole context from one with a window, which has its
    own base and no scaling where the spec gives one (Gemma 3).
    """
    local = not everywhere and spec.rope_local_theta is not None
    base = spec.rope_local_theta if local and spec.rope_local_theta else spec.rope_theta
    plain = [base ** (-2 * i / spec.head_dim) for i in range(spec.head_dim // 2)]
    scaling = None if local else spec.rope_scaling
    if scaling is None:
        return tuple(plain)
    if scaling.kind == "linear":
        return tuple(f / scaling.factor for f in plain)
    return tuple(_llama3(f, scaling) for f in plain)


def _llama3(frequency: float, scaling: RopeScaling) -> float:
    """Llama 3.1's rule: slow turns are slowed by the factor, fast ones kept, a ramp between.

    As in `_compute_llama3_parameters` of transformers' `modeling_rope_utils.py`.
    """
    turns = scaling.original_context * frequency / (2 * math.pi)
    if turns < scaling.low_freq_factor:
        return frequency / scaling.factor
    if turns > scaling.high_freq_factor:
        return frequency
    span = scaling.high_freq_factor - scaling.low_freq_factor
    kept = (turns - scaling.low_freq_factor) / span
    return kept * frequency + (1 - kept) * frequency / scaling.factor
