"""A figure: a number that says what it counts, how it was obtained and how sure it is.

    Figure(12.3, "tok/s", "measured", "llama.cpp 0.3.16", low=12.1, high=12.5)

Every quantity that reaches a result file or a user is a figure; a missing quantity is `None`
(JSON `null`), never a guess.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Any, Literal, get_args

from pydantic import Field

Kind = Literal["measured", "emulated", "predicted", "stated"]
"""measured: here and now; emulated: here under another device's limits; predicted: by a model with
a known error; stated: copied from a named source."""

Unit = Literal[
    "tok/s",
    "1/s",
    "s",
    "bytes",
    "B/s",
    "J",
    "J/token",
    "J/inference",
    "W",
    "Wh",
    "h",
    "%",
    "bits",
    "1",
    "nat",
]

_KINDS, _UNITS = frozenset(get_args(Kind)), frozenset(get_args(Unit))

Finite = Annotated[float, Field(allow_inf_nan=False)]


@dataclass(frozen=True, slots=True)
class Figure:
    """One number with its unit, kind, source and interval (`low`, `high`; None where unknown)."""

    value: Finite
    unit: Unit
    kind: Kind
    source: str
    low: Finite | None = None
    high: Finite | None = None

    def __post_init__(self) -> None:
        if self.unit not in _UNITS:
            raise ValueError(f"unknown unit {self.unit!r}")
        if self.kind not in _KINDS:
            raise ValueError(f"unknown kind {self.kind!r}")
        if self.low is not None and self.high is not None and self.low > self.high:
            raise ValueError(f"interval is upside down: {self.low} > {self.high}")

    @property
    def least(self) -> float:
        """The lower end of the interval, or the value where no interval is known."""
        return self.value if self.low is None else self.low

    @property
    def most(self) -> float:
        """The upper end of the interval, or the value where no interval is known."""
        return self.value if self.high is None else self.high

    def to_json(self) -> dict[str, Any]:
        """The JSON form of design contract 4: an object with exactly these six keys."""
        return {
            "value": self.value,
            "unit": self.unit,
            "kind": self.kind,
            "source": self.source,
            "low": self.low,
            "high": self.high,
        }
