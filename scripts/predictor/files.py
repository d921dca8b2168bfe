"""Files that others measured: what a token of them asks for, also of models outside the catalog."""

from __future__ import annotations

from functools import lru_cache

from published_quants import stored_published

from edgegauge import catalog
from edgegauge.model import ModelSpec
from edgegauge.recipe import GGUF_RECIPES
from edgegauge.work import Work, work_from, work_of

# id: layers, hidden, intermediate, heads, kv_heads, head_dim, vocab, tied
SHAPES = {
    "llama-2-7b": (32, 4096, 11008, 32, 32, 128, 32000, False),
    "llama-2-13b": (40, 5120, 13824, 40, 40, 128, 32000, False),
    "mistral-7b": (32, 4096, 14336, 32, 8, 128, 32768, False),
    "mistral-nemo": (40, 5120, 14336, 32, 8, 128, 131072, False),
    "qwen3-8b": (36, 4096, 12288, 32, 8, 128, 151936, False),
    "qwen2.5-14b": (48, 5120, 13824, 40, 8, 128, 152064, False),
    "qwen2.5-32b": (64, 5120, 27648, 40, 8, 128, 152064, False),
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
"""Models that appear in the measurements and not in the catalog, by their config.json; all have
gated blocks."""


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
    return work_from(spec, ((stored, 1) for stored in stored_published(spec, recipe)))
