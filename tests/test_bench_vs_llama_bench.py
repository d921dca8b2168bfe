"""The comparison script against a stand-in for llama-bench."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
from make_gguf import write_gguf

SCRIPT = Path(__file__).parents[1] / "scripts" / "bench_vs_llama_bench"


def compare(tmp_path: Path, llama_bench: str, *options: str) -> subprocess.CompletedProcess[str]:
    pytest.importorskip("llama_cpp")
    program = tmp_path / "llama-bench"
    program.write_text(f"#!{sys.executable}\n{llama_bench}")
    program.chmod(0o755)
    model = write_gguf(tmp_path / "tiny.gguf")
    shape = ["-p", "16", "-n", "8", "-t", "1", "--pairs", "1", "--json"]
    command = [sys.executable, str(SCRIPT), str(program), str(model), *shape, *options]
    return subprocess.run(command, capture_output=True, text=True, timeout=300)


def test_rates_are_compared_at_equal_depth(tmp_path: Path) -> None:
    body = (
        "import json, pathlib, sys\n"
        f"with open({str(tmp_path / 'calls')!r}, 'a') as calls: print(*sys.argv[1:], file=calls)\n"
        "prompt = sys.argv[sys.argv.index('-p') + 1] != '0'\n"
        "print(json.dumps([{'samples_ts': [4.0, 5.0, 9.0] if prompt else [2.0, 2.0, 3.0]}]))\n"
    )
    done = compare(tmp_path, body, "--tolerance", "1e9")
    assert done.returncode == 0, done.stderr
    document = json.loads(done.stdout)
    assert document["prefill"]["theirs"] == 5.0
    assert document["decode"]["theirs"] == 2.0
    for found in (document["prefill"], document["decode"]):
        assert found["low"] <= found["ratio"] <= found["high"]
        assert found["ratio"] > 1
    prefill, decode, *_ = (tmp_path / "calls").read_text().splitlines()
    assert "-p 16 -n 0 -t 1" in prefill
    assert "-p 0 -n 8 -d 16 -t 1" in decode


def test_a_difference_is_the_exit_status(tmp_path: Path) -> None:
    body = "print('[{\"samples_ts\": [0.001]}]')"
    assert compare(tmp_path, body).returncode == 1


def test_a_crash_of_llama_bench_is_told(tmp_path: Path) -> None:
    done = compare(tmp_path, "import sys; sys.exit('no such model')")
    assert done.returncode != 0
    assert "llama-bench ended with status 1: no such model" in done.stderr
