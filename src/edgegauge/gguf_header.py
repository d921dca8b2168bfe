"""What a GGUF header means: the `ModelSpec`, the types of the weights, whether the label is true.

    spec_from_gguf(Path("model-q4_0.gguf")).parameters
    storage(read_header(path)).effective_bits       # 4.96
    label_note(header)                              # None, or "labelled Q4_0, about 4.5 ..."

A spec is only made of a file it describes exactly: architectures llama, qwen2, qwen3 and gemma3,
with just the tensors that the spec implies, each of the expected shape. Metadata keys and defaults
are those that llama.cpp reads (`src/llama-model.cpp`, `src/models/*.cpp`).
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any, get_args

from edgegauge.document import parse
from edgegauge.errors import InputError
from edgegauge.gguf_reader import (
    Array,
    GgufHeader,
    TensorInfo,
    Value,
    printable,
    read_floats,
    read_header,
)
from edgegauge.gguf_types import FILE_TYPES
from edgegauge.model import Family, ModelSpec, RopeScaling, Tensor

LABEL_TOLERANCE_BITS = 0.75
"""A file whose effective width is farther than this from its label's gets a note."""

ROPE_FREQS = "rope_freqs.weight"

_SUFFIXES = {
    "attn_post_norm": "post_attention_norm.weight", "ffn_post_norm": "post_ffw_norm.weight",
}  # fmt: skip
"""Roles whose name in a file is not simply `<role>.weight`, or `<role>.bias` of `<role>_bias`."""

_REFUSED = {
    "expert_count": "mixtures of experts are not supported",
    "final_logit_softcapping": "soft-capping is not supported",
    "attn_logit_softcapping": "soft-capping is not supported",
    "rope.scaling.attn_factor": "scaled attention is not supported",
    "attention.scale": "scaled attention is not supported",
}
"""Keys that change the arithmetic in a way a spec cannot say."""


@dataclass(frozen=True, slots=True)
class StoredType:
    """All tensors of one type in a file."""

    type: str
    tensors: int
    elements: int
    bytes: int


@dataclass(frozen=True, slots=True)
class Storage:
    """How a file stores its weights; `types` is ordered by bytes, most first."""

    types: tuple[StoredType, ...]

    @property
    def tensor_bytes(self) -> int:
        """Bytes of tensor data, without header and padding."""
        return sum(t.bytes for t in self.types)

    @property
    def effective_bits(self) -> float:
        """Bits per stored weight, norms included."""
        return 8 * self.tensor_bytes / max(1, sum(t.elements for t in self.types))


def storage(header: GgufHeader) -> Storage:
    """The tensor types of a file."""
    groups: dict[str, list[TensorInfo]] = {}
    for tensor in header.tensors.values():
        groups.setdefault(tensor.type, []).append(tensor)
    types = [
        StoredType(kind, len(ts), sum(t.elements for t in ts), sum(t.bytes for t in ts))
        for kind, ts in groups.items()
    ]
    return Storage(tuple(sorted(types, key=lambda t: -t.bytes)))


def label(header: GgufHeader) -> str | None:
    """The name of the file's `general.file_type`; None where it has none that is known."""
    number = header.metadata.get("general.file_type")
    return FILE_TYPES[number][0] if isinstance(number, int) and number in FILE_TYPES else None


def label_note(header: GgufHeader) -> str | None:
    """Why the file's label misleads about its width, or None where it does not."""
    number = header.metadata.get("general.file_type")
    if not isinstance(number, int) or number not in FILE_TYPES:
        return None
    name, usual = FILE_TYPES[number]
    stored = storage(header)
    if not stored.types or abs(stored.effective_bits - usual) <= LABEL_TOLERANCE_BITS:
        return None
    most = ", ".join(f"{t.type} {t.bytes / stored.tensor_bytes:.0%}" for t in stored.types[:3])
    return (
        f"labelled {name}, about {usual:g} bits per weight, but takes "
        f"{stored.effective_bits:.2f} ({most} of the bytes)"
    )


def spec_from_gguf(path: Path) -> ModelSpec:
    """The spec of the model in this file; raises InputError where none describes it exactly."""
    return spec_from_header(read_header(path))


def spec_from_header(header: GgufHeader) -> ModelSpec:
    """The spec that this header describes, under the file's name as its id; raises InputError."""
    keys = _Keys(header)
    family = _family(header)
    if keys.general("split.count", 1) != 1:
        raise InputError(
            f"split.count: this is one part of a model in several files @ {header.path}",
            hint="join the parts first: llama-gguf-split --merge FIRST.gguf WHOLE.gguf",
        )
    for name, why in _REFUSED.items():
        if keys.get(name, 0) not in (0, 1.0 if name == "rope.scaling.attn_factor" else 0):
            raise keys.error(name, why)
    spec = parse(_fields(keys, family), ModelSpec, str(header.path))
    _check_tensors(header, spec)
    return spec


def _family(header: GgufHeader) -> Family:
    name = header.metadata.get("general.architecture")
    for family in get_args(Family):
        if family == name:
            found: Family = family
            return found
    raise InputError(
        f"general.architecture: {printable(str(name))!r} is not supported @ {header.path}",
        hint=f"supported are {', '.join(get_args(Family))}",
    )


class _Keys:
    """The metadata under the architecture's own prefix."""

    def __init__(self, header: GgufHeader) -> None:
        self.header = header
        self.prefix = f"{header.metadata.get('general.architecture')}."

    def error(self, name: str, message: str) -> InputError:
        """An error that names the key."""
        return InputError(f"{self.prefix}{name}: {message} @ {self.header.path}")

    def get(self, name: str, default: Any = None) -> Any:
        """A value; an array of equal values, one per layer, counts as that value."""
        value = self.header.metadata.get(self.prefix + name, default)
        if not isinstance(value, Array):
            return value
        if not value.values or len(set(value.values)) != 1:
            raise self.error(name, "layers that differ from each other are not supported")
        return value.values[0]

    def count(self, name: str, default: int | None = None) -> int:
        """A whole number above 0."""
        value = self.get(name, default)
        if type(value) is int and 0 < value < 2**31:
            return value
        raise self.error(name, f"expected a whole number above 0, got {printable(str(value))}")

    def number(self, name: str, default: float | None = None) -> float:
        """A finite number above 0, as it was meant: 1e-5, not the 9.99999974e-06 of an f32."""
        value = self.get(name, default)
        if type(value) in (int, float) and 0 < value < math.inf:
            return float(f"{value:.7g}")
        raise self.error(name, f"expected a number above 0, got {printable(str(value))}")

    def raw(self, name: str) -> Value | None:
        """A value as the file has it."""
        return self.header.metadata.get(self.prefix + name)

    def general(self, name: str, default: Any = None) -> Any:
        """A value that has no prefix."""
        return self.header.metadata.get(name, default)


def _fields(keys: _Keys, family: Family) -> dict[str, Any]:
    tensors = keys.header.tensors
    embedding = tensors.get("token_embd.weight")
    if embedding is None or len(embedding.shape) != 2:
        raise InputError(f"token_embd.weight: expected a matrix @ {keys.header.path}")
    heads, hidden = keys.count("attention.head_count"), keys.count("embedding_length")
    head_dim = keys.count("attention.key_length", hidden // heads)
    for name in ("attention.value_length", "rope.dimension_count"):
        if keys.get(name, head_dim) != head_dim:
            raise keys.error(name, f"only {head_dim}, the length of a key, is supported")
    fields: dict[str, Any] = {
        "id": (keys.header.path.stem.lower() or "model")[:200],
        "family": family,
        "layers": keys.count("block_count"),
        "hidden": hidden,
        "intermediate": keys.count("feed_forward_length"),
        "heads": heads,
        "kv_heads": keys.count("attention.head_count_kv", heads),
        "head_dim": head_dim,
        "vocab": embedding.shape[1],
        "tied": "output.weight" not in tensors,
        "context": keys.count("context_length"),
        "norm_eps": keys.number("attention.layer_norm_rms_epsilon"),
        "rope_theta": keys.number("rope.freq_base", 10000.0),
        "attention_bias": "blk.0.attn_q.bias" in tensors,
        "qk_norm": "blk.0.attn_q_norm.weight" in tensors,
    }
    fields["rope_scaling"] = _rope_scaling(keys, fields)
    return fields | (_gemma3(keys, fields) if family == "gemma3" else {})


def _gemma3(keys: _Keys, fields: dict[str, Any]) -> dict[str, Any]:
    """Windows, and the query scale that llama.cpp derives from the number of layers."""
    pattern = 6
    stored = keys.raw("attention.sliding_window_pattern")
    if isinstance(stored, Array):
        local = list(stored.values or ())
        pattern = local.index(False) + 1 if False in local else len(local) + 1
        if local != [bool((i + 1) % pattern) for i in range(fields["layers"])]:
            raise keys.error("attention.sliding_window_pattern", "not one global layer in every N")
    elif stored is not None:
        pattern = keys.count("attention.sliding_window_pattern")
    made: dict[str, Any] = {"rope_local_theta": keys.number("rope.freq_base_swa", 10000.0)}
    if keys.get("attention.sliding_window"):
        window = keys.count("attention.sliding_window")
        made |= {"sliding_window": window, "global_every": pattern}
    if fields["layers"] == 62:
        # Gemma 3 27B; every other size divides by the head's own width.
        made["query_scale"] = (fields["hidden"] // fields["heads"]) ** -0.5
    return made


def _rope_scaling(keys: _Keys, fields: dict[str, Any]) -> dict[str, Any] | None:
    kind = keys.get("rope.scaling.type", "linear")
    # Zero, like no factor at all, means that positions are not scaled.
    name = (
        "rope.scaling.factor"
        if keys.get("rope.scaling.factor") is not None
        else "rope.scale_linear"
    )
    factor = keys.number(name) if keys.get(name) else 1.0
    if kind not in ("none", "linear"):
        raise keys.error(
            "rope.scaling.type", f"supported are none and linear, got {printable(str(kind))!r}"
        )
    if ROPE_FREQS in keys.header.tensors:
        return _llama3(keys, fields)
    return {"kind": "linear", "factor": factor} if kind == "linear" and factor != 1.0 else None


def _llama3(keys: _Keys, fields: dict[str, Any]) -> dict[str, Any]:
    """Llama 3's rule from the factors it left behind: the file does not hold its parameters.

    The bands of the published models (1 and 4) are assumed; the largest factor and the original
    context follow, and the rule must give back every factor of the file.
    """
    stored = read_floats(keys.header, ROPE_FREQS)
    theta, head_dim = fields["rope_theta"], fields["head_dim"]
    if all(map(math.isfinite, stored)) and len(stored) * 2 == head_dim:
        for power in (13, *range(4, 25)):
            rule = RopeScaling(kind="llama3", factor=max(1.0, *stored), original_context=2**power)
            made = [_llama3_factor(rule, theta ** (2 * i / head_dim)) for i in range(len(stored))]
            if all(math.isclose(a, b, rel_tol=1e-3) for a, b in zip(stored, made, strict=True)):
                return rule.model_dump()
    raise InputError(f"{ROPE_FREQS}: these are not Llama 3's position factors @ {keys.header.path}")


def _llama3_factor(rule: RopeScaling, positions_per_radian: float) -> float:
    """By what a frequency, given as its inverse, is divided under Llama 3's rule."""
    turns = rule.original_context / (2 * math.pi * positions_per_radian)
    low, high = rule.low_freq_factor, rule.high_freq_factor
    if turns < low:
        return rule.factor
    if turns > high:
        return 1.0
    smooth = (turns - low) / (high - low)
    return 1 / ((1 - smooth) / rule.factor + smooth)


def tensor_name(tensor: Tensor) -> str:
    """The name of a spec's tensor in a GGUF file."""
    owner = tensor.role.removesuffix("_bias")
    plain = f"{owner}.weight" if owner == tensor.role else f"{owner}.bias"
    suffix = _SUFFIXES.get(tensor.role, plain)
    return suffix if tensor.layer is None else f"blk.{tensor.layer}.{suffix}"


def _check_tensors(header: GgufHeader, spec: ModelSpec) -> None:
    """The file holds exactly the tensors that the spec implies; InputError with all differences."""
    shapes = {name: tensor.shape for name, tensor in header.tensors.items()}
    if spec.rope_scaling is not None and spec.rope_scaling.kind == "llama3":
        shapes.pop(ROPE_FREQS)
    problems = []
    for tensor in spec.tensors():
        name = tensor_name(tensor)
        wanted = (tensor.cols,) if tensor.is_vector else (tensor.cols, tensor.rows)
        found = shapes.pop(name, None)
        if found is None:
            problems.append(f"{name}: missing")
        elif found != wanted:
            problems.append(f"{name}: expected the shape {list(wanted)}, got {list(found)}")
    problems += [f"{printable(name)}: not part of a {spec.family} model" for name in shapes]
    if problems:
        shown = [f"{p} @ {header.path}" for p in problems[:20]]
        more = [f"... and {len(problems) - 20} more"] if len(problems) > 20 else []
        raise InputError(f"the tensors of {header.path} do not fit its metadata", [*shown, *more])
