"""Verifying encoders in LiteRT, whose interpreter can keep the values of all tensors."""

from __future__ import annotations

import struct
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from ai_edge_litert import schema_py_generated as schema
from ai_edge_litert.interpreter import Interpreter

from edgegauge.encoder import EncoderSpec
from edgegauge.errors import InputError
from edgegauge.gguf_header import tensor_name
from edgegauge.measure.graphs.inputs import tokenizer_beside
from edgegauge.model import Tensor
from edgegauge.verify import EncoderVerificationJob
from edgegauge_converters.blueprint import Linear
from edgegauge_converters.encoder_blueprint import EMBEDDING, LayerNorm, encoder_blueprint
from edgegauge_converters.encoder_verify import EncoderFormatVerifier, EncoderRun
from edgegauge_converters.reference import Array, Weights
from edgegauge_converters.tflite_quantize import decode

TYPES = {
    schema.TensorType.FLOAT32: "F32",
    schema.TensorType.INT8: "INT8",
    schema.TensorType.INT4: "INT4",
}


class TfliteEncoderVerifier(EncoderFormatVerifier):
    """Verifies what `TfliteEncoderConverter` wrote."""

    def open(self, job: EncoderVerificationJob, length: int) -> EncoderRun:
        """See EncoderFormatVerifier."""
        return _Run(job)

    def weights(self, job: EncoderVerificationJob) -> Weights:
        """See EncoderFormatVerifier."""
        return TfliteEncoderWeights(job.path, job.spec)


class _Run:
    """The file as it is, for vectors, and one that keeps the values on the way."""

    def __init__(self, job: EncoderVerificationJob) -> None:
        self._tokenizer = tokenizer_beside(job.path) if job.folder is not None else None
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # that keeping takes memory, which is what is wanted
            self._plain, self._keeping = (
                Interpreter(
                    str(job.path), num_threads=job.threads, experimental_preserve_all_tensors=keep
                )
                for keep in (False, True)
            )
        norms = {o.output for o in encoder_blueprint(job.spec) if isinstance(o, LayerNorm)}
        details = self._keeping.get_tensor_details()
        self._points = {d["name"]: d["index"] for d in details if d["name"] in norms}

    def tokenize(self, text: str) -> list[int]:
        assert self._tokenizer is not None
        ids: list[int] = self._tokenizer.encode(text).ids
        return ids

    def encode(self, tokens: Sequence[int]) -> dict[str, Array]:
        for interpreter in (self._plain, self._keeping):
            inputs = interpreter.get_input_details()
            for each in inputs:
                interpreter.resize_tensor_input(each["index"], [1, len(tokens)])
            interpreter.allocate_tensors()
            values = {"input_ids": tokens, "attention_mask": [1] * len(tokens)}
            for each in inputs:
                given = values.get(each["name"], [0] * len(tokens))
                interpreter.set_tensor(each["index"], np.array([given], np.int32))
            interpreter.invoke()
        keep = self._keeping
        found = {p: keep.get_tensor(i).reshape(len(tokens), -1) for p, i in self._points.items()}
        outputs = {d["name"]: d["index"] for d in self._plain.get_output_details()}
        return found | {EMBEDDING: self._plain.get_tensor(outputs[EMBEDDING]).reshape(-1)}

    def close(self) -> None:
        del self._plain, self._keeping


class TfliteEncoderWeights:
    """Callable from a tensor of the spec to its float32 values; the file stays memory-mapped.

    A bias was divided by the scales that its product is multiplied with, as
    `encoder_tflite_graph.py` says.
    """

    def __init__(self, path: Path, spec: EncoderSpec) -> None:
        self._path = path
        try:
            self._data = np.memmap(path, np.uint8, "r")
            self._model = schema.Model.GetRootAs(self._data, 0)
            graph = self._model.Subgraphs(0)
            tensors = (graph.Tensors(i) for i in range(graph.TensorsLength()))
            self._tensors = {tensor.Name().decode(): tensor for tensor in tensors}
        except (OSError, ValueError, IndexError, TypeError, struct.error) as error:
            raise InputError(f"cannot read {path} as a TFLite encoder: {error}") from None
        linears = (o for o in encoder_blueprint(spec) if isinstance(o, Linear))
        self._owners = {o.bias: o.weight for o in linears}

    def __call__(self, tensor: Tensor) -> Array:
        """The values, (rows, cols) or (cols,); InputError if the file has no such tensor."""
        if not tensor.is_vector:
            return self._matrix(tensor)
        values: Array = self._values(tensor_name(tensor)).view("<f4")
        owner = self._owners.get(tensor)
        scales = None if owner is None else self._scales(owner)
        return values * scales if scales is not None and scales.ndim == 1 else values

    def _matrix(self, tensor: Tensor) -> Array:
        name = tensor_name(tensor)
        packed = self._values(name).reshape(tensor.rows, -1)
        kind, scales = TYPES[self._tensors[name].Type()], self._scales(tensor)
        if scales is not None and scales.ndim == 2:
            kind = f"{kind}/{tensor.cols // scales.shape[1]}"
        made: Array = decode(packed, scales, kind)
        return made

    def _scales(self, tensor: Tensor) -> Array | None:
        """A float32 scale for each row, or float16 ones for its blocks; None in a plain tensor."""
        found = self._tensors.get(f"{tensor_name(tensor)}.scales")
        if found is None:
            return None
        half = found.Type() == schema.TensorType.FLOAT16
        values: Array = self._buffer(found).view("<f2" if half else "<f4")
        return values.reshape(tensor.rows, -1) if half else values

    def _values(self, name: str) -> Any:
        if name not in self._tensors:
            raise InputError(f"no tensor {name} @ {self._path}")
        return self._buffer(self._tensors[name])

    def _buffer(self, tensor: Any) -> Any:
        buffer = self._model.Buffers(tensor.Buffer())
        if buffer.Size():
            return self._data[buffer.Offset() : buffer.Offset() + buffer.Size()]
        return buffer.DataAsNumpy()
