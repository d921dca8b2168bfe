"""Cleans up after a run: `python janitor.py RECORD FOLDER...`.

Ends the processes of the control groups in these folders, removes the groups, and writes settings
of the kernel back as they were: RECORD is a file of JSON, `{file: value}`.

As a process it waits until its stdin ends, which is when the process that started it has closed the
pipe or is gone, however that happened. It is started by path in an isolated interpreter, so it
imports nothing but the standard library.
"""

from __future__ import annotations

import json
import os
import signal
import sys
import time
from collections.abc import Sequence
from contextlib import suppress

PATIENCE_S = 10.0
PAUSE_S = 0.01


def clean(record: str, folders: Sequence[str]) -> None:
    """Remove the groups, write the recorded settings back, and remove their record."""
    remove(folders)
    for path, value in recorded(record).items():
        with suppress(OSError), open(path, "w", encoding="ascii") as stream:
            stream.write(value)
    with suppress(OSError):
        os.unlink(record)


def recorded(record: str) -> dict[str, str]:
    """File of the kernel: its value before it was changed; empty where nothing was."""
    try:
        with open(record, encoding="utf-8") as stream:
            return dict(json.load(stream))
    except (OSError, ValueError, TypeError):
        return {}


def remove(folders: Sequence[str]) -> bool:
    """End every process in these groups and remove them; whether none is left."""
    deadline = time.monotonic() + PATIENCE_S
    while left := [folder for folder in folders if not _removed(folder)]:
        if time.monotonic() > deadline:
            return False
        folders = left
        time.sleep(PAUSE_S)
    return True


def _removed(folder: str) -> bool:
    """One attempt; a process that was killed leaves its group a moment later."""
    with suppress(OSError, ValueError):
        with open(f"{folder}/cgroup.procs", encoding="ascii") as stream:
            for pid in map(int, stream.read().split()):
                os.kill(pid, signal.SIGKILL)
        # Pages of files would keep the removed group in the kernel until something needs memory.
        _give_back_pages(folder)
    try:
        os.rmdir(folder)
    except FileNotFoundError:
        return True
    except OSError:
        return False
    return True


def _give_back_pages(folder: str) -> None:
    """Have the group's page cache dropped: version 1, then version 2 (Linux 5.19)."""
    for name, value in (("force_empty", "0"), ("reclaim", "1T")):
        with suppress(OSError), open(f"{folder}/memory.{name}", "w", encoding="ascii") as stream:
            stream.write(value)


def main() -> None:
    """Wait for the end of stdin, then clean up."""
    for ignored in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(ignored, signal.SIG_IGN)
    os.write(1, b".")  # from here on the groups are safe
    with suppress(OSError):
        while os.read(0, 1):
            pass
    clean(sys.argv[1], sys.argv[2:])


if __name__ == "__main__":
    main()
