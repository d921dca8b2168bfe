"""What every converter's manifest and file names are made of."""

from __future__ import annotations

import re
from collections.abc import Sequence
from importlib.metadata import PackageNotFoundError, version

from edgegauge import __version__


def file_stem(id: str) -> str:
    """The id as a file name: no separators, no leading dot."""
    return re.sub(r"[^A-Za-z0-9._-]", "-", id).lstrip(".-") or "model"


def tool_versions(tools: Sequence[str]) -> dict[str, str]:
    """Versions of edgegauge and of those of these packages that are installed."""
    found = {"edgegauge": __version__}
    for tool in tools:
        try:
            found[tool] = version(tool)
        except PackageNotFoundError:
            continue
    return found
