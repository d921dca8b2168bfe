"""The reports of a gate: table, JSON, JUnit XML, Markdown, annotations, with any names."""

from __future__ import annotations

import json
import re
from pathlib import Path
from xml.etree import ElementTree

import pytest
from gates import PI, ZERO, write_artifact, write_gate
from hypothesis import given
from hypothesis import strategies as st

from edgegauge.check.annotations import MOST_SHOWN, workflow_commands
from edgegauge.check.junit import junit
from edgegauge.check.markdown import MOST_ROWS, markdown
from edgegauge.check.outcome import OUTCOMES, Cell, Check, Outcome, Report
from edgegauge.cli import main
from edgegauge.figure import Figure

GATE = f"""devices = ["{PI}", "{ZERO}"]
title = "What the app ships"
[budget]
decode_tok_per_s = 10
[[subject]]
model = "smollm2-135m"
formats = ["gguf"]
recipes = ["q4_0", "q8_0"]
[[subject]]
model = "llama-3.2-1b"
formats = ["gguf"]
recipes = ["q4_0"]
"""


def check(outcome: Outcome, says: str = "said", limit: str = "memory") -> Check:
    figure = Figure(1.0, "bytes", "predicted", "test")
    return Check(limit=limit, outcome=outcome, required=2.0, figure=figure, says=says)


def report(*cells: Cell, breaks_on_doubt: bool = False, title: str = "t") -> Report:
    return Report(
        edgegauge="0", title=title, gate="ci/gate.toml", cells=list(cells), notes=[],
        cannot_tell="breaks" if breaks_on_doubt else "passes",
    )  # fmt: skip


def run(capsys: pytest.CaptureFixture[str], *arguments: object) -> tuple[int, str, str]:
    with pytest.raises(SystemExit) as ended:
        main(["check", *map(str, arguments)])
    out = capsys.readouterr()
    return int(ended.value.code or 0), out.out, out.err


# What CI systems read of a JUnit file: the schema of Jenkins' xUnit plugin (junit-10.xsd), in which
# attributes and children have to be known, and GitLab's and GitHub's readers take the same.

JUNIT = {
    "testsuites": ({"name", "tests", "failures", "errors", "time"}, set(), {"testsuite"}),
    "testsuite": (
        {"name", "tests", "failures", "errors", "skipped", "time", "timestamp", "hostname"},
        {"name", "tests", "failures", "errors"},
        {"testcase", "properties", "system-out", "system-err"},
    ),
    "testcase": (
        {"name", "classname", "time", "assertions", "status"},
        {"name"},
        {"failure", "error", "skipped", "system-out", "system-err"},
    ),
    "failure": ({"message", "type"}, set(), set()),
    "skipped": ({"message", "type"}, set(), set()),
}


def strict(text: str) -> ElementTree.Element:
    """The document, if a strict reader takes it: known names only, and counts that are true."""
    root = ElementTree.fromstring(text.encode())
    assert root.tag == "testsuites"
    for element in root.iter():
        known, needed, children = JUNIT[element.tag]
        assert needed <= set(element.attrib) <= known, element.attrib
        assert {child.tag for child in element} <= children
        if element.tag in ("testsuites", "testsuite"):
            for key, tag in (("tests", "testcase"), ("failures", "failure"), ("errors", "error")):
                assert int(element.attrib[key]) == len(list(element.iter(tag)))
        if "skipped" in element.attrib:
            assert int(element.attrib["skipped"]) == len(list(element.iter("skipped")))
    return root


def test_junit_has_a_case_for_each_check() -> None:
    found = report(
        Cell(subject="a.gguf", device=PI, checks=[check("pass"), check("fail", "too big", "x")]),
        Cell(subject="a.gguf", device=None, checks=[check("cannot tell", "who knows")]),
    )
    root = strict(junit(found))
    assert [s.get("name") for s in root] == [PI, "any device"]
    assert [c.get("name") for c in root.iter("testcase")] == ["memory", "x", "memory"]
    failure, skipped = root.find(".//failure"), root.find(".//skipped")
    assert failure is not None and failure.get("message") == "too big"
    assert skipped is not None and skipped.text == "who knows"
    strictly = strict(junit(found.model_copy(update={"cannot_tell": "breaks"})))
    assert strictly.get("failures") == "2" and strictly.find(".//skipped") is None


hostile = st.text(max_size=30) | st.sampled_from([
    "<script>", "]]>", "&amp;", "a\x00b\x1b[31m", "\ud800", "\ufffe", "x|y", "::error::",
    "%0A", "\r\n::stop", "</details>", "`a`", "<!--", "\u202e", "@team", "[a](javascript:b)",
    '"', "a\x85b\u2028c",
])  # fmt: skip


@given(hostile, hostile, hostile)
def test_names_from_outside_stay_text(subject: str, device: str, says: str) -> None:
    try:
        found = report(
            Cell(subject=subject, device=device or None, checks=[check("fail", says)], advice=says),
            Cell(subject=subject, device=None, checks=[check("pass", says)]), title=subject or "t",
        )  # fmt: skip
    except ValueError:  # a lone surrogate is no text for pydantic either
        return
    cases = list(strict(junit(found)).iter("testcase"))
    assert len(cases) == 2
    text = markdown(found)
    rows = [line for line in text.split("\n") if line.startswith("|")]
    assert len(rows) == 2 * 3 and len(re.findall(r"(?<!\\)\|", rows[2])) == 4
    assert not re.search(r"(?<!\\)<(?!br>|/?details>|/?summary>)", text)
    (line,) = workflow_commands(found, Path("/nowhere"))
    assert "\n" not in line and "\r" not in line
    head, _, message = line.removeprefix("::error ").partition("::")
    assert head.count(",") == 1 and head.count("=") >= 2
    assert "%" not in re.sub("%(25|0A|0D|2C|3A)", "", head + message)


def test_annotations_say_where_what_and_how_many_more(tmp_path: Path) -> None:
    cells = [Cell(subject=f"m{i}", device=PI, checks=[check("fail", "5 % over\nat all")])
             for i in range(MOST_SHOWN + 5)]  # fmt: skip
    cells.append(Cell(subject="a:b,c", device=None, checks=[check("cannot tell", "a: b, c")]))
    found = report(*cells).model_copy(update={"gate": str(tmp_path / "ci" / "gate.toml")})
    *errors, warning = workflow_commands(found, tmp_path)
    assert len(errors) == MOST_SHOWN
    assert errors[0] == f"::error file=ci/gate.toml,title=m0 on {PI}::fail: 5 %25 over%0Aat all"
    assert errors[-1] == "::error file=ci/gate.toml,title=t::fail: 6 more, see the summary"
    assert warning == "::warning file=ci/gate.toml,title=a%3Ab%2Cc::cannot tell: a: b, c"


def test_markdown_is_small_enough_for_a_summary() -> None:
    for character, rows in (("x", MOST_ROWS[0]), ("\U0001f600", MOST_ROWS[1])):
        long = character * 5000
        cells = [Cell(subject=f"{i} {long}", device=long, checks=[check("fail", long)] * 3)
                 for i in range(1000)]  # fmt: skip
        text = markdown(report(*cells))
        assert len(text.encode()) < 1024**2 and f"| {1000 - rows} more |" in text
    worst = [Cell(subject=f"{i} {long}", device=long, checks=[check(outcome, long)] * 10)
             for i in range(100) for outcome in OUTCOMES]  # fmt: skip
    assert len(markdown(report(*worst)).encode()) < 1024**2


# The command.


def test_the_table_shows_failures_first_and_the_status_is_the_verdict(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    gate = write_gate(tmp_path, GATE)
    status, out, err = run(capsys, gate)
    lines = [line.split()[0] for line in out.splitlines() if line.startswith(("fail", "?", "ok"))]
    assert status == 3 and lines == sorted(lines, key=["fail", "?", "ok"].index)
    assert "What the app ships" in out and "needs ~" in out and "345.0 MB allowed" in out
    assert "--advice: what each change would do" in out
    assert out.splitlines()[-1].endswith("the gate is broken") and err == ""
    gate.write_text(GATE.replace("= 10", "= 1").replace("llama-3.2-1b", "smollm-135m"))
    status, out, _ = run(capsys, gate)
    assert status == 0 and out.splitlines()[-1] == "6 of 6 pass: the gate holds"
    assert len(run(capsys, gate, "--all")[1].splitlines()) > len(out.splitlines())


def test_the_document_is_all_that_stdout_gets(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    summary = tmp_path / "summary.md"
    summary.write_text("before\n")
    monkeypatch.setenv("GITHUB_ACTIONS", "true")
    monkeypatch.setenv("GITHUB_WORKSPACE", str(tmp_path))
    monkeypatch.setenv("GITHUB_STEP_SUMMARY", str(summary))
    gate = write_gate(tmp_path, GATE)
    files = tmp_path / "out" / "j.xml", tmp_path / "out" / "r.md"
    status, out, err = run(capsys, gate, "--json", "--junit", files[0], "--markdown", files[1])
    document = json.loads(out)
    assert status == 3 and document["breaks"] and document["format"] == 1
    first = document["cells"][0]
    assert first["subject"] == "smollm2-135m q4_0 gguf" and first["device"] == PI
    assert {c["limit"] for c in first["checks"]} == {"memory", "decode_tok_per_s"}
    assert {c["outcome"] for c in document["cells"]} >= {"pass", "fail"}
    assert int(strict(files[0].read_text()).attrib["failures"]) > 0
    assert "::error file=gate.toml,title=" in err
    assert summary.read_text() == "before\n" + files[1].read_text() + "\n"


def test_what_is_wrong_with_the_files_is_status_1_and_wrong_usage_2(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    status, out, err = run(capsys, tmp_path / "none.toml")
    assert status == 1 and out == "" and "cannot read" in err
    gate = write_gate(tmp_path, "[[subject]]\nartifact = 'a.gguf'\n")
    status, _, err = run(capsys, gate)
    assert status == 1 and "subject.0: no such artifact" in err and "@ " in err
    assert run(capsys)[0] == 2
    write_artifact(tmp_path / "a.gguf")
    assert run(capsys, gate)[0] == 0
    status, _, err = run(capsys, gate, "--update-baseline")
    assert status == 1 and "has no [baseline]" in err


def test_a_terminal_is_given_no_orders(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_artifact(tmp_path / "a\x1b[2J[red]\nb.gguf")
    status, out, _ = run(capsys, write_gate(tmp_path, "[[subject]]\nartifact = '*.gguf'\n"))
    assert status == 0 and "a [2J[red] b.gguf" in out and "\x1b[2J" not in out


def test_notes_are_warnings(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = write_artifact(tmp_path / "a.gguf", size=2000)
    gate = write_gate(tmp_path, "[[subject]]\nartifact = 'a.gguf'\n[baseline]\n")
    assert run(capsys, gate, "--update-baseline")[0] == 0
    write_artifact(path, size=1000)
    status, _, err = run(capsys, gate)
    assert status == 0 and "50 % less than the baseline's 2.00 kB" in err
