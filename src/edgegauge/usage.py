"""Usage: how a language model is used, which turns joules per token into charge and hours.

    usage = load("chat")                # or "mine.toml"
    usage.sentence()                    # what a command prints beside every figure that rests on it

A conversation is some turns; in each, the device reads a prompt, writes an answer, and then waits
while a person reads it. The cache is kept between the turns, so a prompt is read once. The models
in `usage.toml` are conventions; a file of one's own has the keys of one of its tables:

    turns = 2
    prompt_tokens = 80
    generated_tokens = 40
    reading_s = 20
    per_hour = 10
    waiting_w = 1.1                     # optional: measured with the screen on and the app open
"""

from __future__ import annotations

import tomllib
from importlib import resources
from pathlib import Path

from pydantic import ConfigDict, Field

from edgegauge.document import Document, parse, read_toml
from edgegauge.errors import InputError

DEFAULT = "chat"


class Usage(Document):
    """One way to use a model. Tokens and seconds are per turn."""

    model_config = ConfigDict(strict=True)

    name: str = Field(default="own", min_length=1, max_length=60)
    about: str = Field(default="", max_length=200)
    turns: int = Field(gt=0, le=1000)
    """Prompts and answers of one conversation."""
    prompt_tokens: int = Field(gt=0, le=1_000_000)
    """New tokens of a prompt; what was said before is in the cache."""
    generated_tokens: int = Field(gt=0, le=1_000_000)
    reading_s: float = Field(ge=0, le=86_400)
    """From the end of an answer to the next prompt."""
    per_hour: float = Field(gt=0, le=3600)
    """Conversations in an hour of use."""
    waiting_w: float | None = Field(default=None, gt=0, le=1000)
    """Power between the turns, where the user has measured it (screen on, model loaded). None: the
    idle power of the measurement or of the device profile."""

    def sentence(self) -> str:
        """`chat: 3 conversations an hour, each of 4 turns: ...`: every number of it."""
        noun = "conversation" if self.per_hour == 1 else "conversations"
        turns = "1 turn" if self.turns == 1 else f"{self.turns} turns"
        waiting = "" if self.waiting_w is None else f" at {self.waiting_w:g} W"
        return (
            f"{self.name}: {self.per_hour:g} {noun} an hour, each of {turns}: "
            f"{self.prompt_tokens} prompt + {self.generated_tokens} generated tokens, "
            f"then {self.reading_s:g} s of reading{waiting}"
        )


def known() -> dict[str, Usage]:
    """The shipped usage models by name."""
    file = resources.files("edgegauge") / "usage.toml"
    tables = tomllib.loads(file.read_text(encoding="utf-8"))
    return {
        name: parse({"name": name, **table}, Usage, str(file)) for name, table in tables.items()
    }


def load(reference: str = DEFAULT) -> Usage:
    """The shipped model of this name, or the one in the TOML file at this path; InputError."""
    if reference.endswith(".toml"):
        return read_toml(Path(reference), Usage)
    shipped = known()
    if reference not in shipped:
        raise InputError(
            f"no usage model {reference!r}",
            hint=f"known are {', '.join(shipped)}; a path to a .toml file works too",
        )
    return shipped[reference]
