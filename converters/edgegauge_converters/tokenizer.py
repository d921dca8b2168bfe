"""Tokenizers: from a Hugging Face folder to the vocabulary of a GGUF file.

    data = read_tokenizer(folder, spec)
    add_to_gguf(writer, data)

Two kinds are converted. Byte-level BPE (GPT-2, SmolLM2, Qwen, Llama 3) keeps its merges; its
splitter is identified by `pretokenizer.py`. SentencePiece-style BPE (Llama 2, TinyLlama, Gemma)
becomes llama.cpp's scored vocabulary. Keys are those of the GGUF specification (`docs/gguf.md` of
the ggml repository), their effects those of llama.cpp's `llama-vocab.cpp`.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from enum import IntEnum
from pathlib import Path
from typing import Any, Literal

from edgegauge.errors import InputError
from edgegauge.model import ModelSpec
from edgegauge_converters.pretokenizer import (
    byte_level_name,
    byte_level_normalizer,
    is_byte_level,
    space_prefix,
)
from edgegauge_converters.sentencepiece import merge_scores
from edgegauge_converters.special_tokens import SpecialTokens, read_special_tokens
from edgegauge_converters.tokenizer_file import TokenizerFile, read_tokenizer_file

LARGE_PADDING = 0.05
"""Share of unused embedding rows above which the pair of tokenizer and model is questionable."""

END_OF_TEXT = "<|endoftext|>"

NO_MERGE = ("<none>", "<none>")
"""Stands for an empty list, which llama.cpp refuses; no text is ever split into such parts."""


class TokenType(IntEnum):
    """Values of `tokenizer.ggml.token_type`."""

    NORMAL = 1
    UNKNOWN = 2
    CONTROL = 3
    USER_DEFINED = 4
    UNUSED = 5
    BYTE = 6


@dataclass(frozen=True, slots=True)
class TokenizerData:
    """A vocabulary of exactly as many tokens as the model's embedding has rows."""

    model: Literal["gpt2", "llama"]
    pre: str
    """llama.cpp's name of the splitter; `default` where there is none."""
    tokens: list[str]
    types: list[TokenType]
    merges: list[tuple[str, str]] | None
    """Byte-level BPE only, best first."""
    scores: list[float] | None
    """SentencePiece-style only: higher is merged first."""
    special: SpecialTokens
    space_prefix: bool
    warnings: list[str] = field(default_factory=list)
    """What the file cannot say or llama.cpp does otherwise, for the manifest."""


def read_tokenizer(folder: Path, spec: ModelSpec) -> TokenizerData:
    """The tokenizer of `folder`, padded to the spec's vocabulary.

    Raises InputError if a file is malformed, the kind is not supported, or it has more tokens than
    the embedding has rows.
    """
    file = read_tokenizer_file(folder)
    ids = _ids(file)
    special = read_special_tokens(folder, ids, file.post_processor)
    ids, special, warnings = _fitted(file, ids, special, spec.vocab)
    warnings += _strip_warnings(file)
    tokens, types = _table(file, ids, spec.vocab)
    if is_byte_level(file.pre_tokenizer):
        warnings += byte_level_normalizer(file.normalizer)
        warnings += _check_end(special, file)
        _check_merges_have_no_space(file)
        return TokenizerData(
            model="gpt2",
            pre=byte_level_name(file.pre_tokenizer, file.ignore_merges, str(file.path)),
            tokens=tokens, types=types, merges=file.merges, scores=None,
            special=special, space_prefix=False, warnings=warnings,
        )  # fmt: skip
    _check_bytes(file)
    prefix, differences = space_prefix(file.normalizer, file.pre_tokenizer, str(file.path))
    scores, mismatches = merge_scores(file, tokens)
    return TokenizerData(
        model="llama", pre="default", tokens=tokens, types=types, merges=None, scores=scores,
        special=special, space_prefix=prefix, warnings=warnings + differences + mismatches,
    )  # fmt: skip


def synthetic(spec: ModelSpec) -> TokenizerData:
    """A tokenizer of bytes alone for a model without one: every text works, nothing is learned."""
    alphabet = byte_alphabet()[: max(spec.vocab - 1, 0)]
    tokens = [*alphabet, END_OF_TEXT][: spec.vocab]
    end = len(tokens) - 1
    types = [TokenType.NORMAL] * end + [TokenType.CONTROL]
    tokens += _padding(range(len(tokens), spec.vocab), set(tokens))
    types += [TokenType.UNUSED] * (spec.vocab - len(types))
    return TokenizerData(
        model="gpt2", pre="gpt-2", tokens=tokens, types=types, merges=[], scores=None,
        special=SpecialTokens({"bos": end, "eos": end}, False, False, None), space_prefix=False,
    )  # fmt: skip


def add_to_gguf(writer: Any, data: TokenizerData) -> None:
    """Put the vocabulary into a `gguf.GGUFWriter`."""
    writer.add_tokenizer_model(data.model)
    writer.add_tokenizer_pre(data.pre)
    writer.add_token_list(data.tokens)
    writer.add_token_types([int(t) for t in data.types])
    if data.scores is not None:
        writer.add_token_scores(data.scores)
        writer.add_add_space_prefix(data.space_prefix)
    if data.merges is not None:
        merges = data.merges or [NO_MERGE]
        writer.add_token_merges([f"{first} {second}" for first, second in merges])
    for role, number in data.special.ids.items():
        getattr(writer, f"add_{role}_token_id")(number)
    writer.add_add_bos_token(data.special.add_bos)
    writer.add_add_eos_token(data.special.add_eos)
    if data.special.chat_template:
        writer.add_chat_template(data.special.chat_template)


def byte_alphabet() -> list[str]:
    """GPT-2's character for each byte: printable Latin-1 as itself, the rest from U+0100 on."""
    printable = {*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)}
    others = iter(range(0x100, 0x200))
    return [chr(byte) if byte in printable else chr(next(others)) for byte in range(256)]


def _ids(file: TokenizerFile) -> dict[str, int]:
    """Every token's id, of the vocabulary and of the added tokens, which may repeat it."""
    ids = dict(file.vocab)
    owner = {number: text for text, number in ids.items()}
    for token in file.added:
        if ids.get(token.content, token.id) != token.id or (
            owner.get(token.id, token.content) != token.content
        ):
            raise InputError(
                f"added_tokens: {token.content[:40]!r} and id {token.id} contradict the "
                f"vocabulary @ {file.path}"
            )
        ids[token.content] = token.id
        owner[token.id] = token.content
    return ids


def _fitted(
    file: TokenizerFile, ids: dict[str, int], special: SpecialTokens, size: int
) -> tuple[dict[str, int], SpecialTokens, list[str]]:
    """What is within the embedding's `size` rows; InputError if that is not all that matters.

    Published models do have added tokens beyond it (Gemma 3's image token, a padding token that
    was added without a row); they can never be computed, so leaving them out loses nothing.
    """
    largest = max(ids.values())
    needed = {role: number for role, number in special.ids.items() if role != "pad"}
    if max(file.vocab.values()) >= size or any(number >= size for number in needed.values()):
        raise InputError(
            f"the tokenizer does not match the model's vocabulary: it has ids up to {largest}, "
            f"but the embedding has {size} rows @ {file.path}",
            hint="use the tokenizer files that were published with these weights",
        )
    kept = {text: number for text, number in ids.items() if number < size}
    warnings = []
    beyond = [text for text in ids if text not in kept]
    if beyond:
        warnings.append(
            f"{len(beyond)} added tokens, such as {beyond[0][:40]!r}, have ids beyond the "
            "embedding and are left out"
        )
    unused = size - len(kept)
    if unused > LARGE_PADDING * size:
        warnings.append(f"{unused} of the embedding's {size} rows have no token")
    roles = {role: number for role, number in special.ids.items() if number < size}
    return kept, replace(special, ids=roles), warnings


def _table(
    file: TokenizerFile, ids: dict[str, int], size: int
) -> tuple[list[str], list[TokenType]]:
    """Texts and types by id, holes filled with unused tokens."""
    texts = {number: text for text, number in ids.items()}
    padding = iter(_padding([n for n in range(size) if n not in texts], set(ids)))
    tokens = [texts[n] if n in texts else next(padding) for n in range(size)]
    types = [TokenType.NORMAL if n in texts else TokenType.UNUSED for n in range(size)]
    if file.byte_fallback:
        for byte in range(256):
            number = ids.get(f"<0x{byte:02X}>")
            if number is not None:
                types[number] = TokenType.BYTE
    for token in file.added:
        if token.id < size:
            types[token.id] = TokenType.CONTROL if token.special else TokenType.USER_DEFINED
            if file.byte_fallback and not token.special:
                # llama.cpp looks for these in the raw text, where a space is a space.
                tokens[token.id] = token.content.replace("▁", " ")
    if file.byte_fallback and file.unk_token in ids:
        types[ids[file.unk_token]] = TokenType.UNKNOWN
    return _distinct(tokens, types)


def _distinct(tokens: list[str], types: list[TokenType]) -> tuple[list[str], list[TokenType]]:
    """llama.cpp refuses a vocabulary with a text twice; the later one becomes unused."""
    seen: set[str] = set()
    for number, text in enumerate(tokens):
        if text in seen:
            tokens[number] = _padding([number], seen)[0]
            types[number] = TokenType.UNUSED
        seen.add(tokens[number])
    return tokens, types


def _padding(numbers: Any, taken: set[str]) -> list[str]:
    """Names for ids without a token, as llama.cpp's own converter gives them, none taken."""
    names = (f"[PAD{n}]" for n in numbers)
    return [name if name not in taken else f"[UNUSED-{name}]" for name in names]


def _strip_warnings(file: TokenizerFile) -> list[str]:
    odd = [t.content for t in file.added if t.lstrip or t.rstrip or t.single_word]
    if not odd:
        return []
    return [f"llama.cpp keeps the spaces beside {len(odd)} added tokens, such as {odd[0][:40]!r}"]


def _check_end(special: SpecialTokens, file: TokenizerFile) -> list[str]:
    """llama.cpp takes token 11 for the end of a byte-level vocabulary that names none."""
    if "eos" in special.ids:
        return []
    return ["no end token is named; llama.cpp ends generation at token 11"]


def _check_merges_have_no_space(file: TokenizerFile) -> None:
    for index, pair in enumerate(file.merges):
        if " " in pair[0] or " " in pair[1]:
            raise InputError(
                f"model.merges[{index}]: a space in a byte-level token cannot be stored"
                f" @ {file.path}"
            )


def _check_bytes(file: TokenizerFile) -> None:
    """llama.cpp falls back to a token per byte and stops the process where one is missing."""
    missing = sum(f"<0x{byte:02X}>" not in file.vocab for byte in range(256))
    if not file.byte_fallback or missing:
        raise InputError(
            f"model: neither byte-level nor with byte_fallback and all 256 byte tokens "
            f"({missing} are missing) @ {file.path}",
            hint="byte-level BPE and SentencePiece-style BPE tokenizers can be converted",
        )
