"""Files that others measured: models outside the catalog, and llama.cpp's other weight types.

Which type each tensor gets follows `llama_tensor_get_type` in llama.cpp's `src/llama-quant.cpp`
as of 2025; the models' shapes are their config.json's.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import lru_cache

from edgegauge import catalog
from edgegauge.model import ModelSpec, Tensor
from edgegauge.recipe import BLOCKS, FALLBACKS, GGUF_RECIPES, StoredTensor, gguf_tensors
from edgegauge.work import Work, work_from, work_of

# id: layers, hidden, intermediate, heads, kv_heads, head_dim, vocab, tied
SHAPES = {
    "llama-2-7b": (32, 4096, 11008, 32, 32, 128, 32000, False),
    "llama-2-13b": (40, 5120, 13824, 40, 40, 128, 32000, False),
    "mistral-7b": (32, 4096, 14336, 32, 8, 128, 32768, False),
    "mistral-nemo": (40, 5120, 14336, 32, 8, 128, 131072, False),
    "qwen3-8b": (36, 4096, 12288, 32, 8, 128, 151936, False),
    "qwen2.5-14b": (48, 5120, 13824, 40, 8, 128, 152064, False),
    "qwen1.5-1.8b": (24, 2048, 5504, 16, 16, 128, 151936, False),
    "deepseek-r1-distill-qwen-1.5b": (28, 1536, 8960, 12, 2, 128, 151936, False),
    "phi-3-mini": (32, 3072, 8192, 32, 32, 96, 32064, False),
    "phi-4-mini": (32, 3072, 8192, 24, 8, 128, 200064, True),
    "gemma-2b": (18, 2048, 16384, 8, 1, 256, 256000, True),
    "stable-code-3b": (32, 2560, 6912, 32, 32, 80, 50304, False),
    "yi-1.5-6b": (32, 4096, 11008, 32, 4, 128, 64000, False),
    "yi-coder-1.5b": (24, 2048, 5504, 16, 16, 128, 64000, False),
    "internlm2.5-7b": (32, 4096, 14336, 32, 8, 128, 92544, False),
}
"""Models that appear in the measurements and not in the catalog; all have gated blocks."""

BASE = {
    "q5_0": "Q5_0", "iq4_nl": "IQ4_NL", "bf16": "BF16", "q6_k": "Q6_K", "iq4_xs": "IQ4_XS",
    "q2_k": "Q2_K", "q2_k_s": "Q2_K", "q3_k_s": "Q3_K", "q3_k_m": "Q3_K", "q3_k_l": "Q3_K",
    "q4_k_s": "Q4_K", "q5_k_s": "Q5_K", "q5_k_m": "Q5_K", "iq2_xxs": "IQ2_XXS",
    "iq2_xs": "IQ2_XS", "iq3_xxs": "IQ3_XXS", "iq3_s": "IQ3_S",
}  # fmt: skip
"""Recipe: the type of a matrix that no rule treats differently."""

SHORT_ROWS = FALLBACKS | dict.fromkeys(
    ("IQ4_XS", "Q2_K", "Q3_K", "IQ2_XXS", "IQ2_XS", "IQ3_XXS", "IQ3_S"), "IQ4_NL"
)
"""What replaces a type whose blocks of 256 do not divide the row."""


@lru_cache(maxsize=64)
def spec_of(model: str) -> ModelSpec:
    """The shape of a measured model."""
    if model not in SHAPES:
        return catalog.load()[model].spec
    names = ("layers", "hidden", "intermediate", "heads", "kv_heads", "head_dim", "vocab", "tied")
    return ModelSpec(
        id=model, family="llama", context=4096, norm_eps=1e-5, rope_theta=1e4,
        **dict(zip(names, SHAPES[model], strict=True)),
    )  # fmt: skip


@lru_cache(maxsize=512)
def work_of_file(model: str, recipe: str) -> Work:
    """What a token of this measured file asks for."""
    spec = spec_of(model)
    if recipe in GGUF_RECIPES:
        return work_of(spec, recipe)
    return work_from(spec, ((stored, 1) for stored in _stored(spec, recipe)))


def _stored(spec: ModelSpec, recipe: str) -> Iterator[StoredTensor]:
    for tensor in gguf_tensors(spec):
        wanted = "F32" if tensor.is_vector else _type(spec, recipe, tensor)
        used = SHORT_ROWS[wanted] if tensor.cols % BLOCKS[wanted][0] else wanted
        elements, size = BLOCKS[used]
        yield StoredTensor(tensor, used, tensor.elements // elements * size, wanted)


def _type(spec: ModelSpec, recipe: str, tensor: Tensor) -> str:
    base = BASE[recipe]
    if base == "BF16":
        return base
    if tensor.role in ("output", "token_embd"):
        return "Q5_K" if recipe[:3] in ("iq2", "iq3") and recipe != "iq3_s" else "Q6_K"
    shared = spec.heads // spec.kv_heads >= 4
    layer, layers = tensor.layer or 0, spec.executed_layers
    more = layer < layers // 8 or layer >= 7 * layers // 8 or (layer - layers // 8) % 3 == 2
    early = layer < layers // 8
    low = {"attn_v": "Q4_K" if shared else "Q2_K", "ffn_down": "Q2_K" if early else base}
    high = {"attn_v": "Q5_K" if shared else base, "ffn_down": "Q5_K" if early else base}
    value = "Q4_K" if shared else "IQ3_S"
    rules: dict[str, dict[str, str]] = {
        "q2_k": {"attn_v": "Q4_K" if shared else "Q3_K", "ffn_down": "Q3_K", "attn_output": "Q3_K"},
        "q2_k_s": low | {"ffn_down": "Q4_K" if early else base},
        "q3_k_m": {
            "attn_v": "Q5_K" if layer < 2 else "Q4_K",
            "ffn_down": "Q5_K" if layer < layers // 16 else "Q4_K", "attn_output": "Q4_K",
        },
        "q3_k_l": {"attn_v": "Q5_K", "ffn_down": "Q5_K", "attn_output": "Q5_K"},
        "q4_k_s": {"attn_v": "Q5_K" if layer < 4 else base, "ffn_down": "Q5_K" if early else base},
        "q5_k_m": {"attn_v": "Q6_K" if more else base, "ffn_down": "Q6_K" if more else base},
        "iq4_xs": high, "iq4_nl": high, "iq2_xxs": low, "iq2_xs": low,
        "iq3_xxs": {"attn_v": value}, "iq3_s": {"attn_v": value},
    }  # fmt: skip
    return rules.get(recipe, {}).get(tensor.role, base)
