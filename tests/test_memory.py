"""Memory by phase: recorded /proc files, absent ones, and this very process."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from edgegauge.measure.memory import Phases, read
from edgegauge.units import KIB, MIB

STATUS = "Name:\tx\nVmHWM:\t   9000 kB\nVmRSS:\t   8000 kB\nRssAnon:\t   5000 kB\nVmSwap:\t 16 kB\n"
ROLLUP = "55d-7ff ---p 0 00:00 0 [rollup]\nRss: 8100 kB\nAnonymous: 5200 kB\nSwap: 20 kB\n"


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
    }


def test_status_serves_where_the_exact_file_is_hidden(tmp_path: Path) -> None:
    assert read(record(tmp_path, status=STATUS)) == {
        "rss_bytes": 8000 * KIB,
        "anonymous_bytes": 5000 * KIB,
        "file_bytes": 3000 * KIB,
        "swap_bytes": 16 * KIB,
    }


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


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_a_peak_belongs_to_its_phase_alone() -> None:
    phases = Phases()
    phases.begin("big")
    block = bytearray(96 * MIB)
    block[:: 4 * KIB] = b"x" * len(block[:: 4 * KIB])
    del block
    phases.end()
    phases.begin("small")
    phases.end()
    big, small = phases.found["big"], phases.found["small"]
    if big["peak_rss_bytes"] is None or small["peak_rss_bytes"] is None:
        pytest.skip("this kernel does not reset VmHWM")
    assert big["peak_rss_bytes"] > (big["rss_bytes"] or 0) + 80 * MIB
    assert small["peak_rss_bytes"] < big["peak_rss_bytes"] - 80 * MIB
    # The process that runs the tests may have been larger before the first phase.
    assert phases.peak_rss_bytes is not None
    assert phases.peak_rss_bytes >= big["peak_rss_bytes"]
