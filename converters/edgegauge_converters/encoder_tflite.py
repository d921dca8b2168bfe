"""Encoders to TFLite: a checkpoint, or nothing but a spec, to a file that LiteRT runs.

    TfliteEncoderConverter().convert(job, progress)

writes `<model>-<recipe>-tflite/` with `<model>-<recipe>.tflite` and the model's tokenizer files.
The weights are read twice, a slice at a time by a few threads: once for the scales, which lie in
front of them in the file, and once to write them. Memory does not grow with the model, except for
its vectors and the scales of its rows.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from functools import partial
from typing import Any

from edgegauge import __version__
from edgegauge.artifact import Artifact, ArtifactFile
from edgegauge.convert import Progress
from edgegauge.convert_encoder import EncoderJob
from edgegauge.errors import MissingDependency
from edgegauge.model import Tensor
from edgegauge.recipe import StoredTensor, resolve

try:
    import numpy as np

    from edgegauge.gguf_header import tensor_name
    from edgegauge_converters.encoder_recipe import stored_tensors, tensor_bytes
    from edgegauge_converters.encoder_tflite_graph import lower
    from edgegauge_converters.encoder_weights import EncoderCheckpoint, SyntheticEncoder
    from edgegauge_converters.manifest import copy_tokenizer, finish, main_path
    from edgegauge_converters.quantize import check_finite
    from edgegauge_converters.temporary_file import writing
    from edgegauge_converters.tflite_file import TfliteFile
    from edgegauge_converters.tflite_graph import Matrix
    from edgegauge_converters.tflite_quantize import bits_of, block_of, encode, row_scales
    from edgegauge_converters.weights import Floats, row_slices
    from edgegauge_converters.wordpiece import read_wordpiece
    from edgegauge_converters.workers import available_threads, in_order
except ImportError as error:
    raise MissingDependency("converting to TFLite", "tflite") from error

LENGTH = 128
"""Tokens that the file declares for a program that does not resize its inputs."""

SCALES_SHARE = 0.4
"""Of the time that a conversion takes."""

TOOLS = ("ai-edge-litert", "flatbuffers", "numpy", "tokenizers")

Source = EncoderCheckpoint | SyntheticEncoder


class TfliteEncoderConverter:
    """Writes the folder of a TFLite artifact and its manifest."""

    def convert(self, job: EncoderJob, progress: Progress) -> Artifact:
        """Write the artifact; InputError for bad input, ConversionError if it cannot be written."""
        recipe = resolve(job.recipe, "tflite")
        spec = job.spec
        stored = stored_tensors(spec, recipe, "tflite")
        final = main_path(job, recipe, "tflite")
        with ExitStack() as stack:
            progress(0.0, "reading the model")
            source: Source = SyntheticEncoder(spec)
            if job.folder is not None:
                read_wordpiece(job.folder, spec.vocab)  # it fits, or nothing is written
                source = stack.enter_context(EncoderCheckpoint(job.folder, spec))
            weights = _Weights(stored, source, job.threads or available_threads(), progress)
            file = TfliteFile(f"{spec.id} {recipe}, made by edgegauge {__version__}")
            weights.place(file)
            length = min(LENGTH, spec.positions)
            lower(file, spec, weights.matrix, weights.vector, length)
            stream = stack.enter_context(writing(final, file.reserved_bytes()))
            file.write(stream, weights.content())
        written = ArtifactFile(name=final.name, bytes=stream.bytes, sha256=stream.sha256())
        files = [written, *copy_tokenizer(job.folder, final)]
        return finish(final, job, recipe, tensor_bytes(stored), files, tools=TOOLS)


class _Weights:
    """The matrices of a model: what they are in the file, and their bytes in pieces."""

    def __init__(
        self, stored: list[StoredTensor], source: Source, threads: int, progress: Progress
    ) -> None:
        self._source, self._threads, self._progress = source, threads, progress
        self._stored = [each for each in stored if not each.tensor.is_vector]
        self._matrices: dict[Tensor, Matrix] = {}
        self._total = sum(each.tensor.elements for each in self._stored)

    def matrix(self, tensor: Tensor) -> Matrix:
        """What a matrix is in the file."""
        return self._matrices[tensor]

    def vector(self, tensor: Tensor) -> Floats:
        """A norm or bias."""
        values = self._source.rows(tensor, 0, 1).reshape(-1)
        check_finite(values, tensor_name(tensor))
        return values

    def place(self, file: TfliteFile) -> None:
        """Find the scales of every matrix and reserve its place in the file."""
        parts: dict[Tensor, list[Any]] = {each.tensor: [] for each in self._stored}
        done = 0
        for tensor, scales in in_order(self._slices(self._scales), self._threads):
            parts[tensor].append(scales)
            done += len(scales) * tensor.cols
            name = f"scales of {tensor_name(tensor)}"
            self._progress(SCALES_SHARE * done / self._total, name)
        for each in self._stored:
            tensor, kind = each.tensor, each.type
            buffer = file.reserve(tensor.elements * bits_of(kind) // 8)
            type = "FLOAT32" if kind == "F32" else kind.partition("/")[0]
            found = None if kind == "F32" else np.concatenate(parts[tensor])
            self._matrices[tensor] = Matrix(
                buffer, tensor.rows, tensor.cols, type, found, block_of(kind)
            )

    def content(self) -> Callable[[int], Iterator[Any]]:
        """Gives the bytes of the reserved buffers, asked for in order, in pieces."""
        pieces = in_order(self._slices(self._encoded), self._threads)
        rows = {m.buffer: m.rows for m in self._matrices.values()}
        done = 0

        def of_buffer(number: int) -> Iterator[Any]:
            nonlocal done
            left = rows[number]
            while left:
                tensor, piece = next(pieces)
                left -= len(piece)
                done += len(piece) * tensor.cols
                share = SCALES_SHARE + (1 - SCALES_SHARE) * done / self._total
                self._progress(share, tensor_name(tensor))
                yield piece

        return of_buffer

    def _slices(
        self, make: Callable[[StoredTensor, int, int], Any]
    ) -> Iterator[tuple[Tensor, Callable[[], Any]]]:
        for each in self._stored:
            for start, stop in row_slices(each.tensor.rows, each.tensor.cols):
                yield each.tensor, partial(make, each, start, stop)

    def _scales(self, stored: StoredTensor, start: int, stop: int) -> Any:
        """Scales (rows, ...) of some rows, which are checked; zeros where the type has none."""
        values = self._source.rows(stored.tensor, start, stop)
        check_finite(values, tensor_name(stored.tensor))
        return np.zeros(len(values)) if stored.type == "F32" else row_scales(values, stored.type)

    def _encoded(self, stored: StoredTensor, start: int, stop: int) -> Any:
        values = self._source.rows(stored.tensor, start, stop)
        scales = self._matrices[stored.tensor].scales
        return encode(values, None if scales is None else scales[start:stop], stored.type)
