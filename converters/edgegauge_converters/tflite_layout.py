"""How tensors lie in a TFLite file: which are stacked, what they are called, which are scaled."""

from __future__ import annotations

from collections.abc import Sequence

from edgegauge.model import ModelSpec, Role, Tensor


def query_gain(spec: ModelSpec) -> float:
    """The factor on q.k, which is in the weights of `gained_roles`."""
    return spec.query_scale or spec.head_dim**-0.5


def gained_roles(spec: ModelSpec) -> tuple[Role, ...]:
    """The tensors that carry the factor on q.k: the last ones that a query is multiplied with."""
    return ("attn_q_norm",) if spec.qk_norm else ("attn_q", "attn_q_bias")


def stack_name(tensors: Sequence[Tensor]) -> str:
    """What the tensor that holds these is called, as in `layers.3.ffn_gate+ffn_up`."""
    layer = "" if tensors[0].layer is None else f"layers.{tensors[0].layer}."
    return layer + "+".join(t.role for t in tensors)


def head_norms(norm: Tensor) -> str:
    """What the tensor is called that holds the norms of a layer's queries and keys."""
    return f"layers.{norm.layer}.head_norms"
