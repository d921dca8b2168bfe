"""Memory by phase: recorded /proc files, absent ones, and this very process."""

from __future__ import annotations

import json
import mmap
import os
import re
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import psutil
import pytest

from edgegauge.measure.memory import Phases, read, settle_file, status
from edgegauge.units import KIB, MIB

STATUS = "Name:\tx\nVmHWM:\t   9000 kB\nVmRSS:\t   8000 kB\nRssAnon:\t   5000 kB\nVmSwap:\t 16 kB\n"
ROLLUP = (
    "55d-7ff ---p 0 00:00 0 [rollup]\nRss: 8100 kB\nPss: 7000 kB\nPss_File: 1800 kB\n"
    "Anonymous: 5200 kB\nSwap: 20 kB\n"
)


def record(folder: Path, **files: str) -> Path:
    for name, text in files.items():
        (folder / name).write_text(text)
    return folder


def test_the_exact_file_wins(tmp_path: Path) -> None:
    assert read(record(tmp_path, status=STATUS, smaps_rollup=ROLLUP)) == {
        "rss_bytes": 8100 * KIB,
        "anonymous_bytes": 5200 * KIB,
        "file_bytes": 2900 * KIB,
        "swap_bytes": 20 * KIB,
        "pss_bytes": 7000 * KIB,
        "footprint_bytes": None,
    }


def test_status_serves_where_the_exact_file_is_hidden(tmp_path: Path) -> None:
    assert read(record(tmp_path, status=STATUS)) == {
        "rss_bytes": 8000 * KIB,
        "anonymous_bytes": 5000 * KIB,
        "file_bytes": 3000 * KIB,
        "swap_bytes": 16 * KIB,
        "pss_bytes": None,
        "footprint_bytes": None,
    }


def test_shared_memory_cannot_be_dropped(tmp_path: Path) -> None:
    shared = STATUS + "RssShmem:\t 600 kB\n"
    assert read(record(tmp_path, status=shared))["anonymous_bytes"] == 5600 * KIB
    found = read(record(tmp_path, status=shared, smaps_rollup=ROLLUP))
    assert found["anonymous_bytes"] == 5800 * KIB and found["file_bytes"] == 2300 * KIB


def test_old_kernels_do_not_split_the_resident_size(tmp_path: Path) -> None:
    found = read(record(tmp_path, status="VmRSS:\t 8000 kB\n"))
    assert found["rss_bytes"] == 8000 * KIB
    assert found["anonymous_bytes"] is None and found["file_bytes"] is None


def test_without_proc_only_the_resident_size_is_known(tmp_path: Path) -> None:
    found = read(tmp_path / "absent")
    assert found["rss_bytes"] is not None and found["rss_bytes"] > MIB
    assert found["anonymous_bytes"] is found["file_bytes"] is found["swap_bytes"] is None


def test_a_peak_that_cannot_be_reset_is_not_claimed_for_the_phase(tmp_path: Path) -> None:
    # The recorded VmHWM stays far above VmRSS whatever is written to clear_refs.
    high = STATUS.replace("9000", "90000")
    phases = Phases(record(tmp_path, status=high, smaps_rollup=ROLLUP))
    phases.begin("load")
    phases.end()
    assert phases.found["load"]["peak_rss_bytes"] is None
    assert phases.peak_rss_bytes == 90000 * KIB


def kernel_resets_peaks() -> bool:
    """Whether it does when it is asked without the code under test."""
    block = bytearray(64 * MIB)
    block[:: 4 * KIB] = b"x" * len(block[:: 4 * KIB])
    before = status()["VmHWM"]
    del block
    try:
        Path("/proc/self/clear_refs").write_text("5")
    except OSError:
        return False
    return status()["VmHWM"] < before - 32 * MIB


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_a_peak_belongs_to_its_phase_alone() -> None:
    if not kernel_resets_peaks():
        pytest.skip("this kernel does not reset VmHWM")
    phases = Phases()
    phases.begin("big")
    block = bytearray(96 * MIB)
    block[:: 4 * KIB] = b"x" * len(block[:: 4 * KIB])
    del block
    phases.end()
    phases.begin("small")
    phases.end()
    big, small = phases.found["big"], phases.found["small"]
    assert big["peak_rss_bytes"] is not None and small["peak_rss_bytes"] is not None
    assert big["peak_rss_bytes"] > (big["rss_bytes"] or 0) + 80 * MIB
    assert small["peak_rss_bytes"] < big["peak_rss_bytes"] - 80 * MIB
    # The process that runs the tests may have been larger before the first phase.
    assert phases.peak_rss_bytes is not None
    assert phases.peak_rss_bytes >= big["peak_rss_bytes"]


ON_LINUX = pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")


class OldMac:
    """psutil 7 on macOS: the resident size and nothing more."""

    def memory_info(self) -> Any:
        return SimpleNamespace(rss=50 * MIB)


class NewMac(OldMac):
    """psutil 8 on macOS."""

    def memory_info_ex(self) -> Any:
        return SimpleNamespace(
            rss=50 * MIB, peak_rss=60 * MIB, rss_anon=30 * MIB, phys_footprint=35 * MIB
        )


class OldWindows:
    """psutil 7 on Windows."""

    def memory_info(self) -> Any:
        return SimpleNamespace(rss=50 * MIB, peak_wset=70 * MIB)


class NewWindows:
    """psutil 8 on Windows, where the old name warns."""

    def memory_info_ex(self) -> Any:
        return SimpleNamespace(rss=50 * MIB, peak_rss=70 * MIB)

    @property
    def peak_wset(self) -> int:
        raise DeprecationWarning


@pytest.mark.parametrize(
    ("process", "peak", "footprint", "anonymous"),
    [
        (OldMac, 50 * MIB, None, None),
        (NewMac, 60 * MIB, 35 * MIB, 30 * MIB),
        (OldWindows, 70 * MIB, None, None),
        (NewWindows, 70 * MIB, None, None),
    ],
)
def test_without_proc_psutil_tells_what_the_system_does(
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    process: type,
    peak: int,
    footprint: int | None,
    anonymous: int | None,
) -> None:
    monkeypatch.setattr(psutil, "Process", process)
    phases = Phases(tmp_path / "absent")
    phases.begin("load")
    phases.end()
    load = phases.found["load"]
    assert load["rss_bytes"] == 50 * MIB
    assert load["footprint_bytes"] == footprint
    assert load["anonymous_bytes"] == anonymous
    assert load["file_bytes"] == (None if anonymous is None else 20 * MIB)
    assert load["peak_rss_bytes"] is None, "no system but Linux resets it"
    assert phases.peak_rss_bytes == peak


CHILD = """
import json, resource
from edgegauge.measure.memory import Phases
phases = Phases()
phases.begin("import")
phases.end()
print(json.dumps([phases.peak_rss_bytes, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss]))
"""


@ON_LINUX
def test_a_child_of_a_large_parent_tells_its_own_peak() -> None:
    """ru_maxrss does not: exec keeps what fork has copied from the parent."""
    ballast = b"x" * (200 * MIB)
    # A preexec_fn has subprocess fork; with vfork no memory is copied, and nothing inherited.
    done = subprocess.run(
        [sys.executable, "-c", CHILD], capture_output=True, check=True, preexec_fn=lambda: None
    )
    assert len(ballast) == 200 * MIB
    ours, inherited_kib = json.loads(done.stdout)
    assert ours < 150 * MIB
    if inherited_kib * KIB < 200 * MIB:
        pytest.skip("this kernel does not hand ru_maxrss on")


@ON_LINUX
def test_memory_of_a_mapped_file_and_memory_of_our_own_are_told_apart(tmp_path: Path) -> None:
    weights = tmp_path / "weights"
    weights.write_bytes(os.urandom(MIB) * 48)
    phases = Phases()
    phases.begin("import")
    phases.end()
    phases.begin("load")
    with weights.open("rb") as stream:
        mapped = mmap.mmap(stream.fileno(), 0, prot=mmap.PROT_READ)
    assert sum(mapped[:: 4 * KIB]) > 0
    phases.end()
    phases.begin("decode")
    cache = b"x" * (64 * MIB)
    phases.end()
    found = phases.found
    mapped.close()
    assert len(cache) == 64 * MIB

    def grew(key: str, earlier: str, later: str) -> float:
        return ((found[later][key] or 0) - (found[earlier][key] or 0)) / MIB

    assert grew("file_bytes", "import", "load") == pytest.approx(48, abs=4)
    assert grew("anonymous_bytes", "import", "load") == pytest.approx(0, abs=4)
    assert grew("anonymous_bytes", "load", "decode") == pytest.approx(64, abs=4)
    assert grew("file_bytes", "load", "decode") == pytest.approx(0, abs=4)
    assert grew("pss_bytes", "import", "decode") == pytest.approx(112, abs=8)


def dirty_bytes(path: Path) -> int:
    """Dirty bytes of this process's mappings of a file."""
    total, ours = 0, False
    for line in Path("/proc/self/smaps").read_text().splitlines():
        if re.match(r"[0-9a-f]+-[0-9a-f]+ ", line):
            ours = line.endswith(str(path))
        elif ours and line.startswith(("Private_Dirty:", "Shared_Dirty:")):
            total += int(line.split()[1]) * KIB
    return total


@ON_LINUX
def test_pages_of_a_file_that_was_just_written_are_settled(tmp_path: Path) -> None:
    path = tmp_path / "model"
    path.write_bytes(os.urandom(MIB) * 8)
    with path.open("rb") as stream:
        mapped = mmap.mmap(stream.fileno(), 0, prot=mmap.PROT_READ)
    assert sum(mapped[:: 4 * KIB]) > 0
    before = dirty_bytes(path)
    settle_file(path)
    after = dirty_bytes(path)
    mapped.close()
    if not before:
        pytest.skip("this file system keeps no dirty pages")
    assert before >= 7 * MIB and after == 0
