"""The task of the ladder: home-assistant commands in plain English -> a structured intent.

    turn the bedroom lamp down to 30 percent at quarter past nine tonight
    light.set room=bedroom device=lamp level=30 time=21:15

A command is drawn by choosing a form (a verb, its slots, several phrasings), drawing a meaning and
a wording for each slot, and filling them in. Some commands carry a time, some two intents, some a
change of mind ("thirty, no make that forty percent"), some a typing error.

The split is by meaning: an intent whose slot values hash to residue 0 of 8 is never in a training
sentence, alone or beside another intent, in any wording. The held-out sentences contain only such
intents, so they measure composition and not memory. Everything follows from the seed.

    python scripts/ladder/generate.py --split train --seed 1 --count 5    # JSON lines on stdout
    python scripts/ladder/generate.py --write src/edgegauge/ladder        # the held-out files
"""

from __future__ import annotations

import argparse
import json
import random
import re
import sys
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import slots
from phrases import (
    FIXES,
    FORMS,
    GREETINGS,
    IMPERATIVE,
    JOINS,
    NUMBER_WORDS,
    POLITE_AFTER,
    POLITE_BEFORE,
)
from slots import Piece

TRAIN_SEED, EVALUATION_SEED, TEXT_SEED = 1, 2, 3
EVALUATION_ROWS = 1000
TEXT_RECORDS = 400
HELD_OUT_ONE_IN = 8
TWO_INTENTS, CORRECTION, TYPO, POLITE = 0.2, 0.05, 0.08, 0.35  # shares of the sentences

ANSWER = re.compile(r"[a-z]+\.[a-z]+( [a-z]+=[^ =;]+)+( ; [a-z]+\.[a-z]+( [a-z]+=[^ =;]+)+)*")


class Record(NamedTuple):
    """What the model is given and what it must write before its end-of-sequence token."""

    prompt: str  # one line, ending in the newline that asks for the answer
    answer: str


def draw_slot(rng: random.Random, name: str) -> Piece:
    """A slot, said at once or corrected by the speaker: the last value counts."""
    piece = slots.SLOTS[name](rng)
    if name in slots.CORRECTABLE and rng.random() < CORRECTION:
        meant = slots.SLOTS[name](rng)
        return Piece(meant.meaning, f"{piece.phrase}{rng.choice(FIXES)}{meant.phrase}")
    return piece


def intent(rng: random.Random) -> Piece:
    """One intent: its answer and a sentence for it, without politeness or errors."""
    chosen = rng.choice(FORMS)
    pieces = {name: draw_slot(rng, name) for name in chosen.slots.split()}
    said = rng.choice(chosen.templates).format(**{k: p.phrase for k, p in pieces.items()})
    meanings = [chosen.verb, *(piece.meaning for piece in pieces.values())]
    if rng.random() < chosen.when:
        time = slots.when(rng)
        meanings.append(time.meaning)
        said = f"{said} {time.phrase}" if rng.random() < 0.7 else f"{time.phrase} {said}"
    return Piece(" ".join(meanings), said)


def is_held_out(answer: str) -> bool:
    """Whether one intent is kept from training; the order of two rooms does not matter."""
    key = " ".join(sorted(re.split("[ ,]", answer)))
    return zlib.crc32(key.encode()) % HELD_OUT_ONE_IN == 0


def mistype(rng: random.Random, text: str, answer: str) -> str:
    """One letter inside one long word dropped, doubled or swapped; never in a number or in a word
    that has to be copied, because the error would change the meaning."""
    copied = set(re.split(r"[^a-z]", " ".join(re.findall(r"(?:text|item)=(\S+)", answer))))
    parts = text.split(" ")
    able = [i for i, word in enumerate(parts) if len(word) > 4 and word.isalpha()
            and word not in NUMBER_WORDS and word not in copied]  # fmt: skip
    if not able:
        return text
    where = rng.choice(able)
    word = parts[where]
    at = rng.randint(1, len(word) - 3)
    middle = rng.choice((word[at + 1], word[at] * 2 + word[at + 1], word[at + 1] + word[at]))
    parts[where] = word[:at] + middle + word[at + 2 :]
    return " ".join(parts)


def polite(rng: random.Random, text: str) -> str:
    """The sentence with `please` and its like around it."""
    if rng.random() < 0.5:
        return f"{text} {rng.choice(POLITE_AFTER)}"
    before = POLITE_BEFORE if text.split(" ")[0] in IMPERATIVE else GREETINGS
    return f"{rng.choice(before)} {text}"


def split_intent(rng: random.Random, held_out: bool) -> Piece:
    """An intent of the wanted side of the split."""
    while True:
        piece = intent(rng)
        if is_held_out(piece.meaning) == held_out:
            return piece


def record(rng: random.Random, held_out: bool) -> Record:
    """One sentence with its answer; every intent in it is of the same side of the split."""
    first = split_intent(rng, held_out)
    answer, text = first
    if rng.random() < TWO_INTENTS:
        second = split_intent(rng, held_out)
        answer = f"{first.meaning} ; {second.meaning}"
        text = f"{first.phrase}{rng.choice(JOINS)}{second.phrase}"
    if rng.random() < POLITE:
        text = polite(rng, text)
    if rng.random() < TYPO:
        text = mistype(rng, text, answer)
    return Record(f"{text}\n", answer)


def records(seed: int, held_out: bool, total: int) -> Iterator[Record]:
    """`total` records in the order of the seed; a prompt may come twice."""
    rng = random.Random(seed)
    for _ in range(total):
        yield record(rng, held_out)


def distinct(seed: int, held_out: bool, total: int) -> list[Record]:
    """The first `total` records of the seed with different prompts."""
    rng = random.Random(seed)
    found: dict[str, Record] = {}
    while len(found) < total:
        drawn = record(rng, held_out)
        found.setdefault(drawn.prompt, drawn)
    return list(found.values())


def evaluation() -> list[Record]:
    """The held-out questions that exact match is counted on."""
    return distinct(EVALUATION_SEED, True, EVALUATION_ROWS)


def held_out_text() -> str:
    """Held-out commands and answers, one per line in turn: the text for perplexity."""
    asked = {row.prompt for row in evaluation()}
    rows = distinct(TEXT_SEED, True, TEXT_RECORDS)
    return "".join(f"{row.prompt}{row.answer}\n" for row in rows if row.prompt not in asked)


def to_json(row: Record) -> str:
    """One line of evaluation.jsonl."""
    return json.dumps(row._asdict(), ensure_ascii=False)


def main() -> None:
    """Print records, or write the held-out files into a folder."""
    parser = argparse.ArgumentParser(description="home-assistant commands and their intents")
    parser.add_argument("--split", choices=("train", "heldout"), default="train")
    parser.add_argument("--seed", type=int, default=TRAIN_SEED)
    parser.add_argument("--count", type=int, default=10)
    parser.add_argument("--write", type=Path, metavar="DIR", help="write the held-out files here")
    options = parser.parse_args()
    if options.write:
        lines = "".join(f"{to_json(row)}\n" for row in evaluation())
        (options.write / "evaluation.jsonl").write_text(lines, encoding="utf-8", newline="\n")
        (options.write / "heldout.txt").write_text(held_out_text(), encoding="utf-8", newline="\n")
        return
    for row in records(options.seed, options.split == "heldout", options.count):
        sys.stdout.write(f"{to_json(row)}\n")


if __name__ == "__main__":
    main()
