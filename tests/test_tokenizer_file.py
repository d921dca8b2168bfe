"""Tokenizer files that are wrong, cut short or hostile: refused with the place, never worse."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from make_models import make_spec
from make_tokenizers import edit_tokenizer, write_tokenizer

from edgegauge.errors import InputError
from edgegauge_converters.tokenizer import read_tokenizer

SIZE = 512


def _set(*keys: Any) -> Callable[[dict[str, Any]], None]:
    """Sets the value (last) at a path of keys."""

    def change(document: Any) -> None:
        *path, last, value = keys
        for key in path:
            document = document[key]
        document[last] = value

    return change


MERGE = ("model", "merges", 0)
WRONG = [
    (_set("model", {"type": "Unigram", "vocab": []}), "model.type: 'Unigram' is not supported"),
    (_set("model", []), "model: required"),
    (_set("model", "vocab", []), "model.vocab: expected an object"),
    (_set("model", "vocab", "the", -1), r"model.vocab\['the'\]: expected an id, got -1"),
    (_set("model", "vocab", "the", True), "expected an id, got True"),
    (_set("model", "vocab", "the", 2**40), "expected an id"),
    (_set("model", "vocab", "!", 300), r"id 300 is that of '.*' too"),
    (_set("model", "vocab", "\ud800", 511), "not a text that can be stored|is that of"),
    (_set("model", "vocab", {"a\0b": 0}), "not a text that can be stored"),
    (_set("model", "merges", {}), "model.merges: expected a list"),
    (_set(*MERGE, "a b c"), r"model.merges\[0\]: expected two tokens"),
    (_set(*MERGE, 7), r"model.merges\[0\]: expected two tokens, got 7"),
    (_set(*MERGE, ["nobody", "there"]), r"model.merges\[0\]: 'nobody' is not in the vocabulary"),
    (_set("model", "end_of_word_suffix", "</w>"), "word suffixes are not supported"),
    (_set("added_tokens", 0, "id", "x"), "added_tokens.0.id"),
    (_set("added_tokens", 0, "id", 400), "contradict the vocabulary"),
    (_set("pre_tokenizer", {"type": "Whitespace"}), "neither byte-level nor with byte_fallback"),
    (_set("pre_tokenizer", {"type": "ByteLevel", "add_prefix_space": True}), "no splitter known"),
    (_set("pre_tokenizer", "pretokenizers", 0, "individual_digits", False), "digits False"),
    (_set("model", "ignore_merges", True), "ignore_merges True"),
]


@pytest.mark.parametrize("change, message", WRONG)
def test_wrong_files_are_refused(
    tmp_path: Path, change: Callable[[dict[str, Any]], None], message: str
) -> None:
    with pytest.raises(InputError, match=message) as caught:
        read_tokenizer(edit_tokenizer(tmp_path, "smollm", change), make_spec("llama"))
    assert "tokenizer.json" in str(caught.value)


def test_a_missing_byte_is_refused(tmp_path: Path) -> None:
    """llama.cpp would stop the whole process on the first text that needs it."""

    def drop(document: dict[str, Any]) -> None:
        document["model"]["vocab"]["<other>"] = document["model"]["vocab"].pop("<0x0A>")

    with pytest.raises(InputError, match="1 are missing"):
        read_tokenizer(edit_tokenizer(tmp_path, "gemma", drop), make_spec("llama"))


@pytest.mark.parametrize(
    "content", [b"", b"{", b"[]", b"\xff\xfe", b'{"model": ' + b"[" * 100_000, b'{"a": NaN}']
)
def test_what_is_no_tokenizer_is_refused(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "tokenizer.json").write_bytes(content)
    with pytest.raises(InputError, match=r"tokenizer\.json"):
        read_tokenizer(tmp_path, make_spec("llama"))


def test_a_missing_file_says_what_to_do(tmp_path: Path) -> None:
    (tmp_path / "tokenizer.model").write_bytes(b"x")
    with pytest.raises(InputError, match=r"tokenizer\.model alone") as caught:
        read_tokenizer(tmp_path, make_spec("llama"))
    assert "save_pretrained" in str(caught.value.hint)


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner),
    max_leaves=5,
)
PLACES = [
    ("model",), ("model", "vocab"), ("model", "vocab", "the"), ("model", "merges"), MERGE,
    ("model", "unk_token"), ("added_tokens",), ("added_tokens", 0), ("pre_tokenizer",),
    ("pre_tokenizer", "pretokenizers"), ("normalizer",), ("post_processor",),
]  # fmt: skip


@settings(max_examples=120, deadline=None, derandomize=True)
@given(st.sampled_from(PLACES), json_values, st.sampled_from(["smollm", "gemma"]))
def test_any_value_anywhere_is_read_or_refused(place: Any, value: Any, style: str) -> None:
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        write_tokenizer(folder, style, SIZE)
        document = json.loads((folder / "tokenizer.json").read_text(encoding="utf-8"))
        try:
            _set(*place, value)(document)
        except (TypeError, KeyError):
            return
        (folder / "tokenizer.json").write_text(json.dumps(document), encoding="utf-8")
        (folder / "tokenizer_config.json").write_text(json.dumps({"eos_token": value}))
        try:
            data = read_tokenizer(folder, make_spec("llama"))
        except InputError:
            return
        assert len(data.tokens) == len(set(data.tokens)) == len(data.types) == SIZE
