"""Memory of this process by phase, read from inside it.

`smaps_rollup` is exact and is read at the end of a phase only, because it walks the page tables.
The peak within a phase is VmHWM, reset by writing 5 to clear_refs when the phase begins (Linux, and
only where the kernel allows it). `ru_maxrss` is not used: a child inherits it from its parent.
Where /proc is absent, psutil tells what the system does: the resident size, on macOS phys_footprint
(dirty and compressed memory, which its limits count and mapped weights are not part of), on Windows
the peak working set of the whole process.

    phases = Phases()
    phases.begin("load"); ...; phases.end()
    phases.found["load"]["peak_rss_bytes"]
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from edgegauge.units import KIB, MIB

SELF = Path("/proc/self")
RESET_PEAK = "5"
"""What clear_refs takes to reset VmHWM (Documentation/filesystems/proc.rst)."""
SLACK_BYTES = 4 * MIB
"""VmHWM is batched per CPU, so a reset peak may stand this far from the resident size."""


class Phases:
    """Memory at the end of each phase, and the peak within it, as JSON-ready dicts."""

    def __init__(self, root: Path = SELF) -> None:
        self._root = root
        self._name: str | None = None
        self._resettable = False
        self.found: dict[str, dict[str, int | None]] = {}
        self.peak_rss_bytes: int | None = None
        """Largest resident size of the whole process so far; None where nothing tells it."""

    def begin(self, name: str) -> None:
        """Start a phase; its peak counts from now."""
        self._keep_peak(status(self._root).get("VmHWM"))
        self._name = name
        self._resettable = _reset_peak(self._root)

    def end(self) -> None:
        """End the phase and read the memory it leaves behind."""
        assert self._name is not None
        told = status(self._root)
        peak = told.get("VmHWM") if told else _peak_told_by_psutil()
        reading = read(self._root)
        resident = reading["rss_bytes"] or 0
        self._keep_peak(peak)
        self._keep_peak(resident)
        # VmHWM lags behind by what the kernel has batched; a peak is never below the end.
        known = max(peak, resident) if peak is not None and self._resettable else None
        self.found[self._name] = {**reading, "peak_rss_bytes": known}
        self._name = None

    def _keep_peak(self, value: int | None) -> None:
        if value is not None:
            self.peak_rss_bytes = max(value, self.peak_rss_bytes or 0)


def read(root: Path = SELF) -> dict[str, int | None]:
    """Bytes now: all resident, anonymous (cannot be reclaimed), file-backed (can be), swapped.

    Shared memory (memfd, tmpfs: XNNPACK's packed weights) has no file to be read from again, so it
    counts as anonymous.
    `pss_bytes` counts shared pages in parts, `footprint_bytes` is macOS's; what the system does
    not tell is None.
    """
    exact, rough = _fields(root / "smaps_rollup"), status(root)
    shared = rough.get("RssShmem", 0)
    if "Rss" in exact and "Anonymous" in exact:
        kept = exact["Anonymous"] + shared
        return _reading(exact["Rss"], kept, exact.get("Swap"), exact.get("Pss"))
    if "VmRSS" in rough:
        anonymous = rough.get("RssAnon")
        known = None if anonymous is None else anonymous + shared
        return _reading(rough["VmRSS"], known, rough.get("VmSwap"))
    return _told_by_psutil()


def _reading(
    rss: int, anonymous: int | None, swap: int | None, pss: int | None = None
) -> dict[str, int | None]:
    return {
        "rss_bytes": rss,
        "anonymous_bytes": anonymous,
        "file_bytes": None if anonymous is None else rss - anonymous,
        "swap_bytes": swap,
        "pss_bytes": pss,
        "footprint_bytes": None,
    }


def _told_by_psutil() -> dict[str, int | None]:
    """A reading without /proc; psutil 8 tells anonymous memory and the footprint on macOS."""
    info = _psutil_info()
    reading = _reading(info.rss, getattr(info, "rss_anon", None), None)
    return {**reading, "footprint_bytes": getattr(info, "phys_footprint", None)}


def _peak_told_by_psutil() -> int | None:
    """Peak of the whole process without /proc: the peak working set on Windows."""
    info = _psutil_info()
    # psutil 8 has renamed the Windows field, and warns of the old name.
    peak = getattr(info, "peak_rss", None)
    return peak if peak is not None else getattr(info, "peak_wset", None)


def _psutil_info() -> Any:
    import psutil

    process = psutil.Process()
    return (getattr(process, "memory_info_ex", None) or process.memory_info)()


def status(root: Path = SELF) -> dict[str, int]:
    """The memory lines of /proc/self/status in bytes; empty where there is none."""
    return _fields(root / "status")


def _fields(path: Path) -> dict[str, int]:
    """Lines `Name:   123 kB` as bytes; other lines are left out."""
    try:
        text = path.read_text(encoding="ascii", errors="replace")
    except OSError:
        return {}
    found = {}
    for line in text.splitlines():
        name, _, rest = line.partition(":")
        words = rest.split()
        if len(words) == 2 and words[1] == "kB" and words[0].isdigit():
            found[name] = int(words[0]) * KIB
    return found


def settle_file(path: Path) -> None:
    """Have a file's pages written out, so that a process that maps them can drop them.

    Pages of a file that was just written are dirty: until they are on the disk they count as
    memory that cannot be reclaimed, and writing them would go on during the first runs.
    """
    with path.open("rb") as stream:
        try:
            os.fsync(stream.fileno())
        except OSError:  # a file system that cannot: its pages are as they are
            return


def _reset_peak(root: Path) -> bool:
    """Reset VmHWM to the resident size; whether the kernel did so."""
    try:
        (root / "clear_refs").write_text(RESET_PEAK)
    except OSError:
        return False
    # Some sandboxes accept the write and ignore it.
    now = status(root)
    peak, rss = now.get("VmHWM"), now.get("VmRSS")
    return peak is not None and rss is not None and peak <= rss + SLACK_BYTES
