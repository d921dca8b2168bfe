"""Groups of weights that `--recipe auto` gives one type each, and the recipe that their types make.

    groups = groups_of(spec, "onnx", stretches=3)
    recipe_of(spec, "gguf", {group: "Q4_0", ...})        # matrix, roles and layers of a RecipeFile

A group is a role in a stretch of layers, or the embedding, or the head. Projections that a graph
multiplies as one matrix are one group, so that they stay one matrix; llama.cpp multiplies each by
itself, so in GGUF each has its own.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from itertools import groupby
from typing import Any

from edgegauge.model import ModelSpec, Role, Tensor
from edgegauge.recipe import TOGETHER, stored_as


@dataclass(frozen=True, slots=True)
class Group:
    """Weights that get one type; `start` is the first executed layer they are in, or None."""

    tensors: tuple[Tensor, ...]
    start: int | None

    def bytes(self, type: str, spec: ModelSpec, file_format: str) -> int:
        """Of all its tensors in the file; GGUF writes shared blocks once for each execution."""
        copies = spec.layer_repeats if file_format == "gguf" and self.start is not None else 1
        return copies * sum(stored_as(t, type, file_format).bytes for t in self.tensors)


def groups_of(spec: ModelSpec, file_format: str, stretches: int) -> list[Group]:
    """All matrices of the model, the layers cut into so many stretches of nearly equal length."""
    found: dict[tuple[Role, int | None], list[Tensor]] = {}
    together = {} if file_format == "gguf" else {r: roles[0] for roles in TOGETHER for r in roles}
    for tensor in spec.tensors():
        if not tensor.is_vector:
            place = None if tensor.layer is None else tensor.layer * stretches // spec.layers
            found.setdefault((together.get(tensor.role, tensor.role), place), []).append(tensor)
    return [Group(tuple(tensors), _start(spec, tensors[0].layer)) for tensors in found.values()]


def _start(spec: ModelSpec, layer: int | None) -> int | None:
    return None if layer is None else layer * spec.layer_repeats


def recipe_of(spec: ModelSpec, types: Mapping[Tensor, str]) -> dict[str, Any]:
    """`matrix`, `roles` and `layers` that give each tensor its type, in few words."""
    matrix = _usual(types)
    roles: dict[str, str] = {}
    for role in dict.fromkeys(tensor.role for tensor in types):
        usual = _usual({t: type for t, type in types.items() if t.role == role})
        if usual != matrix:
            roles[role] = usual
    exceptions: list[dict[str, str]] = [{} for _ in range(spec.layers)]
    for tensor, type in types.items():
        if tensor.layer is not None and type != roles.get(tensor.role, matrix):
            exceptions[tensor.layer][tensor.role] = type
    layers = {}
    for said, run in groupby(range(spec.layers), lambda layer: exceptions[layer]):
        first, *others = run
        if said:
            layers[f"{first}-{others[-1]}" if others else str(first)] = said
    return {"matrix": matrix, "roles": roles, "layers": layers}


def _usual(types: Mapping[Tensor, str]) -> str:
    """The type that most parameters have."""
    count: Counter[str] = Counter()
    for tensor, type in types.items():
        count[type] += tensor.elements
    return count.most_common(1)[0][0]
