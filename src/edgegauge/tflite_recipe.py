"""Recipes of TFLite files, from `recipes/tflite.toml`: the type of each tensor, and its bytes.

    tflite_type(tensor, "int4")            # ("INT4/32", "INT4/32"): what fits, and what is wanted
    tflite_bytes("INT4/32", tensor)

Types are F32; INT8 and INT4 with a float32 scale for each row; INT4/32 with a float16 scale for
each block of 32 along a row. A row that does not divide into blocks takes one scale for the row,
and one of odd length is INT8.
"""

from __future__ import annotations

import tomllib
from functools import cache
from importlib import resources
from typing import Annotated

from pydantic import Field, model_validator

from edgegauge.document import Document, parse
from edgegauge.errors import InputError
from edgegauge.model import Role, Tensor

StoredType = Annotated[str, Field(pattern=r"^(F32|INT8|INT4(/(32|64|128))?)$")]


class TfliteRecipe(Document):
    """How one recipe stores each tensor; `refused` says why the format has it not."""

    about: str
    matrix: StoredType | None = None
    roles: dict[Role, StoredType] = {}
    refused: str | None = None

    @model_validator(mode="after")
    def _says_how_or_why_not(self) -> TfliteRecipe:
        if (self.matrix is None) == (self.refused is None):
            raise ValueError("give either matrix or refused")
        return self


class _Table(Document):
    recipes: dict[str, TfliteRecipe]


@cache
def tflite_recipes() -> dict[str, TfliteRecipe]:
    """The recipes by name; do not change the dict."""
    file = resources.files("edgegauge") / "recipes" / "tflite.toml"
    return parse({"recipes": tomllib.loads(file.read_text("utf-8"))}, _Table, str(file)).recipes


def resolve_tflite(name: str) -> str:
    """The recipe of this name; InputError naming those there are, or why it is refused."""
    found = tflite_recipes().get(name.lower())
    usable = ", ".join(n for n, recipe in tflite_recipes().items() if recipe.refused is None)
    if found is None or found.refused is not None:
        why = found.refused if found else "it is unknown"
        raise InputError(f"tflite has no recipe {name!r}: {why}", hint=f"there are: {usable}")
    return name.lower()


def tflite_type(tensor: Tensor, recipe: str) -> tuple[str, str]:
    """The type that fits this tensor, and the one that the recipe asks for."""
    found = tflite_recipes()[recipe]
    assert found.matrix is not None  # a refused recipe is not resolved
    wanted = "F32" if tensor.is_vector else found.roles.get(tensor.role, found.matrix)
    return _fitting(wanted, tensor.cols), wanted


def tflite_bytes(type: str, tensor: Tensor) -> int:
    """Bytes of values and scales."""
    kind, _, block = type.partition("/")
    if kind == "F32":
        return 4 * tensor.elements
    integers = tensor.elements * {"INT8": 8, "INT4": 4}[kind] // 8
    return integers + (2 * tensor.elements // int(block) if block else 4 * tensor.rows)


def _fitting(wanted: str, cols: int) -> str:
    kind, _, block = wanted.partition("/")
    if block and cols % int(block):
        return _fitting(kind, cols)
    return "INT8" if kind == "INT4" and cols % 2 else wanted
