"""The ONNX converter: a checkpoint, or nothing but a spec, to a folder that ONNX Runtime executes.

    OnnxConverter().convert(job, progress)

writes `<model>-<recipe>-onnx/` with

    <model>-<recipe>.onnx             the graph that generates: logits of the last token only
    all_logits.onnx                   the same with the logits of every token, to score texts
    <model>-<recipe>.onnx.data        the weights of both
    genai_config.json, tokenizer*.json  what onnxruntime-genai needs to load the folder as it is

Tensors are read, quantised and written a slice at a time by a few threads, so memory does not grow
with the model. Neither torch nor the onnx package takes part.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import partial
from pathlib import Path

from edgegauge import __version__
from edgegauge.artifact import Artifact, ArtifactFile, Manifest, manifest_path, sha256_of
from edgegauge.convert import ConversionJob, Progress
from edgegauge.document import atomic_write, write_json
from edgegauge.errors import ConversionError, InputError, MissingDependency
from edgegauge.recipe import Recipe, effective_bits, resolve, stored_tensors, tensor_bytes
from edgegauge.recipe_file import RecipeFile

try:
    from edgegauge_converters.genai_config import genai_config, tokenizer_files
    from edgegauge_converters.manifest import file_stem, tool_versions
    from edgegauge_converters.onnx_file import encode
    from edgegauge_converters.onnx_graph import check_spec, lower
    from edgegauge_converters.onnx_layout import ALIGNMENT, Group, Layout, plan
    from edgegauge_converters.onnx_rows import CheckpointRows, Encoded, RowSource, SyntheticRows
    from edgegauge_converters.plain_rows import PlainRows
    from edgegauge_converters.special_tokens import SpecialTokens, read_special_tokens
    from edgegauge_converters.temporary_file import HashedFile, writing
    from edgegauge_converters.tokenizer_file import read_tokenizer_file
    from edgegauge_converters.weights import Checkpoint, row_slices
    from edgegauge_converters.workers import available_threads, in_order
except ImportError as error:
    raise MissingDependency("converting to ONNX", "onnx") from error

ALL_LOGITS = "all_logits.onnx"
GENAI_CONFIG = "genai_config.json"
TOOLS = ("numpy", "onnxruntime", "tokenizers")
SYNTHETIC = SpecialTokens({"bos": 0, "eos": 0}, add_bos=False, add_eos=False, chat_template=None)


@dataclass(frozen=True, slots=True)
class _Piece:
    """Rows of one member of a group; `last` ends the group."""

    group: Group
    last: bool


class OnnxConverter:
    """Writes the folder of an ONNX artifact and its manifest."""

    def convert(self, job: ConversionJob, progress: Progress) -> Artifact:
        """Write the artifact; InputError for bad input, ConversionError if it cannot be written."""
        recipe = resolve(job.recipe, "onnx")
        check_spec(job.spec)
        stem = f"{file_stem(job.spec.id)}-{recipe}"
        final = job.output / f"{stem}-onnx" / f"{stem}.onnx"
        layout = plan(stored_tensors(job.spec, recipe, "onnx"))
        with ExitStack() as stack:
            progress(0.0, "reading the model")
            special = SYNTHETIC
            source: RowSource = SyntheticRows()
            if job.folder is not None:
                special = _special_tokens(job.folder, job.spec.vocab)
                checkpoint = stack.enter_context(Checkpoint(job.folder, job.spec))
                source = CheckpointRows(PlainRows(checkpoint, job.spec))
            data = final.with_name(final.name + ".data")
            file = stack.enter_context(writing(data, layout.bytes))
            _write_weights(file, source, layout, job.threads or available_threads(), progress)
            # The manifest of an older artifact must not stand beside the new one.
            manifest_path(final).unlink(missing_ok=True)
        weights = ArtifactFile(name=data.name, bytes=file.bytes, sha256=file.sha256())
        try:
            files = [*_write_graphs(final, job, layout, weights), weights]
            files += _write_configuration(final, job, special)
            return _finish(final, job, recipe, files)
        except OSError as error:
            raise ConversionError(
                f"cannot write {final.parent}: {error.strerror}",
                hint="free some space, or choose another folder with -o DIR",
            ) from error


def _special_tokens(folder: Path, vocab: int) -> SpecialTokens:
    """Special tokens by role; InputError if the tokenizer does not fit the model."""
    file = read_tokenizer_file(folder)
    ids = file.vocab | {token.content: token.id for token in file.added}
    if max(ids.values()) >= vocab:
        raise InputError(
            f"{file.path} has tokens up to {max(ids.values())}, the embedding {vocab} rows",
            hint="the tokenizer is of another model",
        )
    return read_special_tokens(folder, ids, file.post_processor)


def _write_weights(
    file: HashedFile, source: RowSource, layout: Layout, threads: int, progress: Progress
) -> None:
    scales: list[Encoded] = []
    for piece, encoded in in_order(_tasks(source, layout), threads):
        file.write(encoded.values)
        scales.append(encoded)
        if not piece.last:
            continue
        file.pad(ALIGNMENT)
        for each in scales:
            if each.scales is not None:
                file.write(each.scales)
        file.pad(ALIGNMENT)
        scales.clear()
        assert file.bytes == piece.group.end, piece.group.name
        progress(file.bytes / layout.bytes, piece.group.name)


def _tasks(source: RowSource, layout: Layout) -> Iterator[tuple[_Piece, Callable[[], Encoded]]]:
    """Every slice of every tensor, in the order of the file."""
    index = 0
    for group in layout.groups:
        for member in group.members:
            tensor = member.tensor
            for start, stop in row_slices(tensor.rows, tensor.cols):
                last = member is group.members[-1] and stop == tensor.rows
                yield _Piece(group, last), partial(source.rows, member, index, start, stop)
            index += 1


def _write_graphs(
    final: Path, job: ConversionJob, layout: Layout, weights: ArtifactFile
) -> list[ArtifactFile]:
    """Both graphs; each names the hash of its weights, so its own hash stands for all."""
    metadata = {"edgegauge.model": job.spec.id, "edgegauge.weights_sha256": weights.sha256}
    written = []
    for path, all_logits in ((final, False), (final.with_name(ALL_LOGITS), True)):
        graph = lower(job.spec, layout, all_logits=all_logits)
        with atomic_write(path) as stream:
            stream.write(encode(graph, weights.name, metadata, f"edgegauge {__version__}"))
        written.append(_file(path))
    return written


def _write_configuration(
    final: Path, job: ConversionJob, special: SpecialTokens
) -> list[ArtifactFile]:
    """`genai_config.json`, and the model's own tokenizer files."""
    ends = [special.ids[role] for role in ("eos", "eot") if role in special.ids]
    config = final.with_name(GENAI_CONFIG)
    write_json(config, genai_config(job.spec, final.name, special.ids, ends))
    written = [_file(config)]
    for path in tokenizer_files(job.folder) if job.folder else ():
        copy = final.with_name(path.name)
        with path.open("rb") as original, atomic_write(copy) as stream:
            shutil.copyfileobj(original, stream)
        written.append(_file(copy))
    return written


def _file(path: Path) -> ArtifactFile:
    return ArtifactFile(name=path.name, bytes=path.stat().st_size, sha256=sha256_of(path))


def _finish(final: Path, job: ConversionJob, recipe: Recipe, files: list[ArtifactFile]) -> Artifact:
    """Write the manifest, which makes the artifact complete."""
    manifest = Manifest(
        model=job.spec.id,
        spec=job.spec,
        recipe=str(recipe),
        recipe_file=recipe if isinstance(recipe, RecipeFile) else None,
        file_format="onnx",
        files=files,
        tensor_bytes=tensor_bytes(job.spec, recipe, "onnx"),
        effective_bits=effective_bits(job.spec, recipe, "onnx"),
        origin=job.origin,
        tools=tool_versions(TOOLS),
        created=datetime.now(UTC).isoformat(timespec="seconds"),
    )
    write_json(manifest_path(final), manifest.model_dump(mode="json"))
    return Artifact(final, manifest)
