"""What is predicted of an artifact under a workload, to compare an emulated verdict with."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace

from edgegauge.artifact import Artifact
from edgegauge.device import DeviceProfile
from edgegauge.emulation import Expected
from edgegauge.errors import EdgeGaugeError
from edgegauge.figure import Figure
from edgegauge.footprint import footprint
from edgegauge.memory_llama_cpp import TOKEN_BYTES, VOCABULARY_BYTES
from edgegauge.model import ModelSpec
from edgegauge.predict import MEMORY_ERROR, Predictor
from edgegauge.recipe import resolve
from edgegauge.result import Workload


def expected(
    artifact: Artifact, workload: Workload, profile: DeviceProfile, here: Iterable[str]
) -> Expected | None:
    """The prediction; None for a file without a manifest, for shapes that are not known, and for
    several sequences. `here` are the instruction sets of this host."""
    manifest = artifact.manifest
    if manifest is None or manifest.spec is None or workload.parallel > 1:
        return None
    try:
        recipe = resolve(manifest.stored_as, artifact.file_format)
        tokens = workload.depth + workload.prompt_tokens
        predictor = Predictor(profile, prompt_tokens=tokens, context=workload.context)
        there = predictor.predict(manifest.spec, recipe, artifact.file_format)
        needs = footprint(
            manifest.spec, recipe, file_format=artifact.file_format, features=here,
            context=workload.context, prompt_tokens=tokens,
        )  # fmt: skip
    except EdgeGaugeError:  # a recipe of others, or more tokens than the model has room for
        return None
    tokenizer = _tokenizer_bytes(artifact, manifest.spec, workload)
    if tokenizer is not None:
        needs = replace(needs, tokenizer_bytes=tokenizer)
    on_device = replace(there.footprint, tokenizer_bytes=needs.tokenizer_bytes)
    return Expected(
        outcome=needs.outcome(profile.app_memory_bytes),
        device_outcome=on_device.outcome(profile.app_memory_bytes),
        needed_bytes=_bytes(needs.needed_bytes),
        anonymous_bytes=_bytes(needs.anonymous_bytes),
        decode_tok_per_s=there.decode_tok_per_s,
        # A prediction reads the prompt from an empty context.
        prefill_tok_per_s=there.prefill_tok_per_s if workload.depth == 0 else None,
        ttft_s=there.ttft_s if workload.depth == 0 else None,
    )


def _tokenizer_bytes(artifact: Artifact, spec: ModelSpec, workload: Workload) -> int | None:
    """What a run holds of a tokenizer where that is not the usual; synthetic files lack merges."""
    if artifact.file_format != "gguf":
        return 0 if workload.prompt is None else None
    synthetic = artifact.manifest is not None and artifact.manifest.origin.synthetic
    return VOCABULARY_BYTES + TOKEN_BYTES * spec.vocab if synthetic else None


def _bytes(value: int) -> Figure:
    low, high = value * (1 - MEMORY_ERROR), value * (1 + MEMORY_ERROR)
    return Figure(float(value), "bytes", "predicted", "edgegauge.footprint", low, high)
