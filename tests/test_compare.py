"""Comparing: what may be compared, how sure the ratio is, and when nobody can tell."""

from __future__ import annotations

import math
import random
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sample_results import energy_of, facts, figure, measured_result

from edgegauge.compare import Comparison, compare
from edgegauge.compare_graphs import compare_graphs
from edgegauge.errors import InputError
from edgegauge.figure import Figure
from edgegauge.graph_result import GraphFacts, GraphResult, GraphRun, GraphSummary, GraphWorkload
from edgegauge.ratio import CANNOT_TELL, Row, recovered, welch
from edgegauge.result import Percentiles, PromptSource, Repetitions, Result, result_from


def row(found: Comparison, name: str = "decode_tok_per_s") -> Row:
    return next(r for r in found.rows if r.name == name)


def with_workload(result: Result, **changes: Any) -> Result:
    return result.model_copy(update={"workload": result.workload.model_copy(update=changes)})


def with_host(result: Result, **changes: Any) -> Result:
    return result.model_copy(update={"host": result.host | changes})


A = measured_result([10.0, 10.1, 9.9])


def test_twice_the_rate_is_faster_and_half_the_time_is_too() -> None:
    found = compare(A, measured_result([20.0, 20.3, 19.8]))
    decode = row(found)
    assert decode.ratio is not None and decode.ratio.low and decode.ratio.high
    assert decode.ratio.value == pytest.approx(2, rel=0.01)
    assert 1.9 < decode.ratio.low < decode.ratio.value < decode.ratio.high < 2.1
    gaps = row(found, "inter_token_p50_s")
    assert gaps.ratio is not None and gaps.ratio.value == pytest.approx(0.5, rel=0.01)
    assert decode.verdict == gaps.verdict == "faster"
    back = compare(measured_result([20.0, 20.3, 19.8]), A)
    assert row(back).verdict == row(back, "inter_token_p50_s").verdict == "slower"


def test_a_result_is_the_same_as_itself() -> None:
    quiet = measured_result([10.0, 10.01, 10.02])
    found = compare(quiet, quiet)
    assert [r.verdict for r in found.rows if r.ratio] == ["same"] * 5
    assert row(compare(A, A)).verdict == CANNOT_TELL  # runs that differ by 1 % do not show 2 %
    assert found.notes == [] and found.differences == []


def test_noise_hides_a_small_difference_and_more_runs_are_named() -> None:
    noisy = [9.5, 10.0, 10.5]
    found = row(compare(measured_result(noisy), measured_result([x * 1.03 for x in noisy])))
    assert found.verdict == CANNOT_TELL
    assert found.runs_needed is not None and 20 < found.runs_needed < 80
    many = [9.5, 10.0, 10.5] * 30
    better = row(compare(measured_result(many), measured_result([x * 1.03 for x in many])))
    assert better.verdict == "faster"


def test_a_difference_below_the_threshold_does_not_matter() -> None:
    b = measured_result([10.1, 10.101, 10.102])
    a = measured_result([10.0, 10.001, 10.002])
    assert row(compare(a, b)).verdict == "same"
    assert row(compare(a, b, threshold=0.0)).verdict == "faster"


def test_one_run_tells_nothing_of_runs() -> None:
    found = row(compare(measured_result([10.0]), measured_result([20.0])))
    assert found.verdict == CANNOT_TELL and found.ratio is not None
    assert found.ratio.value == pytest.approx(2) and found.ratio.low is None
    assert found.reason == "one run does not tell how runs differ" and found.runs_needed == 3


def test_memory_and_energy_say_less_or_more() -> None:
    b = measured_result([10.0, 10.1, 9.9], peak_bytes=5e7)
    energies = [energy_of(spread=0.1), energy_of(spread=0.1)]
    half = energies[1].model_copy(update={
        "decode_j_per_token": Figure(0.3, "J/token", "measured", "gauge", 0.29, 0.31)
    })  # fmt: skip
    found = compare(
        A.model_copy(update={"energy": [energies[0]]}), b.model_copy(update={"energy": [half]})
    )
    assert row(found, "peak_memory_bytes").verdict == "less"
    assert row(found, "energy_j_per_token").verdict == "less"
    ratio = row(found, "energy_j_per_token").ratio
    assert ratio is not None and ratio.value == pytest.approx(0.3 / 0.7)


@pytest.mark.parametrize(
    "changes",
    [
        {"grade": "B"},
        {"covers": ["package"], "whole_device": False},
        {"meter": "rapl", "id": "rapl:package-0"},
    ],
)
def test_joules_of_different_sources_are_never_compared(changes: dict[str, Any]) -> None:
    a = A.model_copy(update={"energy": [energy_of()]})
    b = A.model_copy(update={"energy": [energy_of(**changes)]})
    found = row(compare(a, b), "energy_j_per_token")
    assert found.ratio is None and found.verdict is None
    assert found.reason is not None and found.reason.startswith("different sources: battery:BAT0")
    assert row(compare(A, a), "energy_j_per_token").reason == "not measured in both"


CONDITIONS = [
    ("host.cpu_model", with_host(A, cpu_model="Other")),
    ("host.cpu_model", with_host(A, cpu_model=None)),
    ("host.cores_usable", with_host(A, cores_usable=2)),
    ("host.cpu_quota", with_host(A, cpu_quota=1.5)),
    ("host.machine", with_host(A, machine="aarch64")),
    ("host.accelerator", with_host(A, accelerator="CUDA")),
    ("workload.mode", with_workload(A, mode="sustained")),
    ("workload.prompt_tokens", with_workload(A, prompt_tokens=7)),
    ("workload.generated_tokens", with_workload(A, generated_tokens=7)),
    ("workload.depth", with_workload(A, depth=7)),
    ("workload.threads", with_workload(A, threads=7)),
    ("workload.parallel", with_workload(A, parallel=7)),
    ("workload.prompt", with_workload(A, prompt=PromptSource(name="t", sha256="0" * 64))),
]


@pytest.mark.parametrize(("key", "other"), CONDITIONS)
def test_other_conditions_are_refused_and_named(key: str, other: Result) -> None:
    with pytest.raises(InputError, match="same conditions") as caught:
        compare(A, other)
    assert [problem.split(":")[0] for problem in caught.value.problems] == [key]
    forced = compare(A, other, force=True)
    assert [d.split(":")[0] for d in forced.differences] == [key] and row(forced).ratio


def test_every_difference_is_named_at_once() -> None:
    with pytest.raises(InputError) as caught:
        compare(A, with_host(with_workload(A, depth=1, threads=9), machine="x"))
    assert len(caught.value.problems) == 3


def test_what_may_differ_is_noted() -> None:
    before = {"governor": "powersave", "power_source": "battery"}
    b = with_host(A, kernel="6.6.2", before=before).model_copy(
        update={
            "tool": A.tool.model_copy(update={"runtime_version": "9"}),
            "artifact": facts("other"),
            "trustworthy": False,
            "warnings": ["it was hot"],
        }
    )
    keys = [note.split(":")[0] for note in compare(A, b).notes]
    assert keys == [
        "artifact", "runtime", "kernel", "governor", "power_source", "B is not trustworthy"
    ]  # fmt: skip


def imported(depth: int, runs: int = 3) -> Result:
    tests = [
        Repetitions(test=test, tokens=tokens, depth=at, seconds=[s + run / 1000, s, s])
        for run in range(runs)
        for test, tokens, at, s in (("prefill", 128, 0, 1.0), ("decode", 64, depth, 3.2))
    ]
    bare = {k: None for k in ("ttft_s", "inter_token_s", "load_s")}
    return A.model_copy(update={
        "host": {"cpu_model": "Imagined CPU"}, "samples": [], "imported": tests,
        "summary": A.summary.model_copy(update=bare),
    })  # fmt: skip


def test_an_imported_result_compares_where_its_tests_are_the_same() -> None:
    found = compare(A, imported(depth=128))
    assert row(found).verdict == "faster"
    ratio = row(found).ratio
    assert ratio is not None and ratio.value == pytest.approx(2.0, rel=0.01)
    assert row(found, "ttft_s").reason == "not known of B"
    assert "B does not tell, so not checked: machine, cores_usable, cpu_quota" in found.notes
    empty = row(compare(A, imported(depth=0)))
    assert empty.ratio is None and empty.reason == "decoding began at 128 and at 0 tokens"
    assert row(compare(A, imported(depth=0), force=True)).ratio is not None


def graph(times: list[float], **shape: Any) -> GraphResult:
    p50 = Percentiles(p50=figure(0.1, "s"), samples=5)
    runs = [GraphRun(load_s=1.0, latencies_s=[t] * 5, phases={}) for t in times]
    return GraphResult(
        tool=A.tool, host=A.host, samples=runs, workload=GraphWorkload(threads=2, **shape),
        graph=GraphFacts(
            name="g.onnx", format="onnx", file_bytes=9, sha256="0" * 64,
            inputs={"x": "float32 [1, ?]"}, outputs={},
        ),
        summary=GraphSummary(
            latency_s=p50, inferences_per_s=figure(10, "1/s"), load_s=figure(1, "s"),
            memory=A.summary.memory,
        ),
        created=A.created,
    )  # fmt: skip


def test_graphs_compare_by_latency() -> None:
    found = compare_graphs(graph([0.1, 0.101, 0.099]), graph([0.2, 0.201, 0.199]))
    verdicts = {r.name: r.verdict for r in found.rows}
    assert verdicts["latency_p50_s"] == verdicts["inferences_per_s"] == "slower"
    assert verdicts["latency_p99_s"] is None and verdicts["j_per_inference"] is None
    assert found.notes == []
    with pytest.raises(InputError) as caught:
        compare_graphs(graph([0.1]), graph([0.1], shapes={"x": [1, 8]}))
    assert [p.split(":")[0] for p in caught.value.problems] == ["inputs"]


def tailed(runs: list[float], gaps: int = 300) -> Result:
    """Runs whose gaps are 0.1 s but for the two percent that are as long as given."""
    samples = [
        run.model_copy(update={"rounds": [run.rounds[0].model_copy(update={
            "inter_token_s": [0.1] * (gaps - gaps // 50) + [tail] * (gaps // 50)})]})
        for run, tail in zip(measured_result([10.0] * len(runs)).samples, runs, strict=True)
    ]  # fmt: skip
    return A.model_copy(update={"samples": samples})


def test_tails_are_compared_run_by_run() -> None:
    """Pooled over runs the gaps of one bad run would count as hundreds of witnesses."""
    name = "inter_token_p99_s"
    good, bad = tailed([0.20, 0.201, 0.199]), tailed([0.20, 0.201, 0.9])
    assert row(compare(good, tailed([0.4, 0.401, 0.402])), name).verdict == "slower"
    assert row(compare(good, bad), name).verdict == CANNOT_TELL
    short = row(compare(good, tailed([0.4, 0.4, 0.4], gaps=200)), name)
    assert short.ratio is None and short.reason == "not known of B"


@pytest.mark.parametrize(
    ("runs", "between", "within"),
    [((3, 3), 0.03, 0.05), ((5, 5), 0.05, 0.0), ((3, 10), 0.02, 0.05), ((10, 10), 0.002, 0.1)],
)
def test_the_interval_covers_the_true_ratio(
    runs: tuple[int, int], between: float, within: float
) -> None:
    """Runs differ log-normally, rounds within a run skewed; a drift would be neither's fault."""
    rng = random.Random(20)
    truth, covered, rounds = math.log(1.3), 0, 2000

    def values(count: int, rate: float) -> list[float]:
        found = []
        for _ in range(count):
            run = rate * math.exp(rng.gauss(0, between))
            ordered = sorted(run * math.exp(-within * rng.expovariate(1)) for _ in range(5))
            found.append(ordered[2])
        return found

    for _ in range(rounds):
        interval = welch(values(runs[0], 10.0), values(runs[1], 13.0))
        covered += interval.low <= truth <= interval.high
    assert covered / rounds >= 0.93


def test_the_interval_of_a_ratio_of_energies_covers_it() -> None:
    """Two meters, each wrong by its own share; their intervals are k=2."""
    rng = random.Random(21)
    covered, rounds, truth = 0, 2000, math.log(1.2)
    for _ in range(rounds):
        found = []
        for true, share in ((1.0, 0.02), (1.2, 0.1)):
            value = true * (1 + rng.gauss(0, share))
            low, high = value * (1 - 2 * share), value * (1 + 2 * share)
            found.append(Figure(value, "J/token", "measured", "x", low, high))
        interval = recovered(*found)
        assert interval is not None
        covered += interval.low <= truth <= interval.high
    assert covered / rounds >= 0.93


def test_more_runs_do_not_mend_a_calibration() -> None:
    a, b = (A.model_copy(update={"energy": [energy_of(spread=0.3)]}) for _ in range(2))
    found = row(compare(a, b), "energy_j_per_token")
    assert (found.verdict, found.runs_needed) == (CANNOT_TELL, None)
    assert found.reason is not None and "better meter" in found.reason


def test_an_energy_that_may_be_nothing_cannot_be_compared() -> None:
    a, b = (A.model_copy(update={"energy": [energy_of(spread=s)]}) for s in (0.1, 1.2))
    found = row(compare(a, b), "energy_j_per_token")
    assert (found.verdict, found.ratio) == (CANNOT_TELL, None)


@settings(max_examples=60, deadline=None, suppress_health_check=list(HealthCheck))
@given(
    st.lists(st.floats(0, 1e300), min_size=1, max_size=4),
    st.lists(st.floats(0, 1e300), min_size=1, max_size=4),
    st.floats(0, 9),
)
def test_no_file_breaks_a_comparison(a: list[float], b: list[float], threshold: float) -> None:
    """Times of nothing and of ages are in files too."""

    def odd(values: list[float]) -> Result:
        runs = [
            run.model_copy(update={
                "rounds": [r.model_copy(update={
                    "prefill_s": v, "ttft_s": v, "inter_token_s": [v, v]}) for r in run.rounds],
                "peak_rss_bytes": int(v) % 2**50,
            })
            for run, v in zip(measured_result([1.0] * len(values)).samples, values, strict=True)
        ]  # fmt: skip
        return A.model_copy(update={"samples": runs})

    for found in compare(odd(a), odd(b), threshold=threshold).rows:
        assert found.verdict in (None, "same", "faster", "slower", "less", "more", CANNOT_TELL)
        if found.ratio and found.ratio.low is not None:
            assert found.ratio.low <= found.ratio.value <= found.ratio.most


def test_times_that_cannot_be_are_refused_where_a_file_is_read() -> None:
    """Sums of them would not be finite."""
    for absurd in (1.7e308, -1.0):
        document = A.model_dump(mode="json")
        document["samples"][0]["rounds"][0]["inter_token_s"] = [absurd, absurd]
        with pytest.raises(InputError, match=r"inter_token_s\.0: must be"):
            result_from(document, "here")
