"""Writing TOML, which the standard library can only read.

Plain values (text, numbers, booleans, lists, dicts with text keys) become a document with one
`[table]` per top-level dict and inline tables below it: the layout of the shipped device profiles.

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
    lines = [f"{_key(k)} = {_value(v)}" for k, v in document.items() if not _is_table(v)]
    for name, table in document.items():
        if _is_table(table):
            lines += ["", f"[{_key(name)}]"]
            lines += [f"{_key(k)} = {_entry(v)}" for k, v in table.items()]
    return "\n".join(lines).lstrip("\n") + "\n"


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
