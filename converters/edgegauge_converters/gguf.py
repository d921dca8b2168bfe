"""The GGUF converter: a checkpoint, or nothing but a spec, to a file that llama.cpp runs.

    GgufConverter().convert(job, progress)

Tensors are read, encoded and written a slice at a time by a few threads, so memory does not grow
with the model. The spec decides every tensor's type and size (`edgegauge.recipe`), before any
weight is read.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any, Protocol

from edgegauge.artifact import Artifact, ArtifactFile, Manifest, manifest_path
from edgegauge.convert import ConversionJob, Progress
from edgegauge.document import write_json
from edgegauge.errors import MissingDependency
from edgegauge.model import ModelSpec
from edgegauge.recipe import (
    Recipe,
    StoredTensor,
    effective_bits,
    resolve,
    stored_tensors,
    tensor_bytes,
    width_warning,
)
from edgegauge.recipe_file import RecipeFile

try:
    import numpy as np
    from gguf import GGMLQuantizationType, GGUFWriter

    from edgegauge.gguf_header import tensor_name
    from edgegauge_converters import tokenizer
    from edgegauge_converters.gguf_metadata import add_metadata, check_spec
    from edgegauge_converters.gguf_rows import CheckpointRows, SyntheticRows, row_step
    from edgegauge_converters.manifest import file_stem, tool_versions
    from edgegauge_converters.quantize import Bytes, encoder
    from edgegauge_converters.temporary_file import HashedFile, writing
    from edgegauge_converters.weights import Checkpoint, row_slices
    from edgegauge_converters.workers import available_threads, in_order
except ImportError as error:
    raise MissingDependency("converting to GGUF", "gguf") from error

ALIGNMENT = 32
"""Tensor data begins at multiples of this (GGUF's default)."""

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
        final = job.output / f"{file_stem(spec.id)}-{recipe}.gguf"
        with ExitStack() as stack:
            progress(0.0, "reading the model")
            source: RowSource
            if job.folder is None:
                source = SyntheticRows(spec)
            else:
                weights = stack.enter_context(Checkpoint(job.folder, spec))
                source = CheckpointRows(weights, spec, encoder())
            writer, warnings = _header(job, spec, recipe, stored)
            file = stack.enter_context(writing(final, sum(_padded(s.bytes) for s in stored)))
            _write_header(writer, file)
            del writer  # its vocabulary is as large as a small model
            _write_tensors(file, source, spec, stored, job.threads, progress)
            written = ArtifactFile(name=final.name, bytes=file.bytes, sha256=file.sha256())
        return _finish(final, job, recipe, written, warnings)


def _padded(size: int) -> int:
    return -(-size // ALIGNMENT) * ALIGNMENT


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
    for each in stored:
        tensor = each.tensor
        shape = (tensor.cols,) if tensor.is_vector else (tensor.rows, tensor.cols)
        kind = GGMLQuantizationType[each.type]
        writer.add_tensor_info(tensor_name(tensor), shape, np.dtype(np.float32), each.bytes, kind)
    wide = width_warning(spec, recipe)
    return writer, [*vocabulary.warnings, *([wide] if wide else [])]


def _write_header(writer: Any, file: HashedFile) -> None:
    writer.write_header_to_file(file.path)
    writer.write_kv_data_to_file()
    writer.write_ti_data_to_file()
    writer.close()
    file.adopt()
    file.pad(ALIGNMENT)


def _write_tensors(
    file: HashedFile,
    source: RowSource,
    spec: ModelSpec,
    stored: list[StoredTensor],
    threads: int | None,
    progress: Progress,
) -> None:
    total = sum(s.bytes for s in stored)
    done = 0
    tasks = _tasks(source, spec, stored)
    for (each, last), rows in in_order(tasks, threads or available_threads()):
        file.write(rows)
        done += rows.nbytes
        if last:
            file.pad(ALIGNMENT)
            progress(done / total, tensor_name(each.tensor))


def _tasks(
    source: RowSource, spec: ModelSpec, stored: list[StoredTensor]
) -> Iterator[tuple[tuple[StoredTensor, bool], Callable[[], Bytes]]]:
    """Every slice in the order of the file; the flag says that it is a tensor's last."""
    for index, each in enumerate(stored):
        tensor = each.tensor
        for start, stop in row_slices(tensor.rows, tensor.cols, row_step(spec, tensor)):
            last = stop == tensor.rows
            yield (each, last), partial(source.rows, each, index, start, stop)


def _finish(
    final: Path, job: ConversionJob, recipe: Recipe, written: ArtifactFile, warnings: list[str]
) -> Artifact:
    """Write the manifest, which makes the artifact complete."""
    manifest = Manifest(
        model=job.spec.id,
        spec=job.spec,
        recipe=str(recipe),
        recipe_file=recipe if isinstance(recipe, RecipeFile) else None,
        file_format="gguf",
        files=[written],
        tensor_bytes=tensor_bytes(job.spec, recipe),
        effective_bits=effective_bits(job.spec, recipe),
        origin=job.origin,
        tools=tool_versions(TOOLS),
        warnings=warnings,
        created=datetime.now(UTC).isoformat(timespec="seconds"),
    )
    write_json(manifest_path(final), manifest.model_dump(mode="json"))
    return Artifact(final, manifest)
