"""The catalog: facts about published small models, one TOML file each.

    load()["smollm2-135m"].spec.parameters     # 134515008
    known_ids()                                # every id, smallest model first

A file is named after the model's id: its name on the hub in lower case, without the owner. It holds
no weights and nothing nobody published: a score is copied with its source, and what was not found
is left out. `docs/how-to/add-a-model.md` says how to add one.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from types import MappingProxyType
from typing import Any, Literal

from pydantic import Field, model_validator

from edgegauge.document import Document, read_toml
from edgegauge.errors import InputError
from edgegauge.model import ModelSpec

FOLDER = Path(__file__).parent

PREFERRED = ("avg8", "MMLU", "IFEval")
"""Benchmarks in the order in which one of them stands for a model in a table."""


class Licence(Document):
    """What the weights may be used for; `name` None: not found, look before you ship."""

    name: str | None = Field(default=None, min_length=1, max_length=200)
    restriction: str | None = Field(default=None, min_length=1, max_length=600)


class Published(Document):
    """Results that one source printed under the same conditions."""

    source: str = Field(min_length=1, max_length=300)
    metric: str = Field(min_length=1, max_length=40)
    """As the source names it: `acc` and the like are in percent, `val_loss` in nats per token."""
    shots: int | None = Field(default=None, ge=0, le=100)
    """None where the source does not say."""
    scores: dict[str, float] = Field(min_length=1, max_length=100)
    """Benchmark to value, exactly as printed. `avg8` is the mean of ARC-e, ARC-c, BoolQ, PIQA,
    SIQA, HellaSwag, OBQA and WinoGrande."""


@dataclass(frozen=True, slots=True)
class Score:
    """One published result with its conditions and source."""

    benchmark: str
    value: float
    metric: str
    shots: int | None
    source: str

    @property
    def label(self) -> str:
        """`MMLU 5-shot 47.4`."""
        shots = "" if self.shots is None else f" {self.shots}-shot"
        return f"{self.benchmark}{shots} {self.value:g}"


class CatalogEntry(Document):
    """One published model."""

    format: Literal[1] = 1
    id: str = Field(pattern=r"^[a-z0-9][a-z0-9._-]{0,99}$")
    name: str = Field(min_length=1, max_length=100)
    hub: str | None = Field(default=None, pattern=r"^[A-Za-z0-9._-]{1,96}/[A-Za-z0-9._-]{1,96}$")
    """`owner/name` on Hugging Face; None where the weights are published elsewhere."""
    weights: str | None = Field(default=None, max_length=300)
    """Where the weights are, if not in Hugging Face's form under `hub`."""
    variant: str = Field(min_length=1, max_length=100)
    """base, instruct, ..."""
    released: str = Field(pattern=r"^20\d\d(-[01]\d(-[0-3]\d)?)?$")
    """As far as it is known: year, month, day."""
    context: int = Field(gt=0, le=2**31 - 1)
    """Tokens the publisher made it for; `architecture.context` is what its positions allow."""
    licence: Licence
    source: str = Field(min_length=1, max_length=400)
    """Where the architecture's facts come from."""
    notes: str | None = Field(default=None, max_length=600)
    architecture: ModelSpec
    published: list[Published] = Field(min_length=1, max_length=50)

    @model_validator(mode="before")
    @classmethod
    def _name_the_architecture(cls, value: Any) -> Any:
        """A file gives the id once; the spec in it has the same."""
        if isinstance(value, dict) and isinstance(value.get("architecture"), dict):
            return value | {"architecture": {"id": value.get("id")} | value["architecture"]}
        return value

    @property
    def spec(self) -> ModelSpec:
        """The architecture under the catalog's id."""
        return self.architecture

    @property
    def scores(self) -> list[Score]:
        """Every published result, in the file's order."""
        return [
            Score(benchmark, value, p.metric, p.shots, p.source)
            for p in self.published
            for benchmark, value in p.scores.items()
        ]

    @property
    def headline(self) -> Score:
        """The score that stands for this model in a table: the most common benchmark it has."""
        ranks = {benchmark: rank for rank, benchmark in enumerate(PREFERRED)}
        return min(self.scores, key=lambda score: ranks.get(score.benchmark, len(ranks)))


@lru_cache(maxsize=1)
def load() -> MappingProxyType[str, CatalogEntry]:
    """Every entry by id, smallest model first; raises InputError where a file is wrong."""
    entries = [read_entry(path) for path in FOLDER.glob("*.toml")]
    entries.sort(key=lambda entry: (entry.spec.parameters, entry.id))
    return MappingProxyType({entry.id: entry for entry in entries})


def read_entry(path: Path) -> CatalogEntry:
    """The entry in this file; raises InputError with all problems."""
    entry = read_toml(path, CatalogEntry)
    if entry.id != path.stem:
        raise InputError(f"id: {entry.id!r} must be the file's name, {path.stem!r} @ {path}")
    return entry


def known_ids() -> list[str]:
    """Every id, smallest model first."""
    return list(load())
