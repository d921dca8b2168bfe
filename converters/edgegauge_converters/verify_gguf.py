"""Verifying GGUF files in llama.cpp.

llama.cpp does not give the values inside. So the first place that departs is found from outside:
the file is written again with only its first n blocks, n found by bisection, and llama.cpp's logits
are compared with the reference's of the same n blocks. Then one half of the first wrong block is
silenced (its last matrix zeroed), which tells whether the attention or the feed-forward part is
wrong. Fields of the header that differ from the model's are named as well.
"""

from __future__ import annotations

import tempfile
from collections.abc import Collection, Sequence
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Any

import gguf
import numpy as np

from edgegauge.errors import EdgeGaugeError
from edgegauge.gguf_header import spec_from_gguf
from edgegauge.measure.runtimes.llama_cpp import LlamaCppRuntime
from edgegauge.model import ModelSpec, Tensor
from edgegauge.recipe import BASE_TYPES, StoredTensor, stored_tensors
from edgegauge.verify import VerificationJob
from edgegauge_converters.plain_weights import GgufWeights
from edgegauge_converters.reference import Array, Reference, Rounding, Weights
from edgegauge_converters.rounding import rounded
from edgegauge_converters.verify import FormatVerifier
from edgegauge_converters.verify_reference import Expected, allowed

POSITIONS = 64
"""Of each of the runs that search for the place."""


class GgufVerifier(FormatVerifier):
    """Verifies what `GgufConverter` wrote."""

    # On some ARM processors ggml adds up products of half precision in half precision, which the
    # reference does not; faults move logits by ten times this.
    floor = 0.02

    def weights(self, job: VerificationJob) -> Weights:
        """See FormatVerifier."""
        return GgufWeights(job.path, job.spec)

    def rounding(self, job: VerificationJob, weights: Weights) -> Rounding:
        """llama.cpp multiplies k-quants with blocks of 256 integers, others with blocks of 32."""
        base = BASE_TYPES[job.recipe]
        if base in ("F32", "F16"):
            return rounded("half")
        return rounded("half+int8/256" if base.endswith("_K") else "half+int8/32")

    def stored(self, job: VerificationJob) -> list[StoredTensor]:
        """The tensors of the spec: each shared block as its first execution has it."""
        repeats = job.spec.layer_repeats
        return [
            replace(s, tensor=replace(s.tensor, layer=layer and layer // repeats))
            for s in stored_tensors(job.spec, job.recipe, "gguf")
            if not (layer := s.tensor.layer) or layer % repeats == 0
        ]

    def departure(self, job: VerificationJob, tokens: Sequence[int], expected: Expected) -> str:
        """See FormatVerifier."""
        with tempfile.TemporaryDirectory(prefix="edgegauge-", dir=job.path.parent) as folder:
            place = _Search(self, job, tokens[:POSITIONS], Path(folder) / "part.gguf").place()
        return "; ".join([place, *_header_differences(job)])


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


class _Search:
    """Runs the first blocks of a file, with some tensors silenced, against the reference."""

    def __init__(
        self, verifier: GgufVerifier, job: VerificationJob, tokens: Sequence[int], part: Path
    ) -> None:
        self._job, self._tokens, self._part = job, tokens, part
        self._weights = verifier.weights(job)
        self._rounding = verifier.rounding(job, self._weights)
        self._reader: Any = gguf.GGUFReader(job.path)

    def place(self) -> str:
        """The first place that departs, in words."""
        last = self._job.spec.executed_layers
        if not self._departs(last):
            return "not one of the first tokens: every block computes them as it should"
        if self._departs(1, ("attn_output", "ffn_down")):
            return "the embedding, the last norm or the head"
        right, wrong = 0, last
        while wrong - right > 1:
            middle = (right + wrong) // 2
            right, wrong = (right, middle) if self._departs(middle) else (middle, wrong)
        for role, name in (("ffn_down", "attention"), ("attn_output", "feed-forward part")):
            if self._departs(wrong, (role,)):
                return f"the {name} of block {wrong - 1}"
        return f"block {wrong - 1}"

    def _departs(self, blocks: int, silent: Collection[str] = ()) -> bool:
        """Whether the logits of the first blocks are wrong; the last has `silent` roles zeroed."""
        zeroed = [f"blk.{blocks - 1}.{role}.weight" for role in silent]
        write_part(self._reader, self._part, blocks, zeroed)
        threads, context = self._job.threads, len(self._tokens)
        runtime = LlamaCppRuntime()
        with closing(runtime.open(self._part, threads=threads, context=context)) as session:
            computed = np.stack(list(session.logits(self._tokens)))
        reference = self._reference(blocks, silent)
        exact, rough = (self._logits(reference, r) for r in (None, self._rounding))
        scale = exact.std()
        error, noise = (np.sqrt(np.mean(np.square(x - exact))) / scale for x in (computed, rough))
        return not error <= allowed(float(noise), GgufVerifier.floor)

    def _logits(self, reference: Reference, rounding: Any) -> Array:
        *_, (_, hidden) = reference.values(self._tokens, rounding)
        return np.stack(list(reference.head(hidden, rounding)))

    def _reference(self, blocks: int, silent: Collection[str]) -> Reference:
        spec = self._job.spec

        def weights(tensor: Tensor) -> Array:
            if tensor.layer is None:
                return self._weights(tensor)
            value = self._weights(replace(tensor, layer=tensor.layer // spec.layer_repeats))
            last = tensor.layer == blocks - 1
            return np.zeros_like(value) if last and tensor.role in silent else value

        return Reference(_first_blocks(spec, blocks), weights)


def _first_blocks(spec: ModelSpec, blocks: int) -> ModelSpec:
    return spec.model_copy(update={"layers": blocks, "layer_repeats": 1})


def write_part(reader: Any, path: Path, blocks: int, zeroed: Collection[str]) -> None:
    """Write a GGUF file again with its first blocks alone; `zeroed` tensors are all zeros.

    Zero bytes are zeros in every type, since they make the scales zero.
    """
    architecture = reader.get_field("general.architecture").contents()
    writer = gguf.GGUFWriter(path, architecture)
    for field in reader.fields.values():
        if field.name == "general.architecture" or field.name.startswith("GGUF."):
            continue
        value = blocks if field.name == f"{architecture}.block_count" else field.contents()
        kinds = field.types
        writer.add_key_value(field.name, value, kinds[0], kinds[-1] if len(kinds) > 1 else None)
    kept = [t for t in reader.tensors if _block_of(t.name) < blocks]
    for tensor in kept:
        data = tensor.data
        writer.add_tensor_info(tensor.name, data.shape, data.dtype, data.nbytes, tensor.tensor_type)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_ti_data_to_file()
    for tensor in kept:
        zero = tensor.name in zeroed
        writer.write_tensor_data(np.zeros_like(tensor.data) if zero else tensor.data)
    writer.close()


def _block_of(name: str) -> int:
    """The block that a tensor of this name is in; -1 outside."""
    parts = name.split(".")
    return int(parts[1]) if parts[0] == "blk" else -1
