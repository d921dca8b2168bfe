"""WordPiece tokenizers: `tokenizer.json` as BERT's models have it, checked.

    found = read_wordpiece(folder, spec.vocab)
    found.tokens[101], found.special["cls"]         # "[CLS]", 101

Words are cut by BERT's rules (normalizer and pre-tokenizer of that name) and each is covered by the
longest pieces from its start, of which all but the first begin with `##` (Schuster and Nakajima
2012; `models/wordpiece` of Hugging Face's tokenizers library). The file may come from anywhere:
every value that is used later has been checked here.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import ConfigDict, Field

from edgegauge.document import Document, parse, read_json_object
from edgegauge.errors import InputError
from edgegauge_converters.tokenizer_file import MAX_IDS, AddedToken

PREFIX = "##"
MAX_TOKEN_BYTES = 2**16
ROLES = {"cls": "[CLS]", "sep": "[SEP]", "unk": "[UNK]", "pad": "[PAD]", "mask": "[MASK]"}
"""Role: the text that BERT's tokenizers use for it."""
NEEDED = ("cls", "sep", "unk")


class _Model(Document):
    model_config = ConfigDict(extra="ignore")

    type: str | None = None
    unk_token: str
    continuing_subword_prefix: str = PREFIX
    vocab: dict[str, int] = Field(min_length=1, max_length=MAX_IDS)


class _Normalizer(Document):
    """BertNormalizer's options with its defaults."""

    type: str
    clean_text: bool = True
    handle_chinese_chars: bool = True
    strip_accents: bool | None = None
    lowercase: bool = True


class _File(Document):
    model_config = ConfigDict(extra="ignore")

    model: _Model
    normalizer: _Normalizer | None = None
    pre_tokenizer: dict[str, Any] | None = None
    added_tokens: list[AddedToken] = Field(default=[], max_length=MAX_IDS)


@dataclass(frozen=True, slots=True)
class WordPiece:
    """A vocabulary by id, with None where the embedding has a row and no token."""

    tokens: list[str | None]
    special: dict[str, int]
    """Ids by role, of those in ROLES that there are."""
    added: frozenset[int]
    """Ids that are cut out of a text before anything else happens to it."""
    lowercase: bool
    strip_accents: bool


def read_wordpiece(folder: Path, rows: int) -> WordPiece:
    """The tokenizer of `folder` for an embedding of so many rows; InputError if it does not fit."""
    path = folder / "tokenizer.json"
    if not path.exists():
        raise InputError(
            f"no tokenizer.json in {folder}",
            hint="a fast tokenizer of the transformers library writes it: save_pretrained(FOLDER)",
        )
    file = parse(read_json_object(path), _File, str(path))
    problems = _problems(file)
    tokens = _tokens(file, rows, problems)
    special = {role: tokens.index(text) for role, text in ROLES.items() if text in tokens}
    problems += [f"{ROLES[role]}: no such token" for role in NEEDED if role not in special]
    if problems:
        raise InputError(f"{path} is no WordPiece tokenizer of a BERT", problems[:20])
    normalizer = file.normalizer or _Normalizer(type="BertNormalizer", lowercase=False)
    accents = normalizer.strip_accents
    return WordPiece(
        tokens=tokens,
        special=special,
        added=frozenset(t.id for t in file.added_tokens),
        lowercase=normalizer.lowercase,
        strip_accents=normalizer.lowercase if accents is None else accents,
    )


def _problems(file: _File) -> list[str]:
    found = []
    if file.model.type not in (None, "WordPiece"):
        found.append(f"model.type: expected WordPiece, got {str(file.model.type)[:40]!r}")
    if file.model.continuing_subword_prefix != PREFIX:
        found.append(f"model.continuing_subword_prefix: expected {PREFIX}")
    if file.model.unk_token != ROLES["unk"]:
        found.append(f"model.unk_token: expected [UNK], got {file.model.unk_token[:40]!r}")
    if file.normalizer is None or file.normalizer.type != "BertNormalizer":
        found.append("normalizer: expected a BertNormalizer")
    elif not (file.normalizer.clean_text and file.normalizer.handle_chinese_chars):
        found.append("normalizer: clean_text and handle_chinese_chars must be on")
    if (file.pre_tokenizer or {}).get("type") != "BertPreTokenizer":
        found.append("pre_tokenizer: expected a BertPreTokenizer")
    return found


def _tokens(file: _File, rows: int, problems: list[str]) -> list[str | None]:
    """Texts by id; those that cannot be stored or have no row of their own are problems."""
    tokens: list[str | None] = [None] * rows
    added = {token.content: token.id for token in file.added_tokens}
    for text, number in (*file.model.vocab.items(), *added.items()):
        shown = text[:40]
        if not 0 <= number < rows:
            problems.append(f"{shown!r}: id {number}, but the embedding has {rows} rows")
        elif tokens[number] not in (None, text):
            problems.append(f"{shown!r}: id {number} is that of {str(tokens[number])[:40]!r} too")
        elif not _encodable(text):
            problems.append(f"{shown!r}: not a text that can be stored")
        else:
            tokens[number] = text
    return tokens


def _encodable(text: str) -> bool:
    """Whether it has a UTF-8 form (no lone surrogates) and no NUL, which ends a C string."""
    try:
        return 0 < len(text.encode()) <= MAX_TOKEN_BYTES and "\0" not in text
    except UnicodeEncodeError:
        return False
