"""Recipes: how a format stores each weight tensor, and so how many bytes a candidate has.

    stored_tensors(spec, "q4_k_m")         # every tensor with its type and exact bytes
    tensor_bytes(spec, "int4", "onnx")     # their sum: what a file holds beside its header
    effective_bits(spec, "q4_k_m")         # 6.2 for SmolLM2-135M, whose rows suit no k-quant

A recipe is the name of a shipped one, or one read from a file. Those and the shipped ones of ONNX
and TFLite are data (`recipe_file.py`). The shipped ones of GGUF are rules: the types that
llama.cpp's `llama-quantize` writes. They were read in `src/llama-quant.cpp` of the llama.cpp that
llama-cpp-python 0.3.36 carries, and compared with files made by that `llama-quantize`
(tests/test_recipe.py).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache, partial
from typing import TypeVar, overload

from edgegauge import onnx_types, tflite_types
from edgegauge.errors import InputError
from edgegauge.gguf_types import FILE_TYPES, TENSOR_TYPES
from edgegauge.model import ModelSpec, Role, Tensor
from edgegauge.recipe_file import SHIPPED_FORMATS, RecipeFile, resolve_shipped, shipped

Recipe = str | RecipeFile
"""A shipped recipe by name, or one of a file; `str(recipe)` is its name."""

GGUF_RECIPES = ("f32", "f16", "q8_0", "q4_0", "q4_k_m")
GGUF_ALIASES = {"int8": "q8_0", "int4": "q4_k_m"}

BLOCKS = {name: (elements, size) for name, elements, size in TENSOR_TYPES.values()}
"""Type: elements of one block along a row, and the bytes that hold them."""

BASE_TYPES = {"f32": "F32", "f16": "F16", "q8_0": "Q8_0", "q4_0": "Q4_0", "q4_k_m": "Q4_K"}
"""Recipe: the type of a matrix that no rule below treats differently."""

_USUAL_BITS = dict(FILE_TYPES.values())

FALLBACKS = {"Q4_K": "Q5_0", "Q5_K": "Q5_1", "Q6_K": "Q8_0"}
"""A 256-block type: the 32-block type that replaces it in rows that are no multiple of 256."""

TOGETHER: tuple[tuple[Role, ...], ...] = (("attn_q", "attn_k", "attn_v"), ("ffn_gate", "ffn_up"))
"""Projections of the same input, which a graph computes as one where their types allow."""

WIDE_FACTOR = 1.2
"""Above this multiple of its usual width a file is called wider than its label."""


@dataclass(frozen=True, slots=True)
class StoredTensor:
    """A tensor as a file holds it; `wanted` is the type the recipe asks for, `type` what fits."""

    tensor: Tensor
    type: str
    bytes: int
    wanted: str


@overload
def resolve(recipe: str, file_format: str) -> str: ...
@overload
def resolve(recipe: RecipeFile, file_format: str) -> RecipeFile: ...
@overload
def resolve(recipe: Recipe, file_format: str) -> Recipe: ...
def resolve(recipe: Recipe, file_format: str) -> Recipe:
    """The recipe that is meant for this format (`int4` is `q4_k_m` in GGUF); InputError."""
    if file_format not in (known := ("gguf", *SHIPPED_FORMATS)):
        raise InputError(
            f"no recipes are known for the format {file_format!r}; there are: {', '.join(known)}"
        )
    if isinstance(recipe, RecipeFile):
        return _checked(recipe, file_format)
    if file_format in SHIPPED_FORMATS:
        return resolve_shipped(recipe, file_format)
    name = GGUF_ALIASES.get(recipe.lower(), recipe.lower())
    if name not in GGUF_RECIPES:
        names = ", ".join((*GGUF_RECIPES, *GGUF_ALIASES))
        raise InputError(f"unknown recipe {recipe!r} for gguf; there are: {names}")
    return name


Format = TypeVar("Format", bound=str)


def resolve_each(
    recipe: str, formats: Sequence[Format]
) -> tuple[dict[Format, str], dict[Format, str]]:
    """What each format calls this recipe, and why others have not got it; InputError if all."""
    resolved: dict[Format, str] = {}
    refusals: dict[Format, str] = {}
    for file_format in formats:
        try:
            resolved[file_format] = resolve(recipe, file_format)
        except InputError as error:
            refusals[file_format] = str(error)
    if not resolved:
        raise InputError(f"no format has the recipe {recipe!r}", [*refusals.values()])
    return resolved, refusals


def shipped_names(file_format: str) -> list[str]:
    """The shipped recipes that a format has."""
    if file_format == "gguf":
        return [*GGUF_RECIPES]
    return [name for name, rules in shipped(file_format).items() if rules.refused is None]


def _checked(recipe: RecipeFile, file_format: str) -> RecipeFile:
    if recipe.format != file_format:
        raise InputError(
            f"the recipe {recipe.id} is for {recipe.format}, not for {file_format}",
            hint=f"--format {recipe.format}",
        )
    if recipe.id in (*shipped_names(file_format), *GGUF_ALIASES):
        raise InputError(f"{recipe.id!r} is a shipped recipe: choose another id for your own")
    return recipe


def stored_tensors(
    spec: ModelSpec, recipe: Recipe, file_format: str = "gguf"
) -> list[StoredTensor]:
    """Every tensor of the file of this candidate, in storage order; InputError for the recipe.

    GGUF cannot share a block between layers, so there shared blocks appear once per execution, and
    Llama 3's position scaling is stored as one more vector, `rope_freqs`.
    """
    return list(_stored(spec, resolve(recipe, file_format), file_format))


def inventory(
    spec: ModelSpec, recipe: Recipe, file_format: str = "gguf"
) -> tuple[tuple[StoredTensor, int], ...]:
    """The stored tensors, those of one role in one type once with their count: all have one shape.

    What arithmetic wants, at a tenth of the cost of a list of all."""
    return _inventory(spec, resolve(recipe, file_format), file_format)


def tensor_bytes(spec: ModelSpec, recipe: Recipe, file_format: str = "gguf") -> int:
    """Bytes of tensor data in the file, without header, metadata and padding."""
    return _bytes(spec, resolve(recipe, file_format), file_format)


def effective_bits(spec: ModelSpec, recipe: Recipe, file_format: str = "gguf") -> float:
    """Bits per stored parameter, shared and tied ones counted once."""
    return 8 * tensor_bytes(spec, recipe, file_format) / spec.parameters


def label_bits(recipe: str) -> float:
    """Bits per weight that the GGUF recipe's name makes one expect (q8_0: 8.5, q4_k_m: 4.89)."""
    return _USUAL_BITS[resolve(recipe, "gguf").upper()]


def width_warning(spec: ModelSpec, recipe: Recipe) -> str | None:
    """Why the GGUF file is wider than its recipe says, or None where it is not."""
    recipe = resolve(recipe, "gguf")
    bits = effective_bits(spec, recipe)
    reasons = list(_fallback_reasons(spec, recipe))
    surprising, instead = bool(reasons), ""
    if not isinstance(recipe, RecipeFile):
        label = label_bits(recipe)
        surprising, instead = bits > WIDE_FACTOR * label, f" here, not {label:g}"
        reasons += _wider_by_rule(spec, recipe)
    if spec.layer_repeats > 1:
        reasons.append(f"GGUF cannot share blocks: each is written {spec.layer_repeats} times")
    elif not surprising:
        return None
    return f"{recipe} takes {bits:.2f} bits per weight{instead}: {'; '.join(reasons)}"


def _fallback_reasons(spec: ModelSpec, recipe: Recipe) -> Iterator[str]:
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
def _bytes(spec: ModelSpec, recipe: Recipe, file_format: str) -> int:
    return sum(count * stored.bytes for stored, count in _inventory(spec, recipe, file_format))


@lru_cache(maxsize=64)
def _stored(spec: ModelSpec, recipe: Recipe, file_format: str) -> tuple[StoredTensor, ...]:
    wanted = _chooser(spec, recipe, file_format)
    tensors = _tensors(spec, file_format)
    return tuple(stored_as(tensor, wanted(tensor), file_format) for tensor in tensors)


@lru_cache(maxsize=1024)
def _inventory(
    spec: ModelSpec, recipe: Recipe, file_format: str
) -> tuple[tuple[StoredTensor, int], ...]:
    wanted = _chooser(spec, recipe, file_format)
    counts: dict[tuple[str, str], int] = {}
    first: dict[tuple[str, str], Tensor] = {}
    for tensor, count in _counted(spec, file_format, _tells_layers_apart(recipe, file_format)):
        kind = tensor.role, wanted(tensor)
        counts[kind] = counts.get(kind, 0) + count
        first.setdefault(kind, tensor)
    return tuple(
        (stored_as(first[kind], kind[1], file_format), count) for kind, count in counts.items()
    )


def _tells_layers_apart(recipe: Recipe, file_format: str) -> bool:
    """Whether the type of a tensor may depend on its layer."""
    if isinstance(recipe, str) and file_format == "gguf":
        return recipe == "q4_k_m"
    rules = recipe if isinstance(recipe, RecipeFile) else shipped(file_format)[recipe]
    return bool(rules.layers)


@lru_cache(maxsize=16)
def _counted(spec: ModelSpec, file_format: str, each_layer: bool) -> list[tuple[Tensor, int]]:
    """The tensors with how many there are of each; without `each_layer` those of the first layer
    stand for those of all, which have the same shapes."""
    if each_layer:
        return [(tensor, 1) for tensor in _tensors(spec, file_format)]
    layers = spec.executed_layers if file_format == "gguf" else spec.layers
    one_layer = spec.model_copy(update={"layers": 1, "layer_repeats": 1})
    return [
        (tensor, 1 if tensor.layer is None else layers)
        for tensor in _tensors(one_layer, file_format)
    ]


@lru_cache(maxsize=16)
def _tensors(spec: ModelSpec, file_format: str) -> tuple[Tensor, ...]:
    return tuple(gguf_tensors(spec) if file_format == "gguf" else spec.tensors())


def stored_as(tensor: Tensor, wanted: str, file_format: str) -> StoredTensor:
    """A tensor in the wanted type, or in the nearest one that its rows fit."""
    if file_format == "gguf":
        used = _fitting(wanted, tensor.cols)
        return StoredTensor(tensor, used, _size(used, tensor), wanted)
    types = {"onnx": onnx_types, "tflite": tflite_types}[file_format]
    used = types.fitting(wanted, tensor.cols)
    return StoredTensor(tensor, used, types.stored_bytes(used, tensor.rows, tensor.cols), wanted)


def _chooser(spec: ModelSpec, recipe: Recipe, file_format: str) -> Callable[[Tensor], str]:
    """What gives each tensor of the file the type that the recipe asks for."""
    if isinstance(recipe, RecipeFile):
        if recipe.last_layer >= spec.layers:
            raise InputError(
                f"the recipe {recipe} names layer {recipe.last_layer}, but {spec.id} has "
                f"{spec.layers} layers, from 0"
            )
        if file_format == "tflite":
            _check_tflite(spec, recipe)
        return partial(_by_block, spec, recipe) if file_format == "gguf" else recipe.type_of
    if file_format == "gguf":
        return partial(_wanted, spec, recipe)
    return shipped(file_format)[recipe].type_of


def _by_block(spec: ModelSpec, recipe: RecipeFile, tensor: Tensor) -> str:
    """The type of a tensor of an executed layer, which is that of its stored block."""
    layer = None if tensor.layer is None else tensor.layer // spec.layer_repeats
    return recipe.type_of(replace(tensor, layer=layer))


def _check_tflite(spec: ModelSpec, recipe: RecipeFile) -> None:
    """InputError for a mixture that TFLite files do not hold, or LiteRT does not run."""
    embedding = recipe.type_of(next(spec.tensors()))
    if "/" in embedding:
        raise InputError(
            f"the recipe {recipe} stores the embedding in {embedding}, and LiteRT looks up no rows "
            "that have blocks",
            hint="give token_embd F32, INT8 or INT4",
        )
    for layer in range(spec.layers):
        for roles in TOGETHER:
            types = {role: recipe.type_of(Tensor(role, layer, 1, 1)) for role in roles}
            if len(set(types.values())) > 1:
                said = ", ".join(f"{role} {type}" for role, type in types.items())
                raise InputError(
                    f"the recipe {recipe} stores projections of one input in different types in "
                    f"layer {layer}: {said}",
                    hint="TFLite files multiply them as one matrix: give them one type",
                )


def gguf_tensors(spec: ModelSpec) -> Iterator[Tensor]:
    """The tensors of a GGUF file: shared blocks unrolled, Llama 3's position factors added."""
    yield from spec.tensors(unrolled=True)
    if spec.rope_scaling is not None and spec.rope_scaling.kind == "llama3":
        yield Tensor("rope_freqs", None, 1, spec.head_dim // 2)


def _wanted(spec: ModelSpec, recipe: str, tensor: Tensor) -> str:
    """The type of a tensor before its width is considered."""
    base = "F32" if tensor.is_vector else BASE_TYPES[recipe]
    if base in ("F32", "F16", "Q8_0"):
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
