"""Budgets: what is required of a candidate.

    format = 1
    memory = "900MB"              # or bytes; peak resident memory
    file_size = "500MB"
    decode_tok_per_s = 10         # at least
    prefill_tok_per_s = 100       # at least
    ttft_p99_s = 0.5              # at most
    energy_j_per_token = 0.5      # at most
    battery_h = 4                 # at least, decoding without pause
    quality = { metric = "avg8_0shot", at_least = 45 }

Every limit is optional. Unknown keys and impossible values are errors, all reported at once.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field

from edgegauge.document import Document, parse, read_toml
from edgegauge.units import parse_bytes

DEFAULT_METRIC = "avg8_0shot"
"""The published score used where nobody names one: the mean of eight zero-shot tasks, percent."""


def _bytes(value: Any) -> Any:
    return parse_bytes(value) if isinstance(value, str) else value


Bytes = Annotated[int, BeforeValidator(_bytes), Field(gt=0, lt=2**60, strict=True)]
"""A size in bytes, written as an integer or as text such as `900MB`."""

Positive = Annotated[float, Field(gt=0, lt=1e12)]


class QualityFloor(Document):
    """The least acceptable score on a named metric, in that metric's own scale."""

    metric: str = Field(default=DEFAULT_METRIC, min_length=1, max_length=80)
    at_least: float


class Budget(Document):
    """Limits a candidate must meet; None is no limit."""

    format: Literal[1] = 1
    memory: Bytes | None = None
    file_size: Bytes | None = None
    decode_tok_per_s: Positive | None = None
    prefill_tok_per_s: Positive | None = None
    ttft_p99_s: Positive | None = None
    energy_j_per_token: Positive | None = None
    battery_h: Positive | None = None
    quality: QualityFloor | None = None

    @property
    def limits_energy(self) -> bool:
        """Whether a candidate's energy must be known to be judged."""
        return self.energy_j_per_token is not None or self.battery_h is not None


def load(path: Path) -> Budget:
    """The budget in a TOML file; raises InputError with every problem."""
    return read_toml(path, Budget)


def merge(budget: Budget, overrides: Mapping[str, Any], where: str = "the options") -> Budget:
    """`budget` with every override that is not None put in its place; raises InputError.

    `where` names the origin of the overrides in the error.
    """
    given = {key: value for key, value in overrides.items() if value is not None}
    return parse(budget.model_dump() | given, Budget, where)
