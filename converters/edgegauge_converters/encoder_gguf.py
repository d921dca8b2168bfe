"""Encoders to GGUF: a checkpoint, or nothing but a spec, to a file for llama.cpp.

    GgufEncoderConverter().convert(job, progress)

Architecture, keys and vocabulary are those of llama.cpp's own converter for `BertModel` and
`DistilBertModel`: the architecture `bert`, attention that is not causal, a pooling type, and a
WordPiece vocabulary in which words begin with U+2581 and `##` is left out.

What llama.cpp does otherwise than the model is said in the manifest's warnings: it always computes
GELU in its tanh form, from a table of half floats, and it leaves the scaling to length 1 to the
program that calls it (`llama-embedding` and llama-cpp-python do that unless told not to).
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack
from functools import partial
from typing import Any

from edgegauge.artifact import Artifact, ArtifactFile
from edgegauge.convert import Progress
from edgegauge.convert_encoder import EncoderJob
from edgegauge.encoder import EncoderSpec
from edgegauge.errors import InputError, MissingDependency
from edgegauge.recipe import StoredTensor, resolve

try:
    import numpy as np
    from gguf import GGUFWriter, PoolingType, TokenType

    from edgegauge.gguf_header import tensor_name
    from edgegauge_converters.encoder_recipe import stored_tensors, tensor_bytes
    from edgegauge_converters.encoder_weights import EncoderCheckpoint, SyntheticEncoder
    from edgegauge_converters.gguf_file import (
        add_tensors,
        padded_bytes,
        write_header,
        write_tensors,
    )
    from edgegauge_converters.gguf_metadata import (
        FILE_TYPE_NUMBERS,
        MAX_LAYERS,
        QUANTIZATION_VERSION,
    )
    from edgegauge_converters.manifest import finish, main_path
    from edgegauge_converters.quantize import Bytes, Encoder, check_finite, encoder
    from edgegauge_converters.temporary_file import writing
    from edgegauge_converters.wordpiece import PREFIX, ROLES, WordPiece, read_wordpiece
    from edgegauge_converters.workers import available_threads
except ImportError as error:
    raise MissingDependency("converting to GGUF", "gguf") from error

ARCHITECTURE = "bert"
WORD_START = "\u2581"
POOLING = {"mean": PoolingType.MEAN, "cls": PoolingType.CLS}
TOOLS = ("gguf", "numpy", "llama-cpp-python")

Source = EncoderCheckpoint | SyntheticEncoder


class GgufEncoderConverter:
    """Writes `<model id>-<recipe>.gguf` and its manifest."""

    def convert(self, job: EncoderJob, progress: Progress) -> Artifact:
        """Write the artifact; InputError for bad input, ConversionError if it cannot be written."""
        recipe = resolve(job.recipe, "gguf")
        spec = job.spec
        if spec.layers > MAX_LAYERS:
            raise InputError(f"layers: llama.cpp executes at most {MAX_LAYERS}, got {spec.layers}")
        stored = stored_tensors(spec, recipe, "gguf")
        final = main_path(job, recipe, "gguf")
        with ExitStack() as stack:
            progress(0.0, "reading the model")
            source: Source = SyntheticEncoder(spec)
            vocabulary = synthetic_vocabulary(spec.vocab)
            if job.folder is not None:
                vocabulary = read_wordpiece(job.folder, spec.vocab)
                source = stack.enter_context(EncoderCheckpoint(job.folder, spec))
            writer = _header(spec, recipe, stored, vocabulary)
            file = stack.enter_context(writing(final, padded_bytes(stored)))
            write_header(writer, file)
            rows, threads = partial(_encoded, source, encoder()), job.threads or available_threads()
            write_tensors(file, stored, rows, threads, progress)
            written = ArtifactFile(name=final.name, bytes=file.bytes, sha256=file.sha256())
        size, warnings = tensor_bytes(stored), list(_warnings(spec))
        return finish(final, job, recipe, size, [written], tools=TOOLS, warnings=warnings)


def _warnings(spec: EncoderSpec) -> Iterator[str]:
    form = "GELU in its tanh form" if spec.activation == "gelu" else "GELU"
    yield f"llama.cpp computes {form} from half floats: expect differences near 0.001"
    if spec.normalise:
        yield "the model scales its vectors to length 1; llama.cpp leaves that to its caller"


def synthetic_vocabulary(size: int) -> WordPiece:
    """Letters alone, for a model without a tokenizer: every word is cut into its letters."""
    letters = [chr(code) for code in range(33, 127)]
    texts = [*ROLES.values(), *letters, *(PREFIX + letter for letter in letters)][:size]
    tokens: list[str | None] = [*texts, *([None] * (size - len(texts)))]
    special = {role: texts.index(text) for role, text in ROLES.items() if text in texts}
    return WordPiece(tokens, special, frozenset(special.values()), True, True)


def _header(
    spec: EncoderSpec, recipe: str, stored: list[StoredTensor], vocabulary: WordPiece
) -> Any:
    """A writer that knows everything but the tensor data."""
    writer = GGUFWriter(None, ARCHITECTURE)
    writer.add_type("model")
    writer.add_name(spec.id)
    writer.add_file_type(FILE_TYPE_NUMBERS[recipe])
    writer.add_quantization_version(QUANTIZATION_VERSION)
    writer.add_vocab_size(spec.vocab)
    writer.add_block_count(spec.layers)
    writer.add_context_length(spec.positions)
    writer.add_embedding_length(spec.hidden)
    writer.add_feed_forward_length(spec.intermediate)
    writer.add_head_count(spec.heads)
    writer.add_layer_norm_eps(spec.norm_eps)
    writer.add_causal_attention(False)
    writer.add_pooling_type(POOLING[spec.pooling])
    writer.add_token_type_count(max(spec.token_types, 1))
    _add_vocabulary(writer, vocabulary)
    add_tensors(writer, stored)
    return writer


def _add_vocabulary(writer: Any, vocabulary: WordPiece) -> None:
    texts, types = gguf_tokens(vocabulary)
    writer.add_tokenizer_model("bert")
    writer.add_tokenizer_pre("default")
    writer.add_token_list(texts)
    writer.add_token_types([int(kind) for kind in types])
    writer.add_bool("tokenizer.ggml.normalizer.lowercase", vocabulary.lowercase)
    writer.add_bool("tokenizer.ggml.normalizer.strip_accents", vocabulary.strip_accents)
    ids = vocabulary.special
    for key, role in (("bos", "cls"), ("eos", "sep"), ("sep", "sep"), ("unk", "unk"),
                      ("pad", "pad"), ("mask", "mask")):  # fmt: skip
        if role in ids:
            getattr(writer, f"add_{key}_token_id")(ids[role])
    if "cls" in ids:
        writer.add_uint32("tokenizer.ggml.cls_token_id", ids["cls"])


def gguf_tokens(vocabulary: WordPiece) -> tuple[list[str], list[TokenType]]:
    """Texts and types as llama.cpp wants them; no text appears twice, which it refuses."""
    texts: list[str] = []
    types: list[TokenType] = []
    seen: set[str] = set()
    for number, token in enumerate(vocabulary.tokens):
        kind = TokenType.CONTROL if number in vocabulary.added else TokenType.NORMAL
        text = _phantom(token, kind) if token is not None else ""
        if not text or text in seen:
            kind, text = TokenType.UNUSED, f"[PAD{number}]"
            while text in seen:
                text = f"[{text}]"
        seen.add(text)
        texts.append(text)
        types.append(kind)
    return texts, types


def _phantom(token: str, kind: TokenType) -> str:
    if kind == TokenType.CONTROL:
        return token
    return token.removeprefix(PREFIX) if token.startswith(PREFIX) else WORD_START + token


def _encoded(
    source: Source, encode: Encoder, stored: StoredTensor, index: int, start: int, stop: int
) -> Bytes:
    """Rows in their stored type; ConversionError where a value is or becomes infinite."""
    values = source.rows(stored.tensor, start, stop)
    name = tensor_name(stored.tensor)
    check_finite(values, name)
    encoded = encode(values, stored.type)
    if stored.type == "F16":
        check_finite(encoded.view(np.float16), name)
    return encoded
