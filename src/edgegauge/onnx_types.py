"""Types of weights in ONNX files, and their bytes.

    fitting("INT4/128", cols=576)                    # "INT4/64": 576 is no multiple of 128
    stored_bytes("INT4/32", rows=576, cols=576)

A type is F32, or INT<bits>/<block>: integers along a row in blocks with one float32 scale each. A
row that is no multiple of its block takes half of it, and so on down to SHORTEST; then it is
padded.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

SCALE_BYTES = 4

SHORTEST = 32
"""Blocks are not made shorter than this to fit a row."""

TYPES = ("F32", *(f"INT{bits}/{block}" for bits in (8, 4) for block in (16, 32, 64, 128, 256)))


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
