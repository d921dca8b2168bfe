"""Types of weights in TFLite files, and their bytes.

    fitting("INT4/32", cols=40)                      # "INT4": 40 is no multiple of 32
    stored_bytes("INT4/32", rows=576, cols=576)

Types are F32; INT8 and INT4 with a float32 scale for each row; INT4/32 with a float16 scale for
each block of 32 along a row. A row that does not divide into blocks takes one scale for the row,
and one of odd length is INT8.
"""

from __future__ import annotations

TYPES = ("F32", "INT8", "INT4", "INT4/32", "INT4/64", "INT4/128")


def fitting(wanted: str, cols: int) -> str:
    """The wanted type, or the nearest that a row of this length can have."""
    kind, _, block = wanted.partition("/")
    if block and cols % int(block):
        return fitting(kind, cols)
    return "INT8" if kind == "INT4" and cols % 2 else wanted


def stored_bytes(stored_type: str, rows: int, cols: int) -> int:
    """Bytes of values and scales."""
    kind, _, block = stored_type.partition("/")
    elements = rows * cols
    if kind == "F32":
        return 4 * elements
    integers = elements * {"INT8": 8, "INT4": 4}[kind] // 8
    return integers + (2 * elements // int(block) if block else 4 * rows)
