"""Verifying encoders in llama.cpp, which shows the values that its graph names on the way.

The end of a block has no name there, but what its norm has before the bias is added.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import gguf
import numpy as np

from edgegauge.encoder import EncoderSpec
from edgegauge.errors import InputError
from edgegauge.gguf_header import tensor_name
from edgegauge.gguf_reader import read_header
from edgegauge.measure.runtimes.llama_encoder import LlamaEncoder
from edgegauge.measure.runtimes.llama_watch import Watch
from edgegauge.model import Tensor
from edgegauge.verify import EncoderVerificationJob
from edgegauge_converters.encoder_blueprint import EMBEDDING, HIDDEN
from edgegauge_converters.encoder_verify import EncoderFormatVerifier, EncoderRun
from edgegauge_converters.reference import Array, Weights


class GgufEncoderVerifier(EncoderFormatVerifier):
    """Verifies what `GgufEncoderConverter` wrote."""

    # As in `verify_gguf.py`; GELU from a table of half floats makes 0.001 as well.
    floor = 0.02

    def open(self, job: EncoderVerificationJob, length: int) -> EncoderRun:
        """See EncoderFormatVerifier."""
        return _Run(job, length, self.weights(job))

    def weights(self, job: EncoderVerificationJob) -> Weights:
        """See EncoderFormatVerifier."""
        return GgufEncoderWeights(job.path)

    def computed(self, spec: EncoderSpec) -> EncoderSpec:
        """GELU always in its tanh form, and vectors as long as they come."""
        return spec.model_copy(update={"activation": "gelu_tanh", "normalise": False})


class _Run:
    def __init__(self, job: EncoderVerificationJob, length: int, weights: Weights) -> None:
        self._watch = Watch(_watched)
        self._encoder = LlamaEncoder(
            job.path, threads=job.threads, length=length, watch=self._watch
        )
        norms = {t.layer: t for t in job.spec.tensors() if t.role == "layer_output_norm_bias"}
        self._biases = {f"norm-{n}": (f"x{n + 1}", weights(t)) for n, t in norms.items()
                        if n is not None and n < job.spec.layers - 1}  # fmt: skip

    def tokenize(self, text: str) -> list[int]:
        return self._encoder.tokenize(text)

    def encode(self, tokens: Sequence[int]) -> dict[str, Array]:
        self._watch.seen.clear()
        vector = self._encoder.encode(tokens)
        # A block has two norms; the second ends it.
        seen = {name: v[-1].reshape(len(tokens), -1) for name, v in self._watch.seen.items()}
        ends = {point: seen.pop(norm) + bias for norm, (point, bias) in self._biases.items()}
        points = {name: value for name, value in seen.items() if not name.startswith("norm-")}
        return points | ends | {EMBEDDING: vector}

    def close(self) -> None:
        self._encoder.close()


def _watched(name: str) -> str | None:
    """A point of the stream, or a norm before its bias."""
    stem, _, block = name.partition("-")
    if stem == "ffn_inp":
        return f"x{block}.5"
    if stem == "norm_w":
        return f"norm-{block}"
    return {"inp_norm-0": "x0", "result_embd": HIDDEN}.get(name)


class GgufEncoderWeights:
    """Callable from a tensor of the spec to its float32 values; the file stays memory-mapped."""

    def __init__(self, path: Path) -> None:
        self._path = path
        try:
            self._header = read_header(path)
            self._data = np.memmap(path, np.uint8, "r")
        except (OSError, ValueError, InputError) as error:
            raise InputError(f"cannot read {path} as GGUF: {error}") from None

    def __call__(self, tensor: Tensor) -> Array:
        """The values, (rows, cols) or (cols,); InputError if the file has no such tensor."""
        name = tensor_name(tensor)
        stored = self._header.tensors.get(name)
        if stored is None or stored.elements != tensor.elements:
            raise InputError(f"no tensor {name} of {tensor.elements} elements @ {self._path}")
        start = self._header.data_offset + stored.offset
        raw = self._data[start : start + stored.bytes].reshape(tensor.rows, -1)
        values: Array = gguf.quants.dequantize(raw, gguf.GGMLQuantizationType[stored.type])
        return values[0] if tensor.is_vector else values
