"""Rows of llama-bench as results: what is joined, what is not told, and hostile rows."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from make_gguf import write_gguf

from edgegauge.artifact import sha256_of
from edgegauge.errors import InputError
from edgegauge.llama_bench import import_rows
from edgegauge.result import Result


def bench(prompt: int, generated: int, depth: int = 0, **changes: Any) -> dict[str, Any]:
    """A row with the keys of build 6500 or so; five repetitions."""
    tokens = prompt + generated
    seconds = [0.010, 0.011, 0.010, 0.012, 0.010] if prompt else [0.1, 0.11, 0.12, 0.1, 0.1]
    return {
        "build_commit": "a94d563", "build_number": 6500,
        "cpu_info": "Imagined(R) Core(TM) i5-1 CPU @ 2.40GHz", "gpu_info": "", "backends": "CPU",
        "model_filename": "/models/tiny-q4_0.gguf", "model_type": "llama 1B Q4_0",
        "model_size": 1000, "model_n_params": 2000, "n_batch": 2048, "n_ubatch": 512,
        "n_threads": 4, "cpu_mask": "0x0", "type_k": "f16", "type_v": "f16", "n_gpu_layers": 99,
        "flash_attn": False, "use_mmap": True, "tensor_split": "0.00", "n_prompt": prompt,
        "n_gen": generated, "n_depth": depth, "test_time": "2026-08-14T00:23:09Z",
        "avg_ns": 1, "stddev_ns": 1, "avg_ts": tokens / 0.01, "stddev_ts": 1.0,
        "samples_ns": [round(s * 1e9) for s in seconds],
        "samples_ts": [tokens / s for s in seconds],
        **changes,
    }  # fmt: skip


def imported(tmp_path: Path, *rows: Any) -> tuple[list[Result], list[str]]:
    path = tmp_path / "rows.json"
    path.write_text(json.dumps(rows))
    return import_rows(path)


def test_a_prompt_row_and_a_decoding_row_become_one_result(tmp_path: Path) -> None:
    (result,), left_out = imported(tmp_path, bench(128, 0), bench(0, 64))
    assert left_out == []
    summary = result.summary
    assert summary.prefill_tok_per_s and summary.decode_tok_per_s
    assert summary.prefill_tok_per_s.value == pytest.approx(128 / 0.010)
    assert summary.decode_tok_per_s.value == pytest.approx(64 / 0.1)
    assert summary.decode_tok_per_s.source == "llama-bench 6500 (a94d563)"
    assert (summary.ttft_s, summary.inter_token_s, summary.load_s) == (None, None, None)
    assert summary.memory.peak_rss_bytes is None and result.samples == []
    assert [t.test for t in result.imported] == ["prefill", "decode"]
    assert result.imported[1].seconds == [0.1, 0.11, 0.12, 0.1, 0.1]
    assert (result.tool.runtime, result.workload.threads) == ("llama-bench", 4)
    assert result.host == {"cpu_model": "Imagined Core i5-1"}
    assert (result.artifact.name, result.artifact.sha256) == ("tiny-q4_0", None)
    assert result.artifact.effective_bits == 4.0
    assert result.created == "2026-08-14T00:23:09+00:00"
    said = " ".join(result.warnings)
    for words in ("random tokens", "mean", "0 tokens in the context", "one run", "not here"):
        assert words in said
    assert Result.model_validate_json(result.model_dump_json()) == result


def test_decoding_after_the_prompt_is_preferred(tmp_path: Path) -> None:
    rows = [bench(128, 0), bench(0, 64), bench(128, 0, 128), bench(0, 64, 128)]
    results, left_out = imported(tmp_path, *rows)
    depths = [(r.workload.depth, r.imported[1].depth) for r in results]
    assert depths == [(0, 128), (128, 128)]
    assert not any("in the context" in w for w in results[0].warnings)
    assert any("in the context" in w for w in results[1].warnings)
    assert left_out == ["tiny-q4_0: nothing to join tg64 with"]


def test_executions_appended_to_one_file_are_runs(tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    rows = [bench(128, 0), bench(0, 64)] * 3
    path.write_text("\n".join(json.dumps(row) for row in rows) + "\n")
    (result,), _ = import_rows(path)
    assert result.workload.runs == 3 and len(result.imported) == 6
    assert not any("one run" in w for w in result.warnings)


@pytest.mark.parametrize(
    "changes",
    [{"n_threads": 2}, {"model_filename": "b.gguf"}, {"type_k": "q8_0"}, {"build_commit": "b"}],
)
def test_rows_of_other_settings_stay_apart(tmp_path: Path, changes: dict[str, Any]) -> None:
    with pytest.raises(InputError, match="no prompt row and decoding row"):
        imported(tmp_path, bench(128, 0), bench(0, 64, **changes))


def test_what_was_timed_together_is_left_out(tmp_path: Path) -> None:
    _, left_out = imported(tmp_path, bench(128, 0), bench(0, 64), bench(512, 128))
    assert left_out == ["tiny-q4_0: 512 prompt and 128 generated tokens were timed together"]


def test_a_model_that_is_here_is_hashed(tmp_path: Path) -> None:
    model = write_gguf(tmp_path / "tiny.gguf")
    here = {"model_filename": str(model)}
    (result,), _ = imported(tmp_path, bench(128, 0, **here), bench(0, 64, **here))
    assert result.artifact.sha256 == sha256_of(model)
    assert result.artifact.file_bytes == model.stat().st_size
    other = tmp_path / "other.gguf"
    other.write_bytes(b"x" * 5000)
    for name in (str(other), str(tmp_path), "/dev/zero", "a\0b", "x" * 3000):
        odd = {"model_filename": name}
        (result,), _ = imported(tmp_path, bench(128, 0, **odd), bench(0, 64, **odd))
        assert result.artifact.sha256 is None
        assert "/" not in result.artifact.name and len(result.artifact.name) <= 100


def test_a_graphics_processor_is_told(tmp_path: Path) -> None:
    gpu = {"backends": "CUDA", "gpu_info": "Imagined RTX"}
    (result,), _ = imported(tmp_path, bench(128, 0, **gpu), bench(0, 64, **gpu))
    assert result.host["accelerator"] == "CUDA Imagined RTX"


@pytest.mark.parametrize(
    ("content", "says"),
    [
        ("", "1 problem"),
        ("[]", "1 problem"),
        ("{}", "rows.0.model_filename: required"),
        ("[1]", "rows.0"),
        ("[{", "not valid JSON"),
        ('{"a": NaN}\n{', "not valid JSON"),
        (json.dumps([bench(128, 0, samples_ns=[])]), "samples_ns"),
        (json.dumps([bench(128, 0, samples_ns=[0])]), "samples_ns.0: must be >= 1"),
        (json.dumps([bench(128, 0, n_threads=0), bench(-1, 1)]), "2 problems"),
    ],
)
def test_what_is_no_such_output_is_told(tmp_path: Path, content: str, says: str) -> None:
    path = tmp_path / "rows.json"
    path.write_text(content)
    with pytest.raises(InputError, match=says):
        import_rows(path)


VALUES = (
    st.none() | st.booleans() | st.integers(-(2**70), 2**70) | st.floats() | st.text(max_size=20)
    | st.lists(st.integers(-5, 10**12), max_size=4)
)  # fmt: skip
KEYS = st.sampled_from(sorted(bench(1, 0)))


@settings(max_examples=150, deadline=None, suppress_health_check=list(HealthCheck))
@example([{"test_time": "0001-01-01T00:00:00+23:59"}, {}])
@example([{"n_prompt": 1_000_000, "samples_ns": [1]}, {"samples_ns": [1e15]}])
@given(st.lists(st.dictionaries(KEYS, VALUES, max_size=3), min_size=2, max_size=2))
def test_hostile_rows_become_results_or_an_error(
    tmp_path: Path, changes: list[dict[str, Any]]
) -> None:
    rows = [bench(128, 0) | changes[0], bench(0, 64) | changes[1]]
    path = tmp_path / "rows.json"
    path.write_text(json.dumps(rows))
    try:
        results, _ = import_rows(path)
    except InputError:
        return
    for result in results:
        assert Result.model_validate_json(result.model_dump_json()) == result
        assert result.summary.decode_tok_per_s and result.summary.decode_tok_per_s.value > 0


@settings(max_examples=80, deadline=None, suppress_health_check=list(HealthCheck))
@given(st.binary(max_size=200) | st.text(max_size=200).map(str.encode))
def test_any_bytes_are_an_error(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "rows.jsonl"
    path.write_bytes(content)
    with pytest.raises(InputError):
        import_rows(path)
