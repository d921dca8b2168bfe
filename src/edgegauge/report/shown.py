"""Figures, limits and names as a report shows them."""

from __future__ import annotations

import unicodedata
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from edgegauge.figure import Figure
from edgegauge.report.summary import CandidateFigures
from edgegauge.units import format_count, format_quality, format_quantity

FIGURES = {
    "decode_tok_per_s": "Decode",
    "prefill_tok_per_s": "Prompt",
    "ttft_s": "First token",
    "peak_memory_bytes": "Peak memory",
    "energy_j_per_token": "Energy",
    "tokens_per_charge": "Tokens per charge",
    "conversations_per_charge": "Conversations per charge",
    "added_drain_percent_per_hour": "Added drain",
    "battery_h": "Decoding on battery",
    "quality": "Quality",
    "perplexity": "Perplexity",
}
"""Column headings of the figures of a row, in the order of the table."""

HEADS = {
    "tokens_per_charge": ("Tokens", "per charge"),
    "conversations_per_charge": ("Conversations", "per charge"),
    "added_drain_percent_per_hour": ("Added drain", "%/h"),
    "battery_h": ("Decoding", "h on battery"),
}
"""Of these the head of a column is split, so that it is no wider than its figures."""

COUNTS = {"tokens_per_charge", "conversations_per_charge"}
PER_HOUR = "added_drain_percent_per_hour"


@dataclass(frozen=True, slots=True)
class Limit:
    """A limit of a budget: which figure it bounds (None: the file size) and on which side."""

    noun: str
    figure: str | None
    unit: str
    at_most: bool


LIMITS = {
    "memory": Limit("peak memory", "peak_memory_bytes", "bytes", True),
    "file_size": Limit("file size", None, "bytes", True),
    "ttft_p99_s": Limit("first token", "ttft_s", "s", True),
    "decode_tok_per_s": Limit("decode", "decode_tok_per_s", "tok/s", False),
    "prefill_tok_per_s": Limit("prompt", "prefill_tok_per_s", "tok/s", False),
    "energy_j_per_token": Limit("energy", "energy_j_per_token", "J/token", True),
    "battery_h": Limit("battery", "battery_h", "h", False),
    "quality": Limit("quality", "quality", "1", False),
}
"""The limits a budget may set, in the order in which they are checked."""


def quantity(value: float, unit: str, name: str = "") -> str:
    """A number as text; a quality that is a share is shown in percent, a count shortened."""
    if name in COUNTS:
        return format_count(value)
    if name == PER_HOUR:
        return f"{value:.2g} %/h"
    return format_quality(value, unit) if name == "quality" else format_quantity(value, unit)


def value_of(figure: Figure, name: str = "") -> str:
    """The value of a figure as text, with its unit."""
    return quantity(figure.value, figure.unit, name)


def interval_of(figure: Figure, name: str = "") -> str | None:
    """`41.1-43.0 tok/s` with an en dash, or None where no interval is known or worth showing."""
    if figure.low is None or figure.high is None:
        return None
    low, high = (quantity(v, figure.unit, name) for v in (figure.low, figure.high))
    if low == high:
        return None
    head, _, unit = high.rpartition(" ")
    if head and low.endswith(f" {unit}"):
        low = low.removesuffix(f" {unit}")
    return f"{low}\N{EN DASH}{high}"


def limits_of(budget: Mapping[str, Any]) -> dict[str, float]:
    """The limits that a budget sets, as numbers in SI units; anything else in it is skipped."""
    found = {}
    for name in LIMITS:
        value = budget.get(name)
        if isinstance(value, Mapping):
            value = value.get("at_least")
        if isinstance(value, (int, float)) and not isinstance(value, bool):
            found[name] = float(value)
    return found


def limit_text(name: str, value: float, figures: list[CandidateFigures]) -> str:
    """`decode ≥ 20 tok/s`; the unit of a quality floor is that of the qualities it bounds."""
    limit = LIMITS[name]
    unit = limit.unit
    if name == "quality":
        unit = next((f.quality.unit for f in figures if f.quality), unit)
    return f"{limit.noun} {'≤' if limit.at_most else '≥'} {quantity(value, unit, name)}"


def clean(name: str, length: int = 48) -> str:
    """A name from outside without control and direction marks, cut to `length` characters."""
    kept = "".join(c if unicodedata.category(c)[0] != "C" else "\N{REPLACEMENT CHARACTER}"
                   for c in name)  # fmt: skip
    return kept if len(kept) <= length else kept[: length - 1] + "…"
