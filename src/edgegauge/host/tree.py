"""Reading a machine's own description: the files of /proc and /sys, and a few system commands.

`Tree()` is the machine itself; `Tree(folder)` is a recorded one, with the same paths below the
folder and the output of commands in `commands/<words joined by _>.txt`, or in
`commands/<name>.txt` whatever its arguments. A file that is absent, unreadable or too long to be
what it should be is None: phones and containers hide many of them. `refused` tells a file that is
there but not for this user from one that is not there.
"""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

MAX_BYTES = 1024**2
"""Longest file read: `cpuinfo` of a 256-thread server is about 400 kB."""

COMMAND_TIMEOUT_S = 10.0
LIVE = Path("/")


class Tree:
    """One machine's files; paths are given without the leading slash."""

    def __init__(self, root: Path = LIVE) -> None:
        self.root = root

    def text(self, path: str) -> str | None:
        """Contents of a file, without surrounding white space and the NULs of device trees."""
        try:
            with (self.root / path).open("rb") as stream:
                raw = stream.read(MAX_BYTES + 1)
        except (OSError, ValueError):
            return None
        if len(raw) > MAX_BYTES:
            return None
        return raw.decode("utf-8", "replace").strip("\0 \n\t\r")

    def integer(self, path: str) -> int | None:
        """A file that holds one whole number."""
        return integer(self.text(path))

    def names(self, path: str) -> list[str]:
        """Names in a folder, sorted; empty where it cannot be listed."""
        try:
            return sorted(p.name for p in (self.root / path).iterdir())
        except OSError:
            return []

    def exists(self, path: str) -> bool:
        """Whether something is at this path, as far as one may know."""
        try:
            return (self.root / path).exists()
        except OSError:
            return False

    def refused(self, path: str) -> bool:
        """Whether this user lacks the permission to read this file, or to list this folder."""
        try:
            (self.root / path).open("rb").close()
        except PermissionError:
            return True
        except (OSError, ValueError):  # absent, or a folder that may be listed
            return False
        return False

    def output(self, *command: str) -> str | None:
        """What a system command prints; None where it is absent or fails."""
        if self.root != LIVE:
            words = re.sub(r"[^A-Za-z0-9_.-]", "", "_".join(command))
            recorded = self.text(f"commands/{words}.txt")
            return self.text(f"commands/{command[0]}.txt") if recorded is None else recorded
        try:
            done = subprocess.run(command, capture_output=True, timeout=COMMAND_TIMEOUT_S)
        except (OSError, subprocess.SubprocessError):
            return None
        return done.stdout.decode("utf-8", "replace") if done.returncode == 0 else None


def integer(text: str | None) -> int | None:
    """The whole number that is all of `text`, or None."""
    if text is None or not re.fullmatch(r"-?[0-9]{1,20}", text.strip()):
        return None
    return int(text)


def fields(text: str | None, separator: str = ":") -> dict[str, str]:
    """Lines of `key: value` as a dict; the first of equal keys wins."""
    found: dict[str, str] = {}
    for line in (text or "").splitlines():
        key, mark, value = line.partition(separator)
        if mark:
            found.setdefault(key.strip(), value.strip())
    return found


def cpu_list(text: str | None) -> list[int]:
    """CPU numbers from the kernel's list form, `0-3,8`; empty where it is not one."""
    cpus: set[int] = set()
    for part in (text or "").strip().split(","):
        match = re.fullmatch(r"([0-9]{1,5})(?:-([0-9]{1,5}))?", part.strip())
        if match:
            cpus.update(range(int(match[1]), int(match[2] or match[1]) + 1))
    return sorted(cpus)
