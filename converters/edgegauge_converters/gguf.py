"""The GGUF converter: a checkpoint, or nothing but a spec, to a file that llama.cpp runs.

    GgufConverter().convert(job, progress)

Tensors are read, encoded and written a slice at a time by a few threads, so memory does not grow
with the model. The spec decides every tensor's type and size (`edgegauge.recipe`), before any
weight is read.
"""

from __future__ import annotations

from contextlib import ExitStack
from functools import partial
from typing import Any, Protocol

from edgegauge.artifact import Artifact, ArtifactFile
from edgegauge.convert import ConversionJob, Progress
from edgegauge.errors import MissingDependency
from edgegauge.model import ModelSpec
from edgegauge.recipe import (
    Recipe,
    StoredTensor,
    resolve,
    stored_tensors,
    tensor_bytes,
    width_warning,
)

try:
    from gguf import GGUFWriter

    from edgegauge_converters import tokenizer
    from edgegauge_converters.gguf_file import (
        add_tensors,
        padded_bytes,
        write_header,
        write_tensors,
    )
    from edgegauge_converters.gguf_metadata import add_metadata, check_spec
    from edgegauge_converters.gguf_rows import CheckpointRows, SyntheticRows, row_step
    from edgegauge_converters.manifest import finish, main_path
    from edgegauge_converters.quantize import Bytes, encoder
    from edgegauge_converters.temporary_file import writing
    from edgegauge_converters.weights import Checkpoint
    from edgegauge_converters.workers import available_threads
except ImportError as error:
    raise MissingDependency("converting to GGUF", "gguf") from error

TOOLS = ("gguf", "numpy", "llama-cpp-python", "tokenizers")


class RowSource(Protocol):
    """Where encoded rows come from; called from several threads."""

    def rows(self, stored: StoredTensor, index: int, start: int, stop: int) -> Bytes:
        """Rows `start` to `stop` of tensor number `index`, uint8 (rows, bytes of a row)."""


class GgufConverter:
    """Writes `<model id>-<recipe>.gguf` and its manifest."""

    def convert(self, job: ConversionJob, progress: Progress) -> Artifact:
        """Write the artifact; InputError for bad input, ConversionError if it cannot be written."""
        recipe = resolve(job.recipe, "gguf")
        spec = job.spec
        check_spec(spec)
        stored = stored_tensors(spec, recipe)
        final = main_path(job, recipe, "gguf")
        with ExitStack() as stack:
            progress(0.0, "reading the model")
            source: RowSource
            if job.folder is None:
                source = SyntheticRows(spec)
            else:
                weights = stack.enter_context(Checkpoint(job.folder, spec))
                source = CheckpointRows(weights, spec, encoder())
            writer, warnings = _header(job, spec, recipe, stored)
            file = stack.enter_context(writing(final, padded_bytes(stored)))
            write_header(writer, file)
            del writer  # its vocabulary is as large as a small model
            threads = job.threads or available_threads()
            write_tensors(file, stored, source.rows, threads, progress, partial(row_step, spec))
            written = ArtifactFile(name=final.name, bytes=file.bytes, sha256=file.sha256())
        size = tensor_bytes(spec, recipe)
        return finish(final, job, recipe, size, [written], tools=TOOLS, warnings=warnings)


def _header(
    job: ConversionJob, spec: ModelSpec, recipe: Recipe, stored: list[StoredTensor]
) -> tuple[Any, list[str]]:
    """A writer that knows everything but the tensor data, and what the user should know."""
    if job.folder is None:
        vocabulary = tokenizer.synthetic(spec)
    else:
        vocabulary = tokenizer.read_tokenizer(job.folder, spec)
    writer = GGUFWriter(None, spec.family)
    add_metadata(writer, spec, recipe)
    tokenizer.add_to_gguf(writer, vocabulary)
    add_tensors(writer, stored)
    wide = width_warning(spec, recipe)
    return writer, [*vocabulary.warnings, *([wide] if wide else [])]
