"""Recipes as data: which type each class of tensors is stored in.

    shipped("onnx")["int4"].type_of(tensor)          # "INT4/32"
    recipe = read_recipe(Path("mine.toml"))          # one of the user's own, or found by `auto`

A recipe of one's own is a file of the same form as those in `recipes/*.toml`, with a name, the
format it is for, and types for single layers where they differ:

    id = "wide-ends"
    format = "gguf"
    about = "Q8_0 where it hurts"
    matrix = "Q4_0"
    roles = { token_embd = "Q8_0" }

    [layers]
    "0-3" = { ffn_down = "Q8_0", attn_v = "Q5_0" }
    "29" = { ffn_down = "Q8_0" }

What is said of a role in a layer goes before what is said of the role, and that before `matrix`.
Layers count stored blocks from 0. Vectors are always F32. `recipe.py` has the types that fit.
"""

from __future__ import annotations

import tomllib
from functools import cache, cached_property
from importlib import resources
from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field, model_validator

from edgegauge import onnx_types, tflite_types
from edgegauge.document import Document, parse, read_toml
from edgegauge.errors import InputError
from edgegauge.figure import Figure
from edgegauge.model import Role, Tensor
from edgegauge.toml import dumps

RecipeFormat = Literal["gguf", "onnx", "tflite"]

TYPES: dict[str, tuple[str, ...]] = {
    "gguf": ("F32", "F16", "Q8_0", "Q6_K", "Q5_K", "Q5_1", "Q5_0", "Q4_K", "Q4_0"),
    "onnx": onnx_types.TYPES,
    "tflite": tflite_types.TYPES,
}
"""Format: the types that a matrix may be stored in."""

SHIPPED_FORMATS = ("onnx", "tflite")
"""Formats whose shipped recipes are such data; those of GGUF are llama.cpp's rules."""

Stretch = Annotated[str, Field(pattern=r"^\d{1,4}(-\d{1,4})?$")]
"""`3`, or `0-3`: layers, both ends included."""


class RecipeRules(Document):
    """How one recipe stores each tensor; `refused` says why a format has it not."""

    about: str = ""
    matrix: str | None = None
    roles: dict[Role, str] = {}
    layers: dict[Stretch, dict[Role, str]] = {}
    refused: str | None = None

    @model_validator(mode="after")
    def _says_how_or_why_not(self) -> RecipeRules:
        if (self.matrix is None) == (self.refused is None):
            raise ValueError("give either matrix or refused")
        return self

    @model_validator(mode="after")
    def _says_it_once(self) -> RecipeRules:
        seen: set[tuple[Role, int]] = set()
        for stretch, types in self.layers.items():
            if not layers_of(stretch):
                raise ValueError(f'layers "{stretch}" are none: the first is behind the last')
            for role in types:
                places = {(role, layer) for layer in layers_of(stretch)}
                if seen & places:
                    raise ValueError(f'{role} of layers "{stretch}" has a type already')
                seen |= places
        return self

    def type_of(self, tensor: Tensor) -> str:
        """The stored type that this recipe asks for."""
        if tensor.is_vector:
            return "F32"
        assert self.matrix is not None  # a refused recipe is not resolved
        usual = self.roles.get(tensor.role, self.matrix)
        return self._exceptions.get((tensor.role, tensor.layer), usual)

    @property
    def last_layer(self) -> int:
        """The last layer that is named; -1 where none is."""
        return max((layers_of(stretch)[-1] for stretch in self.layers), default=-1)

    def check_types(self, file_format: str) -> None:
        """ValueError for a type that the format has not."""
        named = [self.matrix, *self.roles.values()]
        named += [type for types in self.layers.values() for type in types.values()]
        for type in named:
            if type is not None and type not in TYPES[file_format]:
                known = ", ".join(TYPES[file_format])
                raise ValueError(f"{type!r} is no type of {file_format}; there are: {known}")

    @cached_property
    def _exceptions(self) -> dict[tuple[str, int | None], str]:
        return {
            (role, layer): type
            for stretch, types in self.layers.items()
            for layer in layers_of(stretch)
            for role, type in types.items()
        }


class Found(Document):
    """What `auto` found of a recipe, with the reference and before there was an artifact."""

    model: str
    kl: Figure
    """Mean KL divergence from the model's own weights."""


class RecipeFile(RecipeRules):
    """A recipe of its own file: named, and for one format."""

    id: str = Field(pattern=r"^[a-z0-9][a-z0-9._-]{0,59}$")
    format: RecipeFormat
    matrix: str
    found: Found | None = None

    @model_validator(mode="after")
    def _is_of_the_format(self) -> RecipeFile:
        self.check_types(self.format)
        return self

    def __str__(self) -> str:
        """What file names and reports call it."""
        return self.id

    def __hash__(self) -> int:
        return hash((self.id, self.format, self.matrix))

    def to_toml(self) -> str:
        """The text that `read_recipe` reads back."""
        fields = self.model_dump(mode="json", exclude_defaults=True)
        if self.found is not None:
            figure = {k: v for k, v in fields["found"]["kl"].items() if v is not None}
            fields["found"] |= {"kl": figure}
        first = ("id", "format", "about", "matrix", "roles", "layers", "found")
        return dumps({key: fields[key] for key in first if key in fields})


def read_recipe(path: Path) -> RecipeFile:
    """The recipe in this TOML file; InputError with all problems."""
    return read_toml(path, RecipeFile)


class _Table(Document):
    recipes: dict[str, RecipeRules]


@cache
def shipped(file_format: str) -> dict[str, RecipeRules]:
    """The recipes of one of SHIPPED_FORMATS by name; do not change the dict."""
    file = resources.files("edgegauge") / "recipes" / f"{file_format}.toml"
    return parse({"recipes": tomllib.loads(file.read_text("utf-8"))}, _Table, str(file)).recipes


def resolve_shipped(name: str, file_format: str) -> str:
    """The recipe of this name; InputError naming those there are, or why it is refused."""
    found = shipped(file_format).get(name.lower())
    if found is None or found.refused is not None:
        usable = (n for n, recipe in shipped(file_format).items() if recipe.refused is None)
        why = found.refused if found else "it is unknown"
        raise InputError(
            f"{file_format} has no recipe {name!r}: {why}",
            hint=f"there are: {', '.join(usable)}",
        )
    return name.lower()


def layers_of(stretch: str) -> range:
    """The layers of `3` or `0-3`."""
    first, _, last = stretch.partition("-")
    return range(int(first), int(last or first) + 1)
