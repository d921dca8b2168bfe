"""The code stays readable: files that fit in the head, functions that fit on a screen."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).parents[1]
FILE_LINES, FUNCTION_LINES = 400, 50


def sources() -> Iterator[Path]:
    for folder in ("src", "converters"):
        yield from sorted((ROOT / folder).rglob("*.py"))


def test_files_and_functions_stay_short() -> None:
    found = []
    for path in sources():
        text = path.read_text()
        if text.count("\n") > FILE_LINES:
            found.append(f"{path}: {text.count(chr(10))} lines")
        for node in ast.walk(ast.parse(text)):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                length = (node.end_lineno or node.lineno) - node.lineno + 1
                if length > FUNCTION_LINES:
                    found.append(f"{path}:{node.lineno} {node.name}: {length} lines")
    assert not found, "\n".join(found)
