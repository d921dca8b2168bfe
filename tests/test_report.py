"""The page: what it says and draws, and that it is alone and harmless."""

from __future__ import annotations

import json
import re
import sys
from html.parser import HTMLParser
from pathlib import Path
from xml.etree import ElementTree

import pytest
from click.testing import CliRunner
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from sample_results import evaluation, figure, merged, metered, prediction, result, row, summary

from edgegauge.cli import main, root
from edgegauge.document import write_json
from edgegauge.errors import MissingDependency
from edgegauge.figure import Figure
from edgegauge.report import page
from edgegauge.report.chapter import Chapter
from edgegauge.report.summary import CandidateFigures, CandidateKey, RunSummary, battery_of

pytest.importorskip("vl_convert")
pytest.importorskip("altair")

from edgegauge.report import bars, scatter, svg, view

HOSTILE = (
    "<script>alert(1)</script>",
    "\"><img src=x onerror=alert(1)>' onload=x",
    "]]></style></svg>&lt;\x00\x07\u202e{{ 7 * 7 }}{% raw %}",
    "datum.x + 1'\"\\",
    "w" * 5000,
)


class Page(HTMLParser):
    """The elements of a page, its text, and its ids."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.said: list[str] = []
        self.feed(text)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))

    def handle_data(self, data: str) -> None:
        self.said.append(data)

    @property
    def text(self) -> str:
        return " ".join(" ".join(self.said).split())

    def all(self, tag: str) -> list[dict[str, str | None]]:
        return [attributes for name, attributes in self.elements if name == tag]


def render(summaries: list[RunSummary]) -> str:
    return page.render([Chapter(one) for one in summaries])


@pytest.fixture(scope="module")
def text() -> str:
    return render([summary()])


def titles(drawn: str) -> list[str]:
    return [t.text or "" for t in ElementTree.fromstring(drawn).iter(f"{{{svg.NAMESPACE}}}title")]


def places(drawn: str) -> dict[str, tuple[float, float]]:
    """Where each described mark stands: candidate -> (x, y) in the picture."""
    found = {}
    for element in ElementTree.fromstring(drawn).iter(f"{{{svg.NAMESPACE}}}path"):
        title = element.find(f"{{{svg.NAMESPACE}}}title")
        match = re.match(r"translate\(([-\d.]+),([-\d.]+)\)", element.get("transform", ""))
        if title is not None and title.text and match:
            found[title.text.split(":")[0]] = (float(match[1]), float(match[2]))
    return found


def test_the_page_says_the_verdict_and_every_reason(text: str) -> None:
    made = Page(text)
    for words in (
        "Which model?", "middle q4_0", "is the smallest that meets every limit.",
        "scores 0.5, needs 0.75", "Imagined CPU", "80.0 %", "limit ≥ 75.0 %", "limit ≤ 50.0 MB",
        "A Board", "17 of 40 candidates meet every limit", "8.00 GB", "decode ≥ 5 tok/s",
    ):  # fmt: skip
        assert words in made.text, words
    cells = [a for a in made.all("td") if "broken" in (a.get("class") or "")]
    assert len(cells) == 3  # the quality of the three candidates of the small model
    assert len([a for a in made.all("tr") if a.get("class") == "chosen"]) == 2


def test_every_figure_says_how_it_was_obtained(text: str) -> None:
    made = Page(text)
    hovers = [a["title"] or "" for a in made.all("a")]
    assert "made up" in hovers and "class prior" in hovers and "card 7" in hovers
    decode = figure(1e9 / 4_250_000, "tok/s")
    assert f" {decode.value:.0f} 226\N{EN DASH}245 " in made.text
    sources = {a["id"] for a in made.all("li") if (a.get("id") or "").startswith("source-")}
    links = {(a["href"] or "").removeprefix("#") for a in made.all("a")}
    assert links == sources and len(sources) == 2 + 2 + 39


def test_kinds_are_told_once_where_a_column_has_one_and_in_each_cell_else() -> None:
    notes = view.Notes()
    same = [row("small", "f16"), row("large", "f16")]
    columns = view.table_of(same, None, True, notes).columns
    assert {c.name: (c.kind, c.note) for c in columns[1:3]} == {
        "Decode": ("measured", 1), "Prompt": ("measured", 1)
    }  # fmt: skip
    other = figure(5.0, "tok/s", "predicted", "prior")
    mixed = [same[0], same[1].model_copy(update={"figures": CandidateFigures(
        decode_tok_per_s=other)})]  # fmt: skip
    table = view.table_of(mixed, None, True, notes)
    assert (table.columns[1].kind, table.columns[1].note) == (None, None)
    assert [line.cells[1].kind for line in table.lines] == ["measured", "predicted"]
    assert table.lines[1].cells[2].text == "–"  # noqa: RUF001 (the dash of a missing figure)
    assert "Energy" in table.missing


def test_the_page_is_alone_small_and_runs_nothing(text: str) -> None:
    assert len(text.encode()) < 1_000_000
    made = Page(text)
    tags = {tag for tag, _ in made.elements}
    assert not tags & {"script", "link", "img", "iframe", "object", "embed", "base", "image"}
    assert "form" not in tags
    for _, attributes in made.elements:
        for name, value in attributes.items():
            assert not name.startswith("on")
            if name in ("href", "src"):
                assert value and value.startswith("#")
    addresses = set(re.findall(r"https?://[^\s\"'<>)]+", text))
    assert addresses <= {svg.NAMESPACE}
    assert "@import" not in text and not re.search(r"url\((?!#)", text)
    policy = next(a for a in made.all("meta") if a.get("http-equiv") == "Content-Security-Policy")
    assert (policy["content"] or "").startswith("default-src 'none'")


def test_the_page_is_accessible(text: str) -> None:
    made = Page(text)
    assert made.all("html")[0]["lang"] == "en"
    pictures = [a for a in made.all("svg") if a.get("aria-hidden") != "true"]
    assert len(pictures) == 3
    assert all(a["role"] == "img" and len(a["aria-label"] or "") > 20 for a in pictures)
    assert all(a.get("scope") in ("col", "row") for a in made.all("th"))
    ids = [a["id"] for _, a in made.elements if a.get("id")]
    assert len(ids) == len(set(ids))


def test_marks_stand_where_the_figures_say() -> None:
    drawn = scatter.size_and_quality(summary(), "p")
    assert drawn
    marks = places(drawn)
    assert len(marks) == 9
    assert marks["small q4_0 gguf"][0] < marks["small q8_0 gguf"][0] < marks["small f16 gguf"][0]
    assert marks["large f16 gguf"][1] < marks["middle f16 gguf"][1] < marks["small f16 gguf"][1]
    # On a logarithmic axis equal ratios are equal distances.
    step = marks["small f16 gguf"][0] - marks["small q8_0 gguf"][0]
    assert marks["large f16 gguf"][0] - marks["large q8_0 gguf"][0] == pytest.approx(step, abs=0.01)
    slow = scatter.latency_and_quality(summary(), "p")
    assert slow and places(slow)["small q4_0 gguf"][0] < places(slow)["large f16 gguf"][0]
    assert any(
        re.match(r"middle q4_0 gguf: 2\.25 ms per token, quality 80\.0 %", t) for t in titles(slow)
    )


def test_passing_marks_are_filled_and_the_recommended_one_is_ringed() -> None:
    drawn = scatter.size_and_quality(summary(), "p")
    assert drawn
    marks = [e for e in ElementTree.fromstring(drawn).iter(f"{{{svg.NAMESPACE}}}path") if len(e)]
    hollow = [e for e in marks if e.get("fill") == svg.SURFACE]
    assert len(hollow) == 3 and all("small" in (e[0].text or "") for e in hollow)
    assert drawn.count(">recommended<") == 1
    without = scatter.size_and_quality(summary(recommended=None), "p")
    assert without and ">recommended<" not in without


def test_no_picture_without_two_qualities() -> None:
    assert scatter.size_and_quality(summary(measured=[row("small", "f16")]), "p") is None
    bare = [row(m, "f16", figures=CandidateFigures()) for m in ("small", "large")]
    assert scatter.latency_and_quality(summary(measured=bare), "p") is None
    random = [row(m, "f16", synthetic=True) for m in ("small", "large")]
    assert scatter.size_and_quality(summary(measured=random), "p") is None


def test_the_picture_of_a_device_shows_the_choice_and_the_ones_around_it() -> None:
    shown = [r.model for r in bars.device_rows(prediction())]
    assert len(shown) == bars.MOST_ROWS and shown[3] == "model-3"
    assert shown == sorted(shown, key=lambda name: int(name.split("-")[1]))
    drawn = bars.device_picture(prediction(), "p")
    assert drawn and "model-3 q4_k_m" in drawn and "A Board" in drawn
    assert shown[:3] == ["model-0", "model-1", "model-2"]  # fail, and are next to it in size
    silent = prediction(candidates=[row("x", "y", figures=CandidateFigures())])
    assert bars.device_picture(silent, "p") is None


def test_pictures_can_be_repainted(text: str) -> None:
    for drawn in re.findall(r"<svg xmlns.*?</svg>", text, re.DOTALL):
        for element in ElementTree.fromstring(drawn).iter():
            for key in ("fill", "stroke"):
                colour = element.get(key)
                if colour in (None, "none", "transparent") or colour in svg.PALETTE:
                    continue
                assert colour in svg.ROLES, f"{colour} has no role, so it stays in the dark"
                assert f"{key[0]}-{svg.ROLES[colour]}" in element.get("class", "")


@pytest.mark.parametrize("name", HOSTILE)
def test_names_from_outside_stay_text(name: str) -> None:
    rows = [row(name, r) for r in ("f16", "q8_0")] + [row("m", name)]
    rows = [r.model_copy(update={"reason": name}) for r in rows]
    device = prediction()
    device = device.model_copy(update={
        "device": device.device.model_copy(update={"name": name}), "explanation": name,
        "candidates": [r.model_copy(update={"model": name}) for r in device.candidates[:3]],
    })  # fmt: skip
    key = CandidateKey(model=name, recipe="f16", format="gguf")
    made = summary(title=name, measured=rows, predicted=[device], recommended=key,
                   explanation=name, host={"cpu_model": name, "name": name}, warnings=[name],
                   tools={name: name}, quality_metric=name)  # fmt: skip
    text = render([made])
    parsed = Page(text)
    assert not {tag for tag, _ in parsed.elements} & {"script", "img"}
    assert not any(n.startswith("on") for _, attributes in parsed.elements for n in attributes)
    assert "49" not in parsed.text or "7 * 7" not in name
    if len(name) < 40 and name.isprintable():
        assert name in parsed.text


@pytest.mark.parametrize(
    "changes",
    [
        {"measured": [], "predicted": [], "recommended": None, "budget": {}},
        {"measured": [], "recommended": None},
        {"recommended": None, "predicted": []},
        {"measured": [row("small", "f16", figures=CandidateFigures(), file_bytes=0)]},
        {"host": {}, "tools": {}, "workload": None, "quality_metric": None},
    ],
)
def test_what_is_missing_is_left_out(changes: dict[str, object]) -> None:
    text = render([summary(**changes)])
    assert "None" not in Page(text).text and "nan" not in text.lower()


NUMBERS = st.floats(-1e12, 1e12) | st.sampled_from([0.0, 5e-324, 1e-30, 1e30])


@settings(max_examples=12, deadline=None, suppress_health_check=list(HealthCheck))
@example([(5e-324, 5e-324, 5e-324, 1), (1.0, 1.0, 1.0, 2)])
@given(st.lists(st.tuples(NUMBERS, NUMBERS, NUMBERS, st.integers(0, 2**50)), max_size=4))
def test_no_figure_breaks_the_page(values: list[tuple[float, float, float, int]]) -> None:
    rows = [
        row(f"m{i}", "q8_0", file_bytes=size, figures=CandidateFigures(
            decode_tok_per_s=Figure(speed, "tok/s", "measured", "x"),
            peak_memory_bytes=Figure(memory, "bytes", "measured", "x"),
            quality=Figure(quality, "1", "measured", "x")))
        for i, (speed, memory, quality, size) in enumerate(values)
    ]  # fmt: skip
    device = prediction(candidates=rows, recommended=None)
    assert "Machine and method" in render([summary(measured=rows, predicted=[device])])


def test_energy_and_battery_stand_in_the_table_with_their_meter() -> None:
    (found,) = merged([metered("a"), metered("b", 0.35), result("c")], [])
    made = Page(render([found]))
    for words in (
        "Energy J/token measured", "Tokens per charge measured", "Added drain %/h measured",
        "0.63\N{EN DASH}0.77", "64.6k",
        "Energy: battery:BAT0, grade C, covers whole device (uncalibrated gauge)",
    ):  # fmt: skip
        assert words in made.text, words
    hovers = " ".join(a["title"] or "" for a in made.all("a"))
    assert "3 conversations an hour, each of 4 turns" in hovers and "0.9 health" in hovers
    columns = view.table_of(found.measured, None, True, view.Notes()).columns
    assert [(c.name, c.unit) for c in columns][-5:] == [
        ("Energy", "J/token"), ("Tokens", "per charge"), ("Conversations", "per charge"),
        ("Added drain", "%/h"), ("Decoding", "h on battery"),
    ]  # fmt: skip


def test_a_wide_table_has_its_verdicts_below_the_figures() -> None:
    battery = battery_of(metered("a").summary)
    rows = [
        r.model_copy(update={"figures": r.figures.model_copy(update=battery)})
        for r in summary().measured
    ]
    made = Page(render([summary(measured=rows, predicted=[])]))
    under = [a for a in made.all("tr") if "under" in (a.get("class") or "")]
    assert len(under) == len(rows) and "scores 0.5, needs 0.75" in made.text


def test_without_energy_the_reason_is_told_once() -> None:
    silent = result("a").summary.model_copy(update={"energy_reason": "no meter found"})
    results = [result(name, summary=silent) for name in ("a", "b")]
    (found,) = merged(results, [])
    text = Page(render([found])).text
    assert text.count("No energy figure: no meter found") == 1
    missing = view.table_of(found.measured, None, True, view.Notes()).missing
    assert missing == ["Energy", "Battery", "Quality", "Perplexity"]


def test_a_run_folder_and_loose_files_from_the_command_line(tmp_path: Path) -> None:
    run, loose = tmp_path / "run", tmp_path / "loose"
    write_json(run / "summary.json", summary().model_dump(mode="json"))
    write_json(loose / "results" / "a.json", result("a").model_dump(mode="json"))
    write_json(loose / "b.json", evaluation("b").model_dump(mode="json"))
    output = tmp_path / "page.html"
    answer = CliRunner().invoke(root, ["report", str(run), str(loose), "-o", str(output), "--json"])
    assert answer.exit_code == 0, answer.output
    document = json.loads(answer.stdout)
    assert document["candidates"] == 9 + 1 + 1 and document["devices"] == 1
    assert document["bytes"] == output.stat().st_size
    made = Page(output.read_text(encoding="utf-8"))
    assert len(made.all("h1")) == 3 and "without a budget" in made.text


def test_without_the_extra_nothing_is_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "summary.json"
    write_json(path, summary().model_dump(mode="json"))
    monkeypatch.setitem(sys.modules, "jinja2", None)
    with pytest.raises(MissingDependency):
        render([summary()])
    with pytest.raises(SystemExit) as ended:
        main(["report", str(path), "-o", str(tmp_path / "r.html")])
    assert ended.value.code == 1 and 'pip install "edgegauge[report]"' in capsys.readouterr().err
    assert not (tmp_path / "r.html").exists()
