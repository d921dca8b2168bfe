"""The sections of raw data: each is there exactly when its data is, and no number breaks it."""

from __future__ import annotations

import math
import re
from html.parser import HTMLParser
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest
from click.testing import CliRunner
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sample_results import TOOL, energy_of, figure, measured_result, result

from edgegauge.cli import root
from edgegauge.document import write_json
from edgegauge.energy import Energy, Window
from edgegauge.errors import InputError
from edgegauge.figure import Figure
from edgegauge.graph_result import GraphFacts, GraphResult, GraphRun, GraphSummary, GraphWorkload
from edgegauge.report import load, page, thin
from edgegauge.report.chapter import Chapter
from edgegauge.report.rows import table_results
from edgegauge.report.summary import CandidateFigures
from edgegauge.result import (
    FailedResult,
    Failure,
    MemorySummary,
    Percentiles,
    Phase,
    Repetitions,
    Result,
    Round,
    Run,
    Sustained,
)

pytest.importorskip("vl_convert")
pytest.importorskip("altair")

from edgegauge.report import sections, svg
from edgegauge.report.view import Notes

SECTIONS = (
    "Graphs", "Speed and depth", "Speed and prompt length", "Sequences side by side", "Sustained",
    "Energy", "Memory by phase",
)  # fmt: skip


class Heads(HTMLParser):
    """Headings, tags and attributes of a page."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.heads: list[str] = []
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self._in_head = False
        self.feed(text)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))
        self._in_head = tag == "h2"

    def handle_data(self, data: str) -> None:
        if self._in_head:
            self.heads.append(data)
            self._in_head = False

    @property
    def sections(self) -> list[str]:
        return [head for head in self.heads if head in SECTIONS]


def shaped(
    name: str, speed: float = 10.0, changes: dict[str, Any] | None = None, **load: Any
) -> Result:
    """A result of this shape."""
    made = result(name, speed, **(changes or {}))
    return made.model_copy(update={"workload": made.workload.model_copy(update=load)})


def lasting(name: str, found: Sustained, **changes: Any) -> Result:
    """A sustained result whose rate falls from 40 to 20 tok/s in ten minutes."""
    rounds = [
        Round(
            prefill_s=0.1, ttft_s=0.1, start_s=100.0 + 2 * n,
            inter_token_s=[1 / (20 + 20 * math.exp(-n / 60))] * 32,
        )
        for n in range(300)
    ]  # fmt: skip
    made = shaped(name, 20.0, mode="sustained")
    summary = made.summary.model_copy(update={"sustained": found})
    during = [{"t_s": 1.0 * t, "temperature_c": 40 + t / 20, "throttle_count": t // 300}
              for t in range(600)]  # fmt: skip
    return made.model_copy(update={
        "samples": [Run(load_s=None, phases={}, rounds=rounds)], "summary": summary,
        "host": {**made.host, "during": during}, **changes,
    })  # fmt: skip


PLATEAU = Sustained(
    burst_tok_per_s=figure(38.0, "tok/s"), plateau_tok_per_s=figure(20.0, "tok/s"),
    drop_percent=figure(47.0, "%"), time_to_plateau_s=300.0, peak_temperature_c=70.0,
    throttled=True,
)  # fmt: skip


def traced(counter: bool = True, **changes: Any) -> Energy:
    """Two windows of 5 W idle and 8 W decoding, read every second."""
    watts = [5.0 if t < 60 else 8.0 for t in range(120)]
    joules = [sum(watts[:t]) for t in range(120)]
    readings = [(1000.0 + t, joules[t] if counter else watts[t]) for t in range(120)]
    windows = [
        Window(phase="idle_before", start_s=1000, end_s=1060, joules=300.0, uncertainty_j=1.0),
        Window(phase="decode", start_s=1060, end_s=1119, tokens=500, joules=472.0),
    ]
    terms = {"calibration": 0.05, "repeat": 0.012, "quantum": 1e-9}
    made = energy_of(0.1, counter=counter)
    return made.model_copy(
        update={"readings": readings, "windows": windows, "terms": terms, **changes}
    )


def phase(anonymous: int | None = 20_000_000, **changes: Any) -> Phase:
    return Phase(
        rss_bytes=50_000_000, anonymous_bytes=anonymous, file_bytes=30_000_000, swap_bytes=0,
        peak_rss_bytes=55_000_000,
    ).model_copy(update=changes)  # fmt: skip


def held(name: str, phases: dict[str, Phase]) -> Result:
    made = result(name)
    memory = made.summary.memory.model_copy(update={"phases": phases})
    summary = made.summary.model_copy(update={"memory": memory})
    return made.model_copy(update={"summary": summary})


def graph(name: str = "vision", latencies_s: list[float] | None = None) -> GraphResult:
    latencies = latencies_s or [0.01 + 0.0001 * n for n in range(400)]
    times = Percentiles(p50=figure(0.03, "s"), p99=figure(0.05, "s"), samples=len(latencies))
    return GraphResult(
        tool=TOOL.model_copy(update={"runtime": "ONNX Runtime"}),
        graph=GraphFacts(
            name=name, format="onnx", file_bytes=5000, sha256="0" * 64,
            inputs={"pixels": "float32 [1, 3, 8, 8]"}, outputs={},
        ),
        host={"cpu_model": "Imagined CPU"},
        workload=GraphWorkload(threads=2),
        samples=[GraphRun(load_s=0.1, phases={}, latencies_s=latencies)],
        summary=GraphSummary(
            latency_s=times, inferences_per_s=figure(33.0, "1/s"), load_s=figure(0.1, "s"),
            memory=MemorySummary(
                peak_rss_bytes=None, peak_anonymous_bytes=None, peak_file_bytes=None
            ),
            j_per_inference=figure(0.4, "J/inference"),
        ),
        created="2026-01-02T03:04:05+00:00",
    )  # fmt: skip


def failed(name: str) -> FailedResult:
    made = result(name)
    return FailedResult(
        tool=made.tool, artifact=made.artifact, host=made.host, workload=made.workload,
        failures=[Failure(run=0, phase="load", kind="out of memory", reason="needs <b>9</b> GB")],
        created=made.created,
    )  # fmt: skip


def rendered(*results: Result, graphs: tuple[GraphResult, ...] = ()) -> str:
    return page.render(load.merged(results, [], graphs))


GRID = [shaped("a", 20.0 / (1 + d), depth=d, parallel=n) for d in (0, 2) for n in (1, 2)]

CASES: dict[str, tuple[tuple[Result, ...], tuple[GraphResult, ...], list[str]]] = {
    "nothing": ((result("a"), result("b")), (), []),
    "two artifacts at two depths are no curve": ((result("a"), shaped("b", depth=9)), (), []),
    "depths": ((result("a"), shaped("a", depth=9)), (), ["Speed and depth"]),
    "prompts": ((result("a"), shaped("a", prompt_tokens=9)), (), ["Speed and prompt length"]),
    "threads tell lines apart": ((result("a"), shaped("a", depth=9, threads=7)), (), []),
    "parallel": ((result("a"), shaped("a", parallel=4)), (), ["Sequences side by side"]),
    "grid": (tuple(GRID), (), ["Speed and depth", "Sequences side by side"]),
    "sustained": ((result("a"), lasting("a", PLATEAU)), (), ["Sustained"]),
    "energy": ((result("a", energy=[traced()]),), (), ["Energy"]),
    "energy without readings": ((result("a", energy=[energy_of()]),), (), ["Energy"]),
    "a source without figures": (
        (result("a", energy=[Energy(source=energy_of().source, windows=[], reason="x")]),), (), []
    ),
    "memory": ((held("a", {"load": phase()}),), (), ["Memory by phase"]),
    "memory that nobody told": ((held("a", {"load": phase(None)}),), (), []),
    "graphs": ((), (graph(), graph("other")), ["Graphs"]),
}  # fmt: skip


@pytest.mark.parametrize("case", CASES)
def test_each_section_is_there_exactly_when_its_data_is(case: str) -> None:
    results, graphs, expected = CASES[case]
    assert Heads(rendered(*results, graphs=graphs)).sections == expected


@pytest.fixture(scope="module")
def everything() -> str:
    results = [
        *GRID, shaped("a", 4.0, prompt_tokens=9), lasting("a", PLATEAU),
        result("b", energy=[traced(), traced(False)]), held("c", {"load": phase()}),
    ]  # fmt: skip
    return rendered(*results, graphs=(graph(), graph("other")))


def test_the_whole_page_is_alone_accessible_and_repaintable(everything: str) -> None:
    made = Heads(everything)
    assert made.sections == list(SECTIONS)
    tags = {tag for tag, _ in made.elements}
    assert not tags & {"script", "link", "img", "iframe", "object", "embed", "base", "image"}
    addresses = set(re.findall(r"https?://[^\s\"'<>)]+", everything))
    assert addresses <= {svg.NAMESPACE}
    assert not re.search(r"url\((?!#)", everything) and "@import" not in everything
    ids = [a["id"] for _, a in made.elements if a.get("id")]
    assert len(ids) == len(set(ids))
    pictures = [a for t, a in made.elements if t == "svg" and a.get("aria-hidden") != "true"]
    assert len(pictures) >= 11
    assert all(a["role"] == "img" and len(a["aria-label"] or "") > 20 for a in pictures)
    for drawn in re.findall(r"<svg xmlns.*?</svg>", everything, re.DOTALL):
        for element in ElementTree.fromstring(drawn).iter():
            for key in ("fill", "stroke"):
                colour = element.get(key)
                if colour and colour not in ("none", "transparent", *svg.PALETTE):
                    assert f"{key[0]}-{svg.ROLES[colour]}" in element.get("class", "")


def test_the_table_takes_the_plainest_result_and_says_which() -> None:
    corner = shaped("a", 99.0, {"created": "2026-03-01T00:00:00+00:00"}, depth=512, parallel=4)
    found = load.merged([*GRID, corner, lasting("a", PLATEAU)], [])[0]
    rates = [r.figures.decode_tok_per_s for r in found.summary.measured]
    assert [r and r.value for r in rates] == [20.0]
    assert "one of 6 results for each artifact: 128 prompt tokens, 64 generated, depth 0." in (
        found.summary.explanation
    )
    assert found.summary.warnings == []  # nothing was measured twice


def test_the_most_common_workload_wins_over_the_plainest() -> None:
    results = [shaped("a", 1.0), shaped("a", 2.0, depth=9), shaped("b", 3.0, depth=9)]
    chosen = table_results(results).values()
    assert [r.workload.depth for r in chosen] == [9, 9]
    lone = table_results([*results, shaped("c", 4.0, depth=5)]).values()
    assert [r.workload.depth for r in lone] == [9, 9, 5]
    warnings = load.merged([*results, shaped("c", 4.0, depth=5)], [])[0].summary.warnings
    assert any("do not compare" in w for w in warnings)
    assert "c: its row is of 128 prompt tokens, 64 generated, depth 5" in warnings


def test_imported_and_sustained_results_stand_only_in_for_nothing_better() -> None:
    rows = [Repetitions(test="decode", tokens=9, depth=0, seconds=[1.0])]
    imported = shaped("a", 7.0, {"imported": rows, "created": "2027-01-01T00:00:00+00:00"})
    late = lasting("a", PLATEAU, created="2027-01-01T00:00:00+00:00")
    (chosen,) = table_results([result("a", 10.0), imported, late]).values()
    assert chosen.summary.decode_tok_per_s == figure(10.0, "tok/s")
    (chosen,) = table_results([imported, late]).values()
    assert chosen.imported
    (chosen,) = table_results([late]).values()
    assert chosen.workload.mode == "sustained"


def test_failures_are_lines_of_their_machine(tmp_path: Path) -> None:
    for index, document in enumerate((result("a"), failed("b"), graph())):
        write_json(tmp_path / f"{index}.json", document.model_dump(mode="json"))
    output = tmp_path / "page.html"
    answer = CliRunner().invoke(root, ["report", str(tmp_path), "-o", str(output), "--json"])
    assert answer.exit_code == 0, answer.output
    assert '"failed": 1' in answer.stdout and '"graphs": 1' in answer.stdout
    text = output.read_text(encoding="utf-8")
    assert "needs &lt;b&gt;9&lt;/b&gt; GB" in text and "out of memory during load" in text
    with pytest.raises(InputError, match="every measurement failed"):
        load.gather([tmp_path / "1.json"])


def test_a_run_folder_brings_the_results_behind_its_summary(tmp_path: Path) -> None:
    behind = measured_result([10.0], energy=[traced()])
    summary = load.merged([behind], [])[0].summary
    write_json(tmp_path / "summary.json", summary.model_dump(mode="json"))
    for name, made in (("a", behind), ("b", result("stranger")), ("c", shaped("sample", depth=3))):
        write_json(tmp_path / "results" / f"{name}.measure.json", made.model_dump(mode="json"))
    for path in (tmp_path, tmp_path / "summary.json"):
        (chapter,) = load.gather([path])
        assert [r.summary for r in chapter.results] == [behind.summary]
    assert Heads(page.render([chapter])).sections == ["Energy"]


def test_power_is_drawn_as_it_was() -> None:
    for counter in (True, False):
        steps = thin.steps_of(traced(counter).readings, counter)
        assert [s.watts for s in steps if s.end_s <= 1059] == pytest.approx([5.0] * 59)
        assert [s.watts for s in steps if s.start_s >= 1060] == pytest.approx([8.0] * 59)
    # A counter of steps of 36 J at 6 W, read every second: 6 W, not 36 W and nothing.
    slow = [(1.0 * t, math.floor(6.0 * t / 36) * 36.0) for t in range(600)]
    assert all(5 < s.watts < 7 for s in thin.steps_of(slow, True)[1:])
    still = thin.steps_of([(0.0, 5.0), (1.0, 5.0), (2.0, 5.0)], True)
    assert [(s.start_s, s.end_s, s.watts) for s in still] == [(0.0, 2.0, 0.0)]


READINGS = st.lists(st.tuples(st.floats(0, 1e5), st.floats(0, 1e4)), max_size=80)


@given(READINGS, st.integers(1, 20))
def test_thinning_keeps_the_energy(readings: list[tuple[float, float]], most: int) -> None:
    rising = sorted({t: v for t, v in readings}.items())
    counter, total = [], 0.0
    for t, v in rising:
        total += v
        counter.append((t, total))
    steps = thin.steps_of(counter, True, most)
    assert len(steps) <= most + 1
    if steps and math.isclose(steps[0].start_s, rising[0][0]):
        drawn = math.fsum(s.watts * (s.end_s - s.start_s) for s in steps)
        assert drawn == pytest.approx(counter[-1][1] - counter[0][1], rel=1e-6, abs=1e-6)


@given(st.lists(st.floats(1e-9, 1e9), min_size=1, max_size=900))
def test_a_distribution_stays_sorted_and_ends_at_one(values: list[float]) -> None:
    points = thin.quantiles(values)
    assert points == sorted(points) and len(points) <= thin.MOST_POINTS
    assert points[-1] == (max(values), 1.0) and points[0][0] == min(values)


HARD = st.floats() | st.sampled_from([0.0, -1.0, 5e-324, 1e-300, 1e300, 1e15])
FINITE = HARD.filter(math.isfinite)


@settings(max_examples=6, deadline=None, suppress_health_check=list(HealthCheck))
@given(st.lists(FINITE, min_size=4, max_size=4), st.lists(st.tuples(HARD, HARD), max_size=5))
def test_no_number_breaks_a_section(values: list[float], pairs: list[tuple[float, float]]) -> None:
    def hard(index: int, unit: Any) -> Figure:
        return Figure(values[index], unit, "measured", "x")

    found = Sustained(
        burst_tok_per_s=hard(0, "tok/s"), plateau_tok_per_s=hard(1, "tok/s"),
        drop_percent=hard(2, "%"), time_to_plateau_s=values[3], peak_temperature_c=values[0],
        throttled=True,
    )  # fmt: skip
    spans = [min(abs(b), 1e9) for _, b in pairs if not math.isnan(b)]
    rounds = [
        Round(prefill_s=b, ttft_s=b, start_s=a, inter_token_s=[b, b])
        for (a, _), b in zip(pairs, spans, strict=False)
    ]
    states: list[Any] = [{"t_s": a, "temperature_c": b, "cooling": b} for a, b in pairs]
    states += [None, {"t_s": "x"}, {"temperature_c": 3}]
    windows = [Window(phase="decode", start_s=a, end_s=b, joules=b) for a, b in pairs
               if -1e12 <= a < b <= 1e12]  # fmt: skip
    windows.append(Window(phase="prefill", start_s=1, end_s=2, joules=values[0]))
    metered = traced(windows=windows, readings=[*pairs, (1.0, 1.0), (2.0, values[1])],
                     terms={"calibration": values[2]}, idle_before_w=hard(0, "W"))  # fmt: skip
    times = Percentiles(p50=hard(1, "s"), max=hard(2, "s"), samples=1)
    results = []
    for count, depth in ((1, 0), (2, 0), (1, 1_000_000)):
        made = shaped("a", parallel=count, depth=depth)
        summary = made.summary.model_copy(update={
            "decode_tok_per_s": hard(count, "tok/s"), "inter_token_s": times, "ttft_s": times
        })  # fmt: skip
        results.append(made.model_copy(update={"summary": summary, "energy": [metered]}))
    late = lasting("a", found, samples=[Run(load_s=None, phases={}, rounds=rounds)])
    late = late.model_copy(update={"host": {**late.host, "during": states}})
    memory = held("m", {"x": phase(10**30), "y": phase(0, file_bytes=0)})
    vision = graph("v", spans or [0.0])
    text = rendered(*results, late, memory, graphs=(vision, vision))
    assert "Machine and method" in text
    assert not re.search(r'd="[^"]*(NaN|Infinity)', text)


def test_names_from_outside_stay_text_in_every_section() -> None:
    name = '"><script>alert(1)</script>{{ 7 * 7 }}\x00'
    facts = result("a").artifact.model_copy(update={"model": name, "recipe": name})
    source = energy_of().source.model_copy(update={"id": name, "covers": [name]})
    energy = traced(source=source, terms={name: 0.5}, flags=[name], reason=name)
    results = [r.model_copy(update={"artifact": facts}) for r in (*GRID, lasting("a", PLATEAU))]
    results[0] = results[0].model_copy(update={"energy": [energy]})
    summary = load.merged(results, [])[0].summary
    facts_of_graph = graph().graph.model_copy(update={"name": name, "inputs": {name: name}})
    chapter = Chapter(
        summary, results, results[:1], [graph().model_copy(update={"graph": facts_of_graph})],
        [failed("a").model_copy(update={"artifact": facts})],
    )  # fmt: skip
    text = page.render([chapter])
    assert "script" not in {tag for tag, _ in Heads(text).elements}
    assert {"Energy", "Sustained", "Graphs"} <= set(Heads(text).sections)


def test_a_chapter_without_results_has_no_sections() -> None:
    summary = load.merged([result("a")], [])[0].summary
    assert sections.blocks_of(Chapter(summary), Notes(), "s") == []
    assert summary.measured[0].figures != CandidateFigures()
