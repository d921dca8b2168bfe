"""Where each weight lies in the file beside an ONNX graph, known before any weight is read.

    layout = plan(stored_tensors(spec, "int4", "onnx"))
    layout.groups                # what is written, in order
    layout.place(tensor)         # the group that holds this tensor

Projections of the same input are one group, since the graph computes them as one: the rows of
queries, keys and values follow each other, those of gate and up likewise. A group of integers is
all its integers and then all its scales.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from edgegauge.gguf_header import tensor_name
from edgegauge.model import Role, Tensor
from edgegauge.onnx_types import SCALE_BYTES, BlockType, block_type
from edgegauge.recipe import TOGETHER, StoredTensor

ALIGNMENT = 64
"""Every piece begins at a multiple of this, a cache line, so that a mapped file serves as it is."""

GROUPED: tuple[tuple[Role, ...], ...] = (
    *TOGETHER,
    ("attn_q_bias", "attn_k_bias", "attn_v_bias"),
)


@dataclass(frozen=True, slots=True)
class Group:
    """Tensors of one type and width, their rows following each other, at `offset` in the file."""

    name: str
    members: tuple[StoredTensor, ...]
    offset: int

    @property
    def type(self) -> str:
        """The type all of them are stored in."""
        return self.members[0].type

    @property
    def blocks(self) -> BlockType | None:
        """Its blocks, where it holds integers."""
        return block_type(self.type)

    @property
    def rows(self) -> int:
        """Rows of all members; a vector counts its elements."""
        tensors = [m.tensor for m in self.members]
        return sum(t.cols if t.is_vector else t.rows for t in tensors)

    @property
    def cols(self) -> int:
        """Columns of each member, 1 for vectors."""
        tensor = self.members[0].tensor
        return 1 if tensor.is_vector else tensor.cols

    @property
    def values_bytes(self) -> int:
        """Bytes of the integers, or of the floats."""
        if self.blocks is None:
            return 4 * self.rows * self.cols
        return self.rows * self.blocks.blocks(self.cols) * self.blocks.block_bytes

    @property
    def scales_bytes(self) -> int:
        """Bytes of the scales; 0 where there are none."""
        return self.rows * self.blocks.blocks(self.cols) * SCALE_BYTES if self.blocks else 0

    @property
    def scales_offset(self) -> int:
        """Where the scales begin."""
        return padded(self.offset + self.values_bytes)

    @property
    def end(self) -> int:
        """Where the next group may begin."""
        return padded(self.scales_offset + self.scales_bytes)


@dataclass(frozen=True, slots=True)
class Layout:
    """All groups of a file, and which one each tensor is in."""

    groups: tuple[Group, ...]
    index: dict[tuple[Role, int | None], Group]

    def place(self, tensor: Tensor) -> Group:
        """The group of this tensor."""
        return self.index[tensor.role, tensor.layer]

    @property
    def bytes(self) -> int:
        """Size of the file."""
        return self.groups[-1].end


def plan(stored: Sequence[StoredTensor]) -> Layout:
    """The layout of these tensors, in storage order."""
    groups: list[Group] = []
    offset = 0
    for members in _grouped(stored):
        groups.append(Group(_name(members), members, offset))
        offset = groups[-1].end
    index = {(m.tensor.role, m.tensor.layer): g for g in groups for m in g.members}
    return Layout(tuple(groups), index)


def padded(offset: int) -> int:
    """The next multiple of ALIGNMENT."""
    return -(-offset // ALIGNMENT) * ALIGNMENT


def _grouped(stored: Sequence[StoredTensor]) -> Iterator[tuple[StoredTensor, ...]]:
    """Each tensor once: with those that go together, where the first of them stands."""
    by_place = {(s.tensor.role, s.tensor.layer): s for s in stored}
    types = {(str(role), layer): s.type for (role, layer), s in by_place.items()}
    for each in stored:
        tensor = each.tensor
        there = (roles for roles in GROUPED if (roles[0], tensor.layer) in by_place)
        family = next((roles for roles in there if tensor.role in roles), (tensor.role,))
        # A bias goes with its weights, and a recipe may store those in different types.
        weights = [role.removesuffix("_bias") for role in family]
        if len({types[role, tensor.layer] for role in weights}) > 1:
            yield (each,)
        elif tensor.role == family[0]:
            yield tuple(by_place[role, tensor.layer] for role in family)


def _name(members: tuple[StoredTensor, ...]) -> str:
    """`blk.3.attn_q+attn_k+attn_v.weight`."""
    first, *others = (tensor_name(m.tensor) for m in members)
    stem, ending = first.rsplit(".", 1)
    return "+".join([stem, *(name.split(".")[-2] for name in others)]) + f".{ending}"
