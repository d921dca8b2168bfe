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
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

from phrases import (
    CITIES,
    COLORS,
    DAYS,
    DOORS,
    ERRANDS,
    FIXES,
    FORMS,
    GREETINGS,
    IMPERATIVE,
    ITEMS,
    JOINS,
    LAMPS,
    LISTS,
    MODES,
    MUSIC,
    NAMES,
    NUMBER_WORDS,
    ONES,
    POLITE_AFTER,
    POLITE_BEFORE,
    ROOMS,
    SCENES,
    TENS,
)

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


class Piece(NamedTuple):
    """One slot, drawn: what it means (`room=attic`) and how it was said (`the loft`)."""

    meaning: str
    phrase: str


# --- slots: each draws a meaning and its wording ---


def pick(rng: random.Random, table: dict[str, tuple[str, ...]]) -> tuple[str, str]:
    """A value of a table and one way to say it."""
    name = rng.choice(list(table))
    return name, rng.choice(table[name])


def named(key: str, table: dict[str, tuple[str, ...]]) -> Callable[[random.Random], Piece]:
    """The slot `key=` with values from a table."""

    def draw(rng: random.Random) -> Piece:
        name, said = pick(rng, table)
        return Piece(f"{key}={name}", said)

    return draw


def spell(value: int) -> str:
    """21 as `twenty one`, for whole numbers below 100."""
    if value < 20:
        return ONES[value]
    return TENS[value // 10] + (f" {ONES[value % 10]}" if value % 10 else "")


def number(rng: random.Random, value: int) -> str:
    """21 as `21` or `twenty one`; whole numbers below 100 are spelled half of the time."""
    return str(value) if value >= 100 or rng.random() < 0.5 else spell(value)


def room(rng: random.Random, thing: str = "") -> Piece:
    """One room, two rooms, all of them, or all but one; with `thing`, the thing in that place."""
    (one, said), (two, other) = pick(rng, ROOMS), pick(rng, ROOMS)
    kind = rng.random()
    if kind < 0.7 or one == two:
        if thing and rng.random() < 0.6:
            return Piece(f"room={one}", f"the {said} {thing}")
        meaning, place = f"room={one}", f"the {said}"
    elif kind < 0.85:
        meaning, place = f"room={one},{two}", f"the {said} and the {other}"
    else:
        meaning, place = "room=all", rng.choice(("every room", "the whole house", "all rooms"))
        if kind > 0.92:
            meaning += f" except={one}"
            place += rng.choice((" except the ", " but not the ", " apart from the ")) + said
    return Piece(meaning, f"the {thing} in {place}" if thing else place)


def light(rng: random.Random) -> Piece:
    """The lights of a place, or one kind of lamp there."""
    if rng.random() < 0.5:
        return room(rng, rng.choice(("light", "lights")))
    device, said = pick(rng, LAMPS)
    place = room(rng, said)
    return Piece(f"{place.meaning} device={device}", place.phrase)


def blind(rng: random.Random) -> Piece:
    """The blinds of a place."""
    return room(rng, rng.choice(("blinds", "shutters", "shades")))


def percent(rng: random.Random, low: int, high: int) -> tuple[int, str]:
    """A share of 100, mostly in fives, and its wording."""
    value = rng.randrange(low, high + 1, 5) if rng.random() < 0.8 else rng.randrange(low, high + 1)
    idiom = {25: "a quarter", 50: "half", 75: "three quarters", 100: "full"}.get(value)
    if idiom and rng.random() < 0.5:
        return value, idiom
    return value, number(rng, value) + rng.choice((" percent", " percent", "%"))


def level(rng: random.Random) -> Piece:
    """An absolute setting from 5 to 100 percent."""
    value, said = percent(rng, 5, 100)
    return Piece(f"level={value}", said)


def step(key: str, unit: str, sign: str, high: int) -> Callable[[random.Random], Piece]:
    """A relative change by 1 to `high` units, signed: `by=-20`."""

    def draw(rng: random.Random) -> Piece:
        if unit == "percent":
            value, said = percent(rng, 5, high)
        else:
            value = rng.randint(1, high)
            said = f"{number(rng, value)} degree{'s' * (value > 1)}"
        return Piece(f"{key}={sign}{value}", said)

    return draw


def degrees(rng: random.Random) -> Piece:
    """A temperature from 15 to 26.5 degrees Celsius in halves."""
    whole, half = rng.randint(15, 26), rng.random() < 0.4
    said = number(rng, whole)
    if half:
        said += ".5" if said.isdigit() else rng.choice((" and a half", " point five"))
    return Piece(f"degrees={whole}{'.5' * half}", f"{said} degrees" if rng.random() < 0.8 else said)


def minutes(rng: random.Random) -> tuple[int, str]:
    """A duration in minutes and its wording, hours and fractions of hours included."""
    value = rng.randint(2, 59) if rng.random() < 0.6 else rng.randrange(60, 301, 5)
    hours, rest = divmod(value, 60)
    idioms = {15: "a quarter of an hour", 30: "half an hour", 45: "three quarters of an hour"}
    idioms |= {60: "an hour", 90: "an hour and a half"}
    if value in idioms and rng.random() < 0.6:
        return value, idioms[value]
    if not hours or (value < 100 and rng.random() < 0.4):
        return value, f"{number(rng, value)} {rng.choice(('minutes', 'minutes', 'min'))}"
    if rest == 30 and hours > 1 and rng.random() < 0.6:
        return value, f"{ONES[hours]} and a half hours"
    said = "an hour" if hours == 1 else f"{number(rng, hours)} hours"
    return value, f"{said} and {number(rng, rest)} minutes" if rest else said


def part_of_day(rng: random.Random, hour: int) -> str:
    """The words that make a twelve-hour time unambiguous."""
    if hour < 5:
        return "at night"
    if hour < 12:
        return "in the morning"
    if hour < 18:
        return "in the afternoon"
    return rng.choice(("in the evening", "tonight")) if hour < 22 else "tonight"


def idiom_time(rng: random.Random, hour: int, minute: int) -> str:
    """`quarter past nine tonight`, for minutes that are a multiple of five."""
    late = minute > 30
    far = 60 - minute if late else minute
    said = {15: "quarter", 30: "half"}.get(far) or spell(far)
    twelve = ONES[(hour + late - 1) % 12 + 1]
    spoken = f"{said} {'to' if late else 'past'} {twelve}" if far else f"{twelve} o'clock"
    return f"{spoken} {part_of_day(rng, hour)}"


def clock(rng: random.Random) -> tuple[str, str]:
    """A time of day as `21:15` and as people say it; every wording is unambiguous."""
    hour = rng.randrange(24)
    minute = rng.randrange(0, 60, 5) if rng.random() < 0.85 else rng.randrange(60)
    exact = f"{hour:02d}:{minute:02d}"
    if exact in ("00:00", "12:00") and rng.random() < 0.6:
        return exact, "noon" if hour else "midnight"
    half_day, twelve = "pm" if hour >= 12 else "am", (hour - 1) % 12 + 1
    style = rng.random()
    if style < 0.45 and minute % 5 == 0:
        return exact, idiom_time(rng, hour, minute)
    if style < 0.6:
        return exact, exact
    if style < 0.8:
        return exact, f"{twelve}{f':{minute:02d}' if minute else ''} {half_day}"
    tail = f" {'oh ' if minute < 10 else ''}{spell(minute)}" if minute else ""
    return exact, f"{ONES[twelve]}{tail} {half_day}"


def at_time(rng: random.Random) -> Piece:
    """A time of day alone, for alarms."""
    exact, said = clock(rng)
    return Piece(f"time={exact}", said)


def when(rng: random.Random) -> Piece:
    """When a command is to be carried out: at a time, after a while, or on another day."""
    kind = rng.random()
    if kind < 0.3:
        value, said = minutes(rng)
        return Piece(f"in={value}m", f"in {said}")
    exact, said = clock(rng)
    if kind < 0.75 or "tonight" in said:
        return Piece(f"time={exact}", f"at {said}")
    day = rng.choice(list(DAYS)[:7] + ["tomorrow"] * 4)
    spoken = day if day == "tomorrow" else f"on {day}"
    phrase = rng.choice((f"{spoken} at {said}", f"at {said} {spoken}"))
    return Piece(f"time={exact} day={day}", phrase)


def duration(rng: random.Random) -> Piece:
    """How long a timer runs."""
    value, said = minutes(rng)
    return Piece(f"length={value}m", said)


def until(rng: random.Random) -> Piece:
    """How long a mode stays: until a time or for a while."""
    if rng.random() < 0.5:
        exact, said = clock(rng)
        return Piece(f"until={exact}", f"until {said}")
    value, said = minutes(rng)
    return Piece(f"length={value}m", f"for {said}")


def errand(rng: random.Random) -> Piece:
    """Free text that must be copied: a verb and its object."""
    verbs, objects = rng.choice(ERRANDS)
    said = f"{rng.choice(verbs)} {rng.choice(objects)}"
    return Piece(f"text={said.replace(' ', '_')}", said)


def item(rng: random.Random) -> Piece:
    """Something to put on a list."""
    said = rng.choice(ITEMS)
    return Piece(f"item={said.replace(' ', '_')}", said)


def count(rng: random.Random) -> Piece:
    """How many packs of it, 1 to 24."""
    value = rng.randint(1, 24)
    return Piece(f"count={value}", f"{number(rng, value)} pack{'s' * (value > 1)} of")


SLOTS: dict[str, Callable[[random.Random], Piece]] = {
    "room": room, "light": light, "blind": blind, "level": level, "degrees": degrees,
    "raise": step("by", "percent", "+", 60), "lower": step("by", "percent", "-", 60),
    "warmer": step("by", "degrees", "+", 6), "colder": step("by", "degrees", "-", 6),
    "color": named("color", COLORS), "mode": named("mode", MODES), "until": until,
    "music": named("what", MUSIC), "name": named("name", NAMES), "duration": duration,
    "time": at_time, "days": named("day", DAYS), "door": named("door", DOORS), "when": when,
    "scene": named("scene", SCENES), "city": named("place", CITIES), "day": named("day", DAYS),
    "list": named("list", LISTS), "item": item, "count": count, "errand": errand,
}  # fmt: skip
CORRECTABLE = {"level", "degrees", "color", "name", "time", "door", "scene", "music", "duration"}


# --- sentences ---


def draw_slot(rng: random.Random, name: str) -> Piece:
    """A slot, said at once or corrected by the speaker: the last value counts."""
    piece = SLOTS[name](rng)
    if name in CORRECTABLE and rng.random() < CORRECTION:
        meant = SLOTS[name](rng)
        return Piece(meant.meaning, f"{piece.phrase}{rng.choice(FIXES)}{meant.phrase}")
    return piece


def intent(rng: random.Random) -> Piece:
    """One intent: its answer and a sentence for it, without politeness or errors."""
    chosen = rng.choice(FORMS)
    pieces = {name: draw_slot(rng, name) for name in chosen.slots.split()}
    said = rng.choice(chosen.templates).format(**{k: p.phrase for k, p in pieces.items()})
    meanings = [chosen.verb, *(piece.meaning for piece in pieces.values())]
    if rng.random() < chosen.when:
        time = when(rng)
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
