"""Writing TOML, which the standard library can only read.

Plain values (text, numbers, booleans, lists, dicts with text keys) become a document with a
`[table]` for each top-level dict and for each one below that holds dicts itself; others are inline:
the layout of the shipped device profiles.

    dumps({"id": "x", "memory": {"ram_gb": {"value": 8.59, "source": "data sheet"}}})
    # id = "x"
    #
    # [memory]
    # ram_gb = { value = 8.59, source = "data sheet" }
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from typing import Any

_BARE_KEY = re.compile(r"[A-Za-z0-9_-]+")


def dumps(document: Mapping[str, Any]) -> str:
    """The document as TOML text; ValueError or TypeError for what TOML cannot hold."""
    return "\n".join(_lines("", document)).lstrip("\n") + "\n"


def _lines(name: str, table: Mapping[str, Any]) -> list[str]:
    """A table's values, then the tables in it that get a heading."""
    apart = [k for k, v in table.items() if _is_table(v) and (not name or _holds_tables(v))]
    lines = [f"{_key(k)} = {_entry(v)}" for k, v in table.items() if k not in apart]
    for key in apart:
        full = f"{name}.{_key(key)}" if name else _key(key)
        inside = _lines(full, table[key])
        # A table that holds nothing but tables needs no heading of its own.
        heading = [] if table[key] and inside and inside[0] == "" else ["", f"[{full}]"]
        lines += [*heading, *inside]
    return lines


def _holds_tables(table: Mapping[str, Any]) -> bool:
    return any(_is_table(value) for value in table.values())


def _is_table(value: Any) -> bool:
    return isinstance(value, Mapping)


def _entry(value: Any) -> str:
    """A value of a table; a list of tables gets a line for each."""
    if isinstance(value, list) and value and all(_is_table(v) for v in value):
        return "[\n" + "".join(f"  {_value(v)},\n" for v in value) + "]"
    return _value(value)


def _value(value: Any) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, str):
        # A JSON string is a TOML basic string, except that TOML wants DEL escaped too.
        return json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007f")
    if isinstance(value, int):
        return str(value)
    if isinstance(value, float):
        return repr(value)  # also inf and nan, which TOML spells as Python does
    if isinstance(value, list):
        return "[" + ", ".join(_value(v) for v in value) + "]"
    if isinstance(value, Mapping):
        inside = ", ".join(f"{_key(k)} = {_value(v)}" for k, v in value.items())
        return f"{{ {inside} }}" if inside else "{}"
    raise TypeError(f"TOML has no {type(value).__name__}")


def _key(key: str) -> str:
    return key if _BARE_KEY.fullmatch(key) else _value(key)
