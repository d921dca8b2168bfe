"""Recipes as data: how ONNX and TFLite files store each class of tensors, from `recipes/*.toml`.

    recipes = block_recipes("onnx")            # by name, as the file lists them
    recipes["int4"].type_of(tensor)            # "INT4/32"
    stored_bytes("INT4/32", rows=576, cols=576)

A type is F32, or INT<bits>/<block>: integers along a row in blocks with one float32 scale each. A
row that is no multiple of its block takes half of it, and so on down to SHORTEST;
then it is padded.
"""

from __future__ import annotations

import re
import tomllib
from dataclasses import dataclass
from functools import cache
from importlib import resources
from typing import Annotated

from pydantic import Field, model_validator

from edgegauge.document import Document, parse
from edgegauge.errors import InputError
from edgegauge.model import Role, Tensor

BLOCK_FORMATS = ("onnx",)
"""Formats whose recipes are such data."""

SCALE_BYTES = 4

SHORTEST = 32
"""Blocks are not made shorter than this to fit a row."""

StoredType = Annotated[str, Field(pattern=r"^(F32|INT[48]/(16|32|64|128|256))$")]


@dataclass(frozen=True, slots=True)
class BlockType:
    """A type of integers in blocks: `bits` each, `block` of them to a scale."""

    bits: int
    block: int

    @property
    def block_bytes(self) -> int:
        """Bytes of the integers of one block, without its scale."""
        return self.block * self.bits // 8

    def blocks(self, cols: int) -> int:
        """Blocks of a row, the last one padded."""
        return -(-cols // self.block)


class BlockRecipe(Document):
    """How one recipe stores each tensor; `refused` says why a format has it not."""

    about: str
    matrix: StoredType | None = None
    roles: dict[Role, StoredType] = {}
    refused: str | None = None

    @model_validator(mode="after")
    def _says_how_or_why_not(self) -> BlockRecipe:
        if (self.matrix is None) == (self.refused is None):
            raise ValueError("give either matrix or refused")
        return self

    def type_of(self, tensor: Tensor) -> str:
        """The stored type that this recipe asks for."""
        if tensor.is_vector:
            return "F32"
        assert self.matrix is not None  # a refused recipe is not resolved
        return self.roles.get(tensor.role, self.matrix)


class _Table(Document):
    recipes: dict[str, BlockRecipe]


@cache
def block_recipes(file_format: str) -> dict[str, BlockRecipe]:
    """The recipes of one of BLOCK_FORMATS by name; do not change the dict."""
    file = resources.files("edgegauge") / "recipes" / f"{file_format}.toml"
    return parse({"recipes": tomllib.loads(file.read_text("utf-8"))}, _Table, str(file)).recipes


def resolve_block(name: str, file_format: str) -> str:
    """The recipe of this name; InputError naming those there are, or why it is refused."""
    recipes = block_recipes(file_format)
    found = recipes.get(name.lower())
    usable = ", ".join(n for n, recipe in recipes.items() if recipe.refused is None)
    if found is None:
        raise InputError(f"unknown recipe {name!r} for {file_format}; there are: {usable}")
    if found.refused is not None:
        raise InputError(f"{file_format} has no recipe {name!r}: {found.refused}",
                         hint=f"there are: {usable}")  # fmt: skip
    return name.lower()


def block_type(stored_type: str) -> BlockType | None:
    """What INT<bits>/<block> says; None for F32."""
    match = re.fullmatch(r"INT(\d)/(\d+)", stored_type)
    return BlockType(int(match[1]), int(match[2])) if match else None


def fitting(wanted: str, cols: int) -> str:
    """The wanted type, with blocks as short as rows of this length need."""
    blocks = block_type(wanted)
    if blocks is None:
        return wanted
    block = blocks.block
    while block > SHORTEST and cols % block:
        block //= 2
    return f"INT{blocks.bits}/{block}"


def stored_bytes(stored_type: str, rows: int, cols: int) -> int:
    """Bytes of integers and scales of a matrix."""
    blocks = block_type(stored_type)
    if blocks is None:
        return 4 * rows * cols
    return rows * blocks.blocks(cols) * (blocks.block_bytes + SCALE_BYTES)
