"""Recorded machines (see data/machines/README.md) as folders to read."""

from __future__ import annotations

import re
from pathlib import Path

from edgegauge.host.tree import Tree

MACHINES = Path(__file__).parent / "data" / "machines"


def plant(root: Path, text: str) -> Tree:
    """The tree that a recording in `tail -n +1` form describes."""
    parts = re.split(r"^==> /(.+) <==\n", text, flags=re.M)
    for name, content in zip(parts[1::2], parts[2::2], strict=True):
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(content.removesuffix("\n\n").replace("\\0", "\0") + "\n")
    return Tree(root)
