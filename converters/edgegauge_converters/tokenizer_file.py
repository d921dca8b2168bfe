"""Reading `tokenizer.json`: the one file in which Hugging Face's library keeps a whole tokenizer.

    found = read_tokenizer_file(folder)      # raises InputError with the path of what is wrong
    found.vocab["hello"], found.merges[0]    # 31373, ("h", "e")

Only BPE is understood, with GPT-2's byte alphabet or with SentencePiece's byte fallback. The file
may come from anywhere: every value that is used later has been checked here.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import ConfigDict, Field

from edgegauge.document import Document, parse, read_json_object
from edgegauge.errors import InputError

MAX_IDS = 2**20
"""More tokens than any vocabulary `ModelSpec` allows."""
MAX_MERGES = 2**22
MAX_TOKEN_BYTES = 2**16


class AddedToken(Document):
    """A token that is cut out of the text before anything else happens to it."""

    model_config = ConfigDict(extra="ignore")

    id: int = Field(ge=0, lt=MAX_IDS)
    content: str = Field(min_length=1, max_length=MAX_TOKEN_BYTES)
    special: bool = False
    lstrip: bool = False
    rstrip: bool = False
    single_word: bool = False


class _Rest(Document):
    """What is small in the file, checked at once."""

    model_config = ConfigDict(extra="ignore")

    added_tokens: list[AddedToken] = Field(default=[], max_length=MAX_IDS)
    normalizer: dict[str, Any] | None = None
    pre_tokenizer: dict[str, Any] | None = None
    post_processor: dict[str, Any] | None = None


class _BpeOptions(Document):
    model_config = ConfigDict(extra="ignore")

    unk_token: str | None = None
    continuing_subword_prefix: str | None = None
    end_of_word_suffix: str | None = None
    byte_fallback: bool = False
    ignore_merges: bool = False


@dataclass(frozen=True, slots=True)
class TokenizerFile:
    """A BPE tokenizer as its file gives it."""

    path: Path
    vocab: dict[str, int]
    merges: list[tuple[str, str]]
    added: list[AddedToken]
    unk_token: str | None
    byte_fallback: bool
    ignore_merges: bool
    normalizer: dict[str, Any] | None
    pre_tokenizer: dict[str, Any] | None
    post_processor: dict[str, Any] | None


def read_tokenizer_file(folder: Path) -> TokenizerFile:
    """`folder/tokenizer.json`, checked; raises InputError naming the key that is wrong."""
    path = folder / "tokenizer.json"
    if not path.exists():
        old = " (tokenizer.model alone is not enough)" if _has_model(folder) else ""
        raise InputError(
            f"no tokenizer.json in {folder}{old}",
            hint="a fast tokenizer of the transformers library writes it: save_pretrained(FOLDER)",
        )
    raw = read_json_object(path)
    model = raw.get("model")
    if not isinstance(model, dict):
        raise InputError(f"model: required, but missing or no object @ {path}")
    kind = model.get("type", "BPE" if "merges" in model else None)
    if kind != "BPE":
        raise InputError(
            f"model.type: {str(kind)[:40]!r} is not supported @ {path}",
            hint="byte-level BPE and SentencePiece-style BPE tokenizers can be converted",
        )
    options = parse({k: v for k, v in model.items() if k in _BpeOptions.model_fields}, _BpeOptions,
                    f"{path}: model")  # fmt: skip
    if options.continuing_subword_prefix or options.end_of_word_suffix:
        raise InputError(f"model: subword prefixes and word suffixes are not supported @ {path}")
    rest = parse(raw, _Rest, str(path))
    vocab = _vocab(model.get("vocab"), path)
    return TokenizerFile(
        path=path,
        vocab=vocab,
        merges=_merges(model.get("merges"), vocab, path),
        added=rest.added_tokens,
        unk_token=options.unk_token,
        byte_fallback=options.byte_fallback,
        ignore_merges=options.ignore_merges,
        normalizer=rest.normalizer,
        pre_tokenizer=rest.pre_tokenizer,
        post_processor=rest.post_processor,
    )


def _has_model(folder: Path) -> bool:
    return (folder / "tokenizer.model").exists()


def _vocab(raw: Any, path: Path) -> dict[str, int]:
    """`model.vocab` with every text encodable and every id its own."""
    if not isinstance(raw, dict) or not raw or len(raw) > MAX_IDS:
        raise InputError(f"model.vocab: expected an object of 1 to {MAX_IDS} tokens @ {path}")
    owner: dict[int, str] = {}
    for token, number in raw.items():
        where = f"model.vocab[{token[:40]!r}]"
        if type(number) is not int or not 0 <= number < MAX_IDS:
            raise InputError(f"{where}: expected an id, got {str(number)[:40]} @ {path}")
        if number in owner:
            other = owner[number][:40]
            raise InputError(f"{where}: id {number} is that of {other!r} too @ {path}")
        if not _encodable(token) or len(token) > MAX_TOKEN_BYTES:
            raise InputError(f"{where}: not a text that can be stored @ {path}")
        owner[number] = token
    return raw


def _encodable(token: str) -> bool:
    """Whether the text has a UTF-8 form (no lone surrogates) and no NUL, which ends a C string."""
    if token.isascii():
        return "\0" not in token
    try:
        return b"\0" not in token.encode()
    except UnicodeEncodeError:
        return False


def _merges(raw: Any, vocab: dict[str, int], path: Path) -> list[tuple[str, str]]:
    """`model.merges` as pairs, from the old form "a b" or the new one ["a", "b"]."""
    if not isinstance(raw, list) or len(raw) > MAX_MERGES:
        raise InputError(f"model.merges: expected a list of at most {MAX_MERGES} @ {path}")
    merges: list[tuple[str, str]] = []
    for index, entry in enumerate(raw):
        # In the old form no token holds a space; the first one separates.
        pair = entry.split(" ") if isinstance(entry, str) else entry
        if not (
            isinstance(pair, list) and len(pair) == 2 and all(isinstance(p, str) for p in pair)
        ):
            shown = repr(entry)[:60]
            raise InputError(f"model.merges[{index}]: expected two tokens, got {shown} @ {path}")
        first, second = pair
        for part in (first, second, first + second):
            if part not in vocab:
                raise InputError(
                    f"model.merges[{index}]: {part[:40]!r} is not in the vocabulary @ {path}"
                )
        merges.append((first, second))
    return merges
