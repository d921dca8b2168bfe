"""The script that times a fit over everything, on two devices."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

from edgegauge import catalog

SCRIPT = Path(__file__).parents[1] / "scripts" / "bench_fit"


def bench(*options: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, str(SCRIPT), "--runs", "1", "--json", *options]
    return subprocess.run(command, capture_output=True, text=True, timeout=300)


def test_it_judges_as_many_candidates_as_asked_for_and_times_them() -> None:
    done = bench("--candidates", "600", "--at-most", "1000")
    assert done.returncode == 0, done.stderr
    document = json.loads(done.stdout)
    assert document["devices"] == 2
    each = document["candidates"] // 2
    assert each % len(catalog.known_ids()) == 0 and document["candidates"] >= 600
    assert 0 < document["least_s"] == document["median_s"] == document["most_s"]


def test_too_long_is_the_exit_status() -> None:
    assert bench("--candidates", "1", "--at-most", "0.001").returncode == 1
