"""Verifying GGUF files in llama.cpp, which shows the values that its graph names on the way.

Fields of the header that differ from the model's are named as well.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import closing
from dataclasses import replace
from functools import partial

import numpy as np

from edgegauge.errors import EdgeGaugeError
from edgegauge.gguf_header import spec_from_gguf
from edgegauge.measure.runtimes.llama_cpp import LlamaCppRuntime
from edgegauge.measure.runtimes.llama_watch import Watch
from edgegauge.recipe import StoredTensor, stored_tensors
from edgegauge.verify import VerificationJob
from edgegauge_converters.plain_weights import GgufWeights
from edgegauge_converters.reference import Weights
from edgegauge_converters.verify import FormatVerifier
from edgegauge_converters.verify_reference import Trace


class GgufVerifier(FormatVerifier):
    """Verifies what `GgufConverter` wrote."""

    # On some ARM processors ggml adds up products of half precision in half precision, which the
    # reference does not; faults move logits by ten times this.
    floor = 0.02

    def weights(self, job: VerificationJob) -> Weights:
        """See FormatVerifier."""
        return GgufWeights(job.path, job.spec)

    def stored(self, job: VerificationJob) -> list[StoredTensor]:
        """The tensors of the spec: each shared block as its first execution has it."""
        repeats = job.spec.layer_repeats
        return [
            replace(s, tensor=replace(s.tensor, layer=layer and layer // repeats))
            for s in stored_tensors(job.spec, job.recipe, "gguf")
            if not (layer := s.tensor.layer) or layer % repeats == 0
        ]

    def trace(self, job: VerificationJob, tokens: Sequence[int]) -> Trace:
        """See FormatVerifier."""
        watch = Watch(partial(point_of, scaled=job.spec.scales_embedding))
        runtime = LlamaCppRuntime(watch)
        with closing(runtime.open(job.path, threads=job.threads, context=len(tokens))) as session:
            watch.seen.clear()  # opening warms up
            logits = np.stack(list(session.logits(tokens)))
        stream = {p: np.concatenate(v).reshape(len(tokens), -1) for p, v in watch.seen.items()}
        return Trace(tokens, stream, logits)

    def also(self, job: VerificationJob) -> list[str]:
        """See FormatVerifier."""
        return _header_differences(job)


def point_of(name: str, scaled: bool) -> str | None:
    """The point of the stream that llama.cpp calls by this name, if it is one."""
    stem, _, block = name.partition("-")
    if stem == ("inp_scaled" if scaled else "embd"):
        return "x0"
    if stem in ("ffn_inp", "sa_out"):
        return f"x{block}.5"
    if stem == "l_out":
        return f"x{int(block) + 1}"
    return "x" if stem == "result_norm" else None


def _header_differences(job: VerificationJob) -> list[str]:
    """What the file says of the model that is not so."""
    try:
        said = spec_from_gguf(job.path).model_dump()
    except EdgeGaugeError as error:
        return [f"the header is unreadable: {error}"]
    meant = job.spec.model_dump()
    unlike = ("id", "layers", "layer_repeats")
    return [
        f"the header says {key} = {said[key]}, the model {value}"
        for key, value in meant.items()
        if key not in unlike and said[key] != value
    ]
