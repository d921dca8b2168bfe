"""Recipes: how a format stores each weight tensor, and so how many bytes a candidate has.

    stored_tensors(spec, "q4_k_m")         # every tensor with its type and exact bytes
    tensor_bytes(spec, "int4", "onnx")     # their sum: what a file holds beside its header
    effective_bits(spec, "q4_k_m")         # 6.2 for SmolLM2-135M, whose rows suit no k-quant

The recipes of ONNX are data (`block_recipe.py`). Those of GGUF are rules: the types that
llama.cpp's `llama-quantize` writes. They were read in `src/llama-quant.cpp` of the llama.cpp that
llama-cpp-python 0.3.36 carries, and compared with files made by that `llama-quantize`
(tests/test_recipe.py).
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache

from edgegauge.block_recipe import (
    BLOCK_FORMATS,
    block_recipes,
    fitting,
    resolve_block,
    stored_bytes,
)
from edgegauge.errors import InputError
from edgegauge.gguf_types import FILE_TYPES, TENSOR_TYPES
from edgegauge.model import ModelSpec, Tensor
from edgegauge.tflite_recipe import resolve_tflite, tflite_bytes, tflite_type

GGUF_RECIPES = ("f32", "f16", "q8_0", "q4_0", "q4_k_m")
GGUF_ALIASES = {"int8": "q8_0", "int4": "q4_k_m"}

BLOCKS = {name: (elements, size) for name, elements, size in TENSOR_TYPES.values()}
"""Type: elements of one block along a row, and the bytes that hold them."""

BASE_TYPES = {"f32": "F32", "f16": "F16", "q8_0": "Q8_0", "q4_0": "Q4_0", "q4_k_m": "Q4_K"}
"""Recipe: the type of a matrix that no rule below treats differently."""

_USUAL_BITS = dict(FILE_TYPES.values())

FALLBACKS = {"Q4_K": "Q5_0", "Q5_K": "Q5_1", "Q6_K": "Q8_0"}
"""A 256-block type: the 32-block type that replaces it in rows that are no multiple of 256."""

WIDE_FACTOR = 1.2
"""Above this multiple of its usual width a file is called wider than its label."""


@dataclass(frozen=True, slots=True)
class StoredTensor:
    """A tensor as a file holds it; `wanted` is the type the recipe asks for, `type` what fits."""

    tensor: Tensor
    type: str
    bytes: int
    wanted: str


def resolve(name: str, file_format: str) -> str:
    """The recipe that `name` means for this format (`int4` is `q4_k_m` in GGUF); InputError."""
    if file_format in BLOCK_FORMATS:
        return resolve_block(name, file_format)
    if file_format == "tflite":
        return resolve_tflite(name)
    if file_format != "gguf":
        known = ", ".join(("gguf", *BLOCK_FORMATS, "tflite"))
        raise InputError(f"no recipes are known for the format {file_format!r}; there are: {known}")
    recipe = GGUF_ALIASES.get(name.lower(), name.lower())
    if recipe not in GGUF_RECIPES:
        known = ", ".join((*GGUF_RECIPES, *GGUF_ALIASES))
        raise InputError(f"unknown recipe {name!r} for gguf; there are: {known}")
    return recipe


def stored_tensors(spec: ModelSpec, recipe: str, file_format: str = "gguf") -> list[StoredTensor]:
    """Every tensor of the file of this candidate, in storage order.

    GGUF cannot share a block between layers, so there shared blocks appear once per execution, and
    Llama 3's position scaling is stored as one more vector, `rope_freqs`.
    """
    return list(_stored(spec, resolve(recipe, file_format), file_format))


def tensor_bytes(spec: ModelSpec, recipe: str, file_format: str = "gguf") -> int:
    """Bytes of tensor data in the file, without header, metadata and padding."""
    return _bytes(spec, resolve(recipe, file_format), file_format)


def effective_bits(spec: ModelSpec, recipe: str, file_format: str = "gguf") -> float:
    """Bits per stored parameter, shared and tied ones counted once."""
    return 8 * tensor_bytes(spec, recipe, file_format) / spec.parameters


def label_bits(recipe: str) -> float:
    """Bits per weight that the GGUF recipe's name makes one expect (q8_0: 8.5, q4_k_m: 4.89)."""
    return _USUAL_BITS[resolve(recipe, "gguf").upper()]


def width_warning(spec: ModelSpec, recipe: str) -> str | None:
    """Why the GGUF file is much wider than its label says, or None where it is not."""
    recipe = resolve(recipe, "gguf")
    bits, label = effective_bits(spec, recipe), label_bits(recipe)
    if bits <= WIDE_FACTOR * label and spec.layer_repeats == 1:
        return None
    reasons = [*_fallback_reasons(spec, recipe), *_wider_by_rule(spec, recipe)]
    if spec.layer_repeats > 1:
        reasons.append(f"GGUF cannot share blocks: each is written {spec.layer_repeats} times")
    return f"{recipe} takes {bits:.2f} bits per weight here, not {label:g}: {'; '.join(reasons)}"


def _fallback_reasons(spec: ModelSpec, recipe: str) -> Iterator[str]:
    fallen: dict[tuple[str, str], dict[str, None]] = {}
    widths = set()
    for stored in _stored(spec, recipe, "gguf"):
        if stored.type != stored.wanted:
            fallen.setdefault((stored.wanted, stored.type), {})[stored.tensor.role] = None
            widths.add(stored.tensor.cols)
    if fallen:
        became = (f"{w} became {t} in {', '.join(roles)}" for (w, t), roles in fallen.items())
        rows = ", ".join(map(str, sorted(widths)))
        yield f"{'; '.join(became)} (rows of {rows} do not divide into its blocks)"


def _wider_by_rule(spec: ModelSpec, recipe: str) -> Iterator[str]:
    """The embedding or head, where it is wide by design and a large part of a small model."""
    for stored in _stored(spec, recipe, "gguf"):
        head = stored.tensor.role in ("token_embd", "output")
        if head and stored.type == stored.wanted and _bits(stored.type) > label_bits(recipe):
            share = 100 * stored.tensor.elements / spec.parameters
            yield f"{stored.tensor.role}, {share:.0f} % of the weights, is kept in {stored.type}"


@lru_cache(maxsize=1024)
def _bytes(spec: ModelSpec, recipe: str, file_format: str) -> int:
    return sum(stored.bytes for stored in _stored(spec, recipe, file_format))


@lru_cache(maxsize=64)
def _stored(spec: ModelSpec, recipe: str, file_format: str) -> tuple[StoredTensor, ...]:
    make = {"gguf": _gguf_stored, "tflite": _tflite_stored}.get(file_format, _block_stored)
    return tuple(make(spec, recipe, file_format))


def _block_stored(spec: ModelSpec, recipe: str, file_format: str) -> Iterator[StoredTensor]:
    types = block_recipes(file_format)[recipe]
    for tensor in spec.tensors():
        wanted = types.type_of(tensor)
        used = fitting(wanted, tensor.cols)
        yield StoredTensor(tensor, used, stored_bytes(used, tensor.rows, tensor.cols), wanted)


def _tflite_stored(spec: ModelSpec, recipe: str, _: str) -> Iterator[StoredTensor]:
    for tensor in spec.tensors():
        used, wanted = tflite_type(tensor, recipe)
        yield StoredTensor(tensor, used, tflite_bytes(used, tensor), wanted)


def _gguf_stored(spec: ModelSpec, recipe: str, _: str) -> Iterator[StoredTensor]:
    for tensor in gguf_tensors(spec):
        wanted = "F32" if tensor.is_vector else _wanted(spec, recipe, tensor)
        used = _fitting(wanted, tensor.cols)
        yield StoredTensor(tensor, used, _size(used, tensor), wanted)


def gguf_tensors(spec: ModelSpec) -> Iterator[Tensor]:
    """The tensors of a GGUF file: shared blocks unrolled, Llama 3's position factors added."""
    yield from spec.tensors(unrolled=True)
    if spec.rope_scaling is not None and spec.rope_scaling.kind == "llama3":
        yield Tensor("rope_freqs", None, 1, spec.head_dim // 2)


def _wanted(spec: ModelSpec, recipe: str, tensor: Tensor) -> str:
    """The type of a matrix before its width is considered."""
    base = BASE_TYPES[recipe]
    if base in ("F32", "F16"):
        return base
    if base == "Q8_0":
        return base
    if tensor.role == "output" or (tensor.role == "token_embd" and spec.tied):
        return "Q6_K"
    if recipe != "q4_k_m" or tensor.layer is None:
        return base
    if tensor.role in ("attn_v", "ffn_down") and _more_bits(tensor.layer, spec.executed_layers):
        return "Q6_K"
    if tensor.role == "attn_v" and _is_70b(spec):
        return "Q5_K"
    return base


def _more_bits(layer: int, layers: int) -> bool:
    """The first and last eighth of the blocks, and every third one between."""
    return layer < layers // 8 or layer >= 7 * layers // 8 or (layer - layers // 8) % 3 == 2


def _is_70b(spec: ModelSpec) -> bool:
    """What llama.cpp takes for a 70B model, whose few value heads get one bit more."""
    if spec.executed_layers != 80:
        return False
    return spec.family == "qwen2" or (spec.family == "llama" and spec.heads != spec.kv_heads)


def _fitting(wanted: str, cols: int) -> str:
    """`wanted`, or the first replacement whose block divides the row."""
    if cols % BLOCKS[wanted][0] == 0:
        return wanted
    narrower = FALLBACKS.get(wanted, wanted)
    return narrower if cols % BLOCKS[narrower][0] == 0 else "F16"


def _size(stored_type: str, tensor: Tensor) -> int:
    elements, size = BLOCKS[stored_type]
    return tensor.rows * (tensor.cols // elements) * size


def _bits(stored_type: str) -> float:
    elements, size = BLOCKS[stored_type]
    return 8 * size / elements
