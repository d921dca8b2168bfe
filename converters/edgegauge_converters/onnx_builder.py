"""What lowering to ONNX needs whatever the model is: nodes, constants, and products of weights.

    builder = Builder(layout)
    x = builder.rows(embedding, "input_ids")
    y = builder.product(x, builder.layout.place(tensor))
    builder.graph

Weights are where the layout puts them; each is an initializer once it is used.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from edgegauge.model import Tensor
from edgegauge_converters.onnx_file import (
    DOUBLE,
    FLOAT,
    INT32,
    INT64,
    UINT8,
    Attribute,
    Graph,
    Initializer,
    Node,
)
from edgegauge_converters.onnx_layout import Group, Layout

MICROSOFT = "com.microsoft"
INT8_ACTIVATIONS = 4
"""MatMulNBits' `accuracy_level`: a product's input is rounded to 8 bits in the weights' blocks."""

ELEMENTS = {"float32": FLOAT, "int32": INT32, "int64": INT64, "float64": DOUBLE}


class Builder:
    """A graph under construction; its methods give the name of the value they made."""

    def __init__(self, layout: Layout) -> None:
        self.layout = layout
        self.graph = Graph()

    def node(
        self, operator: str, inputs: Sequence[str], *outputs: str, domain: str = "",
        **attributes: Attribute,
    ) -> str:  # fmt: skip
        """Append a node, whose one output has a new name unless it is given; its first output."""
        names = outputs or (f"{operator}.{len(self.graph.nodes)}",)
        self.graph.nodes.append(Node(operator, tuple(inputs), names, attributes, domain))
        return names[0]

    def constant(self, name: str, value: npt.NDArray[np.generic]) -> str:
        """A value that lies in the graph itself."""
        kind = ELEMENTS[value.dtype.name]
        self.graph.initializers[name] = Initializer(name, kind, value.shape, value.tobytes())
        return name

    def floats(self, tensor: Tensor) -> str:
        """A plain weight, with those that are stored in the same group."""
        return self.plain(self.layout.place(tensor))

    def plain(self, group: Group) -> str:
        """Plain weights: a matrix (rows, cols), or a vector of all members."""
        assert group.blocks is None, group.name
        is_vector = group.members[0].tensor.is_vector
        shape = (group.rows,) if is_vector else (group.rows, group.cols)
        return self._external(Initializer(group.name, FLOAT, shape, None, group.offset))

    def rows(self, tensor: Tensor, ids: str) -> str:
        """Rows of a matrix by number, in floats."""
        group = self.layout.place(tensor)
        blocks = group.blocks
        if blocks is None:
            return self.node("Gather", [self.floats(tensor), ids])
        shape = (group.rows, blocks.blocks(group.cols) * blocks.block_bytes)
        stored = Initializer(f"{group.name}.rows", UINT8, shape, None, group.offset)
        made = self.node(
            "GatherBlockQuantized", [self._external(stored), ids, self._scales(group)],
            domain=MICROSOFT, bits=blocks.bits, block_size=blocks.block, gather_axis=0,
            quantize_axis=1,
        )  # fmt: skip
        if group.cols % blocks.block == 0:
            return made
        ends = [("start", 0), ("end", group.cols), ("axis", 2)]
        cut = [self.constant(f"rows.{name}", np.array([n])) for name, n in ends]
        return self.node("Slice", [made, *cut])

    def product(self, value: str, group: Group) -> str:
        """value @ weight.T of all matrices of the group, side by side."""
        blocks = group.blocks
        if blocks is None:
            weight = self.floats(group.members[0].tensor)
            return self.node("FusedMatMul", [value, weight], domain=MICROSOFT, transB=1)
        shape = (group.rows, blocks.blocks(group.cols), blocks.block_bytes)
        weight = self._external(Initializer(group.name, UINT8, shape, None, group.offset))
        return self.node(
            "MatMulNBits", [value, weight, self._scales(group)], domain=MICROSOFT,
            K=group.cols, N=group.rows, bits=blocks.bits, block_size=blocks.block,
            accuracy_level=INT8_ACTIVATIONS,
        )  # fmt: skip

    def _scales(self, group: Group) -> str:
        assert group.blocks is not None
        shape = (group.rows, group.blocks.blocks(group.cols))
        name = f"{group.name}.scales"
        return self._external(Initializer(name, FLOAT, shape, None, group.scales_offset))

    def _external(self, initializer: Initializer) -> str:
        self.graph.initializers[initializer.name] = initializer
        return initializer.name
