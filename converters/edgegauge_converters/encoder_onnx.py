"""Encoders to ONNX: a checkpoint, or nothing but a spec, to a graph that ONNX Runtime executes.

    OnnxEncoderConverter().convert(job, progress)

writes `<model>-<recipe>-onnx/` with `<model>-<recipe>.onnx`, its weights in
`<model>-<recipe>.onnx.data`, and the model's tokenizer files. Tensors are read, quantised and
written a slice at a time by a few threads, so memory does not grow with the model.
"""

from __future__ import annotations

from contextlib import ExitStack
from functools import partial
from pathlib import Path
from typing import Protocol

from edgegauge import __version__
from edgegauge.artifact import Artifact, ArtifactFile, manifest_path
from edgegauge.convert import Progress
from edgegauge.convert_encoder import EncoderJob
from edgegauge.document import atomic_write
from edgegauge.errors import MissingDependency
from edgegauge.model import Tensor
from edgegauge.recipe import StoredTensor, resolve

try:
    import numpy as np

    from edgegauge.gguf_header import tensor_name
    from edgegauge_converters.encoder_graph import lower
    from edgegauge_converters.encoder_recipe import stored_tensors, tensor_bytes
    from edgegauge_converters.encoder_weights import EncoderCheckpoint, SyntheticEncoder
    from edgegauge_converters.manifest import copy_tokenizer, file_of, finish, main_path
    from edgegauge_converters.onnx_file import encode as encode_graph
    from edgegauge_converters.onnx_layout import Layout, plan
    from edgegauge_converters.onnx_rows import Encoded, encode
    from edgegauge_converters.onnx_weights import write_weights
    from edgegauge_converters.quantize import check_finite
    from edgegauge_converters.temporary_file import writing
    from edgegauge_converters.weights import Floats
    from edgegauge_converters.wordpiece import read_wordpiece
    from edgegauge_converters.workers import available_threads
except ImportError as error:
    raise MissingDependency("converting to ONNX", "onnx") from error

TOOLS = ("numpy", "onnxruntime", "tokenizers")


class EncoderRows(Protocol):
    """Where weights come from; called from several threads."""

    def rows(self, tensor: Tensor, start: int, stop: int) -> Floats:
        """Rows of a tensor in float32, (rows, cols); a vector is one row."""


class OnnxEncoderConverter:
    """Writes the folder of an ONNX artifact and its manifest."""

    def convert(self, job: EncoderJob, progress: Progress) -> Artifact:
        """Write the artifact; InputError for bad input, ConversionError if it cannot be written."""
        recipe = resolve(job.recipe, "onnx")
        stored = stored_tensors(job.spec, recipe, "onnx")
        layout = plan(stored)
        final = main_path(job, recipe, "onnx")
        data = final.with_name(final.name + ".data")
        with ExitStack() as stack:
            progress(0.0, "reading the model")
            source: EncoderRows = SyntheticEncoder(job.spec)
            if job.folder is not None:
                read_wordpiece(job.folder, job.spec.vocab)  # it fits, or nothing is written
                source = stack.enter_context(EncoderCheckpoint(job.folder, job.spec))
            file = stack.enter_context(writing(data, layout.bytes))
            rows, threads = partial(_encoded, source), job.threads or available_threads()
            write_weights(file, layout, rows, threads, progress)
            # The manifest of an older artifact must not stand beside the new one.
            manifest_path(final).unlink(missing_ok=True)
        weights = ArtifactFile(name=data.name, bytes=file.bytes, sha256=file.sha256())
        files = [_write_graph(final, job, layout, weights), weights]
        files += copy_tokenizer(job.folder, final)
        return finish(final, job, recipe, tensor_bytes(stored), files, tools=TOOLS)


def _write_graph(
    final: Path, job: EncoderJob, layout: Layout, weights: ArtifactFile
) -> ArtifactFile:
    """The graph names the hash of its weights, so its own hash stands for both."""
    metadata = {"edgegauge.model": job.spec.id, "edgegauge.weights_sha256": weights.sha256}
    graph = lower(job.spec, layout)
    with atomic_write(final) as stream:
        stream.write(encode_graph(graph, weights.name, metadata, f"edgegauge {__version__}"))
    return file_of(final)


def _encoded(
    source: EncoderRows, stored: StoredTensor, index: int, start: int, stop: int
) -> Encoded:
    """Rows in their stored type; ConversionError where a value is not finite."""
    values = np.ascontiguousarray(source.rows(stored.tensor, start, stop))
    check_finite(values, tensor_name(stored.tensor))
    return encode(values, stored.type)
