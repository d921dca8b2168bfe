"""Names of tensors in Hugging Face checkpoints (those in GGUF files: `gguf_header.tensor_name`).

    hugging_face_name(spec, tensor)        # model.layers.3.self_attn.q_proj.weight

The names are those of the `modeling_*.py` files of the transformers library.
"""

from __future__ import annotations

import re
from collections.abc import Collection

from edgegauge.errors import InputError
from edgegauge.model import ModelSpec, Role, Tensor

PREFIXES = ("model.", "language_model.model.", "model.language_model.", "")
"""What stands before `embed_tokens`: a plain decoder, the decoder of a vision model, a bare one."""

HEADS = {"model.": "lm_head.weight", "language_model.model.": "language_model.lm_head.weight"}
"""Prefix: the name of the output head (elsewhere `lm_head.weight`)."""

_HUGGING_FACE: dict[Role, str] = {
    "token_embd": "embed_tokens.weight",
    "output_norm": "norm.weight",
    "attn_norm": "input_layernorm.weight",
    "attn_q": "self_attn.q_proj.weight",
    "attn_k": "self_attn.k_proj.weight",
    "attn_v": "self_attn.v_proj.weight",
    "attn_q_bias": "self_attn.q_proj.bias",
    "attn_k_bias": "self_attn.k_proj.bias",
    "attn_v_bias": "self_attn.v_proj.bias",
    "attn_q_norm": "self_attn.q_norm.weight",
    "attn_k_norm": "self_attn.k_norm.weight",
    "attn_output": "self_attn.o_proj.weight",
    "attn_post_norm": "post_attention_layernorm.weight",
    "ffn_norm": "post_attention_layernorm.weight",
    "ffn_gate": "mlp.gate_proj.weight",
    "ffn_up": "mlp.up_proj.weight",
    "ffn_down": "mlp.down_proj.weight",
    "ffn_post_norm": "post_feedforward_layernorm.weight",
}

UNUSED = re.compile(
    r"rotary_emb\.inv_freq$"  # computed from the configuration
    r"|^(model\.)?(vision_tower|multi_modal_projector|vision_model|embed_vision)\."
)
"""Tensors a text decoder does without: old position tables, and the other half of vision models."""


def prefix_of(names: Collection[str]) -> str:
    """The prefix that this checkpoint puts before `embed_tokens`; InputError if it has none."""
    for prefix in PREFIXES:
        if f"{prefix}embed_tokens.weight" in names:
            return prefix
    raise InputError(
        "the checkpoint has no token embedding: expected model.embed_tokens.weight",
        hint="adapters (LoRA) cannot be converted; merge them into their model first",
    )


def head_name(prefix: str) -> str:
    """The name of the output head in a checkpoint with this prefix."""
    return HEADS.get(prefix, "lm_head.weight")


def hugging_face_name(spec: ModelSpec, tensor: Tensor, prefix: str = "model.") -> str:
    """The checkpoint's name of this tensor; a shared block has one name for all its executions."""
    if tensor.role == "output":
        return head_name(prefix)
    suffix = _HUGGING_FACE[tensor.role]
    if tensor.role == "ffn_norm" and spec.family == "gemma3":
        suffix = "pre_feedforward_layernorm.weight"
    if tensor.layer is None:
        return prefix + suffix
    return f"{prefix}layers.{tensor.layer // spec.layer_repeats}.{suffix}"
