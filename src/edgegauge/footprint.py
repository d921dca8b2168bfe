"""Footprint: how much memory a candidate takes in its runtime, and of which kind.

    needs = footprint(spec, "q4_0", features=["avx2"], context=512, prompt_tokens=128)
    needs.peak_bytes                     # resident memory at its highest
    needs.outcome(profile.app_memory_bytes)

A candidate's tensors are looked at once; what a context and a prompt add is arithmetic. Each
runtime has rules of its own: `memory_llama_cpp.py`, `memory_onnxruntime.py`, `memory_litert.py`.
"""

from __future__ import annotations

from collections.abc import Iterable
from functools import lru_cache

from edgegauge.memory import UBATCH, Footprint, Outcome
from edgegauge.memory_litert import LiteRtMemory
from edgegauge.memory_llama_cpp import InstructionSet, LlamaCppMemory, instruction_set
from edgegauge.memory_onnxruntime import OnnxRuntimeMemory
from edgegauge.model import ModelSpec
from edgegauge.recipe import Recipe, inventory

__all__ = ["UBATCH", "Footprint", "InstructionSet", "Outcome", "footprint", "isa_of", "memory_of"]


def footprint(
    spec: ModelSpec,
    recipe: Recipe,
    *,
    file_format: str = "gguf",
    features: Iterable[str],
    context: int,
    prompt_tokens: int,
    ubatch: int = UBATCH,
) -> Footprint:
    """The footprint of a candidate on a processor with these instruction-set features.

    `context` is the room asked for and `prompt_tokens` the longest prompt, both in tokens; `ubatch`
    the tokens of it that are computed at once. Raises InputError for a recipe or format that there
    is not.
    """
    memory = memory_of(spec, recipe, file_format, isa_of(features, file_format))
    return memory.footprint(context, prompt_tokens, ubatch)


def isa_of(features: Iterable[str], file_format: str) -> InstructionSet:
    """What of a processor decides memory: only llama.cpp copies weights for its kernels."""
    return instruction_set(features) if file_format == "gguf" else "plain"


@lru_cache(maxsize=8192)
def memory_of(
    spec: ModelSpec, recipe: Recipe, file_format: str, isa: InstructionSet
) -> LlamaCppMemory | OnnxRuntimeMemory | LiteRtMemory:
    """The parts that a candidate's tensors decide, ready for any context; InputError as above."""
    stored = inventory(spec, recipe, file_format)
    if file_format == "gguf":
        return LlamaCppMemory(spec, stored, isa)
    return (OnnxRuntimeMemory if file_format == "onnx" else LiteRtMemory)(spec, stored)
