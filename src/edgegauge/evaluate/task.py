"""Task files and text files: the user's own data, read with every problem named by its line.

A task is JSON lines, one item per line, UTF-8:

    {"prompt": "turn on the desk lamp\\n", "answer": "light.on lamp=desk"}

`prompt` and `answer` are non-empty text; `id` (text or integer) is optional; other keys and blank
lines are ignored. The same prompt twice is refused, because a repeated item narrows the interval
of an accuracy without adding knowledge. A text is any UTF-8 file.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from edgegauge.document import MAX_DOCUMENT_BYTES
from edgegauge.errors import InputError

MAX_LINE_BYTES = 1024**2
"""A longer line of a task is refused: at 4 bytes per token it is beyond every model's context."""

MAX_PROBLEMS = 20
"""Problems listed in one error; the rest are counted."""

EXAMPLE = 'each line must be like {"prompt": "turn on the light", "answer": "light.on"}'


@dataclass(frozen=True, slots=True)
class Item:
    """One question with its right answer; `line` is where it stands in the file (from 1)."""

    line: int
    prompt: str
    answer: str
    id: str | None = None


@dataclass(frozen=True, slots=True)
class Task:
    """The items of a task file and the SHA-256 of the whole file."""

    name: str
    sha256: str
    items: tuple[Item, ...]


@dataclass(frozen=True, slots=True)
class Text:
    """The content of a text file and the SHA-256 of its bytes."""

    name: str
    sha256: str
    content: str


def read_task(path: Path, limit: int | None = None) -> Task:
    """The task at `path`, or its first `limit` items; raises InputError with all problems.

    The whole file is checked and hashed even where a limit is given, so that a limited evaluation
    says which file it came from and does not hide a broken one.
    """
    problems: list[str] = []
    items: list[Item] = []
    seen: dict[tuple[str, str], int] = {}
    digest = hashlib.sha256()
    for number, raw in _lines(path):
        digest.update(raw)
        found = _item(number, raw)
        if isinstance(found, Item):
            repeats = _repeats(found, seen)
            problems += repeats
            items.append(found)
        elif found is not None:
            problems += found
    _refuse(path, problems)
    if not items:
        raise InputError(f"no items in {path}: the file is empty", hint=EXAMPLE)
    return Task(path.name, digest.hexdigest(), tuple(items[:limit]))


def read_text(path: Path) -> Text:
    """The UTF-8 text at `path`; raises InputError if it is not text, empty or too large."""
    try:
        if path.stat().st_size > MAX_DOCUMENT_BYTES:
            raise InputError(f"larger than {MAX_DOCUMENT_BYTES} bytes, so not read @ {path}")
        raw = path.read_bytes()
    except OSError as error:
        raise InputError(f"cannot read {path}: {error.strerror}") from None
    try:
        content = raw.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = raw.count(b"\n", 0, error.start) + 1
        raise InputError(
            f"line {line}: not UTF-8 text: byte 0x{raw[error.start]:02x} at offset {error.start} "
            f"@ {path}",
            hint="--text takes plain text; save the file as UTF-8",
        ) from None
    if not content.strip():
        raise InputError(f"no text in {path}: the file is empty")
    if "\0" in content:
        raise InputError(f"not plain text: it contains a NUL character @ {path}")
    return Text(path.name, hashlib.sha256(raw).hexdigest(), content)


def _lines(path: Path) -> Iterator[tuple[int, bytes]]:
    """Number and bytes of each line; a line beyond MAX_LINE_BYTES comes in pieces of one number."""
    try:
        if path.stat().st_size > MAX_DOCUMENT_BYTES:
            raise InputError(f"larger than {MAX_DOCUMENT_BYTES} bytes, so not read @ {path}")
        with path.open("rb") as stream:
            number = 1
            while raw := stream.readline(MAX_LINE_BYTES + 1):
                yield number, raw
                if len(raw) > MAX_LINE_BYTES and not raw.endswith(b"\n"):
                    raise InputError(
                        f"line {number}: longer than {MAX_LINE_BYTES} bytes @ {path}", hint=EXAMPLE
                    )
                number += 1
    except OSError as error:
        raise InputError(f"cannot read {path}: {error.strerror}") from None


def _item(number: int, raw: bytes) -> Item | list[str] | None:
    """The item on a line, or what is wrong with it, or None for a blank line."""
    if len(raw) > MAX_LINE_BYTES or not raw.strip():
        return None
    try:
        value = json.loads(raw.decode("utf-8-sig" if number == 1 else "utf-8"))
    except UnicodeDecodeError as error:
        return [f"line {number}: not UTF-8: byte 0x{raw[error.start]:02x} in column {error.start}"]
    except (ValueError, RecursionError) as error:
        cut = "" if raw.endswith(b"\n") else " (the last line: is the file cut off?)"
        return [f"line {number}: not valid JSON: {error}{cut}"]
    if not isinstance(value, dict):
        return [f"line {number}: expected a JSON object, got {_brief(value)}"]
    problems = [
        f"line {number}: {key}: {wrong}"
        for key, check in (("prompt", _wrong_text), ("answer", _wrong_text), ("id", _wrong_id))
        if (wrong := check(value.get(key), key in value))
    ]
    if problems:
        return problems
    identity = value.get("id")
    return Item(
        number, value["prompt"], value["answer"], None if identity is None else str(identity)
    )


def _wrong_text(value: Any, present: bool) -> str | None:
    """What keeps a value from being a prompt or an answer."""
    if not present:
        return "required, but missing"
    if not isinstance(value, str):
        return f"must be text, got {_brief(value)}"
    if not value.strip():
        return f"must not be empty, got {value!r}"
    try:
        value.encode("utf-8")
    except UnicodeEncodeError:
        return "holds half of a surrogate pair, which is no character"
    return "holds a NUL character" if "\0" in value else None


def _wrong_id(value: Any, present: bool) -> str | None:
    """What keeps a value from being an id."""
    if value is None or (isinstance(value, (str, int)) and not isinstance(value, bool)):
        return None
    return f"must be text or an integer, got {_brief(value)}"


def _brief(value: Any) -> str:
    """Type and beginning of a value."""
    shown = repr(value)
    return f"{type(value).__name__} {shown if len(shown) <= 40 else shown[:37] + '...'}"


def _repeats(item: Item, seen: dict[tuple[str, str], int]) -> list[str]:
    """Problems of an item that repeats an earlier one; remembers it."""
    problems = []
    keys = [("prompt", item.prompt)] + ([("id", item.id)] if item.id is not None else [])
    for kind, value in keys:
        first = seen.setdefault((kind, value), item.line)
        if first != item.line:
            problems.append(f"line {item.line}: the same {kind} as on line {first}")
    return problems


def _refuse(path: Path, problems: list[str]) -> None:
    """Raise InputError if there are problems."""
    if not problems:
        return
    noun = "problem" if len(problems) == 1 else "problems"
    shown = problems[:MAX_PROBLEMS]
    if len(problems) > MAX_PROBLEMS:
        shown.append(f"and {len(problems) - MAX_PROBLEMS} more")
    raise InputError(f"{len(problems)} {noun} in {path}", shown, hint=EXAMPLE)
