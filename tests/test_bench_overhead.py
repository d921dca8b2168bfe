"""The script that compares the harness with a bare loop, on a tiny model."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
from make_gguf import write_gguf

SCRIPT = Path(__file__).parents[1] / "scripts" / "bench_overhead"


def overhead(tmp_path: Path, *options: str) -> subprocess.CompletedProcess[str]:
    pytest.importorskip("llama_cpp")
    model = write_gguf(tmp_path / "tiny.gguf")
    shape = ["-p", "16", "-n", "8", "-t", "1", "-r", "2", "--pairs", "2", "--json"]
    command = [sys.executable, str(SCRIPT), str(model), *shape, *options]
    return subprocess.run(command, capture_output=True, text=True, timeout=300)


def test_the_answer_is_the_median_ratio_of_neighbours(tmp_path: Path) -> None:
    done = overhead(tmp_path, "--at-least", "0")
    assert done.returncode == 0, done.stderr
    document = json.loads(done.stdout)
    assert document["full"] > 0 and document["bare"] > 0
    assert document["low"] <= document["ratio"] <= document["high"]
    assert document["parent_share"] > 0
    assert done.stderr.count("pair ") == document["pairs"] == 2


def test_too_much_overhead_is_the_exit_status(tmp_path: Path) -> None:
    assert overhead(tmp_path, "--at-least", "1e9", "--pairs", "1").returncode == 1
