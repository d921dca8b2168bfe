"""How our TFLite files divide their cache: agreed on by who writes, sizes and times them.

    spans_of(1280)                       # (256, 512, 1280)

A step attends to a span from the beginning of the cache, the shortest that holds all positions.
"""

from __future__ import annotations

from functools import lru_cache
from itertools import count, takewhile

CONTEXT = 1280
"""Tokens of the cache where nobody says how many; that of LiteRT's own conversions."""

PIECE = 128
"""Tokens that a prompt is read in."""

SPAN = 256
"""Positions that a step attends to at least. This doubles as the cache fills, up to a half of it:
cutting out a span takes XNNPACK a copy, which beyond that costs more than hidden positions do."""


@lru_cache(maxsize=64)
def spans_of(context: int, first: int = SPAN) -> tuple[int, ...]:
    """The spans of a cache of `context` tokens, the last of them all of it."""
    return (*takewhile((context // 2).__ge__, (first << n for n in count())), context)
