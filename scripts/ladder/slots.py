"""The slots of a command: each draws a meaning and a wording for it.

draw = SLOTS["level"]
draw(random.Random(1))          # Piece("level=30", "thirty percent")
"""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import NamedTuple

from phrases import (
    CITIES,
    COLORS,
    DAYS,
    DOORS,
    ERRANDS,
    ITEMS,
    LAMPS,
    LISTS,
    MODES,
    MUSIC,
    NAMES,
    ONES,
    ROOMS,
    SCENES,
    TENS,
)


class Piece(NamedTuple):
    """One slot, drawn: what it means (`room=attic`) and how it was said (`the loft`)."""

    meaning: str
    phrase: str


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
