"""Verifying TFLite files in LiteRT.

LiteRT's interpreter can keep the values of all tensors, so the stream of values after each half
block is read, token by token.
"""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from typing import Any

import numpy as np
from ai_edge_litert.interpreter import Interpreter

from edgegauge.measure.runtimes.tflite_session import HIDDEN
from edgegauge.model import ModelSpec
from edgegauge.recipe import StoredTensor, stored_tensors
from edgegauge.verify import VerificationJob
from edgegauge_converters.reference import Array, Weights
from edgegauge_converters.tflite_weights import TfliteWeights
from edgegauge_converters.verify import FormatVerifier
from edgegauge_converters.verify_reference import Trace

TRACED = 32
"""Positions that are computed part by part, since token by token is slow."""


class TfliteVerifier(FormatVerifier):
    """Verifies what `TfliteConverter` wrote."""

    def weights(self, job: VerificationJob) -> Weights:
        """See FormatVerifier."""
        return TfliteWeights(job.path, job.spec)

    def stored(self, job: VerificationJob) -> list[StoredTensor]:
        """See FormatVerifier."""
        return stored_tensors(job.spec, job.recipe, "tflite")

    def trace(self, job: VerificationJob, tokens: Sequence[int]) -> Trace:
        """See FormatVerifier; from the graphs of `decode`."""
        tokens = tokens[:TRACED]
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # that it takes memory, which is what is wanted
            interpreter = Interpreter(
                str(job.path), num_threads=job.threads, experimental_preserve_all_tensors=True
            )
        decode = interpreter.get_signature_runner("decode")
        weights = TfliteWeights(job.path, job.spec)
        graphs = [weights.step_graph(position) for position in range(len(tokens))]
        points = {n: _points(interpreter.get_tensor_details(n), job.spec) for n in set(graphs)}
        feeds: dict[str, Any] = {
            name: np.zeros(d["shape"], d["dtype"]) for name, d in decode.get_input_details().items()
        }
        feeds["mask"][:] = HIDDEN
        stream: dict[str, list[Array]] = {point: [] for point in points[graphs[0]]}
        logits = []
        for position, token in enumerate(tokens):
            feeds["tokens"][:], feeds["input_pos"][:] = token, position
            feeds["mask"][..., position] = 0
            made = decode(**feeds)
            feeds |= {name: value for name, value in made.items() if name in feeds}
            logits.append(made["logits"].reshape(-1).copy())
            graph = graphs[position]
            for point, index in points[graph].items():
                stream[point].append(interpreter.get_tensor(index, graph)[0, 0].copy())
        return Trace(tokens, {p: np.array(rows) for p, rows in stream.items()}, np.array(logits))


def _points(tensors: Sequence[dict[str, Any]], spec: ModelSpec) -> dict[str, int]:
    """Tensor numbers by point of the stream, found by what `tflite_graph.py` calls its values."""
    shape = (1, 1, spec.hidden)
    wide = [(t["name"], t["index"]) for t in tensors if tuple(t["shape"]) == shape]
    kinds = {k: [i for name, i in wide if f"_{k}_" in name] for k in ("reshape", "add", "mul")}
    scaled = any("embedding_scale" in t["name"] for t in tensors)
    points = {"x0": kinds["mul" if scaled else "reshape"][0]}
    points |= {f"x{half / 2:g}": index for half, index in enumerate(kinds["add"], 1)}
    return points | {"x": kinds["mul"][-1]}
