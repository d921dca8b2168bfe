"""The part of a page that a script writes: what stands between two comments.

replaced(page, "scripts/validate_memory", table)

<!-- begin of scripts/validate_memory -->
...
<!-- end -->
"""

from __future__ import annotations

END = "<!-- end -->"


def replaced(page: str, script: str, part: str) -> str:
    """The page with `part` between the comments of `script`; SystemExit where it has none."""
    begin = f"<!-- begin of {script} -->"
    before, found, rest = page.partition(begin)
    _, ended, after = rest.partition(END)
    if not (found and ended):
        raise SystemExit(f"the page has lost its comments {begin} and {END}")
    return f"{before}{begin}\n{part}\n{END}{after}"
