"""A finding: something that was seen around the runs, and whether their figures survive it."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

State = dict[str, Any]
"""Of `host.state`, or of a `Monitor`; a key that is absent or None is not known."""


@dataclass(frozen=True, slots=True)
class Finding:
    """What was seen, whether it spoils the figures, and the one command or action that mends it."""

    text: str
    spoils: bool = False
    mend: str | None = None

    def __str__(self) -> str:
        return f"{self.text}; {self.mend}" if self.mend else self.text


def difference(before: State, after: State, key: str) -> int:
    """How far a counter went; 0 where it is unknown."""
    first, last = before.get(key), after.get(key)
    return 0 if first is None or last is None else int(last - first)


def known(states: Iterable[State], key: str) -> list[Any]:
    """The values of those states that have one."""
    return [value for state in states if (value := state.get(key)) is not None]
