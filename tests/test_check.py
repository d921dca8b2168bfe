"""`edgegauge check`: what a gate finds, and what it makes of it."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any

import pytest
from gates import PI, ZERO, write_artifact, write_gate
from make_bigram import write_bigram

from edgegauge import catalog
from edgegauge.artifact import Artifact, open_artifact
from edgegauge.budget import Budget
from edgegauge.check.judge import judge
from edgegauge.check.outcome import Cell, Outcome, Report
from edgegauge.check.paired import Metric, PairedMetric, PairedResult, PairedSide
from edgegauge.check.predicted import predicted_verdict
from edgegauge.check.subject import artifact_subject, model_subject
from edgegauge.device import known_ids, load
from edgegauge.errors import InputError
from edgegauge.figure import Figure
from edgegauge.fit import candidate_of
from edgegauge.predict import Predictor
from edgegauge.result import Workload

SMALL = '[[subject]]\nmodel = "smollm2-135m"\nformats = ["gguf"]\nrecipes = ["q4_0"]\n'


def cell(report: Report, subject: str, device: str | None = PI) -> Cell:
    return next(c for c in report.cells if (c.subject, c.device) == (subject, device))


def outcomes(found: Cell) -> dict[str, str]:
    return {check.limit: check.outcome for check in found.checks}


# What is judged.


def test_a_candidate_is_judged_as_fit_predicts_it() -> None:
    device, subject = load(PI), model_subject("smollm2-135m", "int4", "gguf")
    found = predicted_verdict(subject, device, Budget(decode_tok_per_s=1)).candidate
    same = Predictor(device).predict(catalog.load()["smollm2-135m"].spec, "q4_k_m", "gguf")
    assert found.key == ("smollm2-135m", "q4_k_m", "gguf")
    assert found.figure("decode_tok_per_s") == candidate_of(same).figure("decode_tok_per_s")
    assert found.figure("memory_bytes") == same.needed_memory_bytes


def test_an_artifact_has_its_real_size_and_the_prediction_of_its_spec(tmp_path: Path) -> None:
    path = write_artifact(tmp_path / "m.gguf", size=1234)
    subject = artifact_subject(open_artifact(path))
    found = predicted_verdict(subject, load(PI), Budget()).candidate
    size = found.figure("file_bytes")
    assert size is not None and (size.value, size.kind) == (1234, "measured")
    predicted = model_subject("smollm2-135m", "q4_0", "gguf")
    same = predicted_verdict(predicted, load(PI), Budget()).candidate
    assert found.figure("memory_bytes") == same.figure("memory_bytes")


def test_a_bare_gguf_file_is_predicted_as_it_is_stored(tmp_path: Path) -> None:
    path = write_bigram(tmp_path / "bare.gguf", {"1": "o"})
    subject = artifact_subject(open_artifact(path))
    assert subject.disk_bytes == path.stat().st_size and subject.unpredictable is None
    named = model_subject(str(path), "f32", "gguf")
    assert subject.tensor_bytes == named.tensor_bytes
    limits = Budget(decode_tok_per_s=1)
    mine = predicted_verdict(subject, load(PI), limits).candidate
    same = predicted_verdict(named, load(PI), limits).candidate
    assert mine.figure("memory_bytes") == same.figure("memory_bytes")
    assert mine.figure("decode_tok_per_s") == same.figure("decode_tok_per_s")


def test_a_file_that_is_not_what_its_manifest_says_is_an_error(tmp_path: Path) -> None:
    path = write_artifact(tmp_path / "m.gguf")
    path.write_bytes(bytes(999))
    with pytest.raises(InputError, match="has 999 bytes, but its manifest says 1000"):
        artifact_subject(open_artifact(path))


def test_a_score_is_that_of_published_weights_only(tmp_path: Path) -> None:
    own = write_artifact(tmp_path / "own.gguf")
    hub = write_artifact(tmp_path / "hub.gguf", origin="catalog")
    assert artifact_subject(open_artifact(own)).published("avg8_0shot") is None
    assert artifact_subject(open_artifact(hub)).published("avg8_0shot") is not None


# Outcomes.


def test_each_limit_passes_fails_or_nobody_can_tell(tmp_path: Path) -> None:
    decode = predicted_verdict(
        model_subject("smollm2-135m", "q4_0", "gguf"), load(PI), Budget()
    ).candidate.figure("decode_tok_per_s")
    assert decode and decode.low and decode.high
    for limit, outcome in (
        (decode.low * 0.99, "pass"), (decode.value * 0.99, "cannot tell"),
        (decode.value * 1.01, "cannot tell"), (decode.high * 1.01, "fail"),
    ):  # fmt: skip
        gate = write_gate(tmp_path, f"[budget]\ndecode_tok_per_s = {limit}\n{SMALL}")
        report = judge(gate)
        assert outcomes(report.cells[0])["decode_tok_per_s"] == outcome, limit
        assert report.breaks == (outcome == "fail")
    gate.write_text(
        'cannot_tell = "breaks"\n' + gate.read_text().replace(str(limit), str(decode.value))
    )
    assert judge(gate).breaks


def test_memory_is_hard_and_the_device_limits_it(tmp_path: Path) -> None:
    memory = predicted_verdict(
        model_subject("smollm2-135m", "q4_0", "gguf"), load(PI), Budget()
    ).candidate.figure("memory_bytes")
    assert memory
    for limit, outcome in ((memory.value + 1, "pass"), (memory.value - 1, "fail")):
        gate = write_gate(tmp_path, f"[budget]\nmemory = {round(limit)}\n{SMALL}")
        assert outcomes(judge(gate).cells[0]) == {"memory": outcome}
    large = SMALL.replace("smollm2-135m", "llama-3.2-1b")
    on_zero = predicted_verdict(model_subject("llama-3.2-1b", "q4_0", "gguf"), load(ZERO), Budget())
    assert [broken.limit for broken in on_zero.broken] == ["memory"]
    found = judge(write_gate(tmp_path, f'devices = ["{ZERO}"]\n{large}')).cells[0]
    assert found.outcome == "fail" and "345.0 MB allowed" in found.explanation
    assert found.advice is None


def test_a_failure_comes_with_the_change_that_mends_it(tmp_path: Path) -> None:
    gate = write_gate(tmp_path, "context = 8192\n[budget]\nmemory = '300MB'\n" + SMALL)
    found = judge(gate).cells[0]
    assert found.outcome == "fail" and found.advice and "context" in found.advice
    tokens = int(found.advice.split("context ")[1].split()[0])
    gate.write_text(gate.read_text().replace("8192", str(tokens)))
    assert judge(gate).cells[0].outcome == "pass"
    gate.write_text(gate.read_text().replace(str(tokens), str(tokens + 256)))
    assert judge(gate).cells[0].outcome == "fail"


def test_no_change_mends_a_file_that_is_larger_than_its_tensors(tmp_path: Path) -> None:
    write_artifact(tmp_path / "m.gguf", size=150_000_000)
    limits = "[budget]\nmemory = '300MB'\nfile_size = '120MB'\n"
    gate = write_gate(tmp_path, f"context = 8192\n{limits}[[subject]]\nartifact = 'm.gguf'\n")
    found = judge(gate).cells[0]
    assert outcomes(found) == {"memory": "fail", "file_size": "fail"} and found.advice is None


def test_a_subject_goes_before_a_device_and_that_before_the_budget(tmp_path: Path) -> None:
    gate = write_gate(
        tmp_path,
        f"""devices = ["{PI}", "{ZERO}"]
[budget]
decode_tok_per_s = 30
file_size = "1GB"
[device_budget.{ZERO}]
decode_tok_per_s = 2
{SMALL}
{SMALL.replace("smollm2-135m", "qwen3-0.6b")}
budget = {{ decode_tok_per_s = 1 }}
devices = ["{PI}"]
""",
    )
    report = judge(gate)
    required = {
        (c.subject, c.device): {k.limit: k.required for k in c.checks} for c in report.cells
    }
    assert required["smollm2-135m q4_0 gguf", PI]["decode_tok_per_s"] == 30
    assert required["smollm2-135m q4_0 gguf", ZERO]["decode_tok_per_s"] == 2
    assert required["qwen3-0.6b q4_0 gguf", PI]["decode_tok_per_s"] == 1
    assert required["qwen3-0.6b q4_0 gguf", PI]["file_size"] == 10**9
    assert ("qwen3-0.6b q4_0 gguf", ZERO) not in required


def test_what_has_no_room_for_the_context_fails(tmp_path: Path) -> None:
    write_artifact(tmp_path / "short.tflite", recipe="int8", context=512)
    gate = write_gate(tmp_path, 'context = 1024\n[[subject]]\nartifact = "short.tflite"\n')
    found = judge(gate).cells[0]
    assert outcomes(found) == {"context": "fail"}
    assert "has room for 512 tokens, 1024 were asked for" in found.explanation
    gate.write_text(gate.read_text().replace("1024", "512"))
    assert judge(gate).cells[0].outcome == "pass"


def test_an_artifact_that_nothing_predicts_fails_and_says_why(tmp_path: Path) -> None:
    path = write_artifact(tmp_path / "m.gguf")
    manifest = path.with_name("m.gguf.manifest.json")
    manifest.write_text(json.dumps(json.loads(manifest.read_text()) | {"spec": None}))
    gate = write_gate(tmp_path, "[budget]\nfile_size = 2000\n[[subject]]\nartifact = 'm.gguf'\n")
    found = judge(gate).cells[0]
    assert outcomes(found) == {"memory": "fail", "file_size": "pass"}
    assert found.explanation == "memory is not known: converted by an engine of others"


def test_forty_models_on_ten_devices_take_seconds(tmp_path: Path) -> None:
    models = "".join(SMALL.replace("smollm2-135m", name) for name in catalog.known_ids()[:40])
    devices = json.dumps(known_ids()[:10])
    gate = write_gate(tmp_path, f"devices = {devices}\n[budget]\ndecode_tok_per_s = 20\n{models}")
    started = time.process_time()
    report = judge(gate)
    assert len(report.cells) == 400
    assert time.process_time() - started < 10  # 1.2 s on a quiet machine


# Baselines.


def test_a_baseline_holds_exact_figures_and_catches_what_is_worse(tmp_path: Path) -> None:
    path = write_artifact(tmp_path / "build" / "m.gguf", size=10_000)
    gate = write_gate(tmp_path, f"{SMALL}[[subject]]\nartifact = 'build/*.gguf'\n[baseline]\n")
    with pytest.raises(InputError, match="there is no baseline") as caught:
        judge(gate)
    assert "--update-baseline" in str(caught.value.hint)
    assert not judge(gate, update_baseline=True).breaks
    kept = tmp_path / "gate.baseline.json"
    document = json.loads(kept.read_text())
    assert list(document["subjects"]) == sorted(document["subjects"])
    assert document["subjects"]["build/m.gguf"]["file_bytes"] == 10_000
    assert set(document["subjects"]["build/m.gguf"]["memory_bytes"]) == {PI}
    first = kept.read_bytes()
    judge(gate, update_baseline=True)
    assert kept.read_bytes() == first
    assert not judge(gate).breaks and judge(gate).notes == []

    write_artifact(path, size=10_100)  # 1 % is tolerated
    assert not judge(gate).breaks
    write_artifact(path, size=11_200)
    found = cell(judge(gate), "build/m.gguf", None)
    assert outcomes(found)["baseline.file_bytes"] == "fail"
    assert "12 % more than the baseline's 10.0 kB, 1 % allowed" in found.explanation
    write_artifact(path, size=8_000)
    report = judge(gate)
    assert not report.breaks
    assert any("20 % less" in note and "--update-baseline" in note for note in report.notes)


def test_a_baseline_catches_memory_and_names_what_came_and_went(tmp_path: Path) -> None:
    gate = write_gate(tmp_path, f"context = 512\n{SMALL}[baseline]\nfile = 'kept.json'\n")
    judge(gate, update_baseline=True)
    assert (tmp_path / "kept.json").exists()
    gate.write_text(gate.read_text().replace("512", "4096"))
    found = cell(judge(gate), "smollm2-135m q4_0 gguf")
    assert outcomes(found)["baseline.memory_bytes"] == "fail" and "% more" in found.explanation
    gate.write_text(gate.read_text().replace("smollm2-135m", "smollm2-360m"))
    notes = judge(gate).notes
    assert any(n.startswith("smollm2-360m q4_0 gguf is not in the baseline") for n in notes)
    assert any(n.startswith("smollm2-135m q4_0 gguf is in the baseline and not") for n in notes)
    with pytest.raises(InputError, match=r"has no \[baseline\]"):
        judge(write_gate(tmp_path, SMALL, "other.toml"), update_baseline=True)


# Quality, really evaluated.


def test_quality_is_evaluated_on_the_artifact(tmp_path: Path) -> None:
    pytest.importorskip("llama_cpp")
    write_bigram(tmp_path / "speller.gguf", {"1": "o", "o": "n", "n": "e", "e": None})
    rows = [("q1", "one"), ("say 1", "one"), ("n", "e"), ("1", "two")]
    task = "".join(json.dumps({"prompt": p, "answer": a}) + "\n" for p, a in rows)
    (tmp_path / "task.jsonl").write_text(task)
    text = (
        "[[subject]]\nartifact = 'speller.gguf'\n[baseline]\n"
        "[quality]\ntask = 'task.jsonl'\nexact_match_at_least = 0.75\n"
    )
    gate = write_gate(tmp_path, text)
    report = judge(gate, update_baseline=True)
    found = cell(report, "speller.gguf", None)
    assert outcomes(found) == {"exact_match": "pass"}
    higher = gate.with_name("higher.toml")
    higher.write_text(gate.read_text().replace("0.75", "0.76"))
    assert judge(higher, update_baseline=True).breaks
    assert found.checks[0].figure and found.checks[0].figure.low is not None
    document = json.loads((tmp_path / "gate.baseline.json").read_text())
    assert document["subjects"]["speller.gguf"]["exact_match"] == 0.75
    # A worse model of the same size, under a floor that it meets: the baseline catches it.
    write_bigram(tmp_path / "speller.gguf", {"1": "o", "o": "n", "n": None})
    gate.write_text(gate.read_text().replace("0.75", "0.0"))
    found = cell(judge(gate), "speller.gguf", None)
    assert outcomes(found)["exact_match"] == "pass"
    assert outcomes(found)["baseline.exact_match"] == "fail"
    assert "points less than the baseline's 75.0 %" in found.explanation


def test_an_artifact_that_does_not_run_fails_the_gate(tmp_path: Path) -> None:
    pytest.importorskip("llama_cpp")
    write_artifact(tmp_path / "zeros.gguf")
    (tmp_path / "text.txt").write_text("Some text.")
    gate = write_gate(tmp_path, (
        "[[subject]]\nartifact = 'zeros.gguf'\n"
        "quality = { text = 'text.txt', bits_per_byte_at_most = 8.0 }\n"
    ))  # fmt: skip
    found = cell(judge(gate), "zeros.gguf", None)
    assert outcomes(found) == {"quality": "fail"}
    assert found.explanation.startswith("it could not be evaluated: ")
    (tmp_path / "text.txt").unlink()
    with pytest.raises(InputError, match=r"subject\.0: cannot read .*text\.txt"):
        judge(gate)


# Speed in pairs; what is measured is tested in test_paired*.py.


def test_a_paired_comparison_is_a_cell_with_its_uncertainty(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("new", "old"):
        write_artifact(tmp_path / f"{name}.gguf")
    gate = write_gate(tmp_path, (
        "[[subject]]\nartifact = 'new.gguf'\n[[paired]]\nartifact = 'new.gguf'\n"
        "baseline = 'old.gguf'\nslower_at_most = 0.04\nmost_pairs = 9\nthreads = 1\n"
    ))  # fmt: skip
    asked: dict[str, Any] = {}

    def compared(candidate: Artifact, baseline: Artifact, workload: Workload, **how: Any) -> Any:
        asked.update(how, sides=(candidate.name, baseline.name), threads=workload.threads)
        side = PairedSide(artifact="a", sha256="0" * 64, runtime="r 1")
        rate = Figure(10.0, "tok/s", "measured", "test")

        def metric(name: Metric, outcome: Outcome, *ratio: float) -> PairedMetric:
            low, value, high = ratio
            return PairedMetric(
                name=name, baseline=rate, candidate=rate, outcome=outcome,
                ratio=Figure(value, "1", "measured", "test", low, high),
                minimum_detectable=Figure(3.0, "%", "measured", "test"),
            )  # fmt: skip

        return PairedResult(
            baseline=side, candidate=side, workload=workload, slower_at_most=0.04, pairs=9,
            waited=Figure(0.0, "%", "measured", "test"),
            metrics=[
                metric("decode", "fail", 0.8, 0.9, 0.95),
                metric("prefill", "cannot tell", 0.9, 1.0, 1.1),
            ],
        )  # fmt: skip

    monkeypatch.setattr("edgegauge.check.side_by_side.compare_paired", compared)
    report = judge(gate)
    assert asked.pop("progress") and asked == {
        "slower_at_most": 0.04, "most_pairs": 9, "baseline_python": None, "threads": 1,
        "sides": ("new", "old"),
    }  # fmt: skip
    found = cell(report, "new.gguf against old.gguf", None)
    assert outcomes(found) == {"paired.decode": "fail", "paired.prefill": "cannot tell"}
    assert report.breaks and found.explanation == (
        "decoding takes 11.1 % more time than in the baseline (+5.3 to +25.0 %), 4 % more allowed; "
        "3.0 % more would be noticed"
    )
    check = found.checks[0]
    passes = check.model_copy(update={"outcome": "pass"})
    assert (
        "3.0 % more would be noticed" in found.model_copy(update={"checks": [passes]}).explanation
    )
    assert check.figure and check.required == pytest.approx(1 / 1.04)


def test_a_side_that_does_not_run_fails_the_gate(tmp_path: Path) -> None:
    pytest.importorskip("llama_cpp")
    for name in ("new", "old"):
        write_artifact(tmp_path / f"{name}.gguf")
    gate = write_gate(tmp_path, (
        "[[subject]]\nartifact = 'new.gguf'\n[[paired]]\nartifact = 'new.gguf'\n"
        "baseline = 'old.gguf'\n"
    ))  # fmt: skip
    found = cell(judge(gate), "new.gguf against old.gguf", None)
    assert found.outcome == "fail" and "could not be compared: " in found.explanation
    gate.write_text(f"{gate.read_text()}baseline_python = 'venv/bin/python'\n")
    with pytest.raises(InputError, match=r"paired\.0: no such interpreter"):
        judge(gate)
