"""Verifying ONNX folders in ONNX Runtime.

The graph can be asked for more outputs, so the stream of values after each half block is read and
compared with the reference's: the first that departs is the place.
"""

from __future__ import annotations

import re
import tempfile
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from edgegauge.block_recipe import block_type
from edgegauge.errors import MissingDependency
from edgegauge.measure.runtimes.onnxruntime import ALL_LOGITS
from edgegauge.recipe import StoredTensor, stored_tensors
from edgegauge.verify import VerificationJob
from edgegauge_converters.onnx_file import node_outputs, with_outputs
from edgegauge_converters.onnx_rows import OnnxWeights
from edgegauge_converters.reference import Array, Rounding, Weights
from edgegauge_converters.rounding import rounded
from edgegauge_converters.verify import FormatVerifier
from edgegauge_converters.verify_reference import Expected, first_departure

POSITIONS = 64
"""That the search for the place runs."""
POINT = re.compile(r"(x\d*(?:\.5)?|embedding)\.\d+")
"""`onnx_graph.py` numbers each value after its name in the blueprint."""


class OnnxVerifier(FormatVerifier):
    """Verifies what `OnnxConverter` wrote."""

    def weights(self, job: VerificationJob) -> Weights:
        """See FormatVerifier."""
        return OnnxWeights(job.path, job.spec, self.stored(job))

    def rounding(self, job: VerificationJob, weights: Weights) -> Rounding:
        """MatMulNBits reads 8-bit integers in the blocks of the weights."""
        blocks = {b.block for s in self.stored(job) if (b := block_type(s.type)) is not None}
        return rounded(f"int8/{max(blocks)}" if blocks else "exact")

    def stored(self, job: VerificationJob) -> list[StoredTensor]:
        """See FormatVerifier."""
        return stored_tensors(job.spec, job.recipe, "onnx")

    def departure(self, job: VerificationJob, tokens: Sequence[int], expected: Expected) -> str:
        """See FormatVerifier."""
        return first_departure(_stream(job, tokens[:POSITIONS]), expected)


def _stream(job: VerificationJob, tokens: Sequence[int]) -> dict[str, Array]:
    """Values (tokens, hidden) by point of the stream."""
    try:
        import onnxruntime
    except ImportError:
        raise MissingDependency("running ONNX files", "onnx") from None
    content = job.path.with_name(ALL_LOGITS).read_bytes()
    points = {m[1]: name for name in node_outputs(content) if (m := POINT.fullmatch(name))}
    # Beside the weights, which the graph finds by their relative path.
    with tempfile.NamedTemporaryFile(dir=job.path.parent, suffix=".onnx") as probe:
        Path(probe.name).write_bytes(with_outputs(content, list(points.values())))
        session = onnxruntime.InferenceSession(probe.name, providers=["CPUExecutionProvider"])
    empty = (1, job.spec.kv_heads, 0, job.spec.head_dim)
    feeds = {
        i.name: np.zeros(empty, np.float32)
        for i in session.get_inputs() if i.name.startswith("past_")
    }  # fmt: skip
    feeds["input_ids"] = np.array([tokens], np.int64)
    feeds["attention_mask"] = np.ones((1, len(tokens)), np.int64)
    found = session.run(list(points.values()), feeds)
    names = ("x0" if point == "embedding" else point for point in points)
    return {name: value[0] for name, value in zip(names, found, strict=True)}
