"""`edgegauge energy`: a result and a recording make a result with joules."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
from recordings import DECODE_W, IDLE_W, PREFILL_W, Run, csv, sample
from sample_results import TOOL

from edgegauge.cli import main
from edgegauge.document import read_json, write_json
from edgegauge.energy import Energy, MeterFacts, Window
from edgegauge.result import ArtifactFacts, MemorySummary, Result, Summary, Workload

RUN = Run()
TOKENS = {"prefill": 4000, "decode": 400}
UNIX_S = 1.8e9 - RUN.start_s
WHY = "record with an external meter, then: edgegauge energy RESULT FILE"


def facts(meter: str, *, whole: bool) -> MeterFacts:
    return MeterFacts(
        meter=meter, id=f"{meter}:x", read_from="-", unit="-", counter=False, update_period_s=1,
        calibration_share=0, calibration="-", grade="B", whole_device=whole, covers=["x"],
        excludes=[],
    )  # fmt: skip


def result_of(run: Run, *, others: list[Energy] | None = None, edges: bool = True) -> Result:
    windows = [
        Window(phase=name, start_s=a, end_s=b, tokens=TOKENS.get(name, 0), reason=WHY)  # type: ignore[arg-type]
        for name, a, b in run.windows
    ]
    pending = Energy(source=facts("recording", whole=True), windows=windows, reason=WHY)
    energy_run = {"edges": run.edges if edges else [], "monotonic_to_unix_s": UNIX_S}
    return Result(
        tool=TOOL,
        artifact=ArtifactFacts(
            name="a", model="m", recipe=None, format="gguf", file_bytes=1, sha256="0" * 64
        ),
        host={"cpu_model": "x", "energy_run": json.loads(json.dumps(energy_run))},
        workload=Workload(threads=1),
        samples=[],
        energy=[*(others or []), pending],
        summary=Summary(
            prefill_tok_per_s=None, decode_tok_per_s=None, ttft_s=None, inter_token_s=None,
            load_s=None, energy_reason=WHY,
            memory=MemorySummary(
                peak_rss_bytes=None, peak_anonymous_bytes=None, peak_file_bytes=None
            ),
        ),
        created="2026-11-22T00:00:00Z",
    )  # fmt: skip


def saved(tmp_path: Path, result: Result) -> Path:
    path = tmp_path / "result.json"
    write_json(path, result.model_dump(mode="json"))
    return path


def status_of(*arguments: object) -> int:
    with pytest.raises(SystemExit) as caught:
        main(["energy", *map(str, arguments)])
    assert isinstance(caught.value.code, int)
    return caught.value.code


Row = Callable[[int, float, float, float], str]
FILES: dict[str, tuple[str, float, Row, list[str]]] = {
    "csv": ("time_s,power_w", 0.02, lambda n, t, w, j: f"{t:.4f},{w:.5f}", []),
    "joulescope": (
        "#time,current,voltage,power,charge,energy", 0.5,
        lambda n, t, w, j: f"{t:.1f},{w / 5:.6f},5.0,{w:.6f},{j / 5:.6f},{j:.6f}", [],
    ),
    "ppk2": (
        "Timestamp(ms),Current(uA),D0-D7", 0.005,
        lambda n, t, w, j: f"{t * 1000:.3f},{w / 5 * 1e6:.3f},00000000", ["--volts", "5"],
    ),
    "monsoon": (
        "Time(ms),Main(mA),Main Voltage(V),", 0.008,
        lambda n, t, w, j: f"{(n // 10 + 1) * 0.08:.4f},{w / 4 * 1000:.4f},4.0,", [],
    ),
    "fnirsi": (
        "timestamp sample_in_packet voltage_V current_A dp_V dn_V temp_C_ema energy_Ws capacity_As",
        0.01,
        lambda n, t, w, j: f"{1.7e9 + n * 0.01 - n // 4 % 2 * 0.02:.3f} {n % 4} 5 {w / 5:.6f} 0 0",
        [],
    ),
}  # fmt: skip


@pytest.mark.parametrize("kind", FILES)
def test_true_joules_are_recovered_from_every_format(
    kind: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    header, period_s, row, options = FILES[kind]
    rows = sample(RUN, period_s, row, offset_s=-4.321, ppm=300, noise_w=0.05)
    file = csv(tmp_path / f"{kind}.txt", header, rows)
    result = saved(tmp_path, result_of(RUN))
    assert status_of(result, file, *options, "--accuracy", "0.5", "--json") == 0
    document = json.loads(capsys.readouterr().out)
    new = read_json(tmp_path / "result-energy.json", Result)
    assert new.model_dump(mode="json") == document
    (energy,) = new.energy
    assert energy.source.grade == "A"
    assert len(energy.readings) <= 20_000
    joules = {name: 0.0 for name in TOKENS}
    for window in energy.windows:
        assert window.joules is not None, window.reason
        true_j = RUN.joules(window.end_s) - RUN.joules(window.start_s)
        if window.phase in joules:
            joules[window.phase] += true_j
    for name, figure in (
        ("prefill", energy.prefill_j_per_token), ("decode", energy.decode_j_per_token),
    ):  # fmt: skip
        assert figure is not None
        assert figure.least <= joules[name] / (2 * TOKENS[name]) <= figure.most
        assert figure.most - figure.least < 0.04 * figure.value
    assert energy.idle_before_w is not None
    assert energy.idle_before_w.least <= IDLE_W <= energy.idle_before_w.most
    net = energy.net_decode_j_per_token
    assert net is not None
    assert net.least <= (DECODE_W - IDLE_W) * 2 * RUN.block_s / (2 * TOKENS["decode"]) <= net.most
    assert new.summary.energy_j_per_token == energy.decode_j_per_token
    assert new.summary.energy_reason is None
    assert any("load edges" in flag for flag in energy.flags)


def test_the_table_and_the_old_file(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    rows = sample(RUN, 0.05, lambda n, t, w, j: f"{t:.4f},{w:.5f}")
    result = saved(tmp_path, result_of(RUN))
    before = result.read_bytes()
    out = tmp_path / "new.json"
    assert status_of(result, csv(tmp_path / "x.csv", "time_s,power_w", rows), "-o", out) == 0
    assert result.read_bytes() == before
    shown, talk = capsys.readouterr()
    assert "decode" in shown and "J/token" in shown and "calibration 5 %" in shown
    assert "placed by 8 load edges" in talk
    assert str(out) in talk
    assert f"{PREFILL_W:.0f}" in shown


def test_a_part_of_the_device_stays_behind_the_whole(tmp_path: Path) -> None:
    rapl = Energy(source=facts("rapl", whole=False), windows=[])
    rows = sample(RUN, 0.05, lambda n, t, w, j: f"{t:.4f},{w:.5f}")
    result = saved(tmp_path, result_of(RUN, others=[rapl]))
    assert status_of(result, csv(tmp_path / "x.csv", "time_s,power_w", rows)) == 0
    new = read_json(tmp_path / "result-energy.json", Result)
    assert [e.source.meter for e in new.energy] == ["file", "rapl"]


def test_clock_alignment_is_used_where_it_is_all_there_is(tmp_path: Path) -> None:
    rows = sample(RUN, 0.05, lambda n, t, w, j: f"{1.8e9 - 3 + t:.4f},{w:.5f}", offset_s=-3.0)
    file = csv(tmp_path / "x.csv", "time,power", rows)
    result = saved(tmp_path, result_of(RUN, edges=False))
    assert status_of(result, file) == 0
    (energy,) = read_json(tmp_path / "result-energy.json", Result).energy
    figure = energy.decode_j_per_token
    assert figure is not None
    assert figure.least <= DECODE_W * RUN.block_s / TOKENS["decode"] <= figure.most
    assert any("clocks" in flag for flag in energy.flags)
    # Half a second of doubt costs: the load next to a window is another one.
    assert energy.terms["alignment"] > 0.001


@pytest.mark.parametrize(
    "energy_run",
    [
        None, [], {"edges": 5}, {"edges": [1, [2], [3, "x"], [10**400, 1], [float("nan"), 2]]},
        {"edges": [[k, k + 1] for k in range(0, 20_000, 2)]}, {"monotonic_to_unix_s": "x"},
        {"edges": [[0, 1e300], [1, 2]], "monotonic_to_unix_s": 10**400},
    ],
)  # fmt: skip
def test_whatever_the_result_says_of_its_edges(energy_run: object, tmp_path: Path) -> None:
    result = result_of(RUN).model_dump(mode="json")
    result["host"]["energy_run"] = energy_run
    (tmp_path / "result.json").write_text(json.dumps(result))
    rows = sample(RUN, 0.1, lambda n, t, w, j: f"{1.8e9 + t:.4f},{w:.5f}")
    file = csv(tmp_path / "x.csv", "time,power", rows)
    assert status_of(tmp_path / "result.json", file) == 1


def test_a_recording_that_does_not_fit_is_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    flat = csv(tmp_path / "x.csv", "time_s,power_w", [f"{n * 0.1:.1f},2" for n in range(4000)])
    result = saved(tmp_path, result_of(RUN))
    assert status_of(result, flat) == 1
    said = capsys.readouterr().err
    assert "not in the recording" in said and "not absolute" in said and "--meter file" in said
    late = [f"{1.9e9 + n},2" for n in range(400)]
    assert status_of(result, csv(flat, "time,power_w", late), "--align", "clock") == 1
    assert "holds nothing of it" in capsys.readouterr().err
    assert not (tmp_path / "result-energy.json").exists()


def test_a_recording_of_half_the_run_keeps_the_reason(tmp_path: Path) -> None:
    rows = sample(RUN, 0.05, lambda n, t, w, j: f"{1.8e9 + t:.4f},{w:.5f}")
    file = csv(tmp_path / "x.csv", "time,power", rows[: len(rows) // 3])
    assert status_of(saved(tmp_path, result_of(RUN)), file) == 0
    new = read_json(tmp_path / "result-energy.json", Result)
    assert new.summary.energy_j_per_token is None
    assert new.summary.energy_reason


def test_errors_say_what_to_do(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    ppk = csv(tmp_path / "p.csv", "Timestamp(ms),Current(uA)", [f"{n},5" for n in range(9)])
    result = saved(tmp_path, result_of(RUN))
    assert status_of(result, ppk) == 1
    assert "--volts" in capsys.readouterr().err
    bare = result_of(RUN).model_copy(update={"energy": []})
    file = csv(tmp_path / "x.csv", "time_s,power_w", [f"{n},5" for n in range(9)])
    assert status_of(saved(tmp_path, bare), file) == 1
    assert "--meter file" in capsys.readouterr().err
    assert status_of(tmp_path / "absent.json", file) == 1
    assert status_of(result, file, "--format", "xlsx") == 2
