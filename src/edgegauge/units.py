"""Units: SI inside, readable text at the edge.

Names carry their unit (`_s`, `_bytes`, `_tok_per_s`, `_j`, `_w`, `_wh`, `_c`). Profiles and budgets
are written by people and use GB, GiB and Wh; everything is converted here and nowhere else.
Decimal prefixes (GB) are used for file sizes, bandwidth and text; binary ones (GiB) only where a
source gives them.
"""

from __future__ import annotations

import re

KIB = 1024
MIB = 1024**2
GIB = 1024**3
KB = 1000
MB = 1000**2
GB = 1000**3
JOULES_PER_WH = 3600.0

_BYTE_UNITS = {"": 1, "b": 1, "kb": KB, "mb": MB, "gb": GB, "tb": 1000**4}
_BYTE_UNITS |= {"kib": KIB, "mib": MIB, "gib": GIB, "tib": 1024**4}
_SIZE = re.compile(r"\s*([0-9]+(?:\.[0-9]+)?)\s*([a-zA-Z]*)\s*")


def parse_bytes(text: str | int) -> int:
    """Bytes from `1500000`, `"1.5 MB"` or `"2GiB"`; raises ValueError on anything else."""
    if isinstance(text, int):
        return text
    match = _SIZE.fullmatch(text)
    unit = match and _BYTE_UNITS.get(match[2].lower())
    if not match or unit is None:
        raise ValueError(f"not a size: {text!r} (write for example 900MB or 1.5GiB)")
    return round(float(match[1]) * unit)


def format_bytes(value: float) -> str:
    """`134.5 MB`: decimal prefixes, three significant digits or so."""
    for unit, size in (("GB", GB), ("MB", MB), ("kB", KB)):
        if abs(value) >= size:
            scaled = value / size
            return f"{scaled:.2f} {unit}" if scaled < 10 else f"{scaled:.1f} {unit}"
    return f"{value:.0f} B"


def format_seconds(value: float) -> str:
    """`4.2 ms`, `1.35 s`, `12 min`."""
    if value < 1e-3:
        return f"{value * 1e6:.3g} µs"
    if value < 1:
        return f"{value * 1e3:.3g} ms"
    if value < 120:
        return f"{value:.3g} s"
    return f"{value / 60:.3g} min" if value < 7200 else f"{value / 3600:.3g} h"


def format_quantity(value: float, unit: str) -> str:
    """A number of a figure's unit as people read it; the one place that chooses digits."""
    if unit == "bytes":
        return format_bytes(value)
    if unit == "s":
        return format_seconds(value)
    if unit == "B/s":
        return f"{value / GB:.3g} GB/s"
    if unit == "%":
        return f"{value:.1f} %"
    number = f"{value:.0f}" if abs(value) >= 1000 else f"{value:.3g}"
    return number if unit == "1" else f"{number} {unit}"


def format_count(value: float) -> str:
    """`1.06M`: a large count as people read it."""
    for size, letter in ((1e9, "G"), (1e6, "M"), (1e3, "k")):
        if abs(value) >= size:
            return f"{value / size:.3g}{letter}"
    return f"{value:.3g}"


def format_quality(value: float, unit: str) -> str:
    """A quality as people read it: a share (unit 1) is written in percent."""
    return format_quantity(100 * value, "%") if unit == "1" else format_quantity(value, unit)
