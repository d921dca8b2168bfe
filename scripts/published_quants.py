"""The types that llama-quantize gives each tensor with an importance matrix, for published files.

    stored_published(spec, "q3_k_m")         # what a GGUF file of this name holds

edgegauge writes none of these mixtures, so they are no recipes. The rules were read in
`src/llama-quant.cpp` of llama.cpp (llama_tensor_get_type_impl and tensor_type_fallback).
"""

from __future__ import annotations

from edgegauge.model import ModelSpec, Tensor
from edgegauge.recipe import BLOCKS, StoredTensor, gguf_tensors, stored_as

BASE = {
    "iq2_m": "IQ2_S", "q2_k": "Q2_K", "q3_k_m": "Q3_K", "q4_0": "Q4_0", "q4_k_m": "Q4_K",
    "q5_k_m": "Q5_K", "q6_k": "Q6_K", "q8_0": "Q8_0",
}  # fmt: skip
"""Name of the file's mixture: the type of a matrix that no rule below treats differently."""

SHORT_ROWS = {
    "IQ2_S": "IQ4_NL", "IQ3_S": "IQ4_NL", "Q2_K": "Q4_0", "Q3_K": "Q4_0", "Q4_K": "Q5_0",
    "Q5_K": "Q5_1", "Q6_K": "Q8_0",
}  # fmt: skip
"""What replaces a type whose blocks of 256 do not divide the row."""


def stored_published(spec: ModelSpec, quant: str) -> list[StoredTensor]:
    """The tensors of a file of this mixture, in storage order; KeyError for another name."""
    return [_stored(spec, BASE[quant], quant, tensor) for tensor in gguf_tensors(spec)]


def _stored(spec: ModelSpec, base: str, quant: str, tensor: Tensor) -> StoredTensor:
    wanted = "F32" if tensor.is_vector else _wanted(spec, base, quant, tensor)
    if tensor.cols % BLOCKS[wanted][0]:
        wanted = SHORT_ROWS[wanted]
    return stored_as(tensor, wanted, "gguf")


def _wanted(spec: ModelSpec, base: str, quant: str, tensor: Tensor) -> str:
    if base == "Q8_0":
        return base
    if tensor.role == "output" or (tensor.role == "token_embd" and spec.tied):
        short = tensor.cols % BLOCKS[base][0] > 0
        return "Q8_0" if short else "Q5_K" if quant == "iq2_m" else "Q6_K"
    if tensor.role == "token_embd":
        return "IQ3_S" if quant == "iq2_m" else base
    rule = {"attn_v": _value, "ffn_down": _down, "attn_output": _output}.get(tensor.role)
    return base if rule is None else rule(spec, base, quant, tensor.layer or 0)


def _value(spec: ModelSpec, base: str, quant: str, layer: int) -> str:
    shared = spec.heads >= 4 * spec.kv_heads
    if quant in ("iq2_m", "q2_k"):
        return "Q4_K" if shared else "IQ3_S" if quant == "iq2_m" else "Q3_K"
    if quant == "q3_k_m":
        return "Q5_K" if layer < 2 else "Q4_K"
    more = quant in ("q4_k_m", "q5_k_m") and _more_bits(layer, spec.executed_layers)
    return "Q6_K" if more else base


def _down(spec: ModelSpec, base: str, quant: str, layer: int) -> str:
    layers = spec.executed_layers
    if quant == "q2_k":
        return "Q3_K"
    if quant == "q3_k_m":
        return "Q5_K" if layer < layers // 16 else "Q4_K"
    if quant in ("q4_k_m", "q5_k_m"):
        return "Q6_K" if _more_bits(layer, layers) else base
    first = layer < layers // 8
    return {"iq2_m": "IQ3_S", "q4_0": "Q4_1"}.get(quant, base) if first else base


def _output(spec: ModelSpec, base: str, quant: str, layer: int) -> str:
    return {"iq2_m": "IQ3_S", "q2_k": "Q3_K", "q3_k_m": "Q4_K"}.get(quant, base)


def _more_bits(layer: int, layers: int) -> bool:
    return layer < layers // 8 or layer >= 7 * layers // 8 or (layer - layers // 8) % 3 == 2
