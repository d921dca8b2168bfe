"""Verifying TFLite files in LiteRT.

LiteRT's interpreter can keep the values of all tensors, so the stream of values after each half
block is read token by token and compared with the reference's: the first that departs is the place.
"""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from typing import Any

import numpy as np

from edgegauge.measure.runtimes.litert import HIDDEN
from edgegauge.model import ModelSpec
from edgegauge.recipe import StoredTensor, stored_tensors
from edgegauge.verify import VerificationJob
from edgegauge_converters.reference import Array, Rounding, Weights
from edgegauge_converters.tflite_weights import TfliteWeights
from edgegauge_converters.verify import FormatVerifier
from edgegauge_converters.verify_reference import Expected, first_departure

POSITIONS = 32
"""That the search for the place runs."""


class TfliteVerifier(FormatVerifier):
    """Verifies what `TfliteConverter` wrote."""

    def weights(self, job: VerificationJob) -> Weights:
        """See FormatVerifier."""
        return TfliteWeights(job.path, job.spec)

    def rounding(self, job: VerificationJob, weights: Weights) -> Rounding:
        """XNNPACK reads 8-bit integers, a row with one scale, where the weights are integers."""
        assert isinstance(weights, TfliteWeights)
        return weights.rounded

    def stored(self, job: VerificationJob) -> list[StoredTensor]:
        """See FormatVerifier."""
        return stored_tensors(job.spec, job.recipe, "tflite")

    def departure(self, job: VerificationJob, tokens: Sequence[int], expected: Expected) -> str:
        """See FormatVerifier."""
        return first_departure(_stream(job, tokens[:POSITIONS]), expected)


def _stream(job: VerificationJob, tokens: Sequence[int]) -> dict[str, Array]:
    """Values (tokens, hidden) by point of the stream, from `decode`."""
    from ai_edge_litert.interpreter import Interpreter

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # that it takes memory, which is what is wanted
        interpreter = Interpreter(
            str(job.path), num_threads=job.threads, experimental_preserve_all_tensors=True
        )
    decode = interpreter.get_signature_runner("decode")
    subgraph: int = decode._subgraph_index
    indices = _points(interpreter.get_tensor_details(subgraph), job.spec)
    feeds: dict[str, Any] = {
        name: np.zeros(d["shape"], d["dtype"]) for name, d in decode.get_input_details().items()
    }
    feeds["mask"][:] = HIDDEN
    found: dict[str, list[Array]] = {point: [] for point in indices}
    for position, token in enumerate(tokens):
        feeds["tokens"][:], feeds["input_pos"][:] = token, position
        feeds["mask"][..., position] = 0
        made = decode(**feeds)
        feeds |= {name: value for name, value in made.items() if name in feeds}
        for point, index in indices.items():
            found[point].append(interpreter.get_tensor(index, subgraph)[0, 0].copy())
    return {point: np.array(rows) for point, rows in found.items()}


def _points(tensors: Sequence[dict[str, Any]], spec: ModelSpec) -> dict[str, int]:
    """Tensor numbers by point of the stream, found by what `tflite_graph.py` calls its values."""
    shape = (1, 1, spec.hidden)
    wide = [(t["name"], t["index"]) for t in tensors if tuple(t["shape"]) == shape]
    kinds = {k: [i for name, i in wide if f"_{k}_" in name] for k in ("reshape", "add", "mul")}
    scaled = any("embedding_scale" in t["name"] for t in tensors)
    points = {"x0": kinds["mul" if scaled else "reshape"][0]}
    points |= {f"x{half / 2:g}": index for half, index in enumerate(kinds["add"], 1)}
    return points | {"x": kinds["mul"][-1]}
