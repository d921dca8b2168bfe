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

from contextlib import ExitStack
from pathlib import Path

from edgegauge import __version__
from edgegauge.artifact import Artifact, ArtifactFile, manifest_path
from edgegauge.convert import ConversionJob, Progress
from edgegauge.document import atomic_write, write_json
from edgegauge.errors import ConversionError, InputError, MissingDependency
from edgegauge.recipe import resolve, stored_tensors, tensor_bytes

try:
    from edgegauge_converters.genai_config import genai_config
    from edgegauge_converters.manifest import copy_tokenizer, file_of, finish, main_path
    from edgegauge_converters.onnx_file import encode
    from edgegauge_converters.onnx_graph import check_spec, lower
    from edgegauge_converters.onnx_layout import Layout, plan
    from edgegauge_converters.onnx_rows import CheckpointRows, RowSource, SyntheticRows
    from edgegauge_converters.onnx_weights import write_weights
    from edgegauge_converters.plain_rows import PlainRows
    from edgegauge_converters.special_tokens import SpecialTokens, read_special_tokens
    from edgegauge_converters.temporary_file import writing
    from edgegauge_converters.tokenizer_file import read_tokenizer_file
    from edgegauge_converters.weights import Checkpoint
    from edgegauge_converters.workers import available_threads
except ImportError as error:
    raise MissingDependency("converting to ONNX", "onnx") from error

ALL_LOGITS = "all_logits.onnx"
GENAI_CONFIG = "genai_config.json"
TOOLS = ("numpy", "onnxruntime", "tokenizers")
SYNTHETIC = SpecialTokens({"bos": 0, "eos": 0}, add_bos=False, add_eos=False, chat_template=None)


class OnnxConverter:
    """Writes the folder of an ONNX artifact and its manifest."""

    def convert(self, job: ConversionJob, progress: Progress) -> Artifact:
        """Write the artifact; InputError for bad input, ConversionError if it cannot be written."""
        recipe = resolve(job.recipe, "onnx")
        check_spec(job.spec)
        final = main_path(job, recipe, "onnx")
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
            threads = job.threads or available_threads()
            write_weights(file, layout, source.rows, threads, progress)
            # The manifest of an older artifact must not stand beside the new one.
            manifest_path(final).unlink(missing_ok=True)
        weights = ArtifactFile(name=data.name, bytes=file.bytes, sha256=file.sha256())
        try:
            files = [*_write_graphs(final, job, layout, weights), weights]
            files += [_write_configuration(final, job, special), *copy_tokenizer(job.folder, final)]
            size = tensor_bytes(job.spec, recipe, "onnx")
            return finish(final, job, recipe, size, files, tools=TOOLS)
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
        written.append(file_of(path))
    return written


def _write_configuration(final: Path, job: ConversionJob, special: SpecialTokens) -> ArtifactFile:
    """What onnxruntime-genai, and our own session, must know beside the graph."""
    ends = [special.ids[role] for role in ("eos", "eot") if role in special.ids]
    config = final.with_name(GENAI_CONFIG)
    write_json(config, genai_config(job.spec, final.name, special.ids, ends))
    return file_of(config)
