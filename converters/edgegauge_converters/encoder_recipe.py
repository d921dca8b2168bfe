"""How an encoder's tensors are stored: the formats' own recipes, with two tables left as they are.

    stored_tensors(spec, "int4", "onnx")     # every tensor with its type and exact bytes

Position vectors and token types are added to every token, are few, and stay F32, as llama.cpp's
`llama-quantize` leaves them. That takes an encoder, which has no output head, for one whose head is
the embedding, and so gives the embedding the type of a head.
"""

from __future__ import annotations

from edgegauge.encoder import EncoderSpec
from edgegauge.model import Tensor
from edgegauge.recipe import BASE_TYPES, StoredTensor, resolve, stored_as
from edgegauge.recipe_file import shipped

PLAIN_ROLES = ("position_embd", "token_types")


def stored_tensors(spec: EncoderSpec, recipe: str, file_format: str) -> list[StoredTensor]:
    """Every tensor of the file of this candidate, in storage order; InputError for the recipe."""
    named = resolve(recipe, file_format)
    return [
        stored_as(tensor, _wanted(spec, named, tensor, file_format), file_format)
        for tensor in spec.tensors()
    ]


def tensor_bytes(stored: list[StoredTensor]) -> int:
    """Bytes of tensor data, without header, metadata and padding."""
    return sum(each.bytes for each in stored)


def _wanted(spec: EncoderSpec, recipe: str, tensor: Tensor, file_format: str) -> str:
    """The type of a tensor before its width is considered."""
    if tensor.is_vector or tensor.role in PLAIN_ROLES:
        return "F32"
    if file_format == "gguf":
        return _quantized(spec, recipe, tensor)
    return shipped(file_format)[recipe].type_of(tensor)


def _quantized(spec: EncoderSpec, recipe: str, tensor: Tensor) -> str:
    """The type of a matrix as llama-quantize chooses it."""
    base = BASE_TYPES[recipe]
    if base in ("F32", "F16", "Q8_0"):
        return base
    if tensor.role == "token_embd":
        return "Q6_K"
    if recipe == "q4_k_m" and tensor.role in ("attn_v", "ffn_down") and _wider(spec, tensor):
        return "Q6_K"
    return base


def _wider(spec: EncoderSpec, tensor: Tensor) -> bool:
    """The first and last eighth of the blocks, and every third one between."""
    assert tensor.layer is not None
    eighth = spec.layers // 8
    outer = tensor.layer < eighth or tensor.layer >= 7 * spec.layers // 8
    return outer or (tensor.layer - eighth) % 3 == 2
