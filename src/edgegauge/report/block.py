"""A section of a page as plain data: words, pictures, their key, and a table.

Sections are made by `graphs`, `configurations`, `context`, `parallel`, `lasting`, `power` and
`phases`; each returns None where the results hold nothing for it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from edgegauge.report.view import Cell, Column

DASHES: list[list[int]] = [[1, 0], [7, 4], [2, 3], [9, 3, 2, 3]]
"""Line styles, as lengths of dashes and gaps."""


@dataclass(frozen=True, slots=True)
class Picture:
    """An SVG element made by `svg.draw`, with what stands over it."""

    caption: str
    svg: str
    said: str = ""
    """Small print beside the caption."""
    wide: bool = False
    """It takes the whole width of the page, and scrolls where that is narrow."""


@dataclass(frozen=True, slots=True)
class GridRow:
    """A row: its name, what is said under the name, its cells, and a line under all of them."""

    name: str
    about: str
    cells: list[Cell]
    under: str = ""


@dataclass(frozen=True, slots=True)
class Grid:
    """A table; `head` is over the names."""

    head: str
    caption: str
    columns: list[Column]
    rows: list[GridRow]


@dataclass(frozen=True, slots=True)
class Block:
    """A section."""

    title: str
    said: str
    pictures: Sequence[Picture] = ()
    colours: Sequence[tuple[str, str]] = ()
    """Key: name and colour."""
    dashes: Sequence[tuple[str, list[int]]] = ()
    """Key: name and line style."""
    grid: Grid | None = None
    notes: Sequence[str] = field(default_factory=tuple)
    """Small print below."""
