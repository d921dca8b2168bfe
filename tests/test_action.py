"""The composite action: its steps are executed as a runner would, against a small gate."""

from __future__ import annotations

import os
import re
import subprocess
import tomllib
import xml.etree.ElementTree as ET
from pathlib import Path
from typing import Any

import pytest
import yaml
from installed_wheel import link, requirements

from edgegauge.check.gate import Gate
from edgegauge.cli.check import command
from edgegauge.document import parse

ROOT = Path(__file__).parents[1]
ACTION = yaml.safe_load((ROOT / "action.yml").read_text())
STEPS = ACTION["runs"]["steps"]

GATE = """
devices = ["raspberry-pi-5-8gb"]
[budget]
memory = "{memory}"
[[subject]]
model = "smollm2-135m"
formats = ["gguf"]
recipes = ["int4"]
"""


def test_inputs_are_declared_used_and_never_part_of_a_script() -> None:
    used = [name for step in STEPS for name in re.findall(r"inputs\.([a-z-]+)", str(step["env"]))]
    assert sorted(used) == sorted(ACTION["inputs"])
    assert all(entry["description"] for entry in ACTION["inputs"].values())
    assert not any("${{" in step["run"] for step in STEPS)


def test_the_page_shows_inputs_and_files_that_exist() -> None:
    page = (ROOT / "docs/how-to/gate-in-ci.md").read_text()
    blocks = re.findall(r"```(yaml|toml)\n(.*?)```", page, re.S)
    workflow, gitlab = (yaml.safe_load(text) for kind, text in blocks if kind == "yaml")
    *others, ours = [step for step in workflow["jobs"]["gate"]["steps"]]
    assert all(re.search("@[0-9a-f]{40}$", step["uses"]) for step in others)
    assert set(ours["with"]) <= set(ACTION["inputs"])
    assert {"gate", *re.findall(r"^\| `([a-z-]+)` \|", page, re.M)} == set(ACTION["inputs"])
    (check,) = [line for line in gitlab["gate"]["script"] if line.startswith("edgegauge check")]
    command.make_context("check", check.split()[2:])
    (gate,) = [text for kind, text in blocks if kind == "toml"]
    parse(tomllib.loads(gate), Gate, "the page")


def test_nothing_foreign_is_executed() -> None:
    assert ACTION["runs"]["using"] == "composite"
    assert [set(step) for step in STEPS] == [{"name", "shell", "env", "run"}] * len(STEPS)
    assert {step["shell"] for step in STEPS} == {"bash"}


class Runner:
    """What a runner gives a step: a folder, inputs and variables."""

    def __init__(self, folder: Path, wheel: Path) -> None:
        self.workspace, self.temp = folder / "work", folder / "temp"
        self.summary = folder / "summary.md"
        self.workspace.mkdir()
        self.temp.mkdir()
        self.variables = {
            "PATH": os.environ["PATH"], "HOME": str(folder), "RUNNER_TEMP": str(self.temp),
            "GITHUB_ACTIONS": "true", "GITHUB_WORKSPACE": str(self.workspace),
            "GITHUB_STEP_SUMMARY": str(self.summary),
            "GITHUB_ACTION_PATH": str(wheel),  # pip installs a folder or a wheel in the same way
            "PIP_NO_INDEX": "1",
        }  # fmt: skip

    def execute(self, step: dict[str, Any], **inputs: str) -> subprocess.CompletedProcess[str]:
        """One step, as `shell: bash` is executed."""
        values = {name: entry.get("default", "") for name, entry in ACTION["inputs"].items()}
        values |= {name.replace("_", "-"): value for name, value in inputs.items()}
        given = {
            key: re.sub(r"\$\{\{ inputs\.([a-z-]+) \}\}", lambda m: values[m[1]], text)
            for key, text in step["env"].items()
        }
        command = ["bash", "--noprofile", "--norc", "-eo", "pipefail", "-c", step["run"]]
        return subprocess.run(
            command, cwd=self.workspace, env=self.variables | given, stdin=subprocess.DEVNULL,
            capture_output=True, text=True, check=False,
        )  # fmt: skip


@pytest.fixture(scope="module")
def runner(built: Path, tmp_path_factory: pytest.TempPathFactory) -> Runner:
    """A runner on which the action's first steps have installed edgegauge."""
    (wheel,) = built.glob("*.whl")
    runner = Runner(tmp_path_factory.mktemp("runner"), wheel)
    environment, install = STEPS[:2]
    done = runner.execute(environment)
    assert done.returncode == 0, done.stderr
    # Without a network, what edgegauge needs has to be there already.
    link(runner.temp / "edgegauge", requirements("edgegauge", set()))
    done = runner.execute(install)
    assert done.returncode == 0, done.stderr
    return runner


@pytest.mark.slow
def test_artifacts_are_prepared_with_edgegauge_on_the_path(runner: Runner) -> None:
    prepare = STEPS[2]
    done = runner.execute(prepare, prepare="edgegauge --version >made; which edgegauge")
    assert done.stdout.strip() == str(runner.temp / "edgegauge/bin/edgegauge")
    assert (runner.workspace / "made").read_text().startswith("edgegauge ")
    assert runner.execute(prepare, prepare="false; true").returncode == 1
    assert runner.execute(prepare).returncode == 0


@pytest.mark.slow
def test_a_gate_that_holds(runner: Runner) -> None:
    (runner.workspace / "the gate.toml").write_text(GATE.format(memory="1GB"))
    done = runner.execute(STEPS[-1], gate="the gate.toml", junit="out/gate.xml")
    assert done.returncode == 0, done.stderr
    assert "1 of 1 pass: the gate holds" in done.stdout
    assert ET.parse(runner.workspace / "out/gate.xml").getroot().get("failures") == "0"
    assert "smollm2-135m" in runner.summary.read_text()
    assert "::error" not in done.stdout + done.stderr


@pytest.mark.slow
def test_a_gate_that_is_broken(runner: Runner) -> None:
    (runner.workspace / "gate.toml").write_text(GATE.format(memory="90MB"))
    runner.summary.unlink(missing_ok=True)
    done = runner.execute(STEPS[-1], gate="gate.toml")
    assert done.returncode == 3
    assert "::error file=gate.toml" in done.stderr
    assert "90.0 MB allowed" in runner.summary.read_text()


@pytest.mark.slow
def test_a_baseline_is_written(runner: Runner) -> None:
    gate = runner.workspace / "kept.toml"
    gate.write_text(GATE.format(memory="1GB") + "[baseline]\n")
    assert runner.execute(STEPS[-1], gate="kept.toml").returncode == 1
    done = runner.execute(STEPS[-1], gate="kept.toml", update_baseline="true")
    assert done.returncode == 0, done.stderr
    assert gate.with_name("kept.baseline.json").exists()
    assert runner.execute(STEPS[-1], gate="kept.toml").returncode == 0
