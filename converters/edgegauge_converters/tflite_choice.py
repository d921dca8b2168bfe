"""A TFLite subgraph that runs one of two others, by how far the positions of its tokens reach."""

from __future__ import annotations

from ai_edge_litert import schema_py_generated as schema

from edgegauge_converters.tflite_file import Graph, TfliteFile
from edgegauge_converters.tflite_operators import Operators

Subgraph = tuple[Graph, dict[str, int], dict[str, int]]
"""A graph with its inputs and outputs by name."""


def choice(file: TfliteFile, key: str, span: int, near: Subgraph, far: Subgraph) -> Subgraph:
    """A subgraph that is `near` where all positions lie below `span`, else `far`."""
    key = f"{key}_from_{span}"
    graph = file.graph(key)
    o = Operators(graph, key)
    model, inputs, outputs = near

    def like(tensors: dict[str, int], end: str) -> dict[str, int]:
        return {
            name: graph.tensor(f"{key}_{name}{end}", model.shape(t), model.type(t))
            for name, t in tensors.items()
        }

    given, made = like(inputs, ""), like(outputs, "_output")
    positions = [given["input_pos"], o.ints("first_axis", [0])]
    last = o.op("REDUCE_MAX", positions, (), schema.ReducerOptionsT(), "INT32")
    near_enough = o.op("LESS", [last, o.ints("span", [span])], (1,), schema.LessOptionsT(), "BOOL")
    branches = schema.IfOptionsT(
        thenSubgraphIndex=file.number(near[0]), elseSubgraphIndex=file.number(far[0])
    )
    graph.ops("IF", [near_enough, *given.values()], list(made.values()), branches)
    graph.between(given, made)
    return graph, given, made
