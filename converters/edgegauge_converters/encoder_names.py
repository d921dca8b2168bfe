"""Names of an encoder's tensors in Hugging Face checkpoints.

    names = checkpoint_names(spec, found)      # Tensor -> name, of those names that are found

The names are those of `modeling_bert.py` and `modeling_distilbert.py` of the transformers library.
A model with a pre-training head has `bert.` or `distilbert.` in front; sentence-transformers' own
(MiniLM among them) have nothing. Checkpoints that were once TensorFlow's call a norm's two vectors
gamma and beta.
"""

from __future__ import annotations

import re
from collections.abc import Collection

from edgegauge.encoder import EncoderSpec
from edgegauge.errors import InputError
from edgegauge.model import Role, Tensor

_EMBEDDINGS: dict[Role, str] = {
    "token_embd": "embeddings.word_embeddings",
    "position_embd": "embeddings.position_embeddings",
    "token_types": "embeddings.token_type_embeddings",
    "token_embd_norm": "embeddings.LayerNorm",
}

_BERT: dict[Role, str] = _EMBEDDINGS | {
    "attn_q": "attention.self.query",
    "attn_k": "attention.self.key",
    "attn_v": "attention.self.value",
    "attn_output": "attention.output.dense",
    "attn_output_norm": "attention.output.LayerNorm",
    "ffn_up": "intermediate.dense",
    "ffn_down": "output.dense",
    "layer_output_norm": "output.LayerNorm",
}

_DISTILBERT: dict[Role, str] = _EMBEDDINGS | {
    "attn_q": "attention.q_lin",
    "attn_k": "attention.k_lin",
    "attn_v": "attention.v_lin",
    "attn_output": "attention.out_lin",
    "attn_output_norm": "sa_layer_norm",
    "ffn_up": "ffn.lin1",
    "ffn_down": "ffn.lin2",
    "layer_output_norm": "output_layer_norm",
}

_FAMILIES = {
    "bert": ("bert.", "encoder.layer.", _BERT),
    "distilbert": ("distilbert.", "transformer.layer.", _DISTILBERT),
}
"""Family: the prefix of a model with a head, what numbers blocks, and the names of roles."""

UNUSED = re.compile(
    r"(^|\.)embeddings\.position_ids$"  # a table of 0, 1, 2, ...
    r"|^(bert\.)?pooler\."  # a trained layer on the first token that sentence encoders do not use
    r"|^cls\.|^vocab_(transform|layer_norm|projector)\."  # pre-training heads
)
"""Tensors that have no part in a text's vector."""


def checkpoint_names(spec: EncoderSpec, found: Collection[str]) -> dict[Tensor, str]:
    """The name of each tensor of the spec; InputError if the checkpoint is of something else.

    A tensor that is missing has the name it should have.
    """
    prefix, blocks, roles = _FAMILIES[spec.family]
    embedding = f"{_EMBEDDINGS['token_embd']}.weight"
    if embedding in found:
        prefix = ""
    elif prefix + embedding not in found:
        raise InputError(f"the checkpoint has no {embedding}, so it is no {spec.family} encoder")
    return {t: _name(t, prefix, blocks, roles, found) for t in spec.tensors()}


def _name(
    tensor: Tensor, prefix: str, blocks: str, roles: dict[Role, str], found: Collection[str]
) -> str:
    owner = tensor.role.removesuffix("_bias")
    stem = next(name for role, name in roles.items() if role == owner)
    layer = "" if tensor.layer is None else f"{blocks}{tensor.layer}."
    kind, old = ("weight", "gamma") if owner == tensor.role else ("bias", "beta")
    older = f"{prefix}{layer}{stem}.{old}"
    return older if older in found else f"{prefix}{layer}{stem}.{kind}"
