"""Tokenizers: llama.cpp must split text exactly as Hugging Face's library does."""

from __future__ import annotations

import atexit
import ctypes
import functools
import json
import shutil
import tempfile
import unicodedata
from pathlib import Path
from typing import Any

import gguf
import llama_cpp
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from make_models import make_spec
from make_tokenizers import STYLES, TURN_ENDS, edit_tokenizer, write_tokenizer
from tokenizers import Tokenizer

from edgegauge.errors import InputError
from edgegauge.measure.runtimes import llama_log
from edgegauge_converters.tokenizer import (
    TokenizerData,
    TokenType,
    add_to_gguf,
    read_tokenizer,
    synthetic,
)

SIZE = 512
TEXTS = [
    "", " ", "   ", "\n", "\n\n\n", "\t", "a", "The light isn't 1234", "a\t\tb\r\n\r\n c",
    "thin other the thing whether", "日本語、混ぜて", "0123456789 12 345 ½ Ⅷ ²", "trailing ",
    "It's WE'RE they'LL don't I'd",
    "def add(first,  second):\n    return first + second", "a" * 200, "héllo émigré",
    "عربى", "🙂 🏳️‍🌈👩‍👩‍👧", "\x00?\x7f\u200b", "<|im_start|>user\nhi<|im_end|>", "x<s>y</s>",
    "<bos>hello<end_of_turn>\n", "<|begin_of_text|><|eot_id|>", "▁ literal", "<0x41>",
]  # fmt: skip
CLEANS_SPACES = ("gpt2", "llama3")
"""Styles for which llama.cpp's detokenizer drops spaces before punctuation on purpose."""


class Vocabulary:
    """A tokenizer in a GGUF file, as llama.cpp loads it."""

    def __init__(self, path: Path, data: TokenizerData) -> None:
        writer = gguf.GGUFWriter(path, "llama")
        add_to_gguf(writer, data)
        writer.write_header_to_file()
        writer.write_kv_data_to_file()
        writer.write_tensors_to_file()
        writer.close()
        llama_cpp.llama_backend_init()
        llama_log.capture(llama_cpp)
        params = llama_cpp.llama_model_default_params()
        params.vocab_only = True
        self.model = llama_cpp.llama_model_load_from_file(str(path).encode(), params)
        assert self.model, llama_log.complaint()
        self.pointer = llama_cpp.llama_model_get_vocab(self.model)
        self.size = llama_cpp.llama_vocab_n_tokens(self.pointer)

    def encode(self, text: str, *, special: bool = True) -> list[int]:
        raw = text.encode()
        ids = (ctypes.c_int32 * (len(raw) + 8))()
        count = llama_cpp.llama_tokenize(
            self.pointer, raw, len(raw), ids, len(ids), special, special
        )
        assert count >= 0
        return list(ids[:count])

    def decode(self, ids: list[int]) -> str:
        array = (ctypes.c_int32 * len(ids))(*ids)
        buffer = ctypes.create_string_buffer(32 * len(ids) + 64)
        count = llama_cpp.llama_detokenize(
            self.pointer, array, len(ids), buffer, len(buffer), True, False
        )
        assert count >= 0
        return buffer.raw[:count].decode()

    def ends(self) -> set[int]:
        is_end = llama_cpp.llama_vocab_is_eog
        return {number for number in range(self.size) if is_end(self.pointer, number)}


@functools.cache
def _temporary(name: str) -> Path:
    """A folder for the whole run: hypothesis and fixtures of one test do not mix."""
    folder = Path(tempfile.mkdtemp(prefix=f"edgegauge-{name}-"))
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    return folder


@functools.cache
def _folder(style: str) -> Path:
    write_tokenizer(_temporary(style), style, SIZE)
    return _temporary(style)


@functools.cache
def _pair(style: str) -> tuple[Vocabulary, Tokenizer]:
    folder = _folder(style)
    data = read_tokenizer(folder, make_spec("llama", vocab=SIZE))
    return Vocabulary(folder / "vocab.gguf", data), Tokenizer.from_file(
        str(folder / "tokenizer.json")
    )


@pytest.fixture(params=STYLES)
def style(request: pytest.FixtureRequest) -> str:
    return str(request.param)


def _comparable(style: str, text: str) -> bool:
    """Leaves out what llama.cpp is known, and said in the warnings, to do otherwise."""
    if style == "qwen2":
        return unicodedata.is_normalized("NFC", text)
    return style != "metaspace" or not (text.startswith((" ", "▁")) or "<" in text)


@pytest.mark.parametrize("text", TEXTS)
def test_splits_as_the_original(style: str, text: str) -> None:
    vocabulary, original = _pair(style)
    if _comparable(style, text):
        assert vocabulary.encode(text) == original.encode(text).ids


words = st.sampled_from(["the", " the", "The", "thing", " 12", "345", "'s", "'LL", "  ", "\n", "é"])
characters = st.characters(min_codepoint=1, max_codepoint=0x2FFF, exclude_categories=["Cs", "Cn"])


@settings(max_examples=60, deadline=None, derandomize=True)
@given(st.lists(words | characters, max_size=30).map("".join))
def test_splits_any_text_as_the_original(text: str) -> None:
    for name in STYLES:
        vocabulary, original = _pair(name)
        plain = unicodedata.normalize("NFC", text) if name == "qwen2" else text
        if _comparable(name, plain):
            ids = vocabulary.encode(plain, special=False)
            assert ids == original.encode(plain, add_special_tokens=False).ids, name
            if name not in CLEANS_SPACES and "▁" not in plain:
                assert vocabulary.decode(ids) == plain


def test_vocabulary_is_padded_to_the_embedding(style: str, tmp_path: Path) -> None:
    data = read_tokenizer(_folder(style), make_spec("llama", vocab=SIZE + 8))
    assert len(data.tokens) == len(data.types) == SIZE + 8
    assert data.tokens[SIZE] == f"[PAD{SIZE}]"
    assert data.types[SIZE:] == [TokenType.UNUSED] * 8
    assert Vocabulary(tmp_path / "v.gguf", data).size == SIZE + 8


def test_much_padding_is_said() -> None:
    data = read_tokenizer(_folder("smollm"), make_spec("llama", vocab=2 * SIZE))
    assert any("512 of the embedding's 1024 rows" in w for w in data.warnings)


def test_special_tokens_reach_llama_cpp(style: str) -> None:
    vocabulary, original = _pair(style)
    config = json.loads((_folder(style) / "tokenizer_config.json").read_text())
    eos = original.token_to_id(config["eos_token"])
    assert llama_cpp.llama_vocab_eos(vocabulary.pointer) == eos
    assert {eos, original.token_to_id(TURN_ENDS.get(style, config["eos_token"]))} <= (
        vocabulary.ends()
    )
    if config["bos_token"]:
        bos = original.token_to_id(config["bos_token"])
        assert llama_cpp.llama_vocab_bos(vocabulary.pointer) == bos
    assert vocabulary.encode("the")[:1] == original.encode("the").ids[:1]  # BOS or none


@pytest.mark.parametrize("named, listed, expected", [
    ("<|im_end|>", [2, 0], {"eos": 2}),  # SmolLM2-Instruct, Qwen-Instruct
    ("<|endoftext|>", [2, 0], {"eos": 0, "eot": 2}),
    ("<|endoftext|>", 2, {"eos": 2}),  # the tokenizer still names the base model's end
    ("<|im_end|>", None, {"eos": 2}),
    ({"content": "<|im_end|>", "lstrip": False}, [2], {"eos": 2}),
    (None, [0], {"eos": 0}),
    ("<|im_end|>", [9999], {}),
])  # fmt: skip
def test_end_of_generation(
    tmp_path: Path, named: Any, listed: Any, expected: dict[str, int]
) -> None:
    write_tokenizer(tmp_path, "smollm", SIZE)
    config = {"eos_token": named, "chat_template": "{{ m }}<|im_end|>"}
    (tmp_path / "tokenizer_config.json").write_text(json.dumps(config))
    (tmp_path / "generation_config.json").write_text(json.dumps({"eos_token_id": listed}))
    ids = read_tokenizer(tmp_path, make_spec("llama")).special.ids
    assert {role: ids[role] for role in ("eos", "eot") if role in ids} == expected


def test_no_end_token_is_said(tmp_path: Path) -> None:
    write_tokenizer(tmp_path, "smollm", SIZE)
    for name in ("tokenizer_config.json", "generation_config.json"):
        (tmp_path / name).unlink()
    assert any("no end token" in w for w in read_tokenizer(tmp_path, make_spec("llama")).warnings)


def test_chat_template_file_wins(tmp_path: Path) -> None:
    write_tokenizer(tmp_path, "smollm", SIZE)
    (tmp_path / "chat_template.jinja").write_text("{{ new }}", encoding="utf-8")
    assert read_tokenizer(tmp_path, make_spec("llama")).special.chat_template == "{{ new }}"


def test_a_huge_chat_template_is_refused(tmp_path: Path) -> None:
    write_tokenizer(tmp_path, "smollm", SIZE)
    (tmp_path / "chat_template.jinja").write_text("x" * 1_000_001, encoding="utf-8")
    with pytest.raises(InputError, match="chat_template: longer than 1000000"):
        read_tokenizer(tmp_path, make_spec("llama"))


def test_several_chat_templates_are_kept(tmp_path: Path) -> None:
    write_tokenizer(tmp_path, "smollm", SIZE)
    named = [{"name": "default", "template": "a"}, {"name": "tool_use", "template": "b"}]
    config = {"eos_token": "<|im_end|>", "chat_template": [*named, {"name": 3}, "x"]}
    (tmp_path / "tokenizer_config.json").write_text(json.dumps(config))
    data = read_tokenizer(tmp_path, make_spec("llama"))
    assert data.special.chat_template == named
    path = tmp_path / "v.gguf"
    Vocabulary(path, data)
    field = gguf.GGUFReader(path).get_field("tokenizer.chat_template.tool_use")
    assert field is not None and field.contents() == "b"


def test_both_forms_of_merges_are_one(tmp_path: Path) -> None:
    folder = edit_tokenizer(tmp_path, "smollm", lambda d: d["model"].update(
        merges=[" ".join(pair) for pair in d["model"]["merges"]]))  # fmt: skip
    spec = make_spec("llama")
    assert read_tokenizer(folder, spec) == read_tokenizer(_folder("smollm"), spec)


def test_incomplete_merges_are_said(tmp_path: Path) -> None:
    folder = edit_tokenizer(
        tmp_path, "gemma", lambda d: d["model"].update(merges=d["model"]["merges"][::2])
    )
    assert "are not those of a SentencePiece model" in str(
        read_tokenizer(folder, make_spec("llama")).warnings
    )
    assert not read_tokenizer(_folder("gemma"), make_spec("llama")).warnings


def test_user_defined_tokens_are_found_in_plain_text(tmp_path: Path) -> None:
    def add(document: dict[str, Any]) -> None:
        token = {"id": SIZE, "content": "[tool]", "special": False, "normalized": False,
                 "single_word": False, "lstrip": False, "rstrip": False}  # fmt: skip
        document["added_tokens"].append(token)

    for name in ("qwen2", "gemma"):
        folder = edit_tokenizer(tmp_path, name, add)
        vocabulary = Vocabulary(
            folder / "v.gguf", read_tokenizer(folder, make_spec("llama", vocab=SIZE + 1))
        )
        original = Tokenizer.from_file(str(folder / "tokenizer.json"))
        ids = vocabulary.encode("the [tool] thing", special=False)
        assert SIZE in ids
        assert ids == original.encode("the [tool] thing", add_special_tokens=False).ids


def test_a_few_tokens_beyond_the_embedding_are_left_out(tmp_path: Path) -> None:
    """Gemma 3's text models: the image token has the first id after the embedding."""

    def add_image(document: dict[str, Any]) -> None:
        document["added_tokens"].append({"id": SIZE, "content": "<image>", "special": True})

    data = read_tokenizer(edit_tokenizer(tmp_path, "gemma", add_image), make_spec("llama"))
    assert "1 added tokens, such as '<image>', have ids beyond" in str(data.warnings)
    assert len(data.tokens) == SIZE


@pytest.mark.parametrize("style", ["smollm", "gpt2", "gemma", "llama3"])
def test_a_tokenizer_larger_than_the_embedding_is_refused(style: str) -> None:
    with pytest.raises(InputError, match=r"does not match the model's vocabulary.*511.*500 rows"):
        read_tokenizer(_folder(style), make_spec("llama", vocab=500))


@settings(max_examples=30, deadline=None, derandomize=True)
@given(st.text(st.characters(codec="utf-8"), max_size=30))
def test_the_synthetic_tokenizer_reads_any_text(text: str) -> None:
    vocabulary = _synthetic()
    ids = vocabulary.encode(text)
    assert b"".join(bytes([_BYTES[i]]) for i in ids) == text.encode()


@functools.cache
def _synthetic() -> Vocabulary:
    path = _temporary("synthetic") / "v.gguf"
    return Vocabulary(path, synthetic(make_spec("llama", vocab=1000)))


_BYTES = list(range(256))


@pytest.mark.parametrize("size", [1, 2, 100, 257, 32000])
def test_a_synthetic_tokenizer_has_any_size(tmp_path: Path, size: int) -> None:
    data = synthetic(make_spec("llama", vocab=size))
    assert len(data.tokens) == len(set(data.tokens)) == len(data.types) == size
    assert Vocabulary(tmp_path / "v.gguf", data).size == size
