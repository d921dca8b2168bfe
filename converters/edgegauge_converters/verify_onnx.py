"""Verifying ONNX folders in ONNX Runtime.

The graph can be asked for more outputs, so the stream of values after each half block is read.
"""

from __future__ import annotations

import re
import tempfile
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from edgegauge.errors import MissingDependency
from edgegauge.measure.runtimes.onnxruntime import ALL_LOGITS
from edgegauge.recipe import StoredTensor, stored_tensors
from edgegauge.verify import VerificationJob
from edgegauge_converters.onnx_file import node_outputs, with_outputs
from edgegauge_converters.onnx_rows import OnnxWeights
from edgegauge_converters.reference import Weights
from edgegauge_converters.verify import FormatVerifier
from edgegauge_converters.verify_reference import Trace

POINT = re.compile(r"(x\d*(?:\.5)?|embedding)\.\d+")
"""`onnx_graph.py` numbers each value after its name in the blueprint."""


class OnnxVerifier(FormatVerifier):
    """Verifies what `OnnxConverter` wrote."""

    def weights(self, job: VerificationJob) -> Weights:
        """See FormatVerifier."""
        return OnnxWeights(job.path, self.stored(job))

    def stored(self, job: VerificationJob) -> list[StoredTensor]:
        """See FormatVerifier."""
        return stored_tensors(job.spec, job.recipe, "onnx")

    def trace(self, job: VerificationJob, tokens: Sequence[int]) -> Trace:
        """See FormatVerifier."""
        try:
            import onnxruntime
        except ImportError:
            raise MissingDependency("running ONNX files", "onnx") from None
        content = job.path.with_name(ALL_LOGITS).read_bytes()
        points = {m[1]: name for name in node_outputs(content) if (m := POINT.fullmatch(name))}
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = job.threads
        # Beside the weights, which the graph finds by their relative path.
        with tempfile.NamedTemporaryFile(dir=job.path.parent, suffix=".onnx") as probe:
            Path(probe.name).write_bytes(with_outputs(content, list(points.values())))
            providers = ["CPUExecutionProvider"]
            session = onnxruntime.InferenceSession(probe.name, options, providers=providers)
        empty = (1, job.spec.kv_heads, 0, job.spec.head_dim)
        feeds = {
            i.name: np.zeros(empty, np.float32)
            for i in session.get_inputs() if i.name.startswith("past_")
        }  # fmt: skip
        feeds["input_ids"] = np.array([tokens], np.int64)
        feeds["attention_mask"] = np.ones((1, len(tokens)), np.int64)
        *found, logits = (v[0] for v in session.run([*points.values(), "logits"], feeds))
        names = ("x0" if point == "embedding" else point for point in points)
        return Trace(tokens, dict(zip(names, found, strict=True)), logits)
