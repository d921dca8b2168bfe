"""The tokenizer of the ladder: byte-level BPE of 512 tokens in the form of SmolLM2.

Digits are single tokens; words keep their leading space; nothing is normalised. llama.cpp knows
this pre-tokenizer as `smollm`. The newline between a prompt and its answer is always a token of
its own, so the tokens of a prompt are a prefix of the tokens of prompt and answer.

    python scripts/ladder/tokenizer.py src/edgegauge/ladder/ladder-1m
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import generate
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers

BOS, EOS, PAD = "<|bos|>", "<|eos|>", "<|pad|>"
SPECIAL = (BOS, EOS, PAD)  # ids 0, 1, 2
VOCAB_SIZE = 512
CORPUS_RECORDS = 20_000  # the first of the training seed


def corpus() -> list[str]:
    """Training text only; the held-out half never shapes the vocabulary."""
    rows = generate.records(generate.TRAIN_SEED, False, CORPUS_RECORDS)
    return [row.prompt + row.answer for row in rows]


def train(texts: list[str]) -> Tokenizer:
    """A tokenizer that puts BOS before every text when asked for special tokens."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Digits(individual_digits=True),
            pre_tokenizers.ByteLevel(add_prefix_space=False, trim_offsets=True, use_regex=True),
        ]
    )
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=VOCAB_SIZE,
        special_tokens=list(SPECIAL),
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        show_progress=False,
    )
    tokenizer.train_from_iterator(texts, trainer)
    tokenizer.post_processor = processors.TemplateProcessing(
        single=f"{BOS} $A", pair=f"{BOS} $A {BOS} $B", special_tokens=[(BOS, SPECIAL.index(BOS))]
    )
    return tokenizer


def save(tokenizer: Tokenizer, folder: Path, max_length_tokens: int) -> None:
    """Write `tokenizer.json` and `tokenizer_config.json`."""
    folder.mkdir(parents=True, exist_ok=True)
    tokenizer.save(str(folder / "tokenizer.json"))
    settings = {
        "add_bos_token": True,
        "add_eos_token": False,
        "add_prefix_space": False,
        "bos_token": BOS,
        "clean_up_tokenization_spaces": False,
        "eos_token": EOS,
        "model_max_length": max_length_tokens,
        "pad_token": PAD,
        "tokenizer_class": "PreTrainedTokenizerFast",
        "unk_token": None,
    }
    text = json.dumps(settings, indent=2) + "\n"
    (folder / "tokenizer_config.json").write_text(text, encoding="utf-8", newline="\n")


def main() -> None:
    """Train the tokenizer and write it into a folder."""
    parser = argparse.ArgumentParser(description="train the tokenizer of the ladder")
    parser.add_argument("folder", type=Path)
    save(train(corpus()), parser.parse_args().folder, 512)


if __name__ == "__main__":
    main()
