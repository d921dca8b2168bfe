"""The page cache: dropping a file from it, how much of a file is in it, and how much is read ahead.

Where in memory a file's pages lie, and how large the pieces are, decides percents of the speed of
small models and stays as it is for as long as they are cached. A paired comparison would take that
for a difference of its two files, so it drops them before each pair of processes.

A page is charged to the control group that reads it first and to no other. A model that was hashed
or downloaded a moment ago is in the cache already, and a process under a limit would read it free
of charge; so it is dropped before every emulated run, and looked at afterwards.

Where memory is short, every page that is waited for has the pages around it read too, which evict
others. Servers read 8 MB ahead and devices 128 kB: near its limit, a model that runs well on the
device would thrash on such a server.
"""

from __future__ import annotations

import ctypes
import mmap
import os
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path

READ_AHEAD_KB = 128
"""Linux's default (VM_READAHEAD_PAGES), which boards and phones keep."""


def read_ahead_setting(path: Path) -> Path | None:
    """The kernel's file with the kB that are read ahead on the disk of this file, if it has one."""
    device = os.stat(path).st_dev
    number = f"{os.major(device)}:{os.minor(device)}"
    disk = Path("/sys/dev/block", number)
    places = (disk / "queue", disk / "../queue", Path("/sys/class/bdi", number))
    return next((found for at in places if (found := at / "read_ahead_kb").exists()), None)


def drop(files: Iterable[Path]) -> None:
    """Drop the clean pages of these files that no process has mapped, after writing them out."""
    for path in files:
        with path.open("rb") as stream:
            with suppress(OSError):  # a file system that cannot: its pages are as they are
                os.fsync(stream.fileno())
            if hasattr(os, "posix_fadvise"):
                os.posix_fadvise(stream.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)


def cached_bytes(path: Path) -> int | None:
    """Bytes of the file in the page cache; None where the system does not tell this user.

    Linux tells only who could write to the file (mincore(2)), and says "all" to others.
    """
    size = path.stat().st_size
    if not os.access(path, os.W_OK) or not hasattr(os, "posix_fadvise"):
        return None
    if size == 0:
        return 0
    with path.open("r+b") as stream, mmap.mmap(stream.fileno(), 0) as mapped:
        pages = (ctypes.c_ubyte * -(-size // mmap.PAGESIZE))()
        start = (ctypes.c_ubyte * size).from_buffer(mapped)
        try:
            address = ctypes.c_void_p(ctypes.addressof(start))
            told = ctypes.CDLL(None).mincore(address, ctypes.c_size_t(size), pages)
        finally:
            del start  # or the mapping could not be closed
        return None if told else min(size, sum(p & 1 for p in pages) * mmap.PAGESIZE)
