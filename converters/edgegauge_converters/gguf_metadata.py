"""What a GGUF file says of its model, and which models it cannot describe.

Keys and their meaning: `docs/gguf.md` of the ggml repository; which of them llama.cpp reads for an
architecture: `src/models/<architecture>.cpp` and `src/llama-model.cpp` of the llama.cpp that
llama-cpp-python 0.3.36 carries.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

import numpy as np
import numpy.typing as npt

from edgegauge.errors import InputError
from edgegauge.gguf_types import FILE_TYPES
from edgegauge.model import ModelSpec
from edgegauge.recipe import Recipe

FILE_TYPE_NUMBERS = {name.lower(): number for number, (name, _) in FILE_TYPES.items()}
"""Recipe: its value of `general.file_type`."""

QUANTIZATION_VERSION = 2
MAX_LAYERS = 512
GEMMA_PERIOD = 6
"""The distance of global layers that llama.cpp takes for Gemma 3 where the file gives none."""


def check_spec(spec: ModelSpec) -> None:
    """InputError with every reason why llama.cpp could not run this model as specified."""
    problems = list(_problems(spec))
    if problems:
        raise InputError(f"{spec.id} cannot be written as GGUF for llama.cpp", problems)


def _problems(spec: ModelSpec) -> Iterator[str]:
    normed = spec.family in ("qwen3", "gemma3")
    if spec.qk_norm != normed:
        yield (
            f"qk_norm: {spec.family} always has it" if normed else f"qk_norm: not in {spec.family}"
        )
    if spec.sliding_window is not None and spec.family != "gemma3":
        yield f"sliding_window: {spec.family} has no window layers"
    if spec.query_scale is not None and spec.family != "gemma3":
        yield f"query_scale: {spec.family} always uses head_dim ** -0.5"
    if spec.rope_local_theta is not None and spec.sliding_window is None:
        yield "rope_local_theta: there are no window layers"
    if spec.family == "qwen2" and spec.heads * spec.head_dim != spec.hidden:
        yield f"heads * head_dim: must be hidden ({spec.hidden}) in qwen2"
    scaling = spec.rope_scaling
    if scaling and scaling.kind == "llama3" and spec.family != "llama":
        yield f"rope_scaling: llama3 scaling is not in {spec.family}"
    if spec.executed_layers > MAX_LAYERS:
        yield f"layers: llama.cpp executes at most {MAX_LAYERS}, got {spec.executed_layers}"


def add_metadata(writer: Any, spec: ModelSpec, recipe: Recipe) -> None:
    """Put everything but the vocabulary into a `gguf.GGUFWriter`."""
    writer.add_type("model")
    writer.add_name(spec.id)
    if isinstance(recipe, str):  # llama.cpp has no number for types that somebody else chose
        writer.add_file_type(FILE_TYPE_NUMBERS[recipe])
    writer.add_quantization_version(QUANTIZATION_VERSION)
    writer.add_vocab_size(spec.vocab)
    writer.add_block_count(spec.executed_layers)
    writer.add_context_length(spec.context)
    writer.add_embedding_length(spec.hidden)
    writer.add_feed_forward_length(spec.intermediate)
    writer.add_head_count(spec.heads)
    writer.add_head_count_kv(spec.kv_heads)
    writer.add_key_length(spec.head_dim)
    writer.add_value_length(spec.head_dim)
    writer.add_layer_norm_rms_eps(spec.norm_eps)
    writer.add_rope_dimension_count(spec.head_dim)
    writer.add_rope_freq_base(spec.rope_theta)
    _add_rope_scaling(writer, spec)
    _add_windows(writer, spec)


def _add_rope_scaling(writer: Any, spec: ModelSpec) -> None:
    if spec.rope_scaling is not None and spec.rope_scaling.kind == "linear":
        writer.add_string(f"{spec.family}.rope.scaling.type", "linear")
        writer.add_rope_scaling_factor(spec.rope_scaling.factor)


def _add_windows(writer: Any, spec: ModelSpec) -> None:
    if spec.sliding_window is None:
        return
    writer.add_sliding_window(spec.sliding_window)
    # Local layers have a base of 10000 in llama.cpp unless told; the spec's default is the global.
    local = spec.rope_theta if spec.rope_local_theta is None else spec.rope_local_theta
    writer.add_float32(f"{spec.family}.rope.freq_base_swa", local)
    if spec.global_every != GEMMA_PERIOD:
        writer.add_uint32(f"{spec.family}.attention.sliding_window_pattern", spec.global_every)


def rope_factors(spec: ModelSpec) -> npt.NDArray[np.float32]:
    """Divisors of the rotary frequencies, (1, head_dim / 2): llama.cpp's `rope_freqs`.

    Llama 3.1's rule: wavelengths shorter than original / high_freq_factor stay, those longer than
    original / low_freq_factor are divided by `factor`, and between the two the frequency moves
    linearly from one to the other (`_compute_llama3_parameters` in transformers' rope utilities).
    """
    scaling = spec.rope_scaling
    if scaling is None:
        raise ValueError("only for a spec with scaled positions")
    factors = []
    for pair in range(spec.head_dim // 2):
        wavelength = 2 * math.pi * spec.rope_theta ** (2 * pair / spec.head_dim)
        turns = scaling.original_context / wavelength
        if turns > scaling.high_freq_factor:
            factors.append(1.0)
        elif turns < scaling.low_freq_factor:
            factors.append(scaling.factor)
        else:
            span = scaling.high_freq_factor - scaling.low_freq_factor
            smooth = (turns - scaling.low_freq_factor) / span
            factors.append(1 / ((1 - smooth) / scaling.factor + smooth))
    return np.array([factors], np.float32)


def query_gain(spec: ModelSpec) -> float:
    """What query norms must be multiplied by so that llama.cpp's fixed scale becomes the spec's.

    llama.cpp scales Gemma 3's scores by head_dim ** -0.5, but by (hidden / heads) ** -0.5 where
    there are 62 layers, which it takes for the 27B model (src/models/gemma3.cpp).
    """
    if spec.family != "gemma3":
        return 1.0
    width = spec.hidden // spec.heads if spec.executed_layers == 62 else spec.head_dim
    wanted = spec.head_dim**-0.5 if spec.query_scale is None else spec.query_scale
    gain = wanted * math.sqrt(width)
    return 1.0 if math.isclose(gain, 1.0, rel_tol=1e-6) else gain
