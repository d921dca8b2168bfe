"""The types that llama-quantize gives each tensor with an importance matrix, for published files.

    stored_published(spec, "q3_k_m")         # what a GGUF file of this name holds

edgegauge writes none of these mixtures, so they are no recipes. The rules were read in
`src/llama-quant.cpp` of llama.cpp (llama_tensor_get_type_impl and tensor_type_fallback).
"""

from __future__ import annotations

from edgegauge.model import ModelSpec, Tensor
from edgegauge.recipe import BLOCKS, StoredTensor, gguf_tensors, stored_as

BASE = {
    "bf16": "BF16", "iq2_m": "IQ2_S", "iq2_xs": "IQ2_XS", "iq2_xxs": "IQ2_XXS", "iq3_s": "IQ3_S",
    "iq3_xxs": "IQ3_XXS", "iq4_nl": "IQ4_NL", "iq4_xs": "IQ4_XS", "q2_k": "Q2_K", "q2_k_s": "Q2_K",
    "q3_k_l": "Q3_K", "q3_k_m": "Q3_K", "q3_k_s": "Q3_K", "q4_0": "Q4_0", "q4_k_m": "Q4_K",
    "q4_k_s": "Q4_K", "q5_0": "Q5_0", "q5_k_m": "Q5_K", "q5_k_s": "Q5_K", "q6_k": "Q6_K",
    "q8_0": "Q8_0",
}  # fmt: skip
"""Name of the file's mixture: the type of a matrix that no rule below treats differently."""

SHORT_ROWS = {
    "IQ2_S": "IQ4_NL", "IQ2_XS": "IQ4_NL", "IQ2_XXS": "IQ4_NL", "IQ3_S": "IQ4_NL",
    "IQ3_XXS": "IQ4_NL", "IQ4_XS": "IQ4_NL", "Q2_K": "Q4_0", "Q3_K": "Q4_0", "Q4_K": "Q5_0",
    "Q5_K": "Q5_1", "Q6_K": "Q8_0",
}  # fmt: skip
"""What replaces a type whose blocks of 256 do not divide the row."""

VALUES = {
    "iq2_m": ("IQ3_S", "Q4_K"), "iq2_xs": ("Q2_K", "Q4_K"), "iq2_xxs": ("Q2_K", "Q4_K"),
    "iq3_s": ("IQ3_S", "Q4_K"), "iq3_xxs": ("IQ3_S", "Q4_K"), "iq4_nl": ("IQ4_NL", "Q5_K"),
    "iq4_xs": ("IQ4_XS", "Q5_K"), "q2_k": ("Q3_K", "Q4_K"), "q2_k_s": ("Q2_K", "Q4_K"),
    "q3_k_l": ("Q5_K", "Q5_K"),
}  # fmt: skip
"""Type of the value projection, and that where four or more query heads share a value head."""

EARLY_DOWN = {
    "iq2_m": "IQ3_S", "iq2_xs": "Q2_K", "iq2_xxs": "Q2_K", "iq4_nl": "Q5_K", "iq4_xs": "Q5_K",
    "q2_k_s": "Q4_K", "q4_0": "Q4_1", "q4_k_s": "Q5_K",
}  # fmt: skip
"""Type of the down projection in the first eighth of the layers."""

DOWN = {"q2_k": "Q3_K", "q3_k_l": "Q5_K"}
OUTPUT = {"iq2_m": "IQ3_S", "q2_k": "Q3_K", "q3_k_l": "Q5_K", "q3_k_m": "Q4_K"}


def stored_published(spec: ModelSpec, quant: str) -> list[StoredTensor]:
    """The tensors of a file of this mixture, in storage order; KeyError for another name."""
    return [_stored(spec, BASE[quant], quant, tensor) for tensor in gguf_tensors(spec)]


def _stored(spec: ModelSpec, base: str, quant: str, tensor: Tensor) -> StoredTensor:
    wanted = "F32" if tensor.is_vector else _wanted(spec, base, quant, tensor)
    if tensor.cols % BLOCKS[wanted][0]:
        wanted = SHORT_ROWS[wanted]
    return stored_as(tensor, wanted, "gguf")


def _wanted(spec: ModelSpec, base: str, quant: str, tensor: Tensor) -> str:
    if base in ("Q8_0", "BF16"):
        return base
    if tensor.role == "output" or (tensor.role == "token_embd" and spec.tied):
        short = tensor.cols % BLOCKS[base][0] > 0
        small = quant.startswith(("iq2", "iq3")) and quant != "iq3_s"
        return "Q8_0" if short else "Q5_K" if small else "Q6_K"
    if tensor.role == "token_embd":
        return "IQ3_S" if quant == "iq2_m" else base
    rule = {"attn_v": _value, "ffn_down": _down}.get(tensor.role)
    if rule is not None:
        return rule(spec, base, quant, tensor.layer or 0)
    return OUTPUT.get(quant, base) if tensor.role == "attn_output" else base


def _value(spec: ModelSpec, base: str, quant: str, layer: int) -> str:
    if quant in VALUES:
        return VALUES[quant][spec.heads >= 4 * spec.kv_heads]
    if quant == "q3_k_m":
        return "Q5_K" if layer < 2 else "Q4_K"
    if quant == "q4_k_s":
        return "Q5_K" if layer < 4 else base
    more = quant in ("q4_k_m", "q5_k_m") and _more_bits(layer, spec.executed_layers)
    return "Q6_K" if more else base


def _down(spec: ModelSpec, base: str, quant: str, layer: int) -> str:
    layers = spec.executed_layers
    if quant == "q3_k_m":
        return "Q5_K" if layer < layers // 16 else "Q4_K"
    if quant in ("q4_k_m", "q5_k_m"):
        return "Q6_K" if _more_bits(layer, layers) else base
    rest = DOWN.get(quant, base)
    return EARLY_DOWN.get(quant, rest) if layer < layers // 8 else rest


def _more_bits(layer: int, layers: int) -> bool:
    return layer < layers // 8 or layer >= 7 * layers // 8 or (layer - layers // 8) % 3 == 2
