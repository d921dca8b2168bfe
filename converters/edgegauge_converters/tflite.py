"""The TFLite converter: a checkpoint, or nothing but a spec, to a file that LiteRT runs.

    TfliteConverter().convert(job, progress)

writes `<model>-<recipe>-tflite/` with

    <model>-<recipe>.tflite                     graphs and weights
    generation_config.json, tokenizer*.json     what turns text into tokens and back

The weights are read twice, a slice at a time by a few threads: once for the scales, which lie in
front of the weights, in the flatbuffer, and once to write them. Memory does not grow with the
model, except for the scales of its rows.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from typing import Any, Protocol

from edgegauge import __version__
from edgegauge.artifact import Artifact, ArtifactFile
from edgegauge.convert import ConversionJob, Progress
from edgegauge.document import write_json
from edgegauge.errors import InputError, MissingDependency
from edgegauge.memory import cache_bytes
from edgegauge.model import ModelSpec, Tensor
from edgegauge.recipe import (
    Recipe,
    StoredTensor,
    resolve,
    stored_tensors,
    tensor_bytes,
)
from edgegauge.tflite_spans import CONTEXT, PIECE, SPAN, spans_of

try:
    import numpy as np
    from numpy.typing import NDArray

    from edgegauge_converters.blueprint import Embed, Linear
    from edgegauge_converters.manifest import copy_tokenizer, file_of, finish, main_path
    from edgegauge_converters.plain_rows import PlainRows
    from edgegauge_converters.quantize import check_finite
    from edgegauge_converters.special_tokens import read_special_tokens
    from edgegauge_converters.synthetic import SyntheticBlocks
    from edgegauge_converters.temporary_file import writing
    from edgegauge_converters.tflite_file import TfliteFile
    from edgegauge_converters.tflite_graph import Lowering, Matrix, steps
    from edgegauge_converters.tflite_layout import gained_roles, query_gain, stack_name
    from edgegauge_converters.tflite_quantize import bits_of, block_of, encode, row_scales
    from edgegauge_converters.tokenizer_file import read_tokenizer_file
    from edgegauge_converters.weights import Checkpoint, row_slices
    from edgegauge_converters.workers import available_threads, in_order
except ImportError as error:
    raise MissingDependency("converting to TFLite", "tflite") from error

SCALES_SHARE = 0.4
"""Of the time that a conversion takes."""

TOOLS = ("ai-edge-litert", "flatbuffers", "numpy")

Floats = NDArray[np.float32]


class RowSource(Protocol):
    """Where weights come from, in the blueprint's plain form; called from several threads."""

    def rows(self, tensor: Tensor, start: int, stop: int) -> Floats:
        """Rows of a tensor, a copy (rows, cols); a vector is one row."""


class SyntheticRows:
    """Random weights."""

    def __init__(self, spec: ModelSpec) -> None:
        self._numbers = {tensor: number for number, tensor in enumerate(spec.tensors())}
        self._blocks = SyntheticBlocks()

    def rows(self, tensor: Tensor, start: int, stop: int) -> Floats:
        """See RowSource."""
        stored = StoredTensor(tensor, "F32", 4 * tensor.elements, "F32")
        made: Floats = self._blocks.rows(stored, self._numbers[tensor], start, stop).view("<f4")
        return made.reshape(stop - start, tensor.cols)


class TfliteConverter:
    """Writes the folder of a TFLite artifact and its manifest."""

    def __init__(self, prefill: tuple[int, ...] = (PIECE,), span: int = SPAN) -> None:
        self._prefill, self._span = prefill, span

    def convert(self, job: ConversionJob, progress: Progress) -> Artifact:
        """Write the artifact; InputError for bad input, ConversionError if it cannot be written."""
        recipe = resolve(job.recipe, "tflite")
        spec, context = job.spec, _context(job)
        final = main_path(job, recipe, "tflite")
        with ExitStack() as stack:
            progress(0.0, "reading the model")
            source: RowSource = SyntheticRows(spec)
            tokens: dict[str, Any] = {"eos_token_id": 0}
            if job.folder is not None:
                tokens = _special_tokens(job.folder)
                source = PlainRows(stack.enter_context(Checkpoint(job.folder, spec)), spec)
            weights = Weights(spec, recipe, source, job.threads or available_threads(), progress)
            file = TfliteFile(f"{spec.id} {recipe}, made by edgegauge {__version__}")
            weights.place(file)
            self._lower(file, spec, weights, context)
            stream = stack.enter_context(writing(final, file.reserved_bytes()))
            file.write(stream, weights.content())
        files = [ArtifactFile(name=final.name, bytes=stream.bytes, sha256=stream.sha256())]
        files += [_write_tokens(final, tokens), *copy_tokenizer(job.folder, final)]
        return finish(
            final, job, recipe, tensor_bytes(spec, recipe, "tflite"), files, tools=TOOLS,
            context=context, cache_bytes=cache_bytes(spec, context, "tflite"),
        )  # fmt: skip

    def _lower(self, file: TfliteFile, spec: ModelSpec, weights: Weights, context: int) -> None:
        spans = spans_of(context, self._span)
        lowering = Lowering(file, spec, weights.matrix, weights.vector, spans)
        for tokens in self._prefill:
            if tokens <= context:
                lowering.prefill(tokens)
        lowering.decode()


class Weights:
    """The matrices of a model: what they are in the file, and their bytes in pieces."""

    def __init__(
        self, spec: ModelSpec, recipe: Recipe, source: RowSource, threads: int, progress: Progress
    ) -> None:
        self._spec, self._source = spec, source
        self._threads, self._progress = threads, progress
        self._types = {s.tensor: s.type for s in stored_tensors(spec, recipe, "tflite")}
        self._stacks = list(dict.fromkeys(_stacks(spec)))
        self._matrices: dict[tuple[Tensor, ...], Matrix] = {}
        self._scales: dict[Tensor, Any] = {}
        self._total = sum(t.elements for stack in self._stacks for t in stack)

    def vector(self, tensor: Tensor) -> Floats:
        """A norm or bias."""
        values = self._rows(tensor, 0, 1).reshape(-1)
        check_finite(values, stack_name([tensor]))
        return values

    def matrix(self, tensors: tuple[Tensor, ...]) -> Matrix:
        """The matrix of these tensors, stacked."""
        return self._matrices[tensors]

    def place(self, file: TfliteFile) -> None:
        """Find the scales of every matrix and reserve its place in the file."""
        parts: dict[Tensor, list[Any]] = {}
        done = 0
        for tensor, scales in in_order(self._slices(self._scales_of), self._threads):
            parts.setdefault(tensor, []).append(scales)
            done += len(scales) * tensor.cols
            self._progress(SCALES_SHARE * done / self._total, f"scales of {stack_name([tensor])}")
        self._scales = {tensor: np.concatenate(pieces) for tensor, pieces in parts.items()}
        for stack in self._stacks:
            self._matrices[stack] = self._placed(file, stack)

    def content(self) -> Callable[[int], Iterator[Any]]:
        """Gives the bytes of the reserved buffers, asked for in order, in pieces."""
        pieces = in_order(self._slices(self._encoded), self._threads)
        written = {m.buffer: stack for stack, m in self._matrices.items()}
        done = 0

        def of_buffer(number: int) -> Iterator[Any]:
            nonlocal done
            rows = sum(t.rows for t in written[number])
            while rows:
                tensor, piece = next(pieces)
                rows -= len(piece)
                done += len(piece) * tensor.cols
                share = SCALES_SHARE + (1 - SCALES_SHARE) * done / self._total
                self._progress(share, stack_name(written[number]))
                yield piece

        return of_buffer

    def _placed(self, file: TfliteFile, stack: tuple[Tensor, ...]) -> Matrix:
        type = self._types[stack[0]]
        rows, cols = sum(t.rows for t in stack), stack[0].cols
        buffer = file.reserve(rows * cols * bits_of(type) // 8)
        if type == "F32":
            return Matrix(buffer, rows, cols, "FLOAT32")
        scales = np.concatenate([self._scales[t] for t in stack])
        if block_of(type):
            return Matrix(buffer, rows, cols, "INT4", scales, block_of(type))
        return Matrix(buffer, rows, cols, type, scales)

    def _slices(
        self, make: Callable[[Tensor, int, int], Any]
    ) -> Iterator[tuple[Tensor, Callable[[], Any]]]:
        for stack in self._stacks:
            for tensor in stack:
                for start, stop in row_slices(tensor.rows, tensor.cols):
                    yield tensor, partial(make, tensor, start, stop)

    def _scales_of(self, tensor: Tensor, start: int, stop: int) -> Any:
        """Scales (rows, ...) of some rows, which are checked; zeros where the type has none."""
        values = self._rows(tensor, start, stop)
        check_finite(values, stack_name([tensor]))
        type = self._types[tensor]
        return np.zeros(len(values)) if type == "F32" else row_scales(values, type)

    def _encoded(self, tensor: Tensor, start: int, stop: int) -> Any:
        values = self._rows(tensor, start, stop)
        return encode(values, self._scales[tensor][start:stop], self._types[tensor])

    def _rows(self, tensor: Tensor, start: int, stop: int) -> Floats:
        values = self._source.rows(tensor, start, stop)
        if tensor.role in gained_roles(self._spec):
            values *= np.float32(query_gain(self._spec))
        return values


def _context(job: ConversionJob) -> int:
    """Tokens that the cache will hold; InputError for more than the model was made for."""
    most = job.spec.context
    if job.context is not None and job.context > most:
        raise InputError(
            f"{job.spec.id} was made for {most} tokens of context, {job.context} were asked for"
        )
    return job.context or min(CONTEXT, most)


def _stacks(spec: ModelSpec) -> Iterator[tuple[Tensor, ...]]:
    """The matrices of the blueprint, those of one input together."""
    for step in steps(spec):
        matrices = tuple(o.weight for o in step if isinstance(o, Linear | Embed))
        if matrices:
            yield matrices


def _special_tokens(folder: Path) -> dict[str, Any]:
    """What `generation_config.json` says of tokens."""
    file = read_tokenizer_file(folder)
    ids = file.vocab | {token.content: token.id for token in file.added}
    special = read_special_tokens(folder, ids, file.post_processor).ids
    ends = [special[role] for role in ("eos", "eot") if role in special]
    begin = {"bos_token_id": special["bos"]} if "bos" in special else {}
    return {"eos_token_id": ends, **begin}


def _write_tokens(final: Path, tokens: dict[str, Any]) -> ArtifactFile:
    """The special tokens, beside the model."""
    config = final.with_name("generation_config.json")
    write_json(config, tokens)
    return file_of(config)
