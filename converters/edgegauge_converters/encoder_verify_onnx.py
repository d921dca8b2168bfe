"""Verifying encoders in ONNX Runtime, whose graphs can be asked for the values on the way."""

from __future__ import annotations

import re
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from edgegauge.measure.graphs.inputs import tokenizer_beside
from edgegauge.measure.runtimes.onnx_library import library
from edgegauge.verify import EncoderVerificationJob
from edgegauge_converters.encoder_blueprint import EMBEDDING, HIDDEN
from edgegauge_converters.encoder_recipe import stored_tensors
from edgegauge_converters.encoder_verify import EncoderFormatVerifier, EncoderRun
from edgegauge_converters.onnx_file import node_outputs, with_outputs
from edgegauge_converters.onnx_rows import OnnxWeights
from edgegauge_converters.reference import Array, Weights

POINT = re.compile(r"x\d+(\.5)?")
"""What `encoder_graph.py` calls the values of the stream."""


class OnnxEncoderVerifier(EncoderFormatVerifier):
    """Verifies what `OnnxEncoderConverter` wrote."""

    def open(self, job: EncoderVerificationJob, length: int) -> EncoderRun:
        """See EncoderFormatVerifier."""
        return _Run(job)

    def weights(self, job: EncoderVerificationJob) -> Weights:
        """See EncoderFormatVerifier."""
        return OnnxWeights(job.path, stored_tensors(job.spec, job.recipe, "onnx"))


class _Run:
    """The graph as it is, for vectors, and one with more outputs, for the values on the way."""

    def __init__(self, job: EncoderVerificationJob) -> None:
        onnxruntime = library()
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = job.threads
        self._tokenizer = tokenizer_beside(job.path) if job.folder is not None else None
        content = job.path.read_bytes()
        self._points = [name for name in node_outputs(content) if POINT.fullmatch(name)]

        def session(path: str) -> object:
            return onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])

        self._session: Any = session(str(job.path))
        # Beside the weights, which the graph finds by their relative path.
        with tempfile.NamedTemporaryFile(dir=job.path.parent, suffix=".onnx") as probe:
            Path(probe.name).write_bytes(with_outputs(content, self._points))
            self._probe: Any = session(probe.name)

    def tokenize(self, text: str) -> list[int]:
        assert self._tokenizer is not None
        ids: list[int] = self._tokenizer.encode(text).ids
        return ids

    def encode(self, tokens: Sequence[int]) -> dict[str, Array]:
        ids = np.array([tokens], np.int64)
        feeds = {"input_ids": ids, "attention_mask": np.ones_like(ids)}
        if any(i.name == "token_type_ids" for i in self._session.get_inputs()):
            feeds["token_type_ids"] = np.zeros_like(ids)
        (vectors,) = self._session.run([EMBEDDING], feeds)
        names = [*self._points, HIDDEN]
        found = dict(zip(names, self._probe.run(names, feeds), strict=True))
        return {name: value[0] for name, value in found.items()} | {EMBEDDING: vectors[0]}

    def close(self) -> None:
        del self._session, self._probe
