"""Tokenizers in the form of each model family, trained on a few sentences, for tests.

`write_tokenizer(folder, style, size)` writes `tokenizer.json`, `tokenizer_config.json` and
`generation_config.json` with exactly `size` ids. The structure of each style (normalizer,
pre-tokenizer, post-processor, decoder, where special tokens sit) is that of the published models.
"""

from __future__ import annotations

import functools
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from tokenizers import Regex, Tokenizer, decoders, models, normalizers, processors, trainers
from tokenizers import pre_tokenizers as pre

STYLES = ("smollm", "gpt2", "qwen2", "llama3", "llama2", "metaspace", "gemma")

CORPUS = """
The quick brown fox jumps over the lazy dog, and then it sleeps in the warm afternoon sun.
A small model must answer the question it was asked; it shouldn't answer another one.
Turn on the light in the kitchen, set the heating to 21 degrees and wake me at 7:30 tomorrow.
We're measuring memory, latency and energy: 12 GB of RAM, 3.5 ms per token, 0.7 J in 2024.
def add(first, second):
    return first + second  # the sum of two numbers
the there then these those that this thing think thin other another weather whether
Nobody knows how much battery remains, because every manufacturer estimates capacity differently.
Please remind Alice to buy bread, butter, cheese and seventeen green apples before Wednesday.
Conversion should preserve meaning: numbers, punctuation marks, spaces and even unusual symbols.
Where possible we prefer measured figures over predicted ones, and predictions over vague guesses.
""".strip().splitlines()

CONTRACTIONS = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)"
WORDS = r"[^\r\n\p{L}\p{N}]?\p{L}+"
REST = r" ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
QWEN2 = rf"{CONTRACTIONS}|{WORDS}|\p{{N}}|{REST}"
LLAMA3 = rf"{CONTRACTIONS}|{WORDS}|\p{{N}}{{1,3}}|{REST}"

TURN_ENDS = {"smollm": "<|im_end|>", "qwen2": "<|im_end|>", "llama3": "<|eot_id|>",
             "gemma": "<end_of_turn>"}  # fmt: skip
SPECIALS: dict[str, list[str]] = {
    "smollm": ["<|endoftext|>", "<|im_start|>", "<|im_end|>", "<repo_name>"],
    "gpt2": ["<|endoftext|>"],
    "qwen2": ["<|endoftext|>", "<|im_start|>", "<|im_end|>"],
    "llama3": ["<|begin_of_text|>", "<|end_of_text|>", "<|start_header_id|>", "<|eot_id|>"],
    "llama2": ["<unk>", "<s>", "</s>"],
    "metaspace": ["<unk>", "<s>", "</s>"],
    "gemma": ["<pad>", "<eos>", "<bos>", "<unk>", "<start_of_turn>", "<end_of_turn>"],
}
ROLES: dict[str, dict[str, str | None]] = {
    "smollm": {"bos": "<|im_start|>", "eos": "<|im_end|>", "unk": "<|endoftext|>"},
    "gpt2": {"bos": "<|endoftext|>", "eos": "<|endoftext|>", "unk": "<|endoftext|>"},
    "qwen2": {"bos": None, "eos": "<|im_end|>", "pad": "<|endoftext|>"},
    "llama3": {"bos": "<|begin_of_text|>", "eos": "<|eot_id|>"},
    "llama2": {"bos": "<s>", "eos": "</s>", "unk": "<unk>"},
    "metaspace": {"bos": "<s>", "eos": "</s>", "unk": "<unk>", "pad": "</s>"},
    "gemma": {"bos": "<bos>", "eos": "<eos>", "unk": "<unk>", "pad": "<pad>"},
}


def write_tokenizer(folder: Path, style: str, size: int) -> dict[str, Any]:
    """Write the tokenizer files; returns the special ids that `config.json` repeats."""
    text = _trained(style, size)
    (folder / "tokenizer.json").write_text(text, encoding="utf-8")
    document = json.loads(text)
    ids = {t["content"]: t["id"] for t in document["added_tokens"]}
    roles = ROLES[style]
    config = {f"{role}_token": token for role, token in roles.items()}
    config |= {"tokenizer_class": "PreTrainedTokenizerFast", "chat_template": _template(style)}
    if style in ("llama2", "metaspace", "gemma"):
        config |= {"add_bos_token": True, "add_eos_token": False}
    _write(folder / "tokenizer_config.json", config)
    special = {f"{role}_token_id": ids[token] for role, token in roles.items() if token}
    special.pop("unk_token_id", None)
    generation: dict[str, Any] = dict(special)
    if style == "gemma":
        generation["eos_token_id"] = [ids["<eos>"], ids["<end_of_turn>"]]
    _write(folder / "generation_config.json", generation)
    return special


@functools.cache
def _trained(style: str, size: int) -> str:
    """The text of `tokenizer.json`; training takes longer than most tests."""
    spm = style in ("llama2", "metaspace", "gemma")
    document = _sentencepiece_style(style, size) if spm else _byte_level(style, size)
    return json.dumps(document, ensure_ascii=False)


def _template(style: str) -> str:
    end = TURN_ENDS.get(style, ROLES[style]["eos"])
    return (
        "{% for m in messages %}{{ m['role'] + ': ' + m['content'] + '"
        + str(end)
        + "' }}{% endfor %}"
    )


def edit_tokenizer(folder: Path, style: str, change: Callable[[Any], None]) -> Path:
    """The folder with this style's files, after `change` to the parsed `tokenizer.json`."""
    write_tokenizer(folder, style, 512)
    path = folder / "tokenizer.json"
    document = json.loads(path.read_text(encoding="utf-8"))
    change(document)
    path.write_text(json.dumps(document), encoding="utf-8")
    return folder


def _byte_level(style: str, size: int) -> dict[str, Any]:
    """GPT-2's scheme: BPE over bytes shown as printable characters."""
    first = style == "smollm"
    tokenizer = Tokenizer(models.BPE())
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.pre_tokenizer = {
        "smollm": pre.Sequence([pre.Digits(individual_digits=True), pre.ByteLevel(False)]),
        "gpt2": pre.ByteLevel(add_prefix_space=False),
        "qwen2": _split_then_bytes(QWEN2),
        "llama3": _split_then_bytes(LLAMA3),
    }[style]
    if style == "qwen2":
        tokenizer.normalizer = normalizers.NFC()
    special = SPECIALS[style]
    trainer = trainers.BpeTrainer(
        vocab_size=size if first else size - len(special),
        special_tokens=special if first else [],
        initial_alphabet=pre.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(CORPUS * 2, trainer)
    tokenizer.add_special_tokens(special)
    if style in ("qwen2", "gpt2"):
        tokenizer.post_processor = processors.ByteLevel(trim_offsets=False)
    if style == "llama3":
        bos = special[0]
        template = _prepending(bos, tokenizer.token_to_id(bos))
        tokenizer.post_processor = processors.Sequence([processors.ByteLevel(False), template])
    document: dict[str, Any] = json.loads(tokenizer.to_str())
    document["model"]["ignore_merges"] = style == "llama3"
    if style == "gpt2":  # files written before 2024 hold "a b" and not ["a", "b"]
        document["model"]["merges"] = [" ".join(pair) for pair in document["model"]["merges"]]
    if len(document["model"]["vocab"]) + (0 if first else len(special)) != size:
        raise ValueError(f"the corpus gives no {style} tokenizer of {size} ids")
    return document


def _split_then_bytes(pattern: str) -> pre.PreTokenizer:
    return pre.Sequence(
        [
            pre.Split(Regex(pattern), behavior="isolated"),
            pre.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )


def _prepending(token: str, number: int) -> processors.PostProcessor:
    return processors.TemplateProcessing(
        single=f"{token} $A", pair=f"{token} $A {token}:1 $B:1", special_tokens=[(token, number)]
    )


def _sentencepiece_style(style: str, size: int) -> dict[str, Any]:
    """BPE over characters with a token per byte for what is left, as converted from SentencePiece.

    A SentencePiece file has scored pieces and no merges; the published conversion lists every
    split of every piece into two pieces, best piece first, and so does this.
    """
    special = SPECIALS[style]
    head = [*special, *(f"<0x{byte:02X}>" for byte in range(256))]
    pieces = _learn_pieces(size - len(head))
    vocab = {token: number for number, token in enumerate([*head, *pieces])}
    if len(vocab) != size:
        raise ValueError(f"the corpus gives no {style} tokenizer of {size} ids")
    merges = [
        (piece[:cut], piece[cut:])
        for piece in (p for p in pieces if len(p) > 1)
        for cut in range(1, len(piece))
        if piece[:cut] in vocab and piece[cut:] in vocab
    ]
    model = models.BPE(
        vocab, merges, unk_token="<unk>", fuse_unk=True, byte_fallback=True, dropout=None
    )
    tokenizer = Tokenizer(model)
    space = normalizers.Replace(" ", "▁")
    tail = [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse()]
    if style == "llama2":
        tokenizer.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), space])
        tail.append(decoders.Strip(" ", 1, 0))
    elif style == "metaspace":
        tokenizer.pre_tokenizer = pre.Metaspace("▁", prepend_scheme="first", split=False)
        tail.append(decoders.Strip(" ", 1, 0))
    else:
        tokenizer.normalizer = space
        tokenizer.pre_tokenizer = pre.Split(" ", behavior="merged_with_previous")
    tokenizer.decoder = decoders.Sequence(tail)
    tokenizer.add_special_tokens(special)
    bos = "<bos>" if style == "gemma" else "<s>"
    tokenizer.post_processor = _prepending(bos, vocab[bos])
    document: dict[str, Any] = json.loads(tokenizer.to_str())
    return document


def _learn_pieces(count: int) -> list[str]:
    """The best `count` pieces of the corpus, longest merges last, characters at the very end."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre.Metaspace("▁")
    trainer = trainers.BpeTrainer(vocab_size=count, show_progress=False)
    tokenizer.train_from_iterator(CORPUS * 2, trainer)
    by_id = sorted(tokenizer.get_vocab().items(), key=lambda item: item[1])
    learned = [token for token, _ in by_id]
    return sorted(learned, key=lambda token: len(token) == 1)


def _write(path: Path, value: Any) -> None:
    path.write_text(json.dumps(value, ensure_ascii=False), encoding="utf-8")
