"""The pytest plugin as a project of its own uses it: what passes, what fails, and how it reads."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from installed_wheel import link, requirements

from edgegauge.errors import InputError
from edgegauge.pytest_plugin import CannotTellWarning, assert_fits

SMALL = ("smollm2-135m", "int4", "gguf")

PROJECT = {
    "pyproject.toml": """
        [tool.pytest.ini_options]
        addopts = ["--strict-markers"]
        edge_devices = ["raspberry-pi-5-4gb", "boards/kitchen.toml"]
        edge_budget = "budgets/assistant.toml"
        """,
    "budgets/assistant.toml": """
        memory = "400MB"
        decode_tok_per_s = 20
        """,
    "boards/kitchen.toml": "",  # a copy of a shipped profile
    "checks/test_models.py": """
        import pytest

        SMALL = ("smollm2-135m", "int4", "gguf")

        def test_ini(assert_fits, edge_device, edge_budget):
            assert_fits(SMALL, edge_device, edge_budget)

        @pytest.mark.edge_devices("raspberry-pi-5-8gb")
        @pytest.mark.edge_budget(
            decode_tok_per_s=35, energy_j_per_token=0.1, quality={"at_least": 60}
        )
        def test_marked(assert_fits, edge_device, edge_budget):
            assert_fits(("smollm2-360m", "int4", "gguf"), edge_device, edge_budget)

        @pytest.mark.edge_devices("raspberry-pi-5-8gb")
        def test_in_doubt(assert_fits, edge_device):
            assert_fits(("smollm2-360m", "int4", "gguf"), edge_device, {"decode_tok_per_s": 35})

        @pytest.mark.edge_budget("budgets/assistant.toml", memory="90MB")
        def test_file_and_limit(assert_fits, edge_budget):
            assert_fits(SMALL, "raspberry-pi-5-8gb", edge_budget)

        def test_no_artifact(assert_fits):
            assert_fits("nowhere.gguf", "raspberry-pi-5-8gb")

        @pytest.mark.edge_devices("raspberry-pi-5-8gbb")
        def test_no_device(edge_device):
            pass

        @pytest.mark.edge_budget("nowhere.toml")
        def test_no_budget(edge_budget):
            pass
        """,
}
"""A project with a budget, a board of its own, and tests."""


def write_project(folder: Path) -> Path:
    for name, text in PROJECT.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(re.sub("^ {8}", "", text, flags=re.M))
    shipped = Path(__file__).parents[1] / "device_profiles" / "raspberry-pi-zero-2-w.toml"
    (folder / "boards/kitchen.toml").write_text(shipped.read_text())
    return folder


def run_tests(
    folder: Path, *arguments: str, python: str = sys.executable, **environment: str
) -> str:
    """What pytest says in this project."""
    return subprocess.run(
        [python, "-m", "pytest", "-p", "no:cacheprovider", *arguments],
        cwd=folder, env=os.environ | environment, capture_output=True, text=True, check=False,
    ).stdout  # fmt: skip


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_project(tmp_path_factory.mktemp("project"))


@pytest.fixture(scope="module")
def said(project: Path) -> str:
    return run_tests(project)


def failure(said: str, test: str) -> list[str]:
    """The lines of pytest's own words in the section of one test."""
    heading = rf"^_+ (?:ERROR at setup of )?{re.escape(test)} _+$"
    found = re.search(rf"{heading}(.*?)^(?:_{{3}}|={{3}})", said, re.M | re.S)
    assert found, said
    return failure_lines(found[1])


def failure_lines(section: str) -> list[str]:
    return [line.removeprefix("E  ").strip() for line in section.splitlines() if line[:1] == "E"]


def masked(lines: list[str]) -> list[str]:
    """Without figures: what is predicted may change."""
    return [re.sub("[0-9.]+", "N", line) for line in lines]


def last_line(said: str) -> str:
    """What came of all tests together."""
    return re.sub(" in [0-9.]+s.*", "", said.strip().splitlines()[-1]).strip("= ")


def test_runs_once_for_each_device(said: str) -> None:
    assert "test_ini[kitchen]" in said
    assert "test_ini[raspberry-pi-5-4gb]" not in said  # passes
    assert last_line(said) == "4 failed, 2 passed, 1 warning, 2 errors"


def test_failures_read_like_fit(said: str) -> None:
    (first, *broken) = failure(said, "test_ini[kitchen]")
    assert first == ("AssertionError: smollm2-135m q4_k_m gguf does not fit Raspberry Pi Zero 2 W:")
    assert masked(broken) == ["decodes at ~N tok/s, N tok/s required"]
    assert masked(failure(said, "test_marked[raspberry-pi-5-8gb]"))[1:] == [
        "takes ~N J/token, N J/token allowed",
        "scores N % on avgN_Nshot, N % required",
        "cannot tell:",
        "decodes at ~N tok/s, N tok/s required, but may be anything from N tok/s to N tok/s",
    ]


def test_no_frame_of_edgegauge_is_shown(said: str) -> None:
    assert "pytest_plugin.py" not in said
    assert "checks/test_models.py:" in said


def test_doubt_is_a_warning(said: str) -> None:
    assert "CannotTellWarning: nobody can tell whether smollm2-360m q4_k_m gguf fits" in said


def test_marker_takes_file_and_limits(said: str) -> None:
    assert any("90.0 MB allowed" in line for line in failure(said, "test_file_and_limit"))


def test_what_is_not_there_is_named_with_a_hint(said: str, project: Path) -> None:
    assert failure(said, "test_no_artifact") == [
        "edgegauge.errors.InputError: no such artifact: nowhere.gguf"
    ]
    assert f"cannot read {project}/nowhere.toml: No such file" in said
    assert "no device profile 'raspberry-pi-5-8gbb'; did you mean raspberry-pi-5-8gb" in said
    assert "hint: edgegauge devices list shows all ids" in said


def test_the_option_goes_before_the_ini_value_and_after_the_marker(project: Path) -> None:
    said = run_tests(
        project / "checks", "-v", "-k", "ini or marked",
        "--edge-device", "google-pixel-8-8gb", "--edge-device", "../boards/kitchen.toml",
    )  # fmt: skip
    assert sorted(re.findall(r"(test_\w+\[.*\]) [PF]", said)) == [
        "test_ini[google-pixel-8-8gb]", "test_ini[kitchen]", "test_marked[raspberry-pi-5-8gb]",
    ]  # fmt: skip
    assert failure(said, "test_ini[kitchen]")[0].endswith("does not fit Raspberry Pi Zero 2 W:")


def test_without_a_device_the_test_says_how_to_name_one(tmp_path: Path) -> None:
    (tmp_path / "test_it.py").write_text("def test_it(edge_device): pass\n")
    said = run_tests(tmp_path)
    assert "edge_device: no device is named; mark the test with" in said
    assert "1 error" in said


def test_function_works_where_plugins_are_off(tmp_path: Path) -> None:
    (tmp_path / "test_it.py").write_text(
        "from edgegauge.pytest_plugin import assert_fits\n"
        f"def test_it(): assert_fits({SMALL}, 'raspberry-pi-zero-2-w', {{'file_size': '1MB'}})\n"
    )
    said = run_tests(tmp_path, PYTEST_DISABLE_PLUGIN_AUTOLOAD="1")
    assert "edgegauge" not in said.split("collected")[0]
    assert failure(said, "test_it")[1].endswith(" on disk, 1.00 MB allowed")


def test_the_page_shows_what_happens(tmp_path: Path) -> None:
    page = (Path(__file__).parents[1] / "docs/how-to/test-with-pytest.md").read_text()
    for name, text in re.findall(r"```\w+\n# (\S+)\n(.*?)```", page, re.S):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(text)
    said = run_tests(tmp_path)
    assert last_line(said) == "1 failed, 2 passed"
    (shown,) = re.findall(r"```text\n(.*?)```", page, re.S)
    assert shown.splitlines()[0] in said
    seen = failure(said, "test_assistant[raspberry-pi-zero-2-w]")
    assert masked(seen) == masked(failure_lines(shown))


def test_unused_plugin_imports_nothing_else_of_edgegauge() -> None:
    program = (
        "import sys, pytest, edgegauge.pytest_plugin\n"
        "print(sorted(m for m in sys.modules if m.split('.')[0] in ('edgegauge', 'pydantic')))"
    )
    printed = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True
    ).stdout
    assert printed.strip() == "['edgegauge', 'edgegauge.pytest_plugin']"


def test_checks_are_returned() -> None:
    checks = assert_fits(SMALL, "raspberry-pi-5-8gb", {"file_size": "1GB"})
    assert [(check.limit, check.outcome) for check in checks] == [
        ("memory", "pass"), ("file_size", "pass"),
    ]  # fmt: skip
    with pytest.warns(CannotTellWarning, match="nobody can tell whether") as caught:
        assert_fits(
            ("smollm2-360m", "int4", "gguf"), "raspberry-pi-5-8gb", {"decode_tok_per_s": 35}
        )
    assert caught[0].filename == __file__


def test_function_says_the_hint() -> None:
    with pytest.raises(InputError, match="no device profile") as caught:
        assert_fits(SMALL, "nowhere")
    assert caught.value.__notes__ == [f"hint: {caught.value.hint}"]


@pytest.mark.slow
def test_the_wheel_brings_the_plugin(installed: Path, project: Path, said: str) -> None:
    """The project's tests where only the wheel, what it brings and pytest are installed."""
    link(installed.parent, {"pytest", *requirements("pytest", set())})
    there = run_tests(project, python=str(installed / "python"), PYTHONPATH="")
    assert last_line(there) == last_line(said)
    assert failure(there, "test_ini[kitchen]") == failure(said, "test_ini[kitchen]")
